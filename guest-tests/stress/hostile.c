// SPDX-License-Identifier: GPL-2.0
/*
 * A process that does its worst, under the limits that an administrator has set: it stays within
 * them, others go on, and it is told no address of the kernel.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/time_types.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"
#include "../kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

#define MOST_CALLS	20000
#define LIMIT_FILE	"/proc/sys/kernel/async_submit_max"

/* --- files -------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3)))
static int put(const char *path, const char *format, ...)
{
	va_list list;
	FILE *file;
	int ret;

	file = fopen(path, "w");
	if (!file)
		return -errno;
	va_start(list, format);
	vfprintf(file, format, list);
	va_end(list);
	ret = fclose(file) ? -errno : 0;
	return ret;
}

static long get(const char *path)
{
	FILE *file = fopen(path, "r");
	long value = -1;

	if (file) {
		if (fscanf(file, "%ld", &value) != 1)
			value = -1;
		fclose(file);
	}
	return value;
}

static long counter(const char *pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/async_submit", pid);
	return number_in(path, name);
}

/* --- what it does ------------------------------------------------------------------------- */

/* Shared with the test: what the process, which may be killed, has come to. */
static struct {
	long submitted, refused, workers, done;
	long words[MOST_CALLS];
	char bytes[MOST_CALLS];
} *seen;

static int fds[2];

static void become_nobody(void)
{
	if (setgid(NOBODY) || setuid(NOBODY))
		_exit(9);
}

/* As many reads as there can be, one way and the other; it does not give up at the first no. */
static void submit_all(unsigned long most)
{
	unsigned long i;
	long ret;

	for (i = 0; i < most && seen->refused < 200; i++) {
		const unsigned long args[6] = { fds[0], (unsigned long)&seen->bytes[i], 1 };
		unsigned long flags = i % 3 == 1 ? ASYNC_SUBMIT_OFFLOAD :
				      i % 3 == 2 ? ASYNC_SUBMIT_QUEUE : 0;

		ret = syscall(__NR_async_submit, flags, &seen->words[i], (long)__NR_read, args);
		if (ret > 0)
			seen->submitted++;
		else
			seen->refused++;
	}
}

static pid_t run(void (*body)(void))
{
	pid_t child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
		_exit(0);
	}
	return child;
}

/* --- the limits --------------------------------------------------------------------------- */

FIXTURE(limits)
{
	long max;
	char group[64];
};

static const char *mount_point = "/tmp/hostile_cgroup";

/* With all that is in it: a test that was ended by an assertion leaves a process. */
static void remove_group(const char *group)
{
	char path[128];
	int i;

	snprintf(path, sizeof(path), "%s/cgroup.kill", group);
	put(path, "1");
	for (i = 0; i < 1000 && rmdir(group) && errno == EBUSY; i++)
		usleep(10000);
}

FIXTURE_SETUP(limits)
{
	self->max = get(LIMIT_FILE);
	ASSERT_LT(0, self->max);
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, seen);
	ASSERT_EQ(0, pipe(fds));
	mkdir(mount_point, 0700);
	/* A test that was ended by an assertion leaves it. */
	umount2(mount_point, MNT_DETACH);
	ASSERT_EQ(0, mount("none", mount_point, "cgroup2", 0, NULL)) {
		TH_LOG("cgroup2: %s", strerror(errno));
	}
	put("/tmp/hostile_cgroup/cgroup.subtree_control", "+pids");
	put("/tmp/hostile_cgroup/cgroup.subtree_control", "+memory");
	snprintf(self->group, sizeof(self->group), "%s/hostile", mount_point);
	remove_group(self->group);
	ASSERT_EQ(0, mkdir(self->group, 0700));
}

FIXTURE_TEARDOWN(limits)
{
	put(LIMIT_FILE, "%ld", self->max);
	remove_group(self->group);
	umount2(mount_point, MNT_DETACH);
	munmap(seen, sizeof(*seen));
}

static char group_path[128];

static void enter_group(void)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/cgroup.procs", group_path);
	if (put(path, "0"))
		_exit(8);
}

static long of_group(const char *group, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", group, name);
	return get(path);
}

static void fill_up(void)
{
	const struct rlimit many = { 100000, 100000 };

	setrlimit(RLIMIT_NPROC, &many);
	enter_group();
	become_nobody();
	submit_all(MOST_CALLS);
	seen->done = 1;
	pause();
}

/* Until the process is done, or gone. */
static bool goes_on(pid_t child)
{
	return !__atomic_load_n(&seen->done, __ATOMIC_ACQUIRE) &&
	       waitpid(child, NULL, WNOHANG) == 0;
}

