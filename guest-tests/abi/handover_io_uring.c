// SPDX-License-Identifier: GPL-2.0
/*
 * Requests of io_uring complete in the task that made them, and some rings know one task only: a
 * thread with such falls back. Rings at rest do not matter.
 */
#include "ring.h"
#include "../kselftest_harness.h"

static const char *makes_a_request(struct ring *ring)
{
	CHECK_EQ(1, enter(ring, (struct io_uring_sqe){ .opcode = IORING_OP_NOP, .user_data = 7 },
			  1));
	return reap_entry(ring, 7, 0);
}

/* A read of an empty pipe, by the ring. */
static const char *begin_request(struct ring *ring, int fd, char *byte)
{
	const struct io_uring_sqe sqe = {
		.opcode = IORING_OP_READ,
		.fd = fd,
		.addr = P(byte),
		.len = 1,
		.user_data = 8,
	};

	CHECK_EQ(1, enter(ring, sqe, 0));
	return NULL;
}

/* A call that sleeps falls back, just once and for that reason. */
static const char *begin_falling_back(struct reading *r)
{
	long handed_over = counter("handed_over"), fell_back = counter("fell_back");
	long for_ring = counter("fell_back_io_uring");

	CHECK_EQ(0, pipe(r->fds));
	r->byte = 0;
	r->s.result = UNTOUCHED;
	r->s.cookie = async_submit(0, &r->s.result, __NR_read, ARGS(r->fds[0], P(&r->byte), 1));
	CHECK(is_cookie(r->s.cookie));
	CHECK_EQ(handed_over, counter("handed_over"));
	CHECK_EQ(fell_back + 1, counter("fell_back"));
	CHECK_EQ(for_ring + 1, counter("fell_back_io_uring"));
	return NULL;
}

/* So does one that does not, and is complete. */
static const char *falls_back_at_once(void)
{
	long fell_back = counter("fell_back_io_uring"), result = UNTOUCHED;

	CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	CHECK_EQ(getppid(), result);
	CHECK_EQ(fell_back + 1, counter("fell_back_io_uring"));
	return NULL;
}

FIXTURE(ring) { };

FIXTURE_VARIANT(ring)
{
	bool other;
};

FIXTURE_VARIANT_ADD(ring, main)
{
	.other = false,
};

FIXTURE_VARIANT_ADD(ring, other)
{
	.other = true,
};

/*
 * In a child: what the kernel does after a ring is closed would be done by this thread, at any time
 * later, and what is submitted just then goes on without it.
 */
