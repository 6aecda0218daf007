/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A measured piece of a program: instructions where they are counted, nanoseconds elsewhere.
 * A program is told which by its first word. The two are never mixed: each row has its unit.
 */
#ifndef BENCH_SPAN_H
#define BENCH_SPAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "exact.h"

static bool span_exact;

struct span {
	struct exact_window window;
	uint64_t start_ns;
	uint64_t end_ns;
};

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static inline __attribute__((always_inline)) void span_begin(struct span *span)
{
	if (span_exact)
		exact_begin(&span->window);
	else
		span->start_ns = now_ns();
}

static inline __attribute__((always_inline)) void span_end(struct span *span)
{
	if (span_exact)
		exact_end(&span->window);
	else
		span->end_ns = now_ns();
}

static inline uint64_t span_value(const struct span *span)
{
	if (span_exact)
		return exact_value(&span->window);
	return span->end_ns - span->start_ns;
}

/* Of two spans that measure the same the one that cost less. */
static inline void span_keep_least(struct span *least, const struct span *seen, bool first)
{
	if (span_exact)
		exact_keep_least(&least->window, &seen->window, first);
	else if (first || span_value(seen) < span_value(least))
		*least = *seen;
}

static inline const char *span_unit(void)
{
	return span_exact ? EXACT_UNIT : "ns";
}

/* The first word of the command line; returns false where it is neither. */
static inline bool span_kind(const char *word)
{
	span_exact = !strcmp(word, "exact");
	if (span_exact)
		exact_ready();
	return span_exact || !strcmp(word, "timed");
}

#endif
