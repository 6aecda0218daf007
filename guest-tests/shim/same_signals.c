// SPDX-License-Identifier: GPL-2.0
/*
 * Calls that are interrupted: which are made again, which end with EINTR, what they have done by
 * then, and what a handler finds.
 */
#include <linux/futex.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "same.h"

static volatile int handled;
static int fds[2];
static char buffer[65536];

static void count_it(int signal)
{
	handled++;
}

static void set_handler(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	NEEDS(!sigaction(signal, &action, NULL));
}

static pid_t main_tid;

static sigset_t usr1_alone(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return set;
}

static void block_usr1(void)
{
	const sigset_t set = usr1_alone();

	NEEDS(!pthread_sigmask(SIG_BLOCK, &set, NULL));
}

static sigset_t all_but_usr1(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	return set;
}

static void send_signal(void *unused)
{
	NEEDS(!syscall(__NR_tgkill, getpid(), main_tid, SIGUSR1));
}

/* The signal, and after the handler has run, and the call sleeps again, what it waits for. */
static void send_signal_and_data(void *unused)
{
	send_signal(NULL);
	while (!handled)
		doze(1);
	wait_until_asleep(getpid(), main_tid);
	NEEDS(write(fds[1], "abc", 3) == 3);
}

static void begin(int flags)
{
	main_tid = gettid();
	set_handler(SIGUSR1, count_it, flags);
	NEEDS(!pipe(fds));
}

static void full_pipe(void)
{
	NEEDS(!fcntl(fds[1], F_SETFL, O_NONBLOCK));
	while (write(fds[1], buffer, 4096) > 0)
		;
	NEEDS(!fcntl(fds[1], F_SETFL, 0));
}

