// SPDX-License-Identifier: GPL-2.0
/*
 * What a system call costs by each model: to submit, to complete, and as a whole, with 1, 8, 64 and
 * 1024 of them outstanding.
 *
 *   models exact WORK [MODEL...]	instructions, on the exact machine
 *   models timed WORK [MODEL...]	nanoseconds, with percentiles
 *   models memory WORK			bytes that each call takes while it waits
 *   models threads N WORK [MODEL...]	calls a second of N threads that each submit
 *
 * Each figure has a process of its own, so that no model finds another one's threads. A line of
 * output is a row: JSON, with what /proc/self/async_submit counted meanwhile.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "span.h"
#include "model.h"
#include "model_aio.h"
#include "model_call.h"
#include "model_pool.h"
#include "model_ring.h"
#include "work.h"

#define WARM		2
#define EXACT_ROUNDS	3
#define TIMED_NS	120000000ULL	/* for the rounds of one figure */
#define TIMED_ROUNDS	2000
#define LEAST_ROUNDS	7
#define MEMORY_CALLS	1000
#define SETTLE_TIMES	50
#define SCALE_CALLS	64
#define SCALE_ROUNDS	100
#define COUNTERS	32
#define THREADS_MOST	64

static const struct model *const models[] = {
	&direct, &async_inline, &async_offload, &ring_single, &ring_batch, &ring_defer, &ring_async,
	&linux_aio, &posix_aio, &thread_pool,
};

static const unsigned int counts[] = { 1, 8, 64, 1024 };

enum phase { SUBMIT, COMPLETE, CALL, PHASES };

static const char *const phases[] = { "submit", "complete", "call" };

static struct call calls[MOST];

/* What the children share with their parent: how many windows there were. */
static unsigned int *windows;

/* -- which way the calls went ---------------------------------------------------------------- */

struct counter {
	char name[48];
	long value;
};

static unsigned int read_counters(struct counter *found)
{
	FILE *file = fopen("/proc/self/async_submit", "r");
	unsigned int count = 0;

	while (file && count < COUNTERS &&
	       fscanf(file, " %47[^:]: %ld", found[count].name, &found[count].value) == 2)
		count++;
	if (file)
		fclose(file);
	return count;
}

static void print_paths(const struct counter *before, unsigned int count)
{
	struct counter after[COUNTERS];
	const char *comma = "";

	if (read_counters(after) != count)
		fail("/proc/self/async_submit");
	printf(", \"paths\": {");
	for (unsigned int at = 0; at < count; at++) {
		if (after[at].value == before[at].value || !strcmp(after[at].name, "workers"))
			continue;
		printf("%s\"%s\": %ld", comma, after[at].name, after[at].value - before[at].value);
		comma = ", ";
	}
	printf("}");
}

/* -- rows ------------------------------------------------------------------------------------ */

struct cell {
	const struct work *work;
	const struct model *model;
	unsigned int count;
};

static void print_head(const struct cell *cell, const char *what, long value, const char *unit)
{
	printf("{\"name\": \"%s, %s, %u: %s\", \"value\": %ld, \"unit\": \"%s\"",
	       cell->work->name, cell->model->name, cell->count, what, value, unit);
	printf(", \"work\": \"%s\", \"model\": \"%s\", \"outstanding\": %u, \"phase\": \"%s\"",
	       cell->work->name, cell->model->name, cell->count, what);
}

static void check(const struct cell *cell)
{
	for (unsigned int at = 0; at < cell->count; at++) {
		long value = calls[at].value;

		/* io_uring's time-out says that it came to its end. */
		if (cell->work->op == OP_SLEEP && value == -ETIME)
			continue;
		if (value >= cell->work->good)
			continue;
		fprintf(stderr, "%s by %s: a call came to %ld\n", cell->work->name,
			cell->model->name, value);
		exit(1);
	}
}

/* One round: what happened in the spans of it that are asked for. */
static void go_round(const struct cell *cell, bool whole, struct span spans[PHASES])
{
	const struct work *work = cell->work;
	const struct model *model = cell->model;

	for (unsigned int at = 0; at < cell->count; at++) {
		memset(&calls[at], 0, sizeof(calls[at]));
		calls[at].op = work->op;
		work->prepare(&calls[at], at);
	}
	work->before(calls, cell->count);
	if (whole) {
		span_begin(&spans[CALL]);
		model->submit(calls, cell->count);
		work->release(cell->count);
		model->complete(calls, cell->count);
		span_end(&spans[CALL]);
	} else {
		span_begin(&spans[SUBMIT]);
		model->submit(calls, cell->count);
		span_end(&spans[SUBMIT]);
		work->release(cell->count);
		span_begin(&spans[COMPLETE]);
		model->complete(calls, cell->count);
		span_end(&spans[COMPLETE]);
	}
	check(cell);
	work->after(calls, cell->count);
}

