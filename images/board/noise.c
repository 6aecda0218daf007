// SPDX-License-Identifier: GPL-2.0
/*
 * How even a board's time is: the same piece of work, again and again, on each CPU that there is,
 * one after another. Whatever makes one piece longer than another is not ours: interrupts, the
 * kernel's own threads, firmware (SMIs), a clock rate that moves, a neighbour on the same core.
 *
 * A line of JSON a CPU (rig/rows.py): the time of all pieces, how many those were, of how many steps
 * each, and percentiles.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE_NS 50000ULL
#define CPU_NS 500000000ULL
#define MOST 20000
#define LEAST 20
#define MOST_CPUS 4096

static uint64_t took[MOST];

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	if (clock_gettime(CLOCK_MONOTONIC_RAW, &now))
		fail("clock_gettime");
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* Each step needs what the one before it gave, so it costs what it costs, and no memory is met. */
static uint64_t piece(uint64_t steps)
{
	static volatile uint64_t kept = 1;
	uint64_t value = kept;
	uint64_t began = now_ns();

	for (uint64_t step = 0; step < steps; step++)
		value = value * 6364136223846793005ULL + 1442695040888963407ULL;
	kept = value;
	return now_ns() - began;
}

/* How many steps are a piece; of several tries the fastest, the others were held up. */
static uint64_t steps_of_a_piece(void)
{
	const uint64_t tried = 10000;
	uint64_t least = UINT64_MAX;

	for (int try = 0; try < 50; try++) {
		uint64_t seen = piece(tried);

		least = seen < least ? seen : least;
	}
	if (!least)
		least = 1;
	return tried * PIECE_NS / least + 1;
}

static int longer(const void *one, const void *other)
{
	uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

	return (a > b) - (a < b);
}

static uint64_t percentile(int pieces, int percent)
{
	return took[(pieces - 1) * percent / 100];
}

static void go_to(int cpu)
{
	cpu_set_t *only = CPU_ALLOC(MOST_CPUS);
	size_t size = CPU_ALLOC_SIZE(MOST_CPUS);

	if (!only)
		fail("CPU_ALLOC");
	CPU_ZERO_S(size, only);
	CPU_SET_S(cpu, size, only);
	if (sched_setaffinity(0, size, only))
		fail("sched_setaffinity");
	CPU_FREE(only);
}

static void measure(int cpu, uint64_t steps)
{
	uint64_t until, total = 0;
	int pieces = 0;

	go_to(cpu);
	piece(steps); /* the caches, and the way here */
	until = now_ns() + CPU_NS;
	while (pieces < MOST && (pieces < LEAST || now_ns() < until))
		total += took[pieces++] = piece(steps);
	qsort(took, pieces, sizeof(*took), longer);
	printf("{\"name\": \"noise, CPU %d\", \"unit\": \"ns\", \"value\": %" PRIu64, cpu, total);
	printf(", \"rounds\": %d, \"calls\": %" PRIu64, pieces, pieces * steps);
	printf(", \"percentiles\": {\"1\": %" PRIu64 ", \"50\": %" PRIu64, percentile(pieces, 1),
	       percentile(pieces, 50));
	printf(", \"95\": %" PRIu64 ", \"100\": %" PRIu64 "}}\n", percentile(pieces, 95),
	       percentile(pieces, 100));
}

int main(void)
{
	/* Those that are kept for nothing else (isolcpus=) are not among what we may run on by itself. */
	FILE *online = fopen("/sys/devices/system/cpu/online", "r");
	uint64_t steps = steps_of_a_piece();
	int first, last;

	if (!online)
		fail("/sys/devices/system/cpu/online");
	while (fscanf(online, "%d", &first) == 1) {
		if (fscanf(online, "-%d", &last) != 1)
			last = first;
		for (int cpu = first; cpu <= last && cpu < MOST_CPUS; cpu++)
			measure(cpu, steps);
		if (fgetc(online) != ',')
			break;
	}
	fclose(online);
	if (fflush(stdout))
		fail("standard output");
	return 0;
}
