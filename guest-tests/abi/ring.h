/* SPDX-License-Identifier: GPL-2.0 */
/* A ring of io_uring, by hand. */
#ifndef RING_H
#define RING_H

#include <linux/io_uring.h>

#include "handover.h"

struct ring {
	int fd;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
};

static inline unsigned int *word(char *ring, unsigned int offset)
{
	return (unsigned int *)(ring + offset);
}

static inline void *map_ring(const struct ring *ring, size_t size, off_t offset)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
		    offset);
}

/* What keeps it: the descriptor and three mappings. */
static inline void drop_ring(struct ring *ring)
{
	munmap(ring->sq, ring->p.sq_off.array + 8 * sizeof(int));
	munmap(ring->cq, ring->p.cq_off.cqes + 32 * sizeof(struct io_uring_cqe));
	munmap(ring->sqes, 8 * sizeof(struct io_uring_sqe));
	close(ring->fd);
}

static inline bool make_ring(struct ring *ring, unsigned int flags)
{
	*ring = (struct ring){ .p = { .flags = flags } };
	ring->fd = raw_call(__NR_io_uring_setup, 8, &ring->p);
	if (ring->fd < 0)
		return false;
	ring->sq = map_ring(ring, ring->p.sq_off.array + 8 * sizeof(int), IORING_OFF_SQ_RING);
	ring->cq = map_ring(ring, ring->p.cq_off.cqes + 32 * sizeof(struct io_uring_cqe),
			    IORING_OFF_CQ_RING);
	ring->sqes = map_ring(ring, 8 * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	return ring->sq != MAP_FAILED && ring->cq != MAP_FAILED && ring->sqes != MAP_FAILED;
}

/* Submits a request, and waits for so many completions. */
static inline long enter(struct ring *ring, struct io_uring_sqe sqe, unsigned int wait)
{
	unsigned int *tail = word(ring->sq, ring->p.sq_off.tail);
	unsigned int index = *tail & *word(ring->sq, ring->p.sq_off.ring_mask);

	ring->sqes[index] = sqe;
	word(ring->sq, ring->p.sq_off.array)[index] = index;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	return raw_call(__NR_io_uring_enter, ring->fd, 1, wait, IORING_ENTER_GETEVENTS, NULL, 0);
}

/* Takes the next completion. */
static inline const char *take_entry(struct ring *ring, struct io_uring_cqe *entry)
{
	unsigned int *head = word(ring->cq, ring->p.cq_off.head);
	const unsigned int *tail = word(ring->cq, ring->p.cq_off.tail);
	const struct io_uring_cqe *cqes = (void *)(ring->cq + ring->p.cq_off.cqes);
	unsigned int index;

	/* Rings with DEFER_TASKRUN complete requests when asked to. */
	CHECK(becomes_true(__atomic_load_n(tail, __ATOMIC_ACQUIRE) != *head ||
			   raw_call(__NR_io_uring_enter, ring->fd, 0, 0, IORING_ENTER_GETEVENTS,
				    NULL, 0) < 0));
	CHECK(__atomic_load_n(tail, __ATOMIC_ACQUIRE) != *head);
	index = *head & *word(ring->cq, ring->p.cq_off.ring_mask);
	/* The flexible array at its end is not part of it, also where it has one. */
	memcpy(entry, &cqes[index << !!(ring->p.flags & IORING_SETUP_CQE32)], sizeof(*entry));
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return NULL;
}

static inline const char *reap_entry(struct ring *ring, unsigned long user_data, int value)
{
	struct io_uring_cqe entry;

	TRY(take_entry(ring, &entry));
	CHECK_EQ(user_data, entry.user_data);
	CHECK_EQ(value, entry.res);
	return NULL;
}

#endif /* RING_H */
