// SPDX-License-Identifier: GPL-2.0
/*
 * Locks know their owner by its tid, and the kernel knows where a thread keeps the robust ones:
 * both stay true over hand-overs, in the thread, and in the tasks it has left behind.
 */
#include <dirent.h>
#include <linux/futex.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()
PATIENCE()

/* Every kind of mutex: type, robustness, protocol, and whether processes share it. */
struct kind {
	int type;
	int robust;
	int protocol;
	int shared;
};

FIXTURE(mutex)
{
};

FIXTURE_VARIANT(mutex)
{
	bool other;
	int protocol;
};

FIXTURE_VARIANT_ADD(mutex, main)
{
	.other = false,
	.protocol = PTHREAD_PRIO_NONE,
};

FIXTURE_VARIANT_ADD(mutex, other)
{
	.other = true,
	.protocol = PTHREAD_PRIO_NONE,
};

FIXTURE_VARIANT_ADD(mutex, main_inheriting)
{
	.other = false,
	.protocol = PTHREAD_PRIO_INHERIT,
};

FIXTURE_VARIANT_ADD(mutex, other_inheriting)
{
	.other = true,
	.protocol = PTHREAD_PRIO_INHERIT,
};

FIXTURE_SETUP(mutex)
{
}

FIXTURE_TEARDOWN(mutex)
{
}

static int protocol;

static const char *make(pthread_mutex_t *mutex, const struct kind *kind)
{
	pthread_mutexattr_t attributes;

	CHECK_EQ(0, pthread_mutexattr_init(&attributes));
	CHECK_EQ(0, pthread_mutexattr_settype(&attributes, kind->type));
	CHECK_EQ(0, pthread_mutexattr_setrobust(&attributes, kind->robust));
	CHECK_EQ(0, pthread_mutexattr_setprotocol(&attributes, kind->protocol));
	CHECK_EQ(0, pthread_mutexattr_setpshared(&attributes, kind->shared));
	CHECK_EQ(0, pthread_mutex_init(mutex, &attributes));
	return NULL;
}

/* The n-th of all kinds, of the protocol of the variant. */
static bool get_kind(int n, struct kind *kind)
{
	static const int types[] = {
		PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE,
	};

	if (n >= 12)
		return false;
	kind->type = types[n % 3];
	kind->robust = n / 3 % 2 ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED;
	kind->protocol = protocol;
	kind->shared = n / 6 ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE;
	return true;
}

static pthread_mutex_t mutex;

static const char *finds_it_busy(void)
{
	CHECK_EQ(EBUSY, pthread_mutex_trylock(&mutex));
	return NULL;
}

static const char *finds_it_free(void)
{
	CHECK_EQ(0, pthread_mutex_trylock(&mutex));
	CHECK_EQ(0, pthread_mutex_unlock(&mutex));
	return NULL;
}

static const char *holds_over_hand_overs(const struct kind *kind)
{
	struct reading r;

	TRY(make(&mutex, kind));
	CHECK_EQ(0, pthread_mutex_lock(&mutex));
	TRY(begin_reading(&r));
	switch (kind->type) {
	case PTHREAD_MUTEX_ERRORCHECK:
		CHECK_EQ(EDEADLK, pthread_mutex_lock(&mutex));
		break;
	case PTHREAD_MUTEX_RECURSIVE:
		CHECK_EQ(0, pthread_mutex_lock(&mutex));
		TRY(hand_over_once());
		CHECK_EQ(0, pthread_mutex_unlock(&mutex));
		break;
	default:
		CHECK_EQ(EBUSY, pthread_mutex_trylock(&mutex));
	}
	TRY(run_in(true, finds_it_busy));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	TRY(run_in(true, finds_it_busy));
	CHECK_EQ(0, pthread_mutex_unlock(&mutex));
	if (kind->type != PTHREAD_MUTEX_NORMAL)
		CHECK_EQ(EPERM, pthread_mutex_unlock(&mutex));
	TRY(run_in(true, finds_it_free));
	CHECK_EQ(0, pthread_mutex_destroy(&mutex));
	return NULL;
}

