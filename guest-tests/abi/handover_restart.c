// SPDX-License-Identifier: GPL-2.0
/*
 * Calls of every kind are handed over, woken, cancelled, and interrupted by signals at any
 * moment. No restart code of the kernel (512 to 516) is ever a value.
 */
#include <sys/pidfd.h>

#include "filters.h"
#include "missing.h"
#include "sleepers.h"
#include "../kselftest_harness.h"

#define MS	1000000LL

EITHER_THREAD()
PATIENCE()

static bool is_restart_code(long value)
{
	return value <= -512 && value >= -516;
}

static const char *woken_or_cancelled(const struct sleeper *sleeper, bool cancel)
{
	struct sleeping sleeping;
	struct submission s;
	const char *found;

	TRY(set_up(sleeper, &sleeping));
	found = submit_sleeping(&s, sleeping.nr, sleeping.args);
	if (!found && result_of(&s.result) != s.cookie)
		found = "ended at once";
	if (!found && cancel && async_cancel(0, s.cookie))
		found = "not cancelled";
	if (!found && !cancel && !sleeper->wake(&sleeping))
		found = "not woken";
	if (!found && wait_for_async(0, s.cookie, &deadline))
		found = "did not end";
	if (!found && cancel && s.result != -ECANCELED)
		found = trouble("ended with %ld, not -ECANCELED", s.result);
	if (!found && !cancel && !is_woken(&sleeping, s.result))
		found = trouble("ended with %ld, not %ld", s.result, sleeping.value);
	tear_down(sleeper, &sleeping);
	return found ? trouble("%s: %s", sleeper->name, found) : NULL;
}

