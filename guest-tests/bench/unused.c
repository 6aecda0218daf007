// SPDX-License-Identifier: GPL-2.0
/*
 * What those pay who never call async_submit(): a system call, a read, a switch from one process to
 * another and back, and a fork. For `rig exact --explain off async`.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 8

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void calls(void)
{
	int file = open("/tmp/byte", O_RDWR | O_CREAT, 0600);
	struct exact_window window;
	char byte = 'x';

	if (file < 0 || write(file, &byte, 1) != 1)
		fail("/tmp/byte");
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

/* A byte to another process and back: two switches. */
static void switches(void)
{
	int there[2], back[2];
	struct exact_window window;
	char byte = 'x';
	pid_t child;

	if (pipe(there) || pipe(back))
		fail("pipe");
	child = fork();
	if (!child) {
		close(there[1]);
		echo(there[0], back[1]);
	}
	close(there[0]);
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

int main(void)
{
	calls();
	switches();
	fork_alone();
	forks();
	return 0;
}
