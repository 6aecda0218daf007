// SPDX-License-Identifier: GPL-2.0
/* Signals reach the user context and leave outstanding calls alone. */
#include "calls.h"
#include "../kselftest_harness.h"

enum { CALLS = 8, FLOOD = 400 };

static int fds[2];
static char bytes[CALLS];
static long results[CALLS], cookies[CALLS];

static bool submit_reads(void)
{
	int i;

	if (pipe(fds))
		return false;
	for (i = 0; i < CALLS; i++) {
		cookies[i] = async_submit(ASYNC_SUBMIT_OFFLOAD, &results[i], __NR_read,
					  ARGS(fds[0], P(&bytes[i]), 1));
		if (cookies[i] <= 0)
			return false;
	}
	return true;
}

static int still_outstanding(void)
{
	int i, n = 0;

	for (i = 0; i < CALLS; i++)
		n += result_of(&results[i]) == cookies[i];
	return n;
}

/* Gives every call its byte; how many read one. */
static int finish_reads(void)
{
	int i, n = 0;

	if (write(fds[1], "01234567", CALLS) != CALLS)
		return -1;
	for (i = 0; i < CALLS; i++)
		n += final_value(cookies[i], &results[i]) == 1;
	return n;
}

static int handled;
static pid_t handled_in;
static unsigned char seen[FLOOD];

static void note(int signal, siginfo_t *info, void *context)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&handled_in, gettid(), __ATOMIC_RELAXED);
	if (info->si_code == SI_QUEUE && info->si_value.sival_int >= 0 &&
	    info->si_value.sival_int < FLOOD)
		__atomic_add_fetch(&seen[info->si_value.sival_int], 1, __ATOMIC_RELAXED);
}

static int handle(int signal, int flags)
{
	const struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO | flags };

	return sigaction(signal, &action, NULL);
}

static int queue_number(pid_t pid, int number)
{
	const union sigval value = { .sival_int = number };

	return sigqueue(pid, SIGRTMIN, value);
}

static int count_handled(void)
{
	return __atomic_load_n(&handled, __ATOMIC_RELAXED);
}

TEST(process_directed_signal_reaches_the_submitter)
{
	ASSERT_EQ(0, handle(SIGUSR1, 0));
	ASSERT_TRUE(submit_reads());
	ASSERT_EQ(0, kill(getpid(), SIGUSR1));
	/* The only thread that can take it takes it before kill returns. */
	EXPECT_EQ(1, count_handled());
	EXPECT_EQ(gettid(), __atomic_load_n(&handled_in, __ATOMIC_RELAXED));
	EXPECT_EQ(CALLS, still_outstanding());
	EXPECT_EQ(CALLS, finish_reads());
}

TEST(thread_directed_signal_reaches_the_submitter)
{
	ASSERT_EQ(0, handle(SIGUSR1, 0));
	ASSERT_TRUE(submit_reads());
	ASSERT_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
	EXPECT_EQ(1, count_handled());
	EXPECT_EQ(gettid(), __atomic_load_n(&handled_in, __ATOMIC_RELAXED));
	EXPECT_EQ(CALLS, still_outstanding());
	EXPECT_EQ(CALLS, finish_reads());
}

TEST(queued_signals_are_neither_lost_nor_doubled)
{
	int i;

	ASSERT_EQ(0, handle(SIGRTMIN, 0));
	ASSERT_TRUE(submit_reads());
	for (i = 0; i < FLOOD; i++)
		ASSERT_EQ(0, queue_number(getpid(), i));
	EXPECT_TRUE(becomes_true(count_handled() >= FLOOD));
	for (i = 0; i < FLOOD; i++)
		EXPECT_EQ(1, __atomic_load_n(&seen[i], __ATOMIC_RELAXED));
	EXPECT_EQ(CALLS, still_outstanding());
	EXPECT_EQ(CALLS, finish_reads());
	EXPECT_EQ(FLOOD, count_handled());
}

/* A child that floods its parent once the parent has begun, and ends. */
static pid_t flooding_child(const long *begun)
{
	pid_t parent = getpid();
	pid_t child = fork_child();
	int i;

	if (child)
		return child;
	if (!becomes_true(result_of(begun)))
		_exit(1);
	for (i = 0; i < FLOOD; i++)
		if (queue_number(parent, i))
			_exit(2);
	_exit(0);
}

