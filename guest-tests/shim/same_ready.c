// SPDX-License-Identifier: GPL-2.0
/*
 * The calls of same_calls where they need not sleep: what they want is there, or they are told not to
 * wait for it. Both are tried in one scenario: what the call returns, and what it has done.
 */
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <mqueue.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "same.h"

static char buffer[256];
static struct iovec vector = { buffer, sizeof(buffer) - 1 };
static struct iovec three = { "abc", 3 };
static const struct timespec no_time;

static void show_buffer(void)
{
	dprintf(STDOUT_FILENO, "buffer: '%.100s'\n", buffer);
	memset(buffer, 0, sizeof(buffer));
}

static void non_blocking_pipe(int fds[2])
{
	NEEDS(!pipe2(fds, O_NONBLOCK));
}

static void fill(int fd)
{
	static const char bytes[4096];

	while (write(fd, bytes, sizeof(bytes)) > 0)
		;
	NEEDS(errno == EAGAIN);
}

static int file_of_abc(void)
{
	/* In memory: a disk may be waited for. */
	char path[] = "/tmp/same.XXXXXX";
	int fd = mkstemp(path);

	NEEDS(fd >= 0 && !unlink(path));
	NEEDS(pwrite(fd, "abcdef", 6, 0) == 6);
	return fd;
}

/* --- pipes and files ---------------------------------------------------------------------- */

#define READS(nr, ...)							\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	int fds[2];							\
									\
	non_blocking_pipe(fds);						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	NEEDS(write(fds[1], "abc", 3) == 3);				\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	show_buffer();							\
	NEEDS(!close(fds[1]));						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
}

READS(read, buffer, 100L)
READS(readv, &vector, 1L)
READS(preadv2, &vector, 1L, -1L, -1L, 0L)

