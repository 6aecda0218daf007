// SPDX-License-Identifier: GPL-2.0
/*
 * Filters of system calls are a thread's: they hold for what was handed over and for the calls
 * that are submitted there, whenever and by whomever they were installed.
 */
#include <sys/uio.h>
#include <ucontext.h>

#include "filters.h"
#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* A call that sleeps, and that nothing else here uses: a filter may answer it. */
struct scattered {
	struct submission s;
	int fds[2];
	char byte;
	struct iovec iov;
};

static const char *begin_readv(struct scattered *r)
{
	r->byte = 0;
	r->iov = (struct iovec){ &r->byte, 1 };
	CHECK_EQ(0, pipe(r->fds));
	return submit_sleeping(&r->s, __NR_readv, ARGS(r->fds[0], P(&r->iov), 1));
}

static const char *end_readv(struct scattered *r)
{
	CHECK_EQ(1, write(r->fds[1], "v", 1));
	TRY(ends_with(&r->s, 1));
	CHECK_EQ('v', r->byte);
	close(r->fds[0]);
	close(r->fds[1]);
	return NULL;
}

/* Neither made directly nor submitted does a call get by. */
static const char *is_filtered(long nr, int error)
{
	long handed_over = counter("handed_over"), result = UNTOUCHED;

	CHECK_EQ(-error, raw_call(nr, -1, 0, 0));
	CHECK_EQ(0, async_submit(0, &result, nr, ARGS(-1UL)));
	CHECK_EQ(-error, result);
	CHECK_EQ(handed_over, counter("handed_over"));
	return NULL;
}

/* --- by the thread itself ----------------------------------------------------------------- */

IN_EITHER_THREAD(filter_from_before_the_first_call)
{
	int i;

	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	for (i = 0; i < 10; i++) {
		struct reading r;

		TRY(begin_reading(&r));
		TRY(is_filtered(__NR_getppid, E2BIG));
		TRY(end_reading(&r));
		TRY(is_filtered(__NR_getppid, E2BIG));
	}
	return NULL;
}

/* What would sleep does not, if it does not get that far. */
IN_EITHER_THREAD(filtered_call_is_not_handed_over)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	long result, handed_over;
	int i, fds[2];

	CHECK_EQ(0, pipe(fds));
	TRY(hand_over(5));
	CHECK_EQ(0, filter(__NR_readv, SECCOMP_RET_ERRNO | EPERM, 0));
	handed_over = counter("handed_over");
	for (i = 0; i < 10; i++) {
		result = UNTOUCHED;
		CHECK_EQ(0, async_submit(0, &result, __NR_readv, ARGS(fds[0], P(&iov), 1)));
		CHECK_EQ(-EPERM, result);
	}
	CHECK_EQ(handed_over, counter("handed_over"));
	CHECK_EQ(0, counter("outstanding"));
	return hand_over(5);
}

IN_EITHER_THREAD(filter_from_after_hand_overs)
{
	int i;

	TRY(hand_over(5));
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	for (i = 0; i < 10; i++) {
		struct reading r;

		TRY(is_filtered(__NR_getppid, E2BIG));
		TRY(begin_reading(&r));
		TRY(is_filtered(__NR_getppid, E2BIG));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* It holds for what was handed over, and not for the call, which was let in before. */
IN_EITHER_THREAD(filter_while_a_call_is_outstanding)
{
	struct scattered r;

	TRY(begin_readv(&r));
	CHECK_EQ(0, filter(__NR_readv, SECCOMP_RET_ERRNO | EPERM, 0));
	TRY(is_filtered(__NR_readv, EPERM));
	CHECK_EQ(r.s.cookie, result_of(&r.s.result));
	TRY(end_readv(&r));
	TRY(hand_over(5));
	return is_filtered(__NR_readv, EPERM);
}

static long status_line(const char *name)
{
	char text[4096], *found;

	if (!read_text("/proc/thread-self/status", text, sizeof(text)))
		return -1;
	found = strstr(text, name);
	return found ? atol(found + strlen(name)) : -1;
}

/* One after the other, each on top of those before. */
IN_EITHER_THREAD(number_of_filters)
{
	int i;

	CHECK_EQ(0, status_line("\nSeccomp:"));
	for (i = 1; i <= 10; i++) {
		struct reading r;

		TRY(begin_reading(&r));
		CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | i, 0));
		CHECK_EQ(2, status_line("\nSeccomp:"));
		CHECK_EQ(i, status_line("\nSeccomp_filters:"));
		TRY(end_reading(&r));
		TRY(hand_over(2));
		CHECK_EQ(2, status_line("\nSeccomp:"));
		CHECK_EQ(i, status_line("\nSeccomp_filters:"));
		TRY(is_filtered(__NR_getppid, i));
	}
	return NULL;
}

