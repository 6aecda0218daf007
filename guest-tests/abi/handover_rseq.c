// SPDX-License-Identifier: GPL-2.0
/* The area of restartable sequences is the thread's, whichever task is that. */
#include <linux/rseq.h>
#include <sys/rseq.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* libc's own area of the calling thread, which the kernel keeps up to date. */
static volatile struct rseq *area(void)
{
	return (volatile struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static int cpus;

static const char *pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_EQ(0, sched_setaffinity(0, sizeof(set), &set));
	return NULL;
}

/* sched_getcpu() of libc reads the area itself: the kernel is asked. */
static int cpu_by_kernel(void)
{
	unsigned int cpu;

	return syscall(__NR_getcpu, &cpu, NULL, NULL) ? -1 : (int)cpu;
}

#define CHECK_AREA(cpu)							\
do {									\
	CHECK_EQ(cpu, cpu_by_kernel());					\
	CHECK_EQ(cpu, area()->cpu_id);					\
	CHECK_EQ(cpu, area()->cpu_id_start);				\
} while (0)

static bool is_there(void)
{
	cpu_set_t set;

	cpus = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
	return __rseq_size && (int)area()->cpu_id >= 0;
}

static const char *is_current_over_migrations(void)
{
	struct reading r;
	int i, cpu;

	for (i = 0; i < times(300, 20000); i++) {
		cpu = i % cpus;
		TRY(pin(cpu));
		CHECK_AREA(cpu);
		TRY(begin_reading(&r));
		CHECK_AREA(cpu);
		/* Moved while the call sleeps elsewhere. */
		cpu = (i + 1) % cpus;
		TRY(pin(cpu));
		CHECK_AREA(cpu);
		TRY(end_reading(&r));
		CHECK_AREA(cpu);
	}
	return NULL;
}

TEST_F_TIMEOUT(thread, cpu_is_current_over_migrations, 300)
{
	if (!is_there())
		SKIP(return, "no rseq area");
	EXPECT_FINE(run_in(variant->other, is_current_over_migrations));
}

static const char *is_registered(void)
{
	const unsigned int signature = 0x53053053;
	struct reading r;

	TRY(begin_reading(&r));
	/* The same area once more: busy. Another one: not allowed. */
	CHECK_EQ(-EBUSY, raw_call(__NR_rseq, area(), 32, 0, signature));
	CHECK_EQ(-EPERM, raw_call(__NR_rseq, area(), 32, 0, signature ^ 1));
	TRY(end_reading(&r));
	CHECK_EQ(-EBUSY, raw_call(__NR_rseq, area(), 32, 0, signature));
	/* It can be unregistered, stays that way, and can be registered again. */
	CHECK_EQ(0, raw_call(__NR_rseq, area(), 32, RSEQ_FLAG_UNREGISTER, signature));
	TRY(begin_reading(&r));
	CHECK_EQ(-1, (int)area()->cpu_id);
	CHECK_EQ(-EINVAL, raw_call(__NR_rseq, area(), 32, RSEQ_FLAG_UNREGISTER, signature));
	CHECK_EQ(0, raw_call(__NR_rseq, area(), 32, 0, signature));
	TRY(end_reading(&r));
	CHECK_EQ(-EBUSY, raw_call(__NR_rseq, area(), 32, 0, signature));
	TRY(pin(cpus - 1));
	CHECK_AREA(cpus - 1);
	return NULL;
}

TEST_F(thread, registration_stays)
{
	if (!is_there() || __rseq_size < 20)
		SKIP(return, "no rseq area");
	EXPECT_FINE(run_in(variant->other, is_registered));
}

/* A worker writes into nobody's area: two threads on processors of their own. */
static bool enough;

static void *hands_over(void *argument)
{
	const char *found = pin(0);

	while (!found && !__atomic_load_n(&enough, __ATOMIC_RELAXED))
		found = hand_over_among_others();
	return (void *)found;
}

static const char *stays_while_others_hand_over(void)
{
	pthread_t thread;
	void *found;
	int i;

	TRY(pin(cpus - 1));
	enough = false;
	CHECK_EQ(0, pthread_create(&thread, NULL, hands_over, NULL));
	for (i = 0; i < times(300, 20000); i++) {
		CHECK_AREA(cpus - 1);
		TRY(hand_over_among_others());
		CHECK_AREA(cpus - 1);
	}
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	CHECK_EQ(0, pthread_join(thread, &found));
	return found;
}

TEST_F_TIMEOUT(thread, area_is_its_own, 300)
{
	if (!is_there() || cpus < 2)
		SKIP(return, "needs an rseq area and two processors");
	EXPECT_FINE(run_in(variant->other, stays_while_others_hand_over));
}

/*
 * The worker ends its call on one processor while the thread is on another one. Nothing between
 * that and the look at the area would have the kernel write it anew.
 */
static const char *stays_while_its_worker_ends(void)
{
	struct reading r;
	long long end;
	int i;

	for (i = 0; i < times(50, 2000); i++) {
		TRY(pin(0));
		TRY(begin_reading(&r));
		TRY(pin(cpus - 1));
		CHECK_AREA(cpus - 1);
		CHECK_EQ(1, write(r.fds[1], "x", 1));
		/* Without a call: that is what would write the area anew. */
		end = now_ns() + DEADLINE_S * 1000000000LL;
		while (result_of(&r.s.result) == r.s.cookie && now_ns() < end)
			;
		CHECK_AREA(cpus - 1);
		CHECK_EQ(1, result_of(&r.s.result));
		close(r.fds[0]);
		close(r.fds[1]);
	}
	return NULL;
}

TEST_F_TIMEOUT(thread, area_is_not_that_of_its_worker, 300)
{
	if (!is_there() || cpus < 2)
		SKIP(return, "needs an rseq area and two processors");
	EXPECT_FINE(run_in(variant->other, stays_while_its_worker_ends));
}

#ifdef __x86_64__

/*
 * A critical section that is interrupted by a signal aborts, in the task that has taken over as
 * in any: it spins until the handler has run, so it can only be left by the abort.
 */
static volatile sig_atomic_t handled;

static void note(int signal)
{
	handled = 1;
}

static const char *aborts(void)
{
	const struct sigaction action = { .sa_handler = note };
	/* It goes on: the first may come too early, on a host with other work. */
	const struct itimerspec soon = {
		.it_value.tv_nsec = 2 * 1000 * 1000,
		.it_interval.tv_nsec = 2 * 1000 * 1000,
	}, never = { };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	volatile struct rseq *rseq = area();
	int i, aborted;
	timer_t timer;

	CHECK_EQ(0, sigaction(SIGALRM, &action, NULL));
	event._sigev_un._tid = gettid();
	CHECK_EQ(0, timer_create(CLOCK_MONOTONIC, &event, &timer));
	for (i = 0; i < 10; i++) {
		struct reading r;

		TRY(begin_reading(&r));
		handled = 0;
		CHECK_EQ(0, timer_settime(timer, 0, &soon, NULL));
		asm volatile(
			".pushsection __rseq_cs, \"aw\"\n\t"
			".balign 32\n\t"
			"3:\n\t"
			".long 0, 0\n\t"
			".quad 1f, 2f - 1f, 4f\n\t"
			".popsection\n\t"
			"leaq 3b(%%rip), %%rax\n\t"
			"movq %%rax, %[cs]\n\t"
			"1:\n\t"
			"pause\n\t"
			"jmp 1b\n\t"
			"2:\n\t"
			".long 0x53053053\n\t"
			"4:\n\t"
			"movl $1, %[aborted]\n\t"
			: [aborted] "=m"(aborted), [cs] "=m"(rseq->rseq_cs)
			: : "rax", "memory");
		CHECK_EQ(1, aborted);
		CHECK(becomes_true(handled));
		CHECK_EQ(0, timer_settime(timer, 0, &never, NULL));
		CHECK_EQ(0, rseq->rseq_cs);
		TRY(end_reading(&r));
	}
	return NULL;
}

TEST_F(thread, critical_section_is_aborted)
{
	if (!is_there())
		SKIP(return, "no rseq area");
	EXPECT_FINE(run_in(variant->other, aborts));
}

#endif

TEST_HARNESS_MAIN
