// SPDX-License-Identifier: GPL-2.0
/*
 * Some calls are for processes of a single thread. A program that has one, and whose calls are
 * complete, is such a process, however many workers it has had: they go, and the leader is the
 * main thread again, which must not be seen by anything but that the call succeeds.
 */
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sem.h>

#include "handover.h"
#include "../kselftest_harness.h"

PATIENCE()

static long leave(unsigned long flags)
{
	return raw_call(__NR_unshare, flags);
}

/* Runs a body in a process of its own, whose main thread it has for itself. */
#define IN_A_PROCESS(name)						\
	static const char *name##_body(void);				\
	TEST(name)							\
	{								\
		EXPECT_FINE(run_in_child(false, name##_body));		\
	}								\
	static const char *name##_body(void)

IN_A_PROCESS(new_user_namespace_after_an_inline_call)
{
	long result;

	CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	CHECK_EQ(0, leave(CLONE_NEWUSER));
	return hand_over(3);
}

IN_A_PROCESS(new_user_namespace_after_a_hand_over)
{
	pid_t tid = gettid();

	TRY(hand_over_once());
	CHECK_EQ(0, leave(CLONE_NEWUSER));
	CHECK_EQ(tid, gettid());
	CHECK_EQ(1, tasks_of("self", 0));
	return hand_over(3);
}

IN_A_PROCESS(again_and_again)
{
	int i;

	for (i = 0; i < 20; i++) {
		TRY(hand_over(i % 4));
		CHECK_EQ(0, leave(CLONE_VM));
		CHECK_EQ(1, tasks_of("self", 0));
	}
	return NULL;
}

IN_A_PROCESS(many_workers_go)
{
	struct reading r[50];
	int i;

	for (i = 0; i < 50; i++)
		TRY(begin_reading(&r[i]));
	for (i = 0; i < 50; i++)
		TRY(end_reading(&r[i]));
	CHECK(tasks_of("self", 0) > 50);
	CHECK_EQ(0, leave(CLONE_NEWUSER));
	CHECK_EQ(1, tasks_of("self", 0));
	CHECK_EQ(0, counter("workers"));
	return hand_over(3);
}

/* A call that is on its way is a thread of the process, and stays one. */
IN_A_PROCESS(outstanding_call_is_a_thread)
{
	struct reading r;

	TRY(hand_over(2));
	TRY(begin_reading(&r));
	CHECK_EQ(-EINVAL, leave(CLONE_NEWUSER));
	TRY(end_reading(&r));
	CHECK_EQ(0, leave(CLONE_NEWUSER));
	return hand_over_once();
}

static int stage;

static void *wait_for_the_end(void *argument)
{
	await(&stage, 1);
	return argument;
}

IN_A_PROCESS(other_thread_is_a_thread)
{
	pthread_t thread;

	TRY(hand_over(2));
	stage = 0;
	CHECK_EQ(0, pthread_create(&thread, NULL, wait_for_the_end, NULL));
	CHECK_EQ(-EINVAL, leave(CLONE_NEWUSER));
	TRY(hand_over(2));
	CHECK_EQ(-EINVAL, leave(CLONE_NEWUSER));
	reach(&stage, 1);
	CHECK_EQ(0, pthread_join(thread, NULL));
	/* It may still be on its way out. */
	CHECK(becomes_true(leave(CLONE_NEWUSER) == 0));
	return hand_over_once();
}

static const char *is_refused(void)
{
	TRY(hand_over(2));
	CHECK_EQ(-EINVAL, leave(CLONE_NEWUSER));
	return hand_over(2);
}

/* Its process has another thread, whatever it does. */
TEST(other_thread_is_refused)
{
	EXPECT_FINE(run_in_child(true, is_refused));
}

static const char *enters(const char *name, int type)
{
	char path[64];
	long entered;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	TRY(hand_over(2));
	entered = raw_call(__NR_setns, fd, type);
	CHECK_EQ(0, entered);
	TRY(hand_over(2));
	CHECK_EQ(0, raw_call(__NR_setns, fd, 0));
	close(fd);
	return hand_over(2);
}

IN_A_PROCESS(mount_namespace_is_entered)
{
	CHECK_EQ(0, leave(CLONE_NEWNS));
	return enters("mnt", CLONE_NEWNS);
}

/* One that does not ask how many threads there are. */
IN_A_PROCESS(host_name_namespace_is_entered)
{
	return enters("uts", CLONE_NEWUTS);
}

IN_A_PROCESS(bad_descriptor_is_one)
{
	TRY(hand_over(2));
	CHECK_EQ(-EBADF, raw_call(__NR_setns, -1, 0));
	CHECK_EQ(-EINVAL, raw_call(__NR_setns, STDERR_FILENO, 0));
	return hand_over(2);
}

/* --- what a process of one thread does not leave to anybody ------------------------------- */

static const char *closes_the_end_of_a_pipe(long (*own)(void))
{
	struct pollfd entry;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	TRY(hand_over(3));
	CHECK_EQ(0, own());
	close(fds[1]);
	entry = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	CHECK_EQ(1, poll(&entry, 1, 0));
	CHECK_EQ(POLLHUP, entry.revents);
	return hand_over(2);
}

static long own_files(void)
{
	return leave(CLONE_FILES);
}

static long own_range(void)
{
	return raw_call(__NR_close_range, 1000, 1000, CLOSE_RANGE_UNSHARE);
}

IN_A_PROCESS(own_files_are_closed)
{
	return closes_the_end_of_a_pipe(own_files);
}

IN_A_PROCESS(own_range_is_closed)
{
	return closes_the_end_of_a_pipe(own_range);
}

/* Locks belong to the table of descriptors. */
IN_A_PROCESS(lock_of_own_files_is_its_own)
{
	struct flock lock = { .l_type = F_RDLCK };
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	TRY(hand_over(3));
	CHECK_EQ(0, fcntl(fd, F_SETLK, &lock));
	CHECK_EQ(0, leave(CLONE_FILES));
	lock.l_type = F_WRLCK;
	CHECK_EQ(0, fcntl(fd, F_SETLK, &lock));
	return hand_over(2);
}

IN_A_PROCESS(directory_that_was_left_is_not_used)
{
	char path[] = "/tmp/alone-XXXXXX";

	CHECK_EQ(0, leave(CLONE_NEWNS));
	CHECK(mkdtemp(path));
	CHECK_EQ(0, mount("none", path, "tmpfs", 0, NULL));
	CHECK_EQ(0, chdir(path));
	TRY(hand_over(3));
	CHECK_EQ(0, leave(CLONE_FS));
	CHECK_EQ(0, chdir("/"));
	CHECK_EQ(0, umount(path));
	CHECK_EQ(0, rmdir(path));
	return hand_over(2);
}

/* Semaphores are undone when the last one that shares the list leaves it. */
IN_A_PROCESS(semaphore_is_undone)
{
	struct sembuf up = { .sem_op = 1, .sem_flg = SEM_UNDO };
	int id = semget(IPC_PRIVATE, 1, 0600);

	CHECK(id >= 0);
	TRY(hand_over(3));
	CHECK_EQ(0, semop(id, &up, 1));
	CHECK_EQ(1, semctl(id, 0, GETVAL));
	CHECK_EQ(0, leave(CLONE_SYSVSEM));
	CHECK_EQ(0, semctl(id, 0, GETVAL));
	CHECK_EQ(0, semctl(id, 0, IPC_RMID));
	return hand_over(2);
}

/* --- what a thread has, and would miss ---------------------------------------------------- */

static const char *keeps_what_it_has(void)
{
	char stack[MINSIGSTKSZ + 4096], cwd[64], name[16];
	stack_t old, alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	sigset_t set, seen, pending;
	pid_t tid = gettid(), child;
	struct timespec before, after;
	volatile double half = 0.5;
	struct reading r;
	int fds[2];

	/* Of its own, as others are left with the ones of before. */
	TRY(begin_reading(&r));
	CHECK_EQ(0, leave(CLONE_FILES | CLONE_FS | CLONE_SYSVSEM));
	TRY(end_reading(&r));
	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(0, chdir("/proc"));
	CHECK_EQ(0, sigaltstack(&alternate, NULL));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	CHECK_EQ(0, sigprocmask(SIG_SETMASK, &set, NULL));
	CHECK_EQ(0, tgkill(getpid(), tid, SIGUSR2));
	CHECK_EQ(0, prctl(PR_SET_NAME, "alone"));
	CHECK_EQ(0, setpriority(PRIO_PROCESS, 0, 5));
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		pause();
		_exit(0);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);

	CHECK_EQ(0, leave(CLONE_NEWUSER));

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	CHECK(after.tv_sec > before.tv_sec ||
	      (after.tv_sec == before.tv_sec && after.tv_nsec > before.tv_nsec));
	CHECK_EQ(tid, gettid());
	CHECK_EQ(tid, getpid());
	CHECK(half + half == 1.0);
	CHECK_EQ(1, write(fds[1], "x", 1));
	CHECK(getcwd(cwd, sizeof(cwd)) && !strcmp(cwd, "/proc"));
	CHECK_EQ(0, sigaltstack(NULL, &old));
	CHECK(old.ss_sp == stack && old.ss_size == sizeof(stack));
	CHECK_EQ(0, sigprocmask(SIG_SETMASK, NULL, &seen));
	CHECK(sigismember(&seen, SIGUSR2) && !sigismember(&seen, SIGUSR1));
	CHECK_EQ(0, sigpending(&pending));
	CHECK(sigismember(&pending, SIGUSR2));
	CHECK_EQ(0, prctl(PR_GET_NAME, name));
	CHECK(!strcmp(name, "alone"));
	errno = 0;
	CHECK_EQ(5, getpriority(PRIO_PROCESS, 0));
	CHECK_EQ(0, kill(child, SIGKILL));
	CHECK_EQ(child, waitpid(child, NULL, __WALL));
	return hand_over(2);
}

IN_A_PROCESS(keeps_what_the_thread_has)
{
	TRY(hand_over(3));
	return keeps_what_it_has();
}

static volatile sig_atomic_t handled;

/* How often the child has got further, for its parent. */
static int *done;

static void note(int signal)
{
	handled += signal == SIGUSR1;
}

static const char *is_alone_among_signals(void)
{
	const struct sigaction action = { .sa_handler = note, .sa_flags = SA_RESTART };
	sigset_t none;
	int i;

	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	sigemptyset(&none);
	CHECK_EQ(0, sigprocmask(SIG_SETMASK, &none, NULL));
	for (i = 0; i < times(40, 4000); i++) {
		TRY(hand_over_among_others());
		CHECK_EQ(0, leave(CLONE_VM));
		reach(done, i + 1);
	}
	CHECK(handled > 0);
	return NULL;
}

static bool has_ended(pid_t child)
{
	siginfo_t info = { };

	return waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid;
}

/* Signals may come at any moment, and the call is made in the end. */
PATIENT_TEST(among_signals, 300)
{
	int i, seen = 0;
	sigset_t set;
	pid_t child;

	done = share(sizeof(*done));
	ASSERT_NE(NULL, done);
	/* They wait until the child has its handler. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		exit_fine(is_alone_among_signals());

	for (i = 1; !has_ended(child); i++) {
		ASSERT_EQ(0, kill(child, SIGUSR1));
		/* On a slow machine it does nothing but handle signals, if it is let. */
		if (i % 16 == 0 && seen < times(40, 4000)) {
			ASSERT_TRUE(await(done, seen + 1));
			seen = __atomic_load_n(done, __ATOMIC_ACQUIRE);
		}
		usleep(200);
	}
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
