// SPDX-License-Identifier: GPL-2.0
/*
 * Processes and threads that end, or become another program, with calls outstanding that were
 * handed over: from one to fifty, submitted by the main thread, by another one, or by both.
 */
#include <ftw.h>
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

enum { MAX_CALLS = 50 };

/* Where the new program of the exec tests finds what the old one used. */
#define FIXED_PAGE	((void *)0x200000000000UL)

struct page {
	long results[2 * MAX_CALLS];
	char bytes[2 * MAX_CALLS];
};

static struct page *page;

struct shared {
	int at;
	pid_t pid;
};

static struct shared *shared;

/* What the calls of a child read, and the parent has the other end of. */
static int input[2];

/* Where a new program says that it runs. */
static int ready[2];

FIXTURE(process)
{
	pid_t child;
	int read_end;
};

FIXTURE_VARIANT(process)
{
	int main_calls;
	int other_calls;
};

FIXTURE_VARIANT_ADD(process, main_1)
{
	.main_calls = 1,
	.other_calls = 0,
};

FIXTURE_VARIANT_ADD(process, main_50)
{
	.main_calls = 50,
	.other_calls = 0,
};

FIXTURE_VARIANT_ADD(process, other_1)
{
	.main_calls = 0,
	.other_calls = 1,
};

FIXTURE_VARIANT_ADD(process, other_50)
{
	.main_calls = 0,
	.other_calls = 50,
};

FIXTURE_VARIANT_ADD(process, both_7)
{
	.main_calls = 7,
	.other_calls = 7,
};

FIXTURE_SETUP(process)
{
	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	ASSERT_EQ(0, pipe(input));
	ASSERT_EQ(0, pipe(ready));
}

FIXTURE_TEARDOWN(process)
{
	if (self->child > 0) {
		kill(self->child, SIGKILL);
		waitpid(self->child, NULL, 0);
	}
}

static const char *submit(int first, int n)
{
	int i;

	for (i = first; i < first + n; i++) {
		long cookie = async_submit(0, &page->results[i], __NR_read,
					   ARGS(input[0], P(&page->bytes[i]), 1));

		CHECK(is_cookie(cookie));
		CHECK_EQ(cookie, result_of(&page->results[i]));
	}
	return NULL;
}

static void sleep_for_ever(void)
{
	while (1)
		pause();
}

static int other_calls;
static void (*other_end)(void);
static int other_at;

static void *be_other(void *argument)
{
	const char *found = submit(MAX_CALLS, other_calls);

	if (found)
		exit_fine(found);
	reach(&other_at, 1);
	if (other_end && await(&other_at, 2))
		other_end();
	sleep_for_ever();
	return NULL;
}

/*
 * A child with calls outstanding in its threads, and nobody but it to read the pipe. Then its
 * main thread does one thing, and its other thread another, each if there is one to do.
 */
