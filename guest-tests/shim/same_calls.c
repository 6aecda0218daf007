// SPDX-License-Identifier: GPL-2.0
/*
 * Calls that sleep: what they return, and what they have done, is what it is without the shim.
 */
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/membarrier.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>

#include "same.h"

/* --- what wakes them ---------------------------------------------------------------------- */

static void write_abc(void *fd)
{
	NEEDS(write((long)fd, "abc", 3) == 3);
}

static char drained[65536];

static void read_much(void *fd)
{
	NEEDS(read((long)fd, drained, sizeof(drained)) > 0);
}

/* All there is of datagrams: of a single one the writer may not be told. */
static void receive_all(void *fd)
{
	while (recv((long)fd, drained, sizeof(drained), MSG_DONTWAIT) > 0)
		;
}

static void close_it(void *fd)
{
	NEEDS(!close((long)fd));
}

static void pipe_of_two(int fds[2])
{
	NEEDS(!pipe(fds));
}

/* A pipe that has no more room. */
static void full_pipe(int fds[2])
{
	static const char byte[4096];

	NEEDS(!pipe2(fds, O_NONBLOCK));
	while (write(fds[1], byte, sizeof(byte)) > 0)
		;
	NEEDS(errno == EAGAIN);
	NEEDS(!fcntl(fds[1], F_SETFL, 0) && !fcntl(fds[0], F_SETFL, 0));
}

static void socket_pair(int fds[2], int type)
{
	NEEDS(!socketpair(AF_UNIX, type, 0, fds));
}

/* A socket whose peer has as much as it takes. */
static void full_socket(int fds[2])
{
	static const char byte[1024];

	socket_pair(fds, SOCK_DGRAM);
	while (send(fds[0], byte, sizeof(byte), MSG_DONTWAIT) > 0)
		;
	NEEDS(errno == EAGAIN);
}

static char buffer[256];

static struct iovec vectors[2] = {
	{ buffer, 1 },
	{ buffer + 1, 99 },
};

static void show_buffer(void)
{
	dprintf(STDOUT_FILENO, "buffer: '%.100s'\n", buffer);
}

static const struct timespec long_time = { .tv_sec = 1000 };
static struct timespec short_time = { .tv_nsec = 20000000 };

/* --- pipes -------------------------------------------------------------------------------- */

SAME(read_of_a_pipe, __NR_read)
{
	int fds[2];

	pipe_of_two(fds);
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_read, fds[0], buffer, 100));
	show_buffer();
}

SAME(read_until_the_end, __NR_read)
{
	int fds[2];

	pipe_of_two(fds);
	SHOW_WOKEN(close_it, fds[1], raw(__NR_read, fds[0], buffer, 100));
}

SAME(readv_of_a_pipe, __NR_readv)
{
	int fds[2];

	pipe_of_two(fds);
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_readv, fds[0], vectors, 2));
	show_buffer();
}

SAME(preadv2_of_a_pipe, __NR_preadv2)
{
	int fds[2];

	pipe_of_two(fds);
	/* At the current position, which a pipe has not. */
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_preadv2, fds[0], vectors, 2, -1L, -1L, 0));
	show_buffer();
}

SAME(write_to_a_full_pipe, __NR_write)
{
	int fds[2];

	full_pipe(fds);
	SHOW_WOKEN(read_much, fds[0], raw(__NR_write, fds[1], "xyz", 3));
}

SAME(write_that_nobody_reads, __NR_write)
{
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	full_pipe(fds);
	SHOW_WOKEN(close_it, fds[0], raw(__NR_write, fds[1], "xyz", 3));
}

SAME(writev_to_a_full_pipe, __NR_writev)
{
	int fds[2];

	full_pipe(fds);
	SHOW_WOKEN(read_much, fds[0], raw(__NR_writev, fds[1], vectors, 2));
}

SAME(pwritev2_to_a_full_pipe, __NR_pwritev2)
{
	int fds[2];

	full_pipe(fds);
	SHOW_WOKEN(read_much, fds[0], raw(__NR_pwritev2, fds[1], vectors, 2, -1L, -1L, 0));
}

SAME(splice_from_a_pipe, __NR_splice)
{
	int from[2], to[2];

	pipe_of_two(from);
	pipe_of_two(to);
	SHOW_WOKEN(write_abc, from[1],
		   raw(__NR_splice, from[0], NULL, to[1], NULL, 100L, 0));
	SHOW(read(to[0], buffer, 100));
	show_buffer();
}

SAME(tee_of_a_pipe, __NR_tee)
{
	int from[2], to[2];

	pipe_of_two(from);
	pipe_of_two(to);
	SHOW_WOKEN(write_abc, from[1], raw(__NR_tee, from[0], to[1], 100L, 0));
	SHOW(read(to[0], buffer, 100));
	SHOW(read(from[0], buffer, 100));
	show_buffer();
}

SAME(vmsplice_to_a_full_pipe, __NR_vmsplice)
{
	int fds[2];

	full_pipe(fds);
	SHOW_WOKEN(read_much, fds[0], raw(__NR_vmsplice, fds[1], vectors, 1L, 0));
}

