// SPDX-License-Identifier: GPL-2.0
/*
 * async_submit refuses: which error, in which order, and that neither the call ran nor the
 * result word changed.
 */
#include "calls.h"
#include "../kselftest_harness.h"

#define UNKNOWN_FLAG	(1UL << 31)

FIXTURE(refusal)
{
	int fds[2];
	long result;
};

FIXTURE_SETUP(refusal)
{
	self->result = UNTOUCHED;
	ASSERT_EQ(0, pipe2(self->fds, O_NONBLOCK));
}

/* Each test submits a write into the pipe, or nothing that could: the pipe stays empty. */
FIXTURE_TEARDOWN(refusal)
{
	char byte;

	EXPECT_EQ(-1, read(self->fds[0], &byte, 1));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(UNTOUCHED, self->result);
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
}

TEST_F(refusal, unknown_flags)
{
	unsigned int bit;

	for (bit = 4; bit < 32; bit++) {
		EXPECT_EQ(-EINVAL, async_submit(1UL << bit, &self->result, __NR_write,
						ARGS(self->fds[1], P("x"), 1)))
			TH_LOG("flag bit %u", bit);
		EXPECT_EQ(-EINVAL, async_submit(1UL << bit | ASYNC_SUBMIT_OFFLOAD, &self->result,
						__NR_write, ARGS(self->fds[1], P("x"), 1)))
			TH_LOG("flag bit %u", bit);
	}
}

TEST_F(refusal, fd_without_a_flag_that_takes_one)
{
	unsigned int bit;

	for (bit = 32; bit < 64; bit++)
		EXPECT_EQ(-EINVAL, async_submit(1UL << bit, &self->result, __NR_write,
						ARGS(self->fds[1], P("x"), 1)))
			TH_LOG("flag bit %u", bit);
}

TEST_F(refusal, number_that_is_no_system_call)
{
	static const long numbers[] = {
		-1, -2, LONG_MIN, INT_MIN, LONG_MAX, INT_MAX, UINT_MAX, 511, 551, 552, 4096,
		1L << 32, 1L << 62,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(numbers); i++)
		EXPECT_EQ(-ENOSYS, async_submit(0, &self->result, numbers[i], ARGS(0)))
			TH_LOG("number %ld", numbers[i]);
}

TEST_F(refusal, number_is_a_long)
{
	/* The low half alone would be a write. */
	EXPECT_EQ(-ENOSYS, async_submit(0, &self->result, 1L << 32 | __NR_write,
					ARGS(self->fds[1], P("x"), 1)));
	EXPECT_EQ(-ENOSYS, async_submit(ASYNC_SUBMIT_OFFLOAD, &self->result,
					1L << 63 | __NR_write, ARGS(self->fds[1], P("x"), 1)));
}

TEST_F(refusal, refused_call)
{
	EXPECT_EQ(-EOPNOTSUPP, async_submit(0, &self->result, __NR_exit_group, ARGS(99)));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(ASYNC_SUBMIT_OFFLOAD, &self->result,
					    __NR_exit_group, ARGS(99)));
}

TEST_F(refusal, offloaded_in_place_call)
{
	EXPECT_EQ(-EOPNOTSUPP, async_submit(ASYNC_SUBMIT_OFFLOAD, &self->result, __NR_gettid,
					    ARGS(0)));
}

TEST_F(refusal, unreadable_arguments)
{
	const size_t page = getpagesize();
	void *none = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const void *bad[] = { NULL, BAD_ADDRESS, none };
	size_t i;

	ASSERT_NE(MAP_FAILED, none);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EFAULT, async_submit(0, &self->result, __NR_getppid, bad[i]));
		EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, &self->result, __NR_getppid,
						bad[i]));
	}
}

TEST_F(refusal, all_six_arguments_are_read)
{
	const size_t page = getpagesize();
	unsigned long *end, *args;
	char *map;
	int known;

	map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, mprotect(map + page, page, PROT_NONE));
	end = (unsigned long *)(map + page);
	for (known = 3; known < 6; known++) {
		args = end - known;
		args[0] = self->fds[1];
		args[1] = P("x");
		args[2] = 1;
		EXPECT_EQ(-EFAULT, async_submit(0, &self->result, __NR_write, args));
	}
}

TEST_F(refusal, unwritable_result)
{
	const size_t page = getpagesize();
	void *none = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *reads = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *bad[] = { NULL, BAD_ADDRESS, none, reads };
	size_t i;

	ASSERT_NE(MAP_FAILED, none);
	ASSERT_NE(MAP_FAILED, reads);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EFAULT, async_submit(0, bad[i], __NR_write,
						ARGS(self->fds[1], P("x"), 1)))
			TH_LOG("result %zu", i);
		EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, bad[i], __NR_write,
						ARGS(self->fds[1], P("x"), 1)))
			TH_LOG("result %zu, offloaded", i);
	}
}

TEST_F(refusal, flags_are_checked_before_all_else)
{
	EXPECT_EQ(-EINVAL, async_submit(UNKNOWN_FLAG, &self->result, -1, ARGS(0)));
	EXPECT_EQ(-EINVAL, async_submit(UNKNOWN_FLAG, &self->result, __NR_exit, ARGS(99)));
	EXPECT_EQ(-EINVAL, async_submit(UNKNOWN_FLAG, &self->result, __NR_getppid, NULL));
	EXPECT_EQ(-EINVAL, async_submit(UNKNOWN_FLAG, NULL, __NR_getppid, ARGS(0)));
}

TEST_F(refusal, number_is_checked_before_arguments_and_result)
{
	EXPECT_EQ(-ENOSYS, async_submit(0, &self->result, -1, NULL));
	EXPECT_EQ(-ENOSYS, async_submit(0, NULL, -1, ARGS(0)));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(0, &self->result, __NR_exit, NULL));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(0, NULL, __NR_exit, ARGS(99)));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(ASYNC_SUBMIT_OFFLOAD, NULL, __NR_gettid, NULL));
}

/* The limit comes between arguments and result: see limits.c. */

TEST_HARNESS_MAIN
