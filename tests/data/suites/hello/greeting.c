// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <linux/version.h>
#include <string.h>
#include <unistd.h>

#include "../kselftest_harness.h"

FIXTURE(words)
{
	char text[16];
};

FIXTURE_SETUP(words)
{
	int fd = open("words", O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_GT(read(fd, self->text, sizeof(self->text) - 1), 0);
	close(fd);
}

FIXTURE_TEARDOWN(words)
{
}

TEST_F(words, are_beside_the_program)
{
	EXPECT_EQ(0, strncmp(self->text, "hello", 5));
}

TEST(headers_are_those_of_the_kernel)
{
	EXPECT_GE(LINUX_VERSION_CODE, KERNEL_VERSION(6, 12, 0));
}

TEST(one_may_skip)
{
	SKIP(return, "not today");
}

TEST_HARNESS_MAIN
