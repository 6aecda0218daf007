// SPDX-License-Identifier: GPL-2.0
/*
 * A call is handed over at the bottom of the stack that it sleeps on, however deep that is: what the
 * scheduler does there must not need much. A kernel with CONFIG_DEBUG_STACK_USAGE says of each task
 * how much of its stack has never been used; a call that was handed over is compared with the same
 * call made directly.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"

#ifndef __NR_async_submit
#error the headers of the kernel under test have no __NR_async_submit
#endif

/* Bytes that a call may go deeper for being one that can be handed over. */
#define MOST_DEEPER	1024
#define MOST_TASKS	64
#define TIMES		5

struct depth {
	pid_t tid;
	long unused;
};

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		printf("# %s: %s\n", path, strerror(errno));
	close(fd);
}

/* What the kernel prints of the tasks of a process; how many there were. */
static int look_at(pid_t pid, struct depth *depths)
{
	char record[2048], *at;
	int fd, tid, tgid, count = 0;
	ssize_t size;
	long unused;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return -1;
	lseek(fd, 0, SEEK_END);
	write_to("/proc/sysrq-trigger", "t");
	while ((size = read(fd, record, sizeof(record) - 1)) > 0 || (size < 0 && errno == EPIPE)) {
		if (size < 0)
			continue;
		record[size] = 0;
		at = strstr(record, " stack:");
		if (!at || sscanf(at, " stack:%ld pid:%d tgid:%d", &unused, &tid, &tgid) != 3)
			continue;
		if (tgid == pid && count < MOST_TASKS)
			depths[count++] = (struct depth){ tid, unused };
	}
	close(fd);
	return count;
}

FIXTURE(depth) {
	char level[64];
	int fds[2];
};

FIXTURE_SETUP(depth)
{
	struct depth depths[MOST_TASKS];
	int fd = open("/proc/sys/kernel/printk", O_RDONLY);

	ASSERT_LE(0, fd);
	memset(self->level, 0, sizeof(self->level));
	ASSERT_LT(0, read(fd, self->level, sizeof(self->level) - 1));
	close(fd);
	/* Not on the console. */
	write_to("/proc/sys/kernel/printk", "1");
	ASSERT_EQ(1, look_at(getpid(), depths));
	if (!depths[0].unused)
		SKIP(return, "a kernel that does not look (CONFIG_DEBUG_STACK_USAGE)");
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(depth)
{
	write_to("/proc/sys/kernel/printk", self->level);
}

FIXTURE_VARIANT(depth) {
	bool polls;
};

FIXTURE_VARIANT_ADD(depth, read) { };

/* One that has a good deal on its stack when it sleeps. */
FIXTURE_VARIANT_ADD(depth, poll) {
	.polls = true,
};

static long word;
static char byte;

/* A process that sleeps in a call of its main thread. */
static pid_t sleep_in(bool polls, bool submits, int fd)
{
	static struct pollfd fds[30];
	unsigned long args[6] = { fd, (unsigned long)&byte, 1 };
	long number = polls ? __NR_poll : __NR_read;
	unsigned int i;
	pid_t child;

	for (i = 0; i < 30; i++)
		fds[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
	if (polls) {
		args[0] = (unsigned long)fds;
		args[1] = 30;
		args[2] = -1;
	}
	child = fork();
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (submits && syscall(__NR_async_submit, 0UL, &word, number, args) <= 0)
		_exit(1);
	if (submits)
		pause();
	syscall(number, args[0], args[1], args[2]);
	_exit(2);
}

static bool is_in(const char *path, const char *text)
{
	char seen[1024] = "\n";
	int fd = open(path, O_RDONLY);
	bool is = fd >= 0 && read(fd, seen + 1, sizeof(seen) - 2) > 0 && strstr(seen, text);

	if (fd >= 0)
		close(fd);
	return is;
}

/* Is its call outstanding, or does it sleep in it? */
static bool is_away(pid_t child, long number, bool submits)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/proc/%d/%s", child, submits ? "async_submit" : "syscall");
	if (submits)
		return is_in(path, "\noutstanding: 1\n");
	snprintf(text, sizeof(text), "\n%ld 0x", number);
	return is_in(path, text);
}

/* How much of the stack that the call is on was never used; -1 if there is none such. */
static long unused_by(struct __test_metadata *_metadata, bool polls, bool submits, int fd)
{
	struct depth depths[MOST_TASKS];
	long unused = -1;
	int count, i, status;
	pid_t child;

	child = sleep_in(polls, submits, fd);
	ASSERT_LT(0, child);
	while (!is_away(child, polls ? __NR_poll : __NR_read, submits)) {
		ASSERT_EQ(0, waitpid(child, &status, WNOHANG));
		usleep(1000);
	}
	count = look_at(child, depths);
	for (i = 0; i < count; i++) {
		/* The thread has gone on as another task, and has kept its tid. */
		if ((depths[i].tid == child) == submits)
			continue;
		if (unused < 0 || depths[i].unused < unused)
			unused = depths[i].unused;
	}
	kill(child, SIGKILL);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	return unused;
}

/* An interrupt may come at the deepest place, on top of it: the best of several. */
static long unused_at_best(struct __test_metadata *_metadata, bool polls, bool submits, int fd)
{
	long unused, best = -1;
	int i;

	for (i = 0; i < TIMES; i++) {
		unused = unused_by(_metadata, polls, submits, fd);
		if (unused > best)
			best = unused;
	}
	return best;
}

TEST_F(depth, handing_over_is_shallow)
{
	long direct = unused_at_best(_metadata, variant->polls, false, self->fds[0]);
	long handed_over = unused_at_best(_metadata, variant->polls, true, self->fds[0]);

	TH_LOG("never used of the stack: %ld bytes in a direct call, %ld in one handed over",
	       direct, handed_over);
	ASSERT_LT(0, direct);
	ASSERT_LT(0, handed_over);
	EXPECT_GE(MOST_DEEPER, direct - handed_over);
	/* And there is a good deal left. */
	EXPECT_LE(4096, handed_over);
}

TEST_HARNESS_MAIN
