// SPDX-License-Identifier: GPL-2.0
/*
 * Makes up uses of async_submit, wait_for_async and async_cancel: any flags, numbers, pointers and
 * sizes, result words and argument arrays that others write to, take away and give back while they
 * are in use, among signals, threads that come and go, forks and all kinds of ends.
 *
 * Every process lives for some hundred milliseconds and may come to any end; all that is asked is
 * that it does end, and with nothing outstanding if it has waited for everything. What the kernel
 * thinks of it is on the console.
 *
 * Environment:
 *	STRESS_S=10		how long, in seconds
 *	STRESS_SEED=N		what to begin with; printed, so that it can be had again
 *	STRESS_PROCESSES=4	how many of them at a time
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"
#include "../kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3900

#define MOST_NUMBERS	560
#define PAGE		4096
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"

/* --- chance ------------------------------------------------------------------------------- */

/* xorshift64*: of each thread its own. */
static __thread unsigned long state;

static unsigned long chance(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dUL;
}

static void sow(unsigned long seed)
{
	int i;

	state = seed * 0x9e3779b97f4a7c15UL | 1;
	for (i = 0; i < 8; i++)
		chance();
}

static unsigned long below(unsigned long end)
{
	return (chance() >> 11) % end;
}

static bool one_in(unsigned long many)
{
	return !below(many);
}

#define ONE_OF(array)	((array)[below(sizeof(array) / sizeof((array)[0]))])

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtoul(value, NULL, 0) : otherwise;
}

/* --- what a process has ------------------------------------------------------------------- */

#define WORDS		64
#define COOKIES		64
#define DESCRIPTORS	32

/* Result words in memory that stays, and in memory that does not. */
static long words[WORDS];
static char *moving;		/* two pages: their protection changes, they come and go */
static char *readable;		/* one page, read only */
static unsigned long arrays[8][6];
static char data[2 * PAGE];
static long cookies[COOKIES];
static int descriptors[DESCRIPTORS];
static int eventfds[2], ring;
static long long end_ms;
static unsigned int futex_word;

static const char *const paths[] = {
	"/tmp/generated", "/tmp", "/proc/self/status", "/dev/null", "/dev/zero", "/", "",
	"/tmp/generated/none", "/proc/self/async_submit",
};

static int set_up_ring(void)
{
	struct io_uring_params params = { };

	return syscall(__NR_io_uring_setup, 8, &params);
}

static void set_up(void)
{
	unsigned int i;
	int pair[2];

	moving = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	readable = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i + 1 < DESCRIPTORS; i += 2) {
		if (i % 6 == 0 ? pipe(pair) :
		    socketpair(AF_UNIX, i % 6 == 2 ? SOCK_STREAM : SOCK_DGRAM, 0, pair))
			pair[0] = pair[1] = -1;
		descriptors[i] = pair[0];
		descriptors[i + 1] = pair[1];
	}
	descriptors[3] = open("/tmp/generated", O_RDWR | O_CREAT, 0666);
	descriptors[9] = epoll_create1(0);
	eventfds[0] = descriptors[15] = eventfd(0, 0);
	eventfds[1] = eventfd(0, EFD_NONBLOCK);
	ring = set_up_ring();
}

/* --- made-up values ----------------------------------------------------------------------- */

static unsigned long any_number(void)
{
	static const unsigned long numbers[] = {
		0, 1, 2, 3, 7, 8, 63, 64, 100, PAGE - 1, PAGE, PAGE + 1, 0x7fffffff, 0x80000000,
		0xffffffff, LONG_MAX, 1UL << 63, -1UL, -2UL, -100UL,
	};

	return one_in(8) ? chance() : ONE_OF(numbers);
}

static unsigned long any_address(void)
{
	switch (below(12)) {
	case 0:
		return 0;
	case 1:
		return any_number();
	case 2:
		return (unsigned long)readable + below(PAGE);
	case 3:
		return (unsigned long)moving + below(2 * PAGE);
	case 4:		/* over the end of a page */
		return (unsigned long)moving + PAGE - below(8);
	case 5:		/* of the kernel */
		return 0xffffffff81000000UL + below(1 << 24);
	case 6:
		return (unsigned long)&words[below(WORDS)];
	case 7:
		return (unsigned long)arrays[below(8)];
	case 8:
		return (unsigned long)ONE_OF(paths);
	default:
		return (unsigned long)data + below(PAGE);
	}
}

