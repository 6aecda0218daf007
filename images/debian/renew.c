// SPDX-License-Identifier: GPL-2.0
/*
 * Gives a machine restored from a snapshot what two restores must not share:
 * randomness, the time of day, host name and machine id.
 *
 * Runs from init and waits on a virtio port of its own (argv[1]); a machine
 * without that port has no use for it. On the line, ended by newlines:
 *
 *   hello                           -> "ready"
 *   rest                            -> "rested", and the machine can be saved
 *   renew SEED SECONDS.NANOSECONDS  -> "renewed", then the program ends
 *   renew SEED SECONDS.NANOSECONDS PROGRAM  -> the same, and it runs PROGRAM
 *
 * SEED is hexadecimal; the machine id is drawn from what it seeds. Whatever
 * fails is answered with "failed: WHAT: ERROR" and ends the program too: the
 * host must not use such a machine.
 *
 * Every restore pays for what happens after "ready", on a processor that has
 * everything to translate anew: so files are opened before, they are in
 * memory, and the message is short. While the first session's keys are being
 * exchanged on one processor, running a program on another one, as a session
 * does, has the kernel's and the C library's part of that translated already.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN "/usr/lib/rig/run"
#define PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define SEED_BYTES 32
#define ID_BYTES 16
#define QUIET_S 6
#define WAIT_MS 1000
#define STEP_MS 20

static int line, urandom = -1, machine_id = -1, hosts = -1;

static void say(const char *words)
{
	if (write(line, words, strlen(words)) < 0)
		exit(1);	/* the host hears nothing, and draws its conclusion */
}

static void fail(const char *what)
{
	dprintf(line, "failed: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The driver adds ports in its own time, and this is started early. */
static void open_line(const char *path)
{
	const struct timespec step = { .tv_nsec = STEP_MS * 1000000 };

	for (int ms = 0; ms < WAIT_MS; ms += STEP_MS) {
		line = open(path, O_RDWR | O_CLOEXEC);
		if (line >= 0)
			return;
		if (errno != ENOENT) {
			perror(path);
			exit(1);
		}
		nanosleep(&step, NULL);
	}
	exit(0);	/* no such line: this machine is never restored */
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
	say("ready\n");
}

/*
 * What a kernel puts off (RCU, timers, write-back, measuring its clocks) is done within this time
 * where nothing new happens, and no restored machine has to. Nothing tells when.
 */
static void rest(void)
{
	const struct timespec quiet = { .tv_sec = QUIET_S };

	nanosleep(&quiet, NULL);
	say("rested\n");
}

static const char digits[] = "0123456789abcdef";

static int digit(char c)
{
	const char *found = c ? strchr(digits, c) : NULL;

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

/* The host name is "rig-" and the beginning of the machine id. */
static void renew_names(void)
{
	unsigned char bytes[ID_BYTES];
	char id[] = "00000000000000000000000000000000\n";
	char entry[] = "127.0.0.1 rig-00000000\n";
	char *name = strchr(entry, 'r');

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		fail("getrandom");
	for (int i = 0; i < ID_BYTES; i++) {
		id[2 * i] = digits[bytes[i] >> 4];
		id[2 * i + 1] = digits[bytes[i] & 15];
	}
	memcpy(strchr(name, '0'), id, 8);
	if (sethostname(name, strlen(name) - 1))
		fail("hostname");
	/* As long as the one it replaces. */
	if (pwrite(machine_id, id, strlen(id), 0) != (ssize_t)strlen(id))
		fail("machine-id");
	if (write(hosts, entry, strlen(entry)) != (ssize_t)strlen(entry))
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

static void rehearse(char *program)
{
	char *words[] = { RUN, "rehearsal", "", PATH, "--", program, NULL };
	pid_t child = fork();

	if (!child) {
		execv(*words, words);
		_exit(127);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
	unlink("/run/rig-rehearsal");
}

static void renew(char *seed)
{
	char *clock = strchr(seed, ' '), *program;

	if (!clock) {
		errno = EBADMSG;
		fail("message");
	}
	*clock++ = '\0';
	program = strchr(clock, ' ');
	if (program)
		*program++ = '\0';
	renew_randomness(seed);
	renew_clock(clock);
	renew_names();
	say("renewed\n");
	if (program)
		rehearse(program);
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
		} else if (!strcmp(text, "rest")) {
			rest();
		} else if (!strncmp(text, "renew ", 6)) {
			renew(text + 6);
			return 0;
		}
	}
	return 0;
}
