// SPDX-License-Identifier: GPL-2.0
/*
 * A tracer sees the inner call: outer entry, inner entry, inner exit, outer exit.
 */
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "calls.h"
#include "../kselftest_harness.h"

#define SYSCALL_STOP	(SIGTRAP | 0x80)

enum { MAX_STOPS = 16 };

struct stop {
	int op;
	long nr;
	unsigned long args[6];
	long rval;
};

FIXTURE(tracee)
{
	pid_t child;
	struct stop stops[MAX_STOPS];
	int n;
	int status;
};

FIXTURE_SETUP(tracee)
{
}

FIXTURE_TEARDOWN(tracee)
{
}

/* Starts a child that stops before it runs a function under trace. */
static bool start(FIXTURE_DATA(tracee) *self, int (*run)(void))
{
	int status;

	self->child = fork_child();
	if (self->child < 0)
		return false;
	if (self->child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(run());
	}
	return waitpid(self->child, &status, 0) == self->child && WIFSTOPPED(status) &&
	       !ptrace(PTRACE_SETOPTIONS, self->child, NULL,
		       PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
}

/* Runs the child to its next stop at a system call; false if it ended. */
static bool next_stop(FIXTURE_DATA(tracee) *self, struct stop *stop)
{
	struct __ptrace_syscall_info info = { };
	int i;

	while (!ptrace(PTRACE_SYSCALL, self->child, NULL, NULL)) {
		if (waitpid(self->child, &self->status, 0) != self->child ||
		    !WIFSTOPPED(self->status))
			return false;
		if (WSTOPSIG(self->status) == SYSCALL_STOP)
			break;
	}
	if (ptrace(PTRACE_GET_SYSCALL_INFO, self->child, sizeof(info), &info) <= 0)
		return false;
	*stop = (struct stop){ .op = info.op };
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		stop->nr = (long)info.entry.nr;
		for (i = 0; i < 6; i++)
			stop->args[i] = info.entry.args[i];
	} else {
		stop->rval = info.exit.rval;
	}
	return true;
}

/* Runs the child up to its entry into async_submit. */
static bool enter(FIXTURE_DATA(tracee) *self)
{
	struct stop stop;

	while (next_stop(self, &stop))
		if (stop.op == PTRACE_SYSCALL_INFO_ENTRY && stop.nr == __NR_async_submit)
			return true;
	return false;
}

/* Lets the child go; how it ended. */
static int release(FIXTURE_DATA(tracee) *self)
{
	ptrace(PTRACE_DETACH, self->child, NULL, NULL);
	return status_of(self->child);
}

static bool set_number(pid_t child, long nr)
{
#if defined(__x86_64__)
	return !ptrace(PTRACE_POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), nr);
#elif defined(__aarch64__)
	int number = nr;
	struct iovec iov = { &number, sizeof(number) };

	return !ptrace(PTRACE_SETREGSET, child, NT_ARM_SYSTEM_CALL, &iov);
#else
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };

	if (ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, &iov))
		return false;
	regs.a7 = nr;
	return !ptrace(PTRACE_SETREGSET, child, NT_PRSTATUS, &iov);
#endif
}

static bool set_first_argument(pid_t child, unsigned long value)
{
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };

	if (ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, &iov))
		return false;
#if defined(__x86_64__)
	regs.rdi = value;
#elif defined(__aarch64__)
	regs.regs[0] = value;
#else
	regs.a0 = value;
#endif
	return !ptrace(PTRACE_SETREGSET, child, NT_PRSTATUS, &iov);
}

static int submit_getppid(void)
{
	long result = UNTOUCHED;

	if (async_submit(0, &result, __NR_getppid, ARGS(11, 12, 13, 14, 15, 16)))
		return 1;
	return result == getppid() ? 0 : 2;
}

