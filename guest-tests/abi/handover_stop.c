// SPDX-License-Identifier: GPL-2.0
/*
 * Stop signals and freezers hold up calls that were handed over, and do not end them: no result
 * appears until the data does.
 */
#include "sleepers.h"
#include "../kselftest_harness.h"

#define CGROUP	"/sys/fs/cgroup/async_stop"

/* A child with one call of every kind outstanding, and memory it shares with its parent. */
struct shared {
	int at;
	struct sleeping sleeping[SLEEPERS];
	struct submission s[SLEEPERS];
	long value;
};

static struct shared *shared;

/* These would get the names of files that others have in use. */
static bool is_of_its_own(int i)
{
	return sleepers[i].tear_down == tear_down_path;
}

static const char *submits_all(void)
{
	int i;

	for (i = 0; i < SLEEPERS; i++) {
		if (is_of_its_own(i))
			continue;
		TRY(set_up(&sleepers[i], &shared->sleeping[i]));
		TRY(submit_sleeping(&shared->s[i], shared->sleeping[i].nr,
				    shared->sleeping[i].args));
	}
	return NULL;
}

/* Wakes or cancels all: each has to end as if nothing had happened. */
static const char *ends_all(void)
{
	int i;

	for (i = 0; i < SLEEPERS; i++) {
		struct submission *s = &shared->s[i];

		if (is_of_its_own(i))
			continue;
		if (result_of(&s->result) != s->cookie)
			return trouble("%s ended with %ld", sleepers[i].name, s->result);
		if (sleepers[i].wake)
			CHECK(sleepers[i].wake(&shared->sleeping[i]));
		else
			CHECK_EQ(0, async_cancel(0, s->cookie));
		CHECK_EQ(0, wait_for_async(0, s->cookie, &deadline));
		if (sleepers[i].wake ? !is_woken(&shared->sleeping[i], s->result) :
				       s->result != -ECANCELED)
			return trouble("%s ended with %ld", sleepers[i].name, s->result);
		tear_down(&sleepers[i], &shared->sleeping[i]);
	}
	return NULL;
}

static const char *stays_until_told(void)
{
	TRY(submits_all());
	reach(&shared->at, 1);
	stay_until(&shared->at, 2);
	return ends_all();
}

/* What of the calls of a stopped child has ended, as its parent sees it. */
static const char *has_no_result(void)
{
	int i;

	for (i = 0; i < SLEEPERS; i++)
		if (!is_of_its_own(i) && result_of(&shared->s[i].result) != shared->s[i].cookie)
			return trouble("%s ended with %ld", sleepers[i].name,
				       shared->s[i].result);
	return NULL;
}

CHILD_FIXTURE(child, shared, stays_until_told)

TEST_F_TIMEOUT(child, stopped_and_continued, 300)
{
	int i;

	for (i = 0; i < times(20, 500); i++) {
		ASSERT_FINE(stop_child(self->pid));
		ASSERT_FINE(has_no_result());
		ASSERT_FINE(continue_child(self->pid));
		ASSERT_FINE(has_no_result());
	}
	EXPECT_ENDS_WELL();
}

/* Data that comes while the process is stopped is taken once it goes on. */
TEST_F(child, woken_while_stopped)
{
	const struct sleeper *sleeper;
	int i;

	ASSERT_FINE(stop_child(self->pid));
	for (i = 0; i < SLEEPERS; i++) {
		sleeper = &sleepers[i];
		/* What the parent can do, who has neither the descriptors nor the memory. */
		if (sleeper->wake == wake_msgrcv || sleeper->wake == wake_semop ||
		    sleeper->wake == wake_child)
			ASSERT_TRUE(sleeper->wake(&shared->sleeping[i]));
	}
	ASSERT_FINE(continue_child(self->pid));
	for (i = 0; i < SLEEPERS; i++) {
		sleeper = &sleepers[i];
		if (sleeper->wake == wake_msgrcv || sleeper->wake == wake_semop ||
		    sleeper->wake == wake_child)
			ASSERT_TRUE(becomes_true(is_woken(&shared->sleeping[i],
							  result_of(&shared->s[i].result))));
	}
	kill(self->pid, SIGKILL);
	EXPECT_EQ(SIGKILL, status_of(self->pid));
	self->pid = 0;
}

