// SPDX-License-Identifier: GPL-2.0
/* seccomp sees the inner call as if it had been made directly, inline and offloaded. */
#include "filters.h"
#include "../kselftest_harness.h"

/* As filter(), for calls whose first argument is the given one. */
static long filter_argument(unsigned int nr, unsigned int argument, unsigned int action)
{
	struct sock_filter code[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
		LOAD(args[0]),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, 1),
		ALLOW(action),
		ALLOW(SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return raw_call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

FIXTURE(mode)
{
	long result;
};

WITH_AND_WITHOUT_OFFLOAD(mode, in_line);

FIXTURE_SETUP(mode)
{
	self->result = UNTOUCHED;
}

FIXTURE_TEARDOWN(mode)
{
}

#define SUBMIT(...)	async_submit(variant->flags, &self->result, __VA_ARGS__)

/* The way a submission returns in this mode. */
static bool is_submitted(unsigned long flags, long ret)
{
	return flags ? is_cookie(ret) : ret == 0;
}

#define EXPECT_SUBMITTED(ret)	EXPECT_TRUE(is_submitted(variant->flags, ret))

TEST_F(mode, error_number)
{
	long ret;

	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	ASSERT_EQ(-E2BIG, raw_call(__NR_getppid));
	ret = SUBMIT(__NR_getppid, ARGS(0));
	EXPECT_SUBMITTED(ret);
	EXPECT_EQ(-E2BIG, final_value(ret, &self->result));
}

/* 512 to 516 are the kernel's own. Nothing was interrupted, and nothing is made again. */
TEST_F(mode, error_number_that_is_a_restart_code)
{
	static const int codes[] = { 512, 513, 514, 516 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(codes); i++) {
		long ret;

		self->result = UNTOUCHED;
		ASSERT_EQ(0, filter_argument(__NR_dup, 1000 + i, SECCOMP_RET_ERRNO | codes[i]));
		ret = SUBMIT(__NR_dup, ARGS(1000 + i));
		EXPECT_SUBMITTED(ret);
		EXPECT_EQ(-EINTR, final_value(ret, &self->result));
	}
}

TEST_F(mode, error_number_zero)
{
	long ret;

	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | 0, 0));
	ret = SUBMIT(__NR_getppid, ARGS(0));
	EXPECT_SUBMITTED(ret);
	EXPECT_EQ(0, final_value(ret, &self->result));
}

TEST_F(mode, other_calls_run)
{
	long ret;

	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	ret = SUBMIT(__NR_getpid, ARGS(0));
	EXPECT_SUBMITTED(ret);
	EXPECT_EQ(getpid(), final_value(ret, &self->result));
}

TEST_F(mode, filter_sees_the_arguments)
{
	long ret;

	ASSERT_EQ(0, filter_argument(__NR_dup, 12345, SECCOMP_RET_ERRNO | EDOM));
	ret = SUBMIT(__NR_dup, ARGS(12345));
	EXPECT_EQ(-EDOM, final_value(ret, &self->result));
	ret = SUBMIT(__NR_dup, ARGS(12346));
	EXPECT_EQ(-EBADF, final_value(ret, &self->result));
}

TEST_F(mode, denied_call_does_not_run)
{
	char byte;
	int fds[2];
	long ret;

	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	ASSERT_EQ(0, filter_argument(__NR_write, fds[1], SECCOMP_RET_ERRNO | EPERM));
	ret = SUBMIT(__NR_write, ARGS(fds[1], P("x"), 1));
	EXPECT_EQ(-EPERM, final_value(ret, &self->result));
	EXPECT_EQ(-1, read(fds[0], &byte, 1));
	EXPECT_EQ(EAGAIN, errno);
}

TEST_F(mode, filter_installed_after_workers_exist)
{
	long ret, other;
	int i;

	for (i = 0; i < 8; i++) {
		ret = async_submit(ASYNC_SUBMIT_OFFLOAD, &other, __NR_getppid, ARGS(0));
		ASSERT_EQ(getppid(), final_value(ret, &other));
	}
	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	for (i = 0; i < 8; i++) {
		ret = SUBMIT(__NR_getppid, ARGS(0));
		EXPECT_SUBMITTED(ret);
		EXPECT_EQ(-E2BIG, final_value(ret, &self->result));
	}
}

TEST_F(mode, filter_of_one_thread_binds_that_thread_only)
{
	long ret, other;

	/* The workers are made under a thread without the filter. */
	ret = async_submit(ASYNC_SUBMIT_OFFLOAD, &other, __NR_getppid, ARGS(0));
	ASSERT_EQ(getppid(), final_value(ret, &other));
	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	ret = SUBMIT(__NR_getppid, ARGS(0));
	EXPECT_EQ(-E2BIG, final_value(ret, &self->result));
	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | EDOM, 0));
	/* The later filter is asked first, and its answer of equal rank wins. */
	ASSERT_EQ(-EDOM, raw_call(__NR_getppid));
	ret = SUBMIT(__NR_getppid, ARGS(0));
	EXPECT_EQ(-EDOM, final_value(ret, &self->result));
}

