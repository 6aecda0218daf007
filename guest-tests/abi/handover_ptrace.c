// SPDX-License-Identifier: GPL-2.0
/*
 * A thread that is traced is not handed over, and its calls have the same results; workers are
 * nobody's to trace; and a thread that was handed over can be attached to as any other.
 */
#include <dirent.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "handover.h"
#include "../kselftest_harness.h"

HOLDS_PERF()

#define SYSCALL_STOP	(SIGTRAP | 0x80)

EITHER_THREAD()

struct shared {
	int at;
	pid_t tid;
	pid_t main_tid;
	long cookie;
	long handed_over;
	long fell_back;
	long rounds;
};

static struct shared *shared;

/* --- strace ------------------------------------------------------------------------------- */

static const char *hands_over_or_not(void)
{
	long result = UNTOUCHED, cookie;
	char byte = 0;
	int fds[2], i;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < 5; i++) {
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK(is_cookie(cookie));
		CHECK_EQ(cookie, result_of(&result));
		CHECK_EQ(1, write(fds[1], "s", 1));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(1, result_of(&result));
		CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
		CHECK_EQ(getppid(), result);
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK_EQ(0, async_cancel(0, cookie));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(-ECANCELED, result_of(&result));
	}
	return NULL;
}

/* What a program does that strace runs: all of it, in two threads and in a child. */
static int program(void)
{
	const char *found = hands_over_or_not();
	pid_t child;

	found = found ?: run_in(true, hands_over_or_not);
	child = found ? -1 : fork();
	if (child == 0)
		exit_fine(hands_over_or_not());
	if (child > 0 && status_of(child))
		found = "the child";
	printf("handed over %ld, fell back %ld, traced %ld\n", counter("handed_over"),
	       counter("fell_back"), counter("fell_back_traced"));
	if (found)
		printf("%s\n", found);
	fflush(stdout);
	return found ? 1 : 42;
}

/* Runs this program under a command; its output. */
static const char *run_program(const char *const command[], char *text, size_t size, int *status)
{
	char self[256] = "";
	const char *arguments[16];
	int fds[2], n = 0;
	ssize_t length;
	pid_t child;

	CHECK(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	while (*command)
		arguments[n++] = *command++;
	arguments[n++] = self;
	arguments[n++] = "program";
	arguments[n] = NULL;
	CHECK_EQ(0, pipe(fds));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0) {
		dup2(fds[1], STDOUT_FILENO);
		/* strace takes stops by turns for entries and exits, and wonders. */
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		execvp(arguments[0], (char **)arguments);
		_exit(127);
	}
	close(fds[1]);
	length = read(fds[0], text, size - 1);
	text[length > 0 ? length : 0] = 0;
	close(fds[0]);
	*status = status_of(child);
	return NULL;
}

TEST(strace_changes_nothing)
{
	static const char *const nothing[] = { NULL };
	static char log[1 << 20];
	char path[] = "/tmp/async_strace.XXXXXX", text[1024];
	const char *const strace[] = { "strace", "-f", "-q", "-o", path, NULL };
	int status;

	close(mkstemp(path));
	ASSERT_FINE(run_program(nothing, text, sizeof(text), &status));
	EXPECT_EQ(42 << 8, status)
		TH_LOG("%s", text);
	EXPECT_STREQ("handed over 20, fell back 0, traced 0\n", text);

	ASSERT_FINE(run_program(strace, text, sizeof(text), &status));
	if (status == 127 << 8)
		SKIP(return, "no strace");
	EXPECT_EQ(42 << 8, status)
		TH_LOG("%s", text);
	EXPECT_STREQ("handed over 0, fell back 30, traced 30\n", text);
	/* It has seen the submissions, the inner calls, and nothing of workers. */
	ASSERT_TRUE(read_text(path, log, sizeof(log)));
	EXPECT_NE(NULL, strstr(log, "syscall_0x224("));
	EXPECT_NE(NULL, strstr(log, "getppid("));
	EXPECT_NE(NULL, strstr(log, "+++ exited with 42 +++"));
	unlink(path);
}

/* --- by hand ------------------------------------------------------------------------------ */

/* Reads from a pipe through async_submit, and stores what became of it. */
static const char *submits_under_trace(void)
{
	long result = UNTOUCHED, cookie;
	char byte = 0;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
	CHECK(is_cookie(cookie));
	CHECK_EQ(cookie, result_of(&result));
	shared->cookie = cookie;
	CHECK_EQ(1, counter("fell_back_traced"));
	CHECK_EQ(0, counter("handed_over"));
	CHECK_EQ(1, write(fds[1], "t", 1));
	CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
	CHECK_EQ(1, result_of(&result));
	return NULL;
}

