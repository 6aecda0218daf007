// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to ask whether a call has ended that has not: a look at its result word, which does
 * not enter the kernel, beside what asks the kernel, and what other models have for it.
 */
#define _GNU_SOURCE

#include <aio.h>
#include <linux/aio_abi.h>
#include <linux/time_types.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "span.h"
#include "model.h"
#include "model_ring.h"

#define TIMES 5

/* Runs `code` TIMES times in spans of its own, and shows the least. */
#define MEASURE(name, code)							\
do {										\
	struct span least, seen;						\
										\
	for (int time = 0; time < TIMES; time++) {				\
		span_begin(&seen);						\
		code;								\
		span_end(&seen);						\
		span_keep_least(&least, &seen, !time);				\
	}									\
	show(name, &least);							\
} while (0)

static int ends[2];
static char byte;

static void show(const char *name, const struct span *span)
{
	printf("{\"name\": \"status, %s\", \"value\": %lu, \"unit\": \"%s\", \"window\": %u"
	       ", \"work\": \"status\", \"model\": \"%s\", \"outstanding\": 1, \"phase\": \"status\"",
	       name, span_value(span), span_unit(), span_exact ? span->window.number : 0, name);
	if (span_exact)
		exact_print_more(&span->window);
	printf("}\n");
}

static void empty(void)
{
	MEASURE("nothing", (void)0);
}

static void async_submit_word(void)
{
	const struct __kernel_timespec none = { 0 };
	unsigned long args[6] = { ends[0], (unsigned long)&byte, 1 };
	volatile unsigned long pending;
	static long word;
	long cookie = syscall(SYS_async_submit, 0, &word, SYS_read, args);

	if (cookie < 0 && errno == ENOSYS)
		return;
	if (cookie <= 0)
		fail("the read did not sleep");
	MEASURE("async_submit, result word",
		pending = (unsigned long)__atomic_load_n(&word, __ATOMIC_ACQUIRE) >> 62 == 1);
	if (!pending)
		fail("the read has ended");
	MEASURE("async_submit, wait_for_async of no time",
		if (!syscall(SYS_wait_for_async, 0, cookie, &none) || errno != ETIME)
			fail("wait_for_async"));
	if (write(ends[1], "x", 1) != 1 || syscall(SYS_wait_for_async, 0, cookie, NULL))
		fail("the read does not end");
}

static void by_io_uring(void)
{
	struct call call = { .op = OP_READ, .fd = ends[0], .memory = &byte, .length = 1 };
	volatile bool ended;

	ring_open(1, 1);
	ring_submit(&call, 1);
	MEASURE("io_uring, completion queue",
		ended = *ring.cq_head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE));
	if (ended)
		fail("the read has ended");
	MEASURE("io_uring, enter for no event",
		if (syscall(SYS_io_uring_enter, ring.fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0))
			fail("io_uring_enter"));
	if (write(ends[1], "x", 1) != 1)
		fail("write");
	ring_complete(&call, 1);
	ring_close();
}

/* It cannot wait for a pipe without being held up: a context with nothing in it. */
static void by_aio(void)
{
	const struct timespec none = { 0 };
	aio_context_t context = 0;
	struct io_event event;

	if (syscall(SYS_io_setup, 1, &context))
		fail("io_setup");
	MEASURE("Linux AIO, io_getevents of no time",
		if (syscall(SYS_io_getevents, context, 1, 1, &event, &none))
			fail("io_getevents"));
	syscall(SYS_io_destroy, context);
}

static void by_posix_aio(void)
{
	struct aiocb request = { .aio_fildes = ends[0], .aio_buf = &byte, .aio_nbytes = 1 };
	const struct aiocb *one = &request;
	volatile int error;

	if (aio_read(&request))
		fail("aio_read");
	MEASURE("POSIX AIO, aio_error", error = aio_error(&request));
	if (error != EINPROGRESS || write(ends[1], "x", 1) != 1)
		fail("aio_error");
	while (aio_error(&request) == EINPROGRESS)
		aio_suspend(&one, 1, NULL);
}

static void by_eventfd(void)
{
	struct pollfd event = { .fd = eventfd(0, 0), .events = POLLIN };

	if (event.fd < 0)
		fail("eventfd");
	MEASURE("eventfd, poll of no time", if (poll(&event, 1, 0)) fail("poll"));
	close(event.fd);
}

int main(int argc, char **argv)
{
	if (argc != 2 || !span_kind(argv[1])) {
		fprintf(stderr, "usage: status exact|timed\n");
		return 2;
	}
	if (pipe(ends))
		fail("pipe");
	empty();
	async_submit_word();
	by_io_uring();
	by_aio();
	by_posix_aio();
	by_eventfd();
	return 0;
}