static const char *start(FIXTURE_DATA(process) *self, const FIXTURE_VARIANT(process) *variant,
			 void (*in_main)(void), void (*in_other)(void))
{
	long n = variant->main_calls + variant->other_calls;
	pthread_t thread;
	const char *found;

	self->child = fork_child();
	CHECK(self->child >= 0);
	if (self->child) {
		close(input[0]);
		CHECK(await(&shared->at, 1));
		return NULL;
	}

	close(input[1]);
	close(ready[0]);
	page = mmap(FIXED_PAGE, sizeof(*page), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (page != FIXED_PAGE)
		_exit(110);
	other_calls = variant->other_calls;
	other_end = in_other;
	if (pthread_create(&thread, NULL, be_other, NULL) || !await(&other_at, 1))
		_exit(111);
	found = submit(0, variant->main_calls);
	if (found)
		exit_fine(found);
	if (counter("handed_over") != n || counter("outstanding") != n)
		_exit(112);
	shared->pid = getpid();
	reach(&shared->at, 1);
	reach(&other_at, 2);
	if (in_main)
		in_main();
	sleep_for_ever();
	return NULL;
}

/* No task of the child holds the read end any more, workers included. */
static bool has_no_reader(void)
{
	struct pollfd entry = { .fd = input[1] };

	return poll(&entry, 1, 0) == 1 && entry.revents & POLLERR;
}

#define EXPECT_END(status)						\
do {									\
	EXPECT_EQ(status, status_of(self->child));			\
	self->child = 0;						\
	EXPECT_TRUE(has_no_reader());					\
} while (0)

static void exit_with_7(void)
{
	_exit(7);
}

/* What the kernel clears, and wakes the waiters of, when the thread is gone. */
static pid_t main_tid = -1;

static void exit_thread(void)
{
	if (gettid() == getpid()) {
		main_tid = gettid();
		syscall(__NR_set_tid_address, &main_tid);
	}
	syscall(__NR_exit, 8);
}

/* --- exit ------------------------------------------------------------------------------- */

TEST_F(process, exit_group_by_main)
{
	ASSERT_FINE(start(self, variant, exit_with_7, NULL));
	EXPECT_END(7 << 8);
}

TEST_F(process, exit_group_by_other)
{
	ASSERT_FINE(start(self, variant, NULL, exit_with_7));
	EXPECT_END(7 << 8);
}

/* The process ends with its last thread, though it has calls that will never end. */
TEST_F(process, threads_exit_one_by_one)
{
	ASSERT_FINE(start(self, variant, exit_thread, exit_thread));
	EXPECT_END(8 << 8);
}

/* --- the leader ------------------------------------------------------------------------- */

static pid_t other_tid;

static void *hand_over_and_exit(void *argument)
{
	const char *found = hand_over_once();

	if (found)
		exit_fine(found);
	__atomic_store_n(&other_tid, gettid(), __ATOMIC_RELEASE);
	syscall(__NR_exit, 0);
	return NULL;
}

static bool other_is_no_thread(void)
{
	pid_t tid = __atomic_load_n(&other_tid, __ATOMIC_ACQUIRE);

	return tid && syscall(__NR_tgkill, getpid(), tid, 0) == -1 && errno == ESRCH;
}

/* What remains of a leader that has ended stays for as long as there are other threads. */
static const char *other_comes_and_goes(void)
{
	pthread_t thread;

	/* Its call has ended: the leader is idle, and would do for the next one. */
	TRY(hand_over_once());
	CHECK_EQ(0, pthread_create(&thread, NULL, hand_over_and_exit, NULL));
	CHECK(becomes_true(other_is_no_thread()));
	CHECK_EQ(getpid(), gettid());
	TRY(hand_over_once());
	return NULL;
}

TEST(leader_is_for_no_other_thread)
{
	EXPECT_FINE(run_in_child(false, other_comes_and_goes));
}

/* Workers that do not fit any more go, but not the leader: the process would look dead. */
static const char *workers_go(void)
{
	int nice, i;

	TRY(hand_over_once());
	for (nice = 1; nice < 6; nice++) {
		CHECK_EQ(0, raw_call(__NR_setpriority, 0, 0, nice));
		TRY(hand_over_once());
	}
	for (i = 0; i < 20; i++) {
		CHECK_EQ(0, tasks_of("self", 'Z'));
		poll(NULL, 0, 5);
	}
	return NULL;
}

TEST(leader_stays_when_workers_go)
{
	EXPECT_FINE(run_in_child(false, workers_go));
}

/* --- the main thread -------------------------------------------------------------------- */

static bool main_is_gone(void)
{
	return !__atomic_load_n(&main_tid, __ATOMIC_ACQUIRE);
}

/* After the main thread. */
static void wait_and_exit(void)
{
	if (!becomes_true(main_is_gone()))
		_exit(100);
	/* Its calls have outlived it, and the rest of the process goes on. */
	if (wait_for_async(0, 0, &no_time) != -ETIME)
		_exit(101);
	if (hand_over_once())
		_exit(102);
	if (getpid() == gettid() || getpid() != shared->pid)
		_exit(103);
	_exit(9);
}

TEST_F(process, main_thread_exits_first)
{
	ASSERT_FINE(start(self, variant, exit_thread, wait_and_exit));
	EXPECT_END(9 << 8);
}

static void pthread_exit_main(void)
{
	main_tid = gettid();
	syscall(__NR_set_tid_address, &main_tid);
	pthread_exit(NULL);
}

TEST_F(process, main_thread_calls_pthread_exit)
{
	ASSERT_FINE(start(self, variant, pthread_exit_main, wait_and_exit));
	EXPECT_END(9 << 8);
}

/* A main thread that is gone is still the process, for its parent. */
TEST_F(process, parent_sees_a_process_without_main_thread)
{
	siginfo_t info = { };
	int i;

	ASSERT_FINE(start(self, variant, exit_thread, NULL));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, kill(self->child, 0));
		ASSERT_EQ(0, waitid(P_PID, self->child, &info, WEXITED | WNOHANG | WNOWAIT));
		ASSERT_EQ(0, info.si_pid);
		ASSERT_FINE(stop_child(self->child));
		ASSERT_FINE(continue_child(self->child));
	}
	ASSERT_EQ(0, kill(self->child, SIGTERM));
	EXPECT_END(SIGTERM);
}

/* --- signals ---------------------------------------------------------------------------- */

TEST_F(process, sigkill)
{
	ASSERT_FINE(start(self, variant, NULL, NULL));
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	EXPECT_END(SIGKILL);
}

TEST_F(process, sigterm)
{
	ASSERT_FINE(start(self, variant, NULL, NULL));
	ASSERT_EQ(0, kill(self->child, SIGTERM));
	EXPECT_END(SIGTERM);
}