struct stop {
	int op;
	long nr;
	long value;
};

/* Runs the child to its next stop at a system call; false if it ended. */
static bool next_stop(pid_t child, struct stop *stop, int *status)
{
	struct __ptrace_syscall_info info = { };

	do {
		if (ptrace(PTRACE_SYSCALL, child, NULL, NULL))
			return false;
		*status = next_status(child, __WALL);
		if (*status < 0 || !WIFSTOPPED(*status))
			return false;
	} while (WSTOPSIG(*status) != SYSCALL_STOP);
	if (ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info) <= 0)
		return false;
	stop->op = info.op;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
		stop->nr = info.entry.nr;
	else
		stop->value = info.exit.rval;
	return true;
}

TEST(stops_of_a_call_that_sleeps)
{
	struct stop stop = { };
	pid_t child;
	int status;

	shared = share(sizeof(*shared));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		exit_fine(submits_under_trace());
	}
	ASSERT_TRUE(WIFSTOPPED(next_status(child, 0)));
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, child, NULL,
			    PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
	do {
		ASSERT_TRUE(next_stop(child, &stop, &status));
	} while (stop.op != PTRACE_SYSCALL_INFO_ENTRY || stop.nr != __NR_async_submit);
	ASSERT_TRUE(next_stop(child, &stop, &status));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_ENTRY, stop.op);
	EXPECT_EQ(__NR_read, stop.nr);
	ASSERT_TRUE(next_stop(child, &stop, &status));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_TRUE(is_cookie(stop.value));
	ASSERT_TRUE(next_stop(child, &stop, &status));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_TRUE(is_cookie(stop.value));
	/* Stops stay in pairs until its end. */
	while (next_stop(child, &stop, &status))
		;
	EXPECT_EQ(0, status);
}

/* In a thread and in a child of a thread that is traced, each of which is so from its begin. */
static const char *falls_back(void)
{
	long handed_over = counter("handed_over"), traced = counter("fell_back_traced");

	TRY(hand_over_among_others());
	CHECK_EQ(handed_over, counter("handed_over"));
	CHECK_EQ(traced + 1, counter("fell_back_traced"));
	return NULL;
}

static const char *multiplies(void)
{
	TRY(falls_back());
	TRY(run_in(true, falls_back));
	TRY(run_in_child(false, falls_back));
	TRY(falls_back());
	return NULL;
}

/* Threads and children are announced, workers are not. */
TEST(stops_of_what_is_traced_by_inheritance)
{
	const long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_EXITKILL;
	pid_t child, tid, thread = 0, grandchild = 0;
	int status, clones = 0, forks = 0, ended = 0;
	unsigned long message;

	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		exit_fine(multiplies());
	}
	ASSERT_TRUE(WIFSTOPPED(next_status(child, 0)));
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, child, NULL, options));
	ASSERT_EQ(0, ptrace(PTRACE_CONT, child, NULL, NULL));
	while (ended < 3) {
		tid = 0;
		ASSERT_TRUE(becomes_true((tid = waitpid(-1, &status, __WALL | WNOHANG))));
		ASSERT_LT(0, tid)
			TH_LOG("errno %d after %d ended", errno, ended);
		if (!WIFSTOPPED(status)) {
			EXPECT_TRUE(tid == child || tid == thread || tid == grandchild);
			EXPECT_EQ(0, status);
			ended++;
			continue;
		}
		ASSERT_EQ(0, ptrace(PTRACE_GETEVENTMSG, tid, NULL, &message));
		if (status >> 16 == PTRACE_EVENT_CLONE) {
			thread = message;
			clones++;
		} else if (status >> 16 == PTRACE_EVENT_FORK) {
			grandchild = message;
			forks++;
		}
		/* A new one begins with SIGSTOP, which it is not to see. */
		status = status >> 16 || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
		ASSERT_EQ(0, ptrace(PTRACE_CONT, tid, NULL, status));
	}
	EXPECT_EQ(1, clones);
	EXPECT_EQ(1, forks);
}

/* Tens of thousands of stops: minutes, where every check of the kernel is on. */
FIXTURE(slow)
{
};

FIXTURE_SETUP(slow)
{
}

FIXTURE_TEARDOWN(slow)
{
}

