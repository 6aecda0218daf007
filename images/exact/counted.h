/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The windows of exact.h where a CPU counts by itself (-DEXACT_COUNTED): instructions and cycles of
 * CPU 0, whoever runs on it, as the exact machine has them: the kernel's own threads and interrupts
 * are in them. It has to be the only one. What a reading itself takes is not in a window.
 */
#ifndef RIG_COUNTED_H
#define RIG_COUNTED_H

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXACT_UNIT		"counted instructions"
/* The exit code where there is nothing to count with. */
#define EXACT_NO_COUNTERS	77

/* How often nothing is measured, for what a reading takes. */
#define EXACT_NOTHINGS		64

/* What the kernel gives for both counters at once: PERF_FORMAT_GROUP. */
struct exact_reading {
	uint64_t counters;
	uint64_t instructions;
	uint64_t cycles;
};

struct exact_window {
	unsigned int number;
	uint64_t instructions;
	uint64_t cycles;
	struct exact_reading start;
};

static unsigned int exact_windows;
static int exact_counters = -1;
static struct exact_window exact_nothing;

static inline void exact_lost(void)
{
	fprintf(stderr, "no counters: somebody has taken them, another perf or a watchdog\n");
	exit(EXACT_NO_COUNTERS);
}

static inline int exact_counter(uint64_t which, int group)
{
	struct perf_event_attr wanted = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(wanted),
		.config = which,
		.read_format = PERF_FORMAT_GROUP,
		/* Always or never: a share of the time is no count. */
		.pinned = group < 0,
	};
	int counter = syscall(SYS_perf_event_open, &wanted, -1, 0, group, PERF_FLAG_FD_CLOEXEC);

	if (counter < 0) {
		fprintf(stderr, "no counters: perf_event_open(%s): %s\n",
			group < 0 ? "instructions" : "cycles", strerror(errno));
		exit(EXACT_NO_COUNTERS);
	}
	return counter;
}

/* Not read() of the C library, which does more in a process of several threads. */
static inline __attribute__((always_inline)) void exact_read(struct exact_reading *reading)
{
	if (syscall(SYS_read, exact_counters, reading, sizeof(*reading)) != sizeof(*reading))
		exact_lost();
}

static inline void exact_keep_least(struct exact_window *least, const struct exact_window *seen,
				    bool first);

static inline __attribute__((always_inline)) void exact_begin(struct exact_window *window);
static inline __attribute__((always_inline)) void exact_end(struct exact_window *window);

/*
 * What a reading takes, as this process is now: where its files are shared with another thread, the
 * kernel takes longer to find one.
 */
static inline void exact_settle(void)
{
	unsigned int windows = exact_windows;
	struct exact_window seen, least;

	exact_nothing = (struct exact_window){ 0 };
	for (int time = 0; time < EXACT_NOTHINGS; time++) {
		exact_begin(&seen);
		exact_end(&seen);
		exact_keep_least(&least, &seen, !time);
	}
	exact_nothing = least;
	exact_windows = windows;
}

/* Before the first window; a child has the counters of its parent. */
static inline void exact_ready(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct exact_reading first;

	if (exact_counters >= 0)
		return;
	if (cpus != 1) {
		fprintf(stderr, "no counters: there are %ld CPUs, and what runs on others than the first "
			"is not counted\n", cpus);
		exit(EXACT_NO_COUNTERS);
	}
	/* Both streams may be one: what comes on the other one must not come into a row. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	exact_counters = exact_counter(PERF_COUNT_HW_INSTRUCTIONS, -1);
	exact_counter(PERF_COUNT_HW_CPU_CYCLES, exact_counters);
	/* A pinned counter that does not fit beside those of others is at its end at once. */
	if (syscall(SYS_read, exact_counters, &first, sizeof(first)) != sizeof(first)) {
		fprintf(stderr, "no counters: all of them are in use, by a watchdog or another perf\n");
		exit(EXACT_NO_COUNTERS);
	}
	exact_settle();
}

static inline __attribute__((always_inline)) void exact_begin(struct exact_window *window)
{
	if (exact_counters < 0)
		exact_ready();
	window->number = ++exact_windows;
	exact_read(&window->start);
}

static inline uint64_t exact_beyond(uint64_t more, uint64_t nothing)
{
	return more > nothing ? more - nothing : 0;
}

static inline __attribute__((always_inline)) void exact_end(struct exact_window *window)
{
	struct exact_reading end;

	exact_read(&end);
	window->instructions = exact_beyond(end.instructions - window->start.instructions,
					    exact_nothing.instructions);
	window->cycles = exact_beyond(end.cycles - window->start.cycles, exact_nothing.cycles);
}

static inline uint64_t exact_value(const struct exact_window *window)
{
	return window->instructions;
}

/* Each by itself: an interrupt adds to both, a cache that was cold to the cycles alone. */
static inline void exact_keep_least(struct exact_window *least, const struct exact_window *seen,
				    bool first)
{
	uint64_t cycles = first || seen->cycles < least->cycles ? seen->cycles : least->cycles;

	if (first || seen->instructions < least->instructions)
		*least = *seen;
	least->cycles = cycles;
}

/* Further keys of a row. */
static inline void exact_print_more(const struct exact_window *window)
{
	printf(", \"cycles\": %llu", (unsigned long long)window->cycles);
}

/* One line of JSON on standard output: a measurement. */
static inline void exact_report(const char *name, const struct exact_window *window)
{
	printf("{\"name\": \"%s\", \"value\": %llu, \"unit\": \"" EXACT_UNIT "\", \"window\": %u",
	       name, (unsigned long long)exact_value(window), window->number);
	exact_print_more(window);
	printf("}\n");
}

/* Where an ext4 in memory is mounted, or NULL. */
static inline const char *exact_ext4(void)
{
	return getenv("EXACT_EXT4");
}

#endif