/* Waits until the process is done, looking at a limit all the time. */
#define is_within(child, value, limit)					\
do {									\
	while (goes_on(child)) {					\
		ASSERT_GE(limit, value);				\
		usleep(200);						\
	}								\
	ASSERT_GE(limit, value);					\
	/* It was there to be looked at. */				\
	ASSERT_LE(0, value);						\
} while (0)

TEST_F(limits, tasks_of_a_cgroup)
{
	char path[160];
	pid_t child;

	snprintf(path, sizeof(path), "%s/pids.max", self->group);
	ASSERT_EQ(0, put(path, "50"));
	ASSERT_EQ(0, put(LIMIT_FILE, "100000"));
	strcpy(group_path, self->group);
	child = run(fill_up);
	ASSERT_LT(0, child);
	/* The attempt that is refused is counted for a moment. */
	is_within(child, of_group(self->group, "pids.current"), 51);
	EXPECT_GE(50, of_group(self->group, "pids.current"));
	EXPECT_EQ(1, seen->done);
	/* All that there was room for, and no more. */
	EXPECT_LE(40, seen->submitted);
	EXPECT_GE(50, seen->submitted);
	EXPECT_EQ(200, seen->refused);
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
	EXPECT_EQ(0, of_group(self->group, "pids.current"));
}

TEST_F(limits, memory_of_a_cgroup)
{
	const long most = 48 << 20;
	long charged;
	char path[160];
	pid_t child;

	snprintf(path, sizeof(path), "%s/memory.max", self->group);
	if (put(path, "%ld", most))
		SKIP(return, "no memory controller");
	ASSERT_EQ(0, put(LIMIT_FILE, "100000"));
	strcpy(group_path, self->group);
	child = run(fill_up);
	ASSERT_LT(0, child);
	/* The kernel lets a process that it kills for this have what it needs to end. */
	is_within(child, of_group(self->group, "memory.current"), most + (1 << 20));
	/* It is refused more, or killed for it: either way it has come far, and was charged. */
	EXPECT_LE(500, seen->submitted);
	if (seen->done) {
		charged = of_group(self->group, "memory.current");
		EXPECT_LE(16384 * seen->submitted, charged);
		kill(child, SIGKILL);
		EXPECT_EQ(child, waitpid(child, NULL, 0));
	}
	EXPECT_GE((long)(most / 16384), seen->submitted);
}

static void fill_up_few_processes(void)
{
	const struct rlimit few = { 30, 30 };

	become_nobody();
	setrlimit(RLIMIT_NPROC, &few);
	submit_all(MOST_CALLS);
	seen->workers = counter("self", "workers");
	seen->done = 1;
	pause();
}

TEST_F(limits, processes_of_a_user)
{
	pid_t child;

	ASSERT_EQ(0, put(LIMIT_FILE, "100000"));
	child = run(fill_up_few_processes);
	ASSERT_LT(0, child);
	while (goes_on(child))
		usleep(200);
	EXPECT_EQ(1, seen->done);
	EXPECT_GE(30, seen->workers);
	EXPECT_LE(20, seen->workers);
	EXPECT_GE(30, seen->submitted);
	EXPECT_LE(20, seen->submitted);
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
}

#define FILLERS	8

static void *submit_some(void *unused)
{
	submit_all(MOST_CALLS / FILLERS);
	return NULL;
}

static void fill_up_with_threads(void)
{
	pthread_t threads[FILLERS];
	int i;

	become_nobody();
	for (i = 0; i < FILLERS; i++)
		if (pthread_create(&threads[i], NULL, submit_some, NULL))
			_exit(7);
	for (i = 0; i < FILLERS; i++)
		pthread_join(threads[i], NULL);
	seen->done = 1;
	pause();
}

TEST_F(limits, calls_of_a_process)
{
	char name[16];
	pid_t child;

	ASSERT_EQ(0, put(LIMIT_FILE, "100"));
	child = run(fill_up_with_threads);
	ASSERT_LT(0, child);
	snprintf(name, sizeof(name), "%d", child);
	/* Of those that submit at the same moment each may get one more. */
	is_within(child, counter(name, "outstanding"), 100 + FILLERS - 1);
	EXPECT_LE(100, counter(name, "outstanding"));
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
}

/* --- others ------------------------------------------------------------------------------- */

static volatile bool over;

