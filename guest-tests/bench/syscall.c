// SPDX-License-Identifier: GPL-2.0
/*
 * What entering the kernel costs, and the clock's own share: every figure has "empty" in it.
 */
#include <sys/syscall.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 3

int main(void)
{
	struct exact_window window;
	char byte;
	int ends[2], i;

	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		exact_end(&window);
		exact_report("empty", &window);
	}
	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		syscall(SYS_getppid);
		exact_end(&window);
		exact_report("getppid", &window);
	}
	if (pipe(ends) || write(ends[1], "xxxx", 4) != 4)
		return 1;
	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		if (read(ends[0], &byte, 1) != 1)
			return 1;
		exact_end(&window);
		exact_report("read of a pipe", &window);
	}
	return 0;
}