static unsigned long any_argument(void)
{
	switch (below(4)) {
	case 0:
		return any_number();
	case 1:
		return any_address();
	case 2:
		return descriptors[below(DESCRIPTORS)];
	default:
		return below(16);
	}
}

static long any_cookie(void)
{
	switch (below(8)) {
	case 0:
		return any_number();
	case 1:
		return (1L << 62) + below(1000);
	default:
		return cookies[below(COOKIES)];
	}
}

static long *any_word(void)
{
	if (!one_in(4))
		return &words[below(WORDS)];
	if (one_in(2))
		return (long *)(moving + below(2 * PAGE));
	return (long *)any_address();
}

static unsigned long any_flags(void)
{
	unsigned long flags = one_in(3) ? ASYNC_SUBMIT_OFFLOAD : 0;

	if (one_in(16))
		return any_number();
	if (one_in(4))
		flags |= ASYNC_SUBMIT_QUEUE;
	if (one_in(6))
		flags |= ASYNC_SUBMIT_EVENTFD | (unsigned long)eventfds[below(2)] << 32;
	else if (one_in(6))
		flags |= ASYNC_SUBMIT_CQE | (unsigned long)ring << 32;
	else if (one_in(32))
		flags |= ASYNC_SUBMIT_CQE | (unsigned long)descriptors[below(DESCRIPTORS)] << 32;
	return flags;
}

/*
 * Not what would take the ground away from under all of this, or keep it from seeing the time: the
 * memory of the program, its limits and its descriptors 0 to 2, the clock. To anything that is not
 * its own a process has no right.
 */
static bool is_left_alone(unsigned long nr)
{
	switch (nr) {
	case __NR_mmap:
	case __NR_mprotect:
	case __NR_munmap:
	case __NR_brk:
	case __NR_mremap:
	case __NR_madvise:
	case __NR_remap_file_pages:
	case __NR_pkey_mprotect:
	case __NR_process_madvise:
	case __NR_mseal:
	case __NR_shmat:
	case __NR_shmdt:
	case __NR_setrlimit:
	case __NR_prlimit64:
	case __NR_dup2:
	case __NR_dup3:
	case __NR_close_range:
	case __NR_rt_sigaction:
	case __NR_setitimer:
	case __NR_alarm:
	case __NR_kill:
	case __NR_process_vm_writev:
	/* Who sleeps here for the whole of the time is no surprise. */
	case __NR_vhangup:
		return true;
	default:
		return false;
	}
}

static long any_call(void)
{
	static const long often[] = {
		__NR_read, __NR_write, __NR_poll, __NR_recvfrom, __NR_sendto, __NR_nanosleep,
		__NR_futex, __NR_epoll_wait, __NR_getppid, __NR_openat, __NR_close, __NR_accept,
		__NR_wait4, __NR_splice, __NR_flock, __NR_fcntl, __NR_fsync, __NR_pread64,
	};
	long nr;

	if (!one_in(3))
		return ONE_OF(often);
	if (one_in(32))
		return any_number();
	do {
		nr = below(MOST_NUMBERS);
	} while (is_left_alone(nr));
	return nr;
}

/* Arguments with which it may well sleep. */
static void fill_in(long nr, unsigned long *args)
{
	static const struct timespec times[] = {
		{ 0, 1 }, { 0, 100000 }, { 0, 3000000 }, { 0, 30000000 }, { 100, 0 },
	};
	unsigned int i;

	for (i = 0; i < 6; i++)
		args[i] = any_argument();
	if (one_in(5))
		return;
	switch (nr) {
	case __NR_read:
	case __NR_write:
	case __NR_recvfrom:
	case __NR_sendto:
	case __NR_pread64:
		args[0] = descriptors[below(DESCRIPTORS)];
		args[1] = (unsigned long)data;
		args[2] = 1 + below(PAGE);
		args[3] = args[4] = args[5] = 0;
		break;
	case __NR_nanosleep:
		args[0] = (unsigned long)&ONE_OF(times);
		args[1] = 0;
		break;
	case __NR_futex:
		args[0] = (unsigned long)&futex_word;
		args[1] = below(2);
		args[2] = below(2);
		args[3] = one_in(2) ? (unsigned long)&ONE_OF(times) : 0;
		break;
	case __NR_poll:
		args[0] = (unsigned long)data;
		args[1] = 0;
		args[2] = below(50);
		break;
	case __NR_close:
		args[0] = 3 + below(100);
		break;
	}
}