/* -- instructions ---------------------------------------------------------------------------- */

/* The least of a few rounds: a tick of the clock's costs some thousand, and comes into some. */
static void measure_exact(const struct cell *cell)
{
	unsigned int warm = cell->count < MOST ? WARM : 1;
	unsigned int rounds = cell->count < MOST ? EXACT_ROUNDS : 1;
	struct span seen[PHASES], least[PHASES];
	struct counter before[COUNTERS];
	unsigned int known;

	for (unsigned int at = 0; at < warm; at++)
		go_round(cell, at % 2, seen);
	exact_settle();
	known = read_counters(before);
	for (unsigned int at = 0; at < rounds; at++) {
		go_round(cell, false, seen);
		go_round(cell, true, seen);
		for (int phase = 0; phase < PHASES; phase++)
			span_keep_least(&least[phase], &seen[phase], !at);
	}
	for (int phase = 0; phase < PHASES; phase++) {
		/* What is slept is in it, and is no number of instructions. */
		if (cell->work->sleeps && phase != SUBMIT)
			continue;
		print_head(cell, phases[phase], span_value(&least[phase]), EXACT_UNIT);
		printf(", \"calls\": %u, \"window\": %u", cell->count, least[phase].window.number);
		exact_print_more(&least[phase].window);
		print_paths(before, known);
		printf("}\n");
	}
}

/* -- nanoseconds ----------------------------------------------------------------------------- */

static int by_size(const void *one, const void *other)
{
	uint64_t left = *(const uint64_t *)one, right = *(const uint64_t *)other;

	return left < right ? -1 : left > right;
}

static uint64_t percentile(const uint64_t *sorted, unsigned int count, unsigned int per_mille)
{
	unsigned long at = (unsigned long)count * per_mille / 1000;

	return sorted[at < count ? at : count - 1];
}

static void print_timed(const struct cell *cell, int phase, uint64_t *taken, unsigned int rounds,
			const struct counter *before, unsigned int known)
{
	qsort(taken, rounds, sizeof(*taken), by_size);
	print_head(cell, phases[phase], percentile(taken, rounds, 500), "ns");
	printf(", \"calls\": %u, \"rounds\": %u, \"percentiles\": {\"50\": %lu, \"90\": %lu"
	       ", \"99\": %lu, \"99.9\": %lu}", cell->count, rounds,
	       percentile(taken, rounds, 500), percentile(taken, rounds, 900),
	       percentile(taken, rounds, 990), percentile(taken, rounds, 999));
	print_paths(before, known);
	printf("}\n");
}

static void measure_timed(const struct cell *cell)
{
	static uint64_t taken[PHASES][TIMED_ROUNDS];
	struct span seen[PHASES];
	struct counter before[COUNTERS];
	unsigned int known, rounds = 0;
	uint64_t start;

	for (unsigned int at = 0; at < WARM; at++)
		go_round(cell, at % 2, seen);
	known = read_counters(before);
	for (start = now_ns(); rounds < TIMED_ROUNDS; rounds++) {
		if (rounds >= LEAST_ROUNDS && now_ns() - start > TIMED_NS)
			break;
		go_round(cell, false, seen);
		go_round(cell, true, seen);
		for (int phase = 0; phase < PHASES; phase++)
			taken[phase][rounds] = span_value(&seen[phase]);
	}
	for (int phase = 0; phase < PHASES; phase++)
		print_timed(cell, phase, taken[phase], rounds, before, known);
}

/* -- bytes ----------------------------------------------------------------------------------- */

/* What is counted for calls that wait: the parts of it in bytes. */
struct memory {
	long stack, task, slab, tables, percpu, anonymous;
};

/* KiB in a line of /proc/meminfo, as bytes. */
static long in_meminfo(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128], found[64];
	long kib = -1, value;

	while (file && kib < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63[^:]: %ld", found, &value) == 2 && !strcmp(found, name))
			kib = value;
	if (!file || kib < 0)
		fail(name);
	fclose(file);
	return kib * 1024;
}

