// SPDX-License-Identifier: GPL-2.0
/*
 * Walks all system call numbers and compares their class with the lists of the contract.
 *
 * Nothing runs in the walk: the number is checked before the arguments, and these cannot be
 * read. So a call that may run gives -EFAULT, a refused one -EOPNOTSUPP, no call -ENOSYS.
 * (Hence the limits of what a kernel without that order can do to the machine: run a call with
 * whatever lies at address zero.)
 */
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/keyctl.h>
#include <linux/lsm.h>
#include <sys/epoll.h>

#include "calls.h"
#include "../kselftest_harness.h"

/* The numbers end long before; arguments stay clear of the x32 calls' bit 30. */
#define LAST_NUMBER	4096
#define X32_BIT		0x40000000L

struct number {
	long nr;
	const char *name;
};

static const struct number assigned[] = {
#define NUMBER(name)	{ __NR_##name, #name },
#include "numbers.h"
#undef NUMBER
};

static const char * const refused[] = {
	"fork", "vfork", "clone", "clone3", "execve", "execveat", "exit", "exit_group",
	"rt_sigreturn", "restart_syscall", "async_submit", "wait_for_async", "async_cancel",
	"arch_prctl", "set_tid_address", "set_robust_list", "rseq", "sigaltstack",
	"rt_sigprocmask", "rt_sigsuspend", "rt_sigtimedwait", "pause", "seccomp",
	"landlock_restrict_self", "unshare", "setns",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid",
	"setfsgid", "setgroups", "capset", "keyctl", "prctl", "ptrace", "personality",
	"sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity",
	"setpriority", "ioprio_set", "set_mempolicy", "pkey_alloc", "lsm_set_self_attr",
	"uretprobe", "iopl", "ioperm", "modify_ldt", "map_shadow_stack",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "perf_event_open",
};

static const char * const in_place[] = {
	"gettid", "getcpu", "sched_yield", "rt_sigpending", "getpriority", "ioprio_get",
	"sched_getparam", "sched_getscheduler", "sched_getattr", "sched_getaffinity",
	"sched_get_priority_max", "sched_get_priority_min",
	"get_mempolicy", "get_robust_list", "getrusage",
};

/*
 * Open in the contract: a number with a name but without an entry point in any configuration
 * may be "no system call" or "assigned but not configured"; and whether "the set*id family"
 * has in it the calls that change process groups and sessions.
 */
static const char * const retired[] = {
	"uselib", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "getpmsg",
	"putpmsg", "afs_syscall", "tuxcall", "security", "set_thread_area", "get_thread_area",
	"lookup_dcookie", "epoll_ctl_old", "epoll_wait_old", "vserver", "_sysctl",
};

static const char * const open_to_choice[] = { "setpgid", "setsid" };

#define is_in(list, name)	has_name(list, ARRAY_SIZE(list), name)

static bool has_name(const char * const *list, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

static const char *name_of(long nr)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(assigned); i++)
		if (assigned[i].nr == nr)
			return assigned[i].name;
	return NULL;
}

/* What a submission of the number with unreadable arguments must return. */
static long expected(const char *name, bool offload)
{
	if (!name)
		return -ENOSYS;
	if (is_in(refused, name))
		return -EOPNOTSUPP;
	if (is_in(in_place, name) && offload)
		return -EOPNOTSUPP;
	return -EFAULT;
}

static bool is_as_expected(const char *name, bool offload, long seen)
{
	if (name && is_in(retired, name))
		return seen == -ENOSYS || seen == -EFAULT;
	if (name && is_in(open_to_choice, name))
		return seen == -EOPNOTSUPP || seen == -EFAULT;
	return seen == expected(name, offload);
}

static long probe(unsigned long flags, long nr)
{
	long result = UNTOUCHED;
	long ret = async_submit(flags, &result, nr, BAD_ADDRESS);

	return result == UNTOUCHED ? ret : -EPROTO;
}