/* --- what threads do ---------------------------------------------------------------------- */

static void submit(void)
{
	unsigned long own[6], *args = one_in(2) ? arrays[below(8)] : own;
	long nr = any_call(), cookie;

	fill_in(nr, args);
	if (one_in(16))
		args = (unsigned long *)any_address();
	cookie = syscall(__NR_async_submit, any_flags(), any_word(), nr, args);
	if (cookie > 0)
		cookies[below(COOKIES)] = cookie;
}

/* An array or a word changes while a call may look at it. */
static void change_memory(void)
{
	switch (below(6)) {
	case 0:
		arrays[below(8)][below(6)] = any_argument();
		break;
	case 1:
		words[below(WORDS)] = any_number();
		break;
	case 2:
		mprotect(moving + PAGE * below(2), PAGE, one_in(2) ? PROT_READ : PROT_NONE);
		break;
	case 3:
		mprotect(moving, 2 * PAGE, PROT_READ | PROT_WRITE);
		break;
	case 4:
		madvise(moving, 2 * PAGE, MADV_DONTNEED);
		break;
	case 5:
		mmap(moving, 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		break;
	}
}

static void wait_for_some(void)
{
	struct __kernel_timespec time = { .tv_nsec = below(2000000) };
	void *timeout = one_in(16) ? (void *)any_address() : &time;

	switch (below(4)) {
	case 0:
		syscall(__NR_wait_for_async, 0UL, 0L, timeout);
		break;
	case 1:
		syscall(__NR_wait_for_async, (unsigned long)ASYNC_WAIT_ANY, 0L, timeout);
		break;
	case 2:
		/* For ever: signals come often enough. */
		syscall(__NR_wait_for_async, 0UL, any_cookie(), NULL);
		break;
	default:
		syscall(__NR_wait_for_async, one_in(16) ? any_number() : 0UL, any_cookie(),
			timeout);
	}
}

static void cancel_some(void)
{
	int i, count = one_in(4) ? COOKIES : 1;

	for (i = 0; i < count; i++)
		syscall(__NR_async_cancel, one_in(16) ? any_number() : 0UL,
			count > 1 ? cookies[i] : any_cookie());
}

static void ignore_it(int signal)
{
}

static void bother_a_thread(void)
{
	struct dirent *entry;
	DIR *tasks = opendir("/proc/self/task");
	int skip = below(6);

	if (!tasks)
		return;
	while ((entry = readdir(tasks)))
		if (entry->d_name[0] != '.' && skip-- <= 0)
			break;
	if (entry)
		syscall(__NR_tgkill, getpid(), atoi(entry->d_name), one_in(2) ? SIGUSR1 : SIGUSR2);
	closedir(tasks);
}

static void wake_somebody(void)
{
	static const char bytes[64];

	switch (below(3)) {
	case 0:
		write(descriptors[below(DESCRIPTORS)], bytes, below(64));
		break;
	case 1:
		futex_word = below(2);
		syscall(__NR_futex, &futex_word, 1, 100);
		break;
	case 2:
		read(eventfds[1], data, 8);
		break;
	}
}

static void make_child(void)
{
	pid_t child = one_in(3) ? vfork() : fork();

	if (!child) {
		if (one_in(4))
			execl("/bin/true", "true", NULL);
		_exit(0);
	}
	/* One that is not waited for is init's. */
	if (child > 0 && one_in(2))
		waitpid(child, NULL, WNOHANG);
}

static void do_something(void)
{
	switch (below(40)) {
	case 0:
		change_memory();
		break;
	case 1 ... 6:
		wait_for_some();
		break;
	case 7 ... 10:
		cancel_some();
		break;
	case 11 ... 13:
		bother_a_thread();
		break;
	case 14 ... 18:
		wake_somebody();
		break;
	case 19:
		if (one_in(4))
			make_child();
		break;
	case 20:
		change_memory();
		break;
	case 21:
		sched_yield();
		break;
	default:
		submit();
	}
}

static void *live(void *seed)
{
	int many = 50 + below(500);

	sow((unsigned long)seed);
	while (many-- && now_ms() < end_ms)
		do_something();
	return NULL;
}

static void start_thread(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	pthread_create(&thread, &attributes, live, (void *)chance());
}

/* --- a process ---------------------------------------------------------------------------- */

enum {
	CLEAN,
	LEFT_SOMETHING = 3,
};

static bool is_something_left(void)
{
	/* Where nobody can say, there may be. */
	return number_in("/proc/self/async_submit", "outstanding") != 0;
}

/* Everything is cancelled and waited for: then there is nothing. */
static void leave_nothing(void)
{
	long long limit = now_ms() + 60000;
	struct __kernel_timespec time = { .tv_nsec = 20000000 };
	long ret;
	int i;

	do {
		for (i = 0; i < COOKIES; i++)
			syscall(__NR_async_cancel, 0UL, cookies[i]);
		for (i = 0; i < DESCRIPTORS; i++)
			close(descriptors[i]);
		futex_word = 1;
		syscall(__NR_futex, &futex_word, 1, INT_MAX);
		ret = syscall(__NR_wait_for_async, 0UL, 0L, &time);
	} while (ret && (errno == ETIME || errno == EINTR) && now_ms() < limit);
	/* What is not known any more, for its cookie was overwritten, may sleep on. */
}

static void end_somehow(void)
{
	switch (below(8)) {
	case 0:
		abort();
	case 1:
		raise(SIGKILL);
		break;
	case 2:
		execl("/bin/true", "true", NULL);
		break;
	case 3:
		pthread_exit(NULL);
	case 4:
		*(volatile char *)readable = 1;
		break;
	case 5:
		leave_nothing();
		exit(0);
	case 6:
		/* Not within the time that is left: it is killed. */
		for (;;)
			do_something();
	}
	_exit(0);
}

static void run_process(unsigned long seed)
{
	const struct sigaction restart = { .sa_handler = ignore_it, .sa_flags = SA_RESTART };
	const struct sigaction interrupt = { .sa_handler = ignore_it };
	const struct itimerval often = { { 0, 3000 }, { 0, 3000 } };
	const struct rlimit no_core = { };
	struct rlimit processes = { .rlim_max = RLIM_INFINITY };
	unsigned int i, threads;
	int nothing = open("/dev/null", O_RDWR);

	/* What is done to these is done to those who have the same file. */
	for (i = 0; i < 3; i++)
		dup2(nothing, i);
	sow(seed);
	setrlimit(RLIMIT_CORE, one_in(8) ? &(struct rlimit){ 1 << 20, 1 << 20 } : &no_core);
	processes.rlim_cur = one_in(4) ? 8 + below(64) : 4000;
	setrlimit(RLIMIT_NPROC, &processes);
	if (chdir("/tmp") || setgid(NOBODY) || setuid(NOBODY))
		_exit(9);
	end_ms = now_ms() + 50 + below(400);
	set_up();
	sigaction(SIGUSR1, &restart, NULL);
	sigaction(SIGUSR2, &interrupt, NULL);
	sigaction(SIGALRM, &interrupt, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	signal(SIGPIPE, SIG_IGN);
	threads = below(5);
	for (i = 0; i < threads; i++)
		start_thread();
	while (now_ms() < end_ms) {
		do_something();
		if (threads && one_in(200))
			start_thread();
	}
	end_somehow();
}

/* --- all of them -------------------------------------------------------------------------- */

#define MOST_PROCESSES	64
/* How long a process may take to go after it was killed, on the slowest machine. */
#define PATIENCE_MS	120000

struct process {
	pid_t pid;
	unsigned long seed;
	long long killed_ms;	/* when it has to be gone at the latest */
	bool is_killed;
};

static void show_stacks(pid_t pid)
{
	char path[64], text[4096];
	struct dirent *entry;
	DIR *tasks;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stack", pid, entry->d_name);
		fd = open(path, O_RDONLY);
		length = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
		close(fd);
		text[length > 0 ? length : 0] = 0;
		printf("# task %s:\n", entry->d_name);
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			printf("#   %s\n", line);
	}
	fflush(stdout);
}

/* False when there is no room for it: the others have taken all there is, and will go. */
static bool start(struct process *process, unsigned long seed)
{
	process->seed = seed;
	process->is_killed = false;
	process->killed_ms = now_ms() + 700;
	process->pid = fork();
	if (!process->pid) {
		/* Descendants go by the group. */
		setpgid(0, 0);
		run_process(seed);
		_exit(0);
	}
	if (process->pid < 0) {
		process->pid = 0;
		return false;
	}
	setpgid(process->pid, process->pid);
	return true;
}

TEST(everything_ends)
{
	unsigned long seconds = from_environment("STRESS_S", 10);
	unsigned long seed = from_environment("STRESS_SEED", time(NULL) ^ getpid());
	unsigned long many = from_environment("STRESS_PROCESSES", 4), started = 0, stuck = 0;
	static struct process processes[MOST_PROCESSES];
	long long until = now_ms() + seconds * 1000;
	unsigned long i, ends[3] = { }, full = 0;
	int status;

	ASSERT_LE(many, MOST_PROCESSES);
	TH_LOG("STRESS_SEED=%lu, for %lu s", seed, seconds);
	for (;;) {
		bool any = now_ms() < until;

		for (i = 0; i < many && !stuck; i++) {
			struct process *one = &processes[i];

			if (!one->pid) {
				if (now_ms() >= until)
					continue;
				if (start(one, seed + started))
					started++;
				else
					full++;
				continue;
			}
			any = true;
			if (waitpid(one->pid, &status, WNOHANG) == one->pid) {
				/* What it has made and left behind. */
				kill(-one->pid, SIGKILL);
				one->pid = 0;
				ends[WIFEXITED(status) ? 0 : one->is_killed ? 2 : 1]++;
				continue;
			}
			if (now_ms() < one->killed_ms)
				continue;
			if (one->is_killed) {
				TH_LOG("seed %lu: process %d does not end", one->seed, one->pid);
				show_stacks(one->pid);
				stuck++;
				break;
			}
			one->is_killed = true;
			one->killed_ms = now_ms() + PATIENCE_MS;
			kill(one->pid, SIGKILL);
		}
		if (!any || stuck)
			break;
		usleep(2000);
	}
	TH_LOG("%lu processes: %lu exited, %lu ended by a signal, %lu were killed; no room %lu times",
	       started, ends[0], ends[1], ends[2], full);
	EXPECT_EQ(0, stuck);
	/* It has to have done something. */
	EXPECT_GE(started, seconds);
}

/* The kernel's count of what a process has outstanding comes to nothing. */
TEST(nothing_is_left)
{
	const struct sigaction interrupt = { .sa_handler = ignore_it };
	int status, i;
	pid_t child;

	for (i = 0; i < 5; i++) {
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct itimerval often = { { 0, 3000 }, { 0, 3000 } };
			long long limit;

			/* No call of its own goes on for ever. */
			sigaction(SIGALRM, &interrupt, NULL);
			signal(SIGPIPE, SIG_IGN);
			if (setgid(NOBODY) || setuid(NOBODY))
				_exit(9);
			/* What /proc says of it is for itself to read, again. */
			prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
			sow(i + 1);
			set_up();
			setitimer(ITIMER_REAL, &often, NULL);
			end_ms = now_ms() + 300;
			while (now_ms() < end_ms) {
				long cookie;

				unsigned long args[6];

				fill_in(__NR_read, args);
				args[0] = descriptors[0];
				args[1] = (unsigned long)data;
				args[2] = 1;
				cookie = syscall(__NR_async_submit, any_flags() & 3, &words[0],
						 (long)__NR_read, args);
				if (cookie > 0)
					syscall(__NR_async_cancel, 0UL, cookie);
				wake_somebody();
			}
			limit = now_ms() + 60000;
			close(descriptors[1]);
			while (is_something_left() && now_ms() < limit) {
				struct __kernel_timespec time = { .tv_nsec = 1000000 };

				syscall(__NR_wait_for_async, 0UL, 0L, &time);
			}
			_exit(is_something_left() ? LEFT_SOMETHING : CLEAN);
		}
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_EQ(0, status);
	}
}

