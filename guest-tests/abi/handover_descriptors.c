// SPDX-License-Identifier: GPL-2.0
/*
 * A call that sleeps in a file holds the file, whatever user space does with the descriptor. In
 * a process of one thread the kernel lends descriptors without a reference: so the very first
 * asynchronous call of a process is the dangerous one. KASAN would tell.
 */
#include <linux/close_range.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "handover.h"
#include "../kselftest_harness.h"

/* A call that sleeps in a descriptor, as the first one of its process. */
struct first_call {
	/* Makes up to two descriptors; the first one is the first argument. */
	bool (*open)(int fds[2]);
	long nr;
	unsigned long args[6];
	/* What it ends with once all of its descriptors are closed; LONG_MIN: it does not end. */
	long value;
};

static char buffer[64];

static bool open_pipe(int fds[2])
{
	return !pipe(fds);
}

static bool open_stream(int fds[2])
{
	return !socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static bool open_datagram(int fds[2])
{
	return !socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
}

static bool open_eventfd(int fds[2])
{
	fds[0] = eventfd(0, 0);
	fds[1] = -1;
	return fds[0] >= 0;
}

static bool open_timerfd(int fds[2])
{
	fds[0] = timerfd_create(CLOCK_MONOTONIC, 0);
	fds[1] = -1;
	return fds[0] >= 0;
}

static bool open_inotify(int fds[2])
{
	fds[0] = inotify_init();
	fds[1] = -1;
	return fds[0] >= 0 && inotify_add_watch(fds[0], "/tmp", IN_DELETE_SELF) >= 0;
}

static bool open_epoll(int fds[2])
{
	struct epoll_event event = { .events = EPOLLIN };

	fds[0] = epoll_create1(0);
	fds[1] = eventfd(0, 0);
	return fds[0] >= 0 && fds[1] >= 0 && !epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &event);
}

static bool open_listener(int fds[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	fds[1] = -1;
	return fds[0] >= 0 && !bind(fds[0], (struct sockaddr *)&address, sizeof(address)) &&
	       !listen(fds[0], 1);
}

static bool open_terminal(int fds[2])
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);

	if (master < 0 || grantpt(master) || unlockpt(master))
		return false;
	fds[0] = open(ptsname(master), O_RDWR | O_NOCTTY);
	fds[1] = -1;
	return fds[0] >= 0;
}

static bool open_full_pipe(int fds[2])
{
	static char data[1 << 16];
	int ends[2];

	if (pipe(ends))
		return false;
	fds[0] = ends[1];
	fds[1] = ends[0];
	signal(SIGPIPE, SIG_IGN);
	return write(ends[1], data, sizeof(data)) == sizeof(data);
}

FIXTURE(first)
{
};

FIXTURE_VARIANT(first)
{
	struct first_call call;
};

#define FIRST_CALL(name, ...)						\
	FIXTURE_VARIANT_ADD(first, name) { .call = { __VA_ARGS__ }, }

FIRST_CALL(read_pipe, .open = open_pipe, .nr = __NR_read, .args = { 0, P(buffer), 8 }, .value = 0);
FIRST_CALL(write_pipe, .open = open_full_pipe, .nr = __NR_write, .args = { 0, P(buffer), 8 },
	   .value = -EPIPE);
FIRST_CALL(recv_stream, .open = open_stream, .nr = __NR_recvfrom, .args = { 0, P(buffer), 8 },
	   .value = 0);
FIRST_CALL(read_stream, .open = open_stream, .nr = __NR_read, .args = { 0, P(buffer), 8 },
	   .value = 0);
FIRST_CALL(recv_datagram, .open = open_datagram, .nr = __NR_recvfrom, .args = { 0, P(buffer), 8 },
	   .value = LONG_MIN);
FIRST_CALL(accept, .open = open_listener, .nr = __NR_accept, .value = LONG_MIN);
FIRST_CALL(eventfd, .open = open_eventfd, .nr = __NR_read, .args = { 0, P(buffer), 8 },
	   .value = LONG_MIN);
