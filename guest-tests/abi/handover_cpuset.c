// SPDX-License-Identifier: GPL-2.0
/*
 * The CPUs of a cpuset change while threads in it hand calls over: each task is told of it by
 * itself, and a thread goes from one that knows to one that does not, or the other way round.
 */
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

#define ROOT	"/sys/fs/cgroup"
#define CGROUP	ROOT "/async_cpuset"
#define KEPT	ROOT "/async_cpuset_kept"

static int last_cpu(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) - 1;
}

/* So many tasks are told between the two that the thread has in turn. */
enum { CALLS = 40 };

static struct {
	int at;
	pid_t tid;
	bool asks;
} *shared;

static struct reading readings[CALLS];

/* The first CPU alone, the last one, or all of them. */
static cpu_set_t cpus(int first, int last)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	while (first <= last)
		CPU_SET(first++, &set);
	return set;
}

static bool set_cpuset(int last)
{
	char text[32];

	snprintf(text, sizeof(text), last ? "0-%d" : "0", last);
	return write_text(CGROUP "/cpuset.cpus", text);
}

static const char *enter_cpuset(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	CHECK(write_text(CGROUP "/cgroup.procs", text));
	return NULL;
}

/*
 * The first cpuset and the last one switch the kernel's code between two states, while others run
 * through it, and an emulated CPU may then meet the breakpoint of the switch where there is none
 * any more ("Oops: int3"). So one is kept for good.
 */
static bool make_cpuset(void)
{
	if (last_cpu() < 1 || (mkdir(KEPT, 0755) && errno != EEXIST) ||
	    (mkdir(CGROUP, 0755) && errno != EEXIST))
		return false;
	write_text(ROOT "/cgroup.subtree_control", "+cpuset");
	if (!access(CGROUP "/cpuset.cpus", W_OK))
		return true;
	rmdir(CGROUP);
	rmdir(KEPT);
	return false;
}

static const char *hands_over_in_a_cpuset(void)
{
	cpu_set_t all = cpus(0, last_cpu());
	int i;

	TRY(enter_cpuset());
	if (shared->asks)
		CHECK_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	for (i = 0; i < CALLS; i++)
		TRY(begin_reading(&readings[i]));
	TRY(end_reading(&readings[1]));
	shared->tid = gettid();
	reach(&shared->at, 1);
	for (i = 0; !is_reached(&shared->at, 2); i++) {
		/* Those from before do not fit, so that new ones are made. */
		if (i % 8 == 0)
			CHECK_EQ(0, setpriority(PRIO_PROCESS, 0, i % 16 ? 0 : 1));
		TRY(hand_over_once());
	}
	for (i = 0; i < CALLS; i++) {
		if (i != 1)
			TRY(end_reading(&readings[i]));
	}
	return NULL;
}

FIXTURE(cpuset) { pid_t child; };
FIXTURE_VARIANT(cpuset) { bool other, asks; };
FIXTURE_VARIANT_ADD(cpuset, main) { .other = false, .asks = false, };
FIXTURE_VARIANT_ADD(cpuset, other) { .other = true, .asks = false, };
FIXTURE_VARIANT_ADD(cpuset, main_asks_for_cpus) { .other = false, .asks = true, };
FIXTURE_VARIANT_ADD(cpuset, other_asks_for_cpus) { .other = true, .asks = true, };

FIXTURE_SETUP(cpuset)
{
	self->child = 0;
	if (!make_cpuset())
		SKIP(return, "no cpusets, or one CPU");
	shared = share(sizeof(*shared));
	ASSERT_NE(NULL, shared);
	shared->asks = variant->asks;
	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (self->child == 0)
		exit_fine(run_in(variant->other, hands_over_in_a_cpuset));
	ASSERT_TRUE(await(&shared->at, 1));
}

FIXTURE_TEARDOWN(cpuset)
{
	if (self->child <= 0)
		return;
	kill(self->child, SIGKILL);
	waitpid(self->child, NULL, 0);
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

TEST_F_TIMEOUT(cpuset, changes_while_calls_are_handed_over, 120)
{
	const int rounds = times(100, 2000);
	cpu_set_t expected, seen;
	int i;

	for (i = 0; i < rounds; i++) {
		/* The first one alone, then all of them. */
		ASSERT_TRUE(set_cpuset(i % 2 ? last_cpu() : 0));
		expected = cpus(0, i % 2 ? last_cpu() : 0);
		ASSERT_EQ(0, sched_getaffinity(shared->tid, sizeof(seen), &seen));
		ASSERT_TRUE(CPU_EQUAL(&expected, &seen))
			TH_LOG("in round %d the thread is allowed on %#lx, not on %#lx", i,
			       seen.__bits[0], expected.__bits[0]);
		poll(NULL, 0, 1);
	}
	reach(&shared->at, 2);
	EXPECT_EQ(0, status_of(self->child));
	self->child = 0;
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

static const char *is_allowed_on(cpu_set_t expected)
{
	cpu_set_t seen;

	CHECK_EQ(0, sched_getaffinity(0, sizeof(seen), &seen));
	if (!CPU_EQUAL(&expected, &seen))
		return trouble("allowed on %#lx, not on %#lx", seen.__bits[0], expected.__bits[0]);
	return NULL;
}

/* What it has asked for before is with a worker, and allows the same for now. */
static const char *asks_for_more_than_there_is(void)
{
	const cpu_set_t first = cpus(0, 0), all = cpus(0, last_cpu());

	TRY(enter_cpuset());
	CHECK(set_cpuset(0));
	CHECK_EQ(0, sched_setaffinity(0, sizeof(first), &first));
	TRY(hand_over(2));
	CHECK_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	TRY(hand_over_once());
	TRY(is_allowed_on(first));
	CHECK(set_cpuset(last_cpu()));
	return is_allowed_on(all);
}

/* It is left with what the cpuset has, until that has what it was asked for. */
static const char *asks_for_what_is_taken_away(void)
{
	const cpu_set_t first = cpus(0, 0), last = cpus(last_cpu(), last_cpu());

	TRY(enter_cpuset());
	CHECK(set_cpuset(last_cpu()));
	TRY(makes_a_call_in_place());
	CHECK_EQ(0, sched_setaffinity(0, sizeof(last), &last));
	CHECK(set_cpuset(0));
	TRY(is_allowed_on(first));
	TRY(hand_over_once());
	TRY(is_allowed_on(first));
	CHECK(set_cpuset(last_cpu()));
	return is_allowed_on(last);
}

EITHER_THREAD()

static void in_a_cpuset(struct __test_metadata *_metadata, bool other, body_fn body)
{
	if (!make_cpuset())
		SKIP(return, "no cpusets, or one CPU");
	EXPECT_FINE(run_in_child(other, body));
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

TEST_F(thread, request_that_makes_no_difference_yet)
{
	in_a_cpuset(_metadata, variant->other, asks_for_more_than_there_is);
}

TEST_F(thread, request_that_cannot_be_had_yet)
{
	in_a_cpuset(_metadata, variant->other, asks_for_what_is_taken_away);
}

TEST_HARNESS_MAIN
