/* SPDX-License-Identifier: GPL-2.0 */
/* What is asked for: calls that never sleep, calls that sleep by themselves, calls that wait. */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "model.h"

#define MOST		1024
#define BIGGEST		65536
#define COLD_BYTES	4096
#define COLD_APART	65536	/* so that one read does not bring in the next one's page */
#define FSYNC_MOST	64
#define SLEEP_NS	1000000

/*
 * waits: until release() lets it end. sleeps: by itself, so that on the exact machine only its
 * submission is a number of instructions. good: what each call has to come to; less than that is
 * an error. before, after: around each round, and in no figure.
 */
struct work {
	const char *name;
	enum op op;
	bool waits;
	bool sleeps;
	long good;
	unsigned int most;
	void (*open)(void);
	void (*prepare)(struct call *call, unsigned int at);
	void (*before)(struct call *calls, unsigned int count);
	void (*release)(unsigned int count);
	void (*after)(struct call *calls, unsigned int count);
};

static int work_file, work_ends[2];
static char work_byte[MOST];
static char work_path[64];

/* On ext4: on a tmpfs io_uring cannot try without waiting, and hands each read to a thread. */
static const char *place(void)
{
	return exact_ext4() ?: "/var/tmp";
}

static void nothing(struct call *calls, unsigned int count)
{
	(void)calls;
	(void)count;
}

static void no_release(unsigned int count)
{
	(void)count;
}

static void no_open(void)
{
}

static void nop_prepare(struct call *call, unsigned int at)
{
	(void)at;
	call->fd = -1;
}

/* A file that is in the page cache. */
static void file_open(void)
{
	static char some[BIGGEST];

	snprintf(work_path, sizeof(work_path), "%s/bench", place());
	work_file = open(work_path, O_RDWR | O_CREAT, 0600);
	if (work_file < 0 || pwrite(work_file, some, sizeof(some), 0) != sizeof(some))
		fail(work_path);
}

static void pread_of(struct call *call, unsigned int length)
{
	static char into[BIGGEST];

	call->fd = work_file;
	call->memory = into;
	call->length = length;
}

static void pread1_prepare(struct call *call, unsigned int at)
{
	pread_of(call, 1);
	call->memory = &work_byte[at];
}

static void pread4k_prepare(struct call *call, unsigned int at)
{
	(void)at;
	pread_of(call, 4096);
}

static void pread64k_prepare(struct call *call, unsigned int at)
{
	(void)at;
	pread_of(call, BIGGEST);
}

static void stat_prepare(struct call *call, unsigned int at)
{
	static struct statx found;

	(void)at;
	call->path = work_path;
	call->memory = &found;
}

static void open_prepare(struct call *call, unsigned int at)
{
	(void)at;
	call->path = work_path;
}

static void close_all(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++)
		if (close(calls[at].value))
			fail("close");
}

static void open_all(struct call *calls, unsigned int count)
{
	for (unsigned int at = 0; at < count; at++) {
		calls[at].fd = dup(work_file);
		if (calls[at].fd < 0)
			fail("dup");
	}
}

/* Buffered reads that find nothing in memory: of the block device that takes its time. */
static void cold_open(void)
{
	const char *path = span_exact ? "/dev/nullb0" : "/var/tmp/bench.cold";

	work_file = open(path, span_exact ? O_RDONLY : O_RDWR | O_CREAT, 0600);
	if (work_file < 0)
		fail(path);
	if (!span_exact) {
		static char some[COLD_APART];

		for (long at = 0; at < MOST; at++)
			if (pwrite(work_file, some, sizeof(some), at * COLD_APART) != sizeof(some))
				fail(path);
		if (fsync(work_file))
			fail(path);
	}
	posix_fadvise(work_file, 0, 0, POSIX_FADV_RANDOM);
}

static void cold_prepare(struct call *call, unsigned int at)
{
	pread_of(call, COLD_BYTES);
	call->offset = (long)at * COLD_APART;
}

static void cold_before(struct call *calls, unsigned int count)
{
	(void)calls;
	(void)count;
	if (posix_fadvise(work_file, 0, 0, POSIX_FADV_DONTNEED))
		fail("posix_fadvise");
}

static void pipe_open(void)
{
	if (pipe(work_ends))
		fail("pipe");
}

static void socket_open(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, work_ends))
		fail("socketpair");
}

static void one_byte(struct call *call, unsigned int at)
{
	call->fd = work_ends[0];
	call->memory = &work_byte[at];
	call->length = 1;
}

static void write_bytes(unsigned int count)
{
	static const char zeros_to_write[MOST];

	if (write(work_ends[1], zeros_to_write, count) != count)
		fail("write");
}

static int fsync_files[FSYNC_MOST];

/* A file each, that has something to be written. */
static void fsync_open(void)
{
	char path[64];

	for (unsigned int at = 0; at < FSYNC_MOST; at++) {
		snprintf(path, sizeof(path), "%s/bench.%u", place(), at);
		fsync_files[at] = open(path, O_RDWR | O_CREAT, 0600);
		if (fsync_files[at] < 0)
			fail(path);
	}
}

static void fsync_prepare(struct call *call, unsigned int at)
{
	call->fd = fsync_files[at];
}

static void fsync_before(struct call *calls, unsigned int count)
{
	(void)calls;
	for (unsigned int at = 0; at < count; at++)
		if (pwrite(fsync_files[at], "x", 1, 0) != 1)
			fail("pwrite");
}

static void sleep_prepare(struct call *call, unsigned int at)
{
	static struct timespec time = { .tv_nsec = SLEEP_NS };

	(void)at;
	call->memory = &time;
}

static const struct work works[] = {
	{ "nop", OP_NOP, false, false, 0, MOST,
	  no_open, nop_prepare, nothing, no_release, nothing },
	{ "pread 1 B", OP_PREAD, false, false, 1, MOST,
	  file_open, pread1_prepare, nothing, no_release, nothing },
	{ "pread 4 KiB", OP_PREAD, false, false, 4096, MOST,
	  file_open, pread4k_prepare, nothing, no_release, nothing },
	{ "pread 64 KiB", OP_PREAD, false, false, BIGGEST, 64,
	  file_open, pread64k_prepare, nothing, no_release, nothing },
	{ "stat", OP_STAT, false, false, 0, MOST,
	  file_open, stat_prepare, nothing, no_release, nothing },
	{ "open", OP_OPEN, false, false, 0, MOST,
	  file_open, open_prepare, nothing, no_release, close_all },
	{ "close", OP_CLOSE, false, false, 0, MOST,
	  file_open, nop_prepare, open_all, no_release, nothing },
	{ "cold pread", OP_PREAD, false, true, COLD_BYTES, 64,
	  cold_open, cold_prepare, cold_before, no_release, nothing },
	{ "pipe read", OP_READ, true, false, 1, MOST,
	  pipe_open, one_byte, nothing, write_bytes, nothing },
	{ "socket read", OP_RECV, true, false, 1, MOST,
	  socket_open, one_byte, nothing, write_bytes, nothing },
	{ "fsync", OP_FSYNC, false, true, 0, FSYNC_MOST,
	  fsync_open, fsync_prepare, fsync_before, no_release, nothing },
	{ "sleep", OP_SLEEP, false, true, 0, 64,
	  no_open, sleep_prepare, nothing, no_release, nothing },
};

#endif
