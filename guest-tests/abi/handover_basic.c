// SPDX-License-Identifier: GPL-2.0
/* A call that sleeps gives its submitter a cookie at once, in any thread, as often as one likes. */
#include <linux/futex.h>
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

enum { MANY = 1000 };

EITHER_THREAD()
PATIENCE()

IN_EITHER_THREAD(read_of_an_empty_pipe)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(-ETIME, wait_for_async(0, r.s.cookie, &no_time));
	CHECK_EQ(1, counter("outstanding"));
	TRY(end_reading(&r));
	CHECK_EQ(0, counter("outstanding"));
	return NULL;
}

/* Calls with a time limit take this one first, and the last one where all others are too short. */
#define FIRST_TIME_NS	200000000LL
#define LAST_TIME_NS	20000000000LL

/*
 * Submits a call with a time limit. Says whether it was outstanding when the submission was over:
 * a machine that does other work meanwhile may get there too late, even for the call to sleep.
 */
static const char *submit_for(long long ns, struct submission *s, long nr,
			      const unsigned long *args, long value, bool *in_time)
{
	long handed_over = counter("handed_over");
	long long start = now_ns();

	s->result = UNTOUCHED;
	s->cookie = async_submit(0, &s->result, nr, args);
	*in_time = is_cookie(s->cookie) && result_of(&s->result) == s->cookie;
	if (*in_time)
		CHECK_EQ(handed_over + 1, counter("handed_over"));
	CHECK_EQ(value, final_value(s->cookie, &s->result));
	CHECK(now_ns() - start >= ns);
	return NULL;
}

/* It does sleep, and not in the submission. */
IN_EITHER_THREAD(sleep)
{
	bool in_time = false;
	long long ns;

	for (ns = FIRST_TIME_NS; !in_time && ns <= LAST_TIME_NS; ns *= 4) {
		const struct timespec a_while = { ns / 1000000000, ns % 1000000000 };
		struct submission s;

		TRY(submit_for(ns, &s, __NR_nanosleep, ARGS(P(&a_while), 0), 0, &in_time));
	}
	CHECK(in_time);
	return NULL;
}

IN_EITHER_THREAD(futex_wait)
{
	struct submission s;
	int word = 7;

	TRY(submit_sleeping(&s, __NR_futex, ARGS(P(&word), FUTEX_WAIT_PRIVATE, 7, 0)));
	/* It sleeps already: a waker finds it. */
	CHECK_EQ(1, raw_call(__NR_futex, &word, FUTEX_WAKE_PRIVATE, 1));
	return ends_with(&s, 0);
}

IN_EITHER_THREAD(value_arrives_without_a_wait)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(1, write(r.fds[1], "x", 1));
	CHECK(becomes_true(!ASYNC_PENDING(result_of(&r.s.result))));
	CHECK_EQ(1, r.s.result);
	CHECK_EQ('x', r.byte);
	return NULL;
}

IN_EITHER_THREAD(error_arrives)
{
	bool in_time = false;
	int word = 7;
	long long ns;

	for (ns = FIRST_TIME_NS; !in_time && ns <= LAST_TIME_NS; ns *= 4) {
		const struct timespec soon = { ns / 1000000000, ns % 1000000000 };
		struct submission s;

		TRY(submit_for(ns, &s, __NR_futex,
			       ARGS(P(&word), FUTEX_WAIT_PRIVATE, 7, P(&soon)), -ETIMEDOUT,
			       &in_time));
	}
	CHECK(in_time);
	return NULL;
}

/* What does not sleep stays inline, before, between and after calls that do. */
IN_EITHER_THREAD(inline_calls_in_between)
{
	long inlined = counter("inline"), handed_over = counter("handed_over");
	long result = UNTOUCHED;
	struct reading r;
	int i;

	for (i = 0; i < 100; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
		CHECK_EQ(getppid(), result);
		TRY(end_reading(&r));
		CHECK_EQ(0, async_submit(0, &result, __NR_getpid, ARGS(0)));
		CHECK_EQ(getpid(), result);
	}
	CHECK_EQ(inlined + 200, counter("inline"));
	CHECK_EQ(handed_over + 100, counter("handed_over"));
	return NULL;
}