#define WRITES(nr, ...)							\
SAME_AT_ONCE(nr##_where_there_is_room, __NR_##nr)			\
{									\
	int fds[2];							\
									\
	signal(SIGPIPE, SIG_IGN);					\
	non_blocking_pipe(fds);						\
	SHOW(raw(__NR_##nr, fds[1], __VA_ARGS__));			\
	NEEDS(read(fds[0], buffer, 100) > 0);				\
	show_buffer();							\
	fill(fds[1]);							\
	SHOW(raw(__NR_##nr, fds[1], __VA_ARGS__));			\
	NEEDS(!close(fds[0]));						\
	SHOW(raw(__NR_##nr, fds[1], __VA_ARGS__));			\
}

WRITES(writev, &three, 1L)
WRITES(pwritev2, &three, 1L, -1L, -1L, 0L)
WRITES(vmsplice, &three, 1L, (long)SPLICE_F_NONBLOCK)

SAME_AT_ONCE(write_where_there_is_room, __NR_write)
{
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	non_blocking_pipe(fds);
	SHOW(raw(__NR_write, fds[1], "abc", 3L));
	NEEDS(read(fds[0], buffer, 100) > 0);
	show_buffer();
	fill(fds[1]);
	SHOW(raw(__NR_write, fds[1], "abc", 3L));
}

SAME_AT_ONCE(splice_of_what_is_there, __NR_splice)
{
	int from[2], to[2];

	non_blocking_pipe(from);
	non_blocking_pipe(to);
	SHOW(raw(__NR_splice, from[0], NULL, to[1], NULL, 100L, (long)SPLICE_F_NONBLOCK));
	NEEDS(write(from[1], "abc", 3) == 3);
	SHOW(raw(__NR_splice, from[0], NULL, to[1], NULL, 100L, (long)SPLICE_F_NONBLOCK));
	SHOW(read(to[0], buffer, 100));
	show_buffer();
}

SAME_AT_ONCE(tee_of_what_is_there, __NR_tee)
{
	int from[2], to[2];

	non_blocking_pipe(from);
	non_blocking_pipe(to);
	SHOW(raw(__NR_tee, from[0], to[1], 100L, (long)SPLICE_F_NONBLOCK));
	NEEDS(write(from[1], "abc", 3) == 3);
	SHOW(raw(__NR_tee, from[0], to[1], 100L, (long)SPLICE_F_NONBLOCK));
	SHOW(read(from[0], buffer, 100));
	SHOW(read(to[0], buffer, 100));
	show_buffer();
}

SAME_AT_ONCE(sendfile_where_there_is_room, __NR_sendfile)
{
	int fd = file_of_abc(), fds[2];
	off_t offset = 1;

	non_blocking_pipe(fds);
	SHOW(raw(__NR_sendfile, fds[1], fd, &offset, 4L));
	SHOW(offset);
	NEEDS(read(fds[0], buffer, 100) > 0);
	show_buffer();
	fill(fds[1]);
	SHOW(raw(__NR_sendfile, fds[1], fd, &offset, 4L));
	SHOW(offset);
}

SAME_AT_ONCE(copy_file_range_of_a_file, __NR_copy_file_range)
{
	int from = file_of_abc(), to = file_of_abc();
	off_t at = 2, onto = 4;

	SHOW(raw(__NR_copy_file_range, from, &at, to, &onto, 3L, 0L));
	SHOW(at);
	SHOW(onto);
	SHOW(pread(to, buffer, 100, 0));
	show_buffer();
}

#define READS_FILE(nr, ...)						\
SAME_AT_ONCE(nr##_of_a_file, __NR_##nr)					\
{									\
	int fd = file_of_abc();						\
									\
	SHOW(raw(__NR_##nr, fd, __VA_ARGS__, 2L, 0L));			\
	show_buffer();							\
	SHOW(lseek(fd, 0, SEEK_CUR));					\
	SHOW(raw(__NR_##nr, fd, __VA_ARGS__, 100L, 0L));		\
}

READS_FILE(pread64, buffer, 3L)
READS_FILE(preadv, &vector, 1L)

#define WRITES_FILE(nr, ...)						\
SAME_AT_ONCE(nr##_to_a_file, __NR_##nr)					\
{									\
	int fd = file_of_abc();						\
									\
	SHOW(raw(__NR_##nr, fd, __VA_ARGS__, 4L, 0L));			\
	SHOW(lseek(fd, 0, SEEK_CUR));					\
	SHOW(pread(fd, buffer, 100, 0));				\
	show_buffer();							\
}

WRITES_FILE(pwrite64, "xyz", 3L)
WRITES_FILE(pwritev, &three, 1L)

SAME_AT_ONCE(open_of_a_fifo, __NR_open)
{
	NEEDS(!chdir("/tmp"));
	unlink("ready_fifo");
	NEEDS(!mkfifo("ready_fifo", 0600));
	SHOW(raw(__NR_open, "ready_fifo", O_WRONLY | O_NONBLOCK, 0L));
	SHOW(raw(__NR_open, "ready_fifo", O_RDONLY | O_NONBLOCK, 0L) >= 0);
	SHOW(raw(__NR_open, "ready_fifo", O_WRONLY | O_NONBLOCK, 0L) >= 0);
	SHOW(raw(__NR_open, "ready_fifo", O_WRONLY, 0L) >= 0);
	NEEDS(!unlink("ready_fifo"));
	SHOW(raw(__NR_open, "ready_fifo", O_RDONLY, 0L));
}

SAME_AT_ONCE(openat_of_a_file, __NR_openat)
{
	SHOW(raw(__NR_openat, AT_FDCWD, "/proc/self/status", (long)O_RDONLY, 0L) >= 0);
	SHOW(raw(__NR_openat, AT_FDCWD, "/nothing/here", (long)O_RDONLY, 0L));
	SHOW(raw(__NR_openat, -1, "here", (long)O_RDONLY, 0L));
}

SAME_AT_ONCE(openat2_of_a_file, __NR_openat2)
{
	struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_NO_SYMLINKS };

	SHOW(raw(__NR_openat2, AT_FDCWD, "/proc/version", &how, sizeof(how)) >= 0);
	SHOW(raw(__NR_openat2, AT_FDCWD, "/proc/self/status", &how, sizeof(how)));
	how.resolve = 1UL << 60;
	SHOW(raw(__NR_openat2, AT_FDCWD, "/proc/version", &how, sizeof(how)));
}

SAME_AT_ONCE(creat_of_a_file, __NR_creat)
{
	int fd;

	NEEDS(!chdir("/tmp"));
	umask(022);
	fd = raw(__NR_creat, "ready_file", 0666L);
	NEEDS(fd >= 0);
	SHOW(write(fd, "abc", 3));
	SHOW(close(fd));
	SHOW(raw(__NR_creat, "ready_file", 0666L) >= 0);
	SHOW(open("ready_file", O_RDONLY) >= 0 && !read(fd, buffer, 9));
	NEEDS(!unlink("ready_file"));
}

SAME_AT_ONCE(truncate_of_a_file, __NR_truncate)
{
	struct stat status;
	int fd;

	NEEDS(!chdir("/tmp"));
	fd = open("ready_cut", O_RDWR | O_CREAT | O_TRUNC, 0600);
	NEEDS(fd >= 0 && write(fd, "abcdef", 6) == 6);
	SHOW(raw(__NR_truncate, "ready_cut", 4L));
	NEEDS(!fstat(fd, &status));
	SHOW(status.st_size);
	SHOW(raw(__NR_truncate, "ready_cut", -1L));
	SHOW(raw(__NR_truncate, "ready_none", 4L));
	NEEDS(!unlink("ready_cut"));
}

SAME_AT_ONCE(ftruncate_of_a_file, __NR_ftruncate)
{
	int fd = file_of_abc();

	SHOW(raw(__NR_ftruncate, fd, 2L));
	SHOW(pread(fd, buffer, 100, 0));
	show_buffer();
	SHOW(raw(__NR_ftruncate, 77, 2L));
}

SAME_AT_ONCE(fallocate_of_a_file, __NR_fallocate)
{
	struct stat status;
	int fd = file_of_abc();

	SHOW(raw(__NR_fallocate, fd, 0L, 0L, 8192L));
	NEEDS(!fstat(fd, &status));
	SHOW(status.st_size);
	SHOW(raw(__NR_fallocate, fd, 0L, 0L, 0L));
}

SAME_AT_ONCE(getdents64_of_a_directory, __NR_getdents64)
{
	static char entries[4096];
	int fd;

	NEEDS(!mkdir("/tmp/ready_directory", 0700));
	fd = open("/tmp/ready_directory", O_RDONLY | O_DIRECTORY);
	NEEDS(fd >= 0);
	SHOW(raw(__NR_getdents64, fd, entries, sizeof(entries)));
	SHOW(raw(__NR_getdents64, fd, entries, sizeof(entries)));
	NEEDS(!rmdir("/tmp/ready_directory"));
	SHOW(raw(__NR_getdents64, fd, entries, sizeof(entries)));
}

SAME_AT_ONCE(mkdir_and_what_is_there, __NR_mkdir)
{
	SHOW(raw(__NR_mkdir, "/tmp/ready_made", 0700L));
	SHOW(raw(__NR_mkdir, "/tmp/ready_made", 0700L));
	SHOW(rmdir("/tmp/ready_made"));
	SHOW(raw(__NR_mkdir, "/proc/none/here", 0700L));
}

SAME_AT_ONCE(rename_of_a_file, __NR_rename)
{
	int fd = open("/tmp/ready_old", O_RDWR | O_CREAT, 0600);

	NEEDS(fd >= 0);
	SHOW(raw(__NR_rename, "/tmp/ready_old", "/tmp/ready_new"));
	SHOW(raw(__NR_rename, "/tmp/ready_old", "/tmp/ready_new"));
	SHOW(access("/tmp/ready_new", F_OK));
	NEEDS(!unlink("/tmp/ready_new"));
}

SAME_AT_ONCE(unlink_of_a_file, __NR_unlink)
{
	int fd = open("/tmp/ready_gone", O_RDWR | O_CREAT, 0600);

	NEEDS(fd >= 0);
	SHOW(raw(__NR_unlink, "/tmp/ready_gone"));
	SHOW(raw(__NR_unlink, "/tmp/ready_gone"));
}

SAME_AT_ONCE(statx_of_a_file, __NR_statx)
{
	struct statx status;

	SHOW(raw(__NR_statx, file_of_abc(), "", (long)AT_EMPTY_PATH, (long)STATX_SIZE, &status));
	SHOW(status.stx_size);
	SHOW(raw(__NR_statx, AT_FDCWD, "/nothing/here", 0L, (long)STATX_SIZE, &status));
}

SAME_AT_ONCE(close_of_a_pipe, __NR_close)
{
	int fds[2];

	non_blocking_pipe(fds);
	SHOW(raw(__NR_close, fds[1]));
	SHOW(read(fds[0], buffer, 1));
	SHOW(raw(__NR_close, fds[1]));
}

SAME_AT_ONCE(flock_of_a_file, __NR_flock)
{
	int fd = open("/tmp/ready_lock", O_RDWR | O_CREAT, 0600), other;

	other = open("/tmp/ready_lock", O_RDWR);
	NEEDS(fd >= 0 && other >= 0);
	SHOW(raw(__NR_flock, fd, (long)LOCK_EX));
	SHOW(raw(__NR_flock, other, (long)(LOCK_SH | LOCK_NB)));
	SHOW(raw(__NR_flock, fd, (long)LOCK_UN));
	SHOW(raw(__NR_flock, other, (long)(LOCK_SH | LOCK_NB)));
	NEEDS(!unlink("/tmp/ready_lock"));
}

SAME_AT_ONCE(fcntl_lock_of_a_file, __NR_fcntl)
{
	struct flock lock = { .l_type = F_WRLCK, .l_len = 10 };
	int fd = open("/tmp/ready_range", O_RDWR | O_CREAT, 0600), other;

	other = open("/tmp/ready_range", O_RDWR);
	NEEDS(fd >= 0 && other >= 0);
	SHOW(raw(__NR_fcntl, fd, (long)F_OFD_SETLKW, &lock));
	SHOW(raw(__NR_fcntl, other, (long)F_OFD_SETLK, &lock));
	lock.l_start = 10;
	SHOW(raw(__NR_fcntl, other, (long)F_OFD_SETLKW, &lock));
	NEEDS(!unlink("/tmp/ready_range"));
}

/* --- sockets ------------------------------------------------------------------------------ */

static void socket_pair(int fds[2])
{
	NEEDS(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds));
}

static void fill_socket(int fd)
{
	while (send(fd, buffer, 200, 0) > 0)
		;
	NEEDS(errno == EAGAIN);
}

static struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
static struct msghdr of_three = { .msg_iov = &three, .msg_iovlen = 1 };
static struct mmsghdr messages[2], of_threes[2];

#define RECEIVES(nr, ...)						\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	int fds[2];							\
									\
	messages[0].msg_hdr = messages[1].msg_hdr = message;		\
	socket_pair(fds);						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	NEEDS(send(fds[1], "abc", 3, 0) == 3);				\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	show_buffer();							\
	SHOW(messages[0].msg_len);					\
}

RECEIVES(recvfrom, buffer, 100L, 0L, NULL, NULL)
RECEIVES(recvmsg, &message, 0L)
RECEIVES(recvmmsg, messages, 2L, 0L, NULL)

#define SENDS(nr, ...)							\
SAME_AT_ONCE(nr##_where_there_is_room, __NR_##nr)			\
{									\
	int fds[2];							\
									\
	of_threes[0].msg_hdr = of_threes[1].msg_hdr = of_three;		\
	socket_pair(fds);						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	NEEDS(recv(fds[1], buffer, 100, 0) == 3);			\
	show_buffer();							\
	fill_socket(fds[0]);						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
	NEEDS(!close(fds[1]));						\
	SHOW(raw(__NR_##nr, fds[0], __VA_ARGS__));			\
}

SENDS(sendmsg, &of_three, (long)MSG_NOSIGNAL)
SENDS(sendmmsg, of_threes, 2L, (long)MSG_NOSIGNAL)

SAME_AT_ONCE(sendto_where_there_is_room, __NR_sendto)
{
	int fds[2];

	socket_pair(fds);
	SHOW(raw(__NR_sendto, fds[0], "abc", 3L, 0L, NULL, 0L));
	NEEDS(recv(fds[1], buffer, 100, 0) == 3);
	show_buffer();
	fill_socket(fds[0]);
	SHOW(raw(__NR_sendto, fds[0], "abc", 3L, 0L, NULL, 0L));
}

static const struct sockaddr_un address = { AF_UNIX, "\0ready" };

static int listening(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	NEEDS(fd >= 0 && !bind(fd, (const void *)&address, sizeof(address)) && !listen(fd, 0));
	return fd;
}

SAME_AT_ONCE(connect_to_a_listener, __NR_connect)
{
	int first = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int second = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	SHOW(raw(__NR_connect, first, &address, sizeof(address)));
	listening();
	SHOW(raw(__NR_connect, first, &address, sizeof(address)));
	/* There is room for one. */
	SHOW(raw(__NR_connect, second, &address, sizeof(address)));
	SHOW(raw(__NR_connect, first, &address, sizeof(address)));
}

#define ACCEPTS(nr, ...)						\
SAME_AT_ONCE(nr##_of_who_is_there, __NR_##nr)				\
{									\
	int fd = listening(), caller, other;				\
									\
	SHOW(raw(__NR_##nr, fd, NULL, NULL, ##__VA_ARGS__));		\
	caller = socket(AF_UNIX, SOCK_STREAM, 0);			\
	NEEDS(!connect(caller, (const void *)&address, sizeof(address)));	\
	other = raw(__NR_##nr, fd, NULL, NULL, ##__VA_ARGS__);		\
	NEEDS(other >= 0);						\
	SHOW(write(caller, "abc", 3));					\
	SHOW(recv(other, buffer, 100, 0));				\
	show_buffer();							\
	SHOW(fcntl(other, F_GETFD));					\
}

ACCEPTS(accept)
ACCEPTS(accept4, (long)SOCK_CLOEXEC)

/* --- to wait for events ------------------------------------------------------------------- */

SAME_AT_ONCE(poll_of_what_is_there, __NR_poll)
{
	int fds[2];
	struct pollfd polled;

	non_blocking_pipe(fds);
	polled = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	SHOW(raw(__NR_poll, &polled, 1L, 0L));
	NEEDS(write(fds[1], "a", 1) == 1);
	SHOW(raw(__NR_poll, &polled, 1L, -1L));
	SHOW(polled.revents);
}

SAME_AT_ONCE(ppoll_of_what_is_there, __NR_ppoll)
{
	int fds[2];
	struct pollfd polled;

	non_blocking_pipe(fds);
	polled = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	SHOW(raw(__NR_ppoll, &polled, 1L, &no_time, NULL, 8L));
	NEEDS(write(fds[1], "a", 1) == 1);
	SHOW(raw(__NR_ppoll, &polled, 1L, NULL, NULL, 8L));
	SHOW(polled.revents);
}

#define SELECTS(nr, type, ...)						\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	type time = { };						\
	int fds[2];							\
	fd_set set;							\
									\
	non_blocking_pipe(fds);						\
	FD_ZERO(&set);							\
	FD_SET(fds[0], &set);						\
	SHOW(raw(__NR_##nr, fds[0] + 1L, &set, NULL, NULL, &time, ##__VA_ARGS__));	\
	SHOW(FD_ISSET(fds[0], &set));					\
	FD_SET(fds[0], &set);						\
	NEEDS(write(fds[1], "a", 1) == 1);				\
	SHOW(raw(__NR_##nr, fds[0] + 1L, &set, NULL, NULL, NULL, ##__VA_ARGS__));	\
	SHOW(FD_ISSET(fds[0], &set));					\
}

SELECTS(select, struct timeval)
SELECTS(pselect6, struct timespec, NULL)

#define EPOLLS(nr, none, ever, ...)					\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	struct epoll_event event = { .events = EPOLLIN, .data = { .u64 = 77 } };	\
	int epoll = epoll_create1(0), fds[2];				\
									\
	non_blocking_pipe(fds);						\
	NEEDS(!epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));	\
	event.data.u64 = 0;						\
	SHOW(raw(__NR_##nr, epoll, &event, 1L, none, ##__VA_ARGS__));	\
	NEEDS(write(fds[1], "a", 1) == 1);				\
	SHOW(raw(__NR_##nr, epoll, &event, 1L, ever, ##__VA_ARGS__));	\
	SHOW(event.data.u64);						\
}

EPOLLS(epoll_wait, 0L, -1L)
EPOLLS(epoll_pwait, 0L, -1L, NULL, 8L)
EPOLLS(epoll_pwait2, &no_time, NULL, NULL, 8L)

#define GETS_EVENTS(nr, ...)						\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	struct io_event event = { };					\
	struct timespec time = { };					\
	aio_context_t context = 0;					\
	struct iocb request = { }, *list = &request;			\
									\
	NEEDS(!raw(__NR_io_setup, 4L, &context));			\
	SHOW(raw(__NR_##nr, context, 1L, 1L, &event, &time, ##__VA_ARGS__));	\
	request.aio_fildes = file_of_abc();				\
	request.aio_lio_opcode = IOCB_CMD_PREAD;			\
	request.aio_buf = (unsigned long)buffer;			\
	request.aio_nbytes = 3;						\
	NEEDS(raw(__NR_io_submit, context, 1L, &list) == 1);		\
	SHOW(raw(__NR_##nr, context, 1L, 1L, &event, NULL, ##__VA_ARGS__));	\
	SHOW(event.res);						\
	show_buffer();							\
}

GETS_EVENTS(io_getevents)
GETS_EVENTS(io_pgetevents, NULL)

SAME_AT_ONCE(io_submit_of_a_cached_read, __NR_io_submit)
{
	aio_context_t context = 0;
	struct iocb request = { }, *list = &request;
	struct io_event event = { };

	NEEDS(!raw(__NR_io_setup, 4L, &context));
	request.aio_fildes = file_of_abc();
	request.aio_lio_opcode = IOCB_CMD_PREAD;
	request.aio_buf = (unsigned long)buffer;
	request.aio_nbytes = 6;
	SHOW(raw(__NR_io_submit, context, 1L, &list));
	SHOW(raw(__NR_io_getevents, context, 1L, 1L, &event, NULL));
	SHOW(event.res);
	show_buffer();
	request.aio_fildes = -1;
	SHOW(raw(__NR_io_submit, context, 1L, &list));
}

/* --- time, futexes ------------------------------------------------------------------------ */

SAME_AT_ONCE(nanosleep_for_no_valid_time, __NR_nanosleep)
{
	const struct timespec wrong = { .tv_nsec = 1000000000 };

	SHOW(raw(__NR_nanosleep, &wrong, NULL));
	SHOW(raw(__NR_nanosleep, 1L, NULL));
}

SAME_AT_ONCE(clock_nanosleep_for_no_valid_time, __NR_clock_nanosleep)
{
	const struct timespec wrong = { .tv_nsec = -1 };

	SHOW(raw(__NR_clock_nanosleep, (long)CLOCK_MONOTONIC, (long)TIMER_ABSTIME, &wrong, NULL));
	SHOW(raw(__NR_clock_nanosleep, 99L, 0L, &no_time, NULL));
}

SAME_AT_ONCE(futex_of_another_value, __NR_futex)
{
	unsigned int word = 5;

	SHOW(raw(__NR_futex, &word, (long)FUTEX_WAIT, 6L, NULL, NULL, 0L));
	SHOW(raw(__NR_futex, &word, (long)FUTEX_WAKE, 1L, NULL, NULL, 0L));
	SHOW(word);
}

SAME_AT_ONCE(futex_waitv_of_another_value, __NR_futex_waitv)
{
	unsigned int words[2] = { 5, 6 };
	struct futex_waitv those[2] = {
		{ .val = 5, .uaddr = (unsigned long)&words[0], .flags = FUTEX_32 },
		{ .val = 7, .uaddr = (unsigned long)&words[1], .flags = FUTEX_32 },
	};

	SHOW(raw(__NR_futex_waitv, those, 2L, 0L, NULL, 0L));
	those[1].flags = ~0U;
	SHOW(raw(__NR_futex_waitv, those, 2L, 0L, NULL, 0L));
}

/* --- children ----------------------------------------------------------------------------- */

SAME_AT_ONCE(wait4_for_who_has_not_ended, __NR_wait4)
{
	int status = 77;
	pid_t child;

	SHOW(raw(__NR_wait4, -1L, &status, (long)WNOHANG, NULL));
	child = fork();
	NEEDS(child >= 0);
	if (!child)
		for (;;)
			pause();
	SHOW(raw(__NR_wait4, child, &status, (long)WNOHANG, NULL));
	SHOW(status);
	NEEDS(!kill(child, SIGKILL));
	while (!raw(__NR_wait4, child, &status, (long)WNOHANG, NULL))
		doze(1);
	SHOW(status);
}

SAME_AT_ONCE(waitid_for_who_has_not_ended, __NR_waitid)
{
	siginfo_t info = { };
	pid_t child;

	SHOW(raw(__NR_waitid, (long)P_ALL, 0L, &info, (long)(WEXITED | WNOHANG), NULL));
	child = fork();
	NEEDS(child >= 0);
	if (!child)
		for (;;)
			pause();
	SHOW(raw(__NR_waitid, (long)P_PID, child, &info, (long)(WEXITED | WNOHANG), NULL));
	SHOW(info.si_pid);
	NEEDS(!kill(child, SIGKILL));
	while (!info.si_pid)
		NEEDS(!raw(__NR_waitid, (long)P_PID, child, &info, (long)(WEXITED | WNOHANG), NULL));
	SHOW(info.si_status);
	SHOW(info.si_code);
}

/* --- System V, message queues --------------------------------------------------------------- */

#define SEMOPS(nr, ...)							\
SAME_AT_ONCE(nr##_of_what_is_there, __NR_##nr)				\
{									\
	struct sembuf take = { .sem_op = -1, .sem_flg = IPC_NOWAIT }, give = { .sem_op = 1 };	\
	int id = semget(IPC_PRIVATE, 1, 0600);				\
									\
	NEEDS(id >= 0);							\
	SHOW(raw(__NR_##nr, id, &take, 1L, ##__VA_ARGS__));		\
	SHOW(raw(__NR_##nr, id, &give, 1L, ##__VA_ARGS__));		\
	SHOW(semctl(id, 0, GETVAL));					\
	SHOW(raw(__NR_##nr, id, &take, 1L, ##__VA_ARGS__));		\
	SHOW(semctl(id, 0, GETVAL));					\
	SHOW(semctl(id, 0, IPC_RMID));					\
	SHOW(raw(__NR_##nr, id, &take, 1L, ##__VA_ARGS__));		\
}

SEMOPS(semop)
SEMOPS(semtimedop, NULL)

struct text {
	long type;
	char text[100];
};

SAME_AT_ONCE(msgrcv_of_what_is_there, __NR_msgrcv)
{
	struct text text = { 3, "abc" };
	int id = msgget(IPC_PRIVATE, 0600);

	NEEDS(id >= 0);
	SHOW(raw(__NR_msgrcv, id, &text, 100L, 3L, (long)IPC_NOWAIT));
	NEEDS(!msgsnd(id, &text, 4, 0));
	text = (struct text){ };
	SHOW(raw(__NR_msgrcv, id, &text, 100L, 4L, (long)IPC_NOWAIT));
	SHOW(raw(__NR_msgrcv, id, &text, 100L, 3L, 0L));
	SHOW(text.type);
	SHOW(text.text[2]);
	SHOW(msgctl(id, IPC_RMID, NULL));
}

SAME_AT_ONCE(msgsnd_where_there_is_room, __NR_msgsnd)
{
	struct text text = { 3, "abc" };
	struct msqid_ds state;
	int id = msgget(IPC_PRIVATE, 0600);

	NEEDS(id >= 0);
	SHOW(raw(__NR_msgsnd, id, &text, 4L, 0L));
	NEEDS(!msgctl(id, IPC_STAT, &state));
	SHOW(state.msg_qnum);
	state.msg_qbytes = 4;
	NEEDS(!msgctl(id, IPC_SET, &state));
	SHOW(raw(__NR_msgsnd, id, &text, 4L, (long)IPC_NOWAIT));
	SHOW(msgctl(id, IPC_RMID, NULL));
	SHOW(raw(__NR_msgsnd, id, &text, 4L, (long)IPC_NOWAIT));
}

static int queue_of_one(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	int fd = raw(__NR_mq_open, "ready", (long)(O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK), 0600L,
		     &attributes);

	NEEDS(fd >= 0 && !raw(__NR_mq_unlink, "ready"));
	return fd;
}

SAME_AT_ONCE(mq_timedsend_where_there_is_room, __NR_mq_timedsend)
{
	int fd = queue_of_one();

	SHOW(raw(__NR_mq_timedsend, fd, "abc", 3L, 7L, NULL));
	SHOW(raw(__NR_mq_timedsend, fd, "abc", 3L, 7L, NULL));
	SHOW(raw(__NR_mq_timedsend, fd, "abcdefghi", 9L, 7L, NULL));
}

SAME_AT_ONCE(mq_timedreceive_of_what_is_there, __NR_mq_timedreceive)
{
	unsigned int priority = 0;
	int fd = queue_of_one();

	SHOW(raw(__NR_mq_timedreceive, fd, buffer, 8L, &priority, NULL));
	NEEDS(!raw(__NR_mq_timedsend, fd, "abc", 3L, 7L, NULL));
	SHOW(raw(__NR_mq_timedreceive, fd, buffer, 8L, &priority, NULL));
	SHOW(priority);
	show_buffer();
}

/* --- memory, devices, disks ------------------------------------------------------------------- */

SAME_AT_ONCE(ioctl_of_a_pipe, __NR_ioctl)
{
	int fds[2], count = -1;

	non_blocking_pipe(fds);
	NEEDS(write(fds[1], "abc", 3) == 3);
	SHOW(raw(__NR_ioctl, fds[0], (long)FIONREAD, &count));
	SHOW(count);
	SHOW(raw(__NR_ioctl, fds[0], 0x5401L, &count));
}

SAME_AT_ONCE(madvise_of_memory, __NR_madvise)
{
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEEDS(memory != MAP_FAILED);
	memory[1] = 'a';
	SHOW(raw(__NR_madvise, memory, 4096L, (long)MADV_DONTNEED));
	SHOW(memory[1]);
	SHOW(raw(__NR_madvise, memory, 4096L, 999L));
}

SAME_AT_ONCE(mlock_of_memory, __NR_mlock)
{
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEEDS(memory != MAP_FAILED);
	SHOW(raw(__NR_mlock, memory, 4096L));
	NEEDS(!munmap(memory, 8192));
	SHOW(raw(__NR_mlock, memory, 4096L));
}

SAME_AT_ONCE(msync_of_what_is_clean, __NR_msync)
{
	char *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	NEEDS(memory != MAP_FAILED);
	SHOW(raw(__NR_msync, memory, 4096L, (long)MS_ASYNC));
	SHOW(raw(__NR_msync, memory, 4096L, (long)(MS_ASYNC | MS_SYNC)));
}

#define COPIES(nr, from, to)						\
SAME_AT_ONCE(nr##_of_itself, __NR_##nr)					\
{									\
	static char here[4] = "abc", there[4];				\
	struct iovec local = { from, 3 }, remote = { to, 3 };		\
									\
	SHOW(raw(__NR_##nr, getpid(), &local, 1L, &remote, 1L, 0L));	\
	dprintf(STDOUT_FILENO, "%s %s\n", here, there);			\
	remote.iov_base = NULL;						\
	SHOW(raw(__NR_##nr, getpid(), &local, 1L, &remote, 1L, 0L));	\
}

COPIES(process_vm_readv, there, here)
COPIES(process_vm_writev, here, there)

SAME_AT_ONCE(getrandom_of_a_few, __NR_getrandom)
{
	SHOW(raw(__NR_getrandom, buffer, 16L, 1L));
	SHOW(raw(__NR_getrandom, buffer, 16L, ~0L));
}

#define SYNCS(nr)							\
SAME_AT_ONCE(nr##_of_a_pipe, __NR_##nr)					\
{									\
	int fds[2];							\
									\
	non_blocking_pipe(fds);						\
	SHOW(raw(__NR_##nr, fds[0]));					\
	SHOW(raw(__NR_##nr, 77L));					\
}

SYNCS(fsync)
SYNCS(fdatasync)

SAME_AT_ONCE(sync_file_range_of_a_pipe, __NR_sync_file_range)
{
	int fds[2];

	non_blocking_pipe(fds);
	SHOW(raw(__NR_sync_file_range, fds[0], 0L, 0L, 0L));
	SHOW(raw(__NR_sync_file_range, 77L, 0L, 0L, 0L));
}

TEST(sixty_calls_are_compared)
{
	TH_LOG("%d system calls", calls_compared());
	EXPECT_LE(60, calls_compared());
}

SAME_MAIN
