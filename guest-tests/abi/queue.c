// SPDX-License-Identifier: GPL-2.0
/*
 * ASYNC_SUBMIT_QUEUE and ASYNC_WAIT_ANY: each outstanding call leaves one completion, which one
 * thread reaps, once, in the order in which the calls ended.
 */
#include <sys/pidfd.h>

#include "events.h"
#include "filters.h"
#include "../kselftest_harness.h"

#define QUEUE	ASYNC_SUBMIT_QUEUE
#define SYSCTL	"/proc/sys/kernel/async_submit_max"

static long reap(const struct __kernel_timespec *limit)
{
	return wait_for_async(ASYNC_WAIT_ANY, 0, limit);
}

TEST(nothing_was_ever_submitted)
{
	EXPECT_EQ(-ENOENT, reap(NULL));
	EXPECT_EQ(-ENOENT, reap(&no_time));
}

TEST(only_without_a_cookie_and_with_no_other_flag)
{
	long result, cookie;
	unsigned int bit;

	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
	ASSERT_LT(0, cookie);
	EXPECT_EQ(-EINVAL, wait_for_async(ASYNC_WAIT_ANY, cookie, &no_time));
	for (bit = 1; bit < 64; bit++)
		EXPECT_EQ(-EINVAL, wait_for_async(ASYNC_WAIT_ANY | 1UL << bit, 0, &no_time))
			TH_LOG("flag bit %u", bit);
	EXPECT_EQ(0, wait_for_async(0, cookie, &deadline));
}

