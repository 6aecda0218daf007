// SPDX-License-Identifier: GPL-2.0
/*
 * Makes every system call of an unmodified program an asynchronous one.
 *
 *	LD_PRELOAD=/path/async_shim.so program ...
 *	ASYNC_SHIM=async program ...		(a static one, linked with async_shim.o)
 *
 * System calls are dispatched to user space (PR_SET_SYSCALL_USER_DISPATCH): each raises SIGSYS,
 * and the handler submits it and waits for its end. What async_submit refuses is made directly.
 * The calls of this file are made in the section .text.pass, which is not dispatched.
 *
 * To the program it has to look as if it had made the call itself, signals above all. All handlers
 * of the program are called by on_signal(). That cancels the call that is outstanding and waits
 * for its end before the handler runs, as the kernel ends a call that is interrupted: the handler
 * may never return to it. Afterwards the call is submitted again, or is EINTR, by SA_RESTART.
 *
 * Environment:
 *	ASYNC_SHIM=async	as said, which is what the library does anyway
 *	ASYNC_SHIM=direct	dispatch all calls and make them directly: what differs from a run
 *				without the shim even so is not for async_submit to answer
 *	ASYNC_SHIM=offload	submit all of them with ASYNC_SUBMIT_OFFLOAD
 *	ASYNC_SHIM_REPORT=FILE	count in there, see report.h
 *
 * It uses no library and no thread-local storage, so that it may run at any time in any thread,
 * also in one that has no such storage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <ucontext.h>

#include <linux/async_submit.h>

#include "report.h"

#ifndef __x86_64__
#error "the shim knows the registers of x86_64 only"
#endif

#ifndef __NR_async_submit
#define __NR_async_submit	548
#define __NR_wait_for_async	549
#define __NR_async_cancel	550
#endif

/* Of headers that cannot be had along with the C library's. */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM		(1U << 31)
#endif
#define SYSCALL_SIZE		2
#define SA_WITH_RESTORER	0x04000000

/* Linked into a static program, which cannot have it as a library. */
#ifndef SHIM_IS_PART
#define SHIM_IS_PART		0
#endif

#ifndef SYS_SECCOMP
#define SYS_SECCOMP		1
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH	2
#endif

/* --- calls that pass ---------------------------------------------------------------------- */

long call_passing(long nr, long a, long b, long c, long d, long e, long f);
void return_from_signal(void);
void pass_sigreturn(void);
void pass_clone(void);
void pass_vfork(void);
extern const char pass_begin[], pass_end[];

/* What a function may change and the program may not see changed, and a stack for it. */
#define KEEP_REGISTERS							\
	"	push	%rdx\n"						\
	"	push	%r8\n"							\
	"	push	%r9\n"							\
	"	push	%r10\n"						\
	"	push	%rbp\n"						\
	"	mov	%rsp, %rbp\n"						\
	"	and	$-16, %rsp\n"

#define RESTORE_REGISTERS						\
	"	mov	%rbp, %rsp\n"						\
	"	pop	%rbp\n"						\
	"	pop	%r10\n"						\
	"	pop	%r9\n"							\
	"	pop	%r8\n"							\
	"	pop	%rdx\n"

/*
 * pass_clone and pass_vfork run in place of the program's instruction, with its registers: rcx,
 * which a system call destroys, holds the address to return to, r11 points to a struct start.
 * 128 bytes below the stack pointer are the program's.
 */
asm(".pushsection .text.pass, \"ax\", @progbits\n"
    "pass_begin:\n"
    ".type call_passing, @function\n"
    "call_passing:\n"
    "	mov	%rdi, %rax\n"
    "	mov	%rsi, %rdi\n"
    "	mov	%rdx, %rsi\n"
    "	mov	%rcx, %rdx\n"
    "	mov	%r8, %r10\n"
    "	mov	%r9, %r8\n"
    "	mov	8(%rsp), %r9\n"
    "	syscall\n"
    "	ret\n"
    /* An unwinder knows the frame of a signal by these very instructions. */
    "	nop\n"
    "return_from_signal:\n"
    "	mov	$15, %rax\n"
    "	syscall\n"
    "pass_sigreturn:\n"
    "	syscall\n"
    "	hlt\n"
    "pass_clone:\n"
    "	lea	-128(%rsp), %rsp\n"
    "	push	%rdi\n"
    "	push	%rsi\n"
    "	push	%rcx\n"
    "	pushq	16(%r11)\n"
    "	mov	8(%r11), %rsi\n"
    "	mov	(%r11), %rdi\n"
    "	syscall\n"
    "	mov	%rax, %rcx\n"
    "	jrcxz	2f\n"
    "1:	lea	8(%rsp), %rsp\n"
    "	pop	%rcx\n"
    "	pop	%rsi\n"
    "	pop	%rdi\n"
    "	lea	128(%rsp), %rsp\n"
    "	jmp	*%rcx\n"
    "2:	mov	(%rsp), %rdi\n"
    KEEP_REGISTERS
    "	call	begin_child\n"
    RESTORE_REGISTERS
    "	mov	$0, %eax\n"
    "	jmp	1b\n"
    /* The child has the stack first, and what it leaves there is for nobody to use. */
    "pass_vfork:\n"
    "	lea	-128(%rsp), %rsp\n"
    "	push	%rcx\n"
    "	syscall\n"
    "	push	%rax\n"
    "	push	%rdi\n"
    "	push	%rsi\n"
    KEEP_REGISTERS
    "	mov	%rax, %rdi\n"
    "	mov	64(%rbp), %rsi\n"
    "	call	after_vfork\n"
    "	mov	%rax, %rcx\n"
    RESTORE_REGISTERS
    "	pop	%rsi\n"
    "	pop	%rdi\n"
    "	pop	%rax\n"
    "	lea	136(%rsp), %rsp\n"
    "	jmp	*%rcx\n"
    "pass_end:\n"
    ".popsection\n");

