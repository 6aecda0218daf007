/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The three calls as the kernel sees them, and the few conditions every test waits for.
 *
 * All wrappers return what the kernel returned: a value, or a negative error code.
 */
#ifndef CALLS_H
#define CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/async_submit.h>
#include <linux/time_types.h>

#include "../kselftest_harness.h"

/* The contract fixes the numbers, for all architectures. */
#ifndef __NR_async_submit
#define __NR_async_submit	548
#define __NR_wait_for_async	549
#define __NR_async_cancel	550
#endif
_Static_assert(__NR_async_submit == 548, "async_submit is number 548");
_Static_assert(__NR_wait_for_async == 549, "wait_for_async is number 549");
_Static_assert(__NR_async_cancel == 550, "async_cancel is number 550");
_Static_assert(ASYNC_SUBMIT_OFFLOAD == 1UL << 0, "OFFLOAD is bit 0");

/* What a result word holds before a submission: no cookie, no error, no likely value. */
#define UNTOUCHED	0x0123456789abcdefL

/*
 * Longer than any of this takes on the slowest machine, which checks all that a kernel can check,
 * is emulated, and on a host with other work: only what hangs gets there. Shorter than a test
 * may take. ABI_DEADLINE_S is for those who expect it to hang.
 */
static inline int deadline_s(void)
{
	const char *otherwise = getenv("ABI_DEADLINE_S");

	return otherwise && atoi(otherwise) > 0 ? atoi(otherwise) : 100;
}

#define DEADLINE_S	deadline_s()
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	150

/* How long a test goes on trying to hit a moment that is rare. */
#define TRYING_NS	5000000000LL

/* Address that is never mapped, in the kernel's half on every 64-bit architecture. */
#define BAD_ADDRESS	((void *)-4096L)

/* One argument of a call that is not a number already. */
#define P(pointer)	((unsigned long)(pointer))

/* The argument array of a call; what is not given is zero. */
#define ARGS(...)	((const unsigned long [6]) { __VA_ARGS__ })

static struct __kernel_timespec deadline;

static __attribute__((constructor)) void set_deadline(void)
{
	deadline.tv_sec = DEADLINE_S;
}

static const struct __kernel_timespec no_time = { };

#define raw_call(...)							\
({									\
	long __value = syscall(__VA_ARGS__);				\
									\
	__value == -1 ? -(long)errno : __value;				\
})

static inline long async_submit(unsigned long flags, long *result, long nr,
				const unsigned long *args)
{
	return raw_call(__NR_async_submit, flags, result, nr, args);
}

static inline long wait_for_async(unsigned long flags, long cookie,
				  const struct __kernel_timespec *timeout)
{
	return raw_call(__NR_wait_for_async, flags, cookie, timeout);
}

static inline long async_cancel(unsigned long flags, long cookie)
{
	return raw_call(__NR_async_cancel, flags, cookie);
}

/* What the result word holds now; everything the call did before is visible. */
static inline long result_of(const long *result)
{
	return __atomic_load_n(result, __ATOMIC_ACQUIRE);
}

static inline bool is_cookie(long value)
{
	return (value & (3UL << 62)) == 1UL << 62;
}

/* The final value of a submission, whichever way it ran; -ETIME if it did not end. */
static inline long final_value(long submitted, const long *result)
{
	long ret;

	if (submitted < 0)
		return submitted;
	if (submitted > 0) {
		ret = wait_for_async(0, submitted, &deadline);
		if (ret)
			return ret;
	}
	return result_of(result);
}

static inline long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Polls a condition until it holds; its value tells whether it did before the deadline. */
#define becomes_true(condition)						\
({									\
	long long __end = now_ns() + DEADLINE_S * 1000000000LL;		\
	bool __holds;							\
									\
	while (!(__holds = (condition)) && now_ns() < __end)		\
		poll(NULL, 0, 1);					\
	__holds;							\
})

/* A fixture whose calls are submitted without a flag, which is called so, and offloaded. */
#define WITH_AND_WITHOUT_OFFLOAD(fixture, without)			\
	FIXTURE_VARIANT(fixture) { unsigned long flags; };		\
	FIXTURE_VARIANT_ADD(fixture, without) { .flags = 0, };		\
	FIXTURE_VARIANT_ADD(fixture, offloaded) { .flags = ASYNC_SUBMIT_OFFLOAD, }

/* The state letter in such a file, 0 if there is none. */
static inline char state_in(const char *path)
{
	char line[256] = "";
	char *end;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, line, sizeof(line) - 1) < 0)
		line[0] = 0;
	close(fd);
	end = strrchr(line, ')');
	return end && end[1] ? end[2] : 0;
}

/* The state letter of a thread of this process, 0 if there is no such thread. */
static inline char thread_state(pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	return state_in(path);
}

static inline char process_state(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return state_in(path);
}

/* A child that cannot outlive the test, however that ends. */
static inline pid_t fork_child(void)
{
	pid_t parent = getpid();
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(126);
	}
	return child;
}

/* Waits for the end of a child; -ETIME if it is still there at the deadline (it is killed). */
static inline int status_of(pid_t child)
{
	siginfo_t info = { };
	int status = 0;

	if (becomes_true(waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid))
		return waitpid(child, &status, 0) == child ? status : -errno;
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	return -ETIME;
}

/*
 * A thread that feeds a pipe once the thread that reads it sleeps in the read, or has got its
 * cookie: so that the test holds whether a call without OFFLOAD waits in place or is handed over.
 */
struct feeder {
	pthread_t thread;
	pid_t reader;
	int fd;
	bool submitted;
	bool was_asleep;
};

static inline bool reader_is_away(struct feeder *feeder)
{
	if (__atomic_load_n(&feeder->submitted, __ATOMIC_ACQUIRE))
		return true;
	feeder->was_asleep = thread_state(feeder->reader) == 'S';
	return feeder->was_asleep;
}

static inline void *feed(void *argument)
{
	struct feeder *feeder = argument;

	if (!becomes_true(reader_is_away(feeder)))
		return "the reader neither slept nor came back";
	return write(feeder->fd, "x", 1) == 1 ? NULL : "the pipe took no byte";
}

static inline int feeder_start(struct feeder *feeder, int fd)
{
	feeder->reader = gettid();
	feeder->fd = fd;
	feeder->submitted = false;
	feeder->was_asleep = false;
	return pthread_create(&feeder->thread, NULL, feed, feeder);
}

/* Says that the submission returned and joins the feeder; NULL or what went wrong. */
static inline const char *feeder_end(struct feeder *feeder)
{
	void *trouble = "not joined";

	__atomic_store_n(&feeder->submitted, true, __ATOMIC_RELEASE);
	if (pthread_join(feeder->thread, &trouble))
		return "no feeder to join";
	return trouble;
}

#endif /* CALLS_H */