static void *submit_and_cancel(void *unused)
{
	long words[64] = { }, cookies[64] = { };
	const unsigned long args[6] = { fds[0], (unsigned long)&seen->bytes[0], 1 };
	unsigned int i = 0;

	while (!over) {
		if (cookies[i % 64] > 0)
			syscall(__NR_async_cancel, 0UL, cookies[i % 64]);
		cookies[i % 64] = syscall(__NR_async_submit,
					  i % 2 ? (unsigned long)ASYNC_SUBMIT_OFFLOAD : 0UL,
					  &words[i % 64], (long)__NR_read, args);
		i++;
		__atomic_fetch_add(&seen->submitted, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void make_a_noise(void)
{
	pthread_t thread;
	int i;

	become_nobody();
	for (i = 0; i < 7; i++)
		pthread_create(&thread, NULL, submit_and_cancel, NULL);
	submit_and_cancel(NULL);
}

static void *spin(void *unused)
{
	for (;;)
		__atomic_fetch_add(&seen->submitted, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void spin_in_threads(void)
{
	pthread_t thread;
	int i;

	become_nobody();
	for (i = 0; i < 7; i++)
		pthread_create(&thread, NULL, spin, NULL);
	spin(NULL);
}

/* How long 100 sleeps of a millisecond take, with a little to do in between. */
static long sleeps_ms(void)
{
	const struct timespec time = { .tv_nsec = 1000000 };
	long long begin = now_ms();
	volatile int work;
	int i;

	for (i = 0; i < 100; i++) {
		nanosleep(&time, NULL);
		for (work = 0; work < 10000; work++)
			;
	}
	return now_ms() - begin;
}

/* Somebody else is no worse off than beside as many threads that do nothing but run. */
TEST_F(limits, others_go_on)
{
	long beside_threads, beside_calls;
	pid_t child;

	child = run(spin_in_threads);
	ASSERT_LT(0, child);
	while (!__atomic_load_n(&seen->submitted, __ATOMIC_RELAXED))
		usleep(1000);
	beside_threads = sleeps_ms();
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));

	seen->submitted = 0;
	child = run(make_a_noise);
	ASSERT_LT(0, child);
	while (!__atomic_load_n(&seen->submitted, __ATOMIC_RELAXED))
		usleep(1000);
	beside_calls = sleeps_ms();
	TH_LOG("100 sleeps: %ld ms beside 8 threads, %ld ms beside %ld calls of as many",
	       beside_threads, beside_calls, seen->submitted);
	EXPECT_LT(100, seen->submitted);
	EXPECT_GE(4 * beside_threads + 1000, beside_calls);
	kill(child, SIGKILL);
	EXPECT_EQ(child, waitpid(child, NULL, 0));
}

/* --- addresses ---------------------------------------------------------------------------- */

static bool is_of_kernel(unsigned long value)
{
	/* Not an error code. */
	return value >= 0xffff800000000000UL && value < -4095UL;
}

/* Any number in a text, decimal or not. */
static bool tells_an_address(const char *text)
{
	char *end;

	while (*text) {
		unsigned long value;

		if (!strchr("0123456789abcdef", *text)) {
			text++;
			continue;
		}
		value = strtoul(text, &end, 16);
		if (end - text >= 16 && is_of_kernel(value))
			return true;
		value = strtoul(text, &end, 10);
		if (end > text && is_of_kernel(value))
			return true;
		while (*text && strchr("0123456789abcdefx", *text))
			text++;
	}
	return false;
}

static long addresses_in(const char *directory)
{
	static const char *const names[] = {
		"stat", "status", "syscall", "wchan", "sched", "schedstat", "statm", "maps",
		"stack", "async_submit", "children", "io", "limits", "timers",
	};
	static char text[65536];
	char path[512];
	long found = 0;
	unsigned int i;
	ssize_t length;
	int fd;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		length = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[length > 0 ? length : 0] = 0;
		/* The vsyscall page is where everybody knows; sets of signals are no addresses. */
		for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
			if (!strstr(line, "vsyscall") && strncmp(line, "Sig", 3) &&
			    strncmp(line, "Shd", 3) && tells_an_address(line)) {
				dprintf(STDOUT_FILENO, "# %s: %s\n", path, line);
				found++;
			}
	}
	return found;
}

static void look_around(void)
{
	struct dirent *entry;
	char path[300];
	long found = 0;
	DIR *tasks;
	int i;

	become_nobody();
	/* Its files in /proc are its own again. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	submit_all(50);
	for (i = 0; i < 50; i++)
		found += is_of_kernel(seen->words[i]);
	found += addresses_in("/proc/self");
	tasks = opendir("/proc/self/task");
	while (tasks && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%.20s", entry->d_name);
		found += addresses_in(path);
		seen->done++;
	}
	_exit(found > 100 ? 100 : found);
}

TEST_F(limits, no_address_is_told)
{
	int status = -1;
	pid_t child;

	ASSERT_TRUE(tells_an_address("a 0xffff888012345678 b"));
	ASSERT_TRUE(tells_an_address("18446744071578845184"));
	ASSERT_FALSE(tells_an_address("0x7fffffffe000 -1 0000000000000000 ffffffffffffffff"));
	child = run(look_around);
	ASSERT_LT(0, child);
	EXPECT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	/* It has seen its workers. */
	EXPECT_LE(50, seen->done);
}

TEST_HARNESS_MAIN
