// SPDX-License-Identifier: GPL-2.0
/* Limits on outstanding calls: the sysctl, its place in the order of checks, RLIMIT_NPROC. */
#include <sys/resource.h>

#include "calls.h"
#include "../kselftest_harness.h"

#define SYSCTL		"/proc/sys/kernel/async_submit_max"
#define THREADS_MAX	"/proc/sys/kernel/threads-max"
#define SOME_USER	54321

enum { DEFAULT_LIMIT = 4096, SMALL_LIMIT = 16 };

static long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);
	long value = -1;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		value = atol(text);
	if (fd >= 0)
		close(fd);
	return value;
}

static bool write_number(const char *path, long value)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld", value);
	int fd = open(path, O_WRONLY);
	bool written = fd >= 0 && write(fd, text, length) == length;

	if (fd >= 0)
		close(fd);
	return written;
}

static int fds[2];
static char byte_of[DEFAULT_LIMIT + 1];
static long results[DEFAULT_LIMIT + 1], cookies[DEFAULT_LIMIT + 1];

static long submit_read(int i)
{
	results[i] = UNTOUCHED;
	cookies[i] = async_submit(ASYNC_SUBMIT_OFFLOAD, &results[i], __NR_read,
				  ARGS(fds[0], P(&byte_of[i]), 1));
	return cookies[i];
}

/* Submits calls that sleep until one is refused or n are outstanding; how many are. */
static int submit_reads(int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (submit_read(i) <= 0)
			break;
	return i;
}

/* Ends the first n calls by the end of the file; how many ended that way. */
static int finish_reads(int n)
{
	int i, ended = 0;

	close(fds[1]);
	for (i = 0; i < n; i++)
		ended += final_value(cookies[i], &results[i]) == 0;
	return ended;
}

FIXTURE(limit)
{
	long before;
};

FIXTURE_SETUP(limit)
{
	if (geteuid())
		SKIP(return, "needs root");
	self->before = read_number(SYSCTL);
	ASSERT_LT(0, self->before);
	ASSERT_TRUE(write_number(SYSCTL, SMALL_LIMIT));
	ASSERT_EQ(SMALL_LIMIT, read_number(SYSCTL));
	ASSERT_EQ(0, pipe(fds));
}

FIXTURE_TEARDOWN_PARENT(limit)
{
	if (self->before > 0)
		write_number(SYSCTL, self->before);
}

TEST(default_is_4096)
{
	EXPECT_EQ(DEFAULT_LIMIT, read_number(SYSCTL));
}

TEST_F(limit, one_more_is_eagain_and_nothing_ran)
{
	long result = UNTOUCHED;
	char byte;
	int probe[2];

	ASSERT_EQ(0, pipe2(probe, O_NONBLOCK));
	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT + 1));
	EXPECT_EQ(-EAGAIN, cookies[SMALL_LIMIT]);
	EXPECT_EQ(UNTOUCHED, results[SMALL_LIMIT]);
	EXPECT_EQ(-EAGAIN, async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_write,
					ARGS(probe[1], P("x"), 1)));
	EXPECT_EQ(UNTOUCHED, result);
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
	EXPECT_EQ(-1, read(probe[0], &byte, 1));
}

TEST_F(limit, inline_call_at_the_limit_is_eagain)
{
	long result = UNTOUCHED;
	char byte;
	int probe[2];

	ASSERT_EQ(0, pipe2(probe, O_NONBLOCK));
	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT));
	EXPECT_EQ(-EAGAIN, async_submit(0, &result, __NR_write, ARGS(probe[1], P("x"), 1)));
	EXPECT_EQ(UNTOUCHED, result);
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
	EXPECT_EQ(-1, read(probe[0], &byte, 1));
	/* And below it runs. */
	EXPECT_EQ(0, async_submit(0, &result, __NR_write, ARGS(probe[1], P("x"), 1)));
	EXPECT_EQ(1, result);
}

TEST_F(limit, a_finished_call_makes_room)
{
	int i;

	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT + 1));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, async_cancel(0, cookies[i]));
		ASSERT_EQ(-ECANCELED, final_value(cookies[i], &results[i]));
		ASSERT_LT(0, submit_read(i));
		ASSERT_EQ(-EAGAIN, submit_read(SMALL_LIMIT));
	}
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
}

