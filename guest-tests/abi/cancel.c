// SPDX-License-Identifier: GPL-2.0
/* async_cancel: what it returns, what becomes of the call, and of everything else. */
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "calls.h"
#include "../kselftest_harness.h"

static const struct timespec long_time = { .tv_sec = 1000 };

/* Offloads a call that would sleep for ever, cancels it; the value it ended with. */
static long cancelled(long nr, const unsigned long *args)
{
	long result = UNTOUCHED, ret;
	long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args);

	if (cookie <= 0)
		return cookie;
	if (result_of(&result) != cookie)
		return -EPROTO;
	ret = async_cancel(0, cookie);
	return ret ? ret : final_value(cookie, &result);
}

TEST(pipe_read)
{
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fds[0], P(&byte), 1)));
}

TEST(write_to_a_full_pipe)
{
	static char block[4096];
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	while (write(fds[1], block, sizeof(block)) > 0)
		;
	ASSERT_EQ(0, fcntl(fds[1], F_SETFL, 0));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_write, ARGS(fds[1], P(block), sizeof(block))));
}

TEST(sockets)
{
	struct sockaddr address = { .sa_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;
	int sv[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_recvfrom, ARGS(sv[0], P(&byte), 1)));
	/* A bind to the family alone takes a free abstract address. */
	ASSERT_EQ(0, bind(listener, &address, sizeof(address.sa_family)));
	ASSERT_EQ(0, listen(listener, 1));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_accept4, ARGS(listener)));
}

TEST(sleeps)
{
	struct timespec end;

	ASSERT_EQ(0, clock_gettime(CLOCK_MONOTONIC, &end));
	end.tv_sec += 1000;
	EXPECT_EQ(-ECANCELED, cancelled(__NR_nanosleep, ARGS(P(&long_time))));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_clock_nanosleep,
					ARGS(CLOCK_MONOTONIC, 0, P(&long_time))));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_clock_nanosleep,
					ARGS(CLOCK_MONOTONIC, TIMER_ABSTIME, P(&end))));
}

TEST(polls)
{
	struct timespec limit = long_time;
	struct epoll_event event;
	struct pollfd entry;
	int fds[2], epoll;

	ASSERT_EQ(0, pipe(fds));
	entry = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	epoll = epoll_create1(0);
	ASSERT_LE(0, epoll);
	EXPECT_EQ(-ECANCELED, cancelled(__NR_ppoll, ARGS(P(&entry), 1, P(&limit))));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_ppoll, ARGS(P(&entry), 1)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_pselect6, ARGS(0, 0, 0, 0, P(&limit))));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_epoll_pwait, ARGS(epoll, P(&event), 1, -1UL)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_epoll_pwait, ARGS(epoll, P(&event), 1, 1000000)));
#ifdef __NR_poll
	EXPECT_EQ(-ECANCELED, cancelled(__NR_poll, ARGS(P(&entry), 1, -1UL)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_poll, ARGS(P(&entry), 1, 1000000)));
#endif
#ifdef __NR_select
	EXPECT_EQ(-ECANCELED, cancelled(__NR_select, ARGS(0)));
#endif
#ifdef __NR_epoll_wait
	EXPECT_EQ(-ECANCELED, cancelled(__NR_epoll_wait, ARGS(epoll, P(&event), 1, -1UL)));
#endif
}

TEST(futex_waits)
{
	unsigned int word = 7;

	EXPECT_EQ(-ECANCELED, cancelled(__NR_futex, ARGS(P(&word), FUTEX_WAIT_PRIVATE, 7)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_futex, ARGS(P(&word), FUTEX_WAIT_PRIVATE, 7,
							 P(&long_time))));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_futex, ARGS(P(&word), FUTEX_WAIT_BITSET_PRIVATE, 7,
							 0, 0, FUTEX_BITSET_MATCH_ANY)));
}

TEST(descriptors_that_wait_for_an_event)
{
	const struct itimerspec never = { };
	unsigned long count;
	char buffer[512];
	sigset_t mask;
	int fd;

	fd = eventfd(0, 0);
	EXPECT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fd, P(&count), 8)));
	fd = timerfd_create(CLOCK_MONOTONIC, 0);
	ASSERT_EQ(0, timerfd_settime(fd, 0, &never, NULL));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fd, P(&count), 8)));
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &mask, NULL));
	fd = signalfd(-1, &mask, 0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fd, P(buffer), sizeof(buffer))));
}