TEST_F(tracee, stops_of_an_inline_call)
{
	struct stop stop;
	unsigned int i;

	ASSERT_TRUE(start(self, submit_getppid));
	ASSERT_TRUE(enter(self));
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_ENTRY, stop.op);
	EXPECT_EQ(__NR_getppid, stop.nr);
	for (i = 0; i < 6; i++)
		EXPECT_EQ(11 + i, stop.args[i]);
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_EQ(getpid(), stop.rval);
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_EQ(0, stop.rval);
	EXPECT_EQ(0, release(self));
}

static int submit_failing_close(void)
{
	long result = UNTOUCHED;

	if (async_submit(0, &result, __NR_close, ARGS(-1UL)))
		return 1;
	return result == -EBADF ? 0 : 2;
}

TEST_F(tracee, exit_stop_shows_the_error_of_the_call)
{
	struct stop stop;

	ASSERT_TRUE(start(self, submit_failing_close));
	ASSERT_TRUE(enter(self));
	ASSERT_TRUE(next_stop(self, &stop));
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_EQ(-EBADF, stop.rval);
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_EQ(0, stop.rval);
	EXPECT_EQ(0, release(self));
}

static int submit_offloaded(void)
{
	long result = UNTOUCHED, cookie;
	char byte;
	int fds[2];

	if (pipe(fds))
		return 1;
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(&byte), 1));
	if (cookie <= 0 || result_of(&result) != cookie)
		return 2;
	return write(fds[1], "x", 1) == 1 && final_value(cookie, &result) == 1 ? 0 : 3;
}

TEST_F(tracee, stops_of_an_outstanding_call)
{
	struct stop entry, inner, outer;

	ASSERT_TRUE(start(self, submit_offloaded));
	ASSERT_TRUE(enter(self));
	ASSERT_TRUE(next_stop(self, &entry));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_ENTRY, entry.op);
	EXPECT_EQ(__NR_read, entry.nr);
	EXPECT_EQ(1, entry.args[2]);
	ASSERT_TRUE(next_stop(self, &inner));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, inner.op);
	EXPECT_TRUE(is_cookie(inner.rval));
	ASSERT_TRUE(next_stop(self, &outer));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, outer.op);
	EXPECT_EQ(inner.rval, outer.rval);
	EXPECT_EQ(0, release(self));
}

static int expect_own_pid(void)
{
	long result = UNTOUCHED;

	if (async_submit(0, &result, __NR_getppid, ARGS(0)))
		return 1;
	return result == getpid() ? 0 : 2;
}

static int expect_own_pid_offloaded(void)
{
	long result = UNTOUCHED;
	long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

	return final_value(cookie, &result) == getpid() ? 0 : 2;
}

/* Runs a child up to its inner entry, changes the number, lets it go; how it ended. */
static int with_number(FIXTURE_DATA(tracee) *self, int (*run)(void), long nr)
{
	struct stop stop;

	if (!start(self, run) || !enter(self) || !next_stop(self, &stop) ||
	    stop.op != PTRACE_SYSCALL_INFO_ENTRY || !set_number(self->child, nr))
		return -EPROTO;
	return release(self);
}

TEST_F(tracee, number_is_changeable)
{
	EXPECT_EQ(0, with_number(self, expect_own_pid, __NR_getpid));
	EXPECT_EQ(0, with_number(self, expect_own_pid_offloaded, __NR_getpid));
}

static int expect_nothing_ran(void)
{
	long result = UNTOUCHED;
	long ret = async_submit(0, &result, __NR_getppid, ARGS(3));

	/* As a skipped call: -ENOSYS, be it the call's value or the submission's. */
	return result == -ENOSYS || ret == -ENOSYS ? 0 : 2;
}

TEST_F(tracee, number_that_is_none_skips_the_call)
{
	EXPECT_EQ(0, with_number(self, expect_nothing_ran, -1));
}