IN_EITHER_THREAD_TIMEOUT(every_call_is_handed_over_and_woken, 300)
{
	int i, round;

	for (round = 0; round < times(3, 100); round++)
		for (i = 0; i < SLEEPERS; i++)
			if (sleepers[i].wake)
				TRY(woken_or_cancelled(&sleepers[i], false));
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(every_call_is_handed_over_and_cancelled, 300)
{
	int i, round;

	for (round = 0; round < times(3, 100); round++)
		for (i = 0; i < SLEEPERS; i++)
			TRY(woken_or_cancelled(&sleepers[i], true));
	return NULL;
}

IN_EITHER_THREAD(all_at_once)
{
	static struct sleeping sleeping[SLEEPERS];
	static struct submission s[SLEEPERS];
	int i;

	for (i = 0; i < SLEEPERS; i++) {
		/* These would get the names of files that others have in use. */
		if (sleepers[i].tear_down == tear_down_path)
			continue;
		TRY(set_up(&sleepers[i], &sleeping[i]));
		TRY(submit_sleeping(&s[i], sleeping[i].nr, sleeping[i].args));
	}
	for (i = SLEEPERS - 1; i >= 0; i--) {
		if (sleepers[i].tear_down == tear_down_path)
			continue;
		CHECK_EQ(s[i].cookie, result_of(&s[i].result));
		if (sleepers[i].wake)
			CHECK(sleepers[i].wake(&sleeping[i]));
		else
			CHECK_EQ(0, async_cancel(0, s[i].cookie));
		CHECK_EQ(0, wait_for_async(0, s[i].cookie, &deadline));
		if (sleepers[i].wake && !is_woken(&sleeping[i], s[i].result))
			return trouble("%s ended with %ld", sleepers[i].name, s[i].result);
		tear_down(&sleepers[i], &sleeping[i]);
	}
	return NULL;
}

/* --- signals at every moment -------------------------------------------------------------- */

static volatile sig_atomic_t handled;
static volatile bool enough;
static pid_t target;

static void note(int signal)
{
	handled++;
}

/* Sends signals to one thread, with pauses that drift over everything it does. */
static void *send_signals(void *argument)
{
	unsigned int i = 0, pause;

	while (!enough) {
		tgkill(getpid(), target, i++ & 1 ? SIGUSR1 : SIGUSR2);
		for (pause = i * 37 % 4000; pause && !enough; pause--)
			asm volatile("" : : : "memory");
		/* Where a handler takes as long as that, nothing else is done but in here. */
		if (i % 64 == 0)
			poll(NULL, 0, 3);
	}
	return NULL;
}

/*
 * One call among signals: either it was about to sleep with a signal pending, and says so in its
 * result, or it was handed over, and no signal has to do with it any more.
 */
static const char *among_signals(const struct sleeper *sleeper)
{
	struct sleeping sleeping;
	struct submission s = { .result = UNTOUCHED };
	int ret;

	TRY(set_up(sleeper, &sleeping));
	s.cookie = async_submit(0, &s.result, sleeping.nr, sleeping.args);
	if (s.cookie == 0) {
		if (s.result != -EINTR)
			return trouble("%s: %ld inline", sleeper->name, s.result);
	} else {
		if (!is_cookie(s.cookie))
			return trouble("%s: submitted %ld", sleeper->name, s.cookie);
		if (result_of(&s.result) != s.cookie)
			return trouble("%s: ended with %ld", sleeper->name, s.result);
		CHECK_EQ(0, async_cancel(0, s.cookie));
		while ((ret = wait_for_async(0, s.cookie, &deadline)) == -EINTR)
			;
		CHECK_EQ(0, ret);
		if (is_restart_code(s.result) || s.result != -ECANCELED)
			return trouble("%s: %ld after cancelling", sleeper->name, s.result);
	}
	tear_down(sleeper, &sleeping);
	return NULL;
}

/* Sets up a call again after each signal: so what is set up has to bear signals itself. */
static bool bears_signals(const struct sleeper *sleeper)
{
	return sleeper->set_up != set_up_connect && sleeper->set_up != set_up_send;
}

IN_EITHER_THREAD_TIMEOUT(signals_at_every_moment, 300)
{
	const struct sigaction interrupts = { .sa_handler = note };
	const struct sigaction restarts = { .sa_handler = note, .sa_flags = SA_RESTART };
	long handed_over = counter("handed_over");
	const char *found = NULL;
	pthread_t thread;
	int i, round;

	CHECK_EQ(0, sigaction(SIGUSR1, &interrupts, NULL));
	CHECK_EQ(0, sigaction(SIGUSR2, &restarts, NULL));
	target = gettid();
	enough = false;
	CHECK_EQ(0, pthread_create(&thread, NULL, send_signals, NULL));
	for (round = 0; round < times(4, 300) && !found; round++)
		for (i = 0; i < SLEEPERS && !found; i++)
			if (bears_signals(&sleepers[i]))
				found = among_signals(&sleepers[i]);
	enough = true;
	CHECK_EQ(0, pthread_join(thread, NULL));
	TRY(found);
	CHECK(handled > 10);
	CHECK(counter("handed_over") > handed_over);
	return NULL;
}

/* --- a signal that is pending when the call would sleep ----------------------------------- */

/*
 * An open() that waits for a lease to be given up has sent the holder, us, a signal just before
 * it sleeps: so it is pending, without a race.
 */
struct lease {
	char path[64];
	int fd;
};

static struct lease lease;
static volatile sig_atomic_t gives_up;

static void on_lease(int signal)
{
	handled++;
	if (gives_up)
		fcntl(lease.fd, F_SETLEASE, F_UNLCK);
}

static const char *hold_lease(int flags)
{
	const struct sigaction action = { .sa_handler = on_lease, .sa_flags = flags };
	const struct f_owner_ex owner = { .type = F_OWNER_TID, .pid = gettid() };

	handled = 0;
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	snprintf(lease.path, sizeof(lease.path), "/tmp/async_lease.%d", gettid());
	close(open(lease.path, O_CREAT | O_RDWR, 0600));
	lease.fd = open(lease.path, O_RDONLY);
	CHECK(lease.fd >= 0);
	CHECK_EQ(0, fcntl(lease.fd, F_SETSIG, SIGUSR1));
	CHECK_EQ(0, fcntl(lease.fd, F_SETLEASE, F_RDLCK));
	CHECK_EQ(0, fcntl(lease.fd, F_SETOWN_EX, &owner));
	return NULL;
}

static const char *let_lease_go(void)
{
	fcntl(lease.fd, F_SETLEASE, F_UNLCK);
	CHECK_EQ(0, close(lease.fd));
	CHECK_EQ(0, unlink(lease.path));
	return NULL;
}

static const char *open_leased(struct submission *s)
{
	s->result = UNTOUCHED;
	s->cookie = async_submit(0, &s->result, __NR_openat,
				 ARGS(AT_FDCWD, P(lease.path), O_WRONLY));
	return NULL;
}

IN_A_CHILD(pending_signal_without_sa_restart_is_eintr)
{
	long handed_over = counter("handed_over");
	struct submission s;

	TRY(hold_lease(0));
	gives_up = false;
	TRY(open_leased(&s));
	CHECK_EQ(0, s.cookie);
	CHECK_EQ(-EINTR, s.result);
	CHECK_EQ(1, handled);
	CHECK_EQ(handed_over, counter("handed_over"));
	return let_lease_go();
}

/* async_submit() is made again as a whole once the handler has returned. */
IN_A_CHILD(pending_signal_with_sa_restart_restarts)
{
	long handed_over = counter("handed_over");
	struct submission s;

	TRY(hold_lease(SA_RESTART));
	gives_up = true;
	TRY(open_leased(&s));
	CHECK_EQ(0, s.cookie);
	CHECK(s.result >= 0);
	CHECK_EQ(1, handled);
	CHECK_EQ(handed_over, counter("handed_over"));
	close(s.result);
	return let_lease_go();
}

/* The second time the lease is being broken already, so that there is no signal: it sleeps. */
IN_A_CHILD(restarted_call_is_handed_over)
{
	long handed_over = counter("handed_over");
	struct submission s;

	TRY(hold_lease(SA_RESTART));
	gives_up = false;
	TRY(open_leased(&s));
	CHECK(is_cookie(s.cookie));
	CHECK_EQ(1, handled);
	CHECK_EQ(handed_over + 1, counter("handed_over"));
	CHECK_EQ(s.cookie, result_of(&s.result));
	TRY(let_lease_go());
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result >= 0);
	return NULL;
}