TEST(file_locks)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[] = "/tmp/async_cancel.XXXXXX";
	int holder = mkstemp(path);
	int other = open(path, O_RDWR);

	ASSERT_LE(0, holder);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, unlink(path));
	ASSERT_EQ(0, flock(holder, LOCK_EX));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_flock, ARGS(other, LOCK_EX)));
	ASSERT_EQ(0, fcntl(holder, F_OFD_SETLK, &lock));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_fcntl, ARGS(other, F_OFD_SETLKW, P(&lock))));
	/* Neither lock was taken on the way. */
	EXPECT_EQ(-1, flock(other, LOCK_EX | LOCK_NB));
	EXPECT_EQ(-1, fcntl(other, F_OFD_SETLK, &lock));
}

TEST(wait_for_a_child)
{
	pid_t child = fork_child();
	siginfo_t info;
	int status;

	ASSERT_LE(0, child);
	if (child == 0)
		while (1)
			pause();
	EXPECT_EQ(-ECANCELED, cancelled(__NR_wait4, ARGS(child, P(&status), 0, 0)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_waitid, ARGS(P_PID, child, P(&info), WEXITED, 0)));
	ASSERT_EQ(0, kill(child, SIGKILL));
	EXPECT_EQ(SIGKILL, status_of(child));
}

TEST(system_v_ipc)
{
	struct sembuf take = { .sem_num = 0, .sem_op = -1 };
	int queue = msgget(IPC_PRIVATE, 0600);
	int set = semget(IPC_PRIVATE, 1, 0600);
	char message[64];

	ASSERT_LE(0, queue);
	ASSERT_LE(0, set);
	EXPECT_EQ(-ECANCELED, cancelled(__NR_msgrcv, ARGS(queue, P(message), 8)));
	EXPECT_EQ(-ECANCELED, cancelled(__NR_semtimedop, ARGS(set, P(&take), 1)));
	EXPECT_EQ(0, msgctl(queue, IPC_RMID, NULL));
	EXPECT_EQ(0, semctl(set, 0, IPC_RMID));
}

TEST(partial_progress_is_the_value)
{
	static char block[1 << 20];
	long result = UNTOUCHED, cookie;
	int fds[2], queued = 0, capacity;

	ASSERT_EQ(0, pipe(fds));
	capacity = fcntl(fds[1], F_GETPIPE_SZ);
	ASSERT_LT(0, capacity);
	ASSERT_LT(capacity, sizeof(block));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_write,
			      ARGS(fds[1], P(block), sizeof(block)));
	ASSERT_LT(0, cookie);
	ASSERT_TRUE(becomes_true(!ioctl(fds[0], FIONREAD, &queued) && queued == capacity));
	EXPECT_EQ(0, async_cancel(0, cookie));
	EXPECT_EQ(capacity, final_value(cookie, &result));
}

TEST(finished_call_is_enoent)
{
	long result = UNTOUCHED;
	long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

	ASSERT_EQ(getppid(), final_value(cookie, &result));
	EXPECT_EQ(-ENOENT, async_cancel(0, cookie));
	EXPECT_EQ(-ENOENT, async_cancel(0, cookie));
	EXPECT_EQ(getppid(), result_of(&result));
}

TEST(enoent_agrees_with_the_result_word)
{
	const long long end = now_ns() + TRYING_NS;
	long result, cookie;
	int i;

	for (i = 0; i < 4000 && now_ns() < end; i++) {
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
		ASSERT_LT(0, cookie);
		while (ASYNC_PENDING(result_of(&result)))
			;
		ASSERT_EQ(-ENOENT, async_cancel(0, cookie))
			TH_LOG("at call %d", i);
	}
}

TEST(cancelled_call_is_enoent_once_it_ended)
{
	long result = UNTOUCHED, cookie;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(0, async_cancel(0, cookie));
	ASSERT_EQ(-ECANCELED, final_value(cookie, &result));
	EXPECT_EQ(-ENOENT, async_cancel(0, cookie));
}

TEST(unknown_flags)
{
	long result = UNTOUCHED, cookie;
	unsigned int bit;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	for (bit = 0; bit < 64; bit++)
		EXPECT_EQ(-EINVAL, async_cancel(1UL << bit, cookie))
			TH_LOG("flag bit %u", bit);
	EXPECT_EQ(-ETIME, wait_for_async(0, cookie, &no_time));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_EQ(1, final_value(cookie, &result));
}

