// SPDX-License-Identifier: GPL-2.0
/*
 * What a system call costs that does not sleep: made directly, by async_submit(), by io_uring and
 * by Linux AIO, one by one and in one process. Every figure has the clock's own share in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "async.h"
#include "exact.h"

#define TIMES 5

static char byte;
static int file;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* Runs `code` in a window of its own, TIMES times. */
#define MEASURE(name, code)						\
do {									\
	for (int time = 0; time < TIMES; time++) {			\
		struct exact_window window;				\
									\
		exact_begin(&window);					\
		code;							\
		exact_end(&window);					\
		exact_report(name, &window);				\
	}								\
} while (0)

static void direct(void)
{
	MEASURE("getppid direct", syscall(SYS_getppid));
	MEASURE("pread direct", syscall(SYS_pread64, file, &byte, 1, 0));
}

static void by_async_submit(void)
{
	const unsigned long none[6] = { 0 };
	const unsigned long args[6] = { file, (unsigned long)&byte, 1, 0 };
	long before = async_counter("inline");
	long result;

	MEASURE("getppid async_submit",
		if (syscall(SYS_async_submit, 0, &result, SYS_getppid, none)) fail("getppid"));
	MEASURE("pread async_submit",
		if (syscall(SYS_async_submit, 0, &result, SYS_pread64, args)) fail("pread"));
	if (result != 1 || async_counter("inline") != before + 2 * TIMES)
		fail("a call was not made inline");
}

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void *map(int fd, size_t size, off_t offset)
{
	void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	if (start == MAP_FAILED)
		fail("mmap of a ring");
	return start;
}

static void ring_open(struct ring *ring)
{
	struct io_uring_params params = { 0 };
	char *sq, *cq;

	ring->fd = syscall(SYS_io_uring_setup, 8, &params);
	if (ring->fd < 0)
		fail("io_uring_setup");
	sq = map(ring->fd, params.sq_off.array + params.sq_entries * 4, IORING_OFF_SQ_RING);
	cq = map(ring->fd, params.cq_off.cqes + params.cq_entries * sizeof(*ring->cqes),
		 IORING_OFF_CQ_RING);
	ring->sqes = map(ring->fd, params.sq_entries * sizeof(*ring->sqes), IORING_OFF_SQES);
	ring->sq_tail = (void *)(sq + params.sq_off.tail);
	ring->sq_mask = (void *)(sq + params.sq_off.ring_mask);
	ring->sq_array = (void *)(sq + params.sq_off.array);
	ring->cq_head = (void *)(cq + params.cq_off.head);
	ring->cq_tail = (void *)(cq + params.cq_off.tail);
	ring->cq_mask = (void *)(cq + params.cq_off.ring_mask);
	ring->cqes = (void *)(cq + params.cq_off.cqes);
}

/* Submit one request and wait for it, in one call of the kernel. */
static inline int ring_one(struct ring *ring, int opcode, int fd, void *address, unsigned int length)
{
	unsigned int tail = *ring->sq_tail, index = tail & *ring->sq_mask;
	struct io_uring_sqe *sqe = &ring->sqes[index];
	unsigned int head;
	int value;

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->addr = (unsigned long)address;
	sqe->len = length;
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		fail("io_uring_enter");
	head = *ring->cq_head;
	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		fail("no completion");
	value = ring->cqes[head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return value;
}

static void by_io_uring(struct ring *ring)
{
	MEASURE("nop io_uring", if (ring_one(ring, IORING_OP_NOP, -1, NULL, 0)) fail("nop"));
	MEASURE("read io_uring",
		if (ring_one(ring, IORING_OP_READ, file, &byte, 1) != 1) fail("read"));
}

static void by_aio(void)
{
	struct iocb request = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = file,
				.aio_buf = (unsigned long)&byte, .aio_nbytes = 1 };
	struct iocb *requests[] = { &request };
	struct io_event event;
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, 8, &context))
		fail("io_setup");
	MEASURE("pread aio",
		if (syscall(SYS_io_submit, context, 1, requests) != 1 ||
		    syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
			fail("aio"));
	syscall(SYS_io_destroy, context);
}

int main(void)
{
	const unsigned long none[6] = { 0 };
	struct ring ring;
	char path[64];
	long result;

	snprintf(path, sizeof(path), "%s/byte", exact_ext4() ?: "/tmp");
	file = open(path, O_RDWR | O_CREAT, 0600);
	if (file < 0 || write(file, "x", 1) != 1)
		fail("a file of one byte");
	/* The first one makes a second thread: from here on all of them are in such a process. */
	if (syscall(SYS_async_submit, 0, &result, SYS_getppid, none))
		fail("async_submit");
	direct();
	by_async_submit();
	by_aio();
	ring_open(&ring);
	by_io_uring(&ring);
	by_async_submit();
	async_show();
	return 0;
}