/*
 * Of the kernel, that nobody points to any more: what is said of it is printed. How much was said;
 * -1 where nobody looks. A search that did not take place is no good news.
 */
static long memory_that_is_lost(void)
{
	static char text[65536];
	ssize_t size;
	int fd, i;

	fd = open(KMEMLEAK, O_RDWR);
	if (fd < 0)
		return -1;
	/* It takes nothing for lost that is younger than five seconds. */
	sleep(6);
	/* Twice: a pointer may be on its way. */
	for (i = 0; i < 2; i++)
		if (write(fd, "scan", 4) != 4) {
			printf("# no scan: %s\n", strerror(errno));
			close(fd);
			return sizeof(text);
		}
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		printf("# %s\n", line);
	return size < 0 ? sizeof(text) : size;
}

enum { HUGE_PAGE = 2 << 20, HUGE_PAGES = 16, ENDS = 300 };

static volatile bool has_begun;
static long long after_ns;

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *exits(void *unused)
{
	long long begin;

	while (!has_begun)
		;
	begin = now_ns();
	while (now_ns() < begin + after_ns)
		;
	syscall(__NR_exit_group, 0);
	return NULL;
}

/*
 * A process that ends in the middle of a submission: to try the result word takes long where that is
 * in a page that is not there yet (a large one, if there are such), and by then a worker is reserved,
 * which is killed meanwhile.
 */