static int file_with(const char *text)
{
	char path[] = "/var/tmp/same.XXXXXX";
	int fd = mkstemp(path);

	NEEDS(fd >= 0 && !unlink(path));
	NEEDS(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	NEEDS(!lseek(fd, 0, SEEK_SET));
	return fd;
}

SAME(sendfile_to_a_full_pipe, __NR_sendfile)
{
	int fds[2], file = file_with("from a file");
	off_t at = 5;

	full_pipe(fds);
	SHOW_WOKEN(read_much, fds[0], raw(__NR_sendfile, fds[1], file, &at, 100L));
	SHOW(at);
}

/* --- FIFOs and leases --------------------------------------------------------------------- */

static const char *a_fifo(void)
{
	static char path[] = "/tmp/same_fifo.XXXXXX";

	NEEDS(mkdtemp(path));
	NEEDS(!chdir(path) && !mkfifo("fifo", 0600));
	return path;
}

static void remove_fifo(const char *directory)
{
	NEEDS(!unlink("fifo") && !chdir("/") && !rmdir(directory));
}

static void open_for_writing(void *path)
{
	int fd = open(path, O_WRONLY);

	NEEDS(fd >= 0);
	write_abc((void *)(long)fd);
	NEEDS(!close(fd));
}

/* Which number it has is for the descriptors of the other thread to say. */
#define SHOW_OPENED(nr, ...)						\
SAME(nr##_of_a_fifo, __NR_##nr)						\
{									\
	const char *directory = a_fifo();				\
	struct waker waker;						\
	long fd;							\
									\
	when_asleep(&waker, open_for_writing, "fifo");			\
	fd = raw(__NR_##nr, __VA_ARGS__);				\
	is_done(&waker);						\
	SHOW(fd >= 0);							\
	SHOW(read(fd, buffer, 100));					\
	SHOW(read(fd, buffer, 100));					\
	show_buffer();							\
	remove_fifo(directory);						\
}

static struct open_how how = { .flags = O_RDONLY };

SHOW_OPENED(open, "fifo", O_RDONLY, 0)
SHOW_OPENED(openat, AT_FDCWD, "fifo", O_RDONLY, 0)
SHOW_OPENED(openat2, AT_FDCWD, "fifo", &how, sizeof(how))

static int leased;

static void give_lease_up(void *unused)
{
	NEEDS(!fcntl(leased, F_SETLEASE, F_UNLCK));
}

/* Somebody has a lease on it, and gives it up when he is asked to. */
static const char *leased_file(int lease)
{
	static char path[] = "/var/tmp/same_lease.XXXXXX";

	signal(SIGIO, SIG_IGN);
	leased = mkstemp(path);
	NEEDS(leased >= 0 && write(leased, "leased", 6) == 6 && !close(leased));
	leased = open(path, O_RDONLY);
	NEEDS(leased >= 0 && !fcntl(leased, F_SETLEASE, lease));
	return path;
}

SAME(open_of_a_leased_file, __NR_open)
{
	const char *path = leased_file(F_RDLCK);
	long fd = -1;

	SHOW_WOKEN(give_lease_up, 0, (fd = raw(__NR_open, path, O_WRONLY, 0)) >= 0);
	SHOW(write(fd, "now", 3));
	unlink(path);
}

SAME(creat_of_a_leased_file, __NR_creat)
{
	const char *path = leased_file(F_RDLCK);

	SHOW_WOKEN(give_lease_up, 0, raw(__NR_creat, path, 0600) >= 0);
	SHOW(lseek(leased, 0, SEEK_END));
	unlink(path);
}

SAME(truncate_of_a_leased_file, __NR_truncate)
{
	const char *path = leased_file(F_RDLCK);

	SHOW_WOKEN(give_lease_up, 0, raw(__NR_truncate, path, 3L));
	SHOW(lseek(leased, 0, SEEK_END));
	unlink(path);
}

/* --- sockets ------------------------------------------------------------------------------ */

SAME(read_of_a_socket, __NR_read)
{
	int fds[2];

	socket_pair(fds, SOCK_STREAM);
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_read, fds[0], buffer, 100));
	show_buffer();
}

SAME(recvfrom_of_a_socket, __NR_recvfrom)
{
	int fds[2];

	socket_pair(fds, SOCK_DGRAM);
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_recvfrom, fds[0], buffer, 100L, 0, NULL, NULL));
	show_buffer();
}

SAME(recvmsg_of_a_descriptor, __NR_recvmsg)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr message = {
		.msg_iov = vectors, .msg_iovlen = 2,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fds[2];

	socket_pair(fds, SOCK_SEQPACKET);
	SHOW_WOKEN(write_abc, fds[1], raw(__NR_recvmsg, fds[0], &message, 0));
	SHOW(message.msg_flags);
	SHOW(message.msg_controllen);
	show_buffer();
}

