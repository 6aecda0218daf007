/* SPDX-License-Identifier: GPL-2.0 */
/*
 * System calls that sleep, each in a way of its own, until they are woken: one table for tests
 * of what must hold for any of them.
 */
#ifndef SLEEPERS_H
#define SLEEPERS_H

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "handover.h"

#define FOREVER_S	100000

/* A call that is going to sleep, and what it needs for that. */
struct sleeping {
	long nr;
	unsigned long args[6];
	/* What it ends with once woken; LONG_MAX: any value that is no error. */
	long value;
	int fds[4];
	int id;
	pid_t child;
	unsigned int word;
	aio_context_t aio;
	char path[64];
	union {
		char bytes[4096];
		struct timespec ts;
		struct pollfd poll;
		fd_set set;
		struct epoll_event event;
		struct sembuf sem;
		struct msg {
			long type;
			char text[8];
		} msg;
		struct futex_waitv waitv;
		struct sockaddr_un address;
		struct flock lock;
		struct io_event io_event;
	} u;
};

struct sleeper {
	const char *name;
	bool (*set_up)(struct sleeping *s);
	/* Ends the call; NULL if only cancelling does. */
	bool (*wake)(struct sleeping *s);
	void (*tear_down)(struct sleeping *s);
};

#define SLEEPS_IN(s, number, ...)					\
do {									\
	(s)->nr = (number);						\
	memcpy((s)->args, ARGS(__VA_ARGS__), sizeof((s)->args));	\
} while (0)

static inline bool have_pipe(struct sleeping *s)
{
	return !pipe(s->fds);
}

static inline bool wake_by_byte(struct sleeping *s)
{
	return write(s->fds[1], "w", 1) == 1;
}

static bool set_up_nanosleep(struct sleeping *s)
{
	s->u.ts = (struct timespec){ .tv_sec = FOREVER_S };
	SLEEPS_IN(s, __NR_nanosleep, P(&s->u.ts), 0);
	return true;
}

static bool set_up_clock_nanosleep(struct sleeping *s)
{
	clock_gettime(CLOCK_REALTIME, &s->u.ts);
	s->u.ts.tv_sec += FOREVER_S;
	SLEEPS_IN(s, __NR_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, P(&s->u.ts), 0);
	return true;
}

static bool set_up_read_pipe(struct sleeping *s)
{
	SLEEPS_IN(s, __NR_read, 0, P(s->u.bytes), 1);
	s->value = 1;
	return have_pipe(s) && ((s->args[0] = s->fds[0]), true);
}

static bool set_up_write_pipe(struct sleeping *s)
{
	static const char page[4096];
	int i;

	if (!have_pipe(s))
		return false;
	for (i = 0; i < 16; i++)
		if (write(s->fds[1], page, sizeof(page)) != sizeof(page))
			return false;
	SLEEPS_IN(s, __NR_write, s->fds[1], P(s->u.bytes), 1);
	s->value = 1;
	return true;
}

static bool wake_write_pipe(struct sleeping *s)
{
	char page[4096];

	return read(s->fds[0], page, sizeof(page)) == sizeof(page);
}

static bool set_up_splice(struct sleeping *s)
{
	if (!have_pipe(s) || pipe(s->fds + 2))
		return false;
	SLEEPS_IN(s, __NR_splice, s->fds[0], 0, s->fds[3], 0, 1, 0);
	s->value = 1;
	return true;
}

static bool set_up_eventfd(struct sleeping *s)
{
	s->fds[0] = s->fds[1] = eventfd(0, 0);
	SLEEPS_IN(s, __NR_read, s->fds[0], P(s->u.bytes), 8);
	s->value = 8;
	return s->fds[0] >= 0;
}

static bool wake_eventfd(struct sleeping *s)
{
	return write(s->fds[1], &(uint64_t){ 1 }, 8) == 8;
}

static bool set_up_timerfd(struct sleeping *s)
{
	s->fds[0] = timerfd_create(CLOCK_MONOTONIC, 0);
	SLEEPS_IN(s, __NR_read, s->fds[0], P(s->u.bytes), 8);
	s->value = 8;
	return s->fds[0] >= 0;
}

static bool wake_timerfd(struct sleeping *s)
{
	const struct itimerspec now = { .it_value.tv_nsec = 1 };

	return !timerfd_settime(s->fds[0], 0, &now, NULL);
}