static void end_in_a_submission(unsigned int i)
{
	struct io_uring_params for_one = { .flags = IORING_SETUP_SINGLE_ISSUER };
	unsigned long args[6] = { };
	long long begin, takes_ns;
	pthread_t thread;
	char *words;
	int n;

	words = mmap(NULL, HUGE_PAGE * (HUGE_PAGES + 1), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (words == MAP_FAILED)
		_exit(9);
	words = (char *)(((unsigned long)words + HUGE_PAGE - 1) & -(unsigned long)HUGE_PAGE);
	madvise(words, (size_t)HUGE_PAGE * HUGE_PAGES, MADV_HUGEPAGE);
	/* In every other one a worker makes the calls while the submitter waits. */
	if (i & 1 && syscall(__NR_io_uring_setup, 1, &for_one) < 0)
		_exit(8);
	if (pthread_create(&thread, NULL, exits, NULL))
		_exit(7);
	for (n = 0;; n = (n + 1) % HUGE_PAGES) {
		if (!n)
			madvise(words, (size_t)HUGE_PAGE * HUGE_PAGES, MADV_DONTNEED);
		begin = now_ns();
		if (n == 2) {
			/* At any moment of this one, by how long the last one took. */
			after_ns = takes_ns * (i % 50) / 40;
			has_begun = true;
		}
		syscall(__NR_async_submit, i & 1 ? 0UL : (unsigned long)ASYNC_SUBMIT_OFFLOAD,
			words + (size_t)n * HUGE_PAGE, (long)__NR_getppid, args);
		takes_ns = now_ns() - begin;
	}
}

TEST(processes_end_in_submissions)
{
	unsigned int i;
	int status;
	pid_t child;

	for (i = 0; i < ENDS; i++) {
		child = fork();
		ASSERT_LE(0, child);
		if (!child)
			end_in_a_submission(i);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		ASSERT_EQ(0, status);
	}
	EXPECT_GE(0, memory_that_is_lost());
}

/* Nor is there memory of the kernel that nobody points to any more. */
TEST(no_memory_is_lost)
{
	long lost = memory_that_is_lost();

	if (lost < 0)
		SKIP(return, "not a kernel that looks for leaks (CONFIG_DEBUG_KMEMLEAK)");
	EXPECT_EQ(0, lost);
}

TEST_HARNESS_MAIN