static int expect_no_exit(void)
{
	long result = UNTOUCHED;
	long ret = async_submit(0, &result, __NR_getppid, ARGS(3));

	/* The contract names the refusal, not whether it is a return or a result by now. */
	return ret == -EOPNOTSUPP || result == -EOPNOTSUPP ? 0 : 2;
}

TEST_F(tracee, refused_number_is_refused_to_a_tracer_too)
{
	EXPECT_EQ(0, with_number(self, expect_no_exit, __NR_exit_group));
	EXPECT_EQ(0, with_number(self, expect_no_exit, __NR_rt_sigreturn));
	EXPECT_EQ(0, with_number(self, expect_no_exit, __NR_async_submit));
}

static int expect_bad_descriptor(void)
{
	long result = UNTOUCHED;

	if (async_submit(0, &result, __NR_dup, ARGS(1)))
		return 1;
	return result == -EBADF ? 0 : 2;
}

TEST_F(tracee, arguments_are_changeable)
{
	struct stop stop;

	ASSERT_TRUE(start(self, expect_bad_descriptor));
	ASSERT_TRUE(enter(self));
	ASSERT_TRUE(next_stop(self, &stop));
	ASSERT_EQ(1, stop.args[0]);
	ASSERT_TRUE(set_first_argument(self->child, 9999));
	EXPECT_EQ(0, release(self));
}

static int many_calls(void)
{
	long result = UNTOUCHED;
	int i;

	for (i = 0; i < 20; i++)
		if (async_submit(0, &result, __NR_getppid, ARGS(0)) || result != getppid())
			return 1;
	for (i = 0; i < 20; i++) {
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

		if (final_value(cookie, &result) != getppid())
			return 2;
	}
	return 0;
}

/* Stops nest: every exit has its entry, and only async_submit has a call inside. */
TEST_F(tracee, stops_stay_paired)
{
	int depth = 0, inner = 0;
	struct stop stop;

	ASSERT_TRUE(start(self, many_calls));
	while (next_stop(self, &stop)) {
		depth += stop.op == PTRACE_SYSCALL_INFO_ENTRY ? 1 : -1;
		ASSERT_LE(0, depth);
		ASSERT_GE(2, depth);
		inner += depth == 2;
	}
	EXPECT_EQ(0, self->status);
	EXPECT_EQ(40, inner);
	/* The last entry is exit_group's. */
	EXPECT_EQ(1, depth);
}

TEST_F(tracee, refusals_have_no_inner_stops)
{
	struct stop stop;

	ASSERT_TRUE(start(self, submit_getppid));
	ASSERT_TRUE(enter(self));
	/* The tracer makes it a submission with unknown flags. */
	ASSERT_TRUE(set_first_argument(self->child, 1UL << 31));
	ASSERT_TRUE(next_stop(self, &stop));
	EXPECT_EQ(PTRACE_SYSCALL_INFO_EXIT, stop.op);
	EXPECT_EQ(-EINVAL, stop.rval);
	EXPECT_EQ(1 << 8, release(self));
}

/* A submitter that a tracer attaches to while its call sleeps is not disturbed. */
static int submit_and_wait_for_data(int fd, long *shared)
{
	char byte;
	long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, shared, __NR_read,
				   ARGS(fd, P(&byte), 1));

	while (wait_for_async(0, cookie, NULL) == -EINTR)
		;
	return result_of(shared) == 1 && byte == 'x' ? 0 : 1;
}

TEST(attach_and_detach_do_not_end_a_call)
{
	long *shared = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[2], status;
	pid_t child;

	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, pipe(fds));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0)
		_exit(submit_and_wait_for_data(fds[0], shared));
	ASSERT_TRUE(becomes_true(is_cookie(result_of(shared))));
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, child, NULL, NULL));
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, child, NULL, NULL));
		ASSERT_EQ(child, waitpid(child, &status, 0));
		ASSERT_TRUE(WIFSTOPPED(status));
		EXPECT_TRUE(is_cookie(result_of(shared)));
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, child, NULL, NULL));
	}
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