TEST_F(child, stopped_by_itself_and_by_the_terminal)
{
	static const int signals[] = { SIGTSTP, SIGTTIN, SIGTTOU, SIGSTOP };
	size_t i;

	/* Of a group that is not orphaned, as its parent is of another one in the session. */
	ASSERT_EQ(0, setpgid(self->pid, self->pid));
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		int status;

		ASSERT_EQ(0, kill(self->pid, signals[i]));
		status = next_status(self->pid, WUNTRACED);
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(signals[i], WSTOPSIG(status));
		ASSERT_FINE(has_no_result());
		ASSERT_FINE(continue_child(self->pid));
		ASSERT_FINE(has_no_result());
	}
	EXPECT_ENDS_WELL();
}

/* --- a child that hands over all the time ------------------------------------------------ */

static const char *hands_over_until_told(void)
{
	reach(&shared->at, 1);
	while (!is_reached(&shared->at, 2))
		TRY(hand_over_once());
	return NULL;
}

CHILD_FIXTURE(busy, shared, hands_over_until_told)

TEST_F_TIMEOUT(busy, stopped_and_continued, 300)
{
	int i;

	for (i = 0; i < times(100, 5000); i++) {
		ASSERT_FINE(stop_child(self->pid));
		ASSERT_FINE(continue_child(self->pid));
	}
	EXPECT_ENDS_WELL();
}

/* A continue signal that comes right after the stop: one of both wins, and it goes on. */
TEST_F_TIMEOUT(busy, stopped_and_continued_at_once, 300)
{
	int i;

	for (i = 0; i < times(300, 20000); i++) {
		ASSERT_EQ(0, kill(self->pid, SIGSTOP));
		ASSERT_EQ(0, kill(self->pid, SIGCONT));
		if (i % 8 == 0)
			sched_yield();
	}
	EXPECT_ENDS_WELL();
}

TEST_F_TIMEOUT(busy, stopped_and_killed, 300)
{
	ASSERT_FINE(stop_child(self->pid));
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(self->pid));
	self->pid = 0;
}

/* --- the freezer of cgroups --------------------------------------------------------------- */

/* A line "frozen N" of its events. */
static bool is_frozen(int expected)
{
	char text[256] = "", line[32];

	read_text(CGROUP "/cgroup.events", text, sizeof(text));
	snprintf(line, sizeof(line), "frozen %d\n", expected);
	return strstr(text, line);
}

static const char *enter_cgroup(pid_t pid)
{
	char text[32];

	CHECK(!mkdir(CGROUP, 0755) || errno == EEXIST);
	snprintf(text, sizeof(text), "%d", pid);
	CHECK(write_text(CGROUP "/cgroup.procs", text));
	return NULL;
}

static const char *freeze_and_thaw(void)
{
	CHECK(write_text(CGROUP "/cgroup.freeze", "1"));
	CHECK(becomes_true(is_frozen(1)));
	CHECK(write_text(CGROUP "/cgroup.freeze", "0"));
	CHECK(becomes_true(is_frozen(0)));
	return NULL;
}

static bool has_freezer(void)
{
	bool has = (!mkdir(CGROUP, 0755) || errno == EEXIST) &&
		   !access(CGROUP "/cgroup.freeze", W_OK);

	rmdir(CGROUP);
	return has;
}

#define EXPECT_GONE()							\
do {									\
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP) || errno != EBUSY));	\
	EXPECT_NE(0, access(CGROUP, F_OK));				\
} while (0)

TEST_F_TIMEOUT(child, frozen_and_thawed, 300)
{
	int i;

	if (!has_freezer())
		SKIP(return, "no freezer");
	ASSERT_FINE(enter_cgroup(self->pid));
	for (i = 0; i < times(20, 500); i++) {
		ASSERT_FINE(freeze_and_thaw());
		ASSERT_FINE(has_no_result());
	}
	EXPECT_ENDS_WELL();
	EXPECT_GONE();
}

TEST_F_TIMEOUT(busy, frozen_and_thawed, 300)
{
	int i;

	if (!has_freezer())
		SKIP(return, "no freezer");
	ASSERT_FINE(enter_cgroup(self->pid));
	for (i = 0; i < times(50, 2000); i++)
		ASSERT_FINE(freeze_and_thaw());
	EXPECT_ENDS_WELL();
	EXPECT_GONE();
}

TEST_F(child, killed_while_frozen)
{
	if (!has_freezer())
		SKIP(return, "no freezer");
	ASSERT_FINE(enter_cgroup(self->pid));
	ASSERT_TRUE(write_text(CGROUP "/cgroup.freeze", "1"));
	ASSERT_TRUE(becomes_true(is_frozen(1)));
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(self->pid));
	self->pid = 0;
	EXPECT_GONE();
}

TEST_HARNESS_MAIN
