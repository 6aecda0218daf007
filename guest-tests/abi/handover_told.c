// SPDX-License-Identifier: GPL-2.0
/*
 * What a call tells others of who makes it, and what it decides by that, is about the thread that
 * has submitted it, whichever task makes it: at the latest when it has slept that is another one.
 */
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <termios.h>

#include "handover.h"
#include "missing.h"
#include "sleepers.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* The value of a call that a worker makes from the start. */
static long offloaded(long nr, const unsigned long *args)
{
	long result = UNTOUCHED;

	return final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args), &result);
}

/* --- owners ------------------------------------------------------------------------------- */

static volatile int told;

static void count_it(int signal)
{
	told++;
}

static pid_t break_lease(const char *path)
{
	pid_t child = fork_child();

	if (!child)
		_exit(open(path, O_WRONLY) < 0);
	return child;
}

/* It is the process that has the lease, however it was got, and long after. */
TEST(lease_that_was_set_by_a_worker)
{
	char path[] = "/var/tmp/async_lease.XXXXXX";
	int fd = mkstemp(path);
	pid_t child;

	ASSERT_LE(0, fd);
	close(fd);
	fd = open(path, O_RDONLY);
	ASSERT_LE(0, fd);
	signal(SIGIO, count_it);
	ASSERT_EQ(0, offloaded(__NR_fcntl, ARGS(fd, F_SETLEASE, F_RDLCK)));
	EXPECT_EQ(getpid(), fcntl(fd, F_GETOWN));
	/* No worker is there any more by now. */
	EXPECT_TRUE(becomes_true(counter("workers") == 0));
	EXPECT_EQ(getpid(), fcntl(fd, F_GETOWN));
	child = break_lease(path);
	EXPECT_TRUE(becomes_true(told));
	EXPECT_EQ(0, fcntl(fd, F_SETLEASE, F_UNLCK));
	EXPECT_EQ(0, status_of(child));
	unlink(path);
}

static int terminal(int *slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	if (master < 0 || grantpt(master) || unlockpt(master))
		return -1;
	*slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	return *slave < 0 ? -1 : master;
}

TEST(terminal_that_sends_signals)
{
	int slave, master = terminal(&slave);

	ASSERT_LE(0, master);
	ASSERT_EQ(0, offloaded(__NR_fcntl, ARGS(slave, F_SETFL, O_RDWR | O_ASYNC)));
	EXPECT_EQ(getpid(), fcntl(slave, F_GETOWN));
	signal(SIGIO, count_it);
	told = 0;
	EXPECT_EQ(1, write(master, "\n", 1));
	EXPECT_TRUE(becomes_true(told));
}

/* --- messages ----------------------------------------------------------------------------- */

IN_EITHER_THREAD(last_receiver_of_a_queue)
{
	struct { long type; char text[8]; } message = { }, sent = { 1, "sent" };
	int id = msgget(IPC_PRIVATE, 0600);
	struct msqid_ds state;
	struct submission s;

	CHECK(id >= 0);
	TRY(submit_sleeping(&s, __NR_msgrcv, ARGS(id, P(&message), 8, 0, 0)));
	CHECK_EQ(0, msgsnd(id, &sent, 8, 0));
	TRY(ends_with(&s, 8));
	CHECK_EQ(0, msgctl(id, IPC_STAT, &state));
	/* That of the thread, which is what the kernel records of one that sleeps. */
	CHECK_EQ(gettid(), state.msg_lrpid);
	CHECK_EQ(0, msgctl(id, IPC_RMID, NULL));
	return NULL;
}

/* --- what belongs to a thread -------------------------------------------------------------- */

static long long cpu_ns(const struct timespec *time)
{
	return time->tv_sec * 1000000000LL + time->tv_nsec;
}

/* Runs for so long, on its own clock. */
static void work_for(long long ns)
{
	struct timespec time;
	long long until;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	until = cpu_ns(&time) + ns;
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	} while (cpu_ns(&time) < until);
}

