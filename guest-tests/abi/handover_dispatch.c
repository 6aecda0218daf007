// SPDX-License-Identifier: GPL-2.0
/*
 * Dispatch of system calls to user space (PR_SET_SYSCALL_USER_DISPATCH) is a thread's, and goes
 * where that goes. It goes by the address of the instruction: of async_submit, not of what that
 * submits.
 */
#include <ucontext.h>

#include "filters.h"
#include "handover.h"
#include "../kselftest_harness.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH	59
#define PR_SYS_DISPATCH_OFF		0
#define PR_SYS_DISPATCH_ON		1
#endif

/* What the selector says: as in <linux/prctl.h>. */
#define LET_PASS	0
#define DISPATCH	1

static volatile char selector;
static volatile int dispatched, dispatched_nr;
static volatile pid_t dispatched_in;

/* Its own calls pass, and so does the return from it. */
static void on_dispatch(int signal, siginfo_t *info, void *context)
{
	selector = LET_PASS;
	dispatched++;
	dispatched_nr = info->si_syscall;
	dispatched_in = gettid();
	set_return_value(context, 77);
}

static bool dispatch_on(unsigned long pass_from, unsigned long pass_length)
{
	const struct sigaction action = { .sa_sigaction = on_dispatch, .sa_flags = SA_SIGINFO };

	selector = LET_PASS;
	dispatched = 0;
	return !sigaction(SIGSYS, &action, NULL) &&
	       !prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, pass_from, pass_length,
		      &selector);
}

static bool is_there(void)
{
	return dispatch_on(0, 0);
}

/* The next call is dispatched, in this thread. */
static const char *is_dispatched(void)
{
	int before = dispatched;
	long value;

	selector = DISPATCH;
	value = raw_call(__NR_getppid);
	selector = LET_PASS;
	CHECK_EQ(77, value);
	CHECK_EQ(before + 1, dispatched);
	CHECK_EQ(__NR_getppid, dispatched_nr);
	CHECK_EQ(gettid(), dispatched_in);
	return NULL;
}

FIXTURE(dispatch) { };

FIXTURE_VARIANT(dispatch)
{
	bool other;
};

FIXTURE_VARIANT_ADD(dispatch, main)
{
	.other = false,
};

FIXTURE_VARIANT_ADD(dispatch, other)
{
	.other = true,
};

FIXTURE_SETUP(dispatch)
{
	if (!is_there())
		SKIP(return, "no dispatch to user space");
	ASSERT_EQ(0, prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0));
}

FIXTURE_TEARDOWN(dispatch)
{
}