TEST(lists_name_calls_of_this_kernel)
{
	size_t i, known = 0;

	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		size_t k;

		for (k = 0; k < ARRAY_SIZE(assigned); k++)
			known += !strcmp(refused[i], assigned[k].name);
	}
	/* A few are of one architecture or of a later kernel. */
	EXPECT_LE(ARRAY_SIZE(refused) - 12, known);
	EXPECT_LT(280, ARRAY_SIZE(assigned));
}

TEST(every_number)
{
	long nr;

	for (nr = 0; nr <= LAST_NUMBER; nr++) {
		const char *name = name_of(nr);
		long seen = probe(0, nr);

		EXPECT_TRUE(is_as_expected(name, false, seen))
			TH_LOG("%ld %s: expected %ld, got %ld", nr, name ?: "(not assigned)",
			       expected(name, false), seen);
	}
}

TEST(every_number_offloaded)
{
	long nr;

	for (nr = 0; nr <= LAST_NUMBER; nr++) {
		const char *name = name_of(nr);
		long seen = probe(ASYNC_SUBMIT_OFFLOAD, nr);

		EXPECT_TRUE(is_as_expected(name, true, seen))
			TH_LOG("%ld %s: expected %ld, got %ld", nr, name ?: "(not assigned)",
			       expected(name, true), seen);
	}
}

TEST(x32_numbers_are_no_system_calls)
{
	long nr;

	ASSERT_EQ(-EFAULT, probe(0, __NR_getppid));
	for (nr = 0; nr < 600; nr++)
		ASSERT_EQ(-ENOSYS, probe(0, X32_BIT | nr));
}

TEST(negative_numbers_are_no_system_calls)
{
	long nr;

	ASSERT_EQ(-EFAULT, probe(0, __NR_getppid));
	for (nr = -600; nr < 0; nr++)
		ASSERT_EQ(-ENOSYS, probe(0, nr));
}

/* Calls that fail by their arguments and do nothing: an answer, whatever is configured. */
static const struct {
	long nr;
	unsigned long args[6];
} harmless[] = {
#ifdef __NR__sysctl
	{ __NR__sysctl, { 0 } },
#endif
#ifdef __NR_nfsservctl
	{ __NR_nfsservctl, { 0 } },
#endif
	{ __NR_bpf, { -1UL } },
	{ __NR_userfaultfd, { -1UL } },
	{ __NR_fanotify_init, { -1UL, -1UL } },
	{ __NR_process_vm_readv, { 0, 0, 0, 0, 0, -1UL } },
	{ __NR_mq_unlink, { 0 } },
	{ __NR_add_key, { 0 } },
	{ __NR_quotactl, { -1UL } },
	{ __NR_kcmp, { 0, 0, -1UL } },
	{ __NR_io_setup, { 0, 0 } },
	{ __NR_membarrier, { -1UL, -1UL } },
	{ __NR_memfd_create, { 0, -1UL } },
	{ __NR_epoll_create1, { -1UL } },
	{ __NR_timerfd_create, { -1UL, -1UL } },
	{ __NR_inotify_init1, { -1UL } },
	{ __NR_pidfd_open, { -1UL } },
	{ __NR_landlock_create_ruleset, { 0, 0, -1UL } },
	{ __NR_memfd_secret, { -1UL } },
	{ __NR_shmget, { 0, 0, 0 } },
	{ __NR_syslog, { -1UL } },
	{ __NR_swapon, { 0, -1UL } },
};