IN_EITHER_THREAD(clock_of_the_thread)
{
	/* As pthread_getcpuclockid() makes it. */
	const clockid_t named = (~(unsigned int)gettid() << 3) | 6;
	struct timespec before, seen = { }, after;

	work_for(50000000);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	/* The clock of its process, by the number of the thread. */
	CHECK_EQ(0, offloaded(__NR_clock_gettime, ARGS((~(unsigned int)gettid() << 3) | 2,
						       P(&seen))));
	CHECK_EQ(0, offloaded(__NR_clock_gettime, ARGS(CLOCK_THREAD_CPUTIME_ID, P(&seen))));
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	CHECK(cpu_ns(&before) <= cpu_ns(&seen) && cpu_ns(&seen) <= cpu_ns(&after));
	/* One cannot sleep until one has run. */
	CHECK_EQ(-EINVAL, offloaded(__NR_clock_nanosleep, ARGS(named, 0, P(&no_time), 0)));
	return NULL;
}

static void ignore_it(int signal)
{
}

IN_EITHER_THREAD(signal_to_itself)
{
	siginfo_t info = { .si_signo = SIGUSR1, .si_code = SI_TKILL };
	const struct timespec no_time = { };
	sigset_t set, before;
	long value;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, &set, &before));
	value = offloaded(__NR_rt_tgsigqueueinfo, ARGS(getpid(), gettid(), SIGUSR1, P(&info)));
	CHECK_EQ(0, value);
	CHECK_EQ(SIGUSR1, sigtimedwait(&set, NULL, &no_time));
	CHECK_EQ(0, pthread_sigmask(SIG_SETMASK, &before, NULL));
	/* And to nobody else. */
	value = offloaded(__NR_rt_tgsigqueueinfo, ARGS(getppid(), getppid(), SIGUSR1, P(&info)));
	CHECK_EQ(-EPERM, value);
	return NULL;
}

IN_EITHER_THREAD(name_of_its_directory)
{
	char seen[64] = "", wanted[64];
	long length;

	snprintf(wanted, sizeof(wanted), "%d/task/%d", getpid(), gettid());
	length = offloaded(__NR_readlink, ARGS(P("/proc/thread-self"), P(seen), sizeof(seen) - 1));
	CHECK_EQ((long)strlen(wanted), length);
	CHECK_EQ(0, strcmp(wanted, seen));
	return NULL;
}

IN_EITHER_THREAD(fault_of_its_own)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_THREAD_ID };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = { };
	struct submission s = { UNTOUCHED };
	struct uffd_msg message;
	char *page;
	int fd, fds[2];

	page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	CHECK(page != MAP_FAILED);
	fd = syscall(__NR_userfaultfd, O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(0, ioctl(fd, UFFDIO_API, &api));
	range.range.start = P(page);
	range.range.len = getpagesize();
	CHECK_EQ(0, ioctl(fd, UFFDIO_REGISTER, &range));
	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(1, write(fds[1], "x", 1));
	s.cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &s.result, __NR_read,
				ARGS(fds[0], P(page), 1));
	CHECK(is_cookie(s.cookie));
	CHECK_EQ(sizeof(message), read(fd, &message, sizeof(message)));
	CHECK_EQ(gettid(), message.arg.pagefault.feat.ptid);
	zero.range = range.range;
	CHECK_EQ(0, ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	TRY(ends_with(&s, 1));
	munmap(page, getpagesize());
	close(fd);
	return NULL;
}

/* --- what a thread writes of itself ------------------------------------------------------- */

struct gift {
	struct missing missing;
	const char *text;
};

static void *give_when_it_is_waited_for(void *argument)
{
	struct gift *gift = argument;

	while (!page_is_waited_for(&gift->missing))
		usleep(1000);
	return (void *)give_missing_text(&gift->missing, gift->text);
}

/* Writes the text to a file, asleep in between: it is not in memory yet. */
static const char *writes_asleep(const char *path, const char *text)
{
	struct gift gift = { .text = text };
	long result = UNTOUCHED, length = strlen(text);
	pthread_t giver;
	void *wrong;
	int fd;

	TRY(make_missing(&gift.missing));
	fd = open(path, O_WRONLY);
	CHECK(fd >= 0);
	CHECK_EQ(0, pthread_create(&giver, NULL, give_when_it_is_waited_for, &gift));
	CHECK_EQ(length, final_value(async_submit(0, &result, __NR_write,
						  ARGS(fd, P(gift.missing.page), length)),
				     &result));
	CHECK_EQ(0, pthread_join(giver, &wrong));
	TRY(wrong);
	close(fd);
	drop_missing(&gift.missing);
	return NULL;
}

static bool file_has(const char *path, const char *text)
{
	char seen[1024] = "";
	int fd = open(path, O_RDONLY);
	bool has = fd >= 0 && read(fd, seen, sizeof(seen) - 1) > 0 && strstr(seen, text);

	close(fd);
	return has;
}