/* One that is blocked is none: the call sleeps. */
IN_A_CHILD(blocked_signal_does_not_interrupt)
{
	struct submission s;
	sigset_t set;

	TRY(hold_lease(0));
	gives_up = false;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_EQ(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
	TRY(open_leased(&s));
	CHECK(is_cookie(s.cookie));
	CHECK_EQ(0, handled);
	TRY(let_lease_go());
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result >= 0);
	CHECK_EQ(0, pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	CHECK_EQ(1, handled);
	return NULL;
}

/* One that is ignored is none either. */
IN_A_CHILD(ignored_signal_does_not_interrupt)
{
	struct submission s;

	TRY(hold_lease(0));
	signal(SIGUSR1, SIG_IGN);
	TRY(open_leased(&s));
	CHECK(is_cookie(s.cookie));
	TRY(let_lease_go());
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result >= 0);
	return NULL;
}

/* A write that has filled the pipe has told the reader, us, by a signal before it sleeps. */
IN_A_CHILD(pending_signal_after_progress)
{
	static char data[1 << 17];
	const struct sigaction action = { .sa_handler = note, .sa_flags = SA_RESTART };
	const struct f_owner_ex owner = { .type = F_OWNER_TID, .pid = gettid() };
	struct submission s = { .result = UNTOUCHED };
	int fds[2];

	handled = 0;
	CHECK_EQ(0, sigaction(SIGIO, &action, NULL));
	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(0, fcntl(fds[0], F_SETOWN_EX, &owner));
	CHECK_EQ(0, fcntl(fds[0], F_SETFL, O_ASYNC));
	s.cookie = async_submit(0, &s.result, __NR_write, ARGS(fds[1], P(data), sizeof(data)));
	CHECK_EQ(0, s.cookie);
	CHECK_EQ(1 << 16, s.result);
	CHECK_EQ(1, handled);
	CHECK_EQ(0, counter("handed_over"));
	return NULL;
}

/* --- time that is left -------------------------------------------------------------------- */

