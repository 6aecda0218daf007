// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a board: puts the image's root file system into memory and goes on there.
 *
 * A kernel under test must not touch the board's disk, so the image's blocks come with it, in its
 * initramfs: /rig/root.blocks, those that are not empty, each behind its number (64 bits). They go
 * onto a RAM disk, which is then the root. Whatever fails is a panic that says what: PID 1 ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES	4096
#define BLOCKS		"/rig/root.blocks"
#define RAM_DISK	"/dev/ram0"
#define ROOT		"/root"
#define INIT		"/usr/lib/rig/init"
#define GIVE_BACK	(16 << 20)	/* bytes of the archive that are freed at once */

struct block {
	uint64_t number;
	char bytes[BLOCK_BYTES];
};

static void give_up(const char *what)
{
	fprintf(stderr, "rig: the root file system cannot be put into memory: %s: %s\n", what,
		strerror(errno));
	exit(1);
}

static void mount_at(const char *type, const char *place)
{
	if (mkdir(place, 0755) && errno != EEXIST)
		give_up(place);
	if (mount(type, place, type, 0, NULL))
		give_up(place);
}

/* What has been copied is freed as we go: a board need not have memory for it twice. */
static void fill_disk(void)
{
	static struct block block;
	int from = open(BLOCKS, O_RDWR | O_CLOEXEC), to = open(RAM_DISK, O_WRONLY | O_CLOEXEC);
	off_t done = 0, freed = 0;
	ssize_t length;

	if (from < 0 || to < 0)
		give_up(from < 0 ? BLOCKS : RAM_DISK);
	while ((length = read(from, &block, sizeof(block))) == sizeof(block)) {
		if (pwrite(to, block.bytes, BLOCK_BYTES, block.number * BLOCK_BYTES) != BLOCK_BYTES)
			give_up(RAM_DISK);
		done += length;
		if (done - freed < GIVE_BACK)
			continue;
		/* A ramfs has no holes; then it is freed at the end. */
		fallocate(from, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, freed, done - freed);
		freed = done;
	}
	if (length)
		give_up(BLOCKS);
	if (fsync(to))
		give_up(RAM_DISK);
	close(from);
	close(to);
	unlink(BLOCKS);
}

int main(void)
{
	char *const words[] = { INIT, NULL };

	mount_at("devtmpfs", "/dev");
	fill_disk();
	if (mkdir(ROOT, 0755) && errno != EEXIST)
		give_up(ROOT);
	if (mount(RAM_DISK, ROOT, "ext4", 0, NULL))
		give_up("ext4");
	if (mount("/dev", ROOT "/dev", NULL, MS_MOVE, NULL))
		give_up(ROOT "/dev");
	unlink("/init");
	if (chdir(ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		give_up("switching the root");
	execve(INIT, words, environ);
	give_up(INIT);
}
