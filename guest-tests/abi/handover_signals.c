// SPDX-License-Identifier: GPL-2.0
/*
 * Signals belong to the user context: masks, stacks and what is pending move with it, none is
 * lost and none comes twice, and each is handled by the thread it was sent to.
 */
#include <linux/futex.h>
#include <setjmp.h>
#include <sys/time.h>
#include <ucontext.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()
PATIENCE()

enum { OUTSTANDING = 100 };

static volatile sig_atomic_t handled, handled_by;

static void note(int signal)
{
	handled_by = gettid();
	handled++;
}

static const char *handle(int signal, void (*handler)(int), int flags)
{
	const struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	handled = handled_by = 0;
	CHECK_EQ(0, sigaction(signal, &action, NULL));
	return NULL;
}

static const char *block(int how, int signal)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	CHECK_EQ(0, pthread_sigmask(how, &set, NULL));
	return NULL;
}

static bool is_pending(int signal)
{
	sigset_t set;

	return !sigpending(&set) && sigismember(&set, signal);
}

static int queue_to_process(pid_t pid, int signal, int number)
{
	const union sigval value = { .sival_int = number };

	return sigqueue(pid, signal, value);
}

static int queue_to_thread(pid_t pid, pid_t tid, int signal, int number)
{
	siginfo_t info = { .si_signo = signal, .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = number;
	return raw_call(__NR_rt_tgsigqueueinfo, pid, tid, signal, &info);
}

/* --- the mask --------------------------------------------------------------------------- */

IN_EITHER_THREAD(mask_stays)
{
	sigset_t mask, now;
	struct reading r;
	int i;

	for (i = 1; i < 40; i++) {
		sigemptyset(&mask);
		sigaddset(&mask, i);
		sigaddset(&mask, SIGRTMIN + i % 20);
		CHECK_EQ(0, pthread_sigmask(SIG_SETMASK, &mask, NULL));
		CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &mask));
		TRY(begin_reading(&r));
		CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &now));
		CHECK_EQ(0, memcmp(&mask, &now, _NSIG / 8));
		TRY(end_reading(&r));
		CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &now));
		CHECK_EQ(0, memcmp(&mask, &now, _NSIG / 8));
	}
	return NULL;
}

static volatile sig_atomic_t blocked_in_handler;

static void hands_over_and_looks(int signal)
{
	sigset_t now;

	if (hand_over_once())
		return;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	blocked_in_handler = sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2);
	note(signal);
}

/* What a handler blocks is unblocked when it returns, by another task than the one it began on. */
IN_EITHER_THREAD(mask_of_a_handler)
{
	struct sigaction action = { .sa_handler = hands_over_and_looks };
	sigset_t now;
	int i;

	sigaddset(&action.sa_mask, SIGUSR2);
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	handled = 0;
	for (i = 0; i < 50; i++) {
		blocked_in_handler = 0;
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
		CHECK_EQ(i + 1, handled);
		CHECK(blocked_in_handler);
		CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &now));
		CHECK(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
	}
	return NULL;
}

static void *kick_later(void *argument)
{
	pid_t tid = *(pid_t *)argument;

	if (becomes_true(thread_state(tid) == 'S'))
		tgkill(getpid(), tid, SIGUSR1);
	return NULL;
}

/* sigsuspend() puts back a mask that was saved after the hand-over. */
IN_EITHER_THREAD(suspended_with_another_mask)
{
	pid_t tid = gettid();
	sigset_t none, now;
	struct reading r;
	pthread_t thread;
	int i;

	TRY(handle(SIGUSR1, note, 0));
	TRY(block(SIG_BLOCK, SIGUSR1));
	sigemptyset(&none);
	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		/* One already there, and one that comes later. */
		if (i % 2)
			CHECK_EQ(0, tgkill(getpid(), tid, SIGUSR1));
		else
			CHECK_EQ(0, pthread_create(&thread, NULL, kick_later, &tid));
		CHECK_EQ(-1, sigsuspend(&none));
		CHECK_EQ(EINTR, errno);
		CHECK_EQ(i + 1, handled);
		CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, NULL, &now));
		CHECK(sigismember(&now, SIGUSR1));
		if (!(i % 2))
			CHECK_EQ(0, pthread_join(thread, NULL));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* --- stacks ----------------------------------------------------------------------------- */

