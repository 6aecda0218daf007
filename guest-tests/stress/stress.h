/* SPDX-License-Identifier: GPL-2.0 */
/* What the programs of this suite share. */
#ifndef STRESS_H
#define STRESS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include <linux/async_submit.h>

#ifndef __NR_async_submit
#define __NR_async_submit	548
#define __NR_wait_for_async	549
#define __NR_async_cancel	550
#endif

/* Whoever has the rights of nobody. */
#define NOBODY		65534

static inline long long now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* The number in a line "name: number" of a file, -1 if there is none. */
static inline long number_in(const char *path, const char *name)
{
	size_t length = strlen(name);
	FILE *file = fopen(path, "r");
	char line[256];
	long value = -1;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && line[length] == ':')
			value = atol(line + length + 1);
	if (file)
		fclose(file);
	return value;
}

#endif