/* One call may sleep many times, and is handed over once. */
IN_EITHER_THREAD(call_that_sleeps_often)
{
	static char data[1 << 20];
	static char chunk[4096];
	size_t done = 0;
	struct submission s;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	TRY(submit_sleeping(&s, __NR_write, ARGS(fds[1], P(data), sizeof(data))));
	while (done < sizeof(data)) {
		ssize_t n = read(fds[0], chunk, sizeof(chunk));

		CHECK(n > 0);
		done += n;
	}
	TRY(ends_with(&s, sizeof(data)));
	CHECK_EQ(0, counter("outstanding"));
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(thousands_in_a_row, 600)
{
	long handed_over = counter("handed_over"), missed = counter("missed");
	int i, n = times(3000, 200000);
	long result, cookie;
	int fds[2];
	char byte;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < n; i++) {
		result = UNTOUCHED;
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK(is_cookie(cookie));
		CHECK_EQ(cookie, result_of(&result));
		CHECK_EQ(1, write(fds[1], &(char){ i }, 1));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(1, result_of(&result));
		CHECK_EQ((char)i, byte);
	}
	CHECK_EQ(handed_over + n, counter("handed_over"));
	CHECK_EQ(missed, counter("missed"));
	CHECK_EQ(0, counter("fell_back"));
	/* One at a time: a handful of workers will do, leader and reserve included. */
	CHECK(counter("workers") <= 6);
	return NULL;
}

static long results[MANY], cookies[MANY];
static char bytes[MANY];

/* Hands over MANY reads of one pipe, one after the other. */
static const char *submit_many(int fd)
{
	long handed_over = counter("handed_over");
	int i;

	for (i = 0; i < MANY; i++) {
		cookies[i] = async_submit(0, &results[i], __NR_read, ARGS(fd, P(&bytes[i]), 1));
		CHECK(is_cookie(cookies[i]));
		CHECK_EQ(cookies[i], result_of(&results[i]));
	}
	CHECK_EQ(handed_over + MANY, counter("handed_over"));
	CHECK_EQ(MANY, counter("outstanding"));
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(a_thousand_outstanding, 300)
{
	pid_t tid = gettid();
	int fds[2], i, sum = 0;

	CHECK_EQ(0, pipe(fds));
	TRY(submit_many(fds[0]));
	CHECK_EQ(tid, gettid());
	for (i = 0; i < MANY; i++)
		CHECK_EQ(1, write(fds[1], &(char){ 1 }, 1));
	CHECK_EQ(0, wait_for_async(0, 0, &deadline));
	for (i = 0; i < MANY; i++) {
		CHECK_EQ(1, result_of(&results[i]));
		sum += bytes[i];
	}
	CHECK_EQ(MANY, sum);
	CHECK_EQ(0, counter("outstanding"));
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(a_thousand_end_at_once, 300)
{
	int fds[2], round, i;

	/* The second time with a pool that holds as many workers. */
	for (round = 0; round < 2; round++) {
		CHECK_EQ(0, pipe(fds));
		TRY(submit_many(fds[0]));
		close(fds[1]);
		CHECK_EQ(0, wait_for_async(0, 0, &deadline));
		for (i = 0; i < MANY; i++)
			CHECK_EQ(0, result_of(&results[i]));
		close(fds[0]);
	}
	return NULL;
}

IN_EITHER_THREAD(calls_end_in_any_order)
{
	enum { CALLS = 64 };
	struct reading r[CALLS];
	int i;

	for (i = 0; i < CALLS; i++)
		TRY(begin_reading(&r[i]));
	for (i = 1; i < CALLS; i += 2)
		TRY(end_reading(&r[i]));
	for (i = CALLS - 2; i >= 0; i -= 2)
		TRY(end_reading(&r[i]));
	return NULL;
}

/*
 * Parallel sleeps take as long as one, not as their sum. Where the submissions alone take long the
 * sleeps have to be longer, so that what is compared is sleep.
 */
IN_EITHER_THREAD_TIMEOUT(sleeps_are_side_by_side, 600)
{
	enum { CALLS = 100 };
	long long ns, start, took = LLONG_MAX, sum = 0;
	bool all = false;
	int i;

	for (ns = FIRST_TIME_NS; !(all && took < sum / 3) && ns <= LAST_TIME_NS; ns *= 4) {
		const struct timespec a_while = { ns / 1000000000, ns % 1000000000 };

		sum = CALLS * ns;
		start = now_ns();
		for (i = 0; i < CALLS; i++)
			cookies[i] = async_submit(0, &results[i], __NR_nanosleep,
						  ARGS(P(&a_while), 0));
		/* If the first one has not ended, all of them are under way. */
		all = result_of(&results[0]) == cookies[0];
		for (i = 0; i < CALLS; i++)
			CHECK_EQ(0, final_value(cookies[i], &results[i]));
		took = now_ns() - start;
		CHECK(took >= ns);
	}
	CHECK(all);
	CHECK(took < sum / 3);
	return NULL;
}

/* --- many threads at once --------------------------------------------------------------- */

static const char *hands_over_often(void)
{
	int i, n = times(200, 10000);
	long result, cookie;
	pid_t tid = gettid();
	int fds[2];
	char byte;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < n; i++) {
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK(is_cookie(cookie));
		CHECK_EQ(tid, gettid());
		CHECK_EQ(1, write(fds[1], "x", 1));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(1, result_of(&result));
	}
	return NULL;
}

PATIENT_TEST(threads_hand_over_at_the_same_time, 300)
{
	enum { THREADS = 8 };
	long handed_over = counter("handed_over");
	static body_fn body = hands_over_often;
	pthread_t threads[THREADS];
	void *found;
	int i;

	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	EXPECT_FINE(hands_over_often());
	for (i = 0; i < THREADS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &found));
		EXPECT_FINE(found);
	}
	EXPECT_EQ(handed_over + (THREADS + 1) * times(200, 10000), counter("handed_over"));
	EXPECT_EQ(0, counter("fell_back"));
}