SAME(recvmmsg_of_a_socket, __NR_recvmmsg)
{
	struct mmsghdr messages[2] = {
		{ .msg_hdr = { .msg_iov = vectors, .msg_iovlen = 2 } },
		{ .msg_hdr = { .msg_iov = vectors, .msg_iovlen = 2 } },
	};
	int fds[2];

	socket_pair(fds, SOCK_DGRAM);
	SHOW_WOKEN(write_abc, fds[1],
		   raw(__NR_recvmmsg, fds[0], messages, 2, MSG_WAITFORONE, NULL));
	SHOW(messages[0].msg_len);
	show_buffer();
}

SAME(sendto_of_a_full_socket, __NR_sendto)
{
	int fds[2];

	full_socket(fds);
	SHOW_WOKEN(receive_all, fds[1], raw(__NR_sendto, fds[0], "xyz", 3L, 0, NULL, 0));
}

SAME(sendmsg_of_a_full_socket, __NR_sendmsg)
{
	struct msghdr message = { .msg_iov = vectors, .msg_iovlen = 2 };
	int fds[2];

	full_socket(fds);
	SHOW_WOKEN(receive_all, fds[1], raw(__NR_sendmsg, fds[0], &message, 0));
}

SAME(sendmmsg_of_a_full_socket, __NR_sendmmsg)
{
	struct mmsghdr messages[1] = {
		{ .msg_hdr = { .msg_iov = vectors, .msg_iovlen = 2 } },
	};
	int fds[2];

	full_socket(fds);
	SHOW_WOKEN(receive_all, fds[1], raw(__NR_sendmmsg, fds[0], messages, 1, 0));
	SHOW(messages[0].msg_len);
}

static struct sockaddr_in address = { .sin_family = AF_INET };
static socklen_t address_size = sizeof(address);

static int listening(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	NEEDS(fd >= 0 && !bind(fd, (void *)&address, sizeof(address)) && !listen(fd, 5));
	NEEDS(!getsockname(fd, (void *)&address, &address_size));
	return fd;
}

static void connect_to_it(void *unused)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	NEEDS(fd >= 0 && !connect(fd, (void *)&address, sizeof(address)));
	write_abc((void *)(long)fd);
}

SAME(accept_of_a_connection, __NR_accept)
{
	int fd = listening();
	long peer = -1;

	SHOW_WOKEN(connect_to_it, 0, (peer = raw(__NR_accept, fd, NULL, NULL)) > fd);
	SHOW(recv(peer, buffer, 3, MSG_WAITALL));
	show_buffer();
}

SAME(accept4_of_a_connection, __NR_accept4)
{
	struct sockaddr_in peer_address = { };
	socklen_t size = sizeof(peer_address);
	int fd = listening();
	long peer = -1;

	SHOW_WOKEN(connect_to_it, 0, (peer = raw(__NR_accept4, fd, &peer_address, &size,
						 SOCK_CLOEXEC)) > fd);
	SHOW(size);
	SHOW(peer_address.sin_family);
	SHOW(fcntl(peer, F_GETFD));
}

static void accept_one(void *fd)
{
	NEEDS(accept((long)fd, NULL, NULL) >= 0);
}

SAME(connect_to_a_full_backlog, __NR_connect)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "\0same_backlog" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), first = socket(AF_UNIX, SOCK_STREAM, 0);
	int second = socket(AF_UNIX, SOCK_STREAM, 0);

	/* The program without the shim, before this one, may not be quite gone. */
	snprintf(name.sun_path + 1, 64, "same_backlog%d", getpid());
	NEEDS(!bind(fd, (void *)&name, sizeof(name)) && !listen(fd, 0));
	NEEDS(!connect(first, (void *)&name, sizeof(name)));
	SHOW_WOKEN(accept_one, fd, raw(__NR_connect, second, &name, sizeof(name)));
	SHOW(write(second, "abc", 3));
}