static __thread char alternate_stack[1 << 16] __attribute__((aligned(64)));
static volatile sig_atomic_t was_on_stack;

static void note_stack(int signal)
{
	char here;

	was_on_stack = &here >= alternate_stack && &here < alternate_stack + sizeof(alternate_stack);
	if (signal == SIGUSR2 && hand_over_once())
		was_on_stack = -1;
	note(signal);
}

static const char *set_stack(void)
{
	const stack_t stack = { .ss_sp = alternate_stack, .ss_size = sizeof(alternate_stack) };

	CHECK_EQ(0, sigaltstack(&stack, NULL));
	return NULL;
}

IN_EITHER_THREAD(alternate_stack_stays)
{
	struct reading r;
	stack_t now;
	int i;

	TRY(set_stack());
	TRY(handle(SIGUSR1, note_stack, SA_ONSTACK));
	TRY(handle(SIGUSR2, note_stack, SA_ONSTACK));
	for (i = 0; i < 20; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, sigaltstack(NULL, &now));
		CHECK(now.ss_sp == alternate_stack);
		CHECK_EQ(sizeof(alternate_stack), now.ss_size);
		CHECK_EQ(0, now.ss_flags);
		was_on_stack = 0;
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
		CHECK_EQ(1, was_on_stack);
		/* A hand-over in the handler, on that stack. */
		was_on_stack = 0;
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR2));
		CHECK_EQ(1, was_on_stack);
		TRY(end_reading(&r));
	}
	return NULL;
}

static void note_flags(int signal)
{
	stack_t now;

	was_on_stack = !hand_over_once() && !sigaltstack(NULL, &now) ? now.ss_flags : -1;
}

IN_EITHER_THREAD(stack_is_in_use_or_disarmed)
{
	stack_t stack = { .ss_sp = alternate_stack, .ss_size = sizeof(alternate_stack) };
	stack_t now;

	TRY(set_stack());
	TRY(handle(SIGUSR1, note_flags, SA_ONSTACK));
	CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
	CHECK_EQ(SS_ONSTACK, was_on_stack);
#ifdef SS_AUTODISARM
	stack.ss_flags = SS_AUTODISARM;
#else
	stack.ss_flags = 1U << 31;
#endif
	CHECK_EQ(0, sigaltstack(&stack, NULL));
	CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
	CHECK_EQ(SS_DISABLE, was_on_stack);
	/* Armed again by the return from the handler. */
	TRY(hand_over_once());
	CHECK_EQ(0, sigaltstack(NULL, &now));
	CHECK(now.ss_sp == alternate_stack);
	CHECK_EQ(stack.ss_flags, now.ss_flags);
	return NULL;
}

static sigjmp_buf back;

static void leave_the_overflow(int signal)
{
	note_stack(signal);
	siglongjmp(back, 1);
}

static __attribute__((noinline)) long overflow(volatile char *above, long depth)
{
	volatile char here[4096];

	here[0] = above ? above[0] : 0;
	return depth < 0 ? 0 : overflow(here, depth + 1) + here[0];
}

/* A stack that overflows after a hand-over can only be handled on the alternate one. */
IN_A_CHILD(overflow_is_handled_on_the_alternate_stack)
{
	struct reading r;

	TRY(set_stack());
	TRY(handle(SIGSEGV, leave_the_overflow, SA_ONSTACK | SA_NODEFER));
	TRY(begin_reading(&r));
	if (!sigsetjmp(back, 1))
		overflow(NULL, 0);
	CHECK_EQ(1, handled);
	CHECK_EQ(1, was_on_stack);
	CHECK_EQ(gettid(), handled_by);
	return end_reading(&r);
}

/* --- what is pending -------------------------------------------------------------------- */

static const char *sees_nothing_pending(void)
{
	CHECK(!is_pending(SIGUSR1));
	return NULL;
}

/* A signal for a thread stays that thread's, one for the process everybody's. */
IN_EITHER_THREAD(pending_for_the_thread)
{
	int i;

	TRY(handle(SIGUSR1, note, 0));
	for (i = 0; i < 20; i++) {
		struct reading r;

		handled = 0;
		TRY(block(SIG_BLOCK, SIGUSR1));
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
		TRY(begin_reading(&r));
		CHECK(is_pending(SIGUSR1));
		TRY(run_in(true, sees_nothing_pending));
		TRY(end_reading(&r));
		CHECK(is_pending(SIGUSR1));
		CHECK_EQ(0, handled);
		TRY(block(SIG_UNBLOCK, SIGUSR1));
		CHECK_EQ(1, handled);
		CHECK_EQ(gettid(), handled_by);
		CHECK(!is_pending(SIGUSR1));
	}
	return NULL;
}

