// SPDX-License-Identifier: GPL-2.0
/*
 * Gives a machine restored from a snapshot what two restores must not share:
 * randomness, the time of day, host name and machine id.
 *
 * Runs from init and waits on a serial line of its own (argv[1]); a machine
 * without that line has no use for it. On the line, ended by newlines:
 *
 *   hello                                  -> "ready"
 *   renew SEED SECONDS.NANOSECONDS HOSTNAME MACHINE-ID
 *                                          -> "renewed", then the program ends
 *
 * SEED and MACHINE-ID are hexadecimal. Whatever fails is answered with
 * "failed: WHAT: ERROR" and ends the program too: the host must not use such a
 * machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 64
#define WORDS 4

static int line;

static void say(const char *words)
{
	dprintf(line, "%s\n", words);
	tcdrain(line);
}

static void fail(const char *what)
{
	dprintf(line, "failed: %s: %s\n", what, strerror(errno));
	tcdrain(line);
	exit(1);
}

/* A serial line starts as a terminal; this one carries bytes. */
static void open_line(const char *path)
{
	struct termios raw;

	line = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (line < 0 || tcgetattr(line, &raw))
		exit(0);	/* no such line: this machine is never restored */
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL;
	if (tcsetattr(line, TCSANOW, &raw))
		fail("tcsetattr");
}

static void write_file(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
	size_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != (ssize_t)size || close(fd))
		fail(path);
}

/* Mixed in, credited, and taken up at once by the generators of all CPUs. */
static void renew_randomness(const char *hex)
{
	struct {
		struct rand_pool_info info;
		unsigned char bytes[SEED_BYTES];
	} seed = { .info = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES } };
	unsigned char *to = (unsigned char *)seed.info.buf;
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);

	errno = EINVAL;
	if (strlen(hex) != 2 * SEED_BYTES)
		fail("seed");
	for (int i = 0; i < SEED_BYTES; i++)
		if (sscanf(hex + 2 * i, "%2hhx", to + i) != 1)
			fail("seed");
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &seed) || ioctl(fd, RNDRESEEDCRNG))
		fail("randomness");
	close(fd);
}

static void renew_clock(const char *text)
{
	struct timespec now;

	errno = EINVAL;
	if (sscanf(text, "%ld.%9ld", &now.tv_sec, &now.tv_nsec) != 2 ||
	    clock_settime(CLOCK_REALTIME, &now))
		fail("clock");
}

static void renew_names(const char *hostname, const char *machine_id)
{
	char text[256];

	if (sethostname(hostname, strlen(hostname)))
		fail("hostname");
	snprintf(text, sizeof(text), "%s\n", hostname);
	write_file("/etc/hostname", O_TRUNC, text);
	snprintf(text, sizeof(text), "127.0.0.1 %s\n", hostname);
	write_file("/etc/hosts", O_APPEND, text);
	snprintf(text, sizeof(text), "%s\n", machine_id);
	write_file("/etc/machine-id", O_TRUNC, text);
}

/* False at the line's end. */
static int next_line(char *text, size_t size)
{
	size_t length = 0;

	while (length < size - 1) {
		if (read(line, text + length, 1) != 1)
			return 0;
		if (text[length] == '\n')
			break;
		length++;
	}
	text[length] = '\0';
	return 1;
}

static void renew(char *rest)
{
	char *word[WORDS];

	for (int i = 0; i < WORDS; i++) {
		word[i] = strsep(&rest, " ");
		if (!word[i] || !*word[i]) {
			errno = EBADMSG;
			fail("message");
		}
	}
	renew_randomness(word[0]);
	renew_clock(word[1]);
	renew_names(word[2], word[3]);
	say("renewed");
}

int main(int argc, char **argv)
{
	char text[512];

	if (argc != 2)
		return 2;
	open_line(argv[1]);
	while (next_line(text, sizeof(text))) {
		if (!strcmp(text, "hello")) {
			say("ready");
		} else if (!strncmp(text, "renew ", 6)) {
			renew(text + 6);
			return 0;
		}
	}
	return 0;
}
