// SPDX-License-Identifier: GPL-2.0
/* Cancelling calls that were handed over: one end each, and nobody else's. */
#include <sys/socket.h>

#include "missing.h"
#include "../kselftest_harness.h"

EITHER_THREAD()
PATIENCE()

IN_EITHER_THREAD(sleeping_call_ends_with_ecanceled)
{
	long cancelled = counter("cancelled");
	struct reading r;
	int i;

	for (i = 0; i < 50; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, async_cancel(0, r.s.cookie));
		TRY(ends_with(&r.s, -ECANCELED));
		CHECK_EQ(-ENOENT, async_cancel(0, r.s.cookie));
		/* It has taken nothing. */
		CHECK_EQ(1, write(r.fds[1], "k", 1));
		CHECK_EQ(1, read(r.fds[0], &r.byte, 1));
		CHECK_EQ('k', r.byte);
		close(r.fds[0]);
		close(r.fds[1]);
	}
	CHECK_EQ(cancelled + 50, counter("cancelled"));
	CHECK_EQ(0, counter("outstanding"));
	return NULL;
}

/* --- the next call of the same worker ----------------------------------------------------- */

static struct {
	int at;
} *next_call;

/* The second call has the worker of the first one: it is interrupted, and goes on. */
static const char *cancels_one_and_begins_another(void)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(0, async_cancel(0, r.s.cookie));
	TRY(ends_with(&r.s, -ECANCELED));
	close(r.fds[0]);
	close(r.fds[1]);
	TRY(begin_reading(&r));
	reach(&next_call->at, 1);
	CHECK(await(&next_call->at, 2));
	CHECK_EQ(r.s.cookie, result_of(&r.s.result));
	return end_reading(&r);
}

CHILD_FIXTURE(next_call, next_call, cancels_one_and_begins_another)

TEST_F(next_call, is_not_cancelled_when_it_is_stopped)
{
	ASSERT_FINE(stop_child(self->pid));
	ASSERT_FINE(continue_child(self->pid));
	EXPECT_ENDS_WELL();
}

/* --- by others ---------------------------------------------------------------------------- */

static struct reading passed_on;

static const char *cancels(void)
{
	CHECK_EQ(0, async_cancel(0, passed_on.s.cookie));
	return ends_with(&passed_on.s, -ECANCELED);
}

static const char *begins(void)
{
	return begin_reading(&passed_on);
}

TEST(by_another_thread)
{
	EXPECT_FINE(begins());
	EXPECT_FINE(run_in(true, cancels));
}

TEST(after_its_thread_has_exited)
{
	EXPECT_FINE(run_in(true, begins));
	EXPECT_FINE(cancels());
}

IN_EITHER_THREAD(progress_is_the_value)
{
	static char data[1 << 17];
	struct submission s;
	int fds[2], sv[2];
	char bytes[8];

	CHECK_EQ(0, pipe(fds));
	TRY(submit_sleeping(&s, __NR_write, ARGS(fds[1], P(data), sizeof(data))));
	CHECK_EQ(0, async_cancel(0, s.cookie));
	TRY(ends_with(&s, 1 << 16));

	CHECK_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	CHECK_EQ(3, write(sv[1], "abc", 3));
	TRY(submit_sleeping(&s, __NR_recvfrom, ARGS(sv[0], P(bytes), 8, MSG_WAITALL, 0, 0)));
	CHECK_EQ(0, async_cancel(0, s.cookie));
	TRY(ends_with(&s, 3));
	CHECK_EQ(0, memcmp(bytes, "abc", 3));
	return NULL;
}

IN_EITHER_THREAD(many_at_once)
{
	enum { CALLS = 300 };
	static struct submission s[CALLS];
	static char bytes[CALLS];
	int fds[2], i, ended = 0;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < CALLS; i++) {
		s[i].cookie = async_submit(0, &s[i].result, __NR_read,
					   ARGS(fds[0], P(&bytes[i]), 1));
		CHECK(is_cookie(s[i].cookie));
	}
	/* Every other one. */
	for (i = 0; i < CALLS; i += 2)
		CHECK_EQ(0, async_cancel(0, s[i].cookie));
	for (i = 0; i < CALLS; i += 2)
		TRY(ends_with(&s[i], -ECANCELED));
	for (i = 1; i < CALLS; i += 2)
		CHECK_EQ(s[i].cookie, result_of(&s[i].result));
	CHECK_EQ(CALLS / 2, write(fds[1], bytes, CALLS / 2));
	CHECK_EQ(0, wait_for_async(0, 0, &deadline));
	for (i = 1; i < CALLS; i += 2)
		ended += s[i].result == 1;
	CHECK_EQ(CALLS / 2, ended);
	return NULL;
}