/* How often the threads of the process beside have come round. */
static long *rounds;

static void *goes_round(bool submits)
{
	long result;
	char byte;
	int fds[2];

	if (pipe(fds))
		return NULL;
	for (;;) {
		if (submits) {
			async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
			if (write(fds[1], "x", 1) != 1 || wait_for_async(0, 0, &deadline))
				break;
		} else if (write(fds[1], "x", 1) != 1 || read(fds[0], &byte, 1) != 1) {
			break;
		}
		__atomic_fetch_add(rounds, 1, __ATOMIC_RELAXED);
	}
	_exit(1);
}

static void *hands_over_for_ever(void *unused)
{
	return goes_round(true);
}

static void *runs_for_ever(void *unused)
{
	return goes_round(false);
}

/*
 * Milliseconds that it takes to make children and see them go, beside four threads at work; how
 * often those have handed over.
 */
static long forks_beside(struct __test_metadata *_metadata, void *(*work)(void *),
			 long *handed_over)
{
	long long begin;
	char pid[16];
	pthread_t thread;
	pid_t beside, child;
	long time_ms;
	int i;

	*rounds = 0;
	beside = fork_child();
	ASSERT_LE(0, beside);
	if (!beside) {
		for (i = 0; i < 3; i++)
			pthread_create(&thread, NULL, work, NULL);
		work(NULL);
		_exit(1);
	}
	ASSERT_TRUE(becomes_true(__atomic_load_n(rounds, __ATOMIC_RELAXED) > 20));
	begin = now_ns();
	for (i = 0; i < 30; i++) {
		child = fork_child();
		if (!child)
			_exit(0);
		ASSERT_EQ(child, waitpid(child, NULL, 0));
	}
	time_ms = (now_ns() - begin) / 1000000;
	ASSERT_EQ(0, waitpid(beside, NULL, WNOHANG));
	snprintf(pid, sizeof(pid), "%d", beside);
	*handed_over = counter_of(pid, "handed_over");
	kill(beside, SIGKILL);
	ASSERT_EQ(beside, waitpid(beside, NULL, 0));
	return time_ms;
}

/*
 * A hand-over takes the lock of all tasks, once. Who makes and ends processes, which takes it too,
 * is not held up by that more than by other work.
 */
PATIENT_TEST(others_make_processes_meanwhile, 120)
{
	long beside_work, beside_hand_overs, count;

	rounds = share(sizeof(*rounds));
	ASSERT_NE(NULL, rounds);
	beside_work = forks_beside(_metadata, runs_for_ever, &count);
	EXPECT_EQ(0, count);
	beside_hand_overs = forks_beside(_metadata, hands_over_for_ever, &count);
	TH_LOG("30 processes: %ld ms beside 4 threads, %ld ms beside 4 that handed over %ld times",
	       beside_work, beside_hand_overs, count);
	EXPECT_LT(20, count);
	EXPECT_GE(4 * beside_work + 500, beside_hand_overs);
}

/* Threads that are short-lived hand over, so that workers serve one thread after the other. */
PATIENT_TEST(one_thread_after_the_other, 300)
{
	long handed_over = counter("handed_over");
	int i, n = times(100, 5000);

	for (i = 0; i < n; i++) {
		ASSERT_FINE(run_in(true, hand_over_once));
		ASSERT_FINE(hand_over_once());
	}
	EXPECT_EQ(handed_over + 2 * n, counter("handed_over"));
}