TEST(assigned_but_not_configured_stores_enosys)
{
	int missing = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(harmless); i++) {
		const unsigned long *args = harmless[i].args;
		const char *name = name_of(harmless[i].nr);
		long result = UNTOUCHED, direct, ret;

		direct = raw_call(harmless[i].nr, args[0], args[1], args[2], args[3], args[4],
				  args[5]);
		ASSERT_GT(0, direct);
		missing += direct == -ENOSYS;
		ret = async_submit(0, &result, harmless[i].nr, args);
		if (ret == -ENOSYS && is_in(retired, name))
			continue;
		EXPECT_EQ(0, ret)
			TH_LOG("%s", name);
		EXPECT_EQ(direct, result)
			TH_LOG("%s", name);
		if (is_in(in_place, name))
			continue;
		ret = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, harmless[i].nr, args);
		EXPECT_LT(0, ret);
		EXPECT_EQ(direct, final_value(ret, &result))
			TH_LOG("%s, offloaded", name);
	}
	TH_LOG("%d of %zu are not configured", missing, i);
}

static bool is_refused(long nr, const unsigned long *args)
{
	long result = UNTOUCHED;

	return async_submit(0, &result, nr, args) == -EOPNOTSUPP &&
	       async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args) == -EOPNOTSUPP &&
	       result == UNTOUCHED;
}

static bool is_in_place(long nr, const unsigned long *args)
{
	long result = UNTOUCHED;

	return async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args) == -EOPNOTSUPP &&
	       result == UNTOUCHED && async_submit(0, &result, nr, args) == 0 &&
	       result != UNTOUCHED;
}

static bool is_free(long nr, const unsigned long *args)
{
	long result = UNTOUCHED, cookie;

	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args);
	if (!is_cookie(cookie) || wait_for_async(0, cookie, &deadline))
		return false;
	result = UNTOUCHED;
	return async_submit(0, &result, nr, args) == 0 && result != UNTOUCHED;
}

TEST(close_range_that_unshares_is_refused)
{
	EXPECT_TRUE(is_refused(__NR_close_range, ARGS(1000, 2000, CLOSE_RANGE_UNSHARE)));
	EXPECT_TRUE(is_refused(__NR_close_range,
			       ARGS(1000, 2000, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)));
	/* The flags are an int to the call. */
	EXPECT_TRUE(is_refused(__NR_close_range,
			       ARGS(1000, 2000, 1UL << 32 | CLOSE_RANGE_UNSHARE)));
}

TEST(close_range_that_does_not_unshare_is_free)
{
	int high = fcntl(1, F_DUPFD, 900);
	long result = UNTOUCHED;

	ASSERT_LE(900, high);
	ASSERT_EQ(0, async_submit(0, &result, __NR_close_range, ARGS(900, 1000, 0)));
	EXPECT_EQ(0, result);
	EXPECT_EQ(-1, fcntl(high, F_GETFD));
}

TEST(pi_operations_of_futex_are_refused)
{
	static const int operations[] = {
		FUTEX_LOCK_PI, FUTEX_UNLOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_WAIT_REQUEUE_PI,
		FUTEX_CMP_REQUEUE_PI, FUTEX_LOCK_PI2,
	};
	unsigned int word = 0, target = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(operations); i++) {
		EXPECT_TRUE(is_refused(__NR_futex, ARGS(P(&word), operations[i], 1, 0,
							P(&target))))
			TH_LOG("operation %d", operations[i]);
		EXPECT_TRUE(is_refused(__NR_futex, ARGS(P(&word),
							operations[i] | FUTEX_PRIVATE_FLAG, 1, 0,
							P(&target))))
			TH_LOG("private operation %d", operations[i]);
		EXPECT_TRUE(is_refused(__NR_futex, ARGS(P(&word),
							operations[i] | FUTEX_CLOCK_REALTIME, 1,
							0, P(&target))))
			TH_LOG("realtime operation %d", operations[i]);
	}
	EXPECT_EQ(0, word);
}

TEST(upper_half_of_a_futex_operation_hides_nothing)
{
	unsigned int word = 0;

	EXPECT_TRUE(is_refused(__NR_futex, ARGS(P(&word), 1UL << 32 | FUTEX_TRYLOCK_PI)));
	EXPECT_EQ(0, word);
}