/* The worker of a call that has ended makes another one: an old cookie is not the new call's. */
IN_EITHER_THREAD_TIMEOUT(stale_cookies_harm_nobody, 300)
{
	struct reading r;
	long stale[64] = { 0 };
	int i, k;

	for (i = 0; i < times(400, 20000); i++) {
		TRY(begin_reading(&r));
		for (k = 0; k < 64; k++)
			if (stale[k])
				CHECK_EQ(-ENOENT, async_cancel(0, stale[k]));
		/* Cookies that will be given later, if ever. */
		CHECK_EQ(-EINVAL, async_cancel(0, r.s.cookie + 1));
		CHECK_EQ(r.s.cookie, result_of(&r.s.result));
		stale[i % 64] = r.s.cookie;
		TRY(end_reading(&r));
	}
	return NULL;
}

PATIENT_TEST(stale_cookies_in_great_number, 300)
{
	struct reading r;
	long first;
	int i;

	ASSERT_FINE(begin_reading(&r));
	first = r.s.cookie;
	ASSERT_FINE(end_reading(&r));
	ASSERT_FINE(begin_reading(&r));
	for (i = 0; i < times(20000, 1000000); i++)
		ASSERT_EQ(-ENOENT, async_cancel(0, first));
	ASSERT_EQ(0, counter("cancelled"));
	ASSERT_FINE(end_reading(&r));
}

/* --- racing with the end ---------------------------------------------------------------- */

static long raced;
static bool enough;
static long cancelled_by_racer;

static void *cancels_what_there_is(void *argument)
{
	while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) {
		long cookie = __atomic_exchange_n(&raced, 0, __ATOMIC_ACQUIRE);
		long ret;

		if (!cookie)
			continue;
		ret = async_cancel(0, cookie);
		if (ret && ret != -ENOENT)
			return (void *)trouble("cancelling returned %ld", ret);
		__atomic_fetch_add(&cancelled_by_racer, !ret, __ATOMIC_RELEASE);
	}
	return NULL;
}

static long ended_by_data, ended_by_cancel;

static const char *races(int n)
{
	int fds[2], i;
	char byte;

	CHECK_EQ(0, pipe2(fds, O_NONBLOCK));
	CHECK_EQ(0, fcntl(fds[0], F_SETFL, 0));
	for (i = 0; i < n; i++) {
		char sent = i, rest;
		long result = UNTOUCHED, cookie;
		long before = __atomic_load_n(&cancelled_by_racer, __ATOMIC_ACQUIRE);
		volatile int spin;

		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK(is_cookie(cookie));
		__atomic_store_n(&raced, cookie, __ATOMIC_RELEASE);
		/* Right when the other one is about to, and at any other time. */
		while (i % 2 && __atomic_load_n(&raced, __ATOMIC_RELAXED))
			;
		for (spin = 0; spin < i * 7 % 300; spin++)
			;
		/* On a busy machine it may be the slower one every time: now and then it is let. */
		if (i % 64 == 63)
			CHECK(becomes_true(before != __atomic_load_n(&cancelled_by_racer,
								     __ATOMIC_ACQUIRE)));
		CHECK_EQ(1, write(fds[1], &sent, 1));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
		CHECK_EQ(0, fcntl(fds[0], F_SETFL, O_NONBLOCK));
		switch (result_of(&result)) {
		case 1:
			ended_by_data++;
			CHECK_EQ(sent, byte);
			CHECK_EQ(-1, read(fds[0], &rest, 1));
			break;
		case -ECANCELED:
			ended_by_cancel++;
			CHECK_EQ(1, read(fds[0], &rest, 1));
			CHECK_EQ(sent, rest);
			break;
		default:
			return trouble("round %d ended with %ld", i, result);
		}
		CHECK_EQ(0, fcntl(fds[0], F_SETFL, 0));
		/* The value is final. */
		CHECK_EQ(-ENOENT, async_cancel(0, cookie));
	}
	return NULL;
}

static const char *races_often(void)
{
	return races(times(3000, 100000));
}

TEST_F_TIMEOUT(thread, racing_with_data, 600)
{
	long handed_over = counter("handed_over");
	pthread_t thread;
	void *found;

	enough = false;
	ASSERT_EQ(0, pthread_create(&thread, NULL, cancels_what_there_is, NULL));
	EXPECT_FINE(run_in(variant->other, races_often));
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, &found));
	EXPECT_FINE(found);
	EXPECT_EQ(handed_over + times(3000, 100000), counter("handed_over"));
	/* It was a race: both have won. A cancelled call may have ended by its data. */
	EXPECT_LT(0, ended_by_data);
	EXPECT_LT(0, ended_by_cancel);
	EXPECT_LE(ended_by_cancel, cancelled_by_racer);
}

