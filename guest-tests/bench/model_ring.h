/* SPDX-License-Identifier: GPL-2.0 */
/*
 * io_uring without its library: one by one, 32 at a time, with IOSQE_ASYNC, and one by one on a ring
 * that is told that one thread issues all and looks for completions only where it waits.
 */
#ifndef BENCH_MODEL_RING_H
#define BENCH_MODEL_RING_H

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sys/mman.h>

#include "model.h"

#define RING_BATCH	32U

struct ring {
	int fd;
	unsigned int entries;
	unsigned int outstanding;
	unsigned int *sq_tail, *sq_array, *cq_head, *cq_tail;
	unsigned int sq_mask, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	size_t sq_bytes, cq_bytes, sqe_bytes;
	void *sq, *cq;
};

static __thread struct ring ring;

static void *ring_map(size_t size, off_t offset)
{
	const int flags = MAP_SHARED | MAP_POPULATE;
	void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, ring.fd, offset);

	if (start == MAP_FAILED)
		fail("mmap of a ring");
	return start;
}

static void ring_open_with(unsigned int count, unsigned int flags)
{
	struct io_uring_params params = { .flags = flags };

	ring.entries = count < RING_BATCH ? RING_BATCH : count;
	ring.fd = syscall(SYS_io_uring_setup, ring.entries, &params);
	if (ring.fd < 0)
		fail("io_uring_setup");
	ring.sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned int);
	ring.cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(*ring.cqes);
	ring.sqe_bytes = params.sq_entries * sizeof(*ring.sqes);
	ring.sq = ring_map(ring.sq_bytes, IORING_OFF_SQ_RING);
	ring.cq = ring_map(ring.cq_bytes, IORING_OFF_CQ_RING);
	ring.sqes = ring_map(ring.sqe_bytes, IORING_OFF_SQES);
	ring.sq_tail = ring.sq + params.sq_off.tail;
	ring.sq_array = ring.sq + params.sq_off.array;
	ring.cq_head = ring.cq + params.cq_off.head;
	ring.cq_tail = ring.cq + params.cq_off.tail;
	ring.cqes = ring.cq + params.cq_off.cqes;
	ring.sq_mask = *(unsigned int *)(ring.sq + params.sq_off.ring_mask);
	ring.cq_mask = *(unsigned int *)(ring.cq + params.cq_off.ring_mask);
	ring.outstanding = 0;
}

static void ring_open(unsigned int count, unsigned int sleepers)
{
	(void)sleepers;
	ring_open_with(count, 0);
}

static void ring_open_deferring(unsigned int count, unsigned int sleepers)
{
	(void)sleepers;
	ring_open_with(count, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

static void ring_close(void)
{
	munmap(ring.sqes, ring.sqe_bytes);
	munmap(ring.cq, ring.cq_bytes);
	munmap(ring.sq, ring.sq_bytes);
	close(ring.fd);
}

/* AIO has no such thing; a ring has all of the calls that are measured here. */
static inline __attribute__((always_inline)) void ring_fill(struct io_uring_sqe *sqe,
							     const struct call *call,
							     unsigned int flags)
{
	memset(sqe, 0, sizeof(*sqe));
	sqe->flags = flags;
	sqe->fd = call->fd;
	sqe->addr = (unsigned long)call->memory;
	sqe->len = call->length;
	sqe->user_data = (unsigned long)call;
	switch (call->op) {
	case OP_NOP:
		sqe->opcode = IORING_OP_NOP;
		break;
	case OP_PREAD:
		sqe->opcode = IORING_OP_READ;
		sqe->off = call->offset;
		break;
	case OP_READ:
		sqe->opcode = IORING_OP_READ;
		sqe->off = -1;
		break;
	case OP_RECV:
		sqe->opcode = IORING_OP_RECV;
		break;
	case OP_STAT:
		sqe->opcode = IORING_OP_STATX;
		sqe->fd = AT_FDCWD;
		sqe->addr = (unsigned long)call->path;
		sqe->len = STATX_BASIC_STATS;
		sqe->off = (unsigned long)call->memory;
		break;
	case OP_OPEN:
		sqe->opcode = IORING_OP_OPENAT;
		sqe->fd = AT_FDCWD;
		sqe->addr = (unsigned long)call->path;
		sqe->len = 0;
		sqe->open_flags = O_RDONLY;
		break;
	case OP_CLOSE:
		sqe->opcode = IORING_OP_CLOSE;
		sqe->addr = 0;
		sqe->len = 0;
		break;
	case OP_FSYNC:
		sqe->opcode = IORING_OP_FSYNC;
		sqe->addr = 0;
		sqe->len = 0;
		break;
	case OP_SLEEP:
		sqe->opcode = IORING_OP_TIMEOUT;
		sqe->len = 1;
		break;
	}
}

static inline __attribute__((always_inline)) void ring_each(struct call *calls,
							     unsigned int count,
							     unsigned int flags,
							     unsigned int batch)
{
	unsigned int tail = *ring.sq_tail;
	unsigned int filled = 0;

	for (unsigned int at = 0; at < count; at++) {
		unsigned int index = tail & ring.sq_mask;

		ring_fill(&ring.sqes[index], &calls[at], flags);
		ring.sq_array[index] = index;
		tail++;
		if (++filled < batch && at + 1 < count)
			continue;
		__atomic_store_n(ring.sq_tail, tail, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring.fd, filled, 0, 0, NULL, 0) != filled)
			fail("io_uring_enter");
		filled = 0;
	}
	ring.outstanding += count;
}

static void ring_submit(struct call *calls, unsigned int count)
{
	ring_each(calls, count, 0, 1);
}

static void ring_batch_submit(struct call *calls, unsigned int count)
{
	ring_each(calls, count, 0, RING_BATCH);
}

static void ring_async_submit(struct call *calls, unsigned int count)
{
	ring_each(calls, count, IOSQE_ASYNC, 1);
}

static void ring_complete(struct call *calls, unsigned int count)
{
	(void)calls;
	(void)count;
	while (ring.outstanding) {
		unsigned int head = *ring.cq_head;
		unsigned int tail = __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE);

		ring.outstanding -= tail - head;
		for (; head != tail; head++) {
			const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];

			((struct call *)cqe->user_data)->value = cqe->res;
		}
		__atomic_store_n(ring.cq_head, head, __ATOMIC_RELEASE);
		if (ring.outstanding &&
		    syscall(SYS_io_uring_enter, ring.fd, 0, ring.outstanding,
			    IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR)
			fail("io_uring_enter");
	}
}

static const struct model ring_single = {
	"io_uring", can_all, ring_open, ring_submit, ring_complete, ring_close,
};

static const struct model ring_batch = {
	"io_uring by 32", can_all, ring_open, ring_batch_submit, ring_complete, ring_close,
};

static const struct model ring_defer = {
	"io_uring DEFER", can_all, ring_open_deferring, ring_submit, ring_complete, ring_close,
};

static const struct model ring_async = {
	"io_uring ASYNC", can_all, ring_open, ring_async_submit, ring_complete, ring_close,
};

#endif