IN_EITHER_THREAD(sent_while_the_call_is_outstanding)
{
	struct reading r;
	int i;

	TRY(handle(SIGUSR1, note, 0));
	for (i = 0; i < 20; i++) {
		handled = 0;
		TRY(block(SIG_BLOCK, SIGUSR1));
		TRY(begin_reading(&r));
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
		CHECK(is_pending(SIGUSR1));
		TRY(end_reading(&r));
		/* The worker, which is idle now, has not taken it. */
		TRY(hand_over(2));
		CHECK(is_pending(SIGUSR1));
		CHECK_EQ(0, handled);
		TRY(block(SIG_UNBLOCK, SIGUSR1));
		CHECK_EQ(1, handled);
	}
	return NULL;
}

/* All threads have it blocked: no worker may handle it in their place. */
IN_EITHER_THREAD(pending_for_the_process)
{
	struct reading r;
	siginfo_t info;
	sigset_t set;
	int i;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	if (gettid() != getpid())
		return NULL;
	TRY(handle(SIGUSR2, note, 0));
	CHECK_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	for (i = 0; i < 20; i++) {
		CHECK_EQ(0, kill(getpid(), SIGUSR2));
		TRY(begin_reading(&r));
		CHECK(is_pending(SIGUSR2));
		TRY(end_reading(&r));
		CHECK(is_pending(SIGUSR2));
		CHECK_EQ(0, handled);
		CHECK_EQ(SIGUSR2, sigtimedwait(&set, &info, &(struct timespec){ }));
		CHECK_EQ(getpid(), info.si_pid);
		CHECK(!is_pending(SIGUSR2));
	}
	return NULL;
}

enum { QUEUED = 100 };

static volatile int queued_values[2 * QUEUED + 1], queued_seen;

static void note_value(int signal, siginfo_t *info, void *context)
{
	if (queued_seen < 2 * QUEUED + 1)
		queued_values[queued_seen++] = info->si_value.sival_int;
}

IN_EITHER_THREAD(queue_keeps_values_and_order)
{
	const struct sigaction action = { .sa_sigaction = note_value, .sa_flags = SA_SIGINFO };
	struct reading r;
	int i;

	queued_seen = 0;
	CHECK_EQ(0, sigaction(SIGRTMIN, &action, NULL));
	TRY(block(SIG_BLOCK, SIGRTMIN));
	for (i = 0; i < QUEUED; i++) {
		CHECK_EQ(0, queue_to_thread(getpid(), gettid(), SIGRTMIN, i));
		if (i % 10 == 0)
			TRY(hand_over_once());
	}
	TRY(begin_reading(&r));
	for (i = 0; i < QUEUED; i++)
		CHECK_EQ(0, queue_to_thread(getpid(), gettid(), SIGRTMIN, QUEUED + i));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK_EQ(0, queued_seen);
	TRY(block(SIG_UNBLOCK, SIGRTMIN));
	CHECK_EQ(2 * QUEUED, queued_seen);
	for (i = 0; i < 2 * QUEUED; i++)
		CHECK_EQ(i, queued_values[i]);
	return NULL;
}

