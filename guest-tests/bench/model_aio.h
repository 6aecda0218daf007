/* SPDX-License-Identifier: GPL-2.0 */
/* Linux AIO, and POSIX AIO as the C library makes it, of threads. Both only read and fsync. */
#ifndef BENCH_MODEL_AIO_H
#define BENCH_MODEL_AIO_H

#include <aio.h>
#include <linux/aio_abi.h>

#include "model.h"

#define POSIX_THREADS	64

static __thread aio_context_t aio_context;
static __thread struct iocb *aio_requests;
static __thread struct io_event *aio_events;
static __thread struct aiocb *posix_requests;

/* io_submit() of a read that waits does not return before it ends. */
static bool aio_can(enum op op, bool waits)
{
	return !waits && (op == OP_PREAD || op == OP_FSYNC);
}

static void *zeros(unsigned int count, size_t size)
{
	void *start = calloc(count, size);

	if (!start)
		fail("calloc");
	return start;
}

static void aio_open(unsigned int count, unsigned int sleepers)
{
	(void)sleepers;
	aio_context = 0;
	if (syscall(SYS_io_setup, count, &aio_context))
		fail("io_setup");
	aio_requests = zeros(count, sizeof(*aio_requests));
	aio_events = zeros(count, sizeof(*aio_events));
}

static void aio_close(void)
{
	syscall(SYS_io_destroy, aio_context);
	free(aio_requests);
	free(aio_events);
}

static void aio_submit(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++) {
		struct iocb *request = &aio_requests[at];
		const struct call *call = &calls[at];
		bool reads = call->op == OP_PREAD;

		memset(request, 0, sizeof(*request));
		request->aio_lio_opcode = reads ? IOCB_CMD_PREAD : IOCB_CMD_FSYNC;
		request->aio_fildes = call->fd;
		request->aio_data = (unsigned long)call;
		if (reads) {
			request->aio_buf = (unsigned long)call->memory;
			request->aio_nbytes = call->length;
			request->aio_offset = call->offset;
		}
		if (syscall(SYS_io_submit, aio_context, 1, &request) != 1)
			fail("io_submit");
	}
}

static void aio_complete(struct call *calls, unsigned int count)
{
	unsigned int left = count;

	(void)calls;
	while (left) {
		long got = syscall(SYS_io_getevents, aio_context, left, left, aio_events, NULL);

		if (got < 0 && errno != EINTR)
			fail("io_getevents");
		for (long at = 0; at < got; at++)
			((struct call *)aio_events[at].data)->value = aio_events[at].res;
		left -= got > 0 ? got : 0;
	}
}

/* The library reads from what has no position, too. */
static bool posix_can(enum op op, bool waits)
{
	(void)waits;
	return op == OP_PREAD || op == OP_READ || op == OP_RECV || op == OP_FSYNC;
}

static void posix_open(unsigned int count, unsigned int sleepers)
{
	const struct aioinit wish = {
		.aio_threads = sleepers > POSIX_THREADS ? sleepers : POSIX_THREADS,
		.aio_num = count,
	};

	aio_init(&wish);
	posix_requests = zeros(count, sizeof(*posix_requests));
}

static void posix_close(void)
{
	free(posix_requests);
}

static void posix_submit(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++) {
		struct aiocb *request = &posix_requests[at];
		const struct call *call = &calls[at];

		memset(request, 0, sizeof(*request));
		request->aio_fildes = call->fd;
		request->aio_buf = call->memory;
		request->aio_nbytes = call->length;
		request->aio_offset = call->offset;
		request->aio_sigevent.sigev_notify = SIGEV_NONE;
		if (call->op == OP_FSYNC ? aio_fsync(O_SYNC, request) : aio_read(request))
			fail("POSIX AIO");
	}
}

static void posix_complete(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++) {
		const struct aiocb *one = &posix_requests[at];
		int error;

		while ((error = aio_error(one)) == EINPROGRESS)
			if (aio_suspend(&one, 1, NULL) && errno != EINTR)
				fail("aio_suspend");
		calls[at].value = error ? -error : aio_return(&posix_requests[at]);
	}
}

static const struct model linux_aio = {
	"Linux AIO", aio_can, aio_open, aio_submit, aio_complete, aio_close,
};

static const struct model posix_aio = {
	"POSIX AIO", posix_can, posix_open, posix_submit, posix_complete, posix_close,
};

#endif