/* --- of one thread, and not of another ---------------------------------------------------- */

static int stage, answer;

static const char *filters_and_stays(void)
{
	TRY(hand_over(5));
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	TRY(hand_over(5));
	reach(&stage, 1);
	CHECK(await(&stage, 2));
	TRY(hand_over(5));
	return is_filtered(__NR_getppid, E2BIG);
}

/* Workers go from thread to thread, and take no filter with them, nor leave one behind. */
IN_EITHER_THREAD(filter_of_another_thread_only)
{
	static body_fn body = filters_and_stays;
	void *found = "no value";
	pthread_t thread;
	int i;

	stage = 0;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	CHECK(await(&stage, 1));
	for (i = 0; i < 20; i++) {
		struct reading r;

		TRY(begin_reading(&r));
		CHECK_EQ(getpid(), raw_call(__NR_getpid));
		CHECK(raw_call(__NR_getppid) >= 0);
		CHECK_EQ(0, status_line("\nSeccomp:"));
		TRY(end_reading(&r));
	}
	reach(&stage, 2);
	CHECK_EQ(0, pthread_join(thread, &found));
	return found;
}

/* --- by another thread, for all ----------------------------------------------------------- */

static const char *synchronises(void)
{
	CHECK_EQ(0, filter(__NR_readv, SECCOMP_RET_ERRNO | EPERM, SECCOMP_FILTER_FLAG_TSYNC));
	return is_filtered(__NR_readv, EPERM);
}

IN_EITHER_THREAD(filter_for_all_while_a_call_is_outstanding)
{
	struct scattered r;
	struct reading other;

	TRY(hand_over(3));
	TRY(begin_readv(&r));
	TRY(begin_reading(&other));
	TRY(run_in(true, synchronises));
	TRY(is_filtered(__NR_readv, EPERM));
	TRY(end_readv(&r));
	TRY(is_filtered(__NR_readv, EPERM));
	TRY(end_reading(&other));
	TRY(hand_over(5));
	return is_filtered(__NR_readv, EPERM);
}

static const char *filters_and_ends(void)
{
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	return hand_over(3);
}

/* A thread with a filter of its own stands in the way, but only as long as it is there. */
IN_EITHER_THREAD(filter_for_all_after_another_thread_has_ended)
{
	TRY(hand_over(3));
	TRY(run_in(true, filters_and_ends));
	CHECK_EQ(0, filter(__NR_readv, SECCOMP_RET_ERRNO | EPERM, SECCOMP_FILTER_FLAG_TSYNC));
	TRY(is_filtered(__NR_readv, EPERM));
	return hand_over(3);
}

enum { FILTERS = 30 };

static const char *synchronises_often(void)
{
	int i;

	for (i = 1; i <= FILTERS; i++) {
		CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | i,
				   SECCOMP_FILTER_FLAG_TSYNC));
		reach(&stage, i);
		CHECK(await(&answer, i));
	}
	return NULL;
}

/* At any moment of a hand-over: each is there when the next call is made. */
IN_EITHER_THREAD_TIMEOUT(filters_for_all_at_any_time, 300)
{
	static body_fn body = synchronises_often;
	long handed_over = counter("handed_over");
	void *found = "no value";
	pthread_t thread;
	int i, last = 0;

	stage = 0;
	answer = 0;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	for (i = 1; i <= FILTERS; last = i++) {
		while (!is_reached(&stage, i)) {
			TRY(hand_over_among_others());
			CHECK(status_line("\nSeccomp_filters:") >= last);
		}
		CHECK_EQ(i, status_line("\nSeccomp_filters:"));
		CHECK_EQ(-i, raw_call(__NR_getppid));
		TRY(hand_over_among_others());
		CHECK_EQ(i, status_line("\nSeccomp_filters:"));
		reach(&answer, i);
	}
	CHECK_EQ(0, pthread_join(thread, &found));
	CHECK(counter("handed_over") >= handed_over + FILTERS);
	return found;
}

/* --- what a filter does but answer -------------------------------------------------------- */

static volatile int traps, trapped_nr, trapped_errno;
static volatile pid_t trapped_in;

