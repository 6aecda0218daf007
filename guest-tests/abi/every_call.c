// SPDX-License-Identifier: GPL-2.0
/*
 * Every system call with arguments that mean nothing: submitted, it says what it says when it is
 * made directly. Each is made by a child of its own, directly, inline and by a worker.
 */
#include "handover.h"
#include "../kselftest_harness.h"

#define NUMBER(name)	{ #name, __NR_##name },

static const struct {
	const char *name;
	long nr;
} calls[] = {
#include "numbers.h"
};

enum { CALLS = sizeof(calls) / sizeof(*calls) };

/* Not made at all. */
static const struct {
	long nr;
	const char *why;
} destructive[] = {
	{ __NR_sethostname, "takes a name of no length" },
	{ __NR_setdomainname, "takes a name of no length" },
	{ __NR_vhangup, "hangs up the terminal of the tests" },
	{ __NR_sync, "waits for everything that others write" },
	{ __NR_msgget, "makes what the next one finds" },
	{ __NR_semget, "makes what the next one finds" },
	{ __NR_shmget, "makes what the next one finds" },
};

/* Of these only is known whether they fail: the value is of the process, or the time. */
static const long own_values[] = {
	__NR_getpid, __NR_gettid, __NR_set_tid_address, __NR_setsid, __NR_times,
#ifdef __NR_time
	__NR_time,
#endif
};

enum way { DIRECT, INLINE, OFFLOADED, WAYS };

static const char *const way_names[WAYS] = { "directly", "inline", "by a worker" };

/* What is no value. */
enum { SLEEPS = 1L << 61 | 1, REFUSED, KILLED };

struct made {
	bool done;
	long value;
};

static struct made *made;

static bool is_among(long nr, const long *list, int n)
{
	while (n--)
		if (list[n] == nr)
			return true;
	return false;
}

static const char *why_not(long nr)
{
	unsigned int i;

	for (i = 0; i < sizeof(destructive) / sizeof(*destructive); i++)
		if (destructive[i].nr == nr)
			return destructive[i].why;
	return NULL;
}

/* In the child. */
static void make(enum way way, long nr, const unsigned long *args)
{
	const unsigned long flags = way == OFFLOADED ? ASYNC_SUBMIT_OFFLOAD : 0;
	long result = UNTOUCHED, value;

	if (way == DIRECT) {
		value = raw_call(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	} else {
		value = async_submit(flags, &result, nr, args);
		if (value > 0)
			value = wait_for_async(0, value, NULL);
		value = value == -EOPNOTSUPP ? REFUSED : value ?: result_of(&result);
	}
	made->value = value;
	__atomic_store_n(&made->done, true, __ATOMIC_RELEASE);
	_exit(0);
}

/* Do all tasks of a child sleep? */
static bool is_asleep(pid_t child)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", child);
	return tasks_of(pid, 'S') == tasks_of(pid, 0);
}

static bool is_over(pid_t child)
{
	siginfo_t info = { };

	return __atomic_load_n(&made->done, __ATOMIC_ACQUIRE) ||
	       waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid;
}

/* The value of a call that is made in some way. */
static long value_of(enum way way, long nr, const unsigned long *args)
{
	int asleep = 0, status;
	pid_t child;
	long value;

	made->done = false;
	child = fork_child();
	if (child < 0)
		return -errno;
	if (!child)
		make(way, nr, args);
	/* What goes on sleeping will not be over. */
	while (!is_over(child) && asleep < 50) {
		usleep(asleep ? 4000 : 200);
		asleep = is_asleep(child) ? asleep + 1 : 0;
	}
	value = made->done ? made->value : is_over(child) ? KILLED : SLEEPS;
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return value;
}

FIXTURE(arguments)
{
};

FIXTURE_VARIANT(arguments)
{
	unsigned long args[6];
};

FIXTURE_VARIANT_ADD(arguments, null)
{
	.args = { },
};

FIXTURE_VARIANT_ADD(arguments, minus_one)
{
	.args = { -1, -1, -1, -1, -1, -1 },
};

/* A descriptor that is none, or a pid; then what is no memory. */
FIXTURE_VARIANT_ADD(arguments, bad_address)
{
	.args = { 9999, -4096, -4096, -4096, -4096, -4096 },
};

FIXTURE_VARIANT_ADD(arguments, first_bad_address)
{
	.args = { -4096, 1, 1, 1, 1, 1 },
};

FIXTURE_SETUP(arguments)
{
	made = share(sizeof(*made));
	ASSERT_NE(NULL, made);
}

FIXTURE_TEARDOWN(arguments)
{
}

TEST_F_TIMEOUT(arguments, same_value, 900)
{
	int i, compared = 0, refused = 0;
	long values[WAYS];
	enum way way;

	for (i = 0; i < CALLS; i++) {
		const long nr = calls[i].nr;

		if (why_not(nr))
			continue;
		/* Does it run anywhere but in the thread that makes it? Some are never asked. */
		values[INLINE] = value_of(INLINE, nr, variant->args);
		if (values[INLINE] == REFUSED) {
			refused++;
			EXPECT_EQ(REFUSED, value_of(OFFLOADED, nr, variant->args))
				TH_LOG("%s", calls[i].name);
			continue;
		}
		values[DIRECT] = value_of(DIRECT, nr, variant->args);
		values[OFFLOADED] = value_of(OFFLOADED, nr, variant->args);
		for (way = INLINE; way < WAYS; way++) {
			/* In place. */
			if (values[way] == REFUSED)
				continue;
			if (is_among(nr, own_values, sizeof(own_values) / sizeof(long)) &&
			    values[DIRECT] >= 0 && values[way] >= 0)
				continue;
			EXPECT_EQ(values[DIRECT], values[way])
				TH_LOG("%s %s", calls[i].name, way_names[way]);
			compared++;
		}
	}
	TH_LOG("%d values compared, %d calls refused", compared, refused);
	EXPECT_LT(500, compared);
	EXPECT_GT(100, refused);
}

TEST_HARNESS_MAIN