/* All objects of a cache, with what is lost between them. */
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
	if (!file || bytes < 0)
		fail("/proc/slabinfo");
	fclose(file);
	return bytes;
}

static struct memory read_memory(void)
{
	return (struct memory){
		.stack = in_meminfo("KernelStack"),
		.task = of_cache("task_struct"),
		.slab = in_meminfo("Slab"),
		.tables = in_meminfo("PageTables"),
		.percpu = in_meminfo("Percpu"),
		.anonymous = in_meminfo("AnonPages"),
	};
}

/* What others gave back comes late: once it is the same twice, a tenth of a second apart. */
static struct memory settled(void)
{
	struct timespec tenth = { .tv_nsec = 100000000 };
	struct memory now = read_memory(), before;

	for (int times = 0; times < SETTLE_TIMES; times++) {
		before = now;
		nanosleep(&tenth, NULL);
		now = read_memory();
		if (!memcmp(&now, &before, sizeof(now)))
			return now;
	}
	fprintf(stderr, "memory does not come to rest\n");
	exit(1);
}

static void print_bytes(const struct cell *cell, const char *what, long bytes)
{
	print_head(cell, what, bytes, "bytes");
	printf(", \"calls\": %u}\n", cell->count);
}

/* From before the model has anything until all of its calls sleep. */
static void measure_memory(const struct cell *cell, const struct memory *before)
{
	long stack, task, rest;
	struct memory then;

	for (unsigned int at = 0; at < cell->count; at++) {
		calls[at].op = cell->work->op;
		cell->work->prepare(&calls[at], at);
	}
	cell->model->submit(calls, cell->count);
	then = settled();
	cell->work->release(cell->count);
	cell->model->complete(calls, cell->count);
	check(cell);
	/* The sum of what is counted: pages that CPUs keep for themselves are not free, nor used. */
	stack = then.stack - before->stack;
	task = then.task - before->task;
	rest = then.slab - before->slab - task + then.tables - before->tables +
	       then.percpu - before->percpu + then.anonymous - before->anonymous;
	if (stack < 0 || task < 0 || rest < 0) {
		fprintf(stderr, "stack %ld, task %ld, rest %ld bytes: less than before\n", stack,
			task, rest);
		exit(1);
	}
	print_bytes(cell, "bytes, stack", stack);
	print_bytes(cell, "bytes, task", task);
	print_bytes(cell, "bytes, rest", rest);
	print_bytes(cell, "bytes", stack + task + rest);
}

/* -- several that submit --------------------------------------------------------------------- */

static struct {
	const struct cell *cell;
	pthread_barrier_t ready;
	unsigned int threads;
} scale;

static void *submitter(void *argument)
{
	struct call *own = calloc(scale.cell->count, sizeof(*own));
	const struct cell *cell = scale.cell;

	if (!own)
		fail("calloc");
	cell->model->open(cell->count, 0);
	for (int round = -WARM; round < SCALE_ROUNDS; round++) {
		if (!round)
			pthread_barrier_wait(&scale.ready);
		for (unsigned int at = 0; at < cell->count; at++) {
			own[at].op = cell->work->op;
			cell->work->prepare(&own[at], at);
		}
		cell->model->submit(own, cell->count);
		cell->model->complete(own, cell->count);
	}
	pthread_barrier_wait(&scale.ready);
	cell->model->close();
	free(own);
	return argument;
}

static void measure_threads(const struct cell *cell)
{
	pthread_t ids[THREADS_MOST];
	struct counter before[COUNTERS];
	unsigned int known = read_counters(before);
	uint64_t start, end;
	double each;

	scale.cell = cell;
	pthread_barrier_init(&scale.ready, NULL, scale.threads + 1);
	for (unsigned int at = 0; at < scale.threads; at++) {
		errno = pthread_create(&ids[at], NULL, submitter, NULL);
		if (errno)
			fail("pthread_create");
	}
	pthread_barrier_wait(&scale.ready);
	start = now_ns();
	pthread_barrier_wait(&scale.ready);
	end = now_ns();
	for (unsigned int at = 0; at < scale.threads; at++)
		pthread_join(ids[at], NULL);
	each = (double)scale.threads * cell->count * SCALE_ROUNDS;
	print_head(cell, "throughput", (long)(each * 1e9 / (end - start)), "calls/s");
	printf(", \"threads\": %u", scale.threads);
	print_paths(before, known);
	printf("}\n");
}

