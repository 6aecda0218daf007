// SPDX-License-Identifier: GPL-2.0
/*
 * What a signalfd shows to a call that is outstanding: the signals of the thread that has submitted
 * it, and of the process. handover_state has what it shows to the thread itself.
 */
#include <sys/signalfd.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* A read of two signals, which would not wait for the second one. */
struct signal_read {
	struct signalfd_siginfo infos[2];
	long submitted, result;
};

static void begin_signal_read(struct signal_read *r, int fd, unsigned long flags)
{
	memset(r, 0, sizeof(*r));
	r->result = UNTOUCHED;
	r->submitted = async_submit(flags, &r->result, __NR_read,
				    ARGS(fd, P(r->infos), sizeof(r->infos)));
}

static const char *end_signal_read(struct signal_read *r, int signal, int code, int value)
{
	CHECK_EQ(sizeof(r->infos[0]), final_value(r->submitted, &r->result));
	CHECK_EQ(signal, r->infos[0].ssi_signo);
	CHECK_EQ(code, r->infos[0].ssi_code);
	CHECK_EQ(value, r->infos[0].ssi_int);
	return NULL;
}

static bool is_pending(int signal)
{
	sigset_t pending;

	return !sigpending(&pending) && sigismember(&pending, signal);
}

static const char *blocks_and_has_descriptor(int signal, int *fd)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signal);
	CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	*fd = signalfd(-1, &set, 0);
	CHECK(*fd >= 0);
	return NULL;
}

/* A call that is outstanding reads the signals of who has submitted it. */
IN_EITHER_THREAD(signal_descriptor_of_an_outstanding_call)
{
	const int signal = SIGRTMIN + 2;
	static struct signal_read r;
	int fd, i;

	TRY(blocks_and_has_descriptor(signal, &fd));
	for (i = 0; i < 20; i++) {
		const union sigval value = { .sival_int = i };

		begin_signal_read(&r, fd, i % 4 == 3 ? ASYNC_SUBMIT_OFFLOAD : 0);
		CHECK(is_cookie(r.submitted));
		/* It may have been handed over in between, and more than once. */
		if (i % 4 == 1)
			TRY(hand_over(2));
		CHECK_EQ(r.submitted, result_of(&r.result));
		CHECK_EQ(0, pthread_sigqueue(pthread_self(), signal, value));
		TRY(end_signal_read(&r, signal, SI_QUEUE, i));
		CHECK(!is_pending(signal));
	}
	close(fd);
	return NULL;
}

/* Nor is the process forgotten. */
static const char *reads_signals_of_the_process(void)
{
	const union sigval value = { .sival_int = 5 };
	const int signal = SIGRTMIN + 2;
	static struct signal_read r;
	int fd;

	TRY(blocks_and_has_descriptor(signal, &fd));
	begin_signal_read(&r, fd, 0);
	CHECK(is_cookie(r.submitted));
	CHECK_EQ(0, sigqueue(getpid(), signal, value));
	TRY(end_signal_read(&r, signal, SI_QUEUE, 5));
	CHECK_EQ(0, sigqueue(getpid(), signal, value));
	begin_signal_read(&r, fd, ASYNC_SUBMIT_OFFLOAD);
	return end_signal_read(&r, signal, SI_QUEUE, 5);
}

TEST(signal_descriptor_of_the_process)
{
	EXPECT_FINE(run_in_child(false, reads_signals_of_the_process));
}

/* What is pending already is there for a worker that has the call from the start. */
IN_EITHER_THREAD(signal_descriptor_of_an_offloaded_call)
{
	const int signal = SIGRTMIN + 2;
	static struct signal_read r;
	int fd, i;

	TRY(blocks_and_has_descriptor(signal, &fd));
	for (i = 0; i < 10; i++) {
		const union sigval value = { .sival_int = i };
		struct pollfd entry = { .fd = fd, .events = POLLIN };
		long result = UNTOUCHED;

		CHECK_EQ(0, pthread_sigqueue(pthread_self(), signal, value));
		CHECK_EQ(1, final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_poll,
						     ARGS(P(&entry), 1, 0)), &result));
		CHECK_EQ(POLLIN, entry.revents);
		CHECK(is_pending(signal));
		begin_signal_read(&r, fd, ASYNC_SUBMIT_OFFLOAD);
		TRY(end_signal_read(&r, signal, SI_QUEUE, i));
		CHECK(!is_pending(signal));
	}
	close(fd);
	return NULL;
}

/* A call that waits until one can be read. */
IN_EITHER_THREAD(signal_descriptor_is_waited_for)
{
	const int signal = SIGRTMIN + 2;
	struct signalfd_siginfo info;
	int fd, i;

	TRY(blocks_and_has_descriptor(signal, &fd));
	for (i = 0; i < 10; i++) {
		struct pollfd entry = { .fd = fd, .events = POLLIN };
		const union sigval value = { .sival_int = i };
		long result = UNTOUCHED, submitted;

		submitted = async_submit(0, &result, __NR_poll, ARGS(P(&entry), 1, -1));
		CHECK(is_cookie(submitted));
		if (i % 2)
			TRY(hand_over(2));
		CHECK_EQ(0, pthread_sigqueue(pthread_self(), signal, value));
		CHECK_EQ(1, final_value(submitted, &result));
		CHECK_EQ(POLLIN, entry.revents);
		CHECK_EQ(sizeof(info), read(fd, &info, sizeof(info)));
		CHECK_EQ(i, info.ssi_int);
	}
	close(fd);
	return NULL;
}

static pthread_barrier_t both;

static void *has_a_signal_of_its_own(void *fd)
{
	const union sigval value = { .sival_int = 3 };
	struct signalfd_siginfo info;
	bool fine;

	pthread_barrier_wait(&both);
	fine = !pthread_sigqueue(pthread_self(), SIGRTMIN + 2, value);
	pthread_barrier_wait(&both);
	pthread_barrier_wait(&both);
	fine = fine && read(*(int *)fd, &info, sizeof(info)) == sizeof(info) && info.ssi_int == 3;
	return fine ? NULL : "its signal is gone";
}

/* A signal for another thread is not for the call, which goes on to wait for one of its own. */
IN_EITHER_THREAD(signal_descriptor_shows_no_others)
{
	const union sigval value = { .sival_int = 4 };
	const int signal = SIGRTMIN + 2;
	static struct signal_read r;
	pthread_t other;
	void *message;
	int fd;

	TRY(blocks_and_has_descriptor(signal, &fd));
	CHECK_EQ(0, pthread_barrier_init(&both, NULL, 2));
	CHECK_EQ(0, pthread_create(&other, NULL, has_a_signal_of_its_own, &fd));
	begin_signal_read(&r, fd, 0);
	CHECK(is_cookie(r.submitted));
	pthread_barrier_wait(&both);
	pthread_barrier_wait(&both);
	CHECK_EQ(-ETIME, wait_for_async(0, r.submitted, &(const struct __kernel_timespec) {
			.tv_nsec = 50000000 }));
	CHECK_EQ(0, pthread_sigqueue(pthread_self(), signal, value));
	TRY(end_signal_read(&r, signal, SI_QUEUE, 4));
	pthread_barrier_wait(&both);
	CHECK_EQ(0, pthread_join(other, &message));
	close(fd);
	return message;
}

TEST_HARNESS_MAIN