/* A sleep that a handler interrupts before it has begun to is made again, and is as long then. */
IN_EITHER_THREAD_TIMEOUT(sleep_among_signals_lasts_as_long, 300)
{
	const struct timespec time = { .tv_nsec = 300 * 1000 * 1000 };
	const struct sigaction restarts = { .sa_handler = note, .sa_flags = SA_RESTART };
	const char *found = NULL;
	pthread_t thread;
	int i, ret;

	CHECK_EQ(0, sigaction(SIGUSR1, &restarts, NULL));
	CHECK_EQ(0, sigaction(SIGUSR2, &restarts, NULL));
	target = gettid();
	enough = false;
	CHECK_EQ(0, pthread_create(&thread, NULL, send_signals, NULL));
	for (i = 0; i < 3 && !found; i++) {
		struct submission s = { .result = UNTOUCHED };
		long long start = now_ns();

		/* clock_nanosleep says -EINTR to a handler, whatever its flags. */
		do {
			start = now_ns();
			s.cookie = async_submit(0, &s.result, __NR_nanosleep, ARGS(P(&time), 0));
		} while (!s.cookie && s.result == -EINTR);
		if (!is_cookie(s.cookie)) {
			found = trouble("submitted %ld, result %ld", s.cookie, s.result);
			break;
		}
		while ((ret = wait_for_async(0, s.cookie, &deadline)) == -EINTR)
			;
		if (ret || s.result)
			found = trouble("waited %d, result %ld", ret, s.result);
		else if (now_ns() - start < time.tv_nsec)
			found = "too short";
	}
	enough = true;
	CHECK_EQ(0, pthread_join(thread, NULL));
	return found;
}

/* --- a stop just before the call sleeps --------------------------------------------------- */

/* Calls with a time limit, and what they end with when it is over. */
enum { NANOSLEEP, CLOCK_NANOSLEEP, FUTEX, POLL, TIMED_CALLS };

static const char *const timed_names[TIMED_CALLS] = {
	"nanosleep", "clock_nanosleep", "futex", "poll",
};

static const long timed_numbers[TIMED_CALLS] = {
	__NR_nanosleep, __NR_clock_nanosleep, __NR_futex, __NR_poll,
};

struct timed {
	struct timespec time;
	struct pollfd entry;
	int word;
	long nr, value;
	unsigned long args[6];
};

static void make_timed(struct timed *t, int call, long ms)
{
	const unsigned long arguments[TIMED_CALLS][6] = {
		[NANOSLEEP] = { P(&t->time) },
		[CLOCK_NANOSLEEP] = { CLOCK_MONOTONIC, 0, P(&t->time) },
		[FUTEX] = { P(&t->word), FUTEX_WAIT_PRIVATE, 0, P(&t->time) },
		[POLL] = { P(&t->entry), 1, ms },
	};

	memset(t, 0, sizeof(*t));
	t->time = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
	t->entry.fd = -1;
	t->nr = timed_numbers[call];
	t->value = call == FUTEX ? -ETIMEDOUT : 0;
	memcpy(t->args, arguments[call], sizeof(t->args));
}

/*
 * A child that makes such calls, and its parent, who stops it in each of them just before it
 * sleeps, and lets it go on. A call that was interrupted inline goes on by itself then, without a
 * handler to tell of it, for the time that is left. What tells it from one that began only then is
 * when it ends: before its whole time has passed once more.
 */
struct stops {
	int listener;		/* in the child; 0: not yet */
	int call;
	bool over;		/* the process goes on when the time of the call is over */
	long ms;
	int submitted;
	long result;
	long handed_over_before;
	/* The parent's: */
	int stopped;
	long long continued_ns;
	/* How often calls went on, and ended without a sleep or were handed over. */
	int inlined, handed_over;
};

static struct stops *stops;

static const char *is_stopped_once(void)
{
	long handed_over = counter("handed_over"), cookie;
	long long begun_ns, ended_ns;
	struct timed t;

	make_timed(&t, stops->call, stops->ms);
	stops->result = UNTOUCHED;
	stops->handed_over_before = handed_over;
	stops->submitted++;
	begun_ns = now_ns();
	cookie = async_submit(0, &stops->result, t.nr, t.args);
	if (cookie) {
		CHECK(is_cookie(cookie));
		CHECK_EQ(handed_over + 1, counter("handed_over"));
		CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
	} else {
		CHECK_EQ(handed_over, counter("handed_over"));
	}
	ended_ns = now_ns();
	CHECK_EQ(stops->submitted, stops->stopped);

	/* Whatever came in between, it lasts as long as it is to, and ends as it is to. */
	CHECK_EQ(t.value, result_of(&stops->result));
	CHECK(ended_ns - begun_ns >= stops->ms * MS);
	if (ended_ns < stops->continued_ns + stops->ms * MS) {
		stops->inlined += !cookie;
		stops->handed_over += !!cookie;
	} else if (stops->ms < 2000) {
		/* This machine is that slow. */
		stops->ms += stops->ms / 4;
	}
	return NULL;
}