TEST_F_TIMEOUT(slow, single_steps, 300)
{
	int status, steps = 0;
	pid_t child;

	shared = share(sizeof(*shared));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		exit_fine(submits_under_trace());
	}
	ASSERT_TRUE(WIFSTOPPED(next_status(child, 0)));
	do {
		ASSERT_EQ(0, ptrace(PTRACE_SINGLESTEP, child, NULL, NULL));
		status = next_status(child, __WALL);
		ASSERT_LE(0, status);
	} while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && ++steps < 200000);
	EXPECT_EQ(0, status);
	EXPECT_LT(100, steps);
}

/* --- attaching ---------------------------------------------------------------------------- */

enum { OUTSTANDING = 5 };

static const char *stays(void)
{
	struct reading r[OUTSTANDING];
	int i;

	for (i = 0; i < OUTSTANDING; i++)
		TRY(begin_reading(&r[i]));
	shared->tid = gettid();
	shared->cookie = r[0].s.cookie;
	reach(&shared->at, 1);
	stay_until(&shared->at, 2);
	for (i = 0; i < OUTSTANDING; i++)
		TRY(end_reading(&r[i]));
	/* It is let go, and its next call is handed over. */
	return hand_over(3);
}

CHILD_FIXTURE(child, shared, stays)

/* The tids of a process that are workers': all but those of its threads. */
static int find_workers(pid_t pid, pid_t tid, pid_t *workers, int max)
{
	char path[64];
	struct dirent *entry;
	DIR *directory;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	if (!directory)
		return -1;
	while (n < max && (entry = readdir(directory))) {
		pid_t found = atoi(entry->d_name);

		if (found && found != pid && found != tid)
			workers[n++] = found;
	}
	closedir(directory);
	return n;
}

TEST_F(child, workers_cannot_be_attached_to)
{
	pid_t workers[32];
	int i, n;

	n = find_workers(self->pid, shared->tid, workers, 32);
	ASSERT_LE(OUTSTANDING, n);
	for (i = 0; i < n; i++) {
		EXPECT_EQ(-1, ptrace(PTRACE_SEIZE, workers[i], NULL, NULL));
		EXPECT_EQ(ESRCH, errno);
		EXPECT_EQ(-1, ptrace(PTRACE_ATTACH, workers[i], NULL, NULL));
		EXPECT_EQ(ESRCH, errno);
	}
	EXPECT_ENDS_WELL();
}

TEST_F(child, thread_can_be_attached_to)
{
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };
	int i, status;

	for (i = 0; i < 10; i++) {
		pid_t tid = i % 2 ? self->pid : shared->tid;

		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD));
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
		status = next_status(tid, __WALL);
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov));
#ifdef __x86_64__
		ASSERT_LT(0, regs.rip);
		ASSERT_LT(0, regs.rsp);
		ASSERT_LT(0, regs.fs_base);
		/* Registers can be written, and are read as they were written. */
		ASSERT_EQ(0, ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov));
#endif
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, tid, NULL, NULL));
	}
	EXPECT_ENDS_WELL();
}

TEST_F(child, attach_stops_it)
{
	int i, status;

	for (i = 0; i < 10; i++) {
		pid_t tid = i % 2 ? self->pid : shared->tid;

		ASSERT_EQ(0, ptrace(PTRACE_ATTACH, tid, NULL, NULL));
		status = next_status(tid, __WALL);
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(SIGSTOP, WSTOPSIG(status));
		ASSERT_EQ(0, ptrace(PTRACE_CONT, tid, NULL, NULL));
		/* It goes on, is stopped again, and let go. */
		ASSERT_EQ(0, tgkill(self->pid, tid, SIGURG));
		status = next_status(tid, __WALL);
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(SIGURG, WSTOPSIG(status));
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, tid, NULL, NULL));
	}
	EXPECT_ENDS_WELL();
}

TEST_F_TIMEOUT(child, killed_by_its_tracer, 300)
{
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, shared->tid, NULL, PTRACE_O_EXITKILL));
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	/* A tracee that is not the main thread has to be reaped by itself. */
	if (shared->tid != self->pid)
		EXPECT_EQ(SIGKILL, next_status(shared->tid, __WALL));
	ASSERT_EQ(SIGKILL, next_status(self->pid, __WALL))
		TH_LOG("a wait for any finds %d instead of %d",
		       waitpid(-1, NULL, __WALL | WNOHANG), self->pid);
	self->pid = 0;
}