static const char *holds_every_kind(void)
{
	struct kind kind;
	int i, n;

	for (i = 0; i < times(4, 200); i++)
		for (n = 0; get_kind(n, &kind); n++)
			TRY(holds_over_hand_overs(&kind));
	CHECK_EQ(0, counter("fell_back"));
	return NULL;
}

TEST_F_TIMEOUT(mutex, held_over_hand_overs, 300)
{
	protocol = variant->protocol;
	EXPECT_FINE(run_in(variant->other, holds_every_kind));
}

/* --- with others waiting ---------------------------------------------------------------- */

enum { THREADS = 4 };

static long count;

static const char *counts(void)
{
	struct reading r;
	int i;

	for (i = 0; i < times(60, 2000); i++) {
		long before;

		CHECK_EQ(0, pthread_mutex_lock(&mutex));
		before = count;
		/* Others wait for the mutex meanwhile. */
		r.byte = 0;
		CHECK_EQ(0, pipe(r.fds));
		r.s.cookie = async_submit(0, &r.s.result, __NR_read,
					  ARGS(r.fds[0], P(&r.byte), 1));
		CHECK(is_cookie(r.s.cookie));
		count = before + 1;
		CHECK_EQ(0, pthread_mutex_unlock(&mutex));
		TRY(end_reading(&r));
	}
	return NULL;
}

static const char *count_together(const struct kind *kind)
{
	static body_fn body = counts;
	pthread_t threads[THREADS];
	void *found;
	int i;

	count = 0;
	TRY(make(&mutex, kind));
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	TRY(counts());
	for (i = 0; i < THREADS; i++) {
		CHECK_EQ(0, pthread_join(threads[i], &found));
		TRY(found);
	}
	CHECK_EQ((THREADS + 1) * times(60, 2000), count);
	CHECK_EQ(0, pthread_mutex_destroy(&mutex));
	return NULL;
}

