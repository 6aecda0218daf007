// SPDX-License-Identifier: GPL-2.0
/* What it costs to make a thread and to join it. For `rig exact`. */
#include <pthread.h>
#include <stddef.h>

#include "exact.h"

#define TIMES 5

static void *nothing(void *argument)
{
	return argument;
}

int main(void)
{
	struct exact_window window;
	pthread_t thread;
	int i;

	for (i = 0; i < TIMES; i++) {
		exact_begin(&window);
		if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
			return 1;
		exact_end(&window);
		exact_report("pthread create+join", &window);
	}
	return 0;
}
