/* SPDX-License-Identifier: GPL-2.0 */
/* async_submit() for benchmarks: its numbers, and which way the calls went. */
#ifndef BENCH_ASYNC_H
#define BENCH_ASYNC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/async_submit.h>

#define SYS_async_submit	548
#define SYS_wait_for_async	549
#define SYS_async_cancel	550

/* A line of /proc/self/async_submit. */
static inline long async_counter(const char *name)
{
	FILE *file = fopen("/proc/self/async_submit", "r");
	char line[128];
	long value = -1;

	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = '\0';
		if (!strcmp(line, name))
			value = atol(colon + 1);
	}
	if (file)
		fclose(file);
	if (value < 0) {
		fprintf(stderr, "/proc/self/async_submit has no %s\n", name);
		exit(1);
	}
	return value;
}

/* All of it, on standard error. */
static inline void async_show(void)
{
	FILE *file = fopen("/proc/self/async_submit", "r");
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		fputs(line, stderr);
	if (file)
		fclose(file);
}

#endif
