// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a machine that shows one thing again: runs one program on the console, says
 * how it ended, powers off.
 *
 * Beside it lie /repro/argv and /repro/env (words, each ended by a NUL), /repro/plan (the directory
 * to start in and seconds it may take, a line each) and /suite. Where there is a disk, the program
 * sees that as its root, with /suite at /opt; else this archive, which has its libraries.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK		"/dev/vda"
#define DISK_WAIT_MS	3000
#define WORDS		1024
#define BYTES		65536

static volatile sig_atomic_t rang;

static void power_off(void)
{
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1); /* which panics, and so is seen */
}

static void give_up(const char *what)
{
	printf("rig: repro: error: %s: %s\n", what, strerror(errno));
	power_off();
}

/* One that is not there in this kernel is missed by whoever needs it. */
static void mount_at(const char *type, const char *place)
{
	mkdir(place, 0755);
	if (mount(type, place, type, 0, NULL))
		printf("rig: repro: no %s at %s: %s\n", type, place, strerror(errno));
}

static void mount_all(void)
{
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	mount_at("devtmpfs", "/dev");
	mount_at("tmpfs", "/tmp");
	mount_at("tmpfs", "/dev/shm");
	mkdir("/sys/fs/cgroup", 0755);
	mount_at("cgroup2", "/sys/fs/cgroup");
}

static char **read_words(const char *path)
{
	char *bytes = calloc(1, BYTES + 1), **words = calloc(WORDS + 1, sizeof(*words));
	int file = open(path, O_RDONLY | O_CLOEXEC), count = 0;
	ssize_t length, at;

	if (file < 0 || !bytes || !words)
		give_up(path);
	length = read(file, bytes, BYTES);
	close(file);
	for (at = 0; at < length && count < WORDS; at += strlen(bytes + at) + 1)
		words[count++] = bytes + at;
	return words;
}

/* The disk as the root, the suite within it; false where there is none. */
static bool enter_disk(void)
{
	for (int waited = 0; access(DISK, F_OK); waited++) {
		if (waited == DISK_WAIT_MS || access("/repro/disk", F_OK))
			return false;
		usleep(1000);
	}
	mkdir("/disk", 0755);
	if (mount(DISK, "/disk", "ext4", 0, NULL))
		give_up(DISK);
	mkdir("/disk/opt", 0755);
	if (mount("/suite", "/disk/opt", NULL, MS_BIND, NULL))
		give_up("/disk/opt");
	if (chroot("/disk") || chdir("/"))
		give_up("/disk");
	return true;
}

static void ring(int number)
{
	(void)number;
	rang = 1;
}

static void run(char **argv, char **env, const char *directory, unsigned int seconds)
{
	struct sigaction action = { .sa_handler = ring };
	pid_t child, ended;
	int status = 0;

	printf("rig: repro: begins\n");
	fflush(stdout);
	sigaction(SIGALRM, &action, NULL);
	child = fork();
	if (!child) {
		setsid();
		if (chdir(directory) || execve(argv[0], argv, env))
			printf("rig: repro: error: %s: %s\n", argv[0], strerror(errno));
		fflush(stdout);
		_exit(127);
	}
	alarm(seconds);
	do
		ended = wait(&status);
	while (ended != child && !rang && (ended > 0 || errno == EINTR));
	if (ended != child)
		printf("rig: repro: timeout after %u s\n", seconds);
	else if (WIFSIGNALED(status))
		printf("rig: repro: signal %d\n", WTERMSIG(status));
	else
		printf("rig: repro: exit %d\n", WEXITSTATUS(status));
}

int main(void)
{
	char **argv = read_words("/repro/argv"), **env = read_words("/repro/env");
	char directory[4096] = "", place[4200];
	unsigned int seconds = 0;
	FILE *plan = fopen("/repro/plan", "r");
	bool disk;

	if (!plan || fscanf(plan, "%4095[^\n] %u", directory, &seconds) != 2)
		give_up("/repro/plan");
	fclose(plan);
	mount_at("devtmpfs", "/dev");
	disk = enter_disk();
	mount_all();
	snprintf(place, sizeof(place), "%s/%s", disk ? "/opt" : "/suite", directory);
	run(argv, env, place, seconds);
	power_off();
}
