/* SPDX-License-Identifier: GPL-2.0 */
/* The call itself; async_submit(), inline where it can be; and the same on a worker at once. */
#ifndef BENCH_MODEL_CALL_H
#define BENCH_MODEL_CALL_H

#include "model.h"

/* Who waits for something that comes later is not there to let it come. */
static bool direct_can(enum op op, bool waits)
{
	(void)op;
	return !waits;
}

static void nothing_open(unsigned int count, unsigned int sleepers)
{
	(void)count;
	(void)sleepers;
}

static void nothing_complete(struct call *calls, unsigned int count)
{
	(void)calls;
	(void)count;
}

static void nothing_close(void)
{
}

static void direct_submit(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++)
		calls[at].value = make_call(&calls[at]);
}

static __thread unsigned int async_pending;

static inline __attribute__((always_inline)) void async_each(struct call *calls,
							      unsigned int count,
							      unsigned long flags)
{
	unsigned long args[6];
	long cookie;

	for (unsigned int at = 0; at < count; at++) {
		long nr = as_system_call(&calls[at], args);

		cookie = syscall(SYS_async_submit, flags, &calls[at].value, nr, args);
		if (cookie < 0)
			fail("async_submit");
		async_pending += cookie > 0;
	}
}

static void async_inline_submit(struct call *calls, unsigned int count)
{
	async_each(calls, count, 0);
}

static void async_offload_submit(struct call *calls, unsigned int count)
{
	async_each(calls, count, OFFLOAD);
}

/* One by one, since other threads have calls of their own: by then most have ended. */
static void async_complete(struct call *calls, unsigned int count)
{
	long value;

	for (unsigned int at = 0; async_pending && at < count; at++) {
		value = __atomic_load_n(&calls[at].value, __ATOMIC_ACQUIRE);
		if ((unsigned long)value >> 62 != 1)
			continue;
		while (syscall(SYS_wait_for_async, 0, value, NULL))
			if (errno != EINTR)
				fail("wait_for_async");
	}
	async_pending = 0;
}

static const struct model direct = {
	"direct", direct_can, nothing_open, direct_submit, nothing_complete, nothing_close,
};

static const struct model async_inline = {
	"async_submit", can_all, nothing_open, async_inline_submit, async_complete, nothing_close,
};

static const struct model async_offload = {
	"async_submit OFFLOAD", can_all, nothing_open, async_offload_submit, async_complete,
	nothing_close,
};

#endif