FIRST_CALL(timerfd, .open = open_timerfd, .nr = __NR_read, .args = { 0, P(buffer), 8 },
	   .value = LONG_MIN);
FIRST_CALL(inotify, .open = open_inotify, .nr = __NR_read, .args = { 0, P(buffer), 64 },
	   .value = LONG_MIN);
FIRST_CALL(epoll, .open = open_epoll, .nr = __NR_epoll_wait, .args = { 0, P(buffer), 1, -1UL },
	   .value = LONG_MIN);
FIRST_CALL(terminal, .open = open_terminal, .nr = __NR_read, .args = { 0, P(buffer), 8 },
	   .value = LONG_MIN);

FIXTURE_SETUP(first)
{
}

FIXTURE_TEARDOWN(first)
{
}

static const struct first_call *call;

enum way_to_close { BY_CLOSE, BY_CLOSE_RANGE, BY_DUP2, WAYS_TO_CLOSE };

static const char *close_both(int fds[2], enum way_to_close way)
{
	int i, null = -1;

	if (way == BY_DUP2) {
		null = open("/dev/null", O_RDWR);
		CHECK(null >= 0);
	}
	for (i = 0; i < 2; i++) {
		if (fds[i] < 0)
			continue;
		switch (way) {
		case BY_CLOSE:
			CHECK_EQ(0, close(fds[i]));
			break;
		case BY_CLOSE_RANGE:
			CHECK_EQ(0, close_range(fds[i], fds[i], 0));
			break;
		default:
			CHECK_EQ(fds[i], dup2(null, fds[i]));
		}
	}
	return NULL;
}

/* Memory that was freed gets another content. */
static void stir(void)
{
	int fds[16][2], i;

	for (i = 0; i < 16; i++)
		if (pipe(fds[i]))
			return;
	for (i = 0; i < 16; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static const char *close_under_the_first_call(enum way_to_close way)
{
	unsigned long args[6];
	struct submission s;
	int fds[2];

	CHECK(call->open(fds));
	memcpy(args, call->args, sizeof(args));
	args[0] = fds[0];
	CHECK_EQ(0, counter("workers"));
	TRY(submit_sleeping(&s, call->nr, args));
	TRY(close_both(fds, way));
	stir();
	if (call->value == LONG_MIN) {
		CHECK_EQ(s.cookie, result_of(&s.result));
		CHECK_EQ(0, async_cancel(0, s.cookie));
		return ends_with(&s, -ECANCELED);
	}
	return ends_with(&s, call->value);
}

TEST_F_TIMEOUT(first, call_of_a_process_and_close, 300)
{
	int i, n = times(12, 1000);

	call = &variant->call;
	for (i = 0; i < n; i++) {
		pid_t child = fork_child();

		ASSERT_LE(0, child);
		if (child == 0)
			exit_fine(close_under_the_first_call(i % WAYS_TO_CLOSE));
		ASSERT_EQ(0, status_of(child));
	}
}

/* The process ends right after, with the call asleep in a file that nobody else knows. */
TEST_F_TIMEOUT(first, call_of_a_process_and_exit, 300)
{
	int i, n = times(8, 1000);

	call = &variant->call;
	for (i = 0; i < n; i++) {
		pid_t child = fork_child();

		ASSERT_LE(0, child);
		if (child == 0) {
			unsigned long args[6];
			struct submission s;
			int fds[2];

			if (!call->open(fds))
				_exit(1);
			memcpy(args, call->args, sizeof(args));
			args[0] = fds[0];
			if (submit_sleeping(&s, call->nr, args))
				_exit(2);
			if (i % 2)
				close_both(fds, BY_CLOSE);
			_exit(0);
		}
		ASSERT_EQ(0, status_of(child));
	}
}

EITHER_THREAD()

/* poll() sleeps in many files at once. */
IN_A_CHILD(poll_of_many)
{
	struct pollfd entries[20];
	struct submission s;
	int fds[20][2], i;

	for (i = 0; i < 20; i++) {
		CHECK_EQ(0, pipe(fds[i]));
		entries[i] = (struct pollfd){ .fd = fds[i][0], .events = POLLIN };
	}
	TRY(submit_sleeping(&s, __NR_poll, ARGS(P(entries), 20, -1UL)));
	for (i = 0; i < 20; i++)
		CHECK_EQ(0, close(fds[i][0]));
	stir();
	CHECK_EQ(s.cookie, result_of(&s.result));
	for (i = 0; i < 20; i++)
		CHECK_EQ(0, close(fds[i][1]));
	TRY(ends_with(&s, 20));
	return NULL;
}

/* The descriptors of before and after a hand-over are the same table. */
IN_A_CHILD(table_is_shared)
{
	struct reading r;
	long fd, result;
	char byte;
	int fds[2];

	TRY(begin_reading(&r));
	CHECK_EQ(0, pipe(fds));
	/* A descriptor that the user context made is there for the next call, and so on. */
	CHECK_EQ(1, write(fds[1], "z", 1));
	CHECK_EQ(0, async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1)));
	CHECK_EQ(1, result);
	CHECK_EQ(0, async_submit(0, &fd, __NR_dup, ARGS(fds[1])));
	CHECK(fd > fds[1]);
	CHECK_EQ(1, write(fd, "y", 1));
	CHECK_EQ(1, read(fds[0], &byte, 1));
	CHECK_EQ('y', byte);
	return end_reading(&r);
}

