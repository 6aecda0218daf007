// SPDX-License-Identifier: GPL-2.0
/*
 * Children and tracees are a thread's: they stay that thread's when another task goes on as it.
 * Parent-death signals come when the thread ends, and not when a task does.
 */
#include <linux/sched.h>
#include <sys/ptrace.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* A child that ends when it is told to, and not before. */
static const char *make_child(pid_t *made)
{
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0)
		while (1)
			pause();
	*made = child;
	return NULL;
}

static const char *end_child(pid_t child)
{
	CHECK_EQ(0, kill(child, SIGTERM));
	CHECK_EQ(SIGTERM, next_status(child, 0));
	return NULL;
}

IN_EITHER_THREAD(children_of_before_and_after)
{
	pid_t before, during, after;
	struct reading r;
	int i;

	for (i = 0; i < 10; i++) {
		TRY(make_child(&before));
		TRY(begin_reading(&r));
		TRY(make_child(&during));
		CHECK_EQ(0, waitpid(before, NULL, WNOHANG));
		TRY(end_child(before));
		TRY(end_reading(&r));
		TRY(make_child(&after));
		TRY(hand_over(2));
		TRY(end_child(during));
		TRY(end_child(after));
		CHECK_EQ(-1, waitpid(-1, NULL, WNOHANG));
		CHECK_EQ(ECHILD, errno);
	}
	return NULL;
}

/* A child knows its parent by the number, and the kernel lists it. */
IN_EITHER_THREAD(parent_stays)
{
	int *stage = share(sizeof(*stage));
	struct reading r;
	char path[64], text[64], expected[64];
	pid_t child, parent = getpid();

	CHECK(stage != NULL);
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0) {
		await(stage, 1);
		_exit(getppid() == parent ? 18 : 1);
	}
	TRY(begin_reading(&r));
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", gettid());
	if (read_text(path, text, sizeof(text))) {
		snprintf(expected, sizeof(expected), "%d ", child);
		CHECK(!strcmp(expected, text));
	}
	TRY(end_reading(&r));
	reach(stage, 1);
	CHECK_EQ(18 << 8, next_status(child, 0));
	return NULL;
}

/* --- __WNOTHREAD -------------------------------------------------------------------------- */

static pid_t mine;

static const char *finds_none_of_its_own(void)
{
	CHECK_EQ(-1, waitpid(mine, NULL, WNOHANG | __WNOTHREAD));
	CHECK_EQ(ECHILD, errno);
	/* Any thread may wait for all children of the process. */
	CHECK_EQ(0, waitpid(mine, NULL, WNOHANG));
	return NULL;
}

IN_EITHER_THREAD(children_of_this_thread)
{
	struct reading r;

	TRY(make_child(&mine));
	TRY(begin_reading(&r));
	CHECK_EQ(0, waitpid(mine, NULL, WNOHANG | __WNOTHREAD));
	TRY(run_in(true, finds_none_of_its_own));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK_EQ(0, waitpid(mine, NULL, WNOHANG | __WNOTHREAD));
	TRY(run_in(true, finds_none_of_its_own));
	CHECK_EQ(0, kill(mine, SIGTERM));
	CHECK_EQ(SIGTERM, next_status(mine, __WNOTHREAD));
	return NULL;
}

/* wait4() that sleeps and is handed over looks at the children of the process. */
IN_EITHER_THREAD(wait_that_is_handed_over)
{
	pid_t first, second;
	struct submission s;
	int status = 0;

	TRY(make_child(&first));
	TRY(submit_sleeping(&s, __NR_wait4, ARGS(-1UL, P(&status), 0, 0)));
	TRY(make_child(&second));
	CHECK_EQ(0, kill(second, SIGTERM));
	TRY(ends_with(&s, second));
	CHECK_EQ(SIGTERM, status);
	return end_child(first);
}

/* --- parent-death signals ----------------------------------------------------------------- */

struct shared {
	int at;
	pid_t child;
	int signals;
};

static struct shared *shared;

static void count_death(int signal)
{
	__atomic_add_fetch(&shared->signals, 1, __ATOMIC_SEQ_CST);
}

/* A child that counts the deaths of its parent, and lives on. */
static void count_deaths(void)
{
	const struct sigaction action = { .sa_handler = count_death };

	sigaction(SIGUSR1, &action, NULL);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	reach(&shared->at, 1);
	await(&shared->at, 3);
	_exit(0);
}

static const char *makes_a_child_and_ends(void)
{
	pid_t child;
	int nice;

	TRY(hand_over(2));
	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		count_deaths();
	shared->child = child;
	CHECK(await(&shared->at, 1));
	TRY(hand_over(5));
	/* Workers end, that have once been this thread. */
	for (nice = 1; nice < 10; nice++) {
		CHECK_EQ(0, raw_call(__NR_setpriority, 0, 0, nice));
		TRY(hand_over(2));
	}
	CHECK_EQ(0, shared->signals);
	return NULL;
}