TEST(signals_of_another_process_while_offloading)
{
	long *begun = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long result = UNTOUCHED;
	pid_t child;
	int i;

	ASSERT_NE(MAP_FAILED, begun);
	ASSERT_EQ(0, handle(SIGRTMIN, SA_RESTART));
	child = flooding_child(begun);
	ASSERT_LE(0, child);
	for (i = 0; i < 50 || count_handled() < FLOOD; i++) {
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

		__atomic_store_n(begun, 1, __ATOMIC_RELEASE);
		/* A wait may be interrupted, a submission and its call may not. */
		ASSERT_LT(0, cookie);
		while (wait_for_async(0, cookie, &deadline) == -EINTR)
			;
		ASSERT_EQ(getppid(), result_of(&result));
	}
	EXPECT_EQ(0, status_of(child));
	for (i = 0; i < FLOOD; i++)
		EXPECT_EQ(1, __atomic_load_n(&seen[i], __ATOMIC_RELAXED));
}

TEST(signals_of_another_process_while_submitting_inline)
{
	long *begun = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long result = UNTOUCHED;
	pid_t child;
	int i;

	ASSERT_NE(MAP_FAILED, begun);
	ASSERT_EQ(0, handle(SIGRTMIN, 0));
	child = flooding_child(begun);
	ASSERT_LE(0, child);
	for (i = 0; i < 1000 || count_handled() < FLOOD; i++) {
		ASSERT_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
		ASSERT_EQ(getppid(), result);
		__atomic_store_n(begun, 1, __ATOMIC_RELEASE);
	}
	EXPECT_EQ(0, status_of(child));
	for (i = 0; i < FLOOD; i++)
		EXPECT_EQ(1, __atomic_load_n(&seen[i], __ATOMIC_RELAXED));
}

/* --- a signal that the call itself causes ------------------------------------------------- */

static long offload_write_without_reader(void)
{
	long result = UNTOUCHED;

	if (pipe(fds) || close(fds[0]))
		return -EPROTO;
	return final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_write,
					ARGS(fds[1], P("x"), 1)), &result);
}

TEST(sigpipe_of_an_offloaded_write_reaches_the_process)
{
	long value;

	ASSERT_EQ(0, handle(SIGPIPE, SA_RESTART));
	value = offload_write_without_reader();
	/* The wait may have been interrupted by it. */
	EXPECT_TRUE(value == -EPIPE || value == -EINTR);
	EXPECT_EQ(0, wait_for_async(0, 0, &deadline));
	EXPECT_TRUE(becomes_true(count_handled() == 1));
	EXPECT_EQ(gettid(), __atomic_load_n(&handled_in, __ATOMIC_RELAXED));
}

TEST(ignored_sigpipe_of_an_offloaded_write)
{
	ASSERT_NE(SIG_ERR, signal(SIGPIPE, SIG_IGN));
	EXPECT_EQ(-EPIPE, offload_write_without_reader());
}

TEST(sigpipe_of_an_offloaded_write_ends_the_process)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0) {
		signal(SIGPIPE, SIG_DFL);
		offload_write_without_reader();
		while (1)
			pause();
	}
	EXPECT_EQ(SIGPIPE, status_of(child));
}

TEST(blocked_signal_stays_pending)
{
	sigset_t set, pending;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ASSERT_EQ(0, handle(SIGUSR1, 0));
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	ASSERT_TRUE(submit_reads());
	ASSERT_EQ(0, kill(getpid(), SIGUSR1));
	ASSERT_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
	EXPECT_EQ(CALLS, finish_reads());
	/* No worker took it either. */
	EXPECT_EQ(0, count_handled());
	ASSERT_EQ(0, sigpending(&pending));
	EXPECT_EQ(1, sigismember(&pending, SIGUSR1));
	ASSERT_EQ(0, sigprocmask(SIG_UNBLOCK, &set, NULL));
	EXPECT_LE(1, count_handled());
	EXPECT_EQ(gettid(), __atomic_load_n(&handled_in, __ATOMIC_RELAXED));
}

TEST(handler_on_the_alternate_stack)
{
	static char stack[1 << 16];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	stack_t now;

	ASSERT_EQ(0, sigaltstack(&alternate, NULL));
	ASSERT_EQ(0, handle(SIGUSR1, SA_ONSTACK));
	ASSERT_TRUE(submit_reads());
	ASSERT_EQ(0, sigaltstack(NULL, &now));
	EXPECT_EQ((void *)stack, now.ss_sp);
	ASSERT_EQ(0, raise(SIGUSR1));
	EXPECT_EQ(1, count_handled());
	EXPECT_EQ(CALLS, finish_reads());
}

static struct {
	long submitted;
	long result;
} inside;

static void submit_in_handler(int signal)
{
	inside.result = UNTOUCHED;
	inside.submitted = async_submit(ASYNC_SUBMIT_OFFLOAD, &inside.result, __NR_getppid,
					ARGS(0));
	inside.submitted = final_value(inside.submitted, &inside.result);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELEASE);
}

TEST(submission_in_a_handler)
{
	const struct sigaction action = { .sa_handler = submit_in_handler };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_TRUE(submit_reads());
	ASSERT_EQ(0, raise(SIGUSR1));
	EXPECT_EQ(1, __atomic_load_n(&handled, __ATOMIC_ACQUIRE));
	EXPECT_EQ(getppid(), inside.submitted);
	EXPECT_EQ(CALLS, finish_reads());
}

