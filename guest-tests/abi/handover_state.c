// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel keeps for each thread goes with the user context: clocks, timers, accounts,
 * scheduling, names and settings. Each is looked at before, during and after a hand-over, and
 * changed between two of them.
 */
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/signalfd.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* --- clocks and accounts ------------------------------------------------------------------ */

static long long clock_of(clockid_t clock)
{
	struct timespec ts;

	return clock_gettime(clock, &ts) ? -1 : ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static long long thread_clock(void)
{
	return clock_of(CLOCK_THREAD_CPUTIME_ID);
}

/* Uses up processor time. */
static void work(long long ns)
{
	long long end = thread_clock() + ns;

	while (thread_clock() < end)
		;
}

#define MS	1000000LL

IN_EITHER_THREAD(cpu_clock_is_carried)
{
	struct reading r;
	long long before, now, wall;
	clockid_t own;
	int i;

	CHECK_EQ(0, pthread_getcpuclockid(pthread_self(), &own));
	/* More than any worker has. */
	work(50 * MS);
	for (i = 0; i < 100; i++) {
		wall = now_ns();
		before = thread_clock();
		TRY(begin_reading(&r));
		now = thread_clock();
		wall = now_ns() - wall;
		/* It has no more time than there was: both clocks need not be as exact. */
		CHECK(now >= before && now - before <= wall + wall / 16 + 10 * MS);
		/* The clock by the tid is the same one. */
		before = clock_of(own);
		CHECK(before >= now);
		TRY(end_reading(&r));
		now = thread_clock();
		CHECK(now >= before);
	}
	return NULL;
}

/* The time of all threads together only grows, and is not counted twice. */
IN_EITHER_THREAD(cpu_clock_of_the_process)
{
	long long before, start, now, wall;
	cpu_set_t one;
	int i;

	/* Then it cannot have had more time than there was. */
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	CHECK_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	/* First, and last at the end: what is between two looks at clocks is there for both. */
	wall = now_ns();
	start = before = clock_of(CLOCK_PROCESS_CPUTIME_ID);
	for (i = 0; i < 100; i++) {
		TRY(hand_over_once());
		work(2 * MS);
		now = clock_of(CLOCK_PROCESS_CPUTIME_ID);
		CHECK(now >= before);
		before = now;
	}
	wall = now_ns() - wall;
	CHECK(before - start >= 200 * MS);
	/* Counted twice it would be far more, as one of its threads runs most of the time. */
	CHECK(before - start <= wall + wall / 16 + 20 * MS);
	return NULL;
}

static long long usage_us(const struct rusage *u)
{
	return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000LL +
	       u->ru_utime.tv_usec + u->ru_stime.tv_usec;
}

IN_EITHER_THREAD(resource_usage_is_carried)
{
	struct rusage before, now;
	struct reading r;
	char *page;
	int i;

	work(40 * MS);
	for (i = 0; i < 20; i++) {
		page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(page != MAP_FAILED);
		*page = 1;
		munmap(page, getpagesize());
	}
	CHECK_EQ(0, getrusage(RUSAGE_THREAD, &before));
	CHECK(before.ru_minflt >= 20);
	for (i = 0; i < 50; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, getrusage(RUSAGE_THREAD, &now));
		CHECK(usage_us(&now) >= usage_us(&before));
		CHECK(now.ru_minflt >= before.ru_minflt);
		CHECK(now.ru_majflt >= before.ru_majflt);
		CHECK(now.ru_nvcsw >= before.ru_nvcsw);
		CHECK(now.ru_nivcsw >= before.ru_nivcsw);
		before = now;
		TRY(end_reading(&r));
		CHECK_EQ(0, getrusage(RUSAGE_THREAD, &now));
		CHECK(usage_us(&now) >= usage_us(&before));
		CHECK(now.ru_nvcsw >= before.ru_nvcsw);
		before = now;
	}
	return NULL;
}

/* --- timers ------------------------------------------------------------------------------- */

static volatile sig_atomic_t expired, expired_in;

static void note_timer(int signal)
{
	expired_in = gettid();
	expired++;
}

static const char *make_timer(clockid_t clock, timer_t *timer)
{
	const struct sigaction action = { .sa_handler = note_timer, .sa_flags = SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };

	expired = 0;
	event._sigev_un._tid = gettid();
	CHECK_EQ(0, sigaction(SIGRTMIN, &action, NULL));
	CHECK_EQ(0, timer_create(clock, &event, timer));
	return NULL;
}