/* With time left it has to sleep again, and to leave user space to a successor. */
static int times_gone_on(void)
{
	return stops->handed_over + (stops->over ? stops->inlined : 0);
}

/* In the child. Until calls went on in this way, which only a kernel that is wrong never does. */
static const char *is_stopped(void)
{
	const int wanted = times(3, 100);
	long long end;
	long listener;
	int i;

	TRY(hand_over_once());
	listener = listener_of(timed_numbers, TIMED_CALLS);
	CHECK(listener > 0);
	reach(&stops->listener, listener);
	for (i = 0; i < 2 * TIMED_CALLS; i++) {
		stops->call = i / 2;
		stops->over = i % 2;
		stops->ms = 40;
		stops->inlined = 0;
		stops->handed_over = 0;
		end = now_ns() + DEADLINE_S * 1000000000LL;
		while (times_gone_on() < wanted && now_ns() < end)
			TRY(is_stopped_once());
		if (times_gone_on() < wanted)
			return trouble("%s: stopped for %s: went on %d times inline, %d handed over",
				       timed_names[stops->call],
				       stops->over ? "all its time" : "a while",
				       stops->inlined, stops->handed_over);
	}
	return NULL;
}

/* Stops the next call of the child, if there is one before its end. */
static const char *stops_a_call(pid_t child, int listener, bool *stopped)
{
	struct pollfd entry = { .fd = listener, .events = POLLIN };
	long long asleep_ns, until_ns;
	char pid[16];
	int status;

	CHECK_EQ(1, poll(&entry, 1, DEADLINE_S * 1000));
	*stopped = entry.revents & POLLIN;
	if (!*stopped)
		return NULL;
	/* A call that goes on is not one that is made again. */
	CHECK_EQ(stops->submitted, stops->stopped + 1);
	TRY(signal_a_call(listener, child, SIGSTOP));
	asleep_ns = now_ns();
	status = next_status(child, WUNTRACED);
	CHECK(status >= 0);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(SIGSTOP, WSTOPSIG(status));

	/* It has neither slept nor left, and nothing was stored. */
	snprintf(pid, sizeof(pid), "%d", child);
	CHECK_EQ(stops->handed_over_before, counter_of(pid, "handed_over"));
	CHECK_EQ(UNTOUCHED, result_of(&stops->result));

	until_ns = asleep_ns + stops->ms * MS / (stops->over ? 1 : 2);
	CHECK(becomes_true(now_ns() > until_ns));
	stops->stopped++;
	stops->continued_ns = now_ns();
	CHECK_EQ(0, kill(child, SIGCONT));
	return NULL;
}

static const char *stops_all_calls(pid_t child)
{
	int listener, pidfd = pidfd_open(child, 0);
	bool stopped = true;

	CHECK(pidfd >= 0);
	if (await(&stops->listener, 1)) {
		listener = pidfd_getfd(pidfd, stops->listener, 0);
		CHECK(listener >= 0);
		while (stopped)
			TRY(stops_a_call(child, listener, &stopped));
		close(listener);
	}
	close(pidfd);
	CHECK_EQ(0, status_of(child));
	CHECK(stops->stopped >= 2 * TIMED_CALLS);
	return NULL;
}

TEST_F_TIMEOUT(thread, call_that_was_stopped_goes_on_by_itself, 900)
{
	pid_t child;

	stops = share(sizeof(*stops));
	ASSERT_NE(NULL, stops);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		exit_fine(run_in(variant->other, is_stopped));
	EXPECT_FINE(stops_all_calls(child));
}

/* How often the child has slept. */
static int *slept;