static struct reading passed_on;

static const char *begins(void)
{
	return begin_reading(&passed_on);
}

static const char *ends(void)
{
	return end_reading(&passed_on);
}

/* Any thread may wait for any call of the process. */
TEST(another_thread_waits)
{
	EXPECT_FINE(begin_reading(&passed_on));
	EXPECT_FINE(run_in(true, ends));
}

static pid_t waiter;

static void *feeds_who_waits(void *argument)
{
	if (becomes_true(thread_state(waiter) == 'S'))
		return write(passed_on.fds[1], "x", 1) == 1 ? NULL : "nothing was written";
	return "nobody waits";
}

/* Not when its own time is over, nor when somebody looks again. */
TEST(wait_ends_when_the_call_does)
{
	pthread_t thread;
	long long start;
	void *found;

	waiter = gettid();
	ASSERT_FINE(begin_reading(&passed_on));
	ASSERT_EQ(0, pthread_create(&thread, NULL, feeds_who_waits, NULL));
	start = now_ns();
	EXPECT_EQ(0, wait_for_async(0, passed_on.s.cookie, &deadline));
	EXPECT_GT(DEADLINE_S * 1000000000LL / 2, now_ns() - start);
	EXPECT_EQ(1, result_of(&passed_on.s.result));
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_FINE(found);
}

TEST(calls_outlive_the_thread_that_submitted_them)
{
	EXPECT_FINE(run_in(true, begins));
	EXPECT_EQ(1, counter("outstanding"));
	EXPECT_FINE(end_reading(&passed_on));
}

/* --- in a handler ----------------------------------------------------------------------- */

/* Volatile: the compiler takes raise() for a function that calls nothing of this file. */
static const char *volatile handler_found = "not run";

static void hands_over_in_a_handler(int signal)
{
	handler_found = hand_over_once();
}

IN_EITHER_THREAD(in_a_signal_handler)
{
	const struct sigaction action = { .sa_handler = hands_over_in_a_handler };
	struct reading r;

	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	CHECK_EQ(0, raise(SIGUSR1));
	TRY(handler_found);
	/* And with a call of the interrupted code outstanding. */
	TRY(begin_reading(&r));
	handler_found = "not run again";
	CHECK_EQ(0, raise(SIGUSR1));
	TRY(handler_found);
	return end_reading(&r);
}

/* --- disk ------------------------------------------------------------------------------- */

static char written[4096], seen[4096];

static const char *write_and_forget(int fd, char letter)
{
	memset(written, letter, sizeof(written));
	memset(seen, 0, sizeof(seen));
	CHECK_EQ(sizeof(written), pwrite(fd, written, sizeof(written), 0));
	CHECK_EQ(0, fsync(fd));
	CHECK_EQ(0, posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	return NULL;
}

static long times_slept(void)
{
	struct rusage usage = { };

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

/*
 * Whether a read of a file that is not in memory sleeps is up to the disk. It mostly does, but a
 * busy host may do what the disk is to do before the machine goes on: then direct reads do not
 * sleep either.
 */
IN_EITHER_THREAD(file_that_is_not_in_memory)
{
	char path[] = "/var/tmp/async_file.XXXXXX";
	long before = counter("handed_over"), asleep = 0, value;
	int fd = mkstemp(path), i;
	struct submission s;

	CHECK(fd >= 0);
	CHECK_EQ(0, unlink(path));
	for (i = 0; i < 200 && counter("handed_over") == before; i++) {
		TRY(write_and_forget(fd, 'a' + i % 26));
		value = times_slept();
		CHECK_EQ(sizeof(seen), pread(fd, seen, sizeof(seen), 0));
		asleep += times_slept() > value;
		CHECK_EQ(0, memcmp(seen, written, sizeof(seen)));

		TRY(write_and_forget(fd, 'A' + i % 26));
		s.cookie = async_submit(0, &s.result, __NR_pread64,
					ARGS(fd, P(seen), sizeof(seen), 0));
		value = final_value(s.cookie, &s.result);
		CHECK_EQ(sizeof(seen), value);
		CHECK_EQ(0, memcmp(seen, written, sizeof(seen)));
	}
	close(fd);
	value = counter("handed_over") - before;
	CHECK(value == 0 || value == 1);
	/* One in five that sleeps is not missed two hundred times. */
	CHECK(value == 1 || asleep < 40);
	return NULL;
}

TEST_HARNESS_MAIN