TEST(inline_call_leaves_none)
{
	long result = UNTOUCHED;

	EXPECT_EQ(0, async_submit(QUEUE, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(getppid(), result);
	EXPECT_EQ(-ENOENT, reap(NULL));
	EXPECT_EQ(0, async_submit(QUEUE, &result, __NR_gettid, ARGS(0)));
	EXPECT_EQ(gettid(), result);
	EXPECT_EQ(-ENOENT, reap(NULL));
}

TEST(refused_call_leaves_none)
{
	long result = UNTOUCHED;

	EXPECT_EQ(-EOPNOTSUPP, async_submit(QUEUE, &result, __NR_fork, ARGS(0)));
	EXPECT_EQ(-EOPNOTSUPP, async_submit(QUEUE | ASYNC_SUBMIT_OFFLOAD, &result, __NR_gettid,
					    ARGS(0)));
	EXPECT_EQ(-EFAULT, async_submit(QUEUE, &result, __NR_getppid, BAD_ADDRESS));
	EXPECT_EQ(-EFAULT, async_submit(QUEUE | ASYNC_SUBMIT_OFFLOAD, BAD_ADDRESS, __NR_getppid,
					ARGS(0)));
	EXPECT_EQ(UNTOUCHED, result);
	EXPECT_EQ(-ENOENT, reap(NULL));
}

TEST_F(way, completion_is_reaped_once)
{
	struct reading r;

	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	EXPECT_EQ(-ETIME, reap(&no_time));
	EXPECT_EQ(r.s.cookie, result_of(&r.s.result));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(r.s.cookie, reap(NULL));
	EXPECT_EQ(1, result_of(&r.s.result));
	EXPECT_EQ('x', r.byte);
	EXPECT_EQ(-ENOENT, reap(NULL));
	/* It was a call of this process, and is complete. */
	EXPECT_EQ(0, wait_for_async(0, r.s.cookie, &no_time));
	EXPECT_EQ(-ENOENT, async_cancel(0, r.s.cookie));
}

TEST_F(way, call_that_is_not_queued_leaves_none)
{
	struct reading queued, other;

	ASSERT_FINE(submit_reading(&other, variant->flags));
	EXPECT_EQ(-ENOENT, reap(NULL));
	ASSERT_FINE(submit_reading(&queued, variant->flags | QUEUE));
	ASSERT_FINE(feed_reading(&other));
	ASSERT_EQ(0, wait_for_async(0, other.s.cookie, &deadline));
	EXPECT_EQ(-ETIME, reap(&no_time));
	ASSERT_FINE(feed_reading(&queued));
	EXPECT_EQ(queued.s.cookie, reap(NULL));
	EXPECT_EQ(-ENOENT, reap(NULL));
}

TEST_F(way, next_call_of_the_same_worker_leaves_none)
{
	struct reading r;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
		ASSERT_FINE(feed_reading(&r));
		ASSERT_EQ(r.s.cookie, reap(NULL));
		close_reading(&r);
		ASSERT_FINE(submit_reading(&r, variant->flags));
		ASSERT_FINE(feed_reading(&r));
		ASSERT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
		ASSERT_EQ(-ENOENT, reap(NULL));
		close_reading(&r);
	}
}

TEST_F(way, in_the_order_of_their_ends)
{
	static const int order[] = { 3, 0, 4, 1, 2 };
	struct reading r[5];
	int i;

	for (i = 0; i < 5; i++)
		ASSERT_FINE(submit_reading(&r[i], variant->flags | QUEUE));
	for (i = 0; i < 5; i++) {
		ASSERT_FINE(feed_reading(&r[order[i]]));
		ASSERT_EQ(0, wait_for_async(0, r[order[i]].s.cookie, &deadline));
	}
	for (i = 0; i < 5; i++)
		EXPECT_EQ(r[order[i]].s.cookie, reap(&no_time));
	EXPECT_EQ(-ENOENT, reap(&no_time));
}

/* Waits for one call or for all do not reap, and do not wait to see others reap. */
TEST_F(way, other_waits_leave_it_in_the_queue)
{
	struct reading r;

	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
	EXPECT_EQ(0, counter("outstanding"));
	EXPECT_EQ(-ENOENT, async_cancel(0, r.s.cookie));
	EXPECT_EQ(r.s.cookie, reap(&no_time));
}

TEST_F(way, cancelled_call_is_reaped)
{
	struct reading r;

	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	ASSERT_EQ(0, async_cancel(0, r.s.cookie));
	EXPECT_EQ(r.s.cookie, reap(NULL));
	EXPECT_EQ(-ECANCELED, result_of(&r.s.result));
	EXPECT_EQ(-ENOENT, reap(NULL));
}

TEST_F(way, value_that_is_lost_is_told_all_the_same)
{
	struct reading r;
	long *word = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long cookie;

	ASSERT_NE(MAP_FAILED, word);
	ASSERT_EQ(0, pipe(r.fds));
	cookie = async_submit(variant->flags | QUEUE, word, __NR_read,
			      ARGS(r.fds[0], P(&r.byte), 1));
	ASSERT_TRUE(is_cookie(cookie));
	ASSERT_EQ(0, munmap(word, getpagesize()));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(cookie, reap(NULL));
}

TEST_F(way, time_limit_is_relative_and_kept)
{
	const struct __kernel_timespec limit = { .tv_nsec = 50 * 1000 * 1000 };
	long long start = now_ns();
	struct reading r;

	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	EXPECT_EQ(-ETIME, reap(&limit));
	EXPECT_LE(50 * 1000 * 1000, now_ns() - start);
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(r.s.cookie, reap(NULL));
}

static void ignore(int signal)
{
}

static void *interrupts(void *argument)
{
	pid_t *waiting = argument;

	if (!becomes_true(thread_state(*waiting) == 'S'))
		return "nobody waits";
	tgkill(getpid(), *waiting, SIGUSR1);
	return NULL;
}

TEST_F(way, signal_interrupts_and_nothing_is_lost)
{
	const struct sigaction action = { .sa_handler = ignore };
	void *found = "no value";
	pid_t waiting = gettid();
	pthread_t thread;
	struct reading r;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	ASSERT_EQ(0, pthread_create(&thread, NULL, interrupts, &waiting));
	EXPECT_EQ(-EINTR, reap(NULL));
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_EQ(NULL, found);
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(r.s.cookie, reap(NULL));
}

static int supervised;

static void *stops_a_sleep(void *argument)
{
	if (!await(&supervised, 1))
		return "no listener";
	return (void *)signal_a_call(supervised, getpid(), SIGUSR1);
}

/* Interrupted just before it sleeps. */
TEST(call_with_a_signal_pending_leaves_none)
{
	const struct sigaction action = { .sa_handler = ignore };
	const struct timespec time = { .tv_sec = 1000 };
	const long nr = __NR_nanosleep;
	void *found = "no value";
	long result = UNTOUCHED;
	pthread_t thread;
	long listener;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_FINE(hand_over_once());
	ASSERT_EQ(0, pthread_create(&thread, NULL, stops_a_sleep, NULL));
	listener = listener_of(&nr, 1);
	ASSERT_LT(0, listener);
	reach(&supervised, listener);
	ASSERT_EQ(0, async_submit(QUEUE, &result, nr, ARGS(P(&time), 0)));
	EXPECT_EQ(-EINTR, result);
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_EQ(NULL, found);
	EXPECT_EQ(-ENOENT, reap(NULL));
	/* Nor does the next one, which nobody interrupts, and which is not queued. */
	EXPECT_FINE(hand_over(3));
	EXPECT_EQ(-ENOENT, reap(NULL));
}

struct stopped {
	int listener;
	long long continued_ns;
};

static struct stopped *stopped;

static const char *is_stopped_in_a_sleep(void)
{
	const struct timespec time = { .tv_sec = 2 };
	const long nr = __NR_nanosleep;
	long result = UNTOUCHED, listener, cookie;
	long long begun_ns;

	TRY(hand_over_once());
	listener = listener_of(&nr, 1);
	CHECK(listener > 0);
	reach(&stopped->listener, listener);
	begun_ns = now_ns();
	cookie = async_submit(QUEUE, &result, nr, ARGS(P(&time), 0));
	/* With time left it is handed over when it goes on. */
	if (stopped->continued_ns < begun_ns + 1000000000LL)
		CHECK(is_cookie(cookie));
	CHECK_EQ(cookie ?: -ENOENT, reap(NULL));
	CHECK_EQ(0, result_of(&result));
	CHECK_EQ(-ENOENT, reap(NULL));
	return NULL;
}

/* Stopped before it sleeps, it goes on by itself, and is the queued call still. */
TEST(call_that_was_stopped_leaves_one)
{
	int listener, pidfd, status;
	pid_t child;

	stopped = share(sizeof(*stopped));
	ASSERT_NE(NULL, stopped);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		exit_fine(is_stopped_in_a_sleep());
	ASSERT_TRUE(await(&stopped->listener, 1));
	pidfd = pidfd_open(child, 0);
	ASSERT_LE(0, pidfd);
	listener = pidfd_getfd(pidfd, stopped->listener, 0);
	ASSERT_LE(0, listener);
	ASSERT_FINE(signal_a_call(listener, child, SIGSTOP));
	status = next_status(child, WUNTRACED);
	ASSERT_LE(0, status);
	ASSERT_TRUE(WIFSTOPPED(status));
	stopped->continued_ns = now_ns();
	ASSERT_EQ(0, kill(child, SIGCONT));
	EXPECT_EQ(0, status_of(child));
}

/* --- several threads ---------------------------------------------------------------------- */

#define REAPERS	4

static long reaped[REAPERS * 1000];
static int n_reaped, n_ended;

static void *reaps(void *argument)
{
	long cookie;

	while ((cookie = reap(NULL)) > 0)
		reaped[__atomic_fetch_add(&n_reaped, 1, __ATOMIC_RELAXED)] = cookie;
	__atomic_fetch_add(&n_ended, 1, __ATOMIC_RELEASE);
	return cookie == -ENOENT ? NULL : "another error than that there is none";
}

static const char *have_ended(const pthread_t *threads)
{
	void *found;
	int i;

	/* Who sleeps for ever cannot be joined. */
	CHECK(becomes_true(__atomic_load_n(&n_ended, __ATOMIC_ACQUIRE) == REAPERS));
	for (i = 0; i < REAPERS; i++) {
		found = "no value";
		CHECK_EQ(0, pthread_join(threads[i], &found));
		TRY(found);
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

TEST_F_TIMEOUT(way, each_is_reaped_by_one_of_many, 300)
{
	const int n = 200;
	struct reading keeper, *r = calloc(n, sizeof(*r));
	long cookies[n + 1];
	pthread_t threads[REAPERS];
	int i;

	ASSERT_NE(NULL, r);
	/* So that they do not leave before it is all over. */
	ASSERT_FINE(submit_reading(&keeper, variant->flags | QUEUE));
	for (i = 0; i < REAPERS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, reaps, NULL));
	for (i = 0; i < n; i++) {
		ASSERT_FINE(submit_any_way(&r[i], variant->flags | QUEUE));
		cookies[i] = r[i].s.cookie;
	}
	for (i = 0; i < n; i++)
		ASSERT_FINE(feed_reading(&r[i]));
	ASSERT_TRUE(becomes_true(__atomic_load_n(&n_reaped, __ATOMIC_RELAXED) == n));
	EXPECT_EQ(0, __atomic_load_n(&n_ended, __ATOMIC_ACQUIRE));
	cookies[n] = keeper.s.cookie;
	ASSERT_FINE(feed_reading(&keeper));
	/* All of them get to know that there is nothing to wait for any more. */
	ASSERT_FINE(have_ended(threads));
	ASSERT_EQ(n + 1, n_reaped);
	qsort(reaped, n + 1, sizeof(long), compare);
	qsort(cookies, n + 1, sizeof(long), compare);
	EXPECT_EQ(0, memcmp(reaped, cookies, (n + 1) * sizeof(long)));
	for (i = 0; i < n; i++)
		EXPECT_EQ(1, result_of(&r[i].s.result));
}

static volatile bool enough;

static void *interrupts_often(void *argument)
{
	pthread_t *threads = argument;
	int i = 0;

	while (!enough) {
		pthread_kill(threads[i++ % REAPERS], SIGUSR1);
		usleep(100);
	}
	return NULL;
}

static void *reaps_among_signals(void *argument)
{
	long cookie;

	for (;;) {
		cookie = reap(NULL);
		if (cookie == -EINTR)
			continue;
		if (cookie <= 0)
			break;
		__atomic_fetch_add(&n_reaped, 1, __ATOMIC_RELEASE);
	}
	__atomic_fetch_add(&n_ended, 1, __ATOMIC_RELEASE);
	return cookie == -ENOENT ? NULL : "another error than that there is none";
}

/* One that was woken for a completion and leaves without it: somebody else has to get it. */
TEST_F_TIMEOUT(way, none_is_forgotten_among_signals, 300)
{
	const struct sigaction action = { .sa_handler = ignore };
	const int n = times(500, 20000);
	pthread_t threads[REAPERS], storm;
	struct reading keeper, r;
	int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_FINE(submit_reading(&keeper, variant->flags | QUEUE));
	for (i = 0; i < REAPERS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, reaps_among_signals, NULL));
	ASSERT_EQ(0, pthread_create(&storm, NULL, interrupts_often, threads));
	for (i = 0; i < n; i++) {
		ASSERT_FINE(submit_any_way(&r, variant->flags | QUEUE));
		ASSERT_FINE(feed_reading(&r));
		ASSERT_TRUE(becomes_true(__atomic_load_n(&n_reaped, __ATOMIC_ACQUIRE) == i + 1));
		close_reading(&r);
	}
	enough = true;
	ASSERT_EQ(0, pthread_join(storm, NULL));
	ASSERT_FINE(feed_reading(&keeper));
	ASSERT_FINE(have_ended(threads));
	EXPECT_EQ(n + 1, n_reaped);
}

/* --- limits and processes ------------------------------------------------------------------ */

static bool set_limit(int limit)
{
	char text[16];
	int fd = open(SYSCTL, O_WRONLY), length = snprintf(text, sizeof(text), "%d", limit);
	bool set = fd >= 0 && write(fd, text, length) == length;

	close(fd);
	return set;
}

FIXTURE(limit)
{
};

FIXTURE_SETUP(limit)
{
	if (geteuid())
		SKIP(return, "needs root");
	ASSERT_TRUE(set_limit(4));
}

FIXTURE_TEARDOWN_PARENT(limit)
{
	EXPECT_TRUE(set_limit(4096));
}

TEST_F(limit, unreaped_completions_count)
{
	struct reading r[4];
	long result = UNTOUCHED;
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_FINE(submit_reading(&r[i], ASYNC_SUBMIT_OFFLOAD | QUEUE));
		ASSERT_FINE(feed_reading(&r[i]));
		ASSERT_EQ(0, wait_for_async(0, r[i].s.cookie, &deadline));
	}
	EXPECT_EQ(0, counter("outstanding"));
	EXPECT_EQ(-EAGAIN, async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EAGAIN, async_submit(0, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(UNTOUCHED, result);
	EXPECT_EQ(r[0].s.cookie, reap(&no_time));
	EXPECT_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(getppid(), result);
	for (i = 1; i < 4; i++)
		EXPECT_EQ(r[i].s.cookie, reap(&no_time));
	EXPECT_EQ(-ENOENT, reap(&no_time));
}

TEST_F(way, child_has_none)
{
	struct reading r, ended;
	pid_t child;

	ASSERT_FINE(submit_reading(&ended, variant->flags | QUEUE));
	ASSERT_FINE(feed_reading(&ended));
	ASSERT_EQ(0, wait_for_async(0, ended.s.cookie, &deadline));
	ASSERT_FINE(submit_reading(&r, variant->flags | QUEUE));
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		_exit(reap(&no_time) != -ENOENT);
	EXPECT_EQ(0, status_of(child));
	EXPECT_EQ(ended.s.cookie, reap(&no_time));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(r.s.cookie, reap(NULL));
}

/* Run again as another program, with a word to say so. */
TEST_F(way, next_program_has_none)
{
	struct reading r;
	pid_t child;

	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		if (submit_reading(&r, variant->flags | QUEUE) || feed_reading(&r) ||
		    wait_for_async(0, r.s.cookie, &deadline))
			_exit(97);
		setenv("QUEUE_NEXT_PROGRAM", "1", 1);
		execl("/proc/self/exe", "queue", NULL);
		_exit(98);
	}
	EXPECT_EQ(0, status_of(child));
}

/* Completions that nobody reaps are no threads of the process. */
TEST(unreaped_ones_are_no_threads)
{
	struct reading r;
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (!child) {
		if (submit_reading(&r, QUEUE) || feed_reading(&r) ||
		    wait_for_async(0, r.s.cookie, &deadline) ||
		    raw_call(__NR_unshare, CLONE_NEWUSER))
			_exit(97);
		_exit(reap(&no_time) != r.s.cookie);
	}
	EXPECT_EQ(0, status_of(child));
}

static void __attribute__((constructor)) next_program(void)
{
	if (getenv("QUEUE_NEXT_PROGRAM"))
		_exit(reap(&no_time) != -ENOENT);
}

TEST_HARNESS_MAIN