static const char *falls_back_while_traced(void)
{
	struct reading r;

	TRY(begin_reading(&r));
	shared->tid = gettid();
	reach(&shared->at, 1);
	CHECK(await(&shared->at, 2));
	TRY(falls_back());
	reach(&shared->at, 3);
	CHECK(await(&shared->at, 4));
	/* It was let go: what comes now is handed over as before. */
	TRY(hand_over(3));
	TRY(end_reading(&r));
	return NULL;
}

TEST_F(thread, attached_between_two_calls)
{
	int status;
	pid_t child;

	shared = share(sizeof(*shared));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(run_in(variant->other, falls_back_while_traced));
	ASSERT_TRUE(await(&shared->at, 1));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, shared->tid, NULL, NULL));
	reach(&shared->at, 2);
	ASSERT_TRUE(await(&shared->at, 3));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, shared->tid, NULL, NULL));
	status = next_status(shared->tid, __WALL);
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, shared->tid, NULL, NULL));
	reach(&shared->at, 4);
	EXPECT_EQ(0, status_of(child));
}

#ifdef __x86_64__

/* The user context that is seen is the one that was handed over: FPU state included. */
TEST_F(child, floating_point_state_is_seen)
{
	struct user_fpregs_struct fpregs, again;
	int status;

	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, shared->tid, NULL, NULL));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, shared->tid, NULL, NULL));
	status = next_status(shared->tid, __WALL);
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_GETFPREGS, shared->tid, NULL, &fpregs));
	EXPECT_EQ(0x1f80, fpregs.mxcsr & 0x1f80);
	EXPECT_EQ(0x37f, fpregs.cwd);
	memset(fpregs.xmm_space, 0x3a, 256);
	ASSERT_EQ(0, ptrace(PTRACE_SETFPREGS, shared->tid, NULL, &fpregs));
	ASSERT_EQ(0, ptrace(PTRACE_GETFPREGS, shared->tid, NULL, &again));
	EXPECT_EQ(0, memcmp(fpregs.xmm_space, again.xmm_space, 256));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, shared->tid, NULL, NULL));
	EXPECT_ENDS_WELL();
}

#endif

/* --- attaching at any time ---------------------------------------------------------------- */

static const char *hands_over_until_told(void)
{
	shared->tid = gettid();
	reach(&shared->at, 1);
	while (!is_reached(&shared->at, 2)) {
		TRY(hand_over_among_others());
		shared->rounds++;
	}
	return NULL;
}

CHILD_FIXTURE(busy, shared, hands_over_until_told)

/* A thread that hands over is found by its tid at any time. */
TEST_F_TIMEOUT(busy, found_by_its_tid, 300)
{
	int i, status;

	for (i = 0; i < times(100, 5000); i++) {
		long rounds;

		ASSERT_EQ(0, ptrace(PTRACE_ATTACH, shared->tid, NULL, NULL))
			TH_LOG("round %d, errno %d", i, errno);
		status = next_status(shared->tid, __WALL);
		ASSERT_TRUE(WIFSTOPPED(status))
			TH_LOG("round %d, status %#x", i, status);
		ASSERT_EQ(SIGSTOP, WSTOPSIG(status));
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, shared->tid, NULL, NULL));
		rounds = shared->rounds;
		ASSERT_TRUE(becomes_true(*(volatile long *)&shared->rounds > rounds))
			TH_LOG("round %d: it does not go on", i);
	}
	EXPECT_ENDS_WELL();
}

/* For tests that are not about finding it. */
static bool seize(pid_t tid)
{
	return becomes_true(!ptrace(PTRACE_SEIZE, tid, NULL, NULL) || errno != ESRCH);
}

static const char *interrupt_and_let_go(void)
{
	int status;

	CHECK_EQ(0, ptrace(PTRACE_INTERRUPT, shared->tid, NULL, NULL));
	status = next_status(shared->tid, __WALL);
	if (!WIFSTOPPED(status))
		return trouble("status %#x", status);
	CHECK_EQ(0, ptrace(PTRACE_DETACH, shared->tid, NULL, NULL));
	return NULL;
}

/* It comes through more rounds than that. */
static const char *goes_on(int more)
{
	long rounds = __atomic_load_n(&shared->rounds, __ATOMIC_SEQ_CST);

	CHECK(becomes_true(__atomic_load_n(&shared->rounds, __ATOMIC_SEQ_CST) > rounds + more));
	return NULL;
}

/* A stop that is asked for at any time is reported. */
TEST_F_TIMEOUT(busy, seized_interrupted_and_let_go, 300)
{
	int i;

	for (i = 0; i < times(100, 5000); i++) {
		ASSERT_TRUE(seize(shared->tid));
		ASSERT_FINE(interrupt_and_let_go());
		ASSERT_FINE(goes_on(0));
	}
	EXPECT_ENDS_WELL();
}

