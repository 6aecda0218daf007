// SPDX-License-Identifier: GPL-2.0
/* ASYNC_SUBMIT_EVENTFD: each outstanding call adds 1 to an eventfd when it has ended. */
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "events.h"
#include "../kselftest_harness.h"

#define EVENTFD	ASYNC_SUBMIT_EVENTFD

/* What the eventfd has counted; 0 if nothing. */
static unsigned long count_of(int fd)
{
	unsigned long count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* The same, once it is something. */
static unsigned long await_count(int fd)
{
	struct pollfd entry = { .fd = fd, .events = POLLIN };

	return poll(&entry, 1, DEADLINE_S * 1000) == 1 ? count_of(fd) : 0;
}

static int make_eventfd(void)
{
	return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

TEST_F(way, one_is_added_when_the_call_has_ended)
{
	int fd = make_eventfd();
	struct reading r;

	ASSERT_LT(0, fd);
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	EXPECT_EQ(0, count_of(fd));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(1, await_count(fd));
	/* Who is told finds the value. */
	EXPECT_EQ(1, result_of(&r.s.result));
	EXPECT_EQ('x', r.byte);
	EXPECT_EQ(0, count_of(fd));
}

TEST(inline_call_adds_nothing)
{
	long result = UNTOUCHED;
	int fd = make_eventfd();

	ASSERT_LT(0, fd);
	EXPECT_EQ(0, async_submit(EVENTFD | WITH_FD(fd), &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(getppid(), result);
	EXPECT_EQ(0, async_submit(EVENTFD | WITH_FD(fd), &result, __NR_gettid, ARGS(0)));
	EXPECT_EQ(0, count_of(fd));
	/* And what comes next has nothing to do with it. */
	EXPECT_FINE(hand_over(3));
	EXPECT_EQ(0, count_of(fd));
}

TEST_F(way, many_are_counted)
{
	struct reading r[50];
	int fd = make_eventfd(), i;
	unsigned long seen = 0;

	ASSERT_LT(0, fd);
	for (i = 0; i < 50; i++)
		ASSERT_FINE(submit_reading(&r[i], variant->flags | EVENTFD | WITH_FD(fd)));
	EXPECT_EQ(0, count_of(fd));
	for (i = 0; i < 50; i++)
		ASSERT_FINE(feed_reading(&r[i]));
	while (seen < 50) {
		unsigned long more = await_count(fd);

		ASSERT_LT(0, more);
		seen += more;
	}
	EXPECT_EQ(50, seen);
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
	EXPECT_EQ(0, count_of(fd));
}

TEST_F(way, epoll_sees_it)
{
	struct epoll_event event = { .events = EPOLLIN }, seen = { };
	int fd = make_eventfd(), epoll = epoll_create1(EPOLL_CLOEXEC);
	struct reading r;

	ASSERT_LT(0, fd);
	ASSERT_LT(0, epoll);
	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	EXPECT_EQ(0, epoll_wait(epoll, &seen, 1, 0));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(1, epoll_wait(epoll, &seen, 1, DEADLINE_S * 1000));
	EXPECT_EQ(1, count_of(fd));
}

/* The event comes when the completion is there already. */
TEST_F(way, with_queue)
{
	int fd = make_eventfd(), i;
	struct reading r;

	ASSERT_LT(0, fd);
	for (i = 0; i < 100; i++) {
		ASSERT_FINE(submit_reading(&r, variant->flags | ASYNC_SUBMIT_QUEUE | EVENTFD |
					       WITH_FD(fd)));
		ASSERT_FINE(feed_reading(&r));
		ASSERT_EQ(1, await_count(fd));
		ASSERT_EQ(r.s.cookie, wait_for_async(ASYNC_WAIT_ANY, 0, &no_time));
		close_reading(&r);
	}
}

TEST_F(way, cancelled_call_adds_one)
{
	int fd = make_eventfd();
	struct reading r;

	ASSERT_LT(0, fd);
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	ASSERT_EQ(0, async_cancel(0, r.s.cookie));
	EXPECT_EQ(1, await_count(fd));
	EXPECT_EQ(-ECANCELED, result_of(&r.s.result));
}

/* What counts is what has the descriptor when the call is submitted. */
TEST_F(way, descriptor_that_is_closed_and_used_again)
{
	int fd = make_eventfd(), kept, other;
	struct reading r;

	ASSERT_LT(0, fd);
	kept = dup(fd);
	ASSERT_LT(0, kept);
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	other = make_eventfd();
	ASSERT_LT(0, other);
	ASSERT_EQ(fd, dup2(other, fd));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(1, await_count(kept));
	EXPECT_EQ(0, count_of(fd));
}

TEST_F(way, eventfd_that_nobody_has_any_more)
{
	int fd = make_eventfd();
	struct reading r;

	ASSERT_LT(0, fd);
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	close(fd);
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_EQ(1, result_of(&r.s.result));
}

TEST_F(way, other_descriptors_are_bad)
{
	long result = UNTOUCHED;
	struct reading r;
	int fd;

	ASSERT_EQ(0, pipe(r.fds));
	fd = dup(r.fds[0]);
	ASSERT_LT(0, fd);
	close(fd);
	EXPECT_EQ(-EBADF, async_submit(variant->flags | EVENTFD | WITH_FD(fd), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | EVENTFD | WITH_FD(r.fds[0]), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | EVENTFD | WITH_FD(0x7fffffff), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | EVENTFD | WITH_FD(0xffffffffUL), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(UNTOUCHED, result);
}

/* Flags before the descriptor, and that before the number. */
TEST_F(way, order_of_errors)
{
	long result = UNTOUCHED;

	EXPECT_EQ(-EINVAL, async_submit(variant->flags | EVENTFD | 1UL << 31 | WITH_FD(0x7fffffff),
					&result, -1, BAD_ADDRESS));
	EXPECT_EQ(-EINVAL, async_submit(variant->flags | EVENTFD | ASYNC_SUBMIT_CQE |
					WITH_FD(0x7fffffff), &result, -1, BAD_ADDRESS));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | EVENTFD | WITH_FD(0x7fffffff), &result, -1,
				       BAD_ADDRESS));
	EXPECT_EQ(UNTOUCHED, result);
}

/* A counter that is full stays so, and nobody waits for it. */
TEST_F(way, full_counter)
{
	const unsigned long most = -2UL;
	int fd = make_eventfd();
	struct reading r;

	ASSERT_LT(0, fd);
	ASSERT_EQ(sizeof(most), write(fd, &most, sizeof(most)));
	ASSERT_FINE(submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)));
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_TRUE(becomes_true(counter("outstanding") == 0));
	EXPECT_EQ(1, result_of(&r.s.result));
}

/* Killed with the process, a call tells nobody: the parent has the eventfd as well. */
TEST_F(way, killed_call_adds_nothing)
{
	int fd = make_eventfd(), *stage = share(sizeof(*stage));
	struct reading r;
	pid_t child;

	ASSERT_LT(0, fd);
	ASSERT_NE(NULL, stage);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child) {
		if (submit_reading(&r, variant->flags | EVENTFD | WITH_FD(fd)))
			_exit(97);
		reach(stage, 1);
		pause();
	}
	ASSERT_TRUE(await(stage, 1));
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(child));
	EXPECT_EQ(0, count_of(fd));
}

TEST_HARNESS_MAIN
