// SPDX-License-Identifier: GPL-2.0
/* Ends and beginnings of processes and threads with calls outstanding. */
#include <ftw.h>
#include <sys/resource.h>

#include "calls.h"
#include "../kselftest_harness.h"

enum { CALLS = 10 };

/* Where the new program of the exec tests finds what the old one used. */
#define FIXED_PAGE	((void *)0x200000000000UL)

/* A process that ends by itself needs milliseconds; two seconds more are a timer's. */
#define NSEC_LIMIT	2000000000LL

static char bytes[CALLS];
static long results[CALLS], cookies[CALLS];

/* Offloads reads that sleep until the pipe has data or no writer; true if all are outstanding. */
static bool submit_reads(int fd)
{
	int i;

	for (i = 0; i < CALLS; i++) {
		cookies[i] = async_submit(ASYNC_SUBMIT_OFFLOAD, &results[i], __NR_read,
					  ARGS(fd, P(&bytes[i]), 1));
		if (cookies[i] <= 0 || result_of(&results[i]) != cookies[i])
			return false;
	}
	return true;
}

/* No process holds the read end any more, workers included. */
static bool has_no_reader(int fd)
{
	struct pollfd entry = { .fd = fd };

	return poll(&entry, 1, 0) == 1 && entry.revents & POLLERR;
}

FIXTURE(process)
{
	int fds[2];
	int ready[2];
	pid_t child;
};

FIXTURE_SETUP(process)
{
	ASSERT_EQ(0, pipe(self->fds));
	ASSERT_EQ(0, pipe(self->ready));
}

FIXTURE_TEARDOWN(process)
{
}

/*
 * Forks a child with calls outstanding. It says so, and goes on after the call of this function;
 * the parent goes on then too, and holds the only other end of the pipe.
 */
static bool child_with_calls(FIXTURE_DATA(process) *self)
{
	char byte;

	self->child = fork_child();
	if (self->child == 0) {
		close(self->fds[1]);
		close(self->ready[0]);
		if (!submit_reads(self->fds[0]) || write(self->ready[1], "r", 1) != 1)
			_exit(125);
		return true;
	}
	close(self->fds[0]);
	close(self->ready[1]);
	return self->child > 0 && read(self->ready[0], &byte, 1) == 1;
}

static void sleep_for_ever(void)
{
	while (1)
		pause();
}

TEST_F(process, exit_group)
{
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child)
		_exit(7);
	EXPECT_EQ(7 << 8, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

/* How long a child takes to end, with calls outstanding or not; or -1. */
static long long ns_to_exit(bool with_calls)
{
	long long start = now_ns();
	pid_t child = fork_child();
	int fds[2];

	if (child == 0) {
		if (pipe(fds) || (with_calls && !submit_reads(fds[0])))
			_exit(1);
		_exit(0);
	}
	return child > 0 && status_of(child) == 0 ? now_ns() - start : -1;
}

/*
 * The end of a process waits for no timer: the best of a few tries tells on any machine, beside
 * what a process takes there that has made no calls.
 */
TEST(exit_does_not_linger)
{
	long long plain, took, over = LLONG_MAX;
	int i;

	for (i = 0; i < 8 && over > NSEC_LIMIT; i++) {
		plain = ns_to_exit(false);
		took = ns_to_exit(true);
		ASSERT_LT(0, plain);
		ASSERT_LT(0, took);
		over = took - 20 * plain < over ? took - 20 * plain : over;
	}
	EXPECT_GT(NSEC_LIMIT, over);
}

TEST_F(process, exit_of_the_only_thread)
{
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child)
		syscall(__NR_exit, 8);
	EXPECT_EQ(8 << 8, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

static void *exits_with_9(void *argument)
{
	pid_t leader = getpid();

	/* After the main thread. */
	if (!becomes_true(thread_state(leader) == 'Z'))
		_exit(100);
	if (wait_for_async(0, cookies[0], &no_time) != -ETIME)
		_exit(101);
	syscall(__NR_exit_group, 9);
	return NULL;
}

TEST_F(process, exit_of_the_main_thread_first)
{
	pthread_t thread;

	ASSERT_TRUE(child_with_calls(self));
	if (!self->child) {
		if (pthread_create(&thread, NULL, exits_with_9, NULL))
			_exit(102);
		syscall(__NR_exit, 3);
	}
	EXPECT_EQ(9 << 8, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

TEST_F(process, sigkill)
{
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child)
		sleep_for_ever();
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

TEST_F(process, sigkill_in_a_wait)
{
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child) {
		wait_for_async(0, 0, NULL);
		_exit(1);
	}
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

TEST_F(process, sigterm)
{
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child)
		sleep_for_ever();
	ASSERT_EQ(0, kill(self->child, SIGTERM));
	EXPECT_EQ(SIGTERM, status_of(self->child));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	return remove(path);
}

TEST_F(process, core_dump)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	char directory[] = "/tmp/async_core.XXXXXX";
	int status;

	ASSERT_NE(NULL, mkdtemp(directory));
	ASSERT_TRUE(child_with_calls(self));
	if (!self->child) {
		signal(SIGABRT, SIG_DFL);
		if (chdir(directory))
			_exit(103);
		setrlimit(RLIMIT_CORE, &unlimited);
		abort();
	}
	status = status_of(self->child);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGABRT, WTERMSIG(status));
	EXPECT_TRUE(has_no_reader(self->fds[1]));
	EXPECT_EQ(0, nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS));
}

