// SPDX-License-Identifier: GPL-2.0
/*
 * Gives a machine restored from a snapshot what two restores must not share:
 * randomness, the time of day, host name and machine id.
 *
 * Runs from init and waits on a serial line of its own (argv[1]); a machine
 * without that line has no use for it. On the line, ended by newlines:
 *
 *   hello                           -> "ready", and the machine can be saved
 *   renew SEED SECONDS.NANOSECONDS  -> "renewed", then the program ends
 *
 * SEED is hexadecimal; the machine id is drawn from what it seeds. Whatever
 * fails is answered with "failed: WHAT: ERROR" and ends the program too: the
 * host must not use such a machine.
 *
 * Every restore pays for what happens after "ready", on a processor that has
 * everything to translate anew: so files are opened before, they are in
 * memory, and the message is short.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 32
#define ID_BYTES 16

static int line, urandom = -1, machine_id = -1, hosts = -1;

static void say(const char *words)
{
	dprintf(line, "%s\n", words);
}

static void fail(const char *what)
{
	dprintf(line, "failed: %s: %s\n", what, strerror(errno));
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
	cfsetspeed(&raw, B115200);
	raw.c_cflag |= CLOCAL;
	if (tcsetattr(line, TCSANOW, &raw))
		fail("tcsetattr");
}

/* The file moves to /run, which is in memory; its place gets a link to it. */
static int open_in_memory(const char *place, const char *file)
{
	char text[4096];
	int from = open(place, O_RDONLY | O_CLOEXEC);
	int to = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t size = from < 0 ? 0 : read(from, text, sizeof(text));

	if (to < 0 || size < 0 || write(to, text, size) != size)
		fail(file);
	if (from >= 0)
		close(from);
	if ((unlink(place) && errno != ENOENT) || symlink(file, place))
		fail(place);
	return to;
}

static void prepare(void)
{
	urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (urandom < 0)
		fail("/dev/urandom");
	machine_id = open_in_memory("/etc/machine-id", "/run/machine-id");
	hosts = open_in_memory("/etc/hosts", "/run/hosts");
	say("ready");
}

static int digit(char c)
{
	const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c) : NULL;

	if (!found) {
		errno = EINVAL;
		fail("seed");
	}
	return found - digits;
}

/* Mixed in, credited, and taken up at once by the generators of all CPUs. */
static void renew_randomness(const char *hex)
{
	struct {
		struct rand_pool_info info;
		unsigned char bytes[SEED_BYTES];
	} seed = { .info = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES } };
	unsigned char *to = (unsigned char *)seed.info.buf;

	for (int i = 0; i < SEED_BYTES; i++, hex += 2)
		to[i] = digit(hex[0]) << 4 | digit(hex[1]);
	if (*hex) {
		errno = EINVAL;
		fail("seed");
	}
	if (ioctl(urandom, RNDADDENTROPY, &seed) || ioctl(urandom, RNDRESEEDCRNG))
		fail("randomness");
}

static void renew_clock(const char *text)
{
	struct timespec now = { 0 };
	char *rest;

	now.tv_sec = strtol(text, &rest, 10);
	now.tv_nsec = *rest == '.' ? strtol(rest + 1, &rest, 10) : -1;
	errno = EINVAL;
	if (*rest || clock_settime(CLOCK_REALTIME, &now))
		fail("clock");
}

static void renew_names(void)
{
	unsigned char id[ID_BYTES];
	char text[2 * ID_BYTES + 2], name[16], entry[32];
	int length;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		fail("getrandom");
	for (int i = 0; i < ID_BYTES; i++)
		sprintf(text + 2 * i, "%02x", id[i]);
	length = snprintf(name, sizeof(name), "rig-%.8s", text);
	if (sethostname(name, length))
		fail("hostname");
	strcat(text, "\n");
	if (ftruncate(machine_id, 0) || pwrite(machine_id, text, 33, 0) != 33)
		fail("machine-id");
	length = snprintf(entry, sizeof(entry), "127.0.0.1 %s\n", name);
	if (write(hosts, entry, length) != length)
		fail("hosts");
}

/* False at the line's end. What came after the newline would be lost: nothing does. */
static int next_line(char *text, size_t size)
{
	size_t length = 0;
	ssize_t more;

	while (length < size - 1) {
		more = read(line, text + length, size - 1 - length);
		if (more < 1)
			return 0;
		length += more;
		if (text[length - 1] == '\n')
			break;
	}
	text[length - 1] = '\0';
	return 1;
}

static void renew(char *seed)
{
	char *clock = strchr(seed, ' ');

	if (!clock) {
		errno = EBADMSG;
		fail("message");
	}
	*clock++ = '\0';
	renew_randomness(seed);
	renew_clock(clock);
	renew_names();
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
			prepare();
		} else if (!strncmp(text, "renew ", 6)) {
			renew(text + 6);
			return 0;
		}
	}
	return 0;
}