/* An inner call that sleeps and then opens: what it opened belongs to the process. */
IN_A_CHILD(opened_after_a_sleep)
{
	struct submission s;
	char path[64], byte;
	int fd;

	snprintf(path, sizeof(path), "/tmp/async_fifo.%d.%d", getpid(), gettid());
	CHECK_EQ(0, mkfifo(path, 0600));
	TRY(submit_sleeping(&s, __NR_openat, ARGS(AT_FDCWD, P(path), O_RDONLY)));
	fd = open(path, O_WRONLY);
	CHECK(fd >= 0);
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result >= 0);
	CHECK_EQ(1, write(fd, "f", 1));
	CHECK_EQ(1, read(s.result, &byte, 1));
	CHECK_EQ('f', byte);
	CHECK_EQ(0, unlink(path));
	return NULL;
}

/* close() of a descriptor in use is done when it says so, and its number is free. */
IN_A_CHILD(number_is_reused)
{
	struct reading r;
	int again[2], i;

	for (i = 0; i < 50; i++) {
		int fd;

		TRY(begin_reading(&r));
		fd = r.fds[0];
		CHECK_EQ(0, close(fd));
		CHECK_EQ(0, pipe(again));
		CHECK_EQ(fd, again[0]);
		/* The call is on the old file. */
		CHECK_EQ(1, write(again[1], "n", 1));
		CHECK_EQ(r.s.cookie, result_of(&r.s.result));
		CHECK_EQ(1, write(r.fds[1], "o", 1));
		TRY(ends_with(&r.s, 1));
		CHECK_EQ('o', r.byte);
		close(r.fds[1]);
		close(again[0]);
		close(again[1]);
	}
	return NULL;
}

/* The writer sees no reader only when the call has let go too. */
IN_A_CHILD(file_is_released_when_the_call_has_ended)
{
	struct reading r;

	signal(SIGPIPE, SIG_IGN);
	TRY(begin_reading(&r));
	CHECK_EQ(0, close(r.fds[0]));
	CHECK_EQ(1, write(r.fds[1], "x", 1));
	TRY(ends_with(&r.s, 1));
	CHECK_EQ(-1, write(r.fds[1], "x", 1));
	CHECK_EQ(EPIPE, errno);
	return NULL;
}

TEST_HARNESS_MAIN