static const char *sleeps_among_stops(void)
{
	const struct timespec time = { .tv_nsec = 3 * MS };
	struct pollfd poll = { .fd = -1 };
	int i;

	for (i = 0; i < times(400, 10000); i++) {
		const long nr = i % 2 ? __NR_nanosleep : __NR_poll;
		const unsigned long *args = i % 2 ? ARGS(P(&time), 0) : ARGS(P(&poll), 1, 3);
		long result = UNTOUCHED, cookie;
		long long start = now_ns();

		cookie = async_submit(0, &result, nr, args);
		/* Stopped before it slept, its time may be over when it goes on. */
		CHECK(!cookie || is_cookie(cookie));
		CHECK_EQ(0, final_value(cookie, &result));
		CHECK(now_ns() - start >= time.tv_nsec);
		reach(slept, i + 1);
	}
	return NULL;
}

/* Stops at any time at all. */
PATIENT_TEST(sleep_among_stops_lasts_as_long, 300)
{
	siginfo_t info = { };
	int i, seen = 0;
	pid_t child;

	slept = share(sizeof(*slept));
	ASSERT_NE(NULL, slept);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		exit_fine(sleeps_among_stops());
	for (i = 0; !info.si_pid; i++) {
		usleep(i * 37 % 1500);
		ASSERT_EQ(0, kill(child, SIGSTOP));
		/* Whether it has stopped by then or not. */
		usleep(i % 3 * 100);
		ASSERT_EQ(0, kill(child, SIGCONT));
		/* On a slow machine it does nothing but stop and go on, if it is let. */
		if (i % 8 == 0 && seen < times(400, 10000)) {
			ASSERT_TRUE(await(slept, seen + 1));
			seen = __atomic_load_n(slept, __ATOMIC_ACQUIRE);
		}
		waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT);
	}
	EXPECT_EQ(0, status_of(child));
	EXPECT_LT(20, i);
}

/* --- restart_syscall() by hand ------------------------------------------------------------ */

static int nothing_comes[2];
static volatile long restarted;

/* Uses the worker up that an interrupted sleep was to go on with, and gets another one. */
static void restarts_by_hand(int signal)
{
	struct submission reading = { .result = UNTOUCHED }, inline_call = { .result = UNTOUCHED };
	char byte;

	reading.cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &reading.result, __NR_read,
				      ARGS(nothing_comes[0], P(&byte), 1));
	async_submit(0, &inline_call.result, __NR_getppid, ARGS(0));
	restarted = raw_call(__NR_restart_syscall);
	async_cancel(0, reading.cookie);
	while (wait_for_async(0, reading.cookie, &deadline) == -EINTR)
		;
	handled++;
}

/* Or has it still, with the sleep that it interrupted. */
static void restarts_at_once(int signal)
{
	restarted = raw_call(__NR_restart_syscall);
	handled++;
}

static int interrupted_listener;

static void *interrupts_calls(void *argument)
{
	int *times_more = argument;
	const char *found = NULL;

	if (!await(&interrupted_listener, 1))
		return "no listener";
	while (!found && (*times_more)--)
		found = signal_a_call(interrupted_listener, getpid(), SIGUSR1);
	return (void *)found;
}

static const char *goes_on_with_nothing(void (*handler)(int))
{
	const struct sigaction action = { .sa_handler = handler };
	const struct timespec time = { .tv_sec = FOREVER_S };
	const int rounds = times(20, 1000);
	const long nr = __NR_nanosleep;
	int rounds_more = rounds, i;
	void *found = "no value";
	pthread_t thread;
	long listener;

	CHECK_EQ(0, pipe(nothing_comes));
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	TRY(hand_over_once());
	handled = 0;
	/* Before the filter, so that it is not its own supervisor. */
	CHECK_EQ(0, pthread_create(&thread, NULL, interrupts_calls, &rounds_more));
	listener = listener_of(&nr, 1);
	CHECK(listener > 0);
	reach(&interrupted_listener, listener);
	for (i = 0; i < rounds; i++) {
		struct submission s = { .result = UNTOUCHED };

		restarted = UNTOUCHED;
		s.cookie = async_submit(0, &s.result, nr, ARGS(P(&time), 0));
		CHECK_EQ(0, s.cookie);
		CHECK_EQ(-EINTR, s.result);
		CHECK_EQ(i + 1, handled);
		CHECK_EQ(-EINTR, restarted);
	}
	CHECK_EQ(0, pthread_join(thread, &found));
	return found;
}

