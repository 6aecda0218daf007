// SPDX-License-Identifier: GPL-2.0
/*
 * Stop signals and freezers hold up calls that were handed over, and do not end them: no result
 * appears until the data does.
 */
#include <sys/resource.h>

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
		/* A futex has nobody to wake while the call is on its way back to sleep. */
		if (sleepers[i].wake)
			CHECK(becomes_true(sleepers[i].wake(&shared->sleeping[i])));
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

/* --- before the successor has begun ------------------------------------------------------- */

enum { BUSY = 3, EARLY_ROUNDS = 200, EARLY_TIMES = 3, LATER = 10 };

static struct {
	int at, rounds;
	long result;
} *early;

static int go[2], data[2];

static void stay_on_the_first_processor(void)
{
	cpu_set_t first;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (sched_setaffinity(0, sizeof(first), &first))
		_exit(120);
}

static const char *hands_over_each_time_it_may(void)
{
	long result, cookie;
	char byte;

	stay_on_the_first_processor();
	/* The others come first, by far. */
	CHECK_EQ(0, raw_call(__NR_setpriority, PRIO_PROCESS, 0, LATER));
	TRY(hand_over(2));
	reach(&early->at, 1);
	while (read(go[0], &byte, 1) == 1) {
		__atomic_store_n(&early->result, UNTOUCHED, __ATOMIC_SEQ_CST);
		cookie = async_submit(0, &early->result, __NR_read, ARGS(data[0], P(&byte), 1));
		CHECK(is_cookie(cookie));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		result = result_of(&early->result);
		CHECK_EQ(1, result);
		__atomic_add_fetch(&early->rounds, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static pid_t keep_the_first_processor_busy(void)
{
	pid_t child = fork_child();

	if (child == 0) {
		stay_on_the_first_processor();
		while (1)
			;
	}
	return child;
}

/* Has a call handed over, and comes back at once: the successor may not know of it yet. */
static const char *have_one_handed_over(pid_t child)
{
	char name[16];
	long before;

	snprintf(name, sizeof(name), "%d", child);
	before = counter_of(name, "handed_over");
	CHECK(before >= 0);
	CHECK_EQ(1, write(go[1], "g", 1));
	CHECK(becomes_true(counter_of(name, "handed_over") > before));
	return NULL;
}

/*
 * The call gets its data and the process is stopped before the successor has run. Then the task that
 * makes the call is the first to go on, and has to wait for its successor: it has the tid still.
 */
static const char *stop_early(pid_t child, bool *was_early)
{
	int rounds = early->rounds;

	TRY(have_one_handed_over(child));
	CHECK_EQ(1, write(data[1], "d", 1));
	TRY(stop_child(child));
	*was_early = result_of(&early->result) == UNTOUCHED;
	if (*was_early)
		CHECK_EQ(0, setpriority(PRIO_PROCESS, child, -20));
	TRY(continue_child(child));
	CHECK(becomes_true(__atomic_load_n(&early->rounds, __ATOMIC_SEQ_CST) > rounds));
	if (*was_early)
		CHECK_EQ(0, setpriority(PRIO_PROCESS, child, LATER));
	return NULL;
}

/* On one processor, which others have and the test gets whenever it wants it. */
TEST(stopped_before_the_successor_has_begun)
{
	const struct sched_param first = { .sched_priority = 1 };
	const char *found = NULL;
	int i, times_early = 0;
	pid_t busy[BUSY], child;

	if (geteuid())
		SKIP(return, "needs root");
	early = share(sizeof(*early));
	ASSERT_NE(NULL, early);
	ASSERT_EQ(0, pipe(go));
	ASSERT_EQ(0, pipe(data));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		close(go[1]);
		exit_fine(hands_over_each_time_it_may());
	}
	ASSERT_TRUE(await(&early->at, 1));
	for (i = 0; i < BUSY; i++) {
		busy[i] = keep_the_first_processor_busy();
		ASSERT_LE(0, busy[i]);
	}
	stay_on_the_first_processor();
	ASSERT_EQ(0, sched_setscheduler(0, SCHED_FIFO, &first));
	for (i = 0; i < EARLY_ROUNDS && times_early < EARLY_TIMES && !found; i++) {
		bool was_early = false;

		found = stop_early(child, &was_early);
		times_early += was_early;
	}
	EXPECT_FINE(found);
	EXPECT_EQ(EARLY_TIMES, times_early);
	for (i = 0; i < BUSY; i++) {
		kill(busy[i], SIGKILL);
		waitpid(busy[i], NULL, 0);
	}
	if (found)
		kill(child, SIGKILL);
	close(go[1]);
	EXPECT_EQ(found ? SIGKILL : 0, status_of(child));
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