#define CALL(nr, a, b, c, d, e, f)					\
	call_passing(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL0(nr)		CALL(nr, 0, 0, 0, 0, 0, 0)
#define CALL1(nr, a)		CALL(nr, a, 0, 0, 0, 0, 0)
#define CALL2(nr, a, b)		CALL(nr, a, b, 0, 0, 0, 0)
#define CALL3(nr, a, b, c)	CALL(nr, a, b, c, 0, 0, 0)
#define CALL4(nr, a, b, c, d)	CALL(nr, a, b, c, d, 0, 0)
#define CALL5(nr, a, b, c, d, e) CALL(nr, a, b, c, d, e, 0)

/* As they are in the kernel: six arguments, and a set of signals of 64 bits. */
struct arguments {
	long a[6];
};

typedef uint64_t mask_t;

#define MASK_SIZE	sizeof(mask_t)
#define SIGSYS_BIT	(1UL << (SIGSYS - 1))

/* Memory of the program may be anything: EFAULT is for the kernel to find out. */
static long copy_in(void *to, unsigned long from, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)from, size };
	long ret = CALL(__NR_process_vm_readv, CALL0(__NR_getpid), &local, 1, &remote, 1, 0);

	return ret == (long)size ? 0 : -EFAULT;
}

static long copy_out(unsigned long to, const void *from, size_t size)
{
	struct iovec local = { (void *)from, size }, remote = { (void *)to, size };
	long ret = CALL(__NR_process_vm_writev, CALL0(__NR_getpid), &local, 1, &remote, 1, 0);

	return ret == (long)size ? 0 : -EFAULT;
}

static void __attribute__((noreturn)) die(const char *why)
{
	size_t length = 0;

	while (why[length])
		length++;
	CALL3(__NR_write, 2, "async_shim: ", 12);
	CALL3(__NR_write, 2, why, length);
	CALL3(__NR_write, 2, "\n", 1);
	CALL1(__NR_exit_group, 127);
	__builtin_unreachable();
}

/* --- what is counted ---------------------------------------------------------------------- */

static struct report nowhere;
static struct report *report = &nowhere;

#define COUNT(member)	__atomic_fetch_add(&report->member, 1, __ATOMIC_RELAXED)

static unsigned int counted_as(long nr)
{
	return nr >= 0 && nr < REPORT_NUMBERS - 1 ? nr : REPORT_NUMBERS - 1;
}

static long number_after(const char *text, const char *name)
{
	long value = 0;
	size_t i;

	for (; *text; text++) {
		for (i = 0; name[i] && text[i] == name[i]; i++)
			;
		if (name[i])
			continue;
		for (text += i; *text >= '0' && *text <= '9'; text++)
			value = 10 * value + *text - '0';
		return value;
	}
	return 0;
}

/* How the calls of a process went, by what the kernel says of it. */
struct ways {
	unsigned long handed_over, offloaded, fell_back, missed;
};