/* And traced for a while, so that calls fall back in between. */
TEST_F_TIMEOUT(busy, traced_for_a_while, 300)
{
	int i;

	for (i = 0; i < times(30, 1000); i++) {
		ASSERT_TRUE(seize(shared->tid));
		ASSERT_FINE(goes_on(2));
		ASSERT_FINE(interrupt_and_let_go());
	}
	EXPECT_ENDS_WELL();
}

/* --- attaching to a call that is on its way to sleep -------------------------------------- */

/* What a pipe holds: to copy that takes longer than all else of the call. */
enum { LONG = 1 << 20 };

static char long_text[LONG + 1];

static const char *fills_a_pipe_until_told(void)
{
	long result, cookie, there, got, n;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(LONG, fcntl(fds[1], F_SETPIPE_SZ, LONG));
	shared->tid = gettid();
	reach(&shared->at, 1);
	while (!is_reached(&shared->at, 2)) {
		do {
			result = UNTOUCHED;
			cookie = async_submit(0, &result, __NR_write,
					      ARGS(fds[1], P(long_text), sizeof(long_text)));
			/* Stopped on its way to sleep, it has written what there was room for. */
			there = cookie ? LONG : result;
			for (got = 0; got < there; got += n) {
				n = read(fds[0], long_text, sizeof(long_text));
				CHECK(n > 0);
			}
		} while (!cookie);
		CHECK(is_cookie(cookie));
		while (wait_for_async(0, cookie, &deadline) == -EINTR)
			;
		CHECK(result_of(&result) >= LONG);
		if (got < result_of(&result))
			CHECK_EQ(1, read(fds[0], long_text, 1));
		shared->rounds++;
	}
	return NULL;
}

CHILD_FIXTURE(filling, shared, fills_a_pipe_until_told)

/* The tracer came when the call had begun: it is that of the thread, wherever this goes on. */
TEST_F_TIMEOUT(filling, tracer_goes_with_the_thread, 300)
{
	int i;

	for (i = 0; i < times(50, 1000); i++) {
		ASSERT_TRUE(seize(shared->tid));
		ASSERT_FINE(goes_on(0));
		ASSERT_FINE(interrupt_and_let_go());
		ASSERT_FINE(goes_on(0));
	}
	EXPECT_ENDS_WELL();
}

/* --- hardware breakpoints ----------------------------------------------------------------- */

#ifdef __x86_64__

static volatile int watched;
static volatile sig_atomic_t trapped, trapped_in;

static void note_trap(int signal)
{
	trapped++;
	trapped_in = gettid();
}

/* A watchpoint that a debugger has left behind stays the thread's. */
static const char *is_watched(void)
{
	const struct sigaction action = { .sa_handler = note_trap };
	long fell_back, handed_over;

	CHECK_EQ(0, sigaction(SIGTRAP, &action, NULL));
	shared->tid = gettid();
	reach(&shared->at, 1);
	CHECK(await(&shared->at, 2));
	watched = 1;
	CHECK_EQ(1, trapped);
	fell_back = counter("fell_back");
	handed_over = counter("handed_over");
	TRY(hand_over_among_others());
	/* One of both, and the watchpoint works. */
	CHECK_EQ(fell_back + handed_over + 1, counter("fell_back") + counter("handed_over"));
	watched = 2;
	CHECK_EQ(2, trapped);
	CHECK_EQ(gettid(), trapped_in);
	return NULL;
}

TEST_F(thread, watchpoint_stays)
{
	pid_t child;
	int status;

	shared = share(sizeof(*shared));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(run_in(variant->other, is_watched));
	ASSERT_TRUE(await(&shared->at, 1));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, shared->tid, NULL, NULL));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, shared->tid, NULL, NULL));
	status = next_status(shared->tid, __WALL);
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_POKEUSER, shared->tid, offsetof(struct user, u_debugreg[0]),
			    &watched));
	/* Local, on writes, of four bytes. */
	if (ptrace(PTRACE_POKEUSER, shared->tid, offsetof(struct user, u_debugreg[7]),
		   1L | 1L << 16 | 3L << 18)) {
		kill(child, SIGKILL);
		SKIP(return, "no watchpoints");
	}
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, shared->tid, NULL, NULL));
	reach(&shared->at, 2);
	EXPECT_EQ(0, status_of(child));
}

#endif

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "program"))
		return program();
	return test_harness_run(argc, argv);
}
