// SPDX-License-Identifier: GPL-2.0
/*
 * What a system call costs its submitter that sleeps: from the submission until user space has the
 * cookie; beside it what a thread pool costs, a mutex and a condition variable there and back.
 * Every figure has the clock's own share in it.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "async.h"
#include "exact.h"

#define TIMES	5
#define MANY	4000
#define ENDS	100	/* of the many, how many are shown at either end */
#define SLEEPS	1000

static int ends[2];
static char bytes[MANY];
static long results[MANY];
static struct exact_window windows[MANY];

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* Submit a read of the empty pipe. */
static void submit(int at)
{
	const unsigned long args[6] = { ends[0], (unsigned long)&bytes[at], 1 };
	long cookie;

	exact_begin(&windows[at]);
	cookie = syscall(SYS_async_submit, 0, &results[at], SYS_read, args);
	exact_end(&windows[at]);
	if (cookie <= 0)
		fail("the read did not sleep");
}

/* Let `count` reads end. */
static void finish(int count)
{
	static const char zeros[MANY];

	if (write(ends[1], zeros, count) != count || syscall(SYS_wait_for_async, 0, 0, NULL))
		fail("the reads did not end");
	for (int at = 0; at < count; at++)
		if (results[at] != 1)
			fail("a read has no value");
}

/* Calls that sleep, one at a time, on workers that are there. */
static void *one_by_one(void *name)
{
	long before = async_counter("handed_over");

	submit(0);
	finish(1);
	for (int time = 0; time < TIMES; time++) {
		submit(0);
		finish(1);
		exact_report(name, &windows[0]);
	}
	if (async_counter("handed_over") != before + TIMES + 1)
		fail("a call was not handed over");
	return NULL;
}

static void cold(void)
{
	for (int at = 0; at < 10 + TIMES; at++)
		submit(at);
	for (int at = 10; at < 10 + TIMES; at++)
		exact_report("read that sleeps, new worker", &windows[at]);
	finish(10 + TIMES);
}

/* The pool has as many workers from one round before. */
static void many(void)
{
	for (int round = 0; round < 2; round++) {
		for (int at = 0; at < MANY; at++)
			submit(at);
		finish(MANY);
	}
	for (int at = 0; at < ENDS; at++)
		exact_report("read that sleeps, first of 4000", &windows[at]);
	for (int at = MANY - ENDS; at < MANY; at++)
		exact_report("read that sleeps, last of 4000", &windows[at]);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static int whose;

static void pass(int from, int to)
{
	pthread_mutex_lock(&mutex);
	while (whose != from)
		pthread_cond_wait(&turn, &mutex);
	whose = to;
	pthread_cond_broadcast(&turn);
	pthread_mutex_unlock(&mutex);
}

static void *other(void *argument)
{
	for (int time = 0; time < TIMES + 1; time++)
		pass(1, 0);
	return argument;
}

static void thread_pool(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, other, NULL))
		fail("pthread_create");
	pass(0, 1);
	exact_settle();
	for (int time = 0; time < TIMES; time++) {
		struct exact_window window;

		pthread_mutex_lock(&mutex);
		while (whose)
			pthread_cond_wait(&turn, &mutex);
		pthread_mutex_unlock(&mutex);
		exact_begin(&window);
		pass(0, 1);
		pthread_mutex_lock(&mutex);
		while (whose)
			pthread_cond_wait(&turn, &mutex);
		pthread_mutex_unlock(&mutex);
		exact_end(&window);
		exact_report("mutex and condition, there and back", &window);
	}
	pthread_join(thread, NULL);
}

/* The same sleep once, then many at a time, from this one thread. */
static void sleeps(void)
{
	const struct timespec tenth = { .tv_nsec = 100000000 };
	const unsigned long args[6] = { CLOCK_MONOTONIC, 0, (unsigned long)&tenth, 0 };
	struct exact_window window;

	exact_begin(&window);
	clock_nanosleep(CLOCK_MONOTONIC, 0, &tenth, NULL);
	exact_end(&window);
	exact_report("one sleep of 100 ms", &window);

	exact_begin(&window);
	for (int at = 0; at < SLEEPS; at++)
		if (syscall(SYS_async_submit, 0, &results[at], SYS_clock_nanosleep, args) <= 0)
			fail("no sleep");
	if (syscall(SYS_wait_for_async, 0, 0, NULL))
		fail("the sleeps did not end");
	exact_end(&window);
	for (int at = 0; at < SLEEPS; at++)
		if (results[at])
			fail("a sleep failed");
	exact_report("1000 sleeps of 100 ms", &window);
}

/* A machine of little memory would not have so many threads. */
static void allow_threads(void)
{
	const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	FILE *file = fopen("/proc/sys/kernel/threads-max", "w");

	if (!file || fprintf(file, "%d", 2 * MANY) < 0 || fclose(file) ||
	    setrlimit(RLIMIT_NPROC, &none))
		fail("threads-max");
}

int main(void)
{
	pthread_t thread;

	allow_threads();
	if (pipe(ends))
		fail("pipe");
	one_by_one("read that sleeps, main thread");
	if (pthread_create(&thread, NULL, one_by_one, "read that sleeps, other thread"))
		fail("pthread_create");
	pthread_join(thread, NULL);
	cold();
	thread_pool();
	many();
	sleeps();
	async_show();
	return 0;
}
