// SPDX-License-Identifier: GPL-2.0
/*
 * A process that is made by a thread that was handed over, or while others are, has one thread,
 * no calls, and everything else that it takes to hand over calls of its own.
 */
#include <linux/futex.h>
#include <linux/sched.h>
#include <spawn.h>
#include <sys/sysinfo.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

extern char **environ;

struct shared {
	int at;
	pthread_mutex_t mutex;
};

static struct shared *shared;

/* --- what others see of it ---------------------------------------------------------------- */

static const char *const counters[] = {
	"inline", "handed_over", "offloaded", "fell_back", "missed", "cancelled", "outstanding",
	"workers",
};

static const char *hands_over_when_told(void)
{
	reach(&shared->at, 1);
	CHECK(await(&shared->at, 2));
	TRY(hand_over(3));
	reach(&shared->at, 3);
	CHECK(await(&shared->at, 4));
	return NULL;
}

IN_EITHER_THREAD(counters_of_a_child_begin_at_zero)
{
	struct reading r;
	char pid[32];
	long before;
	pid_t child;
	size_t i;

	shared = share(sizeof(*shared));
	TRY(hand_over(5));
	TRY(begin_reading(&r));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0)
		exit_fine(hands_over_when_told());
	CHECK(await(&shared->at, 1));
	snprintf(pid, sizeof(pid), "%d", child);
	for (i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		if (counter_of(pid, counters[i]))
			return trouble("%s: %ld", counters[i], counter_of(pid, counters[i]));
	CHECK_EQ(1, counter("outstanding"));
	before = counter("handed_over");
	reach(&shared->at, 2);
	CHECK(await(&shared->at, 3));
	CHECK_EQ(3, counter_of(pid, "handed_over"));
	CHECK_EQ(0, counter_of(pid, "outstanding"));
	CHECK_EQ(before, counter("handed_over"));
	CHECK_EQ(1, counter("outstanding"));
	reach(&shared->at, 4);
	CHECK_EQ(0, status_of(child));
	return end_reading(&r);
}

static const char *is_one_thread(pid_t parent)
{
	char text[4096], *found;

	CHECK_EQ(getpid(), gettid());
	CHECK_EQ(parent, getppid());
	CHECK_EQ(1, tasks_of("self", 0));
	CHECK(read_text("/proc/self/status", text, sizeof(text)));
	found = strstr(text, "\nThreads:");
	CHECK(found);
	CHECK_EQ(1, atoi(found + strlen("\nThreads:")));
	return NULL;
}

IN_EITHER_THREAD(child_is_one_thread)
{
	pid_t child, parent = getpid();
	struct reading r[3];
	int i;

	for (i = 0; i < 3; i++)
		TRY(begin_reading(&r[i]));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0)
		exit_fine(is_one_thread(parent));
	CHECK_EQ(0, status_of(child));
	for (i = 0; i < 3; i++)
		TRY(end_reading(&r[i]));
	return NULL;
}

static const char *has_nothing_in_reserve(void)
{
	CHECK_EQ(0, counter("inline"));
	TRY(makes_a_call_in_place());
	CHECK_EQ(1, counter("inline"));
	TRY(hand_over(3));
	CHECK_EQ(3, counter("handed_over"));
	return NULL;
}

/* A call that did not sleep leaves a worker that waits for the next one. */
IN_EITHER_THREAD(worker_in_reserve_stays_with_the_parent)
{
	pid_t child;
	int i;

	for (i = 0; i < 5; i++) {
		TRY(makes_a_call_in_place());
		TRY(makes_a_call_in_place());
		child = fork_child();
		CHECK(child >= 0);
		if (child == 0)
			exit_fine(has_nothing_in_reserve());
		CHECK_EQ(0, status_of(child));
		TRY(hand_over_once());
	}
	return NULL;
}

/* --- what it has -------------------------------------------------------------------------- */

static const char *init_mutex(void)
{
	pthread_mutexattr_t attributes;

	shared = share(sizeof(*shared));
	CHECK(shared);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	CHECK_EQ(0, pthread_mutex_init(&shared->mutex, &attributes));
	return NULL;
}

static const char *has_a_robust_list(void)
{
	struct robust_list_head *head = NULL;
	size_t length = 0;
	struct reading r;

	CHECK_EQ(0, raw_call(__NR_get_robust_list, 0, &head, &length));
	CHECK(head);
	CHECK_EQ(0, pthread_mutex_lock(&shared->mutex));
	TRY(hand_over(3));
	TRY(begin_reading(&r));
	/* Ends with the mutex locked, and a call outstanding. */
	return NULL;
}