IN_EITHER_THREAD(restart_by_hand_goes_on_with_nothing)
{
	return goes_on_with_nothing(restarts_by_hand);
}

IN_A_CHILD(restart_by_hand_at_once_goes_on_with_nothing)
{
	return goes_on_with_nothing(restarts_at_once);
}

/* What a handler interrupted is its parent's: the child has nothing to go on with. */
static volatile int child_status;

static void forks_and_restarts(int signal)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(raw_call(__NR_restart_syscall) == -EINTR ? 0 : 1);
	while (waitpid(pid, &status, 0) != pid)
		;
	child_status = status;
	handled++;
}

static void *interrupts_a_sleep(void *argument)
{
	if (becomes_true(thread_state(target) == 'S'))
		tgkill(getpid(), target, SIGUSR1);
	return NULL;
}

IN_A_CHILD(child_of_a_handler_restarts_no_wait)
{
	const struct sigaction action = { .sa_handler = forks_and_restarts };
	struct reading r;
	pthread_t thread;

	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	target = gettid();
	TRY(begin_reading(&r));
	child_status = -1;
	CHECK_EQ(0, pthread_create(&thread, NULL, interrupts_a_sleep, NULL));
	CHECK_EQ(-EINTR, wait_for_async(0, r.s.cookie, &deadline));
	CHECK_EQ(0, pthread_join(thread, NULL));
	CHECK_EQ(0, child_status);
	return end_reading(&r);
}

/* --- a hand-over that is called off ------------------------------------------------------- */

/* More than one packet of a stream, whatever its size. */
enum { PACKETS = 1 << 16 };

static struct missing late_page;

static void *gives_the_page_late(void *argument)
{
	if (!becomes_true(page_is_waited_for(&late_page)))
		return "nobody waits for the page";
	/* For as long as the page is not there, the call tries to sleep, and may not. */
	poll(NULL, 0, 20);
	return (void *)give_missing(&late_page);
}

/* Two ends of a stream: the first packet that comes is told to this thread by a signal. */
static const char *have_a_stream(int ends[2])
{
	const struct sigaction action = { .sa_handler = note };
	const struct f_owner_ex owner = { .type = F_OWNER_TID, .pid = gettid() };

	handled = 0;
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	CHECK_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK_EQ(0, fcntl(ends[1], F_SETSIG, SIGUSR1));
	CHECK_EQ(0, fcntl(ends[1], F_SETOWN_EX, &owner));
	CHECK_EQ(0, fcntl(ends[1], F_SETFL, O_ASYNC));
	return NULL;
}

/*
 * A call that sleeps with a signal pending, as it does not look for one there: its hand-over is
 * called off again and again. A cookie that was never returned is none, and nothing counts.
 */
IN_A_CHILD(cookie_of_a_hand_over_that_was_called_off)
{
	static char packets[PACKETS];
	struct submission s = { .result = UNTOUCHED };
	struct iovec pieces[2];
	struct reading r;
	pthread_t thread;
	void *found;
	long handed_over;
	int ends[2];

	TRY(begin_reading(&r));
	TRY(have_a_stream(ends));
	TRY(make_missing(&late_page));
	handed_over = counter("handed_over");
	pieces[0] = (struct iovec){ packets, sizeof(packets) };
	pieces[1] = (struct iovec){ late_page.page, 1 };
	CHECK_EQ(0, pthread_create(&thread, NULL, gives_the_page_late, NULL));
	s.cookie = async_submit(0, &s.result, __NR_writev, ARGS(ends[0], P(pieces), 2));
	CHECK_EQ(0, pthread_join(thread, &found));
	CHECK(!found);
	CHECK_EQ(0, s.cookie);
	CHECK_EQ(PACKETS + 1, s.result);
	CHECK(handled > 0);
	CHECK_EQ(handed_over, counter("handed_over"));
	CHECK_EQ(1, counter("outstanding"));
	CHECK_EQ(-EINVAL, wait_for_async(0, r.s.cookie + 1, &no_time));
	CHECK_EQ(-EINVAL, async_cancel(0, r.s.cookie + 1));
	close(ends[0]);
	close(ends[1]);
	drop_missing(&late_page);
	return end_reading(&r);
}

TEST_HARNESS_MAIN