static bool set_up_inotify(struct sleeping *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/async_watched.%d.%d", getpid(), gettid());
	if (mkdir(s->path, 0700) && errno != EEXIST)
		return false;
	s->fds[0] = inotify_init();
	SLEEPS_IN(s, __NR_read, s->fds[0], P(s->u.bytes), sizeof(s->u.bytes));
	s->value = LONG_MAX;
	return s->fds[0] >= 0 && inotify_add_watch(s->fds[0], s->path, IN_DELETE_SELF) >= 0;
}

static bool wake_inotify(struct sleeping *s)
{
	return !rmdir(s->path);
}

static void tear_down_path(struct sleeping *s)
{
	if (rmdir(s->path))
		unlink(s->path);
}

static bool set_up_poll(struct sleeping *s)
{
	if (!have_pipe(s))
		return false;
	s->u.poll = (struct pollfd){ .fd = s->fds[0], .events = POLLIN };
	SLEEPS_IN(s, __NR_poll, P(&s->u.poll), 1, -1UL);
	s->value = 1;
	return true;
}

static bool set_up_poll_with_timeout(struct sleeping *s)
{
	return set_up_poll(s) && ((s->args[2] = FOREVER_S * 1000), true);
}

static struct timespec long_time = { .tv_sec = FOREVER_S };
static struct timeval long_timeval = { .tv_sec = FOREVER_S };

static bool set_up_ppoll(struct sleeping *s)
{
	if (!set_up_poll(s))
		return false;
	SLEEPS_IN(s, __NR_ppoll, P(&s->u.poll), 1, P(&long_time), 0, 8);
	return true;
}

static bool set_up_select(struct sleeping *s)
{
	if (!have_pipe(s))
		return false;
	FD_ZERO(&s->u.set);
	FD_SET(s->fds[0], &s->u.set);
	SLEEPS_IN(s, __NR_select, s->fds[0] + 1, P(&s->u.set), 0, 0, P(&long_timeval));
	s->value = 1;
	return true;
}

static bool set_up_pselect(struct sleeping *s)
{
	if (!set_up_select(s))
		return false;
	SLEEPS_IN(s, __NR_pselect6, s->fds[0] + 1, P(&s->u.set), 0, 0, 0, 0);
	return true;
}

static bool set_up_epoll(struct sleeping *s)
{
	struct epoll_event event = { .events = EPOLLIN };

	s->fds[2] = epoll_create1(0);
	if (s->fds[2] < 0 || !have_pipe(s) ||
	    epoll_ctl(s->fds[2], EPOLL_CTL_ADD, s->fds[0], &event))
		return false;
	SLEEPS_IN(s, __NR_epoll_wait, s->fds[2], P(&s->u.event), 1, FOREVER_S * 1000);
	s->value = 1;
	return true;
}

static bool set_up_futex(struct sleeping *s)
{
	SLEEPS_IN(s, __NR_futex, P(&s->word), FUTEX_WAIT_PRIVATE, 0, 0);
	return true;
}

static bool set_up_futex_with_timeout(struct sleeping *s)
{
	SLEEPS_IN(s, __NR_futex, P(&s->word), FUTEX_WAIT_PRIVATE, 0, P(&long_time));
	return true;
}

static bool set_up_futex_bitset(struct sleeping *s)
{
	SLEEPS_IN(s, __NR_futex, P(&s->word), FUTEX_WAIT_BITSET_PRIVATE, 0, P(&long_time), 0,
		  FUTEX_BITSET_MATCH_ANY);
	clock_gettime(CLOCK_MONOTONIC, &s->u.ts);
	s->u.ts.tv_sec += FOREVER_S;
	s->args[3] = P(&s->u.ts);
	return true;
}

static bool set_up_futex_waitv(struct sleeping *s)
{
	s->u.waitv = (struct futex_waitv){
		.uaddr = P(&s->word),
		.flags = FUTEX_32 | FUTEX_PRIVATE_FLAG,
	};
	SLEEPS_IN(s, __NR_futex_waitv, P(&s->u.waitv), 1, 0, 0, 0);
	return true;
}

static bool wake_futex(struct sleeping *s)
{
	return raw_call(__NR_futex, &s->word, FUTEX_WAKE_PRIVATE, 1) == 1;
}