static void wait_for_all(void)
{
	wait_for_async(0, 0, NULL);
}

TEST_F(process, sigkill_in_a_wait)
{
	ASSERT_FINE(start(self, variant, wait_for_all, wait_for_all));
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	EXPECT_END(SIGKILL);
}

TEST_F(process, sigkill_while_stopped)
{
	ASSERT_FINE(start(self, variant, NULL, NULL));
	ASSERT_FINE(stop_child(self->child));
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	EXPECT_END(SIGKILL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

static void dump(void)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	signal(SIGABRT, SIG_DFL);
	setrlimit(RLIMIT_CORE, &unlimited);
	abort();
}

/* How many threads a core dump shows: its notes of type NT_PRSTATUS. */
static int count_threads(const char *path)
{
	static char core[1 << 20];
	const char *name = "CORE\0\0\0\0";
	int fd = open(path, O_RDONLY), n = 0;
	ssize_t size = fd < 0 ? -1 : read(fd, core, sizeof(core)), i;

	close(fd);
	/* Four bytes each of name size, size, type 1; then the name. */
	for (i = 0; i + 20 < size; i += 4)
		n += *(int *)&core[i] == 5 && *(int *)&core[i + 8] == 1 &&
		     !memcmp(&core[i + 12], name, 5);
	return n;
}

static const char *dumps(FIXTURE_DATA(process) *self, const FIXTURE_VARIANT(process) *variant,
			 void (*in_main)(void), void (*in_other)(void))
{
	char directory[] = "/tmp/async_core.XXXXXX", core[64];
	int status;

	CHECK(mkdtemp(directory));
	CHECK_EQ(0, chdir(directory));
	TRY(start(self, variant, in_main, in_other));
	status = status_of(self->child);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(SIGABRT, WTERMSIG(status));
	CHECK(WCOREDUMP(status));
	self->child = 0;
	CHECK(has_no_reader());
	snprintf(core, sizeof(core), "%s/core", directory);
	CHECK(count_threads(core) >= 2);
	CHECK_EQ(0, nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS));
	return NULL;
}

TEST_F(process, core_dump_by_main)
{
	EXPECT_FINE(dumps(self, variant, dump, NULL));
}

TEST_F(process, core_dump_by_other)
{
	EXPECT_FINE(dumps(self, variant, NULL, dump));
}

/* --- exec ------------------------------------------------------------------------------- */

static void exec_new_program(void)
{
	char fds[2][16], pid[16];

	snprintf(fds[0], sizeof(fds[0]), "%d", input[0]);
	snprintf(fds[1], sizeof(fds[1]), "%d", ready[1]);
	snprintf(pid, sizeof(pid), "%d", shared->pid);
	execl("/proc/thread-self/exe", "handover_exit", "new-program", fds[0], fds[1], pid, NULL);
	_exit(114);
}

