// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to create a file, to write a byte to it and to remove it, on tmpfs; with
 * `rig exact --ext4` also on ext4, where fsync() is measured too.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "exact.h"

#define TIMES 5

static struct exact_window window;

static void report(const char *system, const char *what)
{
	char name[64];

	exact_end(&window);
	snprintf(name, sizeof(name), "%s %s", system, what);
	exact_report(name, &window);
}

static void once(const char *system, const char *path, bool durable)
{
	int file;

	exact_begin(&window);
	file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	report(system, "create");
	if (file < 0)
		exit(1);

	exact_begin(&window);
	if (write(file, "x", 1) != 1)
		exit(1);
	report(system, "write");

	if (durable) {
		exact_begin(&window);
		if (fsync(file))
			exit(1);
		report(system, "fsync");
	}
	close(file);

	exact_begin(&window);
	if (unlink(path))
		exit(1);
	report(system, "unlink");
}

int main(void)
{
	const char *ext4 = exact_ext4();
	char path[64];
	int i;

	for (i = 0; i < TIMES; i++)
		once("tmpfs", "/tmp/file", false);
	if (ext4)
		snprintf(path, sizeof(path), "%s/file", ext4);
	for (i = 0; i < TIMES && ext4; i++)
		once("ext4", path, true);
	return 0;
}
