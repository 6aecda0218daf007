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

/* Installs a filter that answers one system call with an action; descriptor or 0. */
static inline long filter(unsigned int nr, unsigned int action, unsigned int flags)
{
	struct sock_filter code[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		ALLOW(action),
		ALLOW(SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = {
		.len = sizeof(code) / sizeof(*code),
		.filter = code,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return raw_call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
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