TEST_F(limit, errors_before_it_come_first)
{
	long result = UNTOUCHED;

	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT));
	EXPECT_EQ(-EINVAL, async_submit(1UL << 31, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(-ENOSYS, async_submit(0, &result, -1, ARGS(0)));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(0, &result, __NR_exit, ARGS(0)));
	EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, NULL));
	EXPECT_EQ(UNTOUCHED, result);
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
}

TEST_F(limit, it_comes_before_the_result)
{
	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT));
	EXPECT_EQ(-EAGAIN, async_submit(ASYNC_SUBMIT_OFFLOAD, NULL, __NR_getppid, ARGS(0)));
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
	EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, NULL, __NR_getppid, ARGS(0)));
}

TEST_F(limit, refused_submissions_do_not_count)
{
	long result = UNTOUCHED;
	int i;

	for (i = 0; i < 4 * SMALL_LIMIT; i++) {
		ASSERT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, NULL, __NR_getppid,
						ARGS(0)));
		ASSERT_EQ(-EOPNOTSUPP, async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_exit,
						    ARGS(0)));
		ASSERT_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	}
	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT + 1));
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
}

TEST_F(limit, each_process_has_its_own)
{
	pid_t child;

	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		_exit(submit_reads(SMALL_LIMIT + 1) == SMALL_LIMIT ? 0 : 1);
	EXPECT_EQ(0, status_of(child));
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
}

static void *submits_one_more(void *argument)
{
	submit_read(SMALL_LIMIT);
	return NULL;
}

TEST_F(limit, it_counts_for_all_threads_together)
{
	pthread_t thread;

	ASSERT_EQ(SMALL_LIMIT, submit_reads(SMALL_LIMIT));
	ASSERT_EQ(0, pthread_create(&thread, NULL, submits_one_more, NULL));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(-EAGAIN, cookies[SMALL_LIMIT]);
	EXPECT_EQ(SMALL_LIMIT, finish_reads(SMALL_LIMIT));
}

/* The default limit in full: thousands of sleeping calls, on a machine that can have them. */
FIXTURE(full)
{
	long threads_max;
};

FIXTURE_SETUP(full)
{
	if (geteuid())
		SKIP(return, "needs root");
	self->threads_max = read_number(THREADS_MAX);
	if (self->threads_max < DEFAULT_LIMIT + 2000)
		ASSERT_TRUE(write_number(THREADS_MAX, DEFAULT_LIMIT + 2000));
	ASSERT_EQ(0, pipe(fds));
}

FIXTURE_TEARDOWN_PARENT(full)
{
	if (self->threads_max > 0)
		write_number(THREADS_MAX, self->threads_max);
}

TEST_F_TIMEOUT(full, limit_of_4096, 300)
{
	ASSERT_EQ(DEFAULT_LIMIT, read_number(SYSCTL));
	ASSERT_EQ(DEFAULT_LIMIT, submit_reads(DEFAULT_LIMIT + 1));
	EXPECT_EQ(-EAGAIN, cookies[DEFAULT_LIMIT]);
	EXPECT_EQ(UNTOUCHED, results[DEFAULT_LIMIT]);
	EXPECT_EQ(DEFAULT_LIMIT, finish_reads(DEFAULT_LIMIT));
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
}

/* --- RLIMIT_NPROC ----------------------------------------------------------------------- */

static int run_into_rlimit_nproc(void)
{
	const struct rlimit few = { 8, 8 };
	long result = UNTOUCHED;
	int n;

	if (pipe(fds) || setgid(SOME_USER) || setuid(SOME_USER) || setrlimit(RLIMIT_NPROC, &few))
		return 1;
	n = submit_reads(100);
	if (n < 1 || n > 7)
		return 10 + n;
	if (cookies[n] != -EAGAIN || results[n] != UNTOUCHED)
		return 2;
	if (finish_reads(n) != n)
		return 3;
	/* The workers are free again, and so is the way for other calls. */
	if (async_submit(0, &result, __NR_getppid, ARGS(0)) || result != getppid())
		return 4;
	if (final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0)),
			&result) != getppid())
		return 5;
	return 0;
}

TEST(workers_count_against_rlimit_nproc)
{
	pid_t child;

	if (geteuid())
		SKIP(return, "needs root");
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		_exit(run_into_rlimit_nproc());
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
