// SPDX-License-Identifier: GPL-2.0
/*
 * Prints what the shim has counted: shim_report FILE
 *
 * Of the calls that went outstanding, how many were handed over; then each system call that was
 * made. Exit code 0 also when some of them never succeeded, which is said.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

static const char *const names[REPORT_NUMBERS] = {
#define NUMBER(name)	[__NR_##name] = #name,
#include <asm/unistd.h>
#include "numbers.h"
};

static void print_call(unsigned int nr, const struct report_call *call)
{
	char name[32];

	if (nr == REPORT_NUMBERS - 1)
		snprintf(name, sizeof(name), "(no such number)");
	else if (names[nr])
		snprintf(name, sizeof(name), "%s", names[nr]);
	else
		snprintf(name, sizeof(name), "number %u", nr);
	printf("%-24s %10lu %11lu %8lu %11lu %9lu %10lu  %ld\n", name, call->inlined,
	       call->outstanding, call->direct, call->interrupted, call->restarted, call->good,
	       call->last_error);
}

static int print(const struct report *report)
{
	unsigned long outstanding = 0, calls = 0;
	unsigned int nr, never = 0;
	const struct report_call *call;

	for (nr = 0; nr < REPORT_NUMBERS; nr++) {
		call = &report->calls[nr];
		outstanding += call->outstanding;
		calls += call->inlined + call->outstanding + call->direct;
	}
	printf("programs: %lu\nthreads: %lu\nleft for a seccomp filter: %lu\n"
	       "without a worker: %lu\ncalls: %lu\noutstanding: %lu\nhanded_over: %lu\n"
	       "offloaded: %lu\nfell_back: %lu\nmissed: %lu\n\n", report->programs, report->threads,
	       report->left, report->full, calls, outstanding, report->handed_over,
	       report->offloaded, report->fell_back,
	       report->missed);
	printf("%-24s %10s %11s %8s %11s %9s %10s  %s\n", "call", "inline", "outstanding",
	       "direct", "interrupted", "restarted", "succeeded", "last error");
	for (nr = 0; nr < REPORT_NUMBERS; nr++) {
		call = &report->calls[nr];
		if (call->inlined || call->outstanding || call->direct)
			print_call(nr, call);
	}
	printf("\nnever succeeded:");
	for (nr = 0; nr < REPORT_NUMBERS; nr++) {
		call = &report->calls[nr];
		if (call->good || !(call->inlined || call->outstanding) || !names[nr])
			continue;
		printf(" %s (%ld)", names[nr], call->last_error);
		never++;
	}
	printf("%s\n", never ? "" : " none");
	return 0;
}

int main(int argc, char **argv)
{
	static struct report report;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: shim_report FILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY);
	if (fd < 0 || read(fd, &report, sizeof(report)) != sizeof(report) ||
	    report.magic != REPORT_MAGIC) {
		fprintf(stderr, "shim_report: %s is no report of the shim\n", argv[1]);
		return 2;
	}
	return print(&report);
}