PATIENT_TEST(contended_mutexes, 300)
{
	static const struct kind kinds[] = {
		{ PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE },
		{ PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE },
		{ PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		ASSERT_FINE(count_together(&kinds[i]));
}

/* Waiters come at any moment, also between the start of the call and its sleep. */
PATIENT_TEST(contended_pi_mutexes, 300)
{
	static const struct kind kinds[] = {
		{ PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_INHERIT },
		{ PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		ASSERT_FINE(count_together(&kinds[i]));
}

/* --- PI futexes with a waiter ----------------------------------------------------------- */

struct waiter {
	pthread_t thread;
	pid_t tid;
	int got;
};

static void *wait_for_mutex(void *argument)
{
	struct waiter *waiter = argument;

	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_RELEASE);
	waiter->got = pthread_mutex_lock(&mutex);
	if (!waiter->got)
		waiter->got = pthread_mutex_unlock(&mutex);
	return NULL;
}

static bool waits(struct waiter *waiter)
{
	pid_t tid = __atomic_load_n(&waiter->tid, __ATOMIC_ACQUIRE);

	return tid && thread_state(tid) == 'S' && mutex.__data.__lock & FUTEX_WAITERS;
}

/* The kernel knows the owner as a task: it must not become another one, and need not wait. */
IN_EITHER_THREAD(pi_futex_with_a_waiter_falls_back)
{
	const struct kind kind = { PTHREAD_MUTEX_ERRORCHECK, 0, PTHREAD_PRIO_INHERIT };
	long result = UNTOUCHED, handed_over;
	struct waiter waiter = { };
	struct reading r;
	int i;

	TRY(make(&mutex, &kind));
	for (i = 0; i < 10; i++) {
		long fell_back = counter("fell_back_pi_futex");

		waiter.tid = 0;
		CHECK_EQ(0, pthread_mutex_lock(&mutex));
		TRY(hand_over_once());
		CHECK_EQ(0, pthread_create(&waiter.thread, NULL, wait_for_mutex, &waiter));
		CHECK(becomes_true(waits(&waiter)));

		/* A call that sleeps: outstanding, by a worker. */
		handed_over = counter("handed_over");
		CHECK_EQ(0, pipe(r.fds));
		r.byte = 0;
		r.s.result = UNTOUCHED;
		r.s.cookie = async_submit(0, &r.s.result, __NR_read,
					  ARGS(r.fds[0], P(&r.byte), 1));
		CHECK(is_cookie(r.s.cookie));
		/* One that does not: complete. */
		CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
		CHECK_EQ(getppid(), result);
		CHECK_EQ(handed_over, counter("handed_over"));
		CHECK_EQ(fell_back + 2, counter("fell_back_pi_futex"));
		CHECK_EQ(counter("fell_back"), counter("fell_back_pi_futex"));

		CHECK_EQ(0, pthread_mutex_unlock(&mutex));
		CHECK_EQ(0, pthread_join(waiter.thread, NULL));
		CHECK_EQ(0, waiter.got);
		TRY(end_reading(&r));
		/* And the next one is handed over again. */
		TRY(hand_over_once());
	}
	return NULL;
}

static bool stop_waiting;

static const char *locks_and_unlocks(void)
{
	while (!__atomic_load_n(&stop_waiting, __ATOMIC_RELAXED)) {
		CHECK_EQ(0, pthread_mutex_lock(&mutex));
		CHECK_EQ(0, pthread_mutex_unlock(&mutex));
	}
	return NULL;
}

/* Waiters come at any moment: also right when the call sleeps. */
IN_EITHER_THREAD_TIMEOUT(pi_futex_with_waiters_at_any_time, 300)
{
	const struct kind kind = { PTHREAD_MUTEX_ERRORCHECK, 0, PTHREAD_PRIO_INHERIT };
	static body_fn body = locks_and_unlocks;
	const char *found = NULL;
	pthread_t threads[3];
	void *theirs;
	int i, fds[2];

	TRY(make(&mutex, &kind));
	CHECK_EQ(0, pipe(fds));
	stop_waiting = false;
	for (i = 0; i < 3; i++)
		CHECK_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	for (i = 0; i < times(200, 20000) && !found; i++) {
		long result, cookie;
		char byte;

		CHECK_EQ(0, pthread_mutex_lock(&mutex));
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		if (!is_cookie(cookie))
			found = "no cookie";
		if (pthread_mutex_lock(&mutex) != EDEADLK)
			found = "not the owner any more";
		CHECK_EQ(0, pthread_mutex_unlock(&mutex));
		CHECK_EQ(1, write(fds[1], "x", 1));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(1, result_of(&result));
	}
	__atomic_store_n(&stop_waiting, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		CHECK_EQ(0, pthread_join(threads[i], &theirs));
		TRY(theirs);
	}
	return found;
}

/* A lock that is free, or held by a thread, and when another thread is to want it. */
static struct {
	uint32_t word;
	unsigned int round, steps;
	bool over;
} lock;

static long lock_pi(int operation)
{
	return raw_call(__NR_futex, &lock.word, operation | FUTEX_PRIVATE_FLAG, 0, NULL);
}

/* Once a round, so many steps after it has begun. */
static const char *wants_the_lock(void)
{
	unsigned int now, seen = 0;
	volatile unsigned int step;

	while (!__atomic_load_n(&lock.over, __ATOMIC_ACQUIRE)) {
		now = __atomic_load_n(&lock.round, __ATOMIC_ACQUIRE);
		if (now == seen) {
			sched_yield();
			continue;
		}
		seen = now;
		for (step = __atomic_load_n(&lock.steps, __ATOMIC_RELAXED); step; step--)
			;
		CHECK_EQ(0, lock_pi(FUTEX_LOCK_PI));
		CHECK_EQ(0, lock_pi(FUTEX_UNLOCK_PI));
	}
	return NULL;
}

/* Two buffers of a pipe: the first fills it, which takes a while, and the second has to wait. */
enum { PIPE_BYTES = 65536, MOST_STEPS = 40000 };

/* The first to wait for the lock comes when the call has begun, and does not sleep yet. */
IN_EITHER_THREAD_TIMEOUT(pi_futex_with_a_waiter_that_comes_during_the_call, 300)
{
	static body_fn body = wants_the_lock;
	static char bytes[2 * PIPE_BYTES];
	long result = UNTOUCHED, cookie;
	void *theirs = NULL;
	pthread_t thread;
	int i, n, fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(PIPE_BYTES, fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES));
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	for (i = 0; i < times(500, 50000); i++) {
		CHECK_EQ(0, lock_pi(FUTEX_LOCK_PI));
		__atomic_store_n(&lock.steps, 1 + random() % MOST_STEPS, __ATOMIC_RELAXED);
		__atomic_add_fetch(&lock.round, 1, __ATOMIC_RELEASE);
		cookie = async_submit(0, &result, __NR_write,
				      ARGS(fds[1], P(bytes), sizeof(bytes)));
		CHECK(is_cookie(cookie));
		CHECK_EQ(0, lock_pi(FUTEX_UNLOCK_PI));
		for (n = 0; n < (int)sizeof(bytes);) {
			long got = read(fds[0], bytes, sizeof(bytes));

			CHECK(got > 0);
			n += got;
		}
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ((long)sizeof(bytes), result_of(&result));
	}
	__atomic_store_n(&lock.over, true, __ATOMIC_RELEASE);
	CHECK_EQ(0, pthread_join(thread, &theirs));
	return theirs;
}

/* --- the tid of a worker ------------------------------------------------------------------ */

/* Some task of the process that is none of its threads. */
static pid_t tid_of_a_worker(void)
{
	struct dirent *entry;
	pid_t tid = 0;
	DIR *dir;

	dir = opendir("/proc/self/task");
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != gettid())
			tid = atoi(entry->d_name);
	if (dir)
		closedir(dir);
	return tid;
}

static long locks_what_is_of(pid_t tid)
{
	const struct timespec time = { .tv_sec = now_ns() / 1000000000LL + DEADLINE_S };
	static uint32_t word;

	word = tid;
	return raw_call(__NR_futex, &word, FUTEX_LOCK_PI2, 0, &time, NULL, 0);
}

/* Whoever finds its tid in /proc cannot wait for it: it will never unlock anything. */
TEST(worker_owns_no_pi_futex)
{
	struct reading r;

	ASSERT_FINE(hand_over_once());
	ASSERT_LT(0, tid_of_a_worker());
	EXPECT_EQ(-ESRCH, locks_what_is_of(tid_of_a_worker()));

	/* The same while it makes a call. */
	ASSERT_FINE(begin_reading(&r));
	EXPECT_EQ(-ESRCH, locks_what_is_of(tid_of_a_worker()));
	ASSERT_FINE(end_reading(&r));
	EXPECT_EQ(-EDEADLK, locks_what_is_of(gettid()));
}

/* --- robust lists ----------------------------------------------------------------------- */

static const struct kind robust_kind = {
	PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE
};

static pthread_mutex_t lost;

static const char *dies_with_it(void)
{
	struct reading r;

	TRY(hand_over(2));
	CHECK_EQ(0, pthread_mutex_lock(&lost));
	TRY(begin_reading(&r));
	TRY(end_reading(&r));
	return hand_over(2);
}

TEST(owner_that_died_is_noticed)
{
	int i;

	for (i = 0; i < 50; i++) {
		ASSERT_FINE(make(&lost, &robust_kind));
		ASSERT_FINE(run_in(true, dies_with_it));
		ASSERT_EQ(EOWNERDEAD, pthread_mutex_lock(&lost));
		ASSERT_EQ(0, pthread_mutex_consistent(&lost));
		ASSERT_EQ(0, pthread_mutex_unlock(&lost));
		ASSERT_EQ(0, pthread_mutex_destroy(&lost));
	}
}

static const char *dies_with_it_and_a_call(void)
{
	static long result;
	static char byte;
	static int fds[2];

	CHECK_EQ(0, pthread_mutex_lock(&lost));
	if (!fds[1])
		CHECK_EQ(0, pipe(fds));
	CHECK(is_cookie(async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1))));
	return NULL;
}

