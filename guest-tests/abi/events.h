/* SPDX-License-Identifier: GPL-2.0 */
/* Calls whose end is told to somebody: those that are handed over, and those that are offloaded. */
#ifndef EVENTS_H
#define EVENTS_H

#include "handover.h"

#define WITH_FD(fd)	((unsigned long)(fd) << ASYNC_SUBMIT_FD_SHIFT)

FIXTURE(way) { };
WITH_AND_WITHOUT_OFFLOAD(way, handed_over);
FIXTURE_SETUP(way) { }
FIXTURE_TEARDOWN(way) { }

/* Submits the read of an empty pipe, which sleeps, whichever way it takes. */
static inline const char *submit_any_way(struct reading *r, unsigned long flags)
{
	r->s.result = UNTOUCHED;
	CHECK_EQ(0, pipe(r->fds));
	r->s.cookie = async_submit(flags, &r->s.result, __NR_read,
				   ARGS(r->fds[0], P(&r->byte), 1));
	CHECK(is_cookie(r->s.cookie));
	return NULL;
}

/* The same, offloaded or handed over. */
static inline const char *submit_reading(struct reading *r, unsigned long flags)
{
	const char *way = flags & ASYNC_SUBMIT_OFFLOAD ? "offloaded" : "handed_over";
	long before = counter(way);

	TRY(submit_any_way(r, flags));
	CHECK_EQ(before + 1, counter(way));
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