IN_EITHER_THREAD(waited_for)
{
	struct reading r;
	siginfo_t info;
	sigset_t set;
	int i;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	TRY(block(SIG_BLOCK, SIGRTMIN + 1));
	for (i = 0; i < 20; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, queue_to_thread(getpid(), gettid(), SIGRTMIN + 1, i));
		CHECK_EQ(SIGRTMIN + 1, sigtimedwait(&set, &info, &(struct timespec){ }));
		CHECK_EQ(i, info.si_value.sival_int);
		CHECK_EQ(-1, sigtimedwait(&set, &info, &(struct timespec){ }));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* --- floods ----------------------------------------------------------------------------- */

enum { FLOOD = 4000 };

static unsigned char *seen;
static volatile pid_t flooded;

static void note_number(int signal, siginfo_t *info, void *context)
{
	int number = info->si_value.sival_int;

	if (info->si_code != SI_QUEUE || number < 0 || number >= 2 * FLOOD)
		return;
	/* One that was sent to a thread has to be handled by it. */
	if (number >= FLOOD && gettid() != flooded)
		return;
	__atomic_add_fetch(&seen[number], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

struct flood {
	int at;
	pid_t tid;
};

/* Sends numbers below FLOOD to a process, and others to one of its threads. */
static const char *send_flood(pid_t pid, struct flood *flood, int n)
{
	int i, ret;

	CHECK(await(&flood->at, 1));
	for (i = 0; i < n; i++) {
		while (queue_to_process(pid, SIGRTMIN, i))
			CHECK_EQ(EAGAIN, errno);
		while ((ret = queue_to_thread(pid, flood->tid, SIGRTMIN, FLOOD + i)))
			CHECK_EQ(-EAGAIN, ret);
	}
	return NULL;
}

FIXTURE(flood)
{
	struct flood *flood;
};

FIXTURE_VARIANT(flood)
{
	bool other;
	int flags;
};

FIXTURE_VARIANT_ADD(flood, main_restarting)
{
	.other = false,
	.flags = SA_RESTART,
};

FIXTURE_VARIANT_ADD(flood, main)
{
	.other = false,
	.flags = 0,
};

FIXTURE_VARIANT_ADD(flood, other_restarting)
{
	.other = true,
	.flags = SA_RESTART,
};

FIXTURE_VARIANT_ADD(flood, other)
{
	.other = true,
	.flags = 0,
};

static struct flood *the_flood;
static int flood_length;

FIXTURE_SETUP(flood)
{
	const struct sigaction action = {
		.sa_sigaction = note_number,
		.sa_flags = SA_SIGINFO | variant->flags,
	};

	the_flood = self->flood = share(sizeof(*self->flood));
	ASSERT_NE(NULL, self->flood);
	seen = calloc(2 * FLOOD, 1);
	ASSERT_NE(NULL, seen);
	ASSERT_EQ(0, sigaction(SIGRTMIN, &action, NULL));
	flood_length = times(600, FLOOD);
}

FIXTURE_TEARDOWN(flood)
{
}

/* One read through all signals; what became of it. */
static const char *read_among_signals(int fds[2])
{
	long result, cookie;
	char byte = 0;
	int ret;

	for (;;) {
		result = UNTOUCHED;
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		if (cookie)
			break;
		/* It was about to sleep with a signal pending. */
		CHECK_EQ(-EINTR, result);
	}
	CHECK(is_cookie(cookie));
	CHECK_EQ(cookie, result_of(&result));
	CHECK_EQ(1, write(fds[1], "x", 1));
	while ((ret = wait_for_async(0, cookie, &deadline)) == -EINTR)
		;
	CHECK_EQ(0, ret);
	CHECK_EQ(1, result_of(&result));
	CHECK_EQ('x', byte);
	return NULL;
}

static const char *hands_over_in_the_flood(void)
{
	static long results[OUTSTANDING], cookies[OUTSTANDING];
	static char bytes[OUTSTANDING];
	int fds[2], others[2], i, ret;
	long long end = now_ns() + 200LL * DEADLINE_S * 1000000000;

	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(0, pipe(others));
	for (i = 0; i < OUTSTANDING; i++) {
		cookies[i] = async_submit(0, &results[i], __NR_read,
					  ARGS(others[0], P(&bytes[i]), 1));
		CHECK(is_cookie(cookies[i]));
	}
	flooded = the_flood->tid = gettid();
	reach(&the_flood->at, 1);
	for (i = 0; i < 300 || handled < 2 * flood_length; i++) {
		TRY(read_among_signals(fds));
		CHECK(now_ns() < end);
	}
	/* None of the others has noticed. */
	for (i = 0; i < OUTSTANDING; i++)
		CHECK_EQ(cookies[i], result_of(&results[i]));
	close(others[1]);
	while ((ret = wait_for_async(0, 0, &deadline)) == -EINTR)
		;
	CHECK_EQ(0, ret);
	for (i = 0; i < OUTSTANDING; i++)
		CHECK_EQ(0, result_of(&results[i]));
	/* Nor is any that was called off because a signal came just then. */
	CHECK_EQ(0, counter("outstanding"));
	return NULL;
}

static const char *saw_each_once(void)
{
	int i;

	for (i = 0; i < flood_length; i++)
		if (seen[i] != 1 || seen[FLOOD + i] != 1)
			return trouble("signal %d came %d times to the process, %d times to the thread",
				       i, seen[i], seen[FLOOD + i]);
	CHECK_EQ(2 * flood_length, handled);
	return NULL;
}

TEST_F_TIMEOUT(flood, from_another_process, 300)
{
	pid_t parent = getpid(), child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(send_flood(parent, self->flood, flood_length));
	EXPECT_FINE(run_in(variant->other, hands_over_in_the_flood));
	EXPECT_EQ(0, status_of(child));
	EXPECT_FINE(saw_each_once());
}

static void *send_from_a_thread(void *argument)
{
	sigset_t set;

	/* So that what is for the process is for the other one. */
	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return (void *)send_flood(getpid(), the_flood, flood_length);
}

TEST_F_TIMEOUT(flood, from_another_thread, 300)
{
	pthread_t thread;
	void *found;

	ASSERT_EQ(0, pthread_create(&thread, NULL, send_from_a_thread, NULL));
	EXPECT_FINE(run_in(variant->other, hands_over_in_the_flood));
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_FINE(found);
	EXPECT_FINE(saw_each_once());
}

/* Numbers, one after the other, for as long as they are wanted. */
static const char *count_for_a_thread(pid_t pid, struct flood *flood)
{
	int i = 0, ret;

	CHECK(await(&flood->at, 1));
	while (!is_reached(&flood->at, 2)) {
		ret = queue_to_thread(pid, flood->tid, SIGRTMIN, i);
		if (!ret)
			i++;
		else if (!is_reached(&flood->at, 2))
			CHECK_EQ(-EAGAIN, ret);
	}
	return NULL;
}

static const char *hands_over_and_counts(void)
{
	const int rounds = times(1500, 20000);
	sigset_t set;
	siginfo_t info;
	int i, n, next = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	TRY(block(SIG_BLOCK, SIGRTMIN));
	the_flood->tid = gettid();
	reach(&the_flood->at, 1);
	/* Some are pending, most of the time, when more come. */
	for (i = 0; i < rounds; i++) {
		TRY(hand_over_once());
		for (n = 0; n < 8; n++) {
			if (sigtimedwait(&set, &info, &(struct timespec){ }) != SIGRTMIN)
				break;
			CHECK_EQ(next, info.si_value.sival_int);
			next++;
		}
	}
	reach(&the_flood->at, 2);
	CHECK(next > 0);
	return NULL;
}

/* Those that are sent to the thread while it moves come behind those it has brought along. */
TEST_F_TIMEOUT(thread, queue_of_another_process_stays_in_order, 120)
{
	pid_t parent = getpid(), child;

	the_flood = share(sizeof(*the_flood));
	ASSERT_NE(NULL, the_flood);
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(count_for_a_thread(parent, the_flood));
	EXPECT_FINE(run_in(variant->other, hands_over_and_counts));
	reach(&the_flood->at, 2);
	EXPECT_EQ(0, status_of(child));
}

static volatile pid_t stormed;
static volatile bool storm_is_over;

static void *storm(void *argument)
{
	sigset_t set;
	long sent = 0;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	while (!stormed)
		sched_yield();
	while (!storm_is_over) {
		/* Found or not: this thread exists all the time. */
		if (tgkill(getpid(), stormed, SIGUSR1))
			return (void *)-1L;
		sent++;
	}
	return (void *)sent;
}

static volatile sig_atomic_t in_wrong_thread;

static void note_storm(int signal)
{
	if (gettid() != stormed)
		in_wrong_thread = 1;
	handled++;
}

static const char *is_stormed(void)
{
	int fds[2], i;

	CHECK_EQ(0, pipe(fds));
	stormed = gettid();
	for (i = 0; i < times(500, 30000) || handled < 100; i++)
		TRY(read_among_signals(fds));
	return NULL;
}

/* Signals that are sent through a task looked up just before the exchange of tids. */
TEST_F_TIMEOUT(thread, tgkill_storm, 300)
{
	pthread_t threads[2];
	void *sent;
	int i;

	stormed = 0;
	storm_is_over = false;
	EXPECT_FINE(handle(SIGUSR1, note_storm, SA_RESTART));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, storm, NULL));
	EXPECT_FINE(run_in(variant->other, is_stormed));
	storm_is_over = true;
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &sent));
		/* The other thread has ended when the storm is over. */
		if (!variant->other)
			EXPECT_LT(0, (long)sent);
	}
	EXPECT_EQ(0, in_wrong_thread);
}