TEST(death_of_the_parent_thread_is_told_once)
{
	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	EXPECT_FINE(run_in(true, makes_a_child_and_ends));
	/* The thread has ended, the process has not. */
	EXPECT_TRUE(becomes_true(__atomic_load_n(&shared->signals, __ATOMIC_SEQ_CST) == 1));
	EXPECT_FINE(hand_over(5));
	reach(&shared->at, 3);
	EXPECT_EQ(0, next_status(shared->child, 0));
	EXPECT_EQ(1, shared->signals);
}

static const char *ends_with_a_call_outstanding(void)
{
	static long result;
	static char byte;
	static int fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK(is_cookie(async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1))));
	return makes_a_child_and_ends();
}

/* Its call goes on in a task that was the thread when the child was not there yet. */
TEST(death_of_the_parent_thread_with_a_call_outstanding)
{
	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	EXPECT_FINE(run_in(true, ends_with_a_call_outstanding));
	EXPECT_TRUE(becomes_true(__atomic_load_n(&shared->signals, __ATOMIC_SEQ_CST) == 1));
	reach(&shared->at, 3);
	EXPECT_EQ(0, next_status(shared->child, 0));
	EXPECT_EQ(1, shared->signals);
}

static const char *makes_a_child_under_a_call_and_ends(void)
{
	static struct reading r;
	pid_t child;

	/* The child is this thread's, and the task it is of exits later than the thread. */
	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		count_deaths();
	shared->child = child;
	CHECK(await(&shared->at, 1));
	return begin_reading(&r);
}

TEST(child_from_before_the_hand_over_is_told_too)
{
	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	EXPECT_FINE(run_in(true, makes_a_child_under_a_call_and_ends));
	EXPECT_TRUE(becomes_true(__atomic_load_n(&shared->signals, __ATOMIC_SEQ_CST) == 1));
	reach(&shared->at, 3);
	EXPECT_EQ(0, next_status(shared->child, 0));
	EXPECT_EQ(1, shared->signals);
}

/* The parent's own: it is told of the end of its parent after a hand-over. */
static const char *is_child_of_a_parent_that_ends(void)
{
	struct reading r;

	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	TRY(begin_reading(&r));
	{
		int signal = 0;

		CHECK_EQ(0, prctl(PR_GET_PDEATHSIG, &signal));
		CHECK_EQ(SIGUSR1, signal);
	}
	TRY(end_reading(&r));
	reach(&shared->at, 1);
	CHECK(becomes_true(__atomic_load_n(&shared->signals, __ATOMIC_SEQ_CST)));
	TRY(hand_over(3));
	CHECK_EQ(1, shared->signals);
	return NULL;
}

TEST_F(thread, signal_of_a_child_that_hands_over)
{
	const struct sigaction action = { .sa_handler = count_death };
	pid_t between;

	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	/* So that the grandchild's end can be waited for. */
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	between = fork_child();
	ASSERT_LE(0, between);
	if (between == 0) {
		pid_t child = fork();

		if (child == 0)
			exit_fine(run_in(variant->other, is_child_of_a_parent_that_ends));
		shared->child = child;
		await(&shared->at, 1);
		_exit(0);
	}
	EXPECT_EQ(0, next_status(between, 0));
	EXPECT_EQ(0, next_status(shared->child, 0));
}

/* --- orphans ------------------------------------------------------------------------------ */

static const char *leaves_a_child(void)
{
	struct reading r;
	pid_t child;

	TRY(hand_over(2));
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		await(&shared->at, 1);
		_exit(19);
	}
	shared->child = child;
	return begin_reading(&r);
}

/* A sub-reaper that hands over gets the orphans of its descendants. */
IN_EITHER_THREAD(subreaper_gets_orphans)
{
	struct reading r;
	pid_t between;

	shared = share(sizeof(*shared));
	CHECK(shared != NULL);
	CHECK_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	TRY(begin_reading(&r));
	between = fork_child();
	CHECK(between >= 0);
	if (between == 0)
		exit_fine(leaves_a_child());
	CHECK_EQ(0, next_status(between, 0));
	{
		int is = 0;

		CHECK_EQ(0, prctl(PR_GET_CHILD_SUBREAPER, &is));
		CHECK_EQ(1, is);
	}
	reach(&shared->at, 1);
	CHECK_EQ(19 << 8, next_status(shared->child, 0));
	return end_reading(&r);
}

/* A child whose parent thread has ended is the process's still. */
static const char *leaves_a_child_to_the_process(void)
{
	TRY(make_child(&mine));
	TRY(hand_over(3));
	return NULL;
}

TEST(child_of_a_thread_that_has_ended)
{
	EXPECT_FINE(hand_over(3));
	EXPECT_FINE(run_in(true, leaves_a_child_to_the_process));
	EXPECT_FINE(hand_over(3));
	EXPECT_EQ(0, waitpid(mine, NULL, WNOHANG));
	EXPECT_FINE(end_child(mine));
}