/* Set before a hand-over, expires after it, in the thread it was meant for. */
static const char *expires(clockid_t clock)
{
	const struct itimerspec soon = { .it_value.tv_nsec = 20 * MS };
	const struct itimerspec often = {
		.it_value.tv_nsec = 10 * MS,
		.it_interval.tv_nsec = 10 * MS,
	};
	struct itimerspec left;
	struct reading r;
	timer_t timer;
	int i, before;

	TRY(make_timer(clock, &timer));
	for (i = 0; i < 5; i++) {
		expired = 0;
		CHECK_EQ(0, timer_settime(timer, 0, &soon, NULL));
		TRY(begin_reading(&r));
		CHECK_EQ(0, timer_gettime(timer, &left));
		CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec <= 20 * MS);
		work(30 * MS);
		if (!becomes_true(expired))
			return trouble("round %d: timer of clock %d has not expired", i, clock);
		CHECK_EQ(1, expired);
		CHECK_EQ(gettid(), expired_in);
		TRY(end_reading(&r));
	}
	/* A timer that goes on, over many hand-overs. */
	CHECK_EQ(0, timer_settime(timer, 0, &often, NULL));
	before = expired;
	for (i = 0; i < 20; i++) {
		TRY(hand_over_among_others());
		work(5 * MS);
	}
	CHECK(becomes_true(expired > before + 3));
	CHECK_EQ(gettid(), expired_in);
	CHECK_EQ(0, timer_delete(timer));
	return NULL;
}

IN_EITHER_THREAD(timer_that_signals_the_thread)
{
	return expires(CLOCK_MONOTONIC);
}

IN_EITHER_THREAD(timer_of_the_cpu_clock_of_the_thread)
{
	return expires(CLOCK_THREAD_CPUTIME_ID);
}

IN_EITHER_THREAD(timer_of_the_cpu_clock_of_the_process)
{
	return expires(CLOCK_PROCESS_CPUTIME_ID);
}

/* Measures the thread that had the tid when it was made. */
IN_EITHER_THREAD(timer_made_after_hand_overs)
{
	const struct itimerspec soon = { .it_value.tv_nsec = 20 * MS };
	struct reading r;
	clockid_t own;
	timer_t timer;

	TRY(hand_over(3));
	TRY(begin_reading(&r));
	CHECK_EQ(0, pthread_getcpuclockid(pthread_self(), &own));
	TRY(make_timer(own, &timer));
	TRY(end_reading(&r));
	CHECK_EQ(0, timer_settime(timer, 0, &soon, NULL));
	work(30 * MS);
	CHECK(becomes_true(expired == 1));
	CHECK_EQ(gettid(), expired_in);
	CHECK_EQ(0, timer_delete(timer));
	return NULL;
}

IN_A_CHILD(limit_of_cpu_time)
{
	const struct rlimit one = { 1, 10 };
	const struct sigaction action = { .sa_handler = note_timer };
	long long end;
	struct reading r;

	CHECK_EQ(0, sigaction(SIGXCPU, &action, NULL));
	expired = 0;
	CHECK_EQ(0, setrlimit(RLIMIT_CPU, &one));
	TRY(begin_reading(&r));
	end = thread_clock() + 3000 * MS;
	while (!expired && thread_clock() < end)
		if (thread_clock() % (100 * MS) < MS)
			TRY(hand_over_among_others());
	CHECK(expired > 0);
	return end_reading(&r);
}

/* --- scheduling --------------------------------------------------------------------------- */

struct scheduling {
	int policy, priority, nice;
	cpu_set_t set;
	long slack;
	int io_priority;
	unsigned long long flags;
};

static const char *look(struct scheduling *s)
{
	struct sched_param param;

	memset(s, 0, sizeof(*s));
	s->policy = sched_getscheduler(0);
	CHECK_EQ(0, sched_getparam(0, &param));
	s->priority = param.sched_priority;
	errno = 0;
	s->nice = getpriority(PRIO_PROCESS, 0);
	CHECK_EQ(0, errno);
	CHECK_EQ(0, sched_getaffinity(0, sizeof(s->set), &s->set));
	s->slack = prctl(PR_GET_TIMERSLACK);
	s->io_priority = syscall(__NR_ioprio_get, 1, 0);
	return NULL;
}