/* --- a call without OFFLOAD that sleeps when the signal comes ---------------------------- */

struct blocking {
	pthread_t thread;
	int fds[2];
	long submitted;
	long result;
	char byte;
	bool outstanding;
	bool done;
};

/* Submits a read of an empty pipe, says so, and runs on in user space until it is told to end. */
static void *submit_blocking(void *argument)
{
	struct blocking *b = argument;

	b->submitted = async_submit(0, &b->result, __NR_read, ARGS(b->fds[0], P(&b->byte), 1));
	__atomic_store_n(&b->outstanding, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&b->done, __ATOMIC_ACQUIRE))
		poll(NULL, 0, 1);
	return NULL;
}

static bool start_blocking(struct blocking *b)
{
	*b = (struct blocking) { .result = UNTOUCHED };
	return !pipe(b->fds) && !pthread_create(&b->thread, NULL, submit_blocking, b) &&
	       becomes_true(__atomic_load_n(&b->outstanding, __ATOMIC_ACQUIRE)) &&
	       b->submitted > 0;
}

/* Signals the submitter, which handles it; the call is as it was, and ends when there is data. */
static bool call_outlives_signal(struct blocking *b)
{
	pthread_kill(b->thread, SIGUSR1);
	if (!becomes_true(count_handled() == 1) || result_of(&b->result) != b->submitted)
		return false;
	__atomic_store_n(&b->done, true, __ATOMIC_RELEASE);
	return write(b->fds[1], "x", 1) == 1 && !pthread_join(b->thread, NULL) &&
	       final_value(b->submitted, &b->result) == 1 && b->byte == 'x';
}

TEST(handler_with_sa_restart_leaves_an_outstanding_call_alone)
{
	static struct blocking b;

	ASSERT_EQ(0, handle(SIGUSR1, SA_RESTART));
	ASSERT_TRUE(start_blocking(&b));
	EXPECT_TRUE(call_outlives_signal(&b));
}

TEST(handler_without_sa_restart_leaves_an_outstanding_call_alone)
{
	static struct blocking b;

	ASSERT_EQ(0, handle(SIGUSR1, 0));
	ASSERT_TRUE(start_blocking(&b));
	EXPECT_TRUE(call_outlives_signal(&b));
}

/* --- stop signals ----------------------------------------------------------------------- */

struct stopped {
	long result;
	long cookie;
	char byte;
};

static bool stop(pid_t child)
{
	int status;

	return !kill(child, SIGSTOP) && waitpid(child, &status, WUNTRACED) == child &&
	       WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
}

static bool carry_on(pid_t child)
{
	int status;

	return !kill(child, SIGCONT) && waitpid(child, &status, WCONTINUED) == child &&
	       WIFCONTINUED(status);
}

TEST(stop_and_continue_do_not_end_a_call)
{
	struct stopped *shared = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[2], i;
	pid_t child;

	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, pipe(fds));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &shared->result, __NR_read,
					   ARGS(fds[0], P(&shared->byte), 1));

		__atomic_store_n(&shared->cookie, cookie, __ATOMIC_RELEASE);
		while (wait_for_async(0, cookie, NULL) == -EINTR)
			;
		_exit(shared->byte);
	}
	ASSERT_TRUE(becomes_true(result_of(&shared->cookie) != 0));
	ASSERT_LT(0, shared->cookie);
	for (i = 0; i < 20; i++) {
		ASSERT_TRUE(stop(child));
		EXPECT_EQ(shared->cookie, result_of(&shared->result));
		ASSERT_TRUE(carry_on(child));
		EXPECT_EQ(shared->cookie, result_of(&shared->result));
	}
	ASSERT_EQ(1, write(fds[1], "\x2a", 1));
	EXPECT_EQ(42 << 8, status_of(child));
	EXPECT_EQ(1, result_of(&shared->result));
}

TEST(stopped_process_finishes_its_call_once_continued)
{
	struct stopped *shared = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[2];
	pid_t child;

	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, pipe(fds));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		shared->cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &shared->result, __NR_read,
					      ARGS(fds[0], P(&shared->byte), 1));
		while (wait_for_async(0, shared->cookie, NULL) == -EINTR)
			;
		_exit(shared->byte);
	}
	ASSERT_TRUE(becomes_true(ASYNC_PENDING(result_of(&shared->result))));
	ASSERT_TRUE(stop(child));
	ASSERT_EQ(1, write(fds[1], "\x2a", 1));
	ASSERT_EQ(0, kill(child, SIGCONT));
	EXPECT_EQ(42 << 8, status_of(child));
	EXPECT_EQ(1, result_of(&shared->result));
}

TEST_HARNESS_MAIN