/* Data that the peer does not take keep a close() with SO_LINGER until it goes. */
SAME(close_that_lingers, __NR_close)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 60 };
	int fd = listening(), mine = socket(AF_INET, SOCK_STREAM, 0), peer;
	static const char much[65536];

	NEEDS(!connect(mine, (void *)&address, sizeof(address)));
	peer = accept(fd, NULL, NULL);
	NEEDS(peer >= 0);
	NEEDS(!setsockopt(mine, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	while (send(mine, much, sizeof(much), MSG_DONTWAIT) > 0)
		;
	SHOW_WOKEN(close_it, peer, raw(__NR_close, mine));
	SHOW(fcntl(mine, F_GETFD));
}

SAME(recv_with_a_time_limit, __NR_recvfrom)
{
	const struct timeval limit = { .tv_usec = 20000 };
	int fds[2];

	socket_pair(fds, SOCK_STREAM);
	NEEDS(!setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	SHOW(raw(__NR_recvfrom, fds[0], buffer, 100L, 0, NULL, NULL));
}

/* --- descriptors that are events ---------------------------------------------------------- */

static void add_seven(void *fd)
{
	NEEDS(!eventfd_write((long)fd, 7));
}

static void take_all(void *fd)
{
	eventfd_t value;

	NEEDS(!eventfd_read((long)fd, &value));
}

SAME(read_of_an_eventfd, __NR_read)
{
	int fd = eventfd(0, 0);
	long value = 0;

	SHOW_WOKEN(add_seven, fd, raw(__NR_read, fd, &value, sizeof(value)));
	SHOW(value);
}

SAME(write_to_a_full_eventfd, __NR_write)
{
	int fd = eventfd(0, 0);
	unsigned long value = -2UL;

	NEEDS(write(fd, &value, sizeof(value)) == sizeof(value));
	value = 3;
	SHOW_WOKEN(take_all, fd, raw(__NR_write, fd, &value, sizeof(value)));
	SHOW(read(fd, &value, sizeof(value)));
	SHOW(value);
}

SAME(read_of_a_timerfd, __NR_read)
{
	const struct itimerspec when = { .it_value = { .tv_nsec = 20000000 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	long value = 0;

	NEEDS(!timerfd_settime(fd, 0, &when, NULL));
	SHOW(raw(__NR_read, fd, &value, sizeof(value)));
	SHOW(value);
}

static void send_usr1(void *unused)
{
	const union sigval value = { .sival_int = 1234 };

	NEEDS(!sigqueue(getpid(), SIGUSR1, value));
}

SAME(read_of_a_signalfd, __NR_read)
{
	struct signalfd_siginfo info = { };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	NEEDS(!pthread_sigmask(SIG_BLOCK, &set, NULL));
	fd = signalfd(-1, &set, 0);
	SHOW_WOKEN(send_usr1, 0, raw(__NR_read, fd, &info, sizeof(info)));
	SHOW(info.ssi_signo);
	SHOW(info.ssi_int);
	SHOW(info.ssi_pid == getpid());
}

static void touch_tmp(void *unused)
{
	int fd = open("/tmp/same_watched", O_CREAT | O_WRONLY, 0600);

	NEEDS(fd >= 0 && !close(fd) && !unlink("/tmp/same_watched"));
}

SAME(read_of_an_inotify, __NR_read)
{
	struct inotify_event *event = (void *)buffer;
	int fd = inotify_init();

	NEEDS(inotify_add_watch(fd, "/tmp", IN_CREATE) >= 0);
	SHOW_WOKEN(touch_tmp, 0, raw(__NR_read, fd, buffer, sizeof(buffer)));
	SHOW(event->mask);
	dprintf(STDOUT_FILENO, "%s\n", event->name);
}

static void write_line(void *fd)
{
	NEEDS(write((long)fd, "line\n", 5) == 5);
}

SAME(read_of_a_terminal, __NR_read)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;

	NEEDS(!grantpt(master) && !unlockpt(master));
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	NEEDS(slave >= 0);
	SHOW_WOKEN(write_line, master, raw(__NR_read, slave, buffer, 100));
	show_buffer();
}

static char *faulting;

static void touch_faulting(void *unused)
{
	/* Reads zero, once the page is there. */
	NEEDS(*(volatile char *)faulting == 0);
}

static void *touch_it(void *unused)
{
	touch_faulting(NULL);
	return NULL;
}

static int fault_descriptor(char *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC);

	range.range.start = (unsigned long)page;
	range.range.len = 4096;
	NEEDS(fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &range));
	return fd;
}

static void start_toucher(void *thread)
{
	NEEDS(!pthread_create(thread, NULL, touch_it, NULL));
}

SAME(read_of_a_userfaultfd, __NR_read)
{
	struct uffdio_zeropage zero = { };
	struct uffd_msg message = { };
	pthread_t thread;
	int fd;

	faulting = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = fault_descriptor(faulting);
	SHOW_WOKEN(start_toucher, &thread, raw(__NR_read, fd, &message, sizeof(message)));
	SHOW(message.event);
	SHOW(message.arg.pagefault.address == (unsigned long)faulting);
	zero.range.start = (unsigned long)faulting;
	zero.range.len = 4096;
	SHOW(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	NEEDS(!pthread_join(thread, NULL));
}

/* --- waiting for several ------------------------------------------------------------------ */

SAME(poll_of_a_pipe, __NR_poll)
{
	struct pollfd fds[2] = { };
	int pipes[2][2];

	pipe_of_two(pipes[0]);
	pipe_of_two(pipes[1]);
	fds[0] = (struct pollfd){ .fd = pipes[0][0], .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = pipes[1][0], .events = POLLIN };
	SHOW_WOKEN(write_abc, pipes[1][1], raw(__NR_poll, fds, 2L, -1));
	SHOW(fds[0].revents);
	SHOW(fds[1].revents);
}

SAME(poll_that_times_out, __NR_poll)
{
	struct pollfd fds[1] = { };
	int pipes[2];

	pipe_of_two(pipes);
	fds[0] = (struct pollfd){ .fd = pipes[0], .events = POLLIN, .revents = 77 };
	SHOW(raw(__NR_poll, fds, 1L, 20));
	SHOW(fds[0].revents);
}

SAME(ppoll_of_a_pipe, __NR_ppoll)
{
	struct timespec limit = { .tv_sec = 1000 };
	struct pollfd fds[1] = { };
	int pipes[2];

	pipe_of_two(pipes);
	fds[0] = (struct pollfd){ .fd = pipes[0], .events = POLLIN };
	SHOW_WOKEN(write_abc, pipes[1], raw(__NR_ppoll, fds, 1L, &limit, NULL, 0L));
	SHOW(fds[0].revents);
	/* The kernel says how much is left. */
	SHOW(limit.tv_sec > 800 && limit.tv_sec < 1000);
}

static fd_set set_of(int fd)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return set;
}

SAME(select_of_a_pipe, __NR_select)
{
	struct timeval limit = { .tv_sec = 1000 };
	int pipes[2];
	fd_set set;

	pipe_of_two(pipes);
	set = set_of(pipes[0]);
	SHOW_WOKEN(write_abc, pipes[1],
		   raw(__NR_select, pipes[0] + 1, &set, NULL, NULL, &limit));
	SHOW(FD_ISSET(pipes[0], &set));
	SHOW(limit.tv_sec > 800 && limit.tv_sec < 1000);
}

SAME(select_that_times_out, __NR_select)
{
	struct timeval limit = { .tv_usec = 20000 };
	int pipes[2];
	fd_set set;

	pipe_of_two(pipes);
	set = set_of(pipes[0]);
	SHOW(raw(__NR_select, pipes[0] + 1, &set, NULL, NULL, &limit));
	SHOW(FD_ISSET(pipes[0], &set));
	SHOW(limit.tv_sec);
	SHOW(limit.tv_usec);
}

SAME(pselect6_of_a_pipe, __NR_pselect6)
{
	int pipes[2];
	fd_set set;

	pipe_of_two(pipes);
	set = set_of(pipes[0]);
	SHOW_WOKEN(write_abc, pipes[1],
		   raw(__NR_pselect6, pipes[0] + 1, &set, NULL, NULL, NULL, NULL));
	SHOW(FD_ISSET(pipes[0], &set));
}

static int epoll_of(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data = { .u64 = 4321 } };
	int epoll = epoll_create1(0);

	NEEDS(epoll >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	return epoll;
}

#define SHOW_EPOLL(nr, ...)						\
SAME(nr##_of_a_pipe, __NR_##nr)						\
{									\
	struct epoll_event events[2] = { };				\
	int pipes[2], epoll;						\
									\
	pipe_of_two(pipes);						\
	epoll = epoll_of(pipes[0]);					\
	SHOW_WOKEN(write_abc, pipes[1],					\
		   raw(__NR_##nr, epoll, events, 2, __VA_ARGS__));	\
	SHOW(events[0].events);						\
	SHOW(events[0].data.u64);					\
}

SHOW_EPOLL(epoll_wait, -1)
SHOW_EPOLL(epoll_pwait, -1, NULL, 0L)
SHOW_EPOLL(epoll_pwait2, &long_time, NULL, 0L)

/* --- time --------------------------------------------------------------------------------- */

static long since(const struct timespec *from)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - from->tv_sec) * 1000000000L + now.tv_nsec - from->tv_nsec;
}

SAME(nanosleep_for_a_while, __NR_nanosleep)
{
	struct timespec before, left = { 55, 66 };

	clock_gettime(CLOCK_MONOTONIC, &before);
	SHOW(raw(__NR_nanosleep, &short_time, &left));
	SHOW(since(&before) >= short_time.tv_nsec);
	SHOW(left.tv_sec);
	SHOW(left.tv_nsec);
}

SAME(clock_nanosleep_for_a_while, __NR_clock_nanosleep)
{
	struct timespec before;

	clock_gettime(CLOCK_MONOTONIC, &before);
	SHOW(raw(__NR_clock_nanosleep, CLOCK_BOOTTIME, 0, &short_time, NULL));
	SHOW(since(&before) >= short_time.tv_nsec);
}

SAME(clock_nanosleep_until_a_time, __NR_clock_nanosleep)
{
	struct timespec before, until;

	clock_gettime(CLOCK_MONOTONIC, &before);
	until = before;
	until.tv_sec += (until.tv_nsec + 20000000) / 1000000000;
	until.tv_nsec = (until.tv_nsec + 20000000) % 1000000000;
	SHOW(raw(__NR_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	SHOW(since(&before) >= 20000000);
}

/* --- futexes ------------------------------------------------------------------------------ */

static unsigned int word;

static void wake_futex(void *unused)
{
	__atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
	NEEDS(syscall(__NR_futex, &word, FUTEX_WAKE, 1) == 1);
}

SAME(futex_wait, __NR_futex)
{
	SHOW_WOKEN(wake_futex, 0, raw(__NR_futex, &word, FUTEX_WAIT, 0, NULL));
	SHOW(word);
}

SAME(futex_wait_that_times_out, __NR_futex)
{
	SHOW(raw(__NR_futex, &word, FUTEX_WAIT_PRIVATE, 0, &short_time));
}

SAME(futex_wait_until_a_time, __NR_futex)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 1000;
	SHOW_WOKEN(wake_futex, 0,
		   raw(__NR_futex, &word, FUTEX_WAIT_BITSET, 0, &until, NULL, 0x10));
}

SAME(futex_waitv, __NR_futex_waitv)
{
	static unsigned int other;
	struct futex_waitv waiters[2] = {
		{ .uaddr = (unsigned long)&other, .flags = FUTEX_32 },
		{ .uaddr = (unsigned long)&word, .flags = FUTEX_32 },
	};

	SHOW_WOKEN(wake_futex, 0, raw(__NR_futex_waitv, waiters, 2, 0, NULL, 0));
}

/* --- children ----------------------------------------------------------------------------- */

SAME(wait4_for_a_child, __NR_wait4)
{
	pid_t child = child_when_asleep();
	int status = 0;

	if (!child)
		_exit(7);
	SHOW(raw(__NR_wait4, child, &status, 0, NULL) == child);
	SHOW(status);
}

SAME(waitid_for_a_child, __NR_waitid)
{
	pid_t child = child_when_asleep();
	siginfo_t info = { };

	if (!child)
		_exit(8);
	SHOW(raw(__NR_waitid, P_ALL, 0, &info, WEXITED, NULL));
	SHOW(info.si_status);
	SHOW(info.si_code);
	SHOW(info.si_pid == child);
}

SAME(waitid_for_a_stopped_child, __NR_waitid)
{
	pid_t child = child_when_asleep();
	siginfo_t info = { };

	if (!child) {
		raise(SIGSTOP);
		_exit(9);
	}
	SHOW(raw(__NR_waitid, P_PID, child, &info, WSTOPPED | WEXITED, NULL));
	SHOW(info.si_status);
	SHOW(info.si_code);
	NEEDS(!kill(child, SIGCONT));
	SHOW(waitid(P_PID, child, &info, WEXITED));
	SHOW(info.si_status);
}

/* --- locks -------------------------------------------------------------------------------- */

static int locked;

/* Locks it in a child, which goes once the parent waits for it. */
static pid_t lock_in_a_child(int how_to, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_len = 10 };
	pid_t parent = getpid(), child;
	int fds[2];
	char byte;

	locked = open("/tmp/same_locked", O_RDWR | O_CREAT, 0600);
	NEEDS(locked >= 0);
	pipe_of_two(fds);
	child = fork();
	NEEDS(child >= 0);
	if (!child) {
		int own = open("/tmp/same_locked", O_RDWR);

		NEEDS(own >= 0);
		NEEDS(!(how_to ? fcntl(own, how_to, &lock) : flock(own, LOCK_EX)));
		NEEDS(write(fds[1], "l", 1) == 1);
		wait_until_asleep(parent, parent);
		_exit(0);
	}
	NEEDS(read(fds[0], &byte, 1) == 1);
	return child;
}

SAME(flock_of_a_file, __NR_flock)
{
	pid_t child = lock_in_a_child(0, 0);

	SHOW(raw(__NR_flock, locked, LOCK_EX));
	SHOW(waitpid(child, NULL, 0) == child);
	unlink("/tmp/same_locked");
}

SAME(fcntl_lock_of_a_range, __NR_fcntl)
{
	pid_t child = lock_in_a_child(F_SETLK, F_WRLCK);
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1 };

	SHOW(raw(__NR_fcntl, locked, F_SETLKW, &lock));
	SHOW(waitpid(child, NULL, 0) == child);
	/* It is this process that has it, whoever made the call. */
	child = fork();
	if (!child) {
		lock.l_type = F_WRLCK;
		SHOW(fcntl(locked, F_GETLK, &lock));
		SHOW(lock.l_pid == getppid());
		SHOW(lock.l_type);
		_exit(0);
	}
	SHOW(waitpid(child, NULL, 0) == child);
	unlink("/tmp/same_locked");
}

SAME(fcntl_lock_of_an_open_file, __NR_fcntl)
{
	pid_t child = lock_in_a_child(F_OFD_SETLK, F_RDLCK);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 9, .l_len = 9 };

	SHOW(raw(__NR_fcntl, locked, F_OFD_SETLKW, &lock));
	SHOW(waitpid(child, NULL, 0) == child);
	unlink("/tmp/same_locked");
}