/* -- one process for each figure ------------------------------------------------------------- */

enum what { COSTS, MEMORY, THREADS };

static void allow(int resource)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit))
		fail("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(resource, &limit))
		fail("setrlimit");
}

/* A machine of little memory would not have so many threads, nor a process so many files. */
static void allow_many(void)
{
	FILE *file = fopen("/proc/sys/kernel/threads-max", "r+");
	int most = 0;

	if (!file || fscanf(file, "%d", &most) != 1)
		fail("threads-max");
	rewind(file);
	if (most < 8 * MOST && fprintf(file, "%d", 8 * MOST) < 0)
		fail("threads-max");
	if (fclose(file))
		fail("threads-max");
	allow(RLIMIT_NPROC);
	allow(RLIMIT_NOFILE);
}

static void measure(const struct cell *cell, enum what what)
{
	bool sleepy = cell->work->waits || cell->work->sleeps;
	struct memory before = { 0 };

	cell->work->open();
	if (what == THREADS) {
		measure_threads(cell);
		return;
	}
	if (what == MEMORY)
		before = settled();
	cell->model->open(cell->count, sleepy ? cell->count : 0);
	if (what == MEMORY)
		measure_memory(cell, &before);
	else if (span_exact)
		measure_exact(cell);
	else
		measure_timed(cell);
	cell->model->close();
}

static void in_a_child(const struct cell *cell, enum what what)
{
	int status;
	pid_t child;

	fflush(stdout);
	exact_windows = *windows;
	child = fork();
	if (child < 0)
		fail("fork");
	if (!child) {
		measure(cell, what);
		*windows = exact_windows;
		exit(0);
	}
	if (waitpid(child, &status, 0) != child || status) {
		fprintf(stderr, "%s by %s, %u: status %x\n", cell->work->name, cell->model->name,
			cell->count, status);
		exit(1);
	}
}

static bool is_there(const struct model *model)
{
	if (model != &async_inline && model != &async_offload)
		return true;
	/* An unknown flag is refused where the call is known. */
	return syscall(SYS_async_submit, -1L, NULL, 0, NULL) != -1 || errno != ENOSYS;
}

static bool is_asked_for(const struct model *model, char **names, int count)
{
	for (int at = 0; at < count; at++)
		if (!strcmp(names[at], model->name))
			return true;
	return !count;
}

static void all_models(const struct work *work, enum what what, char **names, int asked)
{
	for (unsigned int at = 0; at < sizeof(models) / sizeof(*models); at++) {
		struct cell cell = { work, models[at], 0 };

		if (!cell.model->can(work->op, work->waits) || !is_there(cell.model) ||
		    !is_asked_for(cell.model, names, asked))
			continue;
		if (what != COSTS) {
			cell.count = what == MEMORY ? MEMORY_CALLS : SCALE_CALLS;
			in_a_child(&cell, what);
			continue;
		}
		for (unsigned int size = 0; size < sizeof(counts) / sizeof(*counts); size++) {
			cell.count = counts[size];
			if (cell.count <= work->most)
				in_a_child(&cell, what);
		}
	}
}

static const struct work *named(const char *name)
{
	for (unsigned int at = 0; at < sizeof(works) / sizeof(*works); at++)
		if (!strcmp(works[at].name, name))
			return &works[at];
	fprintf(stderr, "no work %s; known:", name);
	for (unsigned int at = 0; at < sizeof(works) / sizeof(*works); at++)
		fprintf(stderr, " '%s'", works[at].name);
	fprintf(stderr, "\n");
	exit(2);
}

static int usage(void)
{
	fprintf(stderr, "usage: models exact|timed|memory WORK [MODEL...], or threads N WORK ...\n");
	return 2;
}

int main(int argc, char **argv)
{
	enum what what = COSTS;
	int first = 2;

	if (argc < 3)
		return usage();
	if (!strcmp(argv[1], "memory")) {
		what = MEMORY;
	} else if (!strcmp(argv[1], "threads")) {
		what = THREADS;
		scale.threads = atoi(argv[first++]);
		if (scale.threads < 1 || scale.threads > THREADS_MOST || argc <= first)
			return usage();
	} else if (!span_kind(argv[1])) {
		return usage();
	}
	windows = mmap(NULL, sizeof(*windows), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (windows == MAP_FAILED)
		fail("mmap");
	allow_many();
	all_models(named(argv[first]), what, argv + first + 1, argc - first - 1);
	return 0;
}
