/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Scenarios that print what a program can see of some calls, run by themselves: without the shim,
 * with calls that are dispatched and made directly, with asynchronous ones and with offloaded ones.
 * Every time the same has to be printed, and the same has to become of the process.
 *
 * The program runs itself again for each of them, with SAME_RUN=name in its environment.
 */
#ifndef SAME_H
#define SAME_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "report.h"
#include "../kselftest_harness.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	150

/* --- what a scenario is made of ----------------------------------------------------------- */

/* A system call without the C library's opinion of it: a value or a negative error. */
#define raw(nr, ...)							\
({									\
	long __value = syscall(nr, ##__VA_ARGS__);			\
									\
	__value == -1 ? -(long)errno : __value;				\
})

/* Prints an expression and its value. */
#define SHOW(expression)	show(#expression, (long)(expression))

static inline void show(const char *what, long value)
{
	/* In one piece: other threads and processes print as well. */
	dprintf(STDOUT_FILENO, "%s: %ld\n", what, value);
}

/* What has to hold for the scenario to mean anything. */
#define NEEDS(condition)						\
do {									\
	if (!(condition)) {						\
		dprintf(STDOUT_FILENO, "%s:%d: not %s (errno %d)\n",	\
			__FILE__, __LINE__, #condition, errno);		\
		_exit(99);						\
	}								\
} while (0)

static inline void doze(long ms)
{
	const struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* R, S, D, Z ... of a thread, 0 if there is none. */
static inline char state_of(pid_t pid, pid_t tid)
{
	char path[64], text[512], *end;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	end = strrchr(text, ')');
	return end ? end[2] : 0;
}

/* Sleeps, and not just for a moment: a call of it has come to where it waits. */
static inline void wait_until_asleep(pid_t pid, pid_t tid)
{
	int in_a_row = 0;
	char state;

	while (in_a_row < 5) {
		state = state_of(pid, tid);
		NEEDS(state && state != 'Z');
		in_a_row = state == 'S' || state == 'D' ? in_a_row + 1 : 0;
		doze(1);
	}
}

struct waker {
	pthread_t thread;
	pid_t tid;
	void (*act)(void *argument);
	void *argument;
};

static inline void *wake(void *given)
{
	struct waker *waker = given;
	sigset_t all;

	/* A signal for the process is the sleeper's, not that of who happens to run. */
	sigfillset(&all);
	NEEDS(!pthread_sigmask(SIG_BLOCK, &all, NULL));
	wait_until_asleep(getpid(), waker->tid);
	waker->act(waker->argument);
	return NULL;
}

/* Something to be done by another thread once this one is asleep. */
static inline void when_asleep(struct waker *waker, void (*act)(void *), void *argument)
{
	waker->tid = gettid();
	waker->act = act;
	waker->argument = argument;
	NEEDS(!pthread_create(&waker->thread, NULL, wake, waker));
}

static inline void is_done(struct waker *waker)
{
	NEEDS(!pthread_join(waker->thread, NULL));
}

/* Prints a call, and what it returns after something has been done while it sleeps. */
#define SHOW_WOKEN(act, argument, call)					\
do {									\
	struct waker __waker;						\
									\
	when_asleep(&__waker, act, (void *)(long)(argument));		\
	show(#call, (long)(call));					\
	is_done(&__waker);						\
} while (0)

/* A child that waits until its parent is asleep. */
static inline pid_t child_when_asleep(void)
{
	pid_t parent = getpid(), child = fork();

	NEEDS(child >= 0);
	if (!child)
		wait_until_asleep(parent, parent);
	return child;
}

/* --- how they are run --------------------------------------------------------------------- */

struct scenario {
	const char *name;
	long nr;
	void (*run)(void);
	struct scenario *next;
};

static struct scenario *scenarios;

/* Nothing that has to sleep. */
#define NOTHING	(-1)

/* Not a number of tries: the call must not sleep. */
#define AT_ONCE	0

/*
 * A scenario. nr is the system call that has to have been outstanding in it: with the shim, and
 * handed over unless it is offloaded.
 */
#define SAME(name, nr)	SAME_IN_TRIES(name, nr, 1)

/* On a busy host a disk may be done before it is waited for, but not each time. */
#define SAME_ON_DISK(name, nr)	SAME_IN_TRIES(name, nr, 8)

/*
 * One whose call could sleep, but finds what it wants, or is told not to wait for it: with the shim
 * it is complete when it is submitted, unless it is offloaded.
 */
#define SAME_AT_ONCE(name, nr)	SAME_IN_TRIES(name, nr, AT_ONCE)

#define SAME_IN_TRIES(name, nr, tries)					\
	static void name##_body(void);					\
	static struct scenario name##_scenario = { #name, nr, name##_body };	\
	static __attribute__((constructor)) void name##_is_one(void)	\
	{								\
		name##_scenario.next = scenarios;			\
		scenarios = &name##_scenario;				\
	}								\
	TEST(name)							\
	{								\
		const char *__trouble = is_same(#name, nr, tries);	\
									\
		EXPECT_EQ(NULL, __trouble)				\
			TH_LOG("%s", __trouble);			\
	}								\
	static void name##_body(void)

#define SEEN_SIZE	16384

/* Runs a scenario in a program of its own; what it printed, and its end, go to seen. */
static inline const char *run_as(const char *name, const char *mode, const char *report,
				 char seen[SEEN_SIZE])
{
	size_t length = 0;
	ssize_t got;
	int fds[2], status;
	pid_t child;

	if (pipe2(fds, O_CLOEXEC))
		return "no pipe";
	child = fork();
	if (child < 0)
		return "no child";
	if (!child) {
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		setenv("SAME_RUN", name, 1);
		if (mode) {
			setenv("ASYNC_SHIM", mode, 1);
			setenv("ASYNC_SHIM_REPORT", report, 1);
		}
		/* Not to outlive a test that has run out of time. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/proc/self/exe", name, NULL);
		_exit(98);
	}
	close(fds[1]);
	while ((got = read(fds[0], seen + length, SEEN_SIZE - 64 - length)) > 0)
		length += got;
	close(fds[0]);
	if (waitpid(child, &status, 0) != child)
		return "the child got lost";
	snprintf(seen + length, 64, "status: %#x\n", status);
	if (WIFEXITED(status) && WEXITSTATUS(status) > 90)
		return seen;
	return NULL;
}

static inline const char *read_report(const char *path, struct report *report)
{
	int fd = open(path, O_RDONLY);
	bool good = fd >= 0 && read(fd, report, sizeof(*report)) == sizeof(*report) &&
		    report->magic == REPORT_MAGIC;

	close(fd);
	return good ? NULL : "the shim has written no report";
}

/* Without it a scenario is the same, of course. */
static inline const char *is_at_work(const char *mode, const struct report *report)
{
	unsigned long submitted = 0, direct = 0;
	unsigned int nr;

	for (nr = 0; nr < REPORT_NUMBERS; nr++) {
		submitted += report->calls[nr].inlined + report->calls[nr].outstanding;
		direct += report->calls[nr].direct;
	}
	if (!report->programs)
		return "the shim was not loaded";
	if (!strcmp(mode, "direct") ? !direct || submitted : !submitted)
		return "calls were not made as they should have been";
	return NULL;
}

static inline const char *is_same(const char *name, long nr, int tries)
{
	static const char *const modes[] = { NULL, "direct", "async", "offload" };
	static char seen[2][SEEN_SIZE], text[3 * SEEN_SIZE];
	struct report report;
	const char *trouble;
	unsigned long slept;
	unsigned int i, n;
	int left = tries;
	bool all;

	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		char path[] = "/tmp/same.XXXXXX";
		int fd = mkstemp(path);

		if (fd < 0)
			return "no file for the report";
		close(fd);
		trouble = run_as(name, modes[i], path, seen[!!i]);
		if (!trouble && i)
			trouble = read_report(path, &report);
		if (!trouble && i)
			trouble = is_at_work(modes[i], &report);
		unlink(path);
		if (trouble) {
			snprintf(text, sizeof(text), "%s: %s", modes[i] ?: "without", trouble);
			return text;
		}
		if (!i)
			continue;
		if (strcmp(seen[0], seen[1])) {
			snprintf(text, sizeof(text), "without the shim:\n%s%s:\n%s", seen[0],
				 modes[i], seen[1]);
			return text;
		}
		if (nr == NOTHING || !strcmp(modes[i], "direct"))
			continue;
		if (tries == AT_ONCE) {
			bool offloaded = !strcmp(modes[i], "offload");

			if (offloaded ? report.calls[nr].outstanding :
			    report.calls[nr].inlined && !report.calls[nr].outstanding)
				continue;
			snprintf(text, sizeof(text), "%s: inline %lu times, outstanding %lu, direct %lu",
				 modes[i], report.calls[nr].inlined, report.calls[nr].outstanding,
				 report.calls[nr].direct);
			return text;
		}
		for (slept = 0, n = 0; n < REPORT_NUMBERS; n++)
			slept += report.calls[n].outstanding;
		/* All that slept were handed over: then this one was, too. */
		all = strcmp(modes[i], "async") ||
		      (report.handed_over >= slept && !report.fell_back);
		/* What it waits for was there before: the same once more, in this mode. */
		if (all && !report.calls[nr].outstanding && --left) {
			i--;
			continue;
		}
		left = tries;
		if (!all || !report.calls[nr].outstanding) {
			snprintf(text, sizeof(text),
				 "%s: outstanding %lu times, inline %lu, direct %lu; "
				 "of %lu that slept %lu were handed over, %lu fell back",
				 modes[i], report.calls[nr].outstanding, report.calls[nr].inlined,
				 report.calls[nr].direct, slept, report.handed_over,
				 report.fell_back);
			return text;
		}
	}
	return NULL;
}

/* How many system calls the scenarios of this program are about. */
static inline int calls_compared(void)
{
	bool seen[REPORT_NUMBERS] = { };
	struct scenario *one;
	int count = 0;

	for (one = scenarios; one; one = one->next)
		if (one->nr != NOTHING && !seen[one->nr]) {
			seen[one->nr] = true;
			count++;
		}
	return count;
}

/* Runs the scenario that is asked for, if one is. */
static inline void run_scenario(void)
{
	const char *name = getenv("SAME_RUN");
	struct scenario *one;

	if (!name)
		return;
	for (one = scenarios; one; one = one->next)
		if (!strcmp(one->name, name)) {
			one->run();
			exit(0);
		}
	exit(97);
}

#define SAME_MAIN							\
	int main(int argc, char **argv)					\
	{								\
		run_scenario();						\
		return test_harness_run(argc, argv);			\
	}

#endif
