// SPDX-License-Identifier: GPL-2.0
/*
 * What a call that is outstanding takes of memory: the stack it sleeps on, the task that sleeps
 * there, and all the rest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stress.h"
#include "../kselftest_harness.h"

#define CALLS		4000
#define MOST_BYTES	(24 * 1024)

static void write_to(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (file) {
		fputs(text, file);
		fclose(file);
	}
}

/* Bytes of all objects of a cache, with what is lost between them. */
static long of_cache(const char *name)
{
	long active, objects, size, per_slab, pages, slabs, bytes = -1;
	FILE *file = fopen("/proc/slabinfo", "r");
	char line[512], found[64];

	while (file && fgets(line, sizeof(line), file)) {
		char *data = strstr(line, "slabdata");

		if (sscanf(line, "%63s %ld %ld %ld %ld %ld", found, &active, &objects, &size,
			   &per_slab, &pages) != 6 || strcmp(found, name) || !data)
			continue;
		if (sscanf(data, "slabdata %ld %ld", &active, &slabs) == 2)
			bytes = slabs * pages * getpagesize();
	}
	if (file)
		fclose(file);
	return bytes;
}

struct use {
	long gone, counted, stacks, tasks;
};

/* What the kernel has for itself, in bytes. */
static long of_kernel(void)
{
	static const char *const names[] = { "Slab", "KernelStack", "PageTables", "Percpu" };
	long total = 0;
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		total += 1024 * number_in("/proc/meminfo", names[i]);
	return total;
}

static struct use used(void)
{
	write_to("/proc/sys/vm/drop_caches", "3");
	return (struct use){
		.gone = -1024 * number_in("/proc/meminfo", "MemFree"),
		.counted = of_kernel(),
		.stacks = 1024 * number_in("/proc/meminfo", "KernelStack"),
		.tasks = of_cache("task_struct"),
	};
}

static long words[CALLS];
static char bytes[CALLS];

TEST(reads_of_one_pipe)
{
	const struct rlimit processes = { 2 * CALLS, 2 * CALLS };
	struct use before, after;
	int fds[2], i;
	long each;

	if (!access("/proc/lockdep_stats", F_OK))
		SKIP(return, "of tasks without what a debugged kernel adds to them");
	ASSERT_LT(0, of_cache("task_struct"));
	setrlimit(RLIMIT_NPROC, &processes);
	ASSERT_EQ(0, pipe(fds));
	/* Memory of the program itself is not to be counted. */
	memset(words, 1, sizeof(words));
	memset(bytes, 1, sizeof(bytes));
	used();
	before = used();
	for (i = 0; i < CALLS; i++) {
		const unsigned long args[6] = { fds[0], (unsigned long)&bytes[i], 1 };

		ASSERT_LT(0, syscall(__NR_async_submit, 0UL, &words[i], (long)__NR_read, args))
			TH_LOG("call %d: errno %d", i, errno);
	}
	after = used();
	/* Pages come back meanwhile that had nothing to do with it, or go: the worse of the two. */
	each = (after.counted - before.counted) / CALLS;
	if (after.gone - before.gone > each * CALLS)
		each = (after.gone - before.gone) / CALLS;
	TH_LOG("bytes of each: %ld = stack %ld + task %ld + rest %ld", each,
	       (after.stacks - before.stacks) / CALLS, (after.tasks - before.tasks) / CALLS,
	       each - (after.stacks - before.stacks + after.tasks - before.tasks) / CALLS);
	/* It has to have been counted. */
	EXPECT_LE(8192, (after.stacks - before.stacks) / CALLS);
	EXPECT_GE(MOST_BYTES, each);

	for (i = 0; i < CALLS; i++)
		ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_EQ(0, syscall(__NR_wait_for_async, 0UL, 0L, NULL));
	for (i = 0; i < CALLS && words[i] == 1; i++)
		;
	EXPECT_EQ(CALLS, i);
}

TEST_HARNESS_MAIN