static bool set_up_recv(struct sleeping *s)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s->fds))
		return false;
	SLEEPS_IN(s, __NR_recvfrom, s->fds[0], P(s->u.bytes), 1, 0, 0, 0);
	s->value = 1;
	return true;
}

static bool set_up_recv_with_timeout(struct sleeping *s)
{
	return set_up_recv(s) && !setsockopt(s->fds[0], SOL_SOCKET, SO_RCVTIMEO, &long_timeval,
					     sizeof(long_timeval));
}

static bool set_up_send(struct sleeping *s)
{
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, s->fds))
		return false;
	while (send(s->fds[1], "x", 1, MSG_DONTWAIT) == 1)
		;
	SLEEPS_IN(s, __NR_sendto, s->fds[1], P(s->u.bytes), 1, 0, 0, 0);
	s->value = 1;
	return true;
}

static bool wake_send(struct sleeping *s)
{
	char byte;

	/* Room is not told one by one. */
	while (recv(s->fds[0], &byte, 1, MSG_DONTWAIT) == 1)
		;
	return true;
}

static bool have_listener(struct sleeping *s, int backlog)
{
	socklen_t size = sizeof(s->u.address);

	s->fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	s->u.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* An abstract name of the kernel's choice. */
	return s->fds[0] >= 0 &&
	       !bind(s->fds[0], (struct sockaddr *)&s->u.address, sizeof(sa_family_t)) &&
	       !getsockname(s->fds[0], (struct sockaddr *)&s->u.address, &size) &&
	       !listen(s->fds[0], backlog) && ((s->id = size), true);
}

static bool connect_to(struct sleeping *s, int *fd)
{
	*fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return *fd >= 0 && !connect(*fd, (struct sockaddr *)&s->u.address, s->id);
}

static bool set_up_accept(struct sleeping *s)
{
	SLEEPS_IN(s, __NR_accept, 0, 0, 0);
	s->value = LONG_MAX;
	return have_listener(s, 1) && ((s->args[0] = s->fds[0]), true);
}

static bool wake_accept(struct sleeping *s)
{
	return connect_to(s, &s->fds[1]);
}

static bool set_up_connect(struct sleeping *s)
{
	if (!have_listener(s, 0) || !connect_to(s, &s->fds[1]))
		return false;
	s->fds[2] = socket(AF_UNIX, SOCK_STREAM, 0);
	SLEEPS_IN(s, __NR_connect, s->fds[2], P(&s->u.address), s->id);
	return s->fds[2] >= 0;
}

static bool wake_connect(struct sleeping *s)
{
	s->fds[3] = accept(s->fds[0], NULL, NULL);
	return s->fds[3] >= 0;
}

static bool set_up_msgrcv(struct sleeping *s)
{
	s->id = msgget(IPC_PRIVATE, 0600);
	SLEEPS_IN(s, __NR_msgrcv, s->id, P(&s->u.msg), 8, 0, 0);
	s->value = 1;
	return s->id >= 0;
}

static bool wake_msgrcv(struct sleeping *s)
{
	const struct msg msg = { .type = 1 };

	return !msgsnd(s->id, &msg, 1, 0);
}

static void tear_down_msg(struct sleeping *s)
{
	msgctl(s->id, IPC_RMID, NULL);
}

static bool set_up_semop(struct sleeping *s)
{
	s->id = semget(IPC_PRIVATE, 1, 0600);
	s->u.sem = (struct sembuf){ .sem_op = -1 };
	SLEEPS_IN(s, __NR_semop, s->id, P(&s->u.sem), 1);
	return s->id >= 0;
}

static bool set_up_semtimedop(struct sleeping *s)
{
	if (!set_up_semop(s))
		return false;
	SLEEPS_IN(s, __NR_semtimedop, s->id, P(&s->u.sem), 1, P(&long_time));
	return true;
}

static bool wake_semop(struct sleeping *s)
{
	return !semctl(s->id, 0, SETVAL, 1);
}

static void tear_down_sem(struct sleeping *s)
{
	semctl(s->id, 0, IPC_RMID);
}