/* --- two threads, each with a signal of its own ------------------------------------------ */

static struct {
	pthread_t thread, sender;
	volatile pid_t tid;
	volatile long came;
	volatile bool over;
} two[2];

static volatile sig_atomic_t came_to_the_wrong;

static void note_of_two(int signal)
{
	int i = signal == SIGUSR2;

	if (gettid() != two[i].tid)
		came_to_the_wrong = 1;
	two[i].came++;
}

static void *send_to_one(void *argument)
{
	const int i = (long)argument, signal = i ? SIGUSR2 : SIGUSR1;
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	while (!two[i].tid)
		sched_yield();
	while (!two[i].over)
		if (tgkill(getpid(), two[i].tid, signal))
			return "no such thread";
	return NULL;
}

static void *is_one_of_two(void *argument)
{
	const int i = (long)argument;
	const char *found = NULL;
	int fds[2], n;

	if (pipe(fds))
		return "no pipe";
	two[i].tid = gettid();
	for (n = 0; (n < times(500, 30000) || two[i].came < 100) && !found; n++)
		found = read_among_signals(fds);
	two[i].over = true;
	/* It must be there as long as somebody sends to it. */
	pthread_join(two[i].sender, NULL);
	return (void *)found;
}

/*
 * The workers of one are those of the other: a task that was looked up as the one thread may be
 * the other when the signal is sent.
 */
