// SPDX-License-Identifier: GPL-2.0
/*
 * What those pay who never call async_submit(): a system call, a read, a switch from one process to
 * another and back, and a fork. For `rig exact --explain off async`; with the word "timed" in
 * nanoseconds.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "span.h"

#define TIMES 8
/* What is timed: so many figures of so many rounds each, of which the median is shown. */
#define FIGURES 101

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int cached_byte(void)
{
	int file = open("/tmp/byte", O_RDWR | O_CREAT, 0600);
	char byte = 'x';

	if (file < 0 || write(file, &byte, 1) != 1)
		fail("/tmp/byte");
	return file;
}

static void calls(void)
{
	int file = cached_byte();
	struct exact_window window;
	char byte;

	for (int time = 0; time < TIMES; time++) {
		exact_begin(&window);
		syscall(SYS_getppid);
		exact_end(&window);
		exact_report("getppid", &window);
	}
	for (int time = 0; time < TIMES; time++) {
		exact_begin(&window);
		if (syscall(SYS_pread64, file, &byte, 1, 0) != 1)
			fail("pread");
		exact_end(&window);
		exact_report("pread", &window);
	}
	close(file);
}

static void echo(int from, int to)
{
	char byte;

	while (read(from, &byte, 1) == 1)
		if (write(to, &byte, 1) != 1)
			_exit(1);
	_exit(0);
}

static int there[2], back[2];

/* Another process, which sends every byte back. */
static pid_t partner(void)
{
	pid_t child;

	if (pipe(there) || pipe(back))
		fail("pipe");
	child = fork();
	if (child < 0)
		fail("fork");
	if (!child) {
		close(there[1]);
		echo(there[0], back[1]);
	}
	close(there[0]);
	return child;
}

/* A byte to another process and back: two switches. */
static void switches(void)
{
	struct exact_window window;
	char byte = 'x';
	pid_t child = partner();

	for (int time = 0; time < TIMES; time++) {
		exact_begin(&window);
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			fail("echo");
		exact_end(&window);
		exact_report("two context switches", &window);
	}
	close(there[1]);
	waitpid(child, NULL, 0);
}

/* The parent's part alone: the child runs later. */
static void fork_alone(void)
{
	struct exact_window window;
	pid_t child;

	for (int time = 0; time < TIMES; time++) {
		exact_begin(&window);
		child = syscall(SYS_fork);
		if (!child)
			_exit(0);
		exact_end(&window);
		if (waitpid(child, NULL, 0) != child)
			fail("fork");
		exact_report("fork", &window);
	}
}

/* Until the child has ended and was waited for: its exit is in the figure. */
static void forks(void)
{
	struct exact_window window;
	pid_t child;

	for (int time = 0; time < TIMES; time++) {
		exact_begin(&window);
		child = syscall(SYS_fork);
		if (!child)
			_exit(0);
		if (waitpid(child, NULL, 0) != child)
			fail("fork");
		exact_end(&window);
		exact_report("fork, exit, wait", &window);
	}
}

/* -- in nanoseconds -------------------------------------------------------------------------- */

static int file;

static void time_getppid(void)
{
	syscall(SYS_getppid);
}

static void time_pread(void)
{
	char byte;

	if (pread(file, &byte, 1, 0) != 1)
		fail("pread");
}

static void time_switches(void)
{
	char byte = 'x';

	if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
		fail("echo");
}

static void time_fork(void)
{
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	if (!child)
		_exit(0);
	if (waitpid(child, NULL, 0) != child)
		fail("fork");
}

static int by_size(const void *one, const void *other)
{
	uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;

	return left < right ? -1 : left > right;
}

static void show(const char *name, void (*call)(void), unsigned int rounds)
{
	static uint64_t taken[FIGURES];
	struct span span;

	for (int figure = -1; figure < FIGURES; figure++) {
		span_begin(&span);
		for (unsigned int round = 0; round < rounds; round++)
			call();
		span_end(&span);
		/* The first one warms up. */
		taken[figure < 0 ? 0 : figure] = span_value(&span);
	}
	qsort(taken, FIGURES, sizeof(*taken), by_size);
	printf("{\"name\": \"unused, %s\", \"value\": %lu, \"unit\": \"ns\", \"work\": \"unused\""
	       ", \"model\": \"%s\", \"outstanding\": 1, \"phase\": \"unused\", \"calls\": %u"
	       ", \"rounds\": %u}\n", name, taken[FIGURES / 2], name, rounds, FIGURES);
}

static void in_time(void)
{
	cpu_set_t first;
	pid_t child;

	/* Where both processes are on one CPU, a byte there and back is two switches. */
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		fail("sched_setaffinity");
	file = cached_byte();
	show("getppid", time_getppid, 2000);
	show("pread", time_pread, 1000);
	child = partner();
	show("two context switches", time_switches, 50);
	close(there[1]);
	waitpid(child, NULL, 0);
	show("fork, exit, wait", time_fork, 3);
}

int main(int argc, char **argv)
{
	if (argc > 1 && (argc > 2 || strcmp(argv[1], "timed"))) {
		fprintf(stderr, "usage: unused [timed]\n");
		return 2;
	}
	if (argc > 1) {
		in_time();
		return 0;
	}
	calls();
	switches();
	fork_alone();
	forks();
	return 0;
}