static bool have_queue(struct sleeping *s)
{
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };

	snprintf(s->path, sizeof(s->path), "/async.%d.%d", getpid(), gettid());
	s->fds[0] = mq_open(s->path, O_RDWR | O_CREAT, 0600, &attributes);
	return s->fds[0] >= 0 && !mq_unlink(s->path);
}

static bool set_up_mq_receive(struct sleeping *s)
{
	if (!have_queue(s))
		return false;
	SLEEPS_IN(s, __NR_mq_timedreceive, s->fds[0], P(s->u.bytes), 8, 0, 0);
	s->value = 1;
	return true;
}

static bool wake_mq_receive(struct sleeping *s)
{
	return !mq_send(s->fds[0], "m", 1, 0);
}

static bool set_up_mq_send(struct sleeping *s)
{
	if (!have_queue(s) || mq_send(s->fds[0], "m", 1, 0))
		return false;
	SLEEPS_IN(s, __NR_mq_timedsend, s->fds[0], P(s->u.bytes), 1, 0, 0);
	return true;
}

static bool wake_mq_send(struct sleeping *s)
{
	char text[8];

	return mq_receive(s->fds[0], text, sizeof(text), NULL) == 1;
}

/* Two open files of one that is locked by the first. */
static bool have_locked(struct sleeping *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/async_locked.%d.%d", getpid(), gettid());
	s->fds[0] = open(s->path, O_RDWR | O_CREAT, 0600);
	s->fds[1] = open(s->path, O_RDWR);
	return s->fds[0] >= 0 && s->fds[1] >= 0;
}

static bool set_up_flock(struct sleeping *s)
{
	if (!have_locked(s) || flock(s->fds[0], LOCK_EX))
		return false;
	SLEEPS_IN(s, __NR_flock, s->fds[1], LOCK_EX);
	return true;
}

static bool wake_flock(struct sleeping *s)
{
	return !flock(s->fds[0], LOCK_UN);
}

static bool set_up_record_lock(struct sleeping *s)
{
	struct flock lock = { .l_type = F_WRLCK };

	if (!have_locked(s) || fcntl(s->fds[0], F_OFD_SETLK, &lock))
		return false;
	s->u.lock = lock;
	SLEEPS_IN(s, __NR_fcntl, s->fds[1], F_OFD_SETLKW, P(&s->u.lock));
	return true;
}

static bool wake_record_lock(struct sleeping *s)
{
	struct flock lock = { .l_type = F_UNLCK };

	return !fcntl(s->fds[0], F_OFD_SETLK, &lock);
}

static bool have_child(struct sleeping *s)
{
	pid_t child = fork_child();

	if (child == 0)
		while (1)
			pause();
	s->child = child;
	return child > 0;
}

static bool set_up_wait4(struct sleeping *s)
{
	if (!have_child(s))
		return false;
	SLEEPS_IN(s, __NR_wait4, s->child, 0, 0, 0);
	s->value = s->child;
	return true;
}

static bool set_up_waitid(struct sleeping *s)
{
	if (!have_child(s))
		return false;
	SLEEPS_IN(s, __NR_waitid, P_PID, s->child, P(s->u.bytes), WEXITED, 0);
	return true;
}

static bool wake_child(struct sleeping *s)
{
	return !kill(s->child, SIGKILL);
}

static void tear_down_child(struct sleeping *s)
{
	kill(s->child, SIGKILL);
	waitpid(s->child, NULL, 0);
}

static bool set_up_terminal(struct sleeping *s)
{
	s->fds[1] = posix_openpt(O_RDWR | O_NOCTTY);
	if (s->fds[1] < 0 || grantpt(s->fds[1]) || unlockpt(s->fds[1]))
		return false;
	s->fds[0] = open(ptsname(s->fds[1]), O_RDWR | O_NOCTTY);
	SLEEPS_IN(s, __NR_read, s->fds[0], P(s->u.bytes), 8);
	s->value = 2;
	return s->fds[0] >= 0;
}

static bool wake_terminal(struct sleeping *s)
{
	return write(s->fds[1], "t\n", 2) == 2;
}

static bool set_up_open_fifo(struct sleeping *s)
{
	snprintf(s->path, sizeof(s->path), "/tmp/async_fifo.%d.%d", getpid(), gettid());
	if (mkfifo(s->path, 0600))
		return false;
	SLEEPS_IN(s, __NR_openat, AT_FDCWD, P(s->path), O_RDONLY);
	s->value = LONG_MAX;
	return true;
}