/* Returns if a call or its end is not as it should be. */
static void submit_and_cancel_for_ever(int fd)
{
	int i;

	while (submit_reads(fd)) {
		for (i = 0; i < CALLS; i++)
			if (async_cancel(0, cookies[i]))
				return;
		for (i = 0; i < CALLS; i++)
			if (final_value(cookies[i], &results[i]) != -ECANCELED)
				return;
	}
}

TEST(kills_at_any_time)
{
	int i, fds[2], status;
	pid_t child;

	for (i = 0; i < 60; i++) {
		ASSERT_EQ(0, pipe(fds));
		child = fork_child();
		ASSERT_LE(0, child);
		if (child == 0) {
			close(fds[1]);
			submit_and_cancel_for_ever(fds[0]);
			_exit(1);
		}
		close(fds[0]);
		/* Some die before their first call, some amid submissions and cancellations. */
		poll(NULL, 0, i % 20);
		ASSERT_EQ(0, kill(child, SIGKILL));
		status = status_of(child);
		ASSERT_EQ(SIGKILL, status);
		ASSERT_TRUE(has_no_reader(fds[1]));
		ASSERT_EQ(0, close(fds[1]));
	}
}

/* --- exec ------------------------------------------------------------------------------- */

/* The old program: results and buffers in a page that the new one maps again. */
static void exec_with_calls(int read_fd, int write_fd)
{
	char numbers[2][16];
	struct {
		long results[CALLS];
		char bytes[CALLS];
	} *page;
	int i;

	page = mmap(FIXED_PAGE, getpagesize(), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (page != FIXED_PAGE)
		_exit(110);
	for (i = 0; i < CALLS; i++)
		if (async_submit(ASYNC_SUBMIT_OFFLOAD, &page->results[i], __NR_read,
				 ARGS(read_fd, P(&page->bytes[i]), 1)) <= 0)
			_exit(111);
	snprintf(numbers[0], sizeof(numbers[0]), "%d", read_fd);
	snprintf(numbers[1], sizeof(numbers[1]), "%d", write_fd);
	execl("/proc/self/exe", "lifetime", "new-program", numbers[0], numbers[1], NULL);
	_exit(112);
}

/* The new program: nobody reads the pipe but itself, and nobody writes into its memory. */
static int new_program(int read_fd, int write_fd)
{
	const size_t page = getpagesize();
	char text[CALLS + 1] = "", *memory;
	long result = UNTOUCHED;
	size_t i;

	if (gettid() != getpid())
		return 120;
	if (wait_for_async(0, 0, &no_time))
		return 121;
	memory = mmap(FIXED_PAGE, page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (memory != FIXED_PAGE)
		return 122;
	memset(memory, 0x5a, page);
	if (write(write_fd, "0123456789", CALLS) != CALLS)
		return 123;
	for (i = 0; i < 20; i++) {
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

		if (cookie <= 0 || final_value(cookie, &result) != getppid())
			return 124;
	}
	fcntl(read_fd, F_SETFL, O_NONBLOCK);
	if (read(read_fd, text, CALLS) != CALLS || strcmp(text, "0123456789"))
		return 125;
	for (i = 0; i < page; i++)
		if (memory[i] != 0x5a)
			return 126;
	return 42;
}

TEST_F(process, exec)
{
	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (!self->child)
		exec_with_calls(self->fds[0], self->fds[1]);
	EXPECT_EQ(42 << 8, status_of(self->child));
}

static void *execs(void *argument)
{
	int *fds = argument;

	exec_with_calls(fds[0], fds[1]);
	return NULL;
}

TEST_F(process, exec_by_another_thread)
{
	pthread_t thread;

	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (!self->child) {
		if (pthread_create(&thread, NULL, execs, self->fds))
			_exit(113);
		sleep_for_ever();
	}
	EXPECT_EQ(42 << 8, status_of(self->child));
}

TEST_F(process, failed_exec_changes_nothing)
{
	long result = UNTOUCHED, cookie;
	char byte;

	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(self->fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	EXPECT_EQ(-1, execl("/no/such/program", "none", NULL));
	EXPECT_EQ(cookie, result_of(&result));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(1, final_value(cookie, &result));
}

/* --- fork ------------------------------------------------------------------------------- */

static int child_of_a_fork(long cookie)
{
	long result = UNTOUCHED, own;

	if (wait_for_async(0, cookie, &no_time) != -EINVAL)
		return 1;
	if (async_cancel(0, cookie) != -EINVAL)
		return 2;
	if (wait_for_async(0, 0, &no_time))
		return 3;
	own = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getpid, ARGS(0));
	if (final_value(own, &result) != getpid())
		return 4;
	/* Now that it has calls of its own. */
	if (wait_for_async(0, cookie, &no_time) != -EINVAL)
		return 5;
	return 0;
}

TEST_F(process, fork_has_no_calls_outstanding)
{
	ASSERT_TRUE(submit_reads(self->fds[0]));
	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (!self->child)
		_exit(child_of_a_fork(cookies[0]));
	EXPECT_EQ(0, status_of(self->child));
	/* The parent's calls did not notice. */
	ASSERT_EQ(CALLS, write(self->fds[1], "0123456789", CALLS));
	for (int i = 0; i < CALLS; i++)
		EXPECT_EQ(1, final_value(cookies[i], &results[i]));
}

TEST_F(process, fork_that_exits_first)
{
	ASSERT_TRUE(submit_reads(self->fds[0]));
	for (int i = 0; i < 20; i++) {
		self->child = fork_child();
		ASSERT_LE(0, self->child);
		if (!self->child)
			_exit(0);
		ASSERT_EQ(0, status_of(self->child));
	}
	close(self->fds[1]);
	for (int i = 0; i < CALLS; i++)
		EXPECT_EQ(0, final_value(cookies[i], &results[i]));
}

TEST_F(process, child_outlives_idle_workers)
{
	long result = UNTOUCHED, cookie;
	char byte;

	/* Its parent-death signal would tell if a worker counted as its parent and ended. */
	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (!self->child) {
		close(self->fds[1]);
		_exit(read(self->fds[0], &byte, 1) == 0 ? 0 : 1);
	}
	for (int i = 0; i < 100; i++) {
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
		ASSERT_EQ(getppid(), final_value(cookie, &result));
	}
	close(self->fds[1]);
	EXPECT_EQ(0, status_of(self->child));
}

/* --- threads ---------------------------------------------------------------------------- */

static void *submits_and_exits(void *argument)
{
	return submit_reads(*(int *)argument) ? argument : NULL;
}

TEST_F(process, calls_outlive_the_thread_that_submitted_them)
{
	pthread_t thread;
	void *done;

	ASSERT_EQ(0, pthread_create(&thread, NULL, submits_and_exits, &self->fds[0]));
	ASSERT_EQ(0, pthread_join(thread, &done));
	ASSERT_NE(NULL, done);
	for (int i = 0; i < CALLS; i++)
		EXPECT_EQ(cookies[i], result_of(&results[i]));
	ASSERT_EQ(CALLS, write(self->fds[1], "0123456789", CALLS));
	for (int i = 0; i < CALLS; i++)
		EXPECT_EQ(1, final_value(cookies[i], &results[i]));
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "new-program"))
		return new_program(atoi(argv[2]), atoi(argv[3]));
	return test_harness_run(argc, argv);
}
