// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/PID/async_submit: which way each call went. The reasons to fall back that other programs
 * bring about are counted there: handover_ptrace (traced), handover_locks (pi_futex),
 * handover_children (vfork), handover_io_uring (io_uring).
 */
#include <linux/perf_event.h>

#include "handover.h"
#include "../kselftest_harness.h"

HOLDS_PERF()

EITHER_THREAD()

static const char *const names[] = {
	"inline", "handed_over", "offloaded", "fell_back", "fell_back_traced", "fell_back_perf",
	"fell_back_deadline", "fell_back_uretprobe", "fell_back_pi_futex", "fell_back_vfork",
	"fell_back_io_uring",
	"fell_back_shadow_stack", "fell_back_fpu_state", "missed", "cancelled", "outstanding",
	"unreaped", "workers",
};

enum { NAMES = sizeof(names) / sizeof(*names) };

struct counts {
	long of[NAMES];
};

static struct counts count_all(void)
{
	struct counts counts;
	int i;

	for (i = 0; i < NAMES; i++)
		counts.of[i] = counter(names[i]);
	return counts;
}

/* All but the workers are as before, except for those that are named, with how much they grew. */
struct growth {
	const char *name;
	long by;
};

static const char *grew(const struct counts *before, const struct growth *growth)
{
	const struct counts after = count_all();
	const struct growth *g;
	int i;

	for (i = 0; i < NAMES - 1; i++) {
		long expected = before->of[i];

		for (g = growth; g->name; g++)
			if (!strcmp(g->name, names[i]))
				expected += g->by;
		if (after.of[i] != expected)
			return trouble("%s: %ld instead of %ld", names[i], after.of[i], expected);
	}
	return NULL;
}

#define GREW(before, ...) \
	TRY(grew(&(before), (const struct growth[]){ __VA_ARGS__, { } }))

TEST(all_are_there_and_zero)
{
	char text[1024];
	int i, lines = 0;
	char *at;

	for (i = 0; i < NAMES; i++)
		EXPECT_EQ(0, counter(names[i]))
			TH_LOG("counter %d", i);
	ASSERT_TRUE(read_text("/proc/self/async_submit", text, sizeof(text)));
	for (at = text; (at = strchr(at, '\n')); at++)
		lines++;
	EXPECT_EQ(NAMES, lines);
}

IN_A_CHILD(each_way_counts_once)
{
	long result = UNTOUCHED, cookie;
	struct counts before;
	struct reading r;

	/* The first call may take a longer way than those that follow. */
	TRY(hand_over(3));
	before = count_all();
	CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	GREW(before, { "inline", 1 });

	before = count_all();
	TRY(begin_reading(&r));
	GREW(before, { "handed_over", 1 }, { "outstanding", 1 });
	TRY(end_reading(&r));
	GREW(before, { "handed_over", 1 });

	before = count_all();
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
	CHECK_EQ(getppid(), final_value(cookie, &result));
	GREW(before, { "offloaded", 1 });

	before = count_all();
	TRY(begin_reading(&r));
	CHECK_EQ(0, async_cancel(0, r.s.cookie));
	TRY(ends_with(&r.s, -ECANCELED));
	GREW(before, { "handed_over", 1 }, { "cancelled", 1 });
	/* It is too late to cancel it again. */
	CHECK_EQ(-ENOENT, async_cancel(0, r.s.cookie));
	GREW(before, { "handed_over", 1 }, { "cancelled", 1 });
	return NULL;
}

/* Neither errors nor calls of the thread about itself are ways that a call goes. */
IN_A_CHILD(refusals_count_nowhere)
{
	long result = UNTOUCHED;
	struct counts before;

	TRY(hand_over(3));
	before = count_all();
	CHECK_EQ(-EINVAL, async_submit(1UL << 31, &result, __NR_getppid, ARGS(0)));
	CHECK_EQ(-ENOSYS, async_submit(0, &result, 100000, ARGS(0)));
	CHECK_EQ(-EOPNOTSUPP, async_submit(0, &result, __NR_execve, ARGS(0)));
	CHECK_EQ(-EFAULT, async_submit(0, BAD_ADDRESS, __NR_getppid, ARGS(0)));
	CHECK_EQ(-EFAULT, async_submit(0, &result, __NR_getppid, BAD_ADDRESS));
	CHECK_EQ(UNTOUCHED, result);
	return grew(&before, (const struct growth[]){ { } });
}

enum { CALLS = 20 };

IN_A_CHILD(outstanding_ones_come_and_go)
{
	struct counts before;
	struct reading r[CALLS];
	int i;

	TRY(hand_over(3));
	before = count_all();
	for (i = 0; i < CALLS; i++) {
		TRY(begin_reading(&r[i]));
		GREW(before, { "handed_over", i + 1 }, { "outstanding", i + 1 });
		CHECK(counter("workers") >= i + 1);
	}
	for (i = 0; i < CALLS; i++) {
		TRY(end_reading(&r[i]));
		GREW(before, { "handed_over", CALLS }, { "outstanding", CALLS - i - 1 });
	}
	return NULL;
}

/* --- who may look, and by which name ------------------------------------------------------ */

