// SPDX-License-Identifier: GPL-2.0
/* A call that does not sleep completes inline: 0 is returned and *result holds its value. */
#include "calls.h"
#include "../kselftest_harness.h"

TEST(value_of_a_call)
{
	long result = UNTOUCHED;

	ASSERT_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(getppid(), result);
	ASSERT_EQ(0, async_submit(0, &result, __NR_getpid, ARGS(0)));
	EXPECT_EQ(getpid(), result);
}

TEST(error_of_a_call_is_its_negative_code)
{
	long result = UNTOUCHED;

	ASSERT_EQ(0, async_submit(0, &result, __NR_close, ARGS(-1UL)));
	EXPECT_EQ(-EBADF, result);
	ASSERT_EQ(0, async_submit(0, &result, __NR_openat,
				  ARGS(AT_FDCWD, P("/no/such/file"), O_RDONLY)));
	EXPECT_EQ(-ENOENT, result);
}

TEST(error_of_the_call_leaves_errno_alone)
{
	long result = UNTOUCHED;

	errno = EDOM;
	ASSERT_EQ(0, async_submit(0, &result, __NR_close, ARGS(-1UL)));
	EXPECT_EQ(EDOM, errno);
}

TEST(cached_file_read)
{
	char buffer[16] = "";
	long result = UNTOUCHED;
	int fd = memfd_create("cached", 0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(11, pwrite(fd, "hello world", 11, 0));
	ASSERT_EQ(0, async_submit(0, &result, __NR_pread64, ARGS(fd, P(buffer), 5, 6)));
	EXPECT_EQ(5, result);
	EXPECT_STREQ("world", buffer);
}

TEST(pipe_with_data_is_read)
{
	char buffer[4] = "";
	long result = UNTOUCHED;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(2, write(fds[1], "ab", 2));
	ASSERT_EQ(0, async_submit(0, &result, __NR_read, ARGS(fds[0], P(buffer), 4)));
	EXPECT_EQ(2, result);
	EXPECT_STREQ("ab", buffer);
}

TEST(all_six_arguments_arrive)
{
	const size_t page = getpagesize();
	int fd = memfd_create("six", 0);
	long result = UNTOUCHED;
	char *wanted, *map;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, 2 * page));
	ASSERT_EQ(1, pwrite(fd, "s", 1, page));
	wanted = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, wanted);
	/* mmap uses each of its arguments: the offset is the sixth. */
	ASSERT_EQ(0, async_submit(0, &result, __NR_mmap,
				  ARGS(P(wanted), page, PROT_READ, MAP_SHARED | MAP_FIXED,
				       fd, page)));
	ASSERT_EQ((long)wanted, result);
	map = (char *)result;
	EXPECT_EQ('s', map[0]);
}

TEST(arguments_may_be_read_only)
{
	const size_t page = getpagesize();
	unsigned long *args;
	long result = UNTOUCHED;

	args = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, args);
	ASSERT_EQ(0, async_submit(0, &result, __NR_getppid, args));
	EXPECT_EQ(getppid(), result);
}

TEST(value_that_looks_like_a_cookie_is_stored)
{
	const unsigned long far = (1UL << 62) + 5;
	int fd = memfd_create("sparse", 0);
	long result = UNTOUCHED;

	ASSERT_LE(0, fd);
	ASSERT_EQ((long)far, lseek(fd, far, SEEK_SET));
	ASSERT_EQ(0, async_submit(0, &result, __NR_lseek, ARGS(fd, far, SEEK_SET)));
	EXPECT_EQ((long)far, result);
}

TEST(closed_file_is_released_on_return)
{
	long result = UNTOUCHED;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	ASSERT_EQ(0, async_submit(0, &result, __NR_close, ARGS(fds[1])));
	ASSERT_EQ(0, result);
	EXPECT_EQ(0, read(fds[0], &byte, 1));
}

TEST(nothing_is_outstanding_afterwards)
{
	long result = UNTOUCHED;

	ASSERT_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
}

TEST(in_place_call_answers_for_the_calling_thread)
{
	long result = UNTOUCHED;

	ASSERT_EQ(0, async_submit(0, &result, __NR_gettid, ARGS(0)));
	EXPECT_EQ(gettid(), result);
	ASSERT_EQ(0, async_submit(0, &result, __NR_sched_yield, ARGS(0)));
	EXPECT_EQ(0, result);
	ASSERT_EQ(0, async_submit(0, &result, __NR_sched_getscheduler, ARGS(0)));
	EXPECT_EQ(SCHED_OTHER, result);
}

static void *gettid_of_a_thread(void *argument)
{
	long *result = argument;

	return (void *)(async_submit(0, result, __NR_gettid, ARGS(0)) ? 0L : (long)gettid());
}

TEST(in_place_call_of_another_thread)
{
	long result = UNTOUCHED;
	pthread_t thread;
	void *tid;

	ASSERT_EQ(0, pthread_create(&thread, NULL, gettid_of_a_thread, &result));
	ASSERT_EQ(0, pthread_join(thread, &tid));
	ASSERT_NE(NULL, tid);
	EXPECT_EQ((long)tid, result);
	EXPECT_NE(gettid(), result);
}

TEST(call_that_sleeps_ends_with_its_value)
{
	char buffer[4] = "";
	long result = UNTOUCHED;
	struct feeder feeder;
	long submitted;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, feeder_start(&feeder, fds[1]));
	submitted = async_submit(0, &result, __NR_read, ARGS(fds[0], P(buffer), 4));
	EXPECT_EQ(NULL, feeder_end(&feeder));
	ASSERT_LE(0, submitted);
	if (submitted)
		EXPECT_TRUE(is_cookie(submitted));
	EXPECT_EQ(1, final_value(submitted, &result));
	EXPECT_STREQ("x", buffer);
}

TEST_HARNESS_MAIN