/* Children outlive many workers, from before, in between and after. */
IN_EITHER_THREAD(children_outlive_workers)
{
	pid_t children[8];
	int i;

	for (i = 0; i < 8; i++) {
		TRY(make_child(&children[i]));
		CHECK_EQ(0, raw_call(__NR_setpriority, 0, 0, i));
		TRY(hand_over(3));
	}
	for (i = 0; i < 8; i++)
		TRY(end_child(children[i]));
	return NULL;
}

/* --- exit signals, and CLONE_PARENT ------------------------------------------------------- */

static volatile sig_atomic_t told, told_in;

static void note_exit(int signal)
{
	told_in = gettid();
	told++;
}

/* With SIGCHLD blocked elsewhere, it comes to this thread. */
IN_A_CHILD(sigchld_comes_with_calls_outstanding)
{
	const struct sigaction action = { .sa_handler = note_exit };
	struct reading r;
	pid_t child;

	CHECK_EQ(0, sigaction(SIGCHLD, &action, NULL));
	TRY(make_child(&child));
	TRY(begin_reading(&r));
	told = 0;
	CHECK_EQ(0, kill(child, SIGTERM));
	CHECK(becomes_true(told == 1));
	CHECK_EQ(SIGTERM, next_status(child, 0));
	return end_reading(&r);
}

/* --- vfork -------------------------------------------------------------------------------- */

/*
 * A child of vfork() that submits: its parent waits for this very task, so that it must not
 * become another one.
 */
static volatile long vfork_submitted, vfork_result, vfork_fell_back, vfork_handed_over;

static const char *submits_in_a_vfork_child(void)
{
	static long result;
	static char byte;
	int fds[2], status;
	pid_t child;

	CHECK_EQ(0, pipe(fds));
	child = vfork();
	CHECK(child >= 0);
	if (child == 0) {
		vfork_submitted = async_submit(0, &result, __NR_read,
					       ARGS(fds[0], P(&byte), 1));
		if (write(fds[1], "v", 1) == 1 && is_cookie(vfork_submitted))
			wait_for_async(0, vfork_submitted, &deadline);
		vfork_result = result_of(&result);
		vfork_fell_back = counter("fell_back_vfork");
		vfork_handed_over = counter("handed_over");
		_exit(20);
	}
	status = next_status(child, 0);
	CHECK_EQ(20 << 8, status);
	CHECK(is_cookie(vfork_submitted));
	CHECK_EQ(1, vfork_result);
	CHECK_EQ('v', byte);
	CHECK_EQ(1, vfork_fell_back);
	CHECK_EQ(0, vfork_handed_over);
	/* Its own calls are handed over as ever. */
	return hand_over(3);
}

TEST_F(thread, vfork_child_falls_back)
{
	EXPECT_FINE(run_in(variant->other, submits_in_a_vfork_child));
}

/* The parent of a vfork() may be handed over before, and goes on when its child has exec'd. */
IN_EITHER_THREAD(vfork_after_hand_overs)
{
	struct reading r;
	pid_t child;
	int i;

	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		child = vfork();
		CHECK(child >= 0);
		if (child == 0)
			_exit(21);
		CHECK_EQ(21 << 8, next_status(child, 0));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* --- tracees ------------------------------------------------------------------------------ */

/* It asks to be traced by its parent, which goes on as another task than made it. */
IN_EITHER_THREAD(tracee_of_a_thread_that_has_gone_on)
{
	struct reading r;
	pid_t child;
	int status, go[2];
	char byte;

	CHECK_EQ(0, pipe(go));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0) {
		if (read(go[0], &byte, 1) != 1 || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(1);
		raise(SIGSTOP);
		_exit(23);
	}
	TRY(begin_reading(&r));
	CHECK_EQ(1, write(go[1], "g", 1));
	status = next_status(child, 0);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(0, ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD));
	TRY(end_reading(&r));
	CHECK_EQ(0, ptrace(PTRACE_CONT, child, NULL, NULL));
	CHECK_EQ(23 << 8, next_status(child, 0));
	close(go[0]);
	close(go[1]);
	return NULL;
}

/* A tracer that hands over is the tracer still. */
IN_EITHER_THREAD(tracees_stay)
{
	struct reading r;
	pid_t child;
	int i, status;

	child = fork_child();
	CHECK(child >= 0);
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(22);
	}
	status = next_status(child, 0);
	CHECK(WIFSTOPPED(status));
	TRY(begin_reading(&r));
	CHECK_EQ(0, ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD));
	for (i = 0; i < 6; i++) {
		CHECK_EQ(0, ptrace(PTRACE_SINGLESTEP, child, NULL, NULL));
		status = next_status(child, __WALL);
		CHECK(WIFSTOPPED(status));
		TRY(hand_over_once());
	}
	TRY(end_reading(&r));
	CHECK_EQ(0, ptrace(PTRACE_CONT, child, NULL, NULL));
	CHECK_EQ(22 << 8, next_status(child, 0));
	return NULL;
}

TEST_HARNESS_MAIN
