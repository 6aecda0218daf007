// SPDX-License-Identifier: GPL-2.0
/* What a byte costs through a pipe: within a thread, and to another process and back. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 5

/* The other process: every byte back, until there will be none. */
static void echo(int from, int to)
{
	char byte;

	while (read(from, &byte, 1) == 1)
		if (write(to, &byte, 1) != 1)
			_exit(1);
	_exit(0);
}

static void within(void)
{
	struct exact_window window;
	int ends[2], i;
	char byte = 'x';

	if (pipe(ends))
		exit(1);
	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		if (write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
			exit(1);
		exact_end(&window);
		exact_report("pipe write+read", &window);
	}
}

static void there_and_back(void)
{
	struct exact_window window;
	int there[2], back[2], i;
	char byte = 'x';
	pid_t child;

	if (pipe(there) || pipe(back))
		exit(1);
	child = fork();
	if (child < 0)
		exit(1);
	if (!child) {
		close(there[1]);
		echo(there[0], back[1]);
	}
	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			exit(1);
		exact_end(&window);
		exact_report("pipe there and back", &window);
	}
	close(there[1]);
	if (waitpid(child, NULL, 0) != child)
		exit(1);
}

int main(void)
{
	within();
	there_and_back();
	return 0;
}