static void on_trap(int signal, siginfo_t *info, void *context)
{
	trapped_nr = info->si_syscall;
	trapped_errno = info->si_errno;
	trapped_in = gettid();
	traps++;
	set_return_value(context, 77);
}

IN_EITHER_THREAD(trap)
{
	const struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	long result = UNTOUCHED;
	struct reading r;
	int i;

	traps = 0;
	CHECK_EQ(0, sigaction(SIGSYS, &action, NULL));
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_TRAP | 99, 0));
	for (i = 0; i < 5; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(77, raw_call(__NR_getppid));
		CHECK_EQ(2 * i + 1, traps);
		CHECK_EQ(__NR_getppid, trapped_nr);
		CHECK_EQ(99, trapped_errno);
		CHECK_EQ(gettid(), trapped_in);
		/* What the handler leaves is returned, and nothing is stored. */
		CHECK_EQ(77, async_submit(0, &result, __NR_getppid, ARGS(0)));
		CHECK_EQ(UNTOUCHED, result);
		CHECK_EQ(2 * i + 2, traps);
		TRY(end_reading(&r));
	}
	return NULL;
}

struct supervised {
	int listener;
	pid_t pid;
	long nr;
};

/* Lets a call go on that a filter has asked for. */
static void *supervise(void *argument)
{
	struct supervised *s = argument;
	struct seccomp_notif_resp answer = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
	struct seccomp_notif asked = { };

	if (!becomes_true(__atomic_load_n(&s->listener, __ATOMIC_ACQUIRE)))
		return "no listener";
	if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return "nobody asked";
	s->pid = asked.pid;
	s->nr = asked.data.nr;
	answer.id = asked.id;
	return ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) ? "no answer" : NULL;
}

/* It sleeps twice: for the supervisor, where the thread it is waits, and in the call. */
IN_EITHER_THREAD(call_that_a_supervisor_lets_go_on)
{
	struct supervised s = { };
	void *found = "no value";
	struct scattered r;
	pthread_t thread;
	long listener;

	TRY(hand_over(3));
	/* Before the filter, so that it is not its own supervisor. */
	CHECK_EQ(0, pthread_create(&thread, NULL, supervise, &s));
	listener = filter(__NR_readv, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	CHECK(listener > 0);
	__atomic_store_n(&s.listener, listener, __ATOMIC_RELEASE);
	TRY(begin_readv(&r));
	CHECK_EQ(0, pthread_join(thread, &found));
	TRY(found);
	CHECK_EQ(gettid(), s.pid);
	CHECK_EQ(__NR_readv, s.nr);
	TRY(end_readv(&r));
	return hand_over(3);
}

/* --- the end ------------------------------------------------------------------------------ */

static bool other_thread;

static const char *is_killed(void)
{
	struct reading r;

	TRY(hand_over(3));
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_KILL_PROCESS, 0));
	TRY(begin_reading(&r));
	getppid();
	return trouble("still there");
}

TEST_F(thread, process_is_killed)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(run_in(variant->other, is_killed));
	EXPECT_EQ(SIGSYS, status_of(child) & 0x7f);
}

static struct reading left;

static const char *leaves_a_call(void)
{
	TRY(hand_over(3));
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_KILL_THREAD, 0));
	TRY(begin_reading(&left));
	__atomic_store_n(&other_thread, true, __ATOMIC_RELEASE);
	getppid();
	return trouble("still there");
}

/* A thread is killed, its call goes on, and so does the process. */
TEST(thread_is_killed)
{
	static body_fn body = leaves_a_call;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_TRUE(other_thread);
	EXPECT_FINE(end_reading(&left));
	EXPECT_FINE(hand_over(3));
}

/* In strict mode four calls are left, which are enough to end a call that is outstanding. */
static const char *becomes_strict(void)
{
	struct reading r;

	TRY(hand_over(3));
	TRY(begin_reading(&r));
	CHECK_EQ(0, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
	if (write(r.fds[1], "x", 1) == 1)
		while (result_of(&r.s.result) == r.s.cookie)
			;
	syscall(__NR_exit, r.byte == 'x' ? 33 : 1);
	return NULL;
}

TEST(strict)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(becomes_strict());
	EXPECT_EQ(33 << 8, status_of(child));
}

static const char *is_strict_and_disobeys(void)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(0, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0));
	getppid();
	return NULL;
}

TEST(strict_thread_that_disobeys_is_killed)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(is_strict_and_disobeys());
	EXPECT_EQ(SIGKILL, status_of(child));
}

TEST_HARNESS_MAIN
