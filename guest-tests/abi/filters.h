/* SPDX-License-Identifier: GPL-2.0 */
/* Filters of system calls that answer one of them. */
#ifndef FILTERS_H
#define FILTERS_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "calls.h"

#define ALLOW(value)	BPF_STMT(BPF_RET | BPF_K, value)
#define LOAD(field)	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))

/* Installs a filter that answers some system calls with an action; descriptor or 0. */
static inline long filter_all_of(const long *nrs, int count, unsigned int action,
				 unsigned int flags)
{
	struct sock_filter code[16] = { LOAD(nr) };
	const struct sock_fprog program = { .len = count + 3, .filter = code };
	int i;

	if (count + 3 > 16)
		return -E2BIG;
	for (i = 0; i < count; i++)
		code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nrs[i],
							   count - i, 0);
	code[1 + count] = (struct sock_filter)ALLOW(SECCOMP_RET_ALLOW);
	code[2 + count] = (struct sock_filter)ALLOW(action);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return raw_call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static inline long filter(long nr, unsigned int action, unsigned int flags)
{
	return filter_all_of(&nr, 1, action, flags);
}

/*
 * Installs a filter whose supervisor can have a signal come between the entry of a system call and
 * its sleep: once it has received the notification, only a deadly signal ends the wait for it.
 */
static inline long listener_of(const long *nrs, int count)
{
	return filter_all_of(nrs, count, SECCOMP_RET_USER_NOTIF,
			     SECCOMP_FILTER_FLAG_NEW_LISTENER |
			     SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
}

/* The supervisor's: waits for such a call, sends its thread the signal and lets the call go on. */
static inline const char *signal_a_call(int listener, pid_t process, int signal)
{
	struct pollfd entry = { .fd = listener, .events = POLLIN };
	struct seccomp_notif_resp answer = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
	struct seccomp_notif asked = { };

	if (poll(&entry, 1, DEADLINE_S * 1000) != 1 || !(entry.revents & POLLIN))
		return "no call to send a signal to";
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return "no notification";
	if (tgkill(process, asked.pid, signal))
		return "no thread to send a signal to";
	answer.id = asked.id;
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) ? "no answer" : NULL;
}

/* Lets a handler choose what an interrupted system call returns. */
static inline void set_return_value(ucontext_t *context, long value)
{
#if defined(__x86_64__)
	context->uc_mcontext.gregs[REG_RAX] = value;
#elif defined(__aarch64__)
	context->uc_mcontext.regs[0] = value;
#elif defined(__riscv)
	context->uc_mcontext.__gregs[REG_A0] = value;
#else
#error "which register holds the value of a system call?"
#endif
}

#endif /* FILTERS_H */
