// SPDX-License-Identifier: GPL-2.0
/* wait_for_async: for one call, for all, with and without a time limit. */
#include "calls.h"
#include "../kselftest_harness.h"

FIXTURE(outstanding)
{
	int fds[2];
	long result;
	long cookie;
	char byte;
};

/* One call that sleeps until somebody writes into the pipe. */
FIXTURE_SETUP(outstanding)
{
	self->result = UNTOUCHED;
	ASSERT_EQ(0, pipe(self->fds));
	self->cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &self->result, __NR_read,
				    ARGS(self->fds[0], P(&self->byte), 1));
	ASSERT_LT(0, self->cookie);
}

FIXTURE_TEARDOWN(outstanding)
{
	close(self->fds[1]);
	EXPECT_EQ(0, wait_for_async(0, 0, &deadline));
}

TEST(for_all_when_nothing_is_outstanding)
{
	EXPECT_EQ(0, wait_for_async(0, 0, NULL));
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
}

TEST_F(outstanding, poll_of_a_sleeping_call)
{
	EXPECT_EQ(-ETIME, wait_for_async(0, self->cookie, &no_time));
	EXPECT_EQ(-ETIME, wait_for_async(0, 0, &no_time));
	EXPECT_EQ(self->cookie, result_of(&self->result));
}

TEST_F(outstanding, time_limit_is_relative_and_kept)
{
	const struct __kernel_timespec limit = { .tv_nsec = 50 * 1000 * 1000 };
	long long start = now_ns();

	EXPECT_EQ(-ETIME, wait_for_async(0, self->cookie, &limit));
	EXPECT_LE(50 * 1000 * 1000, now_ns() - start);
	start = now_ns();
	EXPECT_EQ(-ETIME, wait_for_async(0, 0, &limit));
	EXPECT_LE(50 * 1000 * 1000, now_ns() - start);
}

TEST_F(outstanding, result_is_final_after_the_wait)
{
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(0, wait_for_async(0, self->cookie, &deadline));
	EXPECT_EQ(1, result_of(&self->result));
	EXPECT_EQ('x', self->byte);
}

TEST_F(outstanding, final_call_is_waited_for_again_at_once)
{
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_EQ(0, wait_for_async(0, self->cookie, &deadline));
	EXPECT_EQ(0, wait_for_async(0, self->cookie, NULL));
	EXPECT_EQ(0, wait_for_async(0, self->cookie, &no_time));
}

/* Who has seen the final value in the result word need not wait: a poll says so at once. */
TEST(poll_agrees_with_the_result_word)
{
	const long long end = now_ns() + TRYING_NS;
	long result, cookie;
	int i;

	for (i = 0; i < 4000 && now_ns() < end; i++) {
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
		ASSERT_LT(0, cookie);
		while (ASYNC_PENDING(result_of(&result)))
			;
		ASSERT_EQ(0, wait_for_async(0, cookie, &no_time))
			TH_LOG("at call %d", i);
	}
}

TEST(poll_for_all_agrees_with_the_result_word)
{
	const long long end = now_ns() + TRYING_NS;
	long result, cookie;
	int i;

	for (i = 0; i < 4000 && now_ns() < end; i++) {
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
		ASSERT_LT(0, cookie);
		while (ASYNC_PENDING(result_of(&result)))
			;
		ASSERT_EQ(0, wait_for_async(0, 0, &no_time))
			TH_LOG("at call %d", i);
	}
}

TEST_F(outstanding, wait_without_limit_ends_with_the_call)
{
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(0, wait_for_async(0, self->cookie, NULL));
	EXPECT_EQ(1, result_of(&self->result));
}

TEST_F(outstanding, unknown_flags)
{
	unsigned int bit;

	for (bit = 1; bit < 64; bit++) {
		EXPECT_EQ(-EINVAL, wait_for_async(1UL << bit, self->cookie, &no_time))
			TH_LOG("flag bit %u", bit);
		EXPECT_EQ(-EINVAL, wait_for_async(1UL << bit, 0, &no_time))
			TH_LOG("flag bit %u", bit);
	}
}

TEST_F(outstanding, unreadable_timeout)
{
	EXPECT_EQ(-EFAULT, wait_for_async(0, self->cookie, BAD_ADDRESS));
	EXPECT_EQ(-EFAULT, wait_for_async(0, 0, BAD_ADDRESS));
}