static bool wake_open_fifo(struct sleeping *s)
{
	s->fds[0] = open(s->path, O_RDWR | O_NONBLOCK);
	return s->fds[0] >= 0;
}

static bool set_up_io_getevents(struct sleeping *s)
{
	if (raw_call(__NR_io_setup, 1, &s->aio))
		return false;
	SLEEPS_IN(s, __NR_io_getevents, s->aio, 1, 1, P(&s->u.io_event), 0);
	return true;
}

static void tear_down_aio(struct sleeping *s)
{
	raw_call(__NR_io_destroy, s->aio);
}

static const struct sleeper sleepers[] = {
	{ "nanosleep", set_up_nanosleep },
	{ "clock_nanosleep", set_up_clock_nanosleep },
	{ "read of a pipe", set_up_read_pipe, wake_by_byte },
	{ "write to a pipe", set_up_write_pipe, wake_write_pipe },
	{ "splice", set_up_splice, wake_by_byte },
	{ "read of an eventfd", set_up_eventfd, wake_eventfd },
	{ "read of a timerfd", set_up_timerfd, wake_timerfd },
	{ "read of an inotify descriptor", set_up_inotify, wake_inotify, tear_down_path },
	{ "poll", set_up_poll, wake_by_byte },
	{ "poll with a timeout", set_up_poll_with_timeout, wake_by_byte },
	{ "ppoll", set_up_ppoll, wake_by_byte },
	{ "select", set_up_select, wake_by_byte },
	{ "pselect6", set_up_pselect, wake_by_byte },
	{ "epoll_wait", set_up_epoll, wake_by_byte },
	{ "futex", set_up_futex, wake_futex },
	{ "futex with a timeout", set_up_futex_with_timeout, wake_futex },
	{ "futex with a bit set", set_up_futex_bitset, wake_futex },
	{ "futex_waitv", set_up_futex_waitv, wake_futex },
	{ "recv", set_up_recv, wake_by_byte },
	{ "recv with a timeout", set_up_recv_with_timeout, wake_by_byte },
	{ "send", set_up_send, wake_send },
	{ "accept", set_up_accept, wake_accept },
	{ "connect", set_up_connect, wake_connect },
	{ "msgrcv", set_up_msgrcv, wake_msgrcv, tear_down_msg },
	{ "semop", set_up_semop, wake_semop, tear_down_sem },
	{ "semtimedop", set_up_semtimedop, wake_semop, tear_down_sem },
	{ "mq_receive", set_up_mq_receive, wake_mq_receive },
	{ "mq_send", set_up_mq_send, wake_mq_send },
	{ "flock", set_up_flock, wake_flock, tear_down_path },
	{ "lock of a record", set_up_record_lock, wake_record_lock, tear_down_path },
	{ "wait4", set_up_wait4, wake_child, tear_down_child },
	{ "waitid", set_up_waitid, wake_child, tear_down_child },
	{ "read of a terminal", set_up_terminal, wake_terminal },
	{ "open of a fifo", set_up_open_fifo, wake_open_fifo, tear_down_path },
	{ "io_getevents", set_up_io_getevents, NULL, tear_down_aio },
};

enum { SLEEPERS = sizeof(sleepers) / sizeof(*sleepers) };

static inline const char *set_up(const struct sleeper *sleeper, struct sleeping *s)
{
	int i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < 4; i++)
		s->fds[i] = -1;
	if (!sleeper->set_up(s))
		return trouble("%s: not set up (errno %d)", sleeper->name, errno);
	return NULL;
}

static inline void tear_down(const struct sleeper *sleeper, struct sleeping *s)
{
	int i;

	if (sleeper->tear_down)
		sleeper->tear_down(s);
	for (i = 0; i < 4; i++)
		if (s->fds[i] >= 0)
			close(s->fds[i]);
}

/* Is it what the call ends with once woken? Closes a descriptor the call has opened. */
static inline bool is_woken(const struct sleeping *s, long value)
{
	if (s->value != LONG_MAX)
		return value == s->value;
	if (value < 0)
		return false;
	if (s->nr != __NR_read)
		close(value);
	return true;
}

#endif /* SLEEPERS_H */
