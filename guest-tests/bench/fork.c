// SPDX-License-Identifier: GPL-2.0
/* What it costs to make a process and to wait for it. For `rig exact`. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 5

int main(void)
{
	struct exact_window window;
	pid_t child;
	int i;

	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		child = fork();
		if (!child)
			_exit(0);
		if (child < 0 || waitpid(child, NULL, 0) != child)
			return 1;
		exact_end(&window);
		exact_report("fork+wait", &window);
	}
	return 0;
}