SAME(read_with_restart, __NR_read)
{
	begin(SA_RESTART);
	SHOW_WOKEN(send_signal_and_data, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
}

SAME(read_without_restart, __NR_read)
{
	begin(0);
	SHOW_WOKEN(send_signal, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
	/* Nothing of it is left that might take what comes later. */
	NEEDS(write(fds[1], "abc", 3) == 3);
	SHOW(raw(__NR_read, fds[0], buffer, 100L));
}

static void send_stop_and_data(void *unused)
{
	pid_t child = fork();

	NEEDS(child >= 0);
	if (!child) {
		pid_t parent = getppid();

		kill(parent, SIGSTOP);
		while (state_of(parent, parent) != 'T')
			doze(1);
		kill(parent, SIGCONT);
		_exit(0);
	}
	NEEDS(waitpid(child, NULL, 0) == child);
	NEEDS(write(fds[1], "abc", 3) == 3);
}

SAME(read_over_a_stop, __NR_read)
{
	begin(0);
	SHOW_WOKEN(send_stop_and_data, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
}

SAME(read_with_an_ignored_signal, __NR_read)
{
	begin(0);
	set_handler(SIGUSR1, SIG_IGN, 0);
	handled = 1;
	SHOW_WOKEN(send_signal_and_data, 0, raw(__NR_read, fds[0], buffer, 100L));
}

SAME(write_that_has_written_some, __NR_write)
{
	begin(SA_RESTART);
	full_pipe();
	NEEDS(read(fds[0], buffer, 8192) == 8192);
	SHOW_WOKEN(send_signal, 0, raw(__NR_write, fds[1], buffer, 65536L));
	SHOW(handled);
}

SAME(recv_that_has_a_time_limit, __NR_recvfrom)
{
	const struct timeval limit = { .tv_sec = 1000 };

	begin(SA_RESTART);
	NEEDS(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	NEEDS(!setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	SHOW_WOKEN(send_signal, 0, raw(__NR_recvfrom, fds[0], buffer, 10L, 0, NULL, NULL));
	SHOW(handled);
}

SAME(recv_that_has_none, __NR_recvfrom)
{
	begin(SA_RESTART);
	NEEDS(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	SHOW_WOKEN(send_signal_and_data, 0,
		   raw(__NR_recvfrom, fds[0], buffer, 10L, 0, NULL, NULL));
	SHOW(handled);
}

/* EINTR whatever the handler's flags. */
#define SHOW_INTERRUPTED(nr, ...)					\
SAME(nr##_is_not_restarted, __NR_##nr)					\
{									\
	begin(SA_RESTART);						\
	SHOW_WOKEN(send_signal, 0, raw(__NR_##nr, ##__VA_ARGS__));	\
	SHOW(handled);							\
}

static struct timespec long_time = { .tv_sec = 1000 };
static struct timeval long_timeval = { .tv_sec = 1000 };
static unsigned int word;
static struct sembuf down = { .sem_op = -1 };
static struct epoll_event events[1];

SHOW_INTERRUPTED(poll, NULL, 0L, -1)
SHOW_INTERRUPTED(ppoll, NULL, 0L, NULL, NULL, 0L)
SHOW_INTERRUPTED(select, 0, NULL, NULL, NULL, &long_timeval)
SHOW_INTERRUPTED(pselect6, 0, NULL, NULL, NULL, NULL, NULL)
SHOW_INTERRUPTED(nanosleep, &long_time, NULL)
SHOW_INTERRUPTED(epoll_wait, epoll_create1(0), events, 1, -1)
SHOW_INTERRUPTED(semop, semget(IPC_PRIVATE, 1, 0600), &down, 1L)
SHOW_INTERRUPTED(semtimedop, semget(IPC_PRIVATE, 1, 0600), &down, 1L, &long_time)
SHOW_INTERRUPTED(msgrcv, msgget(IPC_PRIVATE, 0600), buffer, 100L, 0L, 0)

SAME(nanosleep_says_what_is_left, __NR_nanosleep)
{
	struct timespec left = { };

	begin(SA_RESTART);
	SHOW_WOKEN(send_signal, 0, raw(__NR_nanosleep, &long_time, &left));
	SHOW(left.tv_sec > 800 && left.tv_sec < 1000);
}

SAME(futex_with_a_time_limit, __NR_futex)
{
	begin(SA_RESTART);
	SHOW_WOKEN(send_signal, 0, raw(__NR_futex, &word, FUTEX_WAIT, 0, &long_time));
	SHOW(handled);
}

static void wake_after_signal(void *unused)
{
	send_signal(NULL);
	while (!handled)
		doze(1);
	wait_until_asleep(getpid(), main_tid);
	word = 1;
	NEEDS(syscall(__NR_futex, &word, FUTEX_WAKE, 1) == 1);
}

SAME(futex_with_none, __NR_futex)
{
	begin(SA_RESTART);
	SHOW_WOKEN(wake_after_signal, 0, raw(__NR_futex, &word, FUTEX_WAIT, 0, NULL));
	SHOW(handled);
}

/* In memory that a child sees: how many handlers have run. */
static volatile int *runs;

static void show_signal(int signal)
{
	handled++;
	SHOW(signal);
	(*runs)++;
}

/*
 * Of two that come at once the one with the lower number is taken first, and is the one that
 * decides; its handler runs last.
 */
static void interrupt_by_two(int flags_of_first, int flags_of_second)
{
	pid_t parent, child;
	int status;

	begin(flags_of_first);
	runs = mmap(NULL, sizeof(*runs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEEDS(runs != MAP_FAILED);
	set_handler(SIGUSR1, show_signal, flags_of_first);
	set_handler(SIGUSR2, show_signal, flags_of_second);
	parent = getpid();
	child = fork();
	NEEDS(child >= 0);
	if (!child) {
		wait_until_asleep(parent, main_tid);
		kill(parent, SIGSTOP);
		while (state_of(parent, main_tid) != 'T')
			doze(1);
		kill(parent, SIGUSR2);
		kill(parent, SIGUSR1);
		kill(parent, SIGCONT);
		if (flags_of_first & SA_RESTART) {
			while (*runs < 2)
				doze(1);
			wait_until_asleep(parent, main_tid);
			NEEDS(write(fds[1], "abc", 3) == 3);
		}
		_exit(0);
	}
	SHOW(raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
	NEEDS(waitpid(child, &status, 0) == child);
	SHOW(status);
}

SAME(two_signals_of_which_the_first_restarts, __NR_read)
{
	interrupt_by_two(SA_RESTART, 0);
}

SAME(two_signals_of_which_the_second_restarts, __NR_read)
{
	interrupt_by_two(0, SA_RESTART);
}

/* --- what the handler does ---------------------------------------------------------------- */

static sigjmp_buf away;

static void jump(int signal)
{
	handled++;
	siglongjmp(away, 5);
}

/* The call is over, whether it is returned to or not. */
SAME(handler_that_does_not_return, __NR_read)
{
	struct waker waker;
	int i;

	begin(SA_RESTART);
	set_handler(SIGUSR1, jump, SA_RESTART);
	for (i = 0; i < 3; i++) {
		memset(buffer, '-', 4);
		when_asleep(&waker, send_signal, NULL);
		if (!sigsetjmp(away, 1))
			SHOW(raw(__NR_read, fds[0], buffer, 100L));
		is_done(&waker);
		NEEDS(write(fds[1], "data", 4) == 4);
		SHOW(buffer[0]);
		SHOW(raw(__NR_read, fds[0], buffer + 10, 100L));
		SHOW(handled);
	}
}

static void sleep_in_it(int signal)
{
	struct timespec time = { .tv_nsec = 10000000 };
	char byte = 0;
	int own[2];

	handled++;
	SHOW(pipe(own));
	SHOW(raw(__NR_nanosleep, &time, NULL));
	SHOW(write(own[1], "b", 1));
	SHOW(read(own[0], &byte, 1));
	close(own[0]);
	close(own[1]);
}

SAME(handler_that_makes_calls, __NR_read)
{
	begin(0);
	set_handler(SIGUSR1, sleep_in_it, SA_RESTART);
	SHOW_WOKEN(send_signal_and_data, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
}

static pid_t made;

static void fork_in_it(int signal)
{
	handled++;
	made = fork();
}

/* The child goes on where its parent was interrupted. */
SAME(handler_that_forks, __NR_read)
{
	int status = 0;
	pid_t waker;
	long value;

	begin(0);
	set_handler(SIGUSR1, fork_in_it, 0);
	made = -1;
	waker = child_when_asleep();
	if (!waker) {
		kill(getppid(), SIGUSR1);
		_exit(0);
	}
	value = raw(__NR_read, fds[0], buffer, 100L);
	if (!made)
		_exit(value == -EINTR ? 5 : 6);
	SHOW(value);
	NEEDS(waitpid(waker, &status, 0) == waker);
	NEEDS(waitpid(made, &status, 0) == made);
	SHOW(status);
	SHOW(handled);
}

static void raise_another(int signal)
{
	handled++;
	SHOW(signal);
	if (signal == SIGUSR1)
		raise(SIGUSR2);
	SHOW(signal);
}

SAME(handler_in_a_handler, __NR_read)
{
	begin(0);
	set_handler(SIGUSR1, raise_another, SA_RESTART);
	set_handler(SIGUSR2, raise_another, 0);
	SHOW_WOKEN(send_signal_and_data, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
}

static void show_info(int signal, siginfo_t *info, void *context)
{
	handled++;
	SHOW(signal);
	SHOW(info->si_signo);
	SHOW(info->si_code);
	SHOW(info->si_value.sival_int);
	SHOW(info->si_pid == getpid());
}

static void queue_signal(void *unused)
{
	const union sigval value = { .sival_int = 4321 };

	NEEDS(!sigqueue(getpid(), SIGUSR1, value));
}

SAME(handler_that_is_told_more, __NR_read)
{
	struct sigaction action = { .sa_sigaction = show_info, .sa_flags = SA_SIGINFO };

	begin(0);
	NEEDS(!sigaction(SIGUSR1, &action, NULL));
	/* For the process: the other thread does not take it. */
	SHOW_WOKEN(queue_signal, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(handled);
}

/* --- setting them ------------------------------------------------------------------------- */

SAME(handlers_are_those_that_were_set, NOTHING)
{
	struct sigaction action = { .sa_handler = count_it, .sa_flags = SA_RESTART }, seen;

	sigaddset(&action.sa_mask, SIGHUP);
	SHOW(sigaction(SIGUSR1, &action, NULL));
	SHOW(sigaction(SIGUSR1, NULL, &seen));
	SHOW(seen.sa_handler == count_it);
	SHOW(seen.sa_flags == SA_RESTART);
	SHOW(sigismember(&seen.sa_mask, SIGHUP));
	SHOW(sigismember(&seen.sa_mask, SIGINT));
	action.sa_handler = SIG_IGN;
	SHOW(sigaction(SIGUSR1, &action, &seen));
	SHOW(seen.sa_handler == count_it);
	SHOW(sigaction(SIGUSR1, NULL, &seen));
	SHOW(seen.sa_handler == SIG_IGN);
	SHOW(raw(__NR_rt_sigaction, SIGKILL, &action, NULL, 8L));
	SHOW(raw(__NR_rt_sigaction, 0, &action, NULL, 8L));
	SHOW(raw(__NR_rt_sigaction, 65, &action, NULL, 8L));
	SHOW(raw(__NR_rt_sigaction, SIGUSR1, &action, NULL, 4L));
	SHOW(raw(__NR_rt_sigaction, SIGUSR1, 1L, NULL, 8L));
	SHOW(raw(__NR_rt_sigaction, SIGUSR1, NULL, 1L, 8L));
}

SAME(handler_that_is_called_once, NOTHING)
{
	struct sigaction seen;

	set_handler(SIGUSR1, count_it, SA_RESETHAND);
	SHOW(raise(SIGUSR1));
	SHOW(handled);
	SHOW(sigaction(SIGUSR1, NULL, &seen));
	SHOW(seen.sa_handler == SIG_DFL);
	SHOW(raise(SIGUSR1));
}

static void show_mask(int signal)
{
	sigset_t mask;

	handled++;
	SHOW(pthread_sigmask(SIG_BLOCK, NULL, &mask));
	SHOW(sigismember(&mask, SIGUSR1));
	SHOW(sigismember(&mask, SIGUSR2));
	SHOW(sigismember(&mask, SIGHUP));
}

SAME(masks_of_handlers, NOTHING)
{
	struct sigaction action = { .sa_handler = show_mask };

	sigaddset(&action.sa_mask, SIGHUP);
	NEEDS(!sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	show_mask(0);
	action.sa_flags = SA_NODEFER;
	NEEDS(!sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	show_mask(0);
	SHOW(handled);
}

SAME(masks_that_block, NOTHING)
{
	sigset_t set, old;

	set_handler(SIGUSR1, count_it, 0);
	sigfillset(&set);
	SHOW(pthread_sigmask(SIG_SETMASK, &set, &old));
	SHOW(sigismember(&old, SIGUSR1));
	raise(SIGUSR1);
	SHOW(handled);
	/* With everything blocked calls are made as ever. */
	SHOW(getppid() > 0);
	SHOW(sigpending(&set));
	SHOW(sigismember(&set, SIGUSR1));
	SHOW(pthread_sigmask(SIG_SETMASK, &old, NULL));
	SHOW(handled);
	SHOW(raw(__NR_rt_sigprocmask, 99, &set, NULL, 8L));
	SHOW(raw(__NR_rt_sigprocmask, SIG_BLOCK, 1L, NULL, 8L));
	SHOW(raw(__NR_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 4L));
}

SAME(mask_that_a_handler_changes, NOTHING)
{
	sigset_t mask;

	set_handler(SIGUSR1, count_it, 0);
	block_usr1();
	raise(SIGUSR1);
	mask = all_but_usr1();
	SHOW(sigsuspend(&mask));
	SHOW(errno);
	SHOW(handled);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	SHOW(sigismember(&mask, SIGUSR1));
	SHOW(sigismember(&mask, SIGUSR2));
}

/* A mask for the time of the call only. */
SAME(ppoll_with_a_mask, NOTHING)
{
	const sigset_t set = all_but_usr1();

	begin(0);
	block_usr1();
	raise(SIGUSR1);
	SHOW(raw(__NR_ppoll, NULL, 0L, &long_time, &set, 8L));
	SHOW(handled);
	raise(SIGUSR1);
	SHOW(handled);
	SHOW(raw(__NR_epoll_pwait, epoll_create1(0), events, 1, -1, &set, 8L));
	SHOW(handled);
}

SAME(pselect_with_a_mask, NOTHING)
{
	sigset_t set;

	begin(0);
	block_usr1();
	raise(SIGUSR1);
	sigemptyset(&set);
	SHOW(pselect(0, NULL, NULL, NULL, NULL, &set));
	SHOW(errno);
	SHOW(handled);
}

SAME(sigtimedwait_of_a_signal, NOTHING)
{
	struct timespec time = { .tv_nsec = 10000000 };
	const sigset_t set = usr1_alone();
	siginfo_t info = { };

	begin(0);
	block_usr1();
	SHOW(sigtimedwait(&set, &info, &time));
	SHOW(errno);
	SHOW_WOKEN(queue_signal, 0, sigwaitinfo(&set, &info));
	SHOW(info.si_value.sival_int);
	SHOW(handled);
}

static char stack[65536];

static void show_stack(int signal)
{
	char here;

	handled++;
	SHOW(&here >= stack && &here < stack + sizeof(stack));
	SHOW(getppid() > 0);
}

SAME(handlers_on_another_stack, NOTHING)
{
	stack_t wanted = { .ss_sp = stack, .ss_size = sizeof(stack) }, seen;

	SHOW(sigaltstack(NULL, &seen));
	SHOW(seen.ss_flags);
	SHOW(sigaltstack(&wanted, NULL));
	SHOW(getppid() > 0);
	SHOW(sigaltstack(NULL, &seen));
	SHOW(seen.ss_sp == stack);
	SHOW(seen.ss_size);
	set_handler(SIGUSR1, show_stack, SA_ONSTACK);
	raise(SIGUSR1);
	SHOW(handled);
	wanted.ss_flags = SS_DISABLE;
	SHOW(sigaltstack(&wanted, &seen));
	SHOW(seen.ss_size);
	raise(SIGUSR1);
	SHOW(handled);
}

SAME(another_stack_that_is_disarmed, __NR_read)
{
	stack_t wanted = { .ss_sp = stack, .ss_size = sizeof(stack), .ss_flags = 1U << 31 }, seen;

	begin(0);
	SHOW(sigaltstack(&wanted, NULL));
	SHOW(getppid() > 0);
	SHOW(sigaltstack(NULL, &seen));
	SHOW(seen.ss_sp == stack);
	SHOW(seen.ss_flags);
	set_handler(SIGUSR1, show_stack, SA_ONSTACK);
	SHOW_WOKEN(send_signal, 0, raw(__NR_read, fds[0], buffer, 100L));
	SHOW(sigaltstack(&wanted, &wanted));
	SHOW(wanted.ss_sp == stack);
	SHOW(sigaltstack(NULL, &seen));
	SHOW(seen.ss_sp == stack);
}

static void handle_fault(int signal, siginfo_t *info, void *context)
{
	handled++;
	SHOW(signal);
	SHOW(info->si_addr == (void *)16);
	siglongjmp(away, 1);
}

SAME(faults_of_the_program, NOTHING)
{
	struct sigaction action = { .sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO };

	NEEDS(!sigaction(SIGSEGV, &action, NULL));
	if (!sigsetjmp(away, 1))
		*(volatile char *)16 = 1;
	if (!sigsetjmp(away, 1))
		*(volatile char *)16 = 1;
	SHOW(handled);
}

static void handle_bad_call(int signal, siginfo_t *info, void *context)
{
	handled++;
	SHOW(signal);
	SHOW(info->si_code);
}

SAME(bad_calls_of_the_program, NOTHING)
{
	struct sigaction action = { .sa_sigaction = handle_bad_call, .sa_flags = SA_SIGINFO }, seen;

	NEEDS(!sigaction(SIGSYS, &action, &seen));
	SHOW(seen.sa_handler == SIG_DFL);
	raise(SIGSYS);
	SHOW(handled);
	SHOW(sigaction(SIGSYS, NULL, &seen));
	SHOW(seen.sa_sigaction == handle_bad_call);
}

SAME(end_by_a_signal, NOTHING)
{
	raise(SIGTERM);
}

SAME(end_by_a_bad_call, NOTHING)
{
	raise(SIGSYS);
}

SAME(end_by_a_broken_pipe, NOTHING)
{
	NEEDS(!pipe(fds) && !close(fds[0]));
	SHOW(write(fds[1], "x", 1));
}

SAME(alarm_that_interrupts, __NR_read)
{
	/* On a busy host the first ones may come before the call does. */
	struct itimerval when = {
		.it_value = { .tv_usec = 20000 },
		.it_interval = { .tv_usec = 100000 },
	}, none = { };
	long value;

	begin(0);
	set_handler(SIGALRM, count_it, 0);
	NEEDS(!setitimer(ITIMER_REAL, &when, NULL));
	value = raw(__NR_read, fds[0], buffer, 100L);
	NEEDS(!setitimer(ITIMER_REAL, &none, NULL));
	SHOW(value);
	SHOW(handled > 0);
}

SAME_MAIN
