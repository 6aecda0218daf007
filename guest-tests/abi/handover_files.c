// SPDX-License-Identifier: GPL-2.0
/* Two calls for one open file: the second waits for the first, and the thread for neither. */
#include <linux/userfaultfd.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* The second read waits for the first, which has the line discipline of the terminal. */
IN_EITHER_THREAD(two_reads_of_a_terminal)
{
	struct submission s[2];
	int master, slave, i, round;
	char text[2][8];

	master = posix_openpt(O_RDWR | O_NOCTTY);
	CHECK(master >= 0 && !grantpt(master) && !unlockpt(master));
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	CHECK(slave >= 0);
	for (round = 0; round < 5; round++) {
		memset(text, 0, sizeof(text));
		for (i = 0; i < 2; i++)
			TRY(submit_sleeping(&s[i], __NR_read, ARGS(slave, P(text[i]), 8)));
		TRY(hand_over(2));
		CHECK_EQ(2, counter("outstanding"));
		CHECK_EQ(2, write(master, "a\n", 2));
		/* Whichever it is that gets the line. */
		CHECK(becomes_true(counter("outstanding") == 1));
		CHECK_EQ(2, write(master, "b\n", 2));
		for (i = 0; i < 2; i++)
			TRY(ends_with(&s[i], 2));
		CHECK(text[0][0] != text[1][0]);
		CHECK_EQ('a' + 'b', text[0][0] + text[1][0]);
	}
	close(master);
	close(slave);
	return NULL;
}

/* The first read waits for the page that it reads to, and has the position of the file. */
IN_EITHER_THREAD(two_reads_of_a_file)
{
	static char zeroes[4096] __attribute__((aligned(4096)));
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_copy copy = { .src = P(zeroes), .len = sizeof(zeroes) };
	struct uffdio_api api = { .api = UFFD_API };
	struct submission first, second;
	char *page, text[8] = "", path[] = "/tmp/async_twice.XXXXXX";
	int uffd, fd;

	/* A file with a name: others have no lock for their position. */
	fd = mkstemp(path);
	CHECK(fd >= 0);
	CHECK_EQ(0, unlink(path));
	CHECK_EQ(6, write(fd, "abcdef", 6));
	CHECK_EQ(0, lseek(fd, 0, SEEK_SET));
	uffd = raw_call(__NR_userfaultfd, O_CLOEXEC);
	CHECK(uffd >= 0);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	CHECK_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	range.range.start = P(page);
	range.range.len = 4096;
	CHECK_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &range));

	TRY(submit_sleeping(&first, __NR_read, ARGS(fd, P(page), 3)));
	TRY(submit_sleeping(&second, __NR_read, ARGS(fd, P(text), 3)));
	TRY(hand_over(2));
	CHECK_EQ(0, text[0]);
	CHECK_EQ(second.cookie, result_of(&second.result));
	copy.dst = P(page);
	CHECK_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	TRY(ends_with(&first, 3));
	TRY(ends_with(&second, 3));
	/* One after the other: none of both is lost, or read twice. */
	CHECK(!memcmp("abc", page, 3));
	CHECK(!strcmp("def", text));
	CHECK_EQ(6, lseek(fd, 0, SEEK_CUR));
	close(uffd);
	close(fd);
	return NULL;
}

TEST_HARNESS_MAIN