TEST_F(mode, trace_without_a_tracer)
{
	long ret;

	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_TRACE, 0));
	ASSERT_EQ(-ENOSYS, raw_call(__NR_getppid));
	ret = SUBMIT(__NR_getppid, ARGS(0));
	EXPECT_SUBMITTED(ret);
	EXPECT_EQ(-ENOSYS, final_value(ret, &self->result));
}

TEST_F(mode, outer_call_is_filtered_too)
{
	ASSERT_EQ(getppid(), final_value(SUBMIT(__NR_getppid, ARGS(0)), &self->result));
	self->result = UNTOUCHED;
	ASSERT_EQ(0, filter(__NR_async_submit, SECCOMP_RET_ERRNO | E2BIG, 0));
	EXPECT_EQ(-E2BIG, SUBMIT(__NR_getppid, ARGS(0)));
	EXPECT_EQ(UNTOUCHED, self->result);
}

TEST_F(mode, kill_process)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0) {
		if (filter(__NR_getppid, SECCOMP_RET_KILL_PROCESS, 0))
			_exit(1);
		final_value(SUBMIT(__NR_getppid, ARGS(0)), &self->result);
		_exit(2);
	}
	EXPECT_EQ(SIGSYS, status_of(child) & 0x7f);
}

TEST_F(mode, kill_thread_of_a_process_with_one)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0) {
		if (filter(__NR_getppid, SECCOMP_RET_KILL_THREAD, 0))
			_exit(1);
		final_value(SUBMIT(__NR_getppid, ARGS(0)), &self->result);
		_exit(2);
	}
	EXPECT_EQ(SIGSYS, status_of(child) & 0x7f);
}

TEST_F(mode, strict)
{
	pid_t child = fork_child();

	ASSERT_LE(0, child);
	if (child == 0) {
		if (final_value(SUBMIT(__NR_getppid, ARGS(0)), &self->result) != getppid())
			_exit(3);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0))
			_exit(1);
		/* Even a permitted call: async_submit itself is none. */
		SUBMIT(__NR_write, ARGS(1, P(""), 0));
		syscall(__NR_exit, 2);
	}
	EXPECT_EQ(SIGKILL, status_of(child));
}

/* --- TRAP ------------------------------------------------------------------------------- */

static siginfo_t trapped;
static int traps;

static void on_trap(int signal, siginfo_t *info, void *context)
{
	trapped = *info;
	__atomic_add_fetch(&traps, 1, __ATOMIC_RELEASE);
	set_return_value(context, 77);
}

TEST_F(mode, trap)
{
	const struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	ASSERT_EQ(0, sigaction(SIGSYS, &action, NULL));
	ASSERT_EQ(0, filter(__NR_getppid, SECCOMP_RET_TRAP | 99, 0));
	/* What the handler leaves is async_submit's return, and nothing is stored. */
	EXPECT_EQ(77, SUBMIT(__NR_getppid, ARGS(0)));
	EXPECT_EQ(UNTOUCHED, self->result);
	EXPECT_EQ(1, __atomic_load_n(&traps, __ATOMIC_ACQUIRE));
	EXPECT_EQ(__NR_getppid, trapped.si_syscall);
	EXPECT_EQ(99, trapped.si_errno);
	EXPECT_EQ(0, wait_for_async(0, 0, &no_time));
}

/* --- USER_NOTIF ------------------------------------------------------------------------- */

struct notified {
	pthread_t thread;
	unsigned long flags;
	int listener;
	pid_t tid;
	long submitted;
	long result;
};

static void *submits_to_a_supervisor(void *argument)
{
	struct notified *n = argument;
	long listener = filter(__NR_dup, SECCOMP_RET_USER_NOTIF,
			       SECCOMP_FILTER_FLAG_NEW_LISTENER);

	n->tid = gettid();
	__atomic_store_n(&n->listener, listener, __ATOMIC_RELEASE);
	if (listener < 0)
		return NULL;
	n->submitted = async_submit(n->flags, &n->result, __NR_dup, ARGS(4321));
	n->result = final_value(n->submitted, &n->result);
	return n;
}

/* Takes one notification and answers it; what was asked. */
static struct seccomp_notif supervise(int listener, long long value, int error, bool run)
{
	struct pollfd entry = { .fd = listener, .events = POLLIN };
	struct seccomp_notif asked = { };
	struct seccomp_notif_resp answer = { };

