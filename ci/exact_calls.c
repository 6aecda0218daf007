// SPDX-License-Identifier: GPL-2.0
/*
 * The calls whose cost must come out the same on every run of the exact machine:
 * exact_calls fork|pthread|pipe|file. Each is done some times, and each time is a measurement.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 5

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

static void fork_and_wait(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	check(child > 0 && waitpid(child, NULL, 0) == child, "fork");
}

static void *nothing(void *unused)
{
	return unused;
}

static void thread_and_join(void)
{
	pthread_t thread;

	check(!pthread_create(&thread, NULL, nothing, NULL) && !pthread_join(thread, NULL),
	      "pthread");
}

static void through_a_pipe(void)
{
	char byte = 'x';
	int ends[2];

	check(!pipe(ends) && write(ends[1], &byte, 1) == 1 && read(ends[0], &byte, 1) == 1, "pipe");
	check(!close(ends[0]) && !close(ends[1]), "close");
}

static void new_file(void)
{
	int fd = open("exact-calls.tmp", O_CREAT | O_EXCL | O_WRONLY, 0600);

	check(fd >= 0 && write(fd, "hello", 5) == 5 && !close(fd), "file");
	check(!unlink("exact-calls.tmp"), "unlink");
}

static const struct {
	const char *name;
	void (*call)(void);
} calls[] = {
	{ "fork", fork_and_wait },
	{ "pthread", thread_and_join },
	{ "pipe", through_a_pipe },
	{ "file", new_file },
};

int main(int argc, char **argv)
{
	struct exact_window window;

	for (unsigned int i = 0; argc == 2 && i < sizeof(calls) / sizeof(*calls); i++) {
		if (strcmp(argv[1], calls[i].name))
			continue;
		for (int time = 0; time < TIMES; time++) {
			exact_begin(&window);
			calls[i].call();
			exact_end(&window);
			exact_report(calls[i].name, &window);
		}
		return 0;
	}
	fprintf(stderr, "usage: %s fork|pthread|pipe|file\n", argv[0]);
	return 2;
}
