// SPDX-License-Identifier: GPL-2.0
/*
 * THE FIRST CUT ONLY: QUEUE, EVENTFD, CQE and WAIT_ANY are in the contract but not yet in the
 * kernel, which refuses them. This program is the one place that says so; who adds the flags
 * removes it.
 */
#include <sys/eventfd.h>

#include "calls.h"
#include "../kselftest_harness.h"

/* By number: the header of the first cut need not name what the kernel does not know. */
#define QUEUE		(1UL << 1)
#define EVENTFD		(1UL << 2)
#define CQE		(1UL << 3)
#define WAIT_FOR_ANY	(1UL << 0)

#define WITH_FD(fd)	((unsigned long)(fd) << 32)

static long submit(unsigned long flags, long *result)
{
	return async_submit(flags, result, __NR_getppid, ARGS(0));
}

TEST(queue_is_refused)
{
	long result = UNTOUCHED;

	EXPECT_EQ(-EINVAL, submit(QUEUE, &result));
	EXPECT_EQ(-EINVAL, submit(QUEUE | ASYNC_SUBMIT_OFFLOAD, &result));
	EXPECT_EQ(UNTOUCHED, result);
}

TEST(eventfd_is_refused)
{
	long result = UNTOUCHED;
	int fd = eventfd(0, 0);

	ASSERT_LT(0, fd);
	EXPECT_EQ(-EINVAL, submit(EVENTFD | WITH_FD(fd), &result));
	EXPECT_EQ(-EINVAL, submit(EVENTFD | ASYNC_SUBMIT_OFFLOAD | WITH_FD(fd), &result));
	EXPECT_EQ(UNTOUCHED, result);
}

TEST(cqe_is_refused)
{
	long result = UNTOUCHED;

	EXPECT_EQ(-EINVAL, submit(CQE | WITH_FD(1), &result));
	EXPECT_EQ(-EINVAL, submit(CQE | ASYNC_SUBMIT_OFFLOAD | WITH_FD(1), &result));
	EXPECT_EQ(UNTOUCHED, result);
}

TEST(wait_any_is_refused)
{
	EXPECT_EQ(-EINVAL, wait_for_async(WAIT_FOR_ANY, 0, &no_time));
}

/* This one holds in every cut: the two exclude each other. */
TEST(eventfd_with_cqe_is_refused)
{
	long result = UNTOUCHED;

	EXPECT_EQ(-EINVAL, submit(EVENTFD | CQE | WITH_FD(1), &result));
	EXPECT_EQ(UNTOUCHED, result);
}

TEST_HARNESS_MAIN