PATIENT_TEST(tgkill_storm_of_two, 300)
{
	void *found;
	long i;

	memset(two, 0, sizeof(two));
	EXPECT_FINE(handle(SIGUSR1, note_of_two, SA_RESTART));
	EXPECT_FINE(handle(SIGUSR2, note_of_two, SA_RESTART));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&two[i].sender, NULL, send_to_one, (void *)i));
		ASSERT_EQ(0, pthread_create(&two[i].thread, NULL, is_one_of_two, (void *)i));
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(two[i].thread, &found));
		EXPECT_FINE(found);
		EXPECT_LE(100, two[i].came);
	}
	EXPECT_EQ(0, came_to_the_wrong);
}

/* --- signals that calls cause ------------------------------------------------------------- */

/* A write that sleeps until its pipe has no reader. */
static const char *begin_writing(struct submission *s, int fds[2])
{
	static char data[1 << 17];

	CHECK_EQ(0, pipe(fds));
	return submit_sleeping(s, __NR_write, ARGS(fds[1], P(data), sizeof(data)));
}

IN_EITHER_THREAD(sigpipe_goes_to_the_submitter)
{
	const long capacity = 1 << 16;
	struct submission s;
	int fds[2], i, ret;

	TRY(handle(SIGPIPE, note, SA_RESTART));
	for (i = 0; i < 20; i++) {
		handled = handled_by = 0;
		TRY(begin_writing(&s, fds));
		CHECK_EQ(s.cookie, result_of(&s.result));
		/* It has written something already: that is its value. */
		CHECK_EQ(0, close(fds[0]));
		while ((ret = wait_for_async(0, s.cookie, &deadline)) == -EINTR)
			;
		CHECK_EQ(0, ret);
		CHECK_EQ(capacity, result_of(&s.result));
		CHECK(becomes_true(handled));
		CHECK_EQ(1, handled);
		CHECK_EQ(gettid(), handled_by);
		close(fds[1]);
	}
	return NULL;
}

static const char *begins_writing_and_ends(void)
{
	static struct submission s;
	static int fds[2];

	TRY(begin_writing(&s, fds));
	flooded = fds[0];
	return NULL;
}

/* The thread it would be for is gone: the process gets it. */
TEST(sigpipe_of_a_call_that_has_outlived_its_thread)
{
	EXPECT_FINE(handle(SIGPIPE, note, 0));
	EXPECT_FINE(run_in(true, begins_writing_and_ends));
	ASSERT_EQ(0, close(flooded));
	EXPECT_TRUE(becomes_true(handled));
	EXPECT_EQ(1, handled);
	EXPECT_EQ(gettid(), handled_by);
}