IN_A_CHILD(login_of_the_thread)
{
	TRY(writes_asleep("/proc/thread-self/loginuid", "1000"));
	CHECK(file_has("/proc/thread-self/loginuid", "1000"));
	return NULL;
}

#define CGROUP	"/sys/fs/cgroup/async_told"

static const char *moves_itself(void)
{
	int fd = open(CGROUP "/own/cgroup.threads", O_WRONLY);

	CHECK(fd >= 0);
	TRY(writes_asleep(CGROUP "/own/cgroup.threads", "0"));
	CHECK(file_has("/proc/thread-self/cgroup", "/async_told/own\n"));
	CHECK(write_text(CGROUP "/cgroup.threads", "0"));
	CHECK(file_has("/proc/thread-self/cgroup", "/async_told\n"));
	CHECK_EQ(1, offloaded(__NR_write, ARGS(fd, P("0"), 1)));
	CHECK(file_has("/proc/thread-self/cgroup", "/async_told/own\n"));
	close(fd);
	return NULL;
}

static const char *is_moved_by_itself(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	CHECK(write_text(CGROUP "/cgroup.procs", text));
	CHECK(write_text(CGROUP "/own/cgroup.type", "threaded"));
	return moves_itself();
}

TEST_F(thread, cgroup_of_the_thread)
{
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup file system");
	ASSERT_TRUE(!mkdir(CGROUP "/own", 0755) || errno == EEXIST);
	EXPECT_FINE(run_in_child(variant->other, is_moved_by_itself));
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP "/own")));
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

/* --- segments ----------------------------------------------------------------------------- */

static int new_segment(void)
{
	return shmget(IPC_PRIVATE, 4096, 0600);
}

static bool is_there(int segment)
{
	struct shmid_ds status;

	return !shmctl(segment, IPC_STAT, &status);
}