/* The new program has no calls, and nobody but itself writes into its memory. */
static const char *new_program(int fd, int said, pid_t pid)
{
	long handed_over = counter("handed_over");
	const size_t size = sizeof(struct page);
	char *memory, byte;
	size_t i;

	CHECK_EQ(pid, getpid());
	CHECK_EQ(pid, gettid());
	CHECK_EQ(0, counter("outstanding"));
	CHECK_EQ(0, counter("workers"));
	CHECK_EQ(0, wait_for_async(0, 0, &no_time));
	memory = mmap(FIXED_PAGE, size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(memory == FIXED_PAGE);
	memset(memory, 0x5a, size);
	TRY(hand_over(20));
	CHECK_EQ(handed_over + 20, counter("handed_over"));
	CHECK_EQ(1, write(said, "r", 1));
	/* The calls of the old program would take the bytes, or store end of file. */
	CHECK_EQ(1, read(fd, &byte, 1));
	CHECK_EQ('!', byte);
	CHECK_EQ(0, read(fd, &byte, 1));
	for (i = 0; i < size; i++)
		CHECK_EQ(0x5a, memory[i]);
	return NULL;
}

static const char *execs(FIXTURE_DATA(process) *self, const FIXTURE_VARIANT(process) *variant,
			 void (*in_main)(void), void (*in_other)(void))
{
	char byte = 0;

	TRY(start(self, variant, in_main, in_other));
	CHECK_EQ(0, close(ready[1]));
	/* End of file if it ends instead. */
	CHECK_EQ(1, read(ready[0], &byte, 1));
	CHECK_EQ(1, write(input[1], "!", 1));
	CHECK_EQ(0, close(input[1]));
	CHECK_EQ(0, status_of(self->child));
	self->child = 0;
	return NULL;
}

TEST_F(process, exec_by_main)
{
	EXPECT_FINE(execs(self, variant, exec_new_program, NULL));
}

TEST_F(process, exec_by_other)
{
	EXPECT_FINE(execs(self, variant, NULL, exec_new_program));
}

static void exec_when_main_is_gone(void)
{
	if (!becomes_true(main_is_gone()))
		_exit(100);
	exec_new_program();
}

TEST_F(process, exec_by_other_when_main_is_gone)
{
	EXPECT_FINE(execs(self, variant, exit_thread, exec_when_main_is_gone));
}

TEST_F(process, exec_by_both_at_once)
{
	EXPECT_FINE(execs(self, variant, exec_new_program, exec_new_program));
}

static void fail_to_exec(void)
{
	char byte;
	int i, n = 0;

	if (execl("/no/such/program", "none", NULL) != -1)
		_exit(120);
	for (i = 0; i < 2 * MAX_CALLS; i++)
		n += ASYNC_PENDING(result_of(&page->results[i]));
	if (n != counter("outstanding"))
		_exit(121);
	/* End of file ends them. */
	reach(&shared->at, 2);
	if (wait_for_async(0, 0, &deadline))
		_exit(122);
	for (i = 0; i < 2 * MAX_CALLS; i++)
		if (result_of(&page->results[i]))
			_exit(123);
	_exit(read(input[0], &byte, 1));
}

TEST_F(process, failed_exec_changes_nothing)
{
	ASSERT_FINE(start(self, variant, fail_to_exec, NULL));
	ASSERT_TRUE(await(&shared->at, 2));
	ASSERT_EQ(0, close(input[1]));
	EXPECT_EQ(0, status_of(self->child));
	self->child = 0;
}

/* --- fork ------------------------------------------------------------------------------- */

static const char *child_of_a_fork(long cookie, long *shared_result)
{
	CHECK_EQ(-EINVAL, wait_for_async(0, cookie, &no_time));
	CHECK_EQ(-EINVAL, async_cancel(0, cookie));
	CHECK_EQ(0, wait_for_async(0, 0, &no_time));
	CHECK_EQ(0, counter("handed_over"));
	CHECK_EQ(0, counter("outstanding"));
	CHECK_EQ(0, counter("workers"));
	CHECK_EQ(getpid(), gettid());
	TRY(hand_over(20));
	TRY(run_in(true, hand_over_once));
	CHECK_EQ(21, counter("handed_over"));
	/* Now that it has calls of its own. */
	CHECK_EQ(-EINVAL, wait_for_async(0, cookie, &no_time));
	CHECK_EQ(-EINVAL, async_cancel(0, cookie));
	CHECK_EQ(cookie, result_of(shared_result));
	return NULL;
}

EITHER_THREAD()

IN_EITHER_THREAD(fork_has_no_calls)
{
	struct reading r;
	pid_t child;
	int i;

	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		child = fork_child();
		CHECK(child >= 0);
		if (child == 0)
			exit_fine(child_of_a_fork(r.s.cookie, &r.s.result));
		CHECK_EQ(0, status_of(child));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* A child of a child, each of which goes on where its parent was. */
IN_EITHER_THREAD(forks_in_a_row)
{
	pid_t parent = getpid(), child = 0;
	int depth;

	for (depth = 0; depth < 6; depth++) {
		struct reading r;

		TRY(begin_reading(&r));
		child = fork();
		CHECK(child >= 0);
		if (child)
			break;
		CHECK_EQ(0, counter("outstanding"));
	}
	TRY(hand_over(5));
	if (child)
		CHECK_EQ(0, status_of(child));
	if (getpid() != parent)
		_exit(0);
	return NULL;
}

IN_EITHER_THREAD(child_that_exits_first)
{
	struct reading r;
	int i;

	TRY(begin_reading(&r));
	for (i = 0; i < 20; i++) {
		pid_t child = fork_child();

		CHECK(child >= 0);
		if (child == 0)
			_exit(0);
		CHECK_EQ(0, status_of(child));
		TRY(hand_over_once());
	}
	return end_reading(&r);
}

/* --- many at once ----------------------------------------------------------------------- */

static const char *hands_over_for_ever(void)
{
	while (1)
		TRY(hand_over_once());
	return NULL;
}

/* The process exits while another thread is anywhere in a hand-over. */
IN_EITHER_THREAD(exits_in_the_middle)
{
	static body_fn body = hands_over_for_ever;
	int i;

	for (i = 0; i < times(60, 2000); i++) {
		pid_t child = fork_child();
		pthread_t thread;

		CHECK(child >= 0);
		if (child == 0) {
			if (pthread_create(&thread, NULL, run_body, &body))
				_exit(1);
			/* No wait for a condition: any moment will do. */
			usleep(i * 37 % 5000);
			_exit(0);
		}
		CHECK_EQ(0, status_of(child));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "new-program"))
		exit_fine(new_program(atoi(argv[2]), atoi(argv[3]), atoi(argv[4])));
	return test_harness_run(argc, argv);
}
