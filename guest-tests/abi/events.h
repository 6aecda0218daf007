/* SPDX-License-Identifier: GPL-2.0 */
/* Calls whose end is told to somebody: those that are handed over, and those that are offloaded. */
#ifndef EVENTS_H
#define EVENTS_H

#include "handover.h"

#define WITH_FD(fd)	((unsigned long)(fd) << ASYNC_SUBMIT_FD_SHIFT)

FIXTURE(way)
{
	unsigned long flags;
};

FIXTURE_VARIANT(way)
{
	unsigned long flags;
};

FIXTURE_VARIANT_ADD(way, handed_over)
{
	.flags = 0,
};

FIXTURE_VARIANT_ADD(way, offloaded)
{
	.flags = ASYNC_SUBMIT_OFFLOAD,
};

FIXTURE_SETUP(way)
{
	self->flags = variant->flags;
}

FIXTURE_TEARDOWN(way)
{
}

/* Submits the read of an empty pipe, which sleeps. */
static inline const char *submit_reading(struct reading *r, unsigned long flags)
{
	long handed_over = counter("handed_over"), offloaded = counter("offloaded");

	r->s.result = UNTOUCHED;
	CHECK_EQ(0, pipe(r->fds));
	r->s.cookie = async_submit(flags, &r->s.result, __NR_read,
				   ARGS(r->fds[0], P(&r->byte), 1));
	CHECK(is_cookie(r->s.cookie));
	if (flags & ASYNC_SUBMIT_OFFLOAD)
		CHECK_EQ(offloaded + 1, counter("offloaded"));
	else
		CHECK_EQ(handed_over + 1, counter("handed_over"));
	return NULL;
}

/* Ends it, without waiting for that. */
static inline const char *feed_reading(struct reading *r)
{
	CHECK_EQ(1, write(r->fds[1], "x", 1));
	return NULL;
}

static inline void close_reading(struct reading *r)
{
	close(r->fds[0]);
	close(r->fds[1]);
}

#endif /* EVENTS_H */