TEST(other_operations_of_futex_are_free)
{
	unsigned int word = 0;
	long result = UNTOUCHED;

	ASSERT_EQ(0, async_submit(0, &result, __NR_futex, ARGS(P(&word), FUTEX_WAKE_PRIVATE, 1)));
	EXPECT_EQ(0, result);
	ASSERT_EQ(0, async_submit(0, &result, __NR_futex, ARGS(P(&word), FUTEX_WAIT_PRIVATE, 9)));
	EXPECT_EQ(-EAGAIN, result);
}

/* They may give the thread the keyring, where it is one of those that a thread has. */
TEST(key_calls_are_in_place_by_their_keyring)
{
	static const long own[] = {
		KEY_SPEC_THREAD_KEYRING, KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_SESSION_KEYRING,
		KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(own); i++) {
		EXPECT_TRUE(is_in_place(__NR_add_key, ARGS(0, 0, 0, 0, own[i])));
		/* The keyring is an int to the call. */
		EXPECT_TRUE(is_in_place(__NR_add_key, ARGS(0, 0, 0, 0, (unsigned int)own[i])));
		EXPECT_TRUE(is_in_place(__NR_request_key, ARGS(0, 0, 0, own[i])));
	}
	EXPECT_TRUE(is_free(__NR_add_key, ARGS(0, 0, 0, 0, 1)));
	EXPECT_TRUE(is_free(__NR_request_key, ARGS(0, 0, 0, 0)));
	EXPECT_TRUE(is_free(__NR_request_key, ARGS(0, 0, 0, 1)));
}

TEST(attributes_of_the_task_are_looked_up_in_place)
{
	EXPECT_TRUE(is_in_place(__NR_lsm_get_self_attr, ARGS(LSM_ATTR_EXEC)));
	EXPECT_TRUE(is_in_place(__NR_lsm_get_self_attr, ARGS(LSM_ATTR_PREV)));
	EXPECT_TRUE(is_free(__NR_lsm_get_self_attr, ARGS(LSM_ATTR_CURRENT)));
}

TEST(polls_with_a_signal_mask_are_refused)
{
	static const struct timespec zero;
	const unsigned long mask = 0, set[2] = { P(&mask), sizeof(mask) };
	struct epoll_event event;
	int epoll = epoll_create1(0);

	ASSERT_LE(0, epoll);
	EXPECT_TRUE(is_refused(__NR_ppoll, ARGS(0, 0, P(&zero), P(&mask), sizeof(mask))));
	EXPECT_TRUE(is_refused(__NR_pselect6, ARGS(0, 0, 0, 0, P(&zero), P(set))));
	EXPECT_TRUE(is_refused(__NR_epoll_pwait, ARGS(epoll, P(&event), 1, 0, P(&mask),
						      sizeof(mask))));
}

TEST(polls_without_a_signal_mask_are_free)
{
	static const struct timespec zero;
	const unsigned long set[2] = { 0, 8 };
	struct epoll_event event;
	int epoll = epoll_create1(0);
	long result = UNTOUCHED;

	ASSERT_LE(0, epoll);
	ASSERT_EQ(0, async_submit(0, &result, __NR_ppoll, ARGS(0, 0, P(&zero), 0, 8)));
	EXPECT_EQ(0, result);
	result = UNTOUCHED;
	ASSERT_EQ(0, async_submit(0, &result, __NR_pselect6, ARGS(0, 0, 0, 0, P(&zero), 0)));
	EXPECT_EQ(0, result);
	result = UNTOUCHED;
	ASSERT_EQ(0, async_submit(0, &result, __NR_pselect6, ARGS(0, 0, 0, 0, P(&zero), P(set))));
	EXPECT_EQ(0, result);
	result = UNTOUCHED;
	ASSERT_EQ(0, async_submit(0, &result, __NR_epoll_pwait, ARGS(epoll, P(&event), 1, 0)));
	EXPECT_EQ(0, result);
}

TEST_HARNESS_MAIN
