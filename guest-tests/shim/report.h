/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the shim counts, in a file that all processes of a run share: async_shim.c adds to it, and
 * shim_report.c prints it.
 */
#ifndef REPORT_H
#define REPORT_H

#define REPORT_MAGIC	0x315f6d6968735f61UL
/* More numbers than there are; the last one stands for all that are none. */
#define REPORT_NUMBERS	640

/* Of one system call. Each call is counted once in inlined, outstanding, direct or unknown. */
struct report_call {
	unsigned long inlined;
	unsigned long outstanding;
	unsigned long direct;		/* refused by async_submit, or made by the shim itself */
	unsigned long interrupted;	/* by a signal while it was outstanding */
	unsigned long restarted;	/* after that, for SA_RESTART */
	unsigned long good;		/* came to a value that is no error */
	long last_error;
};

struct report {
	unsigned long magic;
	unsigned long programs;		/* that the shim was loaded into */
	unsigned long threads;		/* and processes that they made */
	unsigned long left;		/* threads that set up a seccomp filter */
	unsigned long full;		/* calls made directly for want of a worker */
	/* By /proc/self/async_submit of each process. */
	unsigned long handed_over;
	unsigned long offloaded;
	unsigned long fell_back;
	unsigned long missed;
	struct report_call calls[REPORT_NUMBERS];
};

#endif