static const char *is_same(const struct scheduling *a, const struct scheduling *b)
{
	CHECK_EQ(a->policy, b->policy);
	CHECK_EQ(a->priority, b->priority);
	CHECK_EQ(a->nice, b->nice);
	CHECK_EQ(a->slack, b->slack);
	CHECK_EQ(a->io_priority, b->io_priority);
	CHECK(CPU_EQUAL(&a->set, &b->set));
	return NULL;
}

/* Stays as it is over hand-overs, for who asks by the tid too. */
static const char *stays(void)
{
	struct scheduling before, now;
	struct reading r;
	int i;

	TRY(look(&before));
	for (i = 0; i < 3; i++) {
		TRY(begin_reading(&r));
		TRY(look(&now));
		TRY(is_same(&before, &now));
		CHECK_EQ(before.policy, sched_getscheduler(gettid()));
		CHECK_EQ(before.nice, getpriority(PRIO_PROCESS, gettid()));
		TRY(end_reading(&r));
		TRY(look(&now));
		TRY(is_same(&before, &now));
	}
	return NULL;
}

IN_A_CHILD(nice)
{
	int nice;

	/* Up and down again, between hand-overs and during them. */
	for (nice = 1; nice < 19; nice += 3) {
		struct reading r;

		CHECK_EQ(0, raw_call(__NR_setpriority, PRIO_PROCESS, 0, nice));
		TRY(stays());
		TRY(begin_reading(&r));
		CHECK_EQ(0, raw_call(__NR_setpriority, PRIO_PROCESS, 0, nice + 1));
		TRY(end_reading(&r));
		CHECK_EQ(nice + 1, getpriority(PRIO_PROCESS, 0));
		TRY(stays());
	}
	CHECK_EQ(0, raw_call(__NR_setpriority, PRIO_PROCESS, 0, -5));
	TRY(stays());
	CHECK_EQ(-5, getpriority(PRIO_PROCESS, 0));
	return NULL;
}