/* Its call goes on in a task that has nothing to do with the mutex. */
TEST(owner_that_died_with_a_call_outstanding_is_noticed)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_FINE(make(&lost, &robust_kind));
		ASSERT_FINE(run_in(true, dies_with_it_and_a_call));
		ASSERT_EQ(EOWNERDEAD, pthread_mutex_lock(&lost));
		ASSERT_EQ(0, pthread_mutex_consistent(&lost));
		ASSERT_EQ(0, pthread_mutex_unlock(&lost));
	}
}

static pthread_mutex_t *shared_mutex;
static int *shared_stage;

static const char *is_killed_with_it(void)
{
	struct reading r;

	CHECK_EQ(0, pthread_mutex_lock(shared_mutex));
	TRY(hand_over(2));
	TRY(begin_reading(&r));
	reach(shared_stage, 1);
	while (1)
		pause();
	return NULL;
}

FIXTURE(process)
{
	pid_t child;
};

FIXTURE_VARIANT(process)
{
	bool other;
	int protocol;
};

FIXTURE_VARIANT_ADD(process, main)
{
	.other = false,
	.protocol = PTHREAD_PRIO_NONE,
};

FIXTURE_VARIANT_ADD(process, other)
{
	.other = true,
	.protocol = PTHREAD_PRIO_NONE,
};

