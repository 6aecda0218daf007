/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the models of asynchronous calls have in common: a call to be made, and a model's four
 * functions. Filling in a request is part of what a model costs, so each does it by itself.
 */
#ifndef BENCH_MODEL_H
#define BENCH_MODEL_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* include/uapi/linux/async_submit.h, which a kernel without the series does not have. */
#define SYS_async_submit	548
#define SYS_wait_for_async	549
#define OFFLOAD			1UL

enum op { OP_NOP, OP_PREAD, OP_READ, OP_RECV, OP_STAT, OP_OPEN, OP_CLOSE, OP_FSYNC, OP_SLEEP };

/*
 * path: of OP_STAT and OP_OPEN. memory: what is read goes there, or what stat finds; the time of
 * OP_SLEEP. value: what the call came to, in the kernel's way.
 */
struct call {
	enum op op;
	int fd;
	unsigned int length;
	long offset;
	const char *path;
	void *memory;
	long value;
};

/*
 * can: whether the model has such a call. sleepers: how many of them will sleep at once.
 * submit: hands all of them in, one after the other. complete: all of them have their value.
 */
struct model {
	const char *name;
	bool (*can)(enum op op, bool waits);
	void (*open)(unsigned int count, unsigned int sleepers);
	void (*submit)(struct call *calls, unsigned int count);
	void (*complete)(struct call *calls, unsigned int count);
	void (*close)(void);
};

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* The call as the kernel takes it: its number, and its six arguments. */
static inline __attribute__((always_inline)) long as_system_call(const struct call *call,
								  unsigned long args[6])
{
	args[0] = call->fd;
	args[1] = (unsigned long)call->memory;
	args[2] = call->length;
	args[3] = 0;
	args[4] = 0;
	args[5] = 0;
	switch (call->op) {
	case OP_NOP:
		return SYS_getppid;
	case OP_PREAD:
		args[3] = call->offset;
		return SYS_pread64;
	case OP_READ:
		return SYS_read;
	case OP_RECV:
		return SYS_recvfrom;
	case OP_STAT:
		args[0] = AT_FDCWD;
		args[1] = (unsigned long)call->path;
		args[2] = 0;
		args[3] = STATX_BASIC_STATS;
		args[4] = (unsigned long)call->memory;
		return SYS_statx;
	case OP_OPEN:
		args[0] = AT_FDCWD;
		args[1] = (unsigned long)call->path;
		args[2] = O_RDONLY;
		return SYS_openat;
	case OP_CLOSE:
		return SYS_close;
	case OP_FSYNC:
		return SYS_fsync;
	case OP_SLEEP:
		args[0] = CLOCK_MONOTONIC;
		args[1] = 0;
		args[2] = (unsigned long)call->memory;
		return SYS_clock_nanosleep;
	}
	__builtin_unreachable();
}

static inline long make_call(const struct call *call)
{
	unsigned long args[6];
	long nr = as_system_call(call, args);
	long value = syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);

	return value == -1 ? -errno : value;
}

static inline bool can_all(enum op op, bool waits)
{
	(void)op;
	(void)waits;
	return true;
}

#endif