IN_A_CHILD(policy)
{
	static const struct {
		int policy, priority;
	} steps[] = {
		{ SCHED_BATCH, 0 }, { SCHED_IDLE, 0 }, { SCHED_FIFO, 5 }, { SCHED_RR, 10 },
		{ SCHED_FIFO, 6 }, { SCHED_OTHER, 0 }, { SCHED_RR | SCHED_RESET_ON_FORK, 3 },
		{ SCHED_OTHER | SCHED_RESET_ON_FORK, 0 }, { SCHED_OTHER, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		struct sched_param param = { .sched_priority = steps[i].priority };

		CHECK_EQ(0, sched_setscheduler(0, steps[i].policy, &param));
		CHECK_EQ(steps[i].policy, sched_getscheduler(0));
		TRY(stays());
		CHECK_EQ(steps[i].policy, sched_getscheduler(0));
	}
	return NULL;
}

/*
 * What a policy does not go by is kept for another one. A worker waits for the next call already,
 * and what is set after that is not looked at before the call sleeps.
 */
IN_A_CHILD(nice_that_a_policy_does_not_go_by)
{
	static const struct {
		int policy, priority;
	} steps[] = {
		{ SCHED_IDLE, 0 }, { SCHED_FIFO, 5 }, { SCHED_BATCH, 0 },
		{ SCHED_RR | SCHED_RESET_ON_FORK, 3 }, { SCHED_IDLE | SCHED_RESET_ON_FORK, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		struct sched_param param = { .sched_priority = steps[i].priority }, none = { };
		struct scheduling before, now;
		struct reading r;

		CHECK_EQ(0, sched_setscheduler(0, SCHED_OTHER, &none));
		TRY(hand_over_once());
		TRY(makes_a_call_in_place());
		CHECK_EQ(0, raw_call(__NR_setpriority, PRIO_PROCESS, 0, 5 + i));
		CHECK_EQ(0, sched_setscheduler(0, steps[i].policy, &param));
		TRY(look(&before));
		CHECK_EQ(5 + i, before.nice);
		TRY(begin_reading(&r));
		TRY(look(&now));
		TRY(is_same(&before, &now));
		TRY(end_reading(&r));
		TRY(stays());
		CHECK_EQ(0, sched_setscheduler(0, SCHED_OTHER, &none));
		CHECK_EQ(5 + i, getpriority(PRIO_PROCESS, 0));
		TRY(stays());
	}
	return NULL;
}

/* Changed for the thread by another one, which knows it by its tid. */
static pid_t changed;

static const char *changes_it(void)
{
	const struct sched_param param = { .sched_priority = 7 };

	CHECK_EQ(0, sched_setscheduler(changed, SCHED_RR, &param));
	return NULL;
}

IN_A_CHILD(policy_set_by_another_thread)
{
	struct reading r;

	TRY(begin_reading(&r));
	changed = gettid();
	TRY(run_in(true, changes_it));
	CHECK_EQ(SCHED_RR, sched_getscheduler(0));
	TRY(end_reading(&r));
	TRY(stays());
	CHECK_EQ(SCHED_RR, sched_getscheduler(0));
	return NULL;
}

struct deadline_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static const char *has_slice(uint64_t slice)
{
	struct deadline_attr now = { };

	CHECK_EQ(0, raw_call(__NR_sched_getattr, 0, &now, sizeof(now), 0));
	CHECK_EQ(slice, now.runtime);
	return NULL;
}

IN_A_CHILD(time_slice)
{
	struct deadline_attr attr = {
		.size = sizeof(attr),
		.policy = SCHED_OTHER,
		.runtime = 7 * MS,
	};
	const struct sched_param param = { .sched_priority = 1 }, none = { };

	TRY(makes_a_call_in_place());
	CHECK_EQ(0, raw_call(__NR_sched_setattr, 0, &attr, 0));
	TRY(has_slice(7 * MS));
	TRY(hand_over_once());
	TRY(has_slice(7 * MS));
	/* It is there still, for nobody to see. */
	TRY(makes_a_call_in_place());
	CHECK_EQ(0, sched_setscheduler(0, SCHED_RR, &param));
	TRY(hand_over_once());
	TRY(makes_a_call_in_place());
	CHECK_EQ(0, sched_setscheduler(0, SCHED_IDLE, &none));
	TRY(hand_over_once());
	return NULL;
}

IN_A_CHILD(deadline_policy)
{
	struct deadline_attr attr = {
		.size = sizeof(attr),
		.policy = SCHED_DEADLINE,
		.runtime = 10 * MS,
		.deadline = 100 * MS,
		.period = 100 * MS,
	}, now = { };
	long result = UNTOUCHED, cookie;
	char byte = 0;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(0, raw_call(__NR_sched_setattr, 0, &attr, 0));
	/* Whichever way it goes: a cookie, and the policy is what it was. */
	cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
	CHECK(is_cookie(cookie));
	CHECK_EQ(0, raw_call(__NR_sched_getattr, 0, &now, sizeof(now), 0));
	CHECK_EQ(SCHED_DEADLINE, now.policy);
	CHECK_EQ(attr.runtime, now.runtime);
	CHECK_EQ(attr.deadline, now.deadline);
	CHECK_EQ(attr.period, now.period);
	CHECK_EQ(1, write(fds[1], "x", 1));
	CHECK_EQ(1, final_value(cookie, &result));
	return NULL;
}

IN_A_CHILD(affinity)
{
	cpu_set_t all, set;
	int cpu;

	CHECK_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (cpu = 0; cpu < 8; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		CHECK_EQ(0, sched_setaffinity(0, sizeof(set), &set));
		TRY(stays());
		CHECK_EQ(cpu, sched_getcpu());
		CHECK_EQ(0, sched_setaffinity(0, sizeof(all), &all));
		TRY(stays());
	}
	return NULL;
}

IN_A_CHILD(timer_slack_and_io_priority)
{
	int i;

	/* A worker is there before the thread has a priority of its own to share. */
	TRY(stays());
	for (i = 1; i < 5; i++) {
		CHECK_EQ(0, prctl(PR_SET_TIMERSLACK, 100000 + i));
		CHECK_EQ(0, raw_call(__NR_ioprio_set, 1, 0, IOPRIO_PRIO_VALUE(2, i)));
		TRY(stays());
		CHECK_EQ(100000 + i, prctl(PR_GET_TIMERSLACK));
		CHECK_EQ(IOPRIO_PRIO_VALUE(2, i), syscall(__NR_ioprio_get, 1, 0));
	}
	/* Back to the default one. */
	CHECK_EQ(0, prctl(PR_SET_TIMERSLACK, 0));
	TRY(stays());
	CHECK_EQ(50000, prctl(PR_GET_TIMERSLACK));
	return NULL;
}

/* --- settings ----------------------------------------------------------------------------- */

static const char *keeps_its_memory_policy(void)
{
	const unsigned long first_node = 1;
	struct reading r[3];
	int mode = -1, i;

	CHECK_EQ(0, raw_call(__NR_get_mempolicy, &mode, NULL, 0, NULL, 0));
	CHECK_EQ(MPOL_DEFAULT, mode);
	TRY(hand_over(2));
	CHECK_EQ(0, raw_call(__NR_set_mempolicy, MPOL_BIND, &first_node, 8 * sizeof(first_node)));
	for (i = 0; i < 3; i++) {
		TRY(begin_reading(&r[i]));
		CHECK_EQ(0, raw_call(__NR_get_mempolicy, &mode, NULL, 0, NULL, 0));
		CHECK_EQ(MPOL_BIND, mode);
	}
	CHECK_EQ(0, raw_call(__NR_set_mempolicy, MPOL_DEFAULT, NULL, 0));
	for (i = 0; i < 3; i++) {
		TRY(end_reading(&r[i]));
		TRY(hand_over_once());
		CHECK_EQ(0, raw_call(__NR_get_mempolicy, &mode, NULL, 0, NULL, 0));
		CHECK_EQ(MPOL_DEFAULT, mode);
	}
	return NULL;
}

TEST_F(thread, memory_policy)
{
	int mode;

	if (raw_call(__NR_get_mempolicy, &mode, NULL, 0, NULL, 0))
		SKIP(return, "no memory policies");
	EXPECT_FINE(run_in_child(variant->other, keeps_its_memory_policy));
}

IN_A_CHILD(name)
{
	char name[16], path[64], text[32];
	struct reading r;
	int i;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", gettid());
	for (i = 0; i < 10; i++) {
		char mine[16];

		snprintf(mine, sizeof(mine), "name %d", i);
		CHECK_EQ(0, prctl(PR_SET_NAME, mine));
		TRY(begin_reading(&r));
		CHECK_EQ(0, prctl(PR_GET_NAME, name));
		CHECK(!strcmp(mine, name));
		CHECK(read_text(path, text, sizeof(text)));
		CHECK(!strncmp(mine, text, strlen(mine)));
		/* Written by name of the file, while the call is outstanding. */
		snprintf(mine, sizeof(mine), "other %d", i);
		CHECK(write_text(path, mine));
		TRY(end_reading(&r));
		CHECK_EQ(0, prctl(PR_GET_NAME, name));
		CHECK(!strcmp(mine, name));
	}
	return NULL;
}

IN_A_CHILD(personality_and_securebits)
{
	struct reading r;

	CHECK(personality(ADDR_NO_RANDOMIZE) >= 0);
	CHECK_EQ(0, prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP));
	TRY(begin_reading(&r));
	CHECK_EQ(ADDR_NO_RANDOMIZE, personality(0xffffffff));
	CHECK_EQ(SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP, prctl(PR_GET_SECUREBITS));
	CHECK_EQ(1, prctl(PR_GET_KEEPCAPS));
	CHECK(personality(0) >= 0);
	CHECK_EQ(0, prctl(PR_SET_SECUREBITS, 0));
	TRY(end_reading(&r));
	CHECK_EQ(0, personality(0xffffffff));
	TRY(hand_over(2));
	CHECK_EQ(0, prctl(PR_GET_SECUREBITS));
	CHECK_EQ(0, personality(0xffffffff));
	return NULL;
}

IN_A_CHILD(no_new_privs)
{
	struct reading r;
	char text[2048];

	TRY(hand_over(3));
	CHECK_EQ(0, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	CHECK_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	TRY(begin_reading(&r));
	CHECK_EQ(1, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	CHECK(read_text("/proc/thread-self/status", text, sizeof(text)));
	CHECK(strstr(text, "NoNewPrivs:\t1"));
	TRY(end_reading(&r));
	CHECK_EQ(1, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	return NULL;
}

#ifdef __x86_64__

static volatile sig_atomic_t faulted;

static void skip_rdtsc(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	faulted++;
	uc->uc_mcontext.gregs[REG_RIP] += 2;
}

static bool tsc_faults(void)
{
	int before = faulted;

	asm volatile("rdtsc" : : : "eax", "edx");
	return faulted != before;
}

IN_A_CHILD(time_stamp_counter)
{
	const struct sigaction action = { .sa_sigaction = skip_rdtsc, .sa_flags = SA_SIGINFO };
	struct reading r;
	int mode;

	CHECK_EQ(0, sigaction(SIGSEGV, &action, NULL));
	TRY(begin_reading(&r));
	CHECK_EQ(0, prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	/* From here on the clock is read by system calls, as the vDSO uses the counter. */
	CHECK(tsc_faults());
	CHECK_EQ(1, write(r.fds[1], "x", 1));
	CHECK_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	r.s.cookie = async_submit(0, &r.s.result, __NR_read, ARGS(r.fds[0], P(&r.byte), 1));
	CHECK(is_cookie(r.s.cookie));
	CHECK(tsc_faults());
	CHECK_EQ(0, prctl(PR_GET_TSC, &mode));
	CHECK_EQ(PR_TSC_SIGSEGV, mode);
	CHECK_EQ(0, prctl(PR_SET_TSC, PR_TSC_ENABLE));
	CHECK(!tsc_faults());
	TRY(end_reading(&r));
	TRY(hand_over(2));
	CHECK(!tsc_faults());
	CHECK_EQ(0, prctl(PR_GET_TSC, &mode));
	CHECK_EQ(PR_TSC_ENABLE, mode);
	return NULL;
}

#endif

IN_A_CHILD(io_flusher)
{
	struct reading r;

	CHECK_EQ(0, prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0));
	TRY(begin_reading(&r));
	CHECK_EQ(1, prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
	CHECK_EQ(0, prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0));
	TRY(end_reading(&r));
	TRY(hand_over(2));
	CHECK_EQ(0, prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
	return NULL;
}

/* --- things that are found by the thread -------------------------------------------------- */

/* signalfd() shows what is pending for the thread that reads it. */
IN_EITHER_THREAD(signal_descriptor)
{
	struct signalfd_siginfo info;
	struct reading r;
	sigset_t set;
	int fd, i;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 2);
	CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	fd = signalfd(-1, &set, SFD_NONBLOCK);
	CHECK(fd >= 0);
	for (i = 0; i < 10; i++) {
		struct pollfd entry = { .fd = fd, .events = POLLIN };
		const union sigval value = { .sival_int = i };

		/* Sent before the hand-over, and after it. */
		if (i % 2)
			CHECK_EQ(0, pthread_sigqueue(pthread_self(), SIGRTMIN + 2, value));
		TRY(begin_reading(&r));
		if (!(i % 2))
			CHECK_EQ(0, pthread_sigqueue(pthread_self(), SIGRTMIN + 2, value));
		CHECK_EQ(1, poll(&entry, 1, 0));
		CHECK_EQ(sizeof(info), read(fd, &info, sizeof(info)));
		CHECK_EQ(SIGRTMIN + 2, info.ssi_signo);
		CHECK_EQ(i, info.ssi_int);
		CHECK_EQ(-1, read(fd, &info, sizeof(info)));
		TRY(end_reading(&r));
	}
	close(fd);
	return NULL;
}

/* What SEM_UNDO is to undo, is undone when the process ends, and not before. */
static int semaphore;

static const char *takes_it(void)
{
	struct sembuf take = { .sem_op = -1, .sem_flg = SEM_UNDO };
	struct reading r;

	TRY(hand_over(2));
	CHECK_EQ(0, semop(semaphore, &take, 1));
	TRY(begin_reading(&r));
	CHECK_EQ(2, semctl(semaphore, 0, GETVAL));
	CHECK_EQ(0, semop(semaphore, &take, 1));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK_EQ(1, semctl(semaphore, 0, GETVAL));
	return NULL;
}

TEST_F(thread, undo_of_semaphores)
{
	semaphore = semget(IPC_PRIVATE, 1, 0600);
	ASSERT_LE(0, semaphore);
	ASSERT_EQ(0, semctl(semaphore, 0, SETVAL, 3));
	EXPECT_FINE(run_in_child(variant->other, takes_it));
	EXPECT_EQ(3, semctl(semaphore, 0, GETVAL));
	ASSERT_EQ(0, semctl(semaphore, 0, IPC_RMID));
}

/* A semop that sleeps and is handed over is undone for the process as well. */
static const char *takes_it_asynchronously(void)
{
	struct sembuf take = { .sem_op = -1, .sem_flg = SEM_UNDO };
	struct sembuf give = { .sem_op = 1 };
	struct submission s;

	TRY(submit_sleeping(&s, __NR_semop, ARGS(semaphore, P(&take), 1)));
	CHECK_EQ(0, semop(semaphore, &give, 1));
	TRY(ends_with(&s, 0));
	CHECK_EQ(0, semctl(semaphore, 0, GETVAL));
	return hand_over(2);
}

TEST_F(thread, undo_of_a_call_that_was_handed_over)
{
	semaphore = semget(IPC_PRIVATE, 1, 0600);
	ASSERT_LE(0, semaphore);
	EXPECT_FINE(run_in_child(variant->other, takes_it_asynchronously));
	EXPECT_EQ(1, semctl(semaphore, 0, GETVAL));
	ASSERT_EQ(0, semctl(semaphore, 0, IPC_RMID));
}

/* Working directory, root and mask belong to the process, or to the thread that left it. */
IN_A_CHILD(directory_and_mask_of_its_own)
{
	char directory[64];
	struct reading r;

	TRY(hand_over(3));
	CHECK_EQ(0, unshare(CLONE_FS));
	CHECK_EQ(0, chdir("/proc"));
	umask(027);
	TRY(begin_reading(&r));
	CHECK(getcwd(directory, sizeof(directory)) != NULL);
	CHECK(!strcmp("/proc", directory));
	CHECK_EQ(027, umask(026));
	CHECK_EQ(0, chdir("/"));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK(getcwd(directory, sizeof(directory)) != NULL);
	CHECK(!strcmp("/", directory));
	CHECK_EQ(026, umask(022));
	return NULL;
}

/* A table of descriptors that the thread does not share with the others. */
IN_A_CHILD(descriptors_of_its_own)
{
	struct reading r;
	int fd;

	TRY(hand_over(3));
	CHECK_EQ(0, unshare(CLONE_FILES));
	TRY(begin_reading(&r));
	fd = dup(r.fds[0]);
	CHECK(fd >= 0);
	TRY(end_reading(&r));
	TRY(hand_over(3));
	CHECK_EQ(0, close(fd));
	return NULL;
}

/* --- what others set ---------------------------------------------------------------------- */

static struct {
	volatile pid_t tid;
	volatile bool over;
} settled;

/* One setting after the other, each of which is there as soon as it is made. */
static const char *settles(void)
{
	struct sched_param param = { };
	cpu_set_t all, one, seen;
	long n;

	CHECK_EQ(0, sched_getaffinity(0, sizeof(all), &all));
	for (n = 0; !settled.over; n++) {
		const int policy = n % 3 ? SCHED_OTHER : SCHED_BATCH, nice = n % 20;

		CHECK_EQ(0, setpriority(PRIO_PROCESS, settled.tid, nice));
		errno = 0;
		CHECK_EQ(nice, getpriority(PRIO_PROCESS, settled.tid));
		CHECK_EQ(0, errno);
		CHECK_EQ(0, sched_setscheduler(settled.tid, policy, &param));
		CHECK_EQ(policy, sched_getscheduler(settled.tid));
		CPU_ZERO(&one);
		CPU_SET(n % CPU_COUNT(&all), &one);
		CHECK_EQ(0, sched_setaffinity(settled.tid, sizeof(one), n % 2 ? &all : &one));
		CHECK_EQ(0, sched_getaffinity(settled.tid, sizeof(seen), &seen));
		if (!CPU_EQUAL(&seen, n % 2 ? &all : &one))
			return trouble("%s:%d: %ld: allowed on %#lx of %#lx, not on %#lx",
				       __FILE__, __LINE__, n, seen.__bits[0], all.__bits[0],
				       (n % 2 ? &all : &one)->__bits[0]);
	}
	CHECK(n > 10);
	return NULL;
}

/* The thread may go on as another task at the very moment that something is set. */
IN_EITHER_THREAD_TIMEOUT(settings_made_by_another_thread, 300)
{
	const char *found = NULL;
	body_fn body = settles;
	pthread_t thread;
	void *theirs;
	int i;

	if (geteuid())
		return NULL;
	settled.tid = gettid();
	settled.over = false;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	for (i = 0; i < times(400, 30000) && !found; i++)
		found = hand_over_among_others();
	settled.over = true;
	CHECK_EQ(0, pthread_join(thread, &theirs));
	TRY(theirs);
	return found;
}

TEST_HARNESS_MAIN