/* A call that sleeps, and has ended. */
static const char *goes_on_as_another(void)
{
	struct submission s;
	int fds[2];
	char byte;

	CHECK_EQ(0, pipe(fds));
	TRY(submit_sleeping(&s, __NR_read, ARGS(fds[0], P(&byte), 1)));
	CHECK_EQ(1, write(fds[1], "x", 1));
	TRY(ends_with(&s, 1));
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

static const char *made_two;

static void *makes_two_and_exits(void *argument)
{
	int *segments = argument;

	segments[0] = new_segment();
	made_two = goes_on_as_another();
	segments[1] = offloaded(__NR_shmget, ARGS(IPC_PRIVATE, 4096, 0600));
	return NULL;
}

/* Threads of this process, workers among them. */
static int tasks(void)
{
	struct stat status;

	return stat("/proc/self/task", &status) ? -1 : (int)status.st_nlink - 2;
}

/* They go with the thread that has made them, not with a worker. */
static const char *segments_of_a_thread(void)
{
	int before, after, offload, of_other[2];
	pthread_t thread;

	CHECK_EQ(0, unshare(CLONE_NEWIPC));
	CHECK(write_text("/proc/sys/kernel/shm_rmid_forced", "1"));
	before = new_segment();
	CHECK(before >= 0);
	TRY(goes_on_as_another());
	after = new_segment();
	CHECK(after >= 0);
	offload = offloaded(__NR_shmget, ARGS(IPC_PRIVATE, 4096, 0600));
	CHECK(offload >= 0);
	CHECK(tasks() > 1);
	/* Of one thread: its workers go. */
	CHECK_EQ(0, unshare(CLONE_THREAD));
	CHECK(becomes_true(tasks() == 1));
	CHECK(is_there(before));
	CHECK(is_there(after));
	CHECK(is_there(offload));

	CHECK_EQ(0, pthread_create(&thread, NULL, makes_two_and_exits, of_other));
	CHECK_EQ(0, pthread_join(thread, NULL));
	TRY(made_two);
	CHECK(of_other[0] >= 0);
	CHECK(of_other[1] >= 0);
	CHECK(becomes_true(!is_there(of_other[0])));
	CHECK(becomes_true(!is_there(of_other[1])));

	/* One that has moved can be removed, and what is left of the others stays. */
	CHECK_EQ(0, shmctl(after, IPC_RMID, NULL));
	CHECK(!is_there(after));
	CHECK(is_there(before));
	return NULL;
}

TEST(segments_go_with_their_thread)
{
	EXPECT_FINE(run_in_child(false, segments_of_a_thread));
}

/* --- children ----------------------------------------------------------------------------- */

/* With __WNOTHREAD only the children of the thread are waited for. */
IN_EITHER_THREAD(children_of_the_thread_alone)
{
	int *stage = share(sizeof(*stage)), status = 0;
	struct submission s;
	pid_t child;

	CHECK(stage);
	child = fork_child();
	if (!child) {
		stay_until(stage, 1);
		_exit(7);
	}
	TRY(submit_sleeping(&s, __NR_wait4, ARGS(-1, P(&status), 0x20000000 /* __WNOTHREAD */)));
	reach(stage, 1);
	TRY(ends_with(&s, child));
	CHECK_EQ(7 << 8, status);
	CHECK_EQ(-ECHILD, offloaded(__NR_wait4, ARGS(-1, P(&status), 0x20000000)));
	return NULL;
}

/* --- job control -------------------------------------------------------------------------- */

/* In the background, on a terminal: what it submits is stopped as what it calls is. */
static void background(long nr, const unsigned long *args, long wanted)
{
	long value;

	setpgid(0, 0);
	value = offloaded(nr, args);
	_exit(value == wanted ? 0 : value < 0 ? 100 - value : 99);
}

static const char *is_stopped_again(pid_t child, int signal)
{
	int status;

	CHECK_EQ(child, waitpid(child, &status, WUNTRACED));
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(signal, WSTOPSIG(status));
	/* It goes on, and is not in front yet. */
	CHECK_EQ(0, kill(child, SIGCONT));
	CHECK_EQ(child, waitpid(child, &status, WUNTRACED));
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(signal, WSTOPSIG(status));
	return NULL;
}

/* One that controls this process, and whom it starts. */
static const char *get_a_terminal(int *master, int *slave)
{
	CHECK(setsid() >= 0);
	*master = terminal(slave);
	CHECK(*master >= 0);
	CHECK_EQ(0, ioctl(*slave, TIOCSCTTY, 0));
	return NULL;
}

static const char *job_control(void)
{
	struct termios settings, seen;
	int slave, master, status;
	pid_t child;
	char byte;

	TRY(get_a_terminal(&master, &slave));
	signal(SIGTTOU, SIG_IGN);
	CHECK_EQ(0, tcgetattr(slave, &settings));
	settings.c_lflag ^= ECHO;

	child = fork_child();
	if (!child) {
		signal(SIGTTOU, SIG_DFL);
		background(__NR_ioctl, ARGS(slave, TCSETS, P(&settings)), 0);
	}
	TRY(is_stopped_again(child, SIGTTOU));
	CHECK_EQ(0, tcgetattr(slave, &seen));
	CHECK(seen.c_lflag != settings.c_lflag);
	CHECK_EQ(0, tcsetpgrp(slave, child));
	CHECK_EQ(0, kill(child, SIGCONT));
	CHECK_EQ(child, waitpid(child, &status, 0));
	CHECK_EQ(0, status);
	CHECK_EQ(0, tcgetattr(slave, &seen));
	CHECK_EQ(settings.c_lflag, seen.c_lflag);

	CHECK_EQ(0, tcsetpgrp(slave, getpid()));
	child = fork_child();
	if (!child)
		background(__NR_read, ARGS(slave, P(&byte), 1), 1);
	TRY(is_stopped_again(child, SIGTTIN));
	CHECK_EQ(0, tcsetpgrp(slave, child));
	CHECK_EQ(0, kill(child, SIGCONT));
	CHECK_EQ(2, write(master, "x\n", 2));
	CHECK_EQ(child, waitpid(child, &status, 0));
	CHECK_EQ(0, status);
	return NULL;
}

TEST(job_in_the_background)
{
	EXPECT_FINE(run_in_child(false, job_control));
}

/* A handler is called, and the call is over. */
static const char *job_with_a_handler(void)
{
	int slave, master, status;
	pid_t child;
	char byte;

	TRY(get_a_terminal(&master, &slave));
	child = fork_child();
	if (!child) {
		signal(SIGTTIN, ignore_it);
		background(__NR_read, ARGS(slave, P(&byte), 1), -EINTR);
	}
	CHECK_EQ(child, waitpid(child, &status, 0));
	CHECK_EQ(0, status);
	return NULL;
}

TEST(job_in_the_background_with_a_handler)
{
	EXPECT_FINE(run_in_child(false, job_with_a_handler));
}

TEST_HARNESS_MAIN