FIXTURE_VARIANT_ADD(process, main_inheriting)
{
	.other = false,
	.protocol = PTHREAD_PRIO_INHERIT,
};

FIXTURE_VARIANT_ADD(process, other_inheriting)
{
	.other = true,
	.protocol = PTHREAD_PRIO_INHERIT,
};

FIXTURE_SETUP(process)
{
	struct kind kind = robust_kind;

	kind.shared = PTHREAD_PROCESS_SHARED;
	kind.protocol = variant->protocol;
	shared_mutex = share(sizeof(*shared_mutex));
	shared_stage = share(sizeof(*shared_stage));
	ASSERT_NE(NULL, shared_mutex);
	ASSERT_NE(NULL, shared_stage);
	ASSERT_FINE(make(shared_mutex, &kind));
}

FIXTURE_TEARDOWN(process)
{
}

TEST_F(process, owner_that_was_killed_is_noticed)
{
	struct timespec end;
	int i;

	for (i = 0; i < 10; i++) {
		pid_t child = fork_child();

		ASSERT_LE(0, child);
		if (child == 0)
			exit_fine(run_in(variant->other, is_killed_with_it));
		ASSERT_TRUE(await(shared_stage, 1));
		ASSERT_EQ(EBUSY, pthread_mutex_trylock(shared_mutex));
		ASSERT_EQ(0, kill(child, SIGKILL));
		ASSERT_EQ(SIGKILL, status_of(child));
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += DEADLINE_S;
		ASSERT_EQ(EOWNERDEAD, pthread_mutex_timedlock(shared_mutex, &end));
		ASSERT_EQ(0, pthread_mutex_consistent(shared_mutex));
		ASSERT_EQ(0, pthread_mutex_unlock(shared_mutex));
		reach(shared_stage, 0);
	}
}

/*
 * Workers that end, one after the other, are nobody's threads: their end must not look like that
 * of a thread they once were. They end when the idle ones do not fit, here by the name space of
 * nice values.
 */
IN_EITHER_THREAD(end_of_workers_is_not_the_end_of_the_owner)
{
	pthread_mutex_t mine;
	int nice;

	TRY(make(&mine, &robust_kind));
	CHECK_EQ(0, pthread_mutex_lock(&mine));
	for (nice = 1; nice < 19; nice++) {
		CHECK_EQ(0, raw_call(__NR_setpriority, 0, 0, nice));
		TRY(hand_over(2));
		/* No bit but the waiters' changes in a mutex that is held. */
		CHECK_EQ(gettid(), mine.__data.__lock & FUTEX_TID_MASK);
		CHECK_EQ(0, mine.__data.__lock & FUTEX_OWNER_DIED);
	}
	CHECK_EQ(0, pthread_mutex_unlock(&mine));
	return NULL;
}

IN_EITHER_THREAD(robust_list_stays_registered)
{
	void *before, *now;
	struct reading r;
	size_t size;

	CHECK_EQ(0, raw_call(__NR_get_robust_list, 0, &before, &size));
	CHECK(before != NULL);
	TRY(begin_reading(&r));
	CHECK_EQ(0, raw_call(__NR_get_robust_list, 0, &now, &size));
	CHECK(before == now);
	CHECK_EQ(0, raw_call(__NR_get_robust_list, gettid(), &now, &size));
	CHECK(before == now);
	TRY(end_reading(&r));
	CHECK_EQ(0, raw_call(__NR_get_robust_list, 0, &now, &size));
	CHECK(before == now);
	return NULL;
}