FIXTURE_SETUP(ring)
{
	pid_t child = fork();
	int status;

	ASSERT_LE(0, child);
	if (child == 0) {
		struct io_uring_params p = { };
		long fd = raw_call(__NR_io_uring_setup, 1, &p);

		_exit(fd < 0 ? -fd : 0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	if (WEXITSTATUS(status) == ENOSYS || WEXITSTATUS(status) == EPERM)
		SKIP(return, "no io_uring");
	ASSERT_EQ(0, WEXITSTATUS(status));
}

FIXTURE_TEARDOWN(ring)
{
}

/* A body in either thread, if there is io_uring. */
#define WITH_IO_URING(name)						\
	static const char *name##_body(void);				\
	TEST_F(ring, name)						\
	{								\
		EXPECT_FINE(run_in(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

WITH_IO_URING(plain_ring_at_rest_is_no_reason)
{
	struct reading r;
	struct ring ring;
	int i;

	CHECK(make_ring(&ring, 0));
	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		TRY(makes_a_request(&ring));
		TRY(end_reading(&r));
		TRY(makes_a_request(&ring));
		TRY(hand_over_once());
	}
	CHECK_EQ(0, counter("fell_back"));
	return NULL;
}

static bool falls_back(void)
{
	long before = counter("fell_back_io_uring"), result;

	return async_submit(0, &result, __NR_getppid, ARGS(0)) ||
	       counter("fell_back_io_uring") != before;
}

/*
 * A request that a worker of the ring makes, which stays for the next one. The completion is there
 * before the request is done with, and what is submitted between the two falls back: so many calls.
 */
static const char *has_a_worker_of_its_ring(struct ring *ring, long *fell_back)
{
	const struct io_uring_sqe sqe = {
		.opcode = IORING_OP_NOP,
		.flags = IOSQE_ASYNC,
		.user_data = 9,
	};

	CHECK(make_ring(ring, 0));
	CHECK_EQ(1, enter(ring, sqe, 1));
	TRY(reap_entry(ring, 9, 0));
	CHECK(becomes_true(!falls_back()));
	*fell_back = counter("fell_back");
	return NULL;
}

static const char *exits_as_the_last_thread(void)
{
	struct ring ring;
	long fell_back;

	TRY(has_a_worker_of_its_ring(&ring, &fell_back));
	TRY(hand_over(3));
	CHECK_EQ(fell_back, counter("fell_back"));
	syscall(__NR_exit, 8);
	return trouble("SYS_exit came back");
}

/* The ring is at rest, its worker is not gone, and belongs to what the thread has left. */
WITH_IO_URING(last_thread_exits_beside_the_worker_of_a_ring)
{
	pid_t child = fork_child();

	CHECK(child >= 0);
	if (child == 0)
		exit_fine(exits_as_the_last_thread());
	/* It would stay for as long as its ring does. */
	CHECK_EQ(8 << 8, status_of(child));
	return NULL;
}

WITH_IO_URING(other_threads_go_on_beside_the_worker_of_a_ring)
{
	struct ring ring;
	long fell_back;
	int i;

	TRY(has_a_worker_of_its_ring(&ring, &fell_back));
	for (i = 0; i < 5; i++) {
		TRY(hand_over_once());
		TRY(run_in(true, hand_over_once));
	}
	CHECK_EQ(fell_back, counter("fell_back"));
	return NULL;
}

static const char *falls_back_with(unsigned int flags)
{
	struct reading r;
	struct ring ring;
	int i;

	TRY(hand_over(3));
	CHECK(make_ring(&ring, flags));
	for (i = 0; i < 5; i++) {
		TRY(begin_falling_back(&r));
		/* It is the one issuer still. */
		TRY(makes_a_request(&ring));
		TRY(falls_back_at_once());
		TRY(end_reading(&r));
		TRY(makes_a_request(&ring));
	}
	return NULL;
}

WITH_IO_URING(ring_with_a_single_issuer)
{
	return falls_back_with(IORING_SETUP_SINGLE_ISSUER);
}

WITH_IO_URING(ring_that_defers_work)
{
	return falls_back_with(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

static struct ring ring_of_others;

static const char *makes_a_disabled_ring(void)
{
	CHECK(make_ring(&ring_of_others, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED));
	return NULL;
}

/* The one that it is for is not who has made it, but who enables it. */
WITH_IO_URING(ring_that_another_thread_has_made)
{
	struct reading r;

	TRY(run_in(true, makes_a_disabled_ring));
	TRY(hand_over(3));
	CHECK_EQ(0, raw_call(__NR_io_uring_register, ring_of_others.fd,
			     IORING_REGISTER_ENABLE_RINGS, NULL, 0));
	TRY(begin_falling_back(&r));
	TRY(makes_a_request(&ring_of_others));
	return end_reading(&r);
}

/* It issues for what was handed over, as this is the thread that made it. */
WITH_IO_URING(single_issuer_from_while_a_call_is_outstanding)
{
	struct reading r, second;
	struct ring ring;

	TRY(begin_reading(&r));
	CHECK(make_ring(&ring, IORING_SETUP_SINGLE_ISSUER));
	TRY(makes_a_request(&ring));
	TRY(begin_falling_back(&second));
	TRY(end_reading(&r));
	TRY(makes_a_request(&ring));
	return end_reading(&second);
}

WITH_IO_URING(registered_ring)
{
	struct io_uring_rsrc_update update = { .offset = -1U };
	struct reading r;
	struct ring ring;

	CHECK(make_ring(&ring, 0));
	TRY(hand_over(3));
	update.data = ring.fd;
	CHECK_EQ(1, raw_call(__NR_io_uring_register, ring.fd, IORING_REGISTER_RING_FDS, &update,
			     1));
	TRY(begin_falling_back(&r));
	CHECK_EQ(0, raw_call(__NR_io_uring_enter, update.offset, 0, 0,
			     IORING_ENTER_REGISTERED_RING, NULL, 0));
	TRY(falls_back_at_once());
	update.data = 0;
	CHECK_EQ(1, raw_call(__NR_io_uring_register, ring.fd, IORING_UNREGISTER_RING_FDS, &update,
			     1));
	TRY(end_reading(&r));
	return hand_over(3);
}

/* It completes where it was made, and then nothing is in the way. */
WITH_IO_URING(request_in_flight)
{
	struct reading r;
	struct ring ring;
	char byte;
	int i, fds[2];

	CHECK(make_ring(&ring, 0));
	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < 5; i++) {
		byte = 0;
		TRY(hand_over(2));
		TRY(begin_request(&ring, fds[0], &byte));
		TRY(begin_falling_back(&r));
		TRY(falls_back_at_once());
		CHECK_EQ(1, write(fds[1], "u", 1));
		TRY(reap_entry(&ring, 8, 1));
		CHECK_EQ('u', byte);
		TRY(end_reading(&r));
	}
	return hand_over(2);
}

/* A request that is made when a call is outstanding already, and completes before it. */
WITH_IO_URING(request_while_a_call_is_outstanding)
{
	struct reading r;
	struct ring ring;
	char byte;
	int i, fds[2];

	CHECK(make_ring(&ring, 0));
	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < 10; i++) {
		byte = 0;
		TRY(begin_reading(&r));
		TRY(begin_request(&ring, fds[0], &byte));
		CHECK_EQ(1, write(fds[1], "u", 1));
		TRY(reap_entry(&ring, 8, 1));
		CHECK_EQ('u', byte);
		TRY(end_reading(&r));
	}
	return NULL;
}

static const char *hands_over_without_a_ring(void)
{
	long fell_back = counter("fell_back");

	TRY(hand_over(5));
	CHECK_EQ(fell_back, counter("fell_back"));
	return NULL;
}

/* A ring is in the way of the thread that has it, and of no other. */
WITH_IO_URING(ring_of_another_thread)
{
	struct reading r;
	struct ring ring;

	CHECK(make_ring(&ring, IORING_SETUP_SINGLE_ISSUER));
	TRY(run_in(true, hands_over_without_a_ring));
	TRY(begin_falling_back(&r));
	TRY(run_in(true, hands_over_without_a_ring));
	return end_reading(&r);
}

/* Made through a worker, a call uses the ring's descriptor as any other. */
WITH_IO_URING(poll_of_a_ring)
{
	struct pollfd entry = { .events = POLLIN };
	struct submission s;
	struct ring ring;

	CHECK(make_ring(&ring, 0));
	entry.fd = ring.fd;
	TRY(submit_sleeping(&s, __NR_poll, ARGS(P(&entry), 1, -1UL)));
	CHECK_EQ(1, enter(&ring, (struct io_uring_sqe){ .opcode = IORING_OP_NOP, .user_data = 7 },
			  1));
	TRY(ends_with(&s, 1));
	CHECK_EQ(POLLIN, entry.revents);
	return reap_entry(&ring, 7, 0);
}

/* A call that is handed over, and a process that ends, with a request in flight. */
static const char *ends_with_a_request(void)
{
	static struct ring ring;
	static char byte;
	struct reading r, second;
	int fds[2];

	TRY(begin_reading(&r));
	CHECK(make_ring(&ring, 0));
	CHECK_EQ(0, pipe(fds));
	TRY(begin_request(&ring, fds[0], &byte));
	return begin_falling_back(&second);
}

TEST_F(ring, process_ends_with_a_request_in_flight)
{
	int i;

	for (i = 0; i < 10; i++)
		EXPECT_FINE(run_in_child(variant->other, ends_with_a_request));
}

TEST_HARNESS_MAIN