IN_A_CHILD(sigpipe_ends_the_process)
{
	pid_t child = fork_child();

	CHECK(child >= 0);
	if (child == 0) {
		struct submission s;
		const char *found;
		int fds[2];

		signal(SIGPIPE, SIG_DFL);
		found = begin_writing(&s, fds);
		if (found)
			exit_fine(found);
		close(fds[0]);
		while (1)
			pause();
	}
	CHECK_EQ(SIGPIPE, status_of(child));
	return NULL;
}

/* --- faults of user space after a hand-over ------------------------------------------------ */

static siginfo_t fault;

static void note_fault(int signal, siginfo_t *info, void *context)
{
	fault = *info;
	handled_by = gettid();
	siglongjmp(back, signal);
}

static const char *handle_faults(void)
{
	const struct sigaction action = { .sa_sigaction = note_fault, .sa_flags = SA_SIGINFO };
	static const int signals[] = { SIGSEGV, SIGFPE, SIGILL, SIGTRAP };
	size_t i;

	for (i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		CHECK_EQ(0, sigaction(signals[i], &action, NULL));
	return NULL;
}

static volatile int zero;

IN_A_CHILD(faults_are_of_the_thread_that_makes_them)
{
	volatile int *wild = (volatile int *)0x1234;
	struct reading r;

	TRY(handle_faults());
	TRY(begin_reading(&r));
	switch (sigsetjmp(back, 1)) {
	case 0:
		*wild = 1;
		return "no fault";
	default:
		CHECK_EQ(SIGSEGV, fault.si_signo);
		CHECK_EQ(SEGV_MAPERR, fault.si_code);
		CHECK_EQ(0x1234, fault.si_addr);
		CHECK_EQ(gettid(), handled_by);
	}
	TRY(hand_over_once());
#ifdef __x86_64__
	if (!sigsetjmp(back, 1)) {
		asm volatile("idivl %0" : : "m"(zero), "a"(1), "d"(0) : "cc");
		return "no division error";
	}
	CHECK_EQ(SIGFPE, fault.si_signo);
	CHECK_EQ(FPE_INTDIV, fault.si_code);
	TRY(hand_over_once());
	if (!sigsetjmp(back, 1)) {
		asm volatile("int3");
		return "no trap";
	}
	CHECK_EQ(SIGTRAP, fault.si_signo);
#endif
	TRY(hand_over_once());
	if (!sigsetjmp(back, 1))
		__builtin_trap();
	CHECK_EQ(SIGILL, fault.si_signo);
	CHECK_EQ(gettid(), handled_by);
	return end_reading(&r);
}

/* --- timers of the process ---------------------------------------------------------------- */

static const char *takes_timer(int which, int signal)
{
	const struct itimerval soon = { .it_value = { .tv_usec = 20 * 1000 } };
	long long end = now_ns() + DEADLINE_S * 1000000000LL;
	struct reading r;

	TRY(handle(signal, note, SA_RESTART));
	TRY(begin_reading(&r));
	TRY(end_reading(&r));
	/* Armed by one task; after the next hand-over it is for another one. */
	CHECK_EQ(0, setitimer(which, &soon, NULL));
	TRY(begin_reading(&r));
	while (!handled && now_ns() < end)
		;
	CHECK_EQ(1, handled);
	CHECK_EQ(gettid(), handled_by);
	return end_reading(&r);
}

TEST(timers_of_the_process)
{
	EXPECT_FINE(takes_timer(ITIMER_REAL, SIGALRM));
	EXPECT_FINE(takes_timer(ITIMER_VIRTUAL, SIGVTALRM));
	EXPECT_FINE(takes_timer(ITIMER_PROF, SIGPROF));
}

/* wait_for_async() in a context that was handed over is interrupted as any. */
IN_EITHER_THREAD(wait_is_interrupted)
{
	pid_t tid = gettid();
	struct reading r;
	pthread_t thread;
	int i;

	TRY(handle(SIGUSR1, note, 0));
	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, pthread_create(&thread, NULL, kick_later, &tid));
		CHECK_EQ(-EINTR, wait_for_async(0, r.s.cookie, &deadline));
		CHECK_EQ(i + 1, handled);
		CHECK_EQ(tid, handled_by);
		CHECK_EQ(0, pthread_join(thread, NULL));
		TRY(end_reading(&r));
	}
	return NULL;
}

TEST_HARNESS_MAIN