/* --- the end of a thread ---------------------------------------------------------------- */

static int thread_is_done;

static const char *hands_over_and_takes_its_time(void)
{
	struct reading r[5];
	int i;

	for (i = 0; i < 5; i++)
		TRY(begin_reading(&r[i]));
	for (i = 0; i < 5; i++)
		TRY(end_reading(&r[i]));
	/* All its workers are idle, and may be the next thread's. */
	poll(NULL, 0, 5);
	reach(&thread_is_done, 1);
	return NULL;
}

PATIENT_TEST(join_returns_only_when_the_thread_is_done, 300)
{
	int i;

	for (i = 0; i < times(40, 2000); i++) {
		thread_is_done = 0;
		ASSERT_FINE(run_in(true, hands_over_and_takes_its_time));
		ASSERT_EQ(1, thread_is_done);
		ASSERT_FINE(hand_over_once());
	}
}

static pid_t child_tid;
static bool word_may_be_cleared;

/* The word is cleared, and its waiters are woken, when the thread ends, and not before. */
static const char *registers_a_word(void)
{
	struct reading r[3];
	int i;

	child_tid = gettid();
	CHECK_EQ(gettid(), syscall(__NR_set_tid_address, &child_tid));
	for (i = 0; i < 3; i++)
		TRY(begin_reading(&r[i]));
	CHECK_EQ(gettid(), child_tid);
	for (i = 0; i < 3; i++)
		TRY(end_reading(&r[i]));
	for (i = 1; i < 10; i++) {
		/* Workers that do not fit any more end. */
		CHECK_EQ(0, raw_call(__NR_setpriority, 0, 0, i));
		TRY(hand_over_once());
		CHECK_EQ(gettid(), child_tid);
	}
	return NULL;
}

static void *registers_and_exits(void *argument)
{
	const char *found = registers_a_word();

	if (found)
		exit_fine(found);
	__atomic_store_n(&word_may_be_cleared, true, __ATOMIC_RELEASE);
	syscall(__NR_exit, 0);
	return NULL;
}

static const char *waits_for_the_word(void)
{
	pthread_t thread;
	pid_t now;

	child_tid = -1;
	CHECK_EQ(0, pthread_create(&thread, NULL, registers_and_exits, NULL));
	while ((now = __atomic_load_n(&child_tid, __ATOMIC_ACQUIRE)))
		CHECK(!raw_call(__NR_futex, &child_tid, FUTEX_WAIT, now, &deadline) ||
		      errno == EAGAIN);
	CHECK(__atomic_load_n(&word_may_be_cleared, __ATOMIC_ACQUIRE));
	return NULL;
}

TEST(word_of_a_thread_is_cleared_at_its_end)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(waits_for_the_word());
	EXPECT_EQ(0, status_of(child));
}

/* --- condition variables, barriers, thread-local storage of C ------------------------------ */

static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static int turn;

static const char *takes_turns(int mine)
{
	struct timespec end;
	int i;

	for (i = 0; i < times(100, 5000); i++) {
		CHECK_EQ(0, pthread_mutex_lock(&turn_lock));
		while (turn % 2 != mine) {
			clock_gettime(CLOCK_REALTIME, &end);
			end.tv_sec += DEADLINE_S;
			CHECK_EQ(0, pthread_cond_timedwait(&condition, &turn_lock, &end));
		}
		TRY(hand_over_once());
		turn++;
		CHECK_EQ(0, pthread_cond_broadcast(&condition));
		CHECK_EQ(0, pthread_mutex_unlock(&turn_lock));
	}
	return NULL;
}

static void *takes_second_turns(void *argument)
{
	return (void *)takes_turns(1);
}

PATIENT_TEST(threads_take_turns, 300)
{
	pthread_t thread;
	void *found;

	ASSERT_EQ(0, pthread_create(&thread, NULL, takes_second_turns, NULL));
	EXPECT_FINE(takes_turns(0));
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_FINE(found);
	EXPECT_EQ(2 * times(100, 5000), turn);
}

TEST_HARNESS_MAIN