/* --- System V and POSIX IPC --------------------------------------------------------------- */

static void up(void *semaphores)
{
	struct sembuf operation = { .sem_num = 1, .sem_op = 2 };

	NEEDS(!semop((long)semaphores, &operation, 1));
}

#define SHOW_SEMAPHORE(nr, ...)						\
SAME(nr##_of_two, __NR_##nr)						\
{									\
	struct sembuf operations[2] = {					\
		{ .sem_num = 0, .sem_op = 1 },				\
		{ .sem_num = 1, .sem_op = -1, .sem_flg = SEM_UNDO },	\
	};								\
	int id = semget(IPC_PRIVATE, 2, 0600);				\
									\
	NEEDS(id >= 0);							\
	SHOW_WOKEN(up, id, raw(__NR_##nr, id, operations, 2L, ##__VA_ARGS__)); \
	SHOW(semctl(id, 0, GETVAL));					\
	SHOW(semctl(id, 1, GETVAL));					\
	SHOW(semctl(id, 1, GETPID) == getpid());			\
	semctl(id, 0, IPC_RMID);					\
}

SHOW_SEMAPHORE(semop)
SHOW_SEMAPHORE(semtimedop, &long_time)

static void remove_semaphores(void *id)
{
	NEEDS(!semctl((long)id, 0, IPC_RMID));
}

SAME(semop_of_what_is_removed, __NR_semop)
{
	struct sembuf operation = { .sem_op = -1 };
	int id = semget(IPC_PRIVATE, 1, 0600);

	SHOW_WOKEN(remove_semaphores, id, raw(__NR_semop, id, &operation, 1L));
}

SAME(semtimedop_that_times_out, __NR_semtimedop)
{
	struct sembuf operation = { .sem_op = -1 };
	int id = semget(IPC_PRIVATE, 1, 0600);

	SHOW(raw(__NR_semtimedop, id, &operation, 1L, &short_time));
	semctl(id, 0, IPC_RMID);
}

struct text_message {
	long type;
	char text[100];
};

static void send_message(void *id)
{
	static const struct text_message message = { 5, "message" };

	NEEDS(!msgsnd((long)id, &message, 8, 0));
}

static void take_message(void *id)
{
	static struct text_message message;

	NEEDS(msgrcv((long)id, &message, 100, 0, 0) >= 0);
}

SAME(msgrcv_of_a_type, __NR_msgrcv)
{
	struct text_message message = { };
	struct msqid_ds state;
	int id = msgget(IPC_PRIVATE, 0600);

	SHOW_WOKEN(send_message, id, raw(__NR_msgrcv, id, &message, 100L, 5L, 0));
	SHOW(message.type);
	dprintf(STDOUT_FILENO, "%s\n", message.text);
	SHOW(msgctl(id, IPC_STAT, &state));
	SHOW(state.msg_lrpid == getpid());
	msgctl(id, IPC_RMID, NULL);
}

SAME(msgsnd_to_a_full_queue, __NR_msgsnd)
{
	static const struct text_message message = { 6, "another" };
	int id = msgget(IPC_PRIVATE, 0600);
	struct msqid_ds state;

	while (!msgsnd(id, &message, 100, IPC_NOWAIT))
		;
	NEEDS(errno == EAGAIN);
	SHOW_WOKEN(take_message, id, raw(__NR_msgsnd, id, &message, 100L, 0));
	SHOW(msgctl(id, IPC_STAT, &state));
	SHOW(state.msg_qnum);
	SHOW(state.msg_lspid == getpid());
	msgctl(id, IPC_RMID, NULL);
}

static mqd_t a_queue(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 64 };
	mqd_t queue;

	mq_unlink("/same");
	queue = mq_open("/same", O_RDWR | O_CREAT, 0600, &attributes);
	NEEDS(queue >= 0 && !mq_unlink("/same"));
	return queue;
}

static void send_to_queue(void *queue)
{
	NEEDS(!mq_send((long)queue, "posted", 7, 3));
}

static void receive_from_queue(void *queue)
{
	static char text[64];

	NEEDS(mq_receive((long)queue, text, sizeof(text), NULL) == 7);
}

SAME(mq_timedreceive_of_a_message, __NR_mq_timedreceive)
{
	unsigned int priority = 0;
	mqd_t queue = a_queue();

	SHOW_WOKEN(send_to_queue, queue,
		   raw(__NR_mq_timedreceive, queue, buffer, 64L, &priority, NULL));
	SHOW(priority);
	show_buffer();
}

SAME(mq_timedsend_to_a_full_queue, __NR_mq_timedsend)
{
	mqd_t queue = a_queue();

	send_to_queue((void *)(long)queue);
	SHOW_WOKEN(receive_from_queue, queue,
		   raw(__NR_mq_timedsend, queue, "second", 7L, 1, NULL));
	SHOW(mq_receive(queue, buffer, 64, NULL));
	show_buffer();
}

SAME(mq_timedreceive_that_times_out, __NR_mq_timedreceive)
{
	mqd_t queue = a_queue();
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (until.tv_nsec + 20000000) / 1000000000;
	until.tv_nsec = (until.tv_nsec + 20000000) % 1000000000;
	SHOW(raw(__NR_mq_timedreceive, queue, buffer, 64L, NULL, &until));
}

/* --- asynchronous I/O of other kinds ------------------------------------------------------ */

static struct iocb polled;

static long aio_context(int fd)
{
	struct iocb *list[1] = { &polled };
	aio_context_t context = 0;

	polled = (struct iocb){
		.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = fd, .aio_buf = POLLIN,
		.aio_data = 99,
	};
	NEEDS(!syscall(__NR_io_setup, 8, &context));
	NEEDS(syscall(__NR_io_submit, context, 1, list) == 1);
	return context;
}

#define SHOW_EVENTS(nr, ...)						\
SAME(nr##_of_a_poll, __NR_##nr)						\
{									\
	struct io_event events[2] = { };				\
	int pipes[2];							\
	long context;							\
									\
	pipe_of_two(pipes);						\
	context = aio_context(pipes[0]);				\
	SHOW_WOKEN(write_abc, pipes[1],					\
		   raw(__NR_##nr, context, 1L, 2L, events, NULL, ##__VA_ARGS__)); \
	SHOW(events[0].data);						\
	SHOW(events[0].res);						\
}

SHOW_EVENTS(io_getevents)
SHOW_EVENTS(io_pgetevents, NULL)

/* --- a supervisor of another process ------------------------------------------------------ */

static void make_filtered_call(const int fds[2])
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	int listener;

	NEEDS(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	listener = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
			   SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	NEEDS(listener >= 0);
	NEEDS(write(fds[1], &listener, sizeof(listener)) == sizeof(listener));
	NEEDS(read(fds[0], &listener, 1) == 1);
	_exit(raw(__NR_getppid) == 4711 ? 7 : 8);
}

static void let_it_go(void *fd)
{
	NEEDS(write((long)fd, "g", 1) == 1);
}

/* In a process of its own: with the shim a filter means that it stops in all of them. */
SAME(ioctl_for_a_notification, __NR_ioctl)
{
	struct seccomp_notif_resp response = { .val = 4711 };
	struct seccomp_notif notification = { };
	int there[2], back[2], fds[2], listener, number, status = 0;
	pid_t child;

	pipe_of_two(there);
	pipe_of_two(back);
	child = fork();
	if (!child) {
		fds[0] = there[0];
		fds[1] = back[1];
		make_filtered_call(fds);
	}
	NEEDS(read(back[0], &number, sizeof(number)) == sizeof(number));
	listener = syscall(__NR_pidfd_getfd, syscall(__NR_pidfd_open, child, 0), number, 0);
	NEEDS(listener >= 0);
	SHOW_WOKEN(let_it_go, there[1],
		   raw(__NR_ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, &notification));
	SHOW(notification.data.nr);
	SHOW(notification.pid == (unsigned int)child);
	response.id = notification.id;
	SHOW(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
	SHOW(waitpid(child, &status, 0) == child);
	SHOW(WEXITSTATUS(status));
}

/* --- disks, and what waits for all CPUs --------------------------------------------------- */

static void change(int fd)
{
	NEEDS(pwrite(fd, "changed", 7, 4096) == 7);
}

#define SHOW_SYNC(nr, of, ...)						\
SAME_ON_DISK(nr##_of_##of, __NR_##nr)					\
{									\
	int fd = file_with("file");					\
									\
	change(fd);							\
	SHOW(raw(__NR_##nr, ##__VA_ARGS__));				\
	close(fd);							\
}

SHOW_SYNC(fsync, a_file, fd)
SHOW_SYNC(fdatasync, a_file, fd)
SHOW_SYNC(syncfs, a_file_system, fd)
SHOW_SYNC(sync, everything)

/* The disk may be done before it is waited for. */
SAME(sync_file_range_of_a_file, NOTHING)
{
	int fd = file_with("file");

	change(fd);
	NEEDS(!fsync(fd));
	change(fd);
	SHOW(raw(__NR_sync_file_range, fd, 0L, 0L,
		 SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
}

SAME_ON_DISK(msync_of_a_mapping, __NR_msync)
{
	int fd = file_with("file");
	char *at;

	NEEDS(!ftruncate(fd, 4096));
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	NEEDS(at != MAP_FAILED);
	memcpy(at, "mapped", 6);
	SHOW(raw(__NR_msync, at, 4096L, MS_SYNC));
	SHOW(pread(fd, buffer, 100, 0));
	show_buffer();
}

static int synchronous_file(void)
{
	char path[] = "/var/tmp/same.XXXXXX";
	int fd = mkostemp(path, O_SYNC);

	NEEDS(fd >= 0 && !unlink(path));
	return fd;
}

SAME_ON_DISK(write_to_a_synchronous_file, __NR_write)
{
	int fd = synchronous_file();

	SHOW(raw(__NR_write, fd, "written", 7L));
	SHOW(lseek(fd, 0, SEEK_CUR));
}

SAME_ON_DISK(pwrite64_to_a_synchronous_file, __NR_pwrite64)
{
	int fd = synchronous_file();

	SHOW(raw(__NR_pwrite64, fd, "written", 7L, 10L));
	SHOW(lseek(fd, 0, SEEK_END));
}

SAME_ON_DISK(pwritev_to_a_synchronous_file, __NR_pwritev)
{
	int fd = synchronous_file();

	SHOW(raw(__NR_pwritev, fd, vectors, 2, 10L, 0L));
	SHOW(lseek(fd, 0, SEEK_END));
}

/* Of a single CPU there is nothing to wait for. */
SAME(membarrier_of_all, NOTHING)
{
	SHOW(raw(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
}

/* With those of same_faults more than a hundred. */
TEST(fifty_calls_are_compared)
{
	TH_LOG("%d system calls", calls_compared());
	EXPECT_LE(50, calls_compared());
}

SAME_MAIN