TEST_F(outstanding, malformed_timeout)
{
	static const struct __kernel_timespec bad[] = {
		{ .tv_nsec = 1000000000 }, { .tv_nsec = -1 }, { .tv_sec = -1 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, wait_for_async(0, self->cookie, &bad[i]));
}

TEST_F(outstanding, for_all_waits_for_each)
{
	long result = UNTOUCHED, cookie;
	char byte;
	int fds[2];

	/* Also for one that is the last of all. */
	ASSERT_EQ(-ETIME, wait_for_async(0, 0, &no_time));
	ASSERT_EQ(0, pipe(fds));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(1, write(fds[1], "x", 1));
	ASSERT_EQ(0, wait_for_async(0, cookie, &deadline));
	EXPECT_EQ(-ETIME, wait_for_async(0, 0, &no_time));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(0, wait_for_async(0, 0, &deadline));
	EXPECT_EQ(1, result_of(&self->result));
}

struct waiter {
	pthread_t thread;
	long cookie;
	const struct __kernel_timespec *timeout;
	pid_t tid;
	long ret;
	bool done;
};

static void *waits(void *argument)
{
	struct waiter *waiter = argument;

	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_RELEASE);
	waiter->ret = wait_for_async(0, waiter->cookie, waiter->timeout);
	__atomic_store_n(&waiter->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool is_done(struct waiter *waiter)
{
	return __atomic_load_n(&waiter->done, __ATOMIC_ACQUIRE);
}

static bool sleeps(struct waiter *waiter)
{
	pid_t tid = __atomic_load_n(&waiter->tid, __ATOMIC_ACQUIRE);

	return tid && thread_state(tid) == 'S';
}

TEST_F(outstanding, any_thread_waits_for_any_call)
{
	struct waiter waiters[3] = {
		{ .cookie = self->cookie }, { .cookie = self->cookie }, { .cookie = 0 },
	};
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_create(&waiters[i].thread, NULL, waits, &waiters[i]));
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(becomes_true(sleeps(&waiters[i])));
	for (i = 0; i < 3; i++)
		EXPECT_FALSE(is_done(&waiters[i]));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(becomes_true(is_done(&waiters[i])));
		EXPECT_EQ(0, waiters[i].ret);
		ASSERT_EQ(0, pthread_join(waiters[i].thread, NULL));
	}
}

TEST_F(outstanding, for_all_means_those_outstanding_at_entry)
{
	struct waiter waiter = { .cookie = 0 };
	long result = UNTOUCHED, cookie;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, pthread_create(&waiter.thread, NULL, waits, &waiter));
	ASSERT_TRUE(becomes_true(sleeps(&waiter)));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_TRUE(becomes_true(is_done(&waiter)));
	EXPECT_EQ(0, waiter.ret);
	EXPECT_EQ(1, result_of(&self->result));
	/* The later one is still outstanding. */
	EXPECT_EQ(cookie, result_of(&result));
	close(fds[1]);
	EXPECT_EQ(0, final_value(cookie, &result));
	ASSERT_EQ(0, pthread_join(waiter.thread, NULL));
}

TEST_F(outstanding, later_calls_that_end_do_not_end_a_wait_for_all)
{
	struct waiter waiter = { .cookie = 0 };
	long result;
	int i;

	ASSERT_EQ(0, pthread_create(&waiter.thread, NULL, waits, &waiter));
	ASSERT_TRUE(becomes_true(sleeps(&waiter)));
	for (i = 0; i < 20; i++) {
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

		ASSERT_EQ(getppid(), final_value(cookie, &result));
	}
	EXPECT_FALSE(is_done(&waiter));
	EXPECT_EQ(self->cookie, result_of(&self->result));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_TRUE(becomes_true(is_done(&waiter)));
	EXPECT_EQ(0, waiter.ret);
	ASSERT_EQ(0, pthread_join(waiter.thread, NULL));
}

static int handled;

static void count_signal(int signal)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

/* Signals the waiter until its wait ends; what the wait returned. */
static long interrupt(struct waiter *waiter)
{
	if (pthread_create(&waiter->thread, NULL, waits, waiter))
		return -ENOEXEC;
	if (becomes_true(sleeps(waiter)))
		pthread_kill(waiter->thread, SIGUSR1);
	if (!becomes_true(is_done(waiter)))
		return -EDEADLK;
	pthread_join(waiter->thread, NULL);
	return waiter->ret;
}

TEST_F(outstanding, signal_interrupts_and_nothing_is_lost)
{
	const struct sigaction action = { .sa_handler = count_signal };
	struct waiter one = { .cookie = self->cookie }, all = { .cookie = 0 };
	struct waiter limited = { .cookie = self->cookie, .timeout = &deadline };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	EXPECT_EQ(-EINTR, interrupt(&one));
	EXPECT_EQ(-EINTR, interrupt(&all));
	EXPECT_EQ(-EINTR, interrupt(&limited));
	EXPECT_EQ(3, __atomic_load_n(&handled, __ATOMIC_RELAXED));
	EXPECT_EQ(self->cookie, result_of(&self->result));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(1, final_value(self->cookie, &self->result));
}

TEST_F(outstanding, signal_with_sa_restart_interrupts_too)
{
	const struct sigaction action = { .sa_handler = count_signal, .sa_flags = SA_RESTART };
	struct waiter one = { .cookie = self->cookie };
	struct waiter limited = { .cookie = self->cookie, .timeout = &deadline };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	EXPECT_EQ(-EINTR, interrupt(&one));
	EXPECT_EQ(-EINTR, interrupt(&limited));
}

TEST_F(outstanding, wait_leaves_the_result_word_alone)
{
	long copy;

	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_EQ(1, final_value(self->cookie, &self->result));
	self->result = UNTOUCHED;
	EXPECT_EQ(0, wait_for_async(0, self->cookie, &deadline));
	copy = result_of(&self->result);
	EXPECT_EQ(UNTOUCHED, copy);
}

TEST_HARNESS_MAIN