	if (poll(&entry, 1, DEADLINE_S * 1000) != 1)
		return asked;
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return (struct seccomp_notif){ };
	answer.id = asked.id;
	answer.val = value;
	answer.error = error;
	answer.flags = run ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer))
		return (struct seccomp_notif){ };
	return asked;
}

static bool start_notified(struct notified *n, unsigned long flags)
{
	*n = (struct notified){ .flags = flags, .result = UNTOUCHED };
	return !pthread_create(&n->thread, NULL, submits_to_a_supervisor, n) &&
	       becomes_true(__atomic_load_n(&n->listener, __ATOMIC_ACQUIRE)) && n->listener > 0;
}

TEST_F(mode, user_notif_value)
{
	struct seccomp_notif asked;
	struct notified n;

	ASSERT_TRUE(start_notified(&n, variant->flags));
	asked = supervise(n.listener, 4242, 0, false);
	EXPECT_EQ(__NR_dup, asked.data.nr);
	EXPECT_EQ(4321, asked.data.args[0]);
	EXPECT_EQ(n.tid, asked.pid);
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	EXPECT_SUBMITTED(n.submitted);
	EXPECT_EQ(4242, n.result);
}

TEST_F(mode, user_notif_error)
{
	struct notified n;

	ASSERT_TRUE(start_notified(&n, variant->flags));
	EXPECT_EQ(__NR_dup, supervise(n.listener, 0, -EDOM, false).data.nr);
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	EXPECT_SUBMITTED(n.submitted);
	EXPECT_EQ(-EDOM, n.result);
}

TEST_F(mode, user_notif_continue)
{
	struct notified n;

	ASSERT_TRUE(start_notified(&n, variant->flags));
	EXPECT_EQ(__NR_dup, supervise(n.listener, 0, 0, true).data.nr);
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	EXPECT_SUBMITTED(n.submitted);
	EXPECT_EQ(-EBADF, n.result);
}

/* --- a signal while the supervisor is asked ----------------------------------------------- */

static volatile int interruptions;

static void on_interruption(int signal)
{
	__atomic_add_fetch(&interruptions, 1, __ATOMIC_RELEASE);
}

static bool interrupt_while_asking(const struct notified *n, int flags)
{
	const struct sigaction action = { .sa_handler = on_interruption, .sa_flags = flags };
	struct pollfd entry = { .fd = n->listener, .events = POLLIN };

	return !sigaction(SIGUSR1, &action, NULL) && poll(&entry, 1, DEADLINE_S * 1000) == 1 &&
	       !pthread_kill(n->thread, SIGUSR1) &&
	       becomes_true(__atomic_load_n(&interruptions, __ATOMIC_ACQUIRE) == 1);
}

/* As a direct call does: it is made again, and the supervisor asked again. */
TEST_F(mode, user_notif_is_asked_again_after_a_handler_that_restarts)
{
	struct notified n;

	ASSERT_TRUE(start_notified(&n, variant->flags));
	ASSERT_TRUE(interrupt_while_asking(&n, SA_RESTART));
	EXPECT_EQ(__NR_dup, supervise(n.listener, 4242, 0, false).data.nr);
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	EXPECT_SUBMITTED(n.submitted);
	EXPECT_EQ(4242, n.result);
}

TEST_F(mode, user_notif_is_eintr_after_a_handler_that_does_not)
{
	struct notified n;

	ASSERT_TRUE(start_notified(&n, variant->flags));
	ASSERT_TRUE(interrupt_while_asking(&n, 0));
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	/* Nothing was given to a worker yet. */
	EXPECT_EQ(0, n.submitted);
	EXPECT_EQ(-EINTR, n.result);
}

static void *is_filtered_itself(void *argument)
{
	struct notified *n = argument;
	long listener = filter(__NR_async_submit, SECCOMP_RET_USER_NOTIF,
			       SECCOMP_FILTER_FLAG_NEW_LISTENER);

	__atomic_store_n(&n->listener, listener, __ATOMIC_RELEASE);
	if (listener > 0)
		n->submitted = async_submit(n->flags, &n->result, __NR_getppid, ARGS(0));
	return NULL;
}

/* The filter did not let async_submit() in: there is no inner call that was interrupted. */
TEST_F(mode, outer_call_that_is_asked_about_is_eintr)
{
	struct notified n = { .flags = variant->flags, .result = UNTOUCHED };

	ASSERT_EQ(0, pthread_create(&n.thread, NULL, is_filtered_itself, &n));
	ASSERT_TRUE(becomes_true(__atomic_load_n(&n.listener, __ATOMIC_ACQUIRE)));
	ASSERT_LT(0, n.listener);
	ASSERT_TRUE(interrupt_while_asking(&n, 0));
	ASSERT_EQ(0, pthread_join(n.thread, NULL));
	EXPECT_EQ(-EINTR, n.submitted);
	EXPECT_EQ(UNTOUCHED, n.result);
}

TEST_HARNESS_MAIN
