// SPDX-License-Identifier: GPL-2.0
/* ASYNC_SUBMIT_CQE: each outstanding call posts an entry to a ring of io_uring when it has ended. */
#include "events.h"
#include "missing.h"
#include "ring.h"
#include "../kselftest_harness.h"

#define CQE	ASYNC_SUBMIT_CQE

FIXTURE(kind)
{
	struct ring ring;
	unsigned long flags;
};

FIXTURE_VARIANT(kind)
{
	unsigned int setup;
	unsigned long flags;
};

#define KIND(name, setup_flags)						\
	FIXTURE_VARIANT_ADD(kind, name##_handed_over) { .setup = setup_flags };	\
	FIXTURE_VARIANT_ADD(kind, name##_offloaded) {			\
		.setup = setup_flags, .flags = ASYNC_SUBMIT_OFFLOAD	\
	}

KIND(plain, 0);
KIND(single_issuer, IORING_SETUP_SINGLE_ISSUER);
KIND(defer_taskrun, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
KIND(iopoll, IORING_SETUP_IOPOLL);
KIND(entries_of_32_bytes, IORING_SETUP_CQE32);

FIXTURE_SETUP(kind)
{
	self->flags = variant->flags | CQE;
	ASSERT_TRUE(make_ring(&self->ring, variant->setup));
	self->flags |= WITH_FD(self->ring.fd);
}

FIXTURE_TEARDOWN(kind)
{
}

static bool is_empty(struct ring *ring)
{
	raw_call(__NR_io_uring_enter, ring->fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
	return __atomic_load_n(word(ring->cq, ring->p.cq_off.tail), __ATOMIC_ACQUIRE) ==
	       *word(ring->cq, ring->p.cq_off.head);
}

TEST_F(kind, entry_says_which_call_and_its_value)
{
	struct reading r;

	ASSERT_FINE(submit_any_way(&r, self->flags));
	EXPECT_TRUE(is_empty(&self->ring));
	ASSERT_FINE(feed_reading(&r));
	ASSERT_FINE(reap_entry(&self->ring, r.s.cookie, 1));
	EXPECT_EQ(1, result_of(&r.s.result));
	EXPECT_EQ('x', r.byte);
	EXPECT_TRUE(is_empty(&self->ring));
}

TEST_F(kind, error_is_the_value)
{
	struct reading r;

	ASSERT_FINE(submit_any_way(&r, self->flags));
	ASSERT_EQ(0, async_cancel(0, r.s.cookie));
	ASSERT_FINE(reap_entry(&self->ring, r.s.cookie, -ECANCELED));
	EXPECT_TRUE(is_empty(&self->ring));
}

TEST_F(kind, wait_for_the_ring_ends)
{
	struct reading r;

	ASSERT_FINE(submit_any_way(&r, self->flags));
	ASSERT_FINE(feed_reading(&r));
	if (!(self->ring.p.flags & IORING_SETUP_IOPOLL))
		ASSERT_EQ(0, raw_call(__NR_io_uring_enter, self->ring.fd, 0, 1,
				      IORING_ENTER_GETEVENTS, NULL, 0));
	ASSERT_FINE(reap_entry(&self->ring, r.s.cookie, 1));
}

TEST_F(kind, inline_call_posts_nothing)
{
	long result = UNTOUCHED;

	if (self->flags & ASYNC_SUBMIT_OFFLOAD)
		SKIP(return, "never inline");
	EXPECT_EQ(0, async_submit(self->flags, &result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(getppid(), result);
	EXPECT_TRUE(is_empty(&self->ring));
}

/* More than there is room for: the ring keeps what overflows. */
TEST_F(kind, none_is_lost_when_the_ring_is_full)
{
	const int n = 100;
	struct reading *r = calloc(n, sizeof(*r));
	bool seen[n];
	int i, k;

	ASSERT_NE(NULL, r);
	for (i = 0; i < n; i++)
		ASSERT_FINE(submit_any_way(&r[i], self->flags));
	for (i = 0; i < n; i++)
		ASSERT_FINE(feed_reading(&r[i]));
	ASSERT_EQ(0, wait_for_async(0, 0, &deadline));
	memset(seen, 0, sizeof(seen));
	for (i = 0; i < n; i++) {
		struct io_uring_cqe entry;

		ASSERT_FINE(take_entry(&self->ring, &entry));
		EXPECT_EQ(1, entry.res);
		for (k = 0; k < n && r[k].s.cookie != (long)entry.user_data; k++)
			;
		ASSERT_LT(k, n);
		EXPECT_FALSE(seen[k]);
		seen[k] = true;
	}
	EXPECT_TRUE(is_empty(&self->ring));
}

/* One event interface: what the ring did itself, and what was submitted. */
TEST_F(kind, beside_requests_of_the_ring)
{
	struct reading r;

	if (self->ring.p.flags & IORING_SETUP_IOPOLL)
		SKIP(return, "such a ring has no requests without a file");
	ASSERT_FINE(submit_any_way(&r, self->flags));
	ASSERT_EQ(1, enter(&self->ring,
			   (struct io_uring_sqe){ .opcode = IORING_OP_NOP, .user_data = 7 }, 1));
	ASSERT_FINE(reap_entry(&self->ring, 7, 0));
	ASSERT_FINE(feed_reading(&r));
	ASSERT_FINE(reap_entry(&self->ring, r.s.cookie, 1));
}

TEST_F(kind, ring_that_nobody_has_any_more)
{
	struct reading r;

	ASSERT_FINE(submit_any_way(&r, self->flags));
	close(self->ring.fd);
	ASSERT_FINE(feed_reading(&r));
	EXPECT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_EQ(1, result_of(&r.s.result));
}

/* The last one that has the ring is who posts to it. What the ring has goes at once. */
TEST_F(kind, ring_goes_with_its_last_call)
{
	struct pollfd entry;
	struct reading r;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, raw_call(__NR_io_uring_register, self->ring.fd, IORING_REGISTER_FILES,
			      &fds[1], 1));
	close(fds[1]);
	ASSERT_FINE(submit_any_way(&r, self->flags));
	drop_ring(&self->ring);
	entry = (struct pollfd){ .fd = fds[0] };
	EXPECT_EQ(0, poll(&entry, 1, 0));
	ASSERT_FINE(feed_reading(&r));
	ASSERT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_EQ(1, poll(&entry, 1, DEADLINE_S * 1000));
	EXPECT_EQ(POLLHUP, entry.revents);
}

/* A ring with work that nobody has asked for, and its submitter becomes another program. */
TEST_F(kind, exec_with_an_entry_in_the_ring)
{
	long result, cookie;
	pid_t child;
	int i;

	for (i = 0; i < 20; i++) {
		child = fork_child();
		ASSERT_LE(0, child);
		if (!child) {
			struct ring ring;

			if (!make_ring(&ring, variant->setup))
				_exit(97);
			cookie = async_submit(ASYNC_SUBMIT_OFFLOAD | CQE | WITH_FD(ring.fd),
					      &result, __NR_getppid, ARGS(0));
			if (wait_for_async(0, cookie, &deadline))
				_exit(98);
			/* It is told of after that. */
			usleep(i * 500);
			setenv("CQE_NEXT_PROGRAM", "1", 1);
			execl("/proc/self/exe", "cqe", NULL);
			_exit(99);
		}
		EXPECT_EQ(0, status_of(child));
	}
}

static void __attribute__((constructor)) next_program(void)
{
	if (getenv("CQE_NEXT_PROGRAM"))
		_exit(0);
}

static struct missing missing;
static struct ring held;

static void *holds_the_ring(void *argument)
{
	return (void *)raw_call(__NR_io_uring_register, held.fd, IORING_REGISTER_FILES,
				missing.page, 1);
}

/* Who waits to post is nobody's spare meanwhile. */
TEST(ring_that_is_held_holds_up_nobody)
{
	pthread_t thread;
	struct reading r;

	/* Of this kind the lock is needed to post. */
	ASSERT_TRUE(make_ring(&held, IORING_SETUP_IOPOLL));
	ASSERT_FINE(make_missing(&missing));
	ASSERT_FINE(submit_any_way(&r, CQE | WITH_FD(held.fd)));
	ASSERT_EQ(0, pthread_create(&thread, NULL, holds_the_ring, NULL));
	ASSERT_TRUE(becomes_true(page_is_waited_for(&missing)));
	ASSERT_FINE(feed_reading(&r));
	ASSERT_EQ(0, wait_for_async(0, r.s.cookie, &deadline));
	EXPECT_FINE(hand_over(5));
	ASSERT_FINE(give_missing(&missing));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_FINE(reap_entry(&held, r.s.cookie, 1));
}

TEST_F(kind, killed_with_its_process)
{
	pid_t child = fork_child();
	struct reading r;

	ASSERT_LE(0, child);
	if (!child) {
		if (submit_any_way(&r, self->flags))
			_exit(97);
		_exit(0);
	}
	EXPECT_EQ(0, status_of(child));
	EXPECT_TRUE(is_empty(&self->ring));
}

/* res has 32 bits. */
TEST_F(way, value_that_is_too_large)
{
	struct ring ring;
	long result = UNTOUCHED, cookie;
	int fd = memfd_create("large", MFD_CLOEXEC);

	ASSERT_LT(0, fd);
	ASSERT_TRUE(make_ring(&ring, 0));
	if (!(variant->flags & ASYNC_SUBMIT_OFFLOAD))
		SKIP(return, "a call that does not sleep is inline");
	cookie = async_submit(variant->flags | CQE | WITH_FD(ring.fd), &result, __NR_lseek,
			      ARGS(fd, 1L << 40, SEEK_SET));
	ASSERT_TRUE(is_cookie(cookie));
	ASSERT_FINE(reap_entry(&ring, cookie, 0x7fffffff));
	EXPECT_EQ(1L << 40, result_of(&result));
}

TEST_F(way, other_descriptors_are_bad)
{
	long result = UNTOUCHED;
	struct ring off;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | CQE | WITH_FD(fds[0]), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | CQE | WITH_FD(0x7fffffff), &result,
				       __NR_getppid, ARGS(0)));
	/* A ring that does not run yet. */
	ASSERT_TRUE(make_ring(&off, IORING_SETUP_R_DISABLED));
	EXPECT_EQ(-EBADF, async_submit(variant->flags | CQE | WITH_FD(off.fd), &result,
				       __NR_getppid, ARGS(0)));
	EXPECT_EQ(UNTOUCHED, result);
}

TEST_HARNESS_MAIN