TEST(other_calls_are_not_touched)
{
	enum { CALLS = 16 };
	long results[CALLS], cookies[CALLS];
	char bytes[CALLS];
	int fds[CALLS][2], i;

	for (i = 0; i < CALLS; i++) {
		results[i] = UNTOUCHED;
		ASSERT_EQ(0, pipe(fds[i]));
		cookies[i] = async_submit(ASYNC_SUBMIT_OFFLOAD, &results[i], __NR_read,
					  ARGS(fds[i][0], P(&bytes[i]), 1));
		ASSERT_LT(0, cookies[i]);
	}
	for (i = 0; i < CALLS; i += 2)
		EXPECT_EQ(0, async_cancel(0, cookies[i]));
	for (i = 0; i < CALLS; i += 2)
		EXPECT_EQ(-ECANCELED, final_value(cookies[i], &results[i]));
	for (i = 1; i < CALLS; i += 2) {
		EXPECT_EQ(cookies[i], result_of(&results[i]));
		ASSERT_EQ(1, write(fds[i][1], "x", 1));
		EXPECT_EQ(1, final_value(cookies[i], &results[i]));
	}
}

TEST(next_call_of_the_same_worker_is_not_touched)
{
	long result, cookie;
	char byte;
	int fds[2], i;

	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < 100; i++) {
		result = UNTOUCHED;
		ASSERT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fds[0], P(&byte), 1)));
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
				      ARGS(fds[0], P(&byte), 1));
		ASSERT_LT(0, cookie);
		ASSERT_EQ(1, write(fds[1], "x", 1));
		ASSERT_EQ(1, final_value(cookie, &result));
	}
}

TEST(cancelled_read_takes_no_data)
{
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, 0));
	ASSERT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fds[0], P(&byte), 1)));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	ASSERT_EQ(0, fcntl(fds[0], F_SETFL, O_NONBLOCK));
	EXPECT_EQ(1, read(fds[0], &byte, 1));
}

static int handled;

static void count_signal(int signal)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_RELAXED);
}

TEST(no_signal_is_seen)
{
	struct sigaction action = { .sa_handler = count_signal };
	char byte;
	int fds[2], signal;

	for (signal = 1; signal < _NSIG; signal++)
		if (signal != SIGCHLD && signal != SIGALRM)
			sigaction(signal, &action, NULL);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(-ECANCELED, cancelled(__NR_read, ARGS(fds[0], P(&byte), 1)));
	EXPECT_EQ(0, __atomic_load_n(&handled, __ATOMIC_RELAXED));
}

struct race {
	long cookie;
	long ret;
};

static void *cancels(void *argument)
{
	struct race *race = argument;

	race->ret = async_cancel(0, race->cookie);
	return NULL;
}

TEST(race_with_completion_has_one_outcome)
{
	int fds[2], i, wins = 0;
	struct race race;
	pthread_t thread;
	long result;
	char byte;

	ASSERT_EQ(0, pipe2(fds, 0));
	for (i = 0; i < 300; i++) {
		long value;

		result = UNTOUCHED;
		race.cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
					   ARGS(fds[0], P(&byte), 1));
		ASSERT_LT(0, race.cookie);
		ASSERT_EQ(0, pthread_create(&thread, NULL, cancels, &race));
		ASSERT_EQ(1, write(fds[1], "x", 1));
		value = final_value(race.cookie, &result);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_TRUE(race.ret == 0 || race.ret == -ENOENT);
		ASSERT_TRUE(value == 1 || (value == -ECANCELED && race.ret == 0));
		ASSERT_EQ(value, result_of(&result));
		/* Either the call took the byte or it is still there. */
		if (value == -ECANCELED) {
			wins++;
			ASSERT_EQ(1, read(fds[0], &byte, 1));
		}
	}
	TH_LOG("cancel came first %d times of %d", wins, i);
}

TEST(another_thread_cancels)
{
	long result = UNTOUCHED;
	struct race race;
	pthread_t thread;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	race.cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
				   ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, race.cookie);
	ASSERT_EQ(0, pthread_create(&thread, NULL, cancels, &race));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, race.ret);
	EXPECT_EQ(-ECANCELED, final_value(race.cookie, &result));
}

TEST(cancel_ends_a_wait)
{
	long result = UNTOUCHED;
	struct race race;
	pthread_t thread;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	race.cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
				   ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, race.cookie);
	ASSERT_EQ(0, pthread_create(&thread, NULL, cancels, &race));
	EXPECT_EQ(0, wait_for_async(0, 0, &deadline));
	EXPECT_EQ(-ECANCELED, result_of(&result));
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

TEST_HARNESS_MAIN
