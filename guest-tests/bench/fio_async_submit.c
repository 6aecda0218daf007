// SPDX-License-Identifier: GPL-2.0
/*
 * An engine of fio's whose calls are async_submit()'s: `--ioengine=external:fio_async_submit.so`.
 * Compiled against the source of the fio that loads it. A call that does not sleep is complete when
 * it is queued; one that does is looked for by its result word, and waited for by its cookie.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fio.h"

#define SYS_async_submit	548
#define SYS_wait_for_async	549
#define MOST			1024

static struct {
	struct io_u *io;
	long word;
} calls[MOST];

static struct io_u *events[MOST];
static unsigned int outstanding;

/* Of this call's place among the others: fio's own number of it. */
static long *word_of(const struct io_u *io)
{
	return &calls[io->index].word;
}

static bool is_pending(long word)
{
	return (unsigned long)word >> 62 == 1;
}

/* A sync has moved no bytes, and is whole all the same. */
static void finish(struct io_u *io, long value)
{
	if (value < 0)
		io->error = -value;
	else
		io->resid = ddir_sync(io->ddir) ? 0 : io->xfer_buflen - value;
}

static enum fio_q_status submitter_queue(struct thread_data *td, struct io_u *io)
{
	unsigned long args[6] = {
		io->file->fd, (unsigned long)io->xfer_buf, io->xfer_buflen, io->offset,
	};
	long nr = io->ddir == DDIR_READ ? SYS_pread64 : SYS_pwrite64;
	long cookie;

	fio_ro_check(td, io);
	if (ddir_sync(io->ddir)) {
		nr = io->ddir == DDIR_DATASYNC ? SYS_fdatasync : SYS_fsync;
	} else if (io->ddir != DDIR_READ && io->ddir != DDIR_WRITE) {
		io->error = EINVAL; /* a trim: said to be busy, fio would try for ever */
		return FIO_Q_COMPLETED;
	}
	cookie = syscall(SYS_async_submit, 0, word_of(io), nr, args);
	if (cookie < 0 && errno == EAGAIN)
		return FIO_Q_BUSY;
	if (cookie < 0) {
		io->error = errno;
		return FIO_Q_COMPLETED;
	}
	if (!cookie) {
		finish(io, *word_of(io));
		return FIO_Q_COMPLETED;
	}
	calls[io->index].io = io;
	outstanding++;
	return FIO_Q_QUEUED;
}

/* What has ended goes to events, from `found` on. */
static unsigned int collect(unsigned int found, unsigned int most, long *pending)
{
	for (unsigned int at = 0; at < MOST && outstanding && found < most; at++) {
		struct io_u *io = calls[at].io;
		long value;

		if (!io)
			continue;
		value = __atomic_load_n(&calls[at].word, __ATOMIC_ACQUIRE);
		if (is_pending(value)) {
			*pending = value;
			continue;
		}
		finish(io, value);
		calls[at].io = NULL;
		outstanding--;
		events[found++] = io;
	}
	return found;
}

static int submitter_getevents(struct thread_data *td, unsigned int least, unsigned int most,
			       const struct timespec *limit)
{
	unsigned int found = 0;
	long pending = 0;

	while ((found = collect(found, most, &pending)) < least) {
		if (!outstanding)
			break;
		if (syscall(SYS_wait_for_async, 0, pending, NULL) && errno != EINTR)
			return -errno;
	}
	return found;
}

static struct io_u *submitter_event(struct thread_data *td, int number)
{
	return events[number];
}

static int submitter_init(struct thread_data *td)
{
	if (td->o.iodepth > MOST) {
		log_err("fio: async_submit: at most %d outstanding\n", MOST);
		return 1;
	}
	return 0;
}

struct ioengine_ops ioengine = {
	.name = "async_submit",
	.version = FIO_IOOPS_VERSION,
	.init = submitter_init,
	.queue = submitter_queue,
	.getevents = submitter_getevents,
	.event = submitter_event,
	.open_file = generic_open_file,
	.close_file = generic_close_file,
	.get_file_size = generic_get_file_size,
};
