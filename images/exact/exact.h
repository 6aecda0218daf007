/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a program on the exact machine can use: its clock, and windows for `rig exact --explain`.
 *
 * On that machine the time stamp counter advances by one with every instruction that any CPU
 * executes, and jumps to the next timer while all of them sleep. So a difference of two readings
 * is a number of instructions (with what was slept, if anything slept), and never a time.
 *
 * With -DEXACT_COUNTED the same windows are of a machine whose CPU counts: counted.h.
 */
#ifndef RIG_EXACT_H
#define RIG_EXACT_H

#include <stdint.h>
#include <stdio.h>

#ifdef EXACT_COUNTED
#include "counted.h"
#else

#include <stdbool.h>
#include <unistd.h>

#define EXACT_UNIT "instructions"

/*
 * A mark is a long no-operation whose displacement spells "RIG" and a kind: a CPU does nothing for
 * it, and the plugin finds it when QEMU translates the code. The counter is read by the very next
 * instruction, so that between two marks the plugin counts exactly what two readings differ by.
 */
#define EXACT_MARK(kind) ".byte 0x0f, 0x1f, 0x84, 0x00\n\t.long 0x52494700 + " #kind "\n\t"

#define EXACT_READ(mark)                                                      \
	({                                                                    \
		uint32_t low, high;                                           \
									      \
		asm volatile(mark "rdtsc" : "=a"(low), "=d"(high) : : "memory"); \
		(uint64_t)high << 32 | low;                                   \
	})

/*
 * One measured piece of a program. Windows are numbered from 1 in the order they begin, and one
 * must end before the next begins; what other threads and the kernel do meanwhile is inside.
 */
struct exact_window {
	unsigned int number;
	uint64_t start;
	uint64_t end;
};

static unsigned int exact_windows;

/* The machine's clock. */
static inline uint64_t exact_clock(void)
{
	return EXACT_READ("");
}

static inline __attribute__((always_inline)) void exact_begin(struct exact_window *window)
{
	window->number = ++exact_windows;
	window->start = EXACT_READ(EXACT_MARK(1));
}

static inline __attribute__((always_inline)) void exact_end(struct exact_window *window)
{
	window->end = EXACT_READ(EXACT_MARK(2));
}

static inline uint64_t exact_value(const struct exact_window *window)
{
	return window->end - window->start;
}

/* Of two windows that measure the same the one that cost less. */
static inline void exact_keep_least(struct exact_window *least, const struct exact_window *seen,
				    bool first)
{
	if (first || exact_value(seen) < exact_value(least))
		*least = *seen;
}

/* Before the first window, if that must not be what finds out whether there can be any. */
static inline void exact_ready(void)
{
}

/* Where a process has become one of several threads. */
static inline void exact_settle(void)
{
}

/* Further keys of a row. */
static inline void exact_print_more(const struct exact_window *window)
{
	(void)window;
}

/* Where an ext4 in memory is mounted, or NULL. */
static inline const char *exact_ext4(void)
{
	return access("/ext4", F_OK) ? NULL : "/ext4";
}

/* One line of JSON on standard output: a measurement, as `rig exact` reads it. */
static inline void exact_report(const char *name, const struct exact_window *window)
{
	printf("{\"name\": \"%s\", \"value\": %llu, \"unit\": \"" EXACT_UNIT "\", \"window\": %u}\n",
	       name, (unsigned long long)exact_value(window), window->number);
}

#endif

#endif
