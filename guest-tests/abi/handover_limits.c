// SPDX-License-Identifier: GPL-2.0
/*
 * Where there is no successor to be had, nothing is submitted, and nothing ran: -EAGAIN, whether
 * the limit is that of the user, of the cgroup, or of the calls themselves.
 */
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

#define CGROUP	"/sys/fs/cgroup/async_limits"
#define USER	54399

enum { CALLS = 64 };

static struct submission calls[CALLS];
static char bytes[CALLS];

/* Submits until there is no more, then lets all of them end, and begins anew. */
static const char *runs_into_a_limit(int least, int most)
{
	long handed_over = counter("handed_over");
	int fds[2], i, n = 0;

	CHECK_EQ(0, pipe(fds));
	for (; n < CALLS; n++) {
		calls[n].result = UNTOUCHED;
		calls[n].cookie = async_submit(0, &calls[n].result, __NR_read,
					       ARGS(fds[0], P(&bytes[n]), 1));
		if (calls[n].cookie == -EAGAIN)
			break;
		CHECK(is_cookie(calls[n].cookie));
	}
	CHECK(n >= least);
	CHECK(n <= most);
	CHECK_EQ(handed_over + n, counter("handed_over"));
	CHECK_EQ(n, counter("outstanding"));
	if (n < CALLS)
		CHECK_EQ(UNTOUCHED, calls[n].result);
	for (i = 0; i < n; i++)
		CHECK_EQ(1, write(fds[1], "l", 1));
	for (i = 0; i < n; i++)
		TRY(ends_with(&calls[i], 1));
	close(fds[0]);
	close(fds[1]);
	return hand_over(2);
}

static const char *runs_into_that_of_its_user(void)
{
	const struct rlimit few = { 8, 8 };

	TRY(hand_over(2));
	CHECK_EQ(0, raw_call(__NR_setresuid, USER, USER, USER));
	CHECK_EQ(0, setrlimit(RLIMIT_NPROC, &few));
	TRY(runs_into_a_limit(1, 7));
	return runs_into_a_limit(1, 7);
}

/* There is no such program, which is looked at once one may become another one. */
static long becomes_another_program(void)
{
	char *arguments[] = { "none", NULL }, *none[] = { NULL };

	return raw_call(__NR_execve, "/none", arguments, none);
}

/* setresuid() notices that the user has too many, and execve() is to fail for that. */
static const char *becomes_a_user_who_has_too_many(void)
{
	const struct rlimit no = { 0, 0 };
	int *at = share(sizeof(*at));
	pid_t child;

	/* Who does so is not counted yet, another process of that user is. */
	CHECK(at != NULL);
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0) {
		if (raw_call(__NR_setresuid, USER, USER, USER))
			_exit(1);
		/* It is forgotten when the user changes. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		reach(at, 1);
		stay_until(at, 2);
		_exit(0);
	}
	CHECK(await(at, 1));
	/* Its capabilities stay, and make room for workers. */
	CHECK_EQ(0, prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP));
	CHECK_EQ(0, setrlimit(RLIMIT_NPROC, &no));
	CHECK_EQ(-ENOENT, becomes_another_program());
	CHECK_EQ(0, raw_call(__NR_setresuid, USER, USER, USER));
	CHECK_EQ(-EAGAIN, becomes_another_program());
	reach(at, 2);
	CHECK_EQ(0, status_of(child));
	return NULL;
}

static const char *moves_to_a_worker_from_before(void)
{
	struct reading r;

	TRY(makes_a_call_in_place());
	TRY(becomes_a_user_who_has_too_many());
	TRY(begin_reading(&r));
	CHECK_EQ(-EAGAIN, becomes_another_program());
	return end_reading(&r);
}

static const char *makes_a_worker(void)
{
	TRY(becomes_a_user_who_has_too_many());
	TRY(makes_a_call_in_place());
	CHECK_EQ(-EAGAIN, becomes_another_program());
	return NULL;
}

EITHER_THREAD()

TEST_F(thread, processes_of_a_user)
{
	if (geteuid())
		SKIP(return, "needs root");
	EXPECT_FINE(run_in_child(variant->other, runs_into_that_of_its_user));
}

TEST_F(thread, program_of_a_user_who_has_too_many)
{
	if (geteuid())
		SKIP(return, "needs root");
	EXPECT_FINE(run_in_child(variant->other, moves_to_a_worker_from_before));
	EXPECT_FINE(run_in_child(variant->other, makes_a_worker));
}

static const char *runs_into_that_of_its_cgroup(void)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	CHECK(write_text(CGROUP "/cgroup.procs", text));
	CHECK(write_text(CGROUP "/pids.max", "8"));
	TRY(runs_into_a_limit(1, 7));
	TRY(runs_into_a_limit(1, 7));
	CHECK(write_text(CGROUP "/pids.max", "max"));
	return runs_into_a_limit(CALLS, CALLS);
}

TEST_F(thread, processes_of_a_cgroup)
{
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup file system");
	write_text("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
	if (access(CGROUP "/pids.max", W_OK)) {
		rmdir(CGROUP);
		SKIP(return, "no limit of processes");
	}
	EXPECT_FINE(run_in_child(variant->other, runs_into_that_of_its_cgroup));
	EXPECT_TRUE(becomes_true(!rmdir(CGROUP)));
}

TEST_HARNESS_MAIN