IN_EITHER_THREAD(robust_list_of_a_child)
{
	struct reading r;
	pid_t child;
	int i;

	for (i = 0; i < 5; i++) {
		TRY(init_mutex());
		TRY(begin_reading(&r));
		child = fork_child();
		CHECK(child >= 0);
		if (child == 0)
			exit_fine(has_a_robust_list());
		CHECK_EQ(0, status_of(child));
		CHECK_EQ(EOWNERDEAD, pthread_mutex_lock(&shared->mutex));
		CHECK_EQ(0, pthread_mutex_consistent(&shared->mutex));
		CHECK_EQ(0, pthread_mutex_unlock(&shared->mutex));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* The robust mutex of the parent is the parent's, whatever becomes of the child. */
IN_EITHER_THREAD(mutex_of_the_parent_outlives_a_child)
{
	struct reading r;
	pid_t child;

	TRY(init_mutex());
	CHECK_EQ(0, pthread_mutex_lock(&shared->mutex));
	TRY(begin_reading(&r));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0)
		exit_fine(hand_over(3));
	CHECK_EQ(0, status_of(child));
	CHECK_EQ(gettid(), shared->mutex.__data.__lock & FUTEX_TID_MASK);
	CHECK_EQ(0, shared->mutex.__data.__lock & FUTEX_OWNER_DIED);
	TRY(end_reading(&r));
	CHECK_EQ(0, pthread_mutex_unlock(&shared->mutex));
	return NULL;
}

/* clone() as glibc makes it for fork(): the words for tids are the child's own. */
IN_EITHER_THREAD(words_for_tids)
{
	struct reading r;
	int *set = share(sizeof(int) * 2), *in_parent = set + 1;
	int status;
	pid_t child;

	TRY(begin_reading(&r));
	child = raw_call(__NR_clone, CLONE_CHILD_SETTID | CLONE_PARENT_SETTID | SIGCHLD, 0,
			 in_parent, set, 0);
	CHECK(child >= 0);
	if (child == 0)
		_exit(*set == raw_call(__NR_getpid) ? 34 : 1);
	status = next_status(child, 0);
	CHECK_EQ(34 << 8, status);
	CHECK_EQ(child, *in_parent);
	CHECK_EQ(child, *set);
	return end_reading(&r);
}

/* --- when and how it is made -------------------------------------------------------------- */

static bool stop;

static const char *hands_over_until_stopped(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		TRY(hand_over_among_others());
	return NULL;
}

/* Other threads are anywhere in a hand-over when this one forks. */
IN_EITHER_THREAD_TIMEOUT(while_other_threads_hand_over, 300)
{
	static body_fn body = hands_over_until_stopped;
	pthread_t threads[3];
	const char *found = NULL;
	long handed_over = counter("handed_over");
	void *theirs;
	int i;

	stop = false;
	for (i = 0; i < 3; i++)
		CHECK_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	for (i = 0; i < times(30, 2000) && !found; i++) {
		pid_t child = fork_child();

		if (child == 0)
			exit_fine(hand_over(2));
		found = child > 0 && !status_of(child) ? NULL : "the child";
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		CHECK_EQ(0, pthread_join(threads[i], &theirs));
		found = found ?: theirs;
	}
	CHECK(counter("handed_over") > handed_over);
	return found;
}

static volatile pid_t forked;

static void fork_here(int signal)
{
	forked = fork_child();
	if (forked == 0)
		exit_fine(hand_over(2));
}

IN_EITHER_THREAD(in_a_handler)
{
	const struct sigaction action = { .sa_handler = fork_here };
	struct reading r;
	int i;

	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (i = 0; i < 5; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, pthread_kill(pthread_self(), SIGUSR1));
		CHECK(forked > 0);
		CHECK_EQ(0, status_of(forked));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* posix_spawn() is a vfork() with a stack of its own, and an execve(). */
IN_EITHER_THREAD(spawn_of_another_program)
{
	char *arguments[] = { "sh", "-c", "exit 35", NULL };
	struct reading r;
	pid_t child;
	int i;

	for (i = 0; i < 5; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ));
		CHECK_EQ(35 << 8, next_status(child, 0));
		TRY(end_reading(&r));
	}
	return NULL;
}

/* The parent is gone, with calls outstanding, when the child begins. */
static const char *leaves_a_grandchild(void)
{
	struct reading r;
	pid_t child, parent = getpid();

	TRY(begin_reading(&r));
	child = fork();
	CHECK(child >= 0);
	if (child)
		return NULL;
	if (becomes_true(getppid() != parent) && !hand_over(5) && counter("handed_over") == 5)
		reach(&shared->at, 1);
	else
		reach(&shared->at, 2);
	_exit(0);
}

IN_EITHER_THREAD(parent_that_exits_first)
{
	shared = share(sizeof(*shared));
	TRY(run_in_child(gettid() != getpid(), leaves_a_grandchild));
	CHECK(await(&shared->at, 1));
	CHECK_EQ(1, shared->at);
	return NULL;
}

TEST_HARNESS_MAIN