/* A body in either thread, if there is anything to test. */
#define WHERE_THERE_IS_DISPATCH(name)					\
	static const char *name##_body(void);				\
	TEST_F(dispatch, name)						\
	{								\
		EXPECT_FINE(run_in(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

WHERE_THERE_IS_DISPATCH(goes_on_after_a_hand_over)
{
	struct reading r;
	int i;

	CHECK(dispatch_on(0, 0));
	for (i = 0; i < 20; i++) {
		TRY(begin_reading(&r));
		TRY(is_dispatched());
		TRY(end_reading(&r));
		TRY(is_dispatched());
	}
	return NULL;
}

WHERE_THERE_IS_DISPATCH(set_while_a_call_is_outstanding)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK(dispatch_on(0, 0));
	TRY(is_dispatched());
	TRY(end_reading(&r));
	TRY(hand_over(3));
	return is_dispatched();
}

WHERE_THERE_IS_DISPATCH(ended_while_a_call_is_outstanding)
{
	struct reading r;
	int before;

	CHECK(dispatch_on(0, 0));
	TRY(hand_over(3));
	TRY(begin_reading(&r));
	TRY(is_dispatched());
	CHECK_EQ(0, prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0));
	before = dispatched;
	selector = DISPATCH;
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK_EQ(before, dispatched);
	return NULL;
}

/* async_submit is dispatched as any other call: nothing is submitted. */
WHERE_THERE_IS_DISPATCH(submission_itself_is_dispatched)
{
	long result = UNTOUCHED, submitted, handed_over;
	struct reading r;

	CHECK(dispatch_on(0, 0));
	TRY(begin_reading(&r));
	handed_over = counter("handed_over");
	selector = DISPATCH;
	submitted = async_submit(0, &result, __NR_getppid, ARGS(0));
	selector = LET_PASS;
	CHECK_EQ(77, submitted);
	CHECK_EQ(__NR_async_submit, dispatched_nr);
	CHECK_EQ(UNTOUCHED, result);
	CHECK_EQ(handed_over, counter("handed_over"));
	return end_reading(&r);
}

/* --- of one thread, and not of another ---------------------------------------------------- */

static int stage;

/* No call from the moment on that the selector says so: that would be dispatched. */
static const char *is_dispatched_at_last(void)
{
	CHECK(dispatch_on(0, 0));
	TRY(hand_over(10));
	selector = DISPATCH;
	reach(&stage, 1);
	while (!is_reached(&stage, 2))
		;
	selector = LET_PASS;
	CHECK_EQ(0, dispatched);
	TRY(hand_over(3));
	return is_dispatched();
}

/* Tasks that have been a thread with dispatch become one without. */
WHERE_THERE_IS_DISPATCH(of_another_thread_only)
{
	static body_fn body = is_dispatched_at_last;
	const char *mine = NULL;
	void *found = "no value";
	pthread_t thread;

	stage = 0;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	while (!is_reached(&stage, 1))
		sched_yield();
	mine = hand_over(20);
	reach(&stage, 2);
	CHECK_EQ(0, pthread_join(thread, &found));
	TRY(mine);
	return found;
}

/* And threads that are made of it are without. */
WHERE_THERE_IS_DISPATCH(threads_begin_without)
{
	struct reading r;

	CHECK(dispatch_on(0, 0));
	TRY(begin_reading(&r));
	stage = 0;
	TRY(run_in(true, hand_over_once));
	CHECK_EQ(0, dispatched);
	TRY(end_reading(&r));
	return is_dispatched();
}

/* --- as a library does it that submits every call ----------------------------------------- */

#ifdef __x86_64__

/* System calls that pass, by their address. */
long passing_call(long nr, ...);
extern const char passing_begin[], passing_end[];

asm(".text\n"
	".globl passing_call, passing_begin, passing_end\n"
	"passing_begin:\n"
	"passing_call:\n\t"
	"mov %rdi, %rax\n\t"
	"mov %rsi, %rdi\n\t"
	"mov %rdx, %rsi\n\t"
	"mov %rcx, %rdx\n\t"
	"mov %r8, %r10\n\t"
	"syscall\n\t"
	"ret\n"
	"passing_end:\n");

/* What is not at the address is dispatched all the time, what is submitted there is not. */
WHERE_THERE_IS_DISPATCH(calls_submitted_from_where_they_pass)
{
	long result, cookie, mine, theirs, waited;
	char byte = 0;
	int i, fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK(dispatch_on(P(passing_begin), P(passing_end) - P(passing_begin)));
	for (i = 0; i < 20; i++) {
		long handed_over = counter("handed_over");

		result = UNTOUCHED;
		selector = DISPATCH;
		cookie = passing_call(__NR_async_submit, 0UL, &result, __NR_read,
				      ARGS(fds[0], P(&byte), 1));
		mine = passing_call(__NR_getppid);
		theirs = selector == DISPATCH ? raw_call(__NR_getppid) : -1;
		selector = DISPATCH;
		passing_call(__NR_write, fds[1], "d", 1);
		waited = passing_call(__NR_wait_for_async, 0UL, cookie, &deadline);
		selector = LET_PASS;

		CHECK(is_cookie(cookie));
		CHECK_EQ(handed_over + 1, counter("handed_over"));
		CHECK_EQ(getppid(), mine);
		CHECK_EQ(77, theirs);
		CHECK_EQ(i + 1, dispatched);
		CHECK_EQ(0, waited);
		CHECK_EQ(1, result_of(&result));
		CHECK_EQ('d', byte);
	}
	return NULL;
}

static struct submission from_handler;
static int handler_fds[2];
static char handler_byte;

/* Submits the call that was dispatched, so that it sleeps on its own. */
static void submit_what_is_dispatched(int signal, siginfo_t *info, void *context)
{
	selector = LET_PASS;
	dispatched++;
	dispatched_nr = info->si_syscall;
	from_handler.result = UNTOUCHED;
	from_handler.cookie = async_submit(0, &from_handler.result, info->si_syscall,
					   ARGS(handler_fds[0], P(&handler_byte), 1));
	set_return_value(context, 88);
}

WHERE_THERE_IS_DISPATCH(submission_by_the_handler)
{
	const struct sigaction action = {
		.sa_sigaction = submit_what_is_dispatched,
		.sa_flags = SA_SIGINFO,
	};
	long handed_over, value;
	int i;

	CHECK_EQ(0, pipe(handler_fds));
	CHECK(dispatch_on(0, 0));
	CHECK_EQ(0, sigaction(SIGSYS, &action, NULL));
	for (i = 0; i < 10; i++) {
		handed_over = counter("handed_over");
		handler_byte = 0;
		selector = DISPATCH;
		value = raw_call(__NR_read, handler_fds[0], &handler_byte, 1);
		CHECK_EQ(88, value);
		CHECK_EQ(i + 1, dispatched);
		CHECK_EQ(__NR_read, dispatched_nr);
		CHECK(is_cookie(from_handler.cookie));
		CHECK_EQ(handed_over + 1, counter("handed_over"));
		CHECK_EQ(1, write(handler_fds[1], "h", 1));
		TRY(ends_with(&from_handler, 1));
		CHECK_EQ('h', handler_byte);
	}
	return NULL;
}

#endif

TEST_HARNESS_MAIN
