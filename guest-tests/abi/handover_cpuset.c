// SPDX-License-Identifier: GPL-2.0
/*
 * The CPUs of a cpuset change while threads in it hand calls over: each task is told of it by
 * itself, and a thread goes from one that knows to one that does not, or the other way round.
 */
#include "handover.h"
#include "../kselftest_harness.h"

#define ROOT	"/sys/fs/cgroup"
#define CGROUP	ROOT "/async_cpuset"

/* So many tasks are told between the two that the thread has in turn. */
enum { CALLS = 40 };

static struct {
	int at;
	pid_t tid;
	bool asks;
} *shared;

static struct reading readings[CALLS];

static const char *hands_over_in_a_cpuset(void)
{
	char text[32];
	cpu_set_t all;
	int i;

	snprintf(text, sizeof(text), "%d", getpid());
	CHECK(write_text(CGROUP "/cgroup.procs", text));
	CHECK_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	if (shared->asks)
		CHECK_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	for (i = 0; i < CALLS; i++)
		TRY(begin_reading(&readings[i]));
	TRY(end_reading(&readings[1]));
	shared->tid = gettid();
	reach(&shared->at, 1);
	while (!is_reached(&shared->at, 2))
		TRY(hand_over_once());
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
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup file system");
	write_text(ROOT "/cgroup.subtree_control", "+cpuset");
	if (access(CGROUP "/cpuset.cpus", W_OK)) {
		rmdir(CGROUP);
		SKIP(return, "no cpusets");
	}
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
	const int last = sysconf(_SC_NPROCESSORS_ONLN) - 1, rounds = times(100, 2000);
	cpu_set_t expected, seen;
	char cpus[32];
	int i, cpu;

	for (i = 0; i < rounds; i++) {
		/* The first one alone, then all of them. */
		snprintf(cpus, sizeof(cpus), i % 2 ? "0-%d" : "0", last);
		ASSERT_TRUE(write_text(CGROUP "/cpuset.cpus", cpus));
		CPU_ZERO(&expected);
		for (cpu = 0; cpu <= (i % 2 ? last : 0); cpu++)
			CPU_SET(cpu, &expected);
		ASSERT_EQ(0, sched_getaffinity(shared->tid, sizeof(seen), &seen));
		ASSERT_TRUE(CPU_EQUAL(&expected, &seen))
			TH_LOG("in round %d %s is written, and the thread is allowed on %#lx",
			       i, cpus, seen.__bits[0]);
		poll(NULL, 0, 1);
	}
	reach(&shared->at, 2);
	EXPECT_EQ(0, status_of(self->child));
	self->child = 0;
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

TEST_HARNESS_MAIN