static bool read_ways(struct ways *ways)
{
	char text[1024] = "\n";
	long fd, length;

	fd = CALL3(__NR_open, "/proc/self/async_submit", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	length = CALL3(__NR_read, fd, text + 1, sizeof(text) - 2);
	CALL1(__NR_close, fd);
	text[length > 0 ? length + 1 : 1] = 0;
	ways->handed_over = number_after(text, "\nhanded_over: ");
	ways->offloaded = number_after(text, "\noffloaded: ");
	ways->fell_back = number_after(text, "\nfell_back: ");
	ways->missed = number_after(text, "\nmissed: ");
	return true;
}

/* Whoever else is here: what all of them add comes to what the last one of them knows. */
static void add_new(unsigned long *sum, unsigned long *known, unsigned long now)
{
	__atomic_fetch_add(sum, now - __atomic_exchange_n(known, now, __ATOMIC_RELAXED),
			   __ATOMIC_RELAXED);
}

/* Adds what is not known yet. Not at its end only, for many a process is killed. */
static void count_ways(struct ways *known)
{
	struct ways now;

	if (report == &nowhere || !read_ways(&now))
		return;
	add_new(&report->handed_over, &known->handed_over, now.handed_over);
	add_new(&report->offloaded, &known->offloaded, now.offloaded);
	add_new(&report->fell_back, &known->fell_back, now.fell_back);
	add_new(&report->missed, &known->missed, now.missed);
}

/* --- threads ------------------------------------------------------------------------------ */

/* What pass_clone gives the kernel; a handler may need the next before one is used. */
struct start {
	long rdi, rsi;
	long what;
	struct clone_args args;
};

/*
 * By thread id, for there is no other place that is there for every thread: one that was made by
 * a plain clone() may have the thread-local storage of its parent.
 */
struct thread {
	int tid;
	bool interrupted;	/* the call that was outstanding, by a handler */
	bool decided;		/* whether it is to be made again: */
	bool restart;
	bool handled;		/* some handler has run */
	bool is_apart;		/* is a process, in the memory of another one */
	bool is_guest;		/* so, and has handlers of its own */
	unsigned char starts_used, vforks_used;
	/* What async_submit stores to: of the call that is outstanding, if one is. */
	long result;
	struct start starts[4];
	unsigned long vforks[8];
	struct ways ways;	/* for one that is apart */
};

/* What a new thread is, as begin_child() gets to know it. */
#define APART	1L
#define GUEST	2L

#define THREADS	2048
/* Where a thread was: those whose places come after it are still to be found. */
#define GONE	(-1)

static struct thread threads[THREADS];
/* What has been counted of the process that has this memory. */
static struct ways ways;

static struct ways *ways_of(struct thread *me)
{
	return me->is_apart ? &me->ways : &ways;
}

static void forget_thread(struct thread *me)
{
	__atomic_store_n(&me->tid, GONE, __ATOMIC_RELEASE);
}

/* The others go by exit(): these were killed, or have become another program. */
static void forget_the_dead(void)
{
	unsigned int i;
	int tid;

	for (i = 0; i < THREADS; i++) {
		tid = __atomic_load_n(&threads[i].tid, __ATOMIC_ACQUIRE);
		if (tid > 0 && CALL2(__NR_tkill, tid, 0) == -ESRCH)
			__atomic_compare_exchange_n(&threads[i].tid, &tid, GONE, false,
						    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	}
}

static struct thread *new_thread(int tid)
{
	struct thread *me;
	unsigned int i;
	int found;

	for (i = 0; i < THREADS; i++) {
		me = &threads[(tid + i) % THREADS];
		found = __atomic_load_n(&me->tid, __ATOMIC_RELAXED);
		if (found > 0 || !__atomic_compare_exchange_n(&me->tid, &found, tid, false,
							      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		me->result = 0;
		me->interrupted = me->handled = me->is_apart = me->is_guest = false;
		me->starts_used = me->vforks_used = 0;
		return me;
	}
	return NULL;
}

static struct thread *find_thread(int tid)
{
	int found = tid;
	unsigned int i;

	for (i = 0; i < THREADS && found; i++) {
		found = __atomic_load_n(&threads[(tid + i) % THREADS].tid, __ATOMIC_ACQUIRE);
		if (found == tid)
			return &threads[(tid + i) % THREADS];
	}
	return NULL;
}

/* A thread looks for itself only, so that it has one place. */
static struct thread *this_thread(void)
{
	int tid = CALL0(__NR_gettid);
	struct thread *me = find_thread(tid), *first;

	if (me)
		return me;
	me = new_thread(tid);
	if (!me) {
		forget_the_dead();
		me = new_thread(tid);
	}
	if (!me)
		die("more threads than it has room for");
	/* A handler of it may have been here meanwhile: that place is the one that is found. */
	first = find_thread(tid);
	if (first && first != me)
		forget_thread(me);
	return first ?: me;
}

/* --- the call ----------------------------------------------------------------------------- */

enum mode { ASYNC, OFFLOAD, DIRECT };

static enum mode mode;
/* A seccomp filter is in force, which need not know the calls of this file. */
static bool filtered;

static bool is_pending(long value)
{
	return ((unsigned long)value >> 62) == 1;
}

static long result_of(const struct thread *me)
{
	return __atomic_load_n(&me->result, __ATOMIC_ACQUIRE);
}

static long direct(long nr, const struct arguments *args)
{
	const long *a = args->a;

	COUNT(calls[counted_as(nr)].direct);
	return CALL(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* A socket with a time limit does not wait for it twice. */
static bool has_time_limit(long fd, int option)
{
	struct timeval limit = { };
	socklen_t size = sizeof(limit);

	return !CALL5(__NR_getsockopt, fd, SOL_SOCKET, option, &limit, &size) &&
	       (limit.tv_sec || limit.tv_usec);
}

/* Does the kernel make this call again when a handler with SA_RESTART is done? signal(7). */
static bool is_restarted(long nr, const struct arguments *args)
{
	switch (nr) {
	case __NR_poll:
	case __NR_ppoll:
	case __NR_select:
	case __NR_pselect6:
	case __NR_epoll_wait:
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
	case __NR_nanosleep:
	case __NR_clock_nanosleep:
	case __NR_semop:
	case __NR_semtimedop:
	case __NR_msgrcv:
	case __NR_msgsnd:
	case __NR_io_getevents:
	case __NR_io_pgetevents:
		return false;
	case __NR_futex:
		switch (args->a[1] & FUTEX_CMD_MASK) {
		case FUTEX_WAIT:
		case FUTEX_WAIT_BITSET:
			return !args->a[3];
		default:
			return true;
		}
	case __NR_ioctl:
		switch (args->a[1]) {
		case TCSBRK:
		case TCSBRKP:
		case TIOCSBRK:
		case TIOCSETD:
			return false;
		default:
			return true;
		}
	case __NR_splice:
		return !has_time_limit(args->a[0], SO_RCVTIMEO) &&
		       !has_time_limit(args->a[2], SO_SNDTIMEO);
	case __NR_sendfile:
		return !has_time_limit(args->a[0], SO_SNDTIMEO);
	case __NR_read:
	case __NR_readv:
	case __NR_preadv2:
	case __NR_recvfrom:
	case __NR_recvmsg:
	case __NR_recvmmsg:
	case __NR_accept:
	case __NR_accept4:
		return !has_time_limit(args->a[0], SO_RCVTIMEO);
	case __NR_write:
	case __NR_writev:
	case __NR_pwritev2:
	case __NR_sendto:
	case __NR_sendmsg:
	case __NR_sendmmsg:
	case __NR_connect:
		return !has_time_limit(args->a[0], SO_SNDTIMEO);
	default:
		return true;
	}
}

/*
 * Does the kernel ever interrupt this call? If not, and it ended because it was cancelled, it was
 * a worker's that had not begun with it.
 */
static bool can_be_interrupted(long nr)
{
	switch (nr) {
	case __NR_accept: case __NR_accept4: case __NR_clock_nanosleep: case __NR_connect:
	case __NR_copy_file_range: case __NR_creat: case __NR_epoll_pwait: case __NR_epoll_pwait2:
	case __NR_epoll_wait: case __NR_fcntl: case __NR_flock: case __NR_futex:
	case __NR_futex_waitv: case __NR_getrandom: case __NR_io_getevents:
	case __NR_io_pgetevents: case __NR_ioctl: case __NR_mq_timedreceive:
	case __NR_mq_timedsend: case __NR_msgrcv: case __NR_msgsnd: case __NR_nanosleep:
	case __NR_open: case __NR_open_by_handle_at: case __NR_openat: case __NR_openat2:
	case __NR_poll: case __NR_ppoll: case __NR_pread64: case __NR_preadv: case __NR_preadv2:
	case __NR_pselect6: case __NR_pwrite64: case __NR_pwritev: case __NR_pwritev2:
	case __NR_read: case __NR_readv: case __NR_recvfrom: case __NR_recvmmsg:
	case __NR_recvmsg: case __NR_select: case __NR_semop: case __NR_semtimedop:
	case __NR_sendfile: case __NR_sendmmsg: case __NR_sendmsg: case __NR_sendto:
	case __NR_splice: case __NR_syslog: case __NR_tee: case __NR_truncate:
	case __NR_vmsplice: case __NR_wait4: case __NR_waitid: case __NR_write:
	case __NR_writev:
		return true;
	default:
		return false;
	}
}

/* Submits a call and waits for its end, however many signals come. */
static long submit(struct thread *me, long nr, const struct arguments *args)
{
	unsigned long flags = mode == OFFLOAD ? ASYNC_SUBMIT_OFFLOAD : 0;
	unsigned int as = counted_as(nr);
	long ret, value;

	for (;;) {
		me->interrupted = me->decided = false;
		__atomic_store_n(&me->result, 0, __ATOMIC_RELEASE);
		ret = CALL4(__NR_async_submit, flags, &me->result, nr, args->a);
		if (ret == -EOPNOTSUPP)
			return direct(nr, args);
		if (ret == -EAGAIN) {
			COUNT(full);
			return direct(nr, args);
		}
		/* EINTR: interrupted before it slept, and not to be restarted. */
		if (ret < 0)
			return ret;
		if (ret == 0) {
			COUNT(calls[as].inlined);
			return result_of(me);
		}
		COUNT(calls[as].outstanding);
		/* Before the wait, for the process may be killed in it. */
		if (mode != OFFLOAD)
			count_ways(ways_of(me));
		while (result_of(me) == ret)
			CALL3(__NR_wait_for_async, 0, ret, NULL);
		/* A handler may have made a process, and this is the child. */
		me = this_thread();
		/* Beside a call that has not begun it would take the descriptor that is the call's. */
		if (mode == OFFLOAD)
			count_ways(ways_of(me));
		value = result_of(me);
		if (!me->interrupted || value != -ECANCELED)
			return value;
		COUNT(calls[as].interrupted);
		if (can_be_interrupted(nr) && !(me->restart && is_restarted(nr, args)))
			return -EINTR;
		COUNT(calls[as].restarted);
	}
}

static void count_value(long nr, long value)
{
	struct report_call *call = &report->calls[counted_as(nr)];

	if ((unsigned long)value < -4095UL)
		__atomic_fetch_add(&call->good, 1, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&call->last_error, value, __ATOMIC_RELAXED);
}

/* --- signals ------------------------------------------------------------------------------ */

typedef void handler_fn(int signal, siginfo_t *info, void *context);

/* As the kernel has it. */
struct action {
	handler_fn *handler;
	unsigned long flags;
	void (*restorer)(void);
	mask_t mask;
};

#define SIGNALS	65

/* What the program has set. The kernel calls on_signal() for each of its handlers. */
static struct action actions[SIGNALS];

static bool is_handler(handler_fn *handler)
{
	return handler != (handler_fn *)SIG_DFL && handler != (handler_fn *)SIG_IGN;
}

static const struct timespec a_moment = { .tv_nsec = 5000000 };

/* Ends the call that is outstanding, for good. */
static bool end_outstanding(struct thread *me)
{
	long cookie = result_of(me);

	if (!is_pending(cookie))
		return false;
	/* The worker may not have begun with it, as it had if the call was a direct one. */
	if (mode == OFFLOAD)
		CALL3(__NR_wait_for_async, 0, cookie, &a_moment);
	/* A value may look like a cookie: then there is no such call. */
	if (CALL2(__NR_async_cancel, 0, cookie) == -EINVAL)
		return false;
	while (result_of(me) == cookie)
		CALL3(__NR_wait_for_async, 0, cookie, NULL);
	return true;
}

static void on_signal(int signal, siginfo_t *info, void *context);

static void call_handler(const struct action *action, int signal, siginfo_t *info, void *context)
{
	const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool interrupted, decided, restart;
	struct thread *me;
	long result;

	if (filtered) {
		action->handler(signal, info, context);
		return;
	}
	me = this_thread();
	interrupted = me->interrupted;
	decided = me->decided;
	restart = me->restart;
	if (end_outstanding(me))
		interrupted = true;
	/*
	 * Of several signals at once the kernel goes by the one it takes first, whose handler runs
	 * last: the frames of the others are on top of it, at the beginning of its handler.
	 */
	if (interrupted && !decided && regs[REG_RIP] != (long)on_signal) {
		restart = action->flags & SA_RESTART;
		decided = true;
	}
	result = result_of(me);
	action->handler(signal, info, context);
	/* It may have submitted calls, or have gone on as another process. */
	me = this_thread();
	me->interrupted = interrupted;
	me->decided = decided;
	me->restart = restart;
	me->handled = true;
	__atomic_store_n(&me->result, result, __ATOMIC_RELEASE);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	struct action action = actions[signal];

	call_handler(&action, signal, info, context);
}

static long set_action(struct thread *me, const struct arguments *args)
{
	struct action new, old, before, *kept;
	long signal = args->a[0], ret;
	unsigned long from = args->a[1], to = args->a[2];

	if (signal < 1 || signal >= SIGNALS || (unsigned long)args->a[3] != MASK_SIZE)
		return direct(__NR_rt_sigaction, args);
	if (from && copy_in(&new, from, sizeof(new)))
		return -EFAULT;
	new.mask &= ~SIGSYS_BIT;
	if (me->is_guest) {
		/* What is kept is for another process, and not to be written to. */
		if (signal == SIGSYS)
			return 0;
		ret = CALL4(__NR_rt_sigaction, signal, from ? &new : NULL, &old, MASK_SIZE);
		if (!ret && old.handler == on_signal)
			old = actions[signal];
		return ret ?: to ? copy_out(to, &old, sizeof(old)) : 0;
	}
	kept = &actions[signal];
	before = *kept;
	if (signal == SIGSYS) {
		if (from)
			*kept = new;
		return to ? copy_out(to, &before, sizeof(before)) : 0;
	}
	if (from && is_handler(new.handler)) {
		*kept = new;
		new.handler = on_signal;
		new.flags |= SA_WITH_RESTORER;
		new.restorer = return_from_signal;
	}
	ret = CALL4(__NR_rt_sigaction, signal, from ? &new : NULL, &old, MASK_SIZE);
	if (ret) {
		*kept = before;
		return ret;
	}
	if (old.handler == on_signal)
		old = before;
	return to ? copy_out(to, &old, sizeof(old)) : 0;
}

static void keep_mask(ucontext_t *context)
{
	mask_t mask;

	/* The handler of SIGSYS blocks nothing, so that its mask is that of the program. */
	if (!CALL4(__NR_rt_sigprocmask, SIG_SETMASK, NULL, &mask, MASK_SIZE))
		__builtin_memcpy(&context->uc_sigmask, &mask, sizeof(mask));
}

/* A mask that the program gives, without SIGSYS: a dispatch that is blocked is the end of it. */
static bool take_mask(long *argument, long size, mask_t *mask)
{
	if (!*argument || size != MASK_SIZE || copy_in(mask, *argument, sizeof(*mask)))
		return false;
	*mask &= ~SIGSYS_BIT;
	*argument = (long)mask;
	return true;
}

/* Calls that give a mask by a pointer to a pair of pointer and size. */
static bool take_mask_pair(long *argument, long pair[2], mask_t *mask)
{
	if (!*argument || copy_in(pair, *argument, 2 * sizeof(*pair)) ||
	    !take_mask(&pair[0], pair[1], mask))
		return false;
	*argument = (long)pair;
	return true;
}

static long set_stack(const struct arguments *args, ucontext_t *context)
{
	/* The old one may come to lie where the new one is. */
	stack_t stack;
	bool is_read = args->a[0] && !copy_in(&stack, args->a[0], sizeof(stack));
	long ret = direct(__NR_sigaltstack, args);

	/* What is in the frame is set when the handler returns. */
	if (!ret && is_read)
		context->uc_stack = stack;
	return ret;
}

/* --- threads and processes that it makes -------------------------------------------------- */

static void on_dispatch(int signal, siginfo_t *info, void *given);

static void catch_dispatch(void)
{
	const struct action action = {
		.handler = on_dispatch,
		.flags = SA_SIGINFO | SA_NODEFER | SA_WITH_RESTORER,
		.restorer = return_from_signal,
	};

	if (CALL4(__NR_rt_sigaction, SIGSYS, &action, NULL, MASK_SIZE))
		die("SIGSYS cannot be handled");
}

static long dispatch(bool on)
{
	return CALL5(__NR_prctl, PR_SET_SYSCALL_USER_DISPATCH,
		     on ? PR_SYS_DISPATCH_ON : PR_SYS_DISPATCH_OFF, on ? pass_begin : 0,
		     on ? pass_end - pass_begin : 0, 0);
}

static __attribute__((used)) void begin_child(long what)
{
	bool is_process = CALL0(__NR_getpid) == CALL0(__NR_gettid);
	struct thread *me;

	if (filtered)
		return;
	COUNT(threads);
	me = this_thread();
	me->is_apart = what & APART;
	me->is_guest = what & GUEST;
	if (is_process)
		*ways_of(me) = (struct ways) { };
	/* CLONE_CLEAR_SIGHAND */
	if (is_process)
		catch_dispatch();
	if (dispatch(true))
		die("a new thread cannot have its calls dispatched");
}

/* In both, with what vfork() has returned and, in the child, the address to return to. */
static __attribute__((used)) unsigned long after_vfork(long value, unsigned long address)
{
	struct thread *me;

	if (!value) {
		begin_child(APART | GUEST);
		return address;
	}
	me = this_thread();
	return me->vforks[--me->vforks_used % 8];
}

/* Lets the program make the call itself, as pass_clone or pass_vfork. */
static void make_child(struct thread *me, long nr, const struct arguments *args, greg_t *regs)
{
	struct start *start = &me->starts[me->starts_used++ % 4];
	unsigned long size, flags = 0, top = 0, frame[4];

	COUNT(calls[nr].direct);
	start->rdi = args->a[0];
	start->rsi = args->a[1];
	start->what = 0;
	regs[REG_RCX] = regs[REG_RIP];
	regs[REG_R11] = (long)start;
	regs[REG_RIP] = (long)pass_clone;

	if (nr == __NR_clone3) {
		size = args->a[1];
		/* What is wrong with it is for the kernel to say. */
		if (size < CLONE_ARGS_SIZE_VER0 || size > sizeof(start->args) ||
		    copy_in(&start->args, args->a[0], size))
			return;
		flags = start->args.flags;
		if (start->args.stack && start->args.stack_size > 128 + sizeof(frame)) {
			top = start->args.stack + start->args.stack_size;
			start->args.stack_size -= 128 + sizeof(frame);
			start->rdi = (long)&start->args;
		}
	} else if (nr == __NR_clone) {
		flags = args->a[0];
		top = args->a[1];
		if (top)
			start->rsi = top - 128 - sizeof(frame);
	} else if (nr == __NR_vfork) {
		flags = CLONE_VM | CLONE_VFORK;
	}
	if ((flags & CLONE_VM) && !top) {
		me->vforks[me->vforks_used++ % 8] = regs[REG_RCX];
		regs[REG_RIP] = (long)pass_vfork;
		return;
	}
	if ((flags & CLONE_VM) && !(flags & CLONE_THREAD))
		start->what = flags & CLONE_SIGHAND ? APART : APART | GUEST;
	if (!top)
		return;
	/* What pass_clone finds on the new stack. If there is none, the child faults either way. */
	frame[0] = start->what;
	frame[1] = regs[REG_RCX];
	frame[2] = args->a[1];
	frame[3] = args->a[0];
	copy_out(top - 128 - sizeof(frame), frame, sizeof(frame));
}

/* --- dispatched calls --------------------------------------------------------------------- */

static bool sets_filter(long nr, const struct arguments *args)
{
	if (nr == __NR_seccomp)
		return args->a[0] == SECCOMP_SET_MODE_STRICT ||
		       args->a[0] == SECCOMP_SET_MODE_FILTER;
	return nr == __NR_prctl && args->a[0] == PR_SET_SECCOMP;
}

/* A filter may kill for the calls of this file: from now on the thread makes its own. */
static long set_filter(long nr, const struct arguments *args)
{
	long ret;

	dispatch(false);
	filtered = true;
	ret = direct(nr, args);
	if (ret < 0) {
		filtered = false;
		dispatch(true);
	} else {
		COUNT(left);
	}
	return ret;
}

/* Calls that say something about the frame the handler returns to, or that never return. */
static bool is_special(struct thread *me, long nr, struct arguments *args, ucontext_t *context,
		       long *value)
{
	greg_t *regs = context->uc_mcontext.gregs;
	long pair[2];
	mask_t mask;

	switch (nr) {
	case __NR_rt_sigreturn:
		regs[REG_RIP] = (long)pass_sigreturn;
		return true;
	case __NR_clone:
	case __NR_clone3:
	case __NR_fork:
	case __NR_vfork:
		make_child(me, nr, args, regs);
		return true;
	case __NR_exit:
		/* It may be the last thread of its process. */
		count_ways(ways_of(me));
		forget_thread(me);
		direct(nr, args);
		__builtin_unreachable();
	case __NR_exit_group:
		count_ways(ways_of(me));
		direct(nr, args);
		__builtin_unreachable();
	case __NR_execve:
	case __NR_execveat:
		count_ways(ways_of(me));
		*value = direct(nr, args);
		break;
	case __NR_rt_sigaction:
		*value = set_action(me, args);
		break;
	case __NR_rt_sigprocmask:
		take_mask(&args->a[1], args->a[3], &mask);
		*value = direct(nr, args);
		me->handled = true;
		break;
	case __NR_rt_sigsuspend:
		take_mask(&args->a[0], args->a[1], &mask);
		*value = direct(nr, args);
		break;
	case __NR_ppoll:
		if (!take_mask(&args->a[3], args->a[4], &mask))
			return false;
		*value = direct(nr, args);
		break;
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
		if (!take_mask(&args->a[4], args->a[5], &mask))
			return false;
		*value = direct(nr, args);
		break;
	case __NR_pselect6:
	case __NR_io_pgetevents:
		if (!take_mask_pair(&args->a[5], pair, &mask))
			return false;
		*value = direct(nr, args);
		break;
	case __NR_sigaltstack:
		*value = set_stack(args, context);
		break;
	case __NR_prctl:
		if (args->a[0] != PR_SET_SYSCALL_USER_DISPATCH)
			return false;
		*value = -EINVAL;
		break;
	default:
		return false;
	}
	regs[REG_RAX] = *value;
	count_value(nr, *value);
	return true;
}

static void on_dispatch(int signal, siginfo_t *info, void *given)
{
	ucontext_t *context = given;
	greg_t *regs = context->uc_mcontext.gregs;
	long nr = regs[REG_RAX], value = 0;
	struct arguments args = { {
		regs[REG_RDI], regs[REG_RSI], regs[REG_RDX],
		regs[REG_R10], regs[REG_R8], regs[REG_R9],
	} };
	struct thread *me;

	if (info->si_code != SYS_USER_DISPATCH) {
		/* A filter's, or somebody has sent it. */
		struct action action = actions[SIGSYS];

		if (is_handler(action.handler)) {
			call_handler(&action, signal, info, given);
		} else if (info->si_code == SYS_SECCOMP) {
			/* The filter need not allow any call but the return: made again, it kills. */
			*(mask_t *)&context->uc_sigmask |= SIGSYS_BIT;
			regs[REG_RAX] = info->si_syscall;
			regs[REG_RIP] -= SYSCALL_SIZE;
		} else if (action.handler == (handler_fn *)SIG_DFL) {
			action = (struct action){ .handler = (handler_fn *)SIG_DFL };
			CALL4(__NR_rt_sigaction, SIGSYS, &action, NULL, MASK_SIZE);
			CALL3(__NR_tgkill, CALL0(__NR_getpid), CALL0(__NR_gettid), SIGSYS);
		}
		return;
	}
	if (filtered) {
		/* The program makes the call itself, and all that follow. */
		dispatch(false);
		regs[REG_RIP] -= SYSCALL_SIZE;
		return;
	}
	/* It was taken away for the time of this handler. */
	if (context->uc_stack.ss_flags & SS_AUTODISARM)
		CALL2(__NR_sigaltstack, &context->uc_stack, NULL);
	me = this_thread();
	me->handled = false;
	if (sets_filter(nr, &args)) {
		/* It need not allow anything but to return from here. */
		value = set_filter(nr, &args);
		regs[REG_RAX] = value;
		count_value(nr, value);
		return;
	}
	if (!is_special(me, nr, &args, context, &value)) {
		value = mode == DIRECT ? direct(nr, &args) : submit(me, nr, &args);
		regs[REG_RAX] = value;
		count_value(nr, value);
	}
	if (this_thread()->handled)
		keep_mask(context);
}

/* --- the beginning ------------------------------------------------------------------------ */

static const char *value_of(char **environment, const char *name)
{
	size_t i;

	for (; *environment; environment++) {
		for (i = 0; name[i] && (*environment)[i] == name[i]; i++)
			;
		if (!name[i] && (*environment)[i] == '=')
			return *environment + i + 1;
	}
	return NULL;
}

static bool is_equal(const char *one, const char *other)
{
	while (*one && *one == *other)
		one++, other++;
	return *one == *other;
}

static void open_report(const char *path)
{
	unsigned long none = 0;
	long fd = CALL3(__NR_open, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666), at;

	/* A program that may not write to it, or not see it, has to run even so. */
	if (fd < 0)
		return;
	CALL2(__NR_fchmod, fd, 0666);
	CALL2(__NR_ftruncate, fd, sizeof(*report));
	at = CALL(__NR_mmap, 0, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CALL1(__NR_close, fd);
	if ((unsigned long)at >= -4095UL)
		return;
	report = (struct report *)at;
	if (!__atomic_compare_exchange_n(&report->magic, &none, REPORT_MAGIC, false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
	    none != REPORT_MAGIC)
		die("the file of ASYNC_SHIM_REPORT is something else");
}

__attribute__((constructor)) static void begin(int argc, char **argv, char **environment)
{
	const char *wanted = value_of(environment, "ASYNC_SHIM");
	const char *path = value_of(environment, "ASYNC_SHIM_REPORT");
	struct arguments none = { };
	mask_t mask = SIGSYS_BIT;
	long result = 0;

	/* As a part of a program, and not as a library of its own, only when asked for. */
	if (!wanted && SHIM_IS_PART)
		return;
	if (wanted && is_equal(wanted, "direct"))
		mode = DIRECT;
	else if (wanted && is_equal(wanted, "offload"))
		mode = OFFLOAD;
	else if (wanted && !is_equal(wanted, "async"))
		die("ASYNC_SHIM is neither async nor offload nor direct");
	if (path && *path)
		open_report(path);
	if (mode != DIRECT &&
	    CALL4(__NR_async_submit, 0, &result, __NR_getppid, none.a) == -ENOSYS)
		die("this kernel has no async_submit");
	/* What the filter of another program makes of the calls of this file is its affair. */
	if (CALL1(__NR_prctl, PR_GET_SECCOMP)) {
		COUNT(left);
		return;
	}
	catch_dispatch();
	if (CALL4(__NR_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, MASK_SIZE))
		die("SIGSYS cannot be unblocked");
	COUNT(programs);
	/* Of the program that the process was before. */
	if (report != &nowhere)
		read_ways(&ways);
	if (dispatch(true))
		die("this kernel dispatches no system calls");
}