static void *cancels_every_cookie(void *argument)
{
	long *cookies = argument;
	int i;

	while (!__atomic_load_n(&enough, __ATOMIC_RELAXED))
		for (i = 0; i < 8; i++) {
			long cookie = __atomic_load_n(&cookies[i], __ATOMIC_ACQUIRE);

			if (cookie)
				async_cancel(0, cookie);
		}
	return NULL;
}

/* Two threads cancel the same calls again and again, from before they sleep until after their end. */
PATIENT_TEST(several_cancel_the_same, 300)
{
	static long cookies[8], results[8];
	pthread_t threads[2];
	char bytes[8];
	int fds[2], i, round;

	enough = false;
	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, cancels_every_cookie, cookies));
	for (round = 0; round < times(300, 20000); round++) {
		for (i = 0; i < 8; i++) {
			long cookie = async_submit(0, &results[i], __NR_read,
						   ARGS(fds[0], P(&bytes[i]), 1));

			ASSERT_TRUE(is_cookie(cookie));
			__atomic_store_n(&cookies[i], cookie, __ATOMIC_RELEASE);
		}
		ASSERT_EQ(0, wait_for_async(0, 0, &deadline));
		for (i = 0; i < 8; i++)
			ASSERT_EQ(-ECANCELED, result_of(&results[i]));
	}
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
}

/* --- what cannot be interrupted ----------------------------------------------------------- */

/* A fault of the kernel: the call is handed over there too, and ends when the page comes. */
IN_EITHER_THREAD(call_that_waits_for_a_page)
{
	struct missing m;
	struct submission s;
	char text[8] = "";
	int fds[2], i;

	for (i = 0; i < 5; i++) {
		CHECK_EQ(0, pipe(fds));
		TRY(make_missing(&m));
		TRY(submit_sleeping(&s, __NR_write, ARGS(fds[1], P(m.page), 7)));
		CHECK_EQ(s.cookie, result_of(&s.result));
		TRY(give_missing(&m));
		TRY(ends_with(&s, 7));
		CHECK_EQ(7, read(fds[0], text, 7));
		CHECK(!strcmp("content", text));
		drop_missing(&m);
		close(fds[0]);
		close(fds[1]);
	}
	return NULL;
}

/* It holds a lock of the kernel meanwhile, and who wants that is handed over as well. */
IN_EITHER_THREAD(calls_that_cannot_be_interrupted_end_when_they_end)
{
	struct submission writer, reader;
	struct missing m;
	char text[8] = "";
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	TRY(make_missing(&m));
	TRY(submit_sleeping(&writer, __NR_write, ARGS(fds[1], P(m.page), 7)));
	TRY(submit_sleeping(&reader, __NR_read, ARGS(fds[0], P(text), 7)));
	CHECK_EQ(0, async_cancel(0, reader.cookie));
	CHECK_EQ(-ETIME, wait_for_async(0, reader.cookie,
					&(struct __kernel_timespec){ .tv_nsec = 20 * 1000 * 1000 }));
	CHECK_EQ(reader.cookie, result_of(&reader.result));
	CHECK_EQ(writer.cookie, result_of(&writer.result));
	TRY(give_missing(&m));
	TRY(ends_with(&writer, 7));
	/* There is data by the time it could notice. */
	TRY(ends_with(&reader, 7));
	CHECK(!strcmp("content", text));
	return NULL;
}

/* A cancelled call that waits for a page is not to be told from one that is not. */
IN_EITHER_THREAD(cancelled_call_that_waits_for_a_page)
{
	struct submission s;
	struct missing m;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	TRY(make_missing(&m));
	TRY(submit_sleeping(&s, __NR_write, ARGS(fds[1], P(m.page), 7)));
	CHECK_EQ(0, async_cancel(0, s.cookie));
	TRY(give_missing(&m));
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result == 7 || s.result == -ECANCELED);
	return NULL;
}

/* --- at the end of a process -------------------------------------------------------------- */

IN_EITHER_THREAD(cancel_and_exit)
{
	int i;

	for (i = 0; i < times(40, 2000); i++) {
		pid_t child = fork_child();

		CHECK(child >= 0);
		if (child == 0) {
			struct reading r[8];
			int k;

			for (k = 0; k < 8; k++)
				if (begin_reading(&r[k]))
					_exit(1);
			for (k = 0; k < 8; k++)
				async_cancel(0, r[k].s.cookie);
			_exit(0);
		}
		CHECK_EQ(0, status_of(child));
	}
	return NULL;
}

TEST_HARNESS_MAIN