static const char *is_seen_by_each_name(void)
{
	char path[64];
	long handed_over = counter("handed_over");

	TRY(hand_over(2));
	snprintf(path, sizeof(path), "%d", getpid());
	CHECK_EQ(handed_over + 2, counter_of(path, "handed_over"));
	snprintf(path, sizeof(path), "%d/task/%d", getpid(), gettid());
	/* Of the process, by any of its threads, or not at all there. */
	CHECK(counter_of(path, "handed_over") == handed_over + 2 ||
	      counter_of(path, "handed_over") == -1);
	return NULL;
}

IN_A_CHILD(counters_are_those_of_the_process)
{
	TRY(hand_over(3));
	TRY(is_seen_by_each_name());
	TRY(run_in(true, is_seen_by_each_name));
	CHECK_EQ(7, counter("handed_over"));
	return NULL;
}

/* --- perf --------------------------------------------------------------------------------- */

static long count_events_of(pid_t tid, unsigned int type, unsigned long config)
{
	struct perf_event_attr attributes = {
		.type = type,
		.size = sizeof(attributes),
		.config = config,
	};

	return raw_call(__NR_perf_event_open, &attributes, tid, -1, -1, 0);
}

static long count_clock_of(pid_t tid)
{
	return count_events_of(tid, PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK);
}

static bool is_there(void)
{
	long fd = count_clock_of(0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* In a child, as the thread that asks has a context of events from then on. */
static const char *asks_for_perf(void)
{
	return is_there() ? NULL : trouble("no perf");
}

static const char *falls_back_for_perf(void)
{
	struct counts before = count_all();
	long result = UNTOUCHED;
	struct reading r;

	CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	CHECK_EQ(getppid(), result);
	GREW(before, { "fell_back", 1 }, { "fell_back_perf", 1 });

	before = count_all();
	CHECK_EQ(0, pipe(r.fds));
	r.byte = 0;
	r.s.result = UNTOUCHED;
	r.s.cookie = async_submit(0, &r.s.result, __NR_read, ARGS(r.fds[0], P(&r.byte), 1));
	CHECK(is_cookie(r.s.cookie));
	GREW(before, { "fell_back", 1 }, { "fell_back_perf", 1 }, { "outstanding", 1 });
	return end_reading(&r);
}

/* Does an event count no less than what the thread uses meanwhile? -1: it cannot be read. */
static int counts_what_is_used(int fd)
{
	long long first, last, begin, end;
	struct timespec ts;

	if (read(fd, &first, 8) != 8)
		return -1;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	begin = ts.tv_sec * 1000000000LL + ts.tv_nsec;
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
		end = ts.tv_sec * 1000000000LL + ts.tv_nsec;
	} while (end - begin < 20000000);
	if (read(fd, &last, 8) != 8)
		return -1;
	return last - first >= end - begin - 1000000;
}

/* The clock of the thread runs on, and is the thread's. */
static const char *is_counted(void)
{
	int i, counts = 0;
	struct reading r;
	long fd;

	TRY(hand_over(3));
	TRY(begin_reading(&r));
	fd = count_clock_of(0);
	CHECK(fd >= 0);
	TRY(falls_back_for_perf());
	TRY(end_reading(&r));
	TRY(falls_back_for_perf());
	/*
	 * A call that has fallen back is on the thread's clock, and nobody counts it. The two
	 * clocks are not stopped at once: more than once, for an emulator may be late in between.
	 */
	for (i = 0; i < 3 && !counts; i++)
		counts = counts_what_is_used(fd);
	CHECK_EQ(1, counts);
	return NULL;
}

TEST_F(thread, thread_that_is_counted_by_perf)
{
	if (run_in_child(false, asks_for_perf))
		SKIP(return, "no perf");
	EXPECT_FINE(run_in_child(variant->other, is_counted));
}

static int stage;
static pid_t counted;

static const char *counts_another(void)
{
	long fd;

	CHECK(await(&stage, 1));
	fd = count_clock_of(counted);
	CHECK(fd >= 0);
	reach(&stage, 2);
	CHECK(await(&stage, 3));
	return NULL;
}

/* From the next call on, if the events come from another thread. */
static const char *is_counted_by_another(void)
{
	static body_fn body = counts_another;
	void *found = "no value";
	struct reading r;
	pthread_t thread;

	TRY(hand_over(3));
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	counted = gettid();
	TRY(begin_reading(&r));
	reach(&stage, 1);
	CHECK(await(&stage, 2));
	TRY(falls_back_for_perf());
	reach(&stage, 3);
	CHECK_EQ(0, pthread_join(thread, &found));
	TRY(end_reading(&r));
	return found;
}

TEST_F(thread, thread_that_is_counted_by_another)
{
	if (run_in_child(false, asks_for_perf))
		SKIP(return, "no perf");
	EXPECT_FINE(run_in_child(variant->other, is_counted_by_another));
}

/* Events of one thread are not in the way of another. */
static const char *counts_only_itself(void)
{
	CHECK(count_clock_of(0) >= 0);
	TRY(run_in(true, hand_over_once));
	return falls_back_for_perf();
}

TEST_F(thread, thread_next_to_one_that_is_counted)
{
	if (run_in_child(false, asks_for_perf))
		SKIP(return, "no perf");
	EXPECT_FINE(run_in_child(variant->other, counts_only_itself));
}

TEST_HARNESS_MAIN
