// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of the exact machine: runs one program, says how it ended, powers off.
 *
 * The rig puts three things beside it into the initramfs: /rig/plan (lines "KEY NUMBER"),
 * /rig/argv (words, each ended by a NUL) and the program's files in /work. The program's output
 * leaves through two virtio ports. How it ended leaves through a third one: this process holds it
 * open, and the driver lets nobody open a port twice, so the program cannot speak there.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exact.h"

#define PORTS_WAIT_MS		5000
#define LEFTOVER_WAIT_S		10
#define ARGV_BYTES		65536
#define ARGV_WORDS		1024
#define BLOCK_BYTES		4096
#define SEED_BYTES		32	/* as many as the generator wants */
#define DISTURB_MAX		100000	/* instructions, or nanoseconds of the machine's clock */
#define RAM_DISK		"/dev/ram0"
#define EXT4_BLOCKS		"/rig/ext4.blocks"

struct plan {
	unsigned long timeout_s;
	unsigned long skip;
	unsigned long seed;
	unsigned long ext4;
};

static int verdict = -1;
static volatile sig_atomic_t rang;

static void verdict_line(const char *format, ...)
{
	char line[512];
	va_list words;
	int length;

	va_start(words, format);
	length = vsnprintf(line, sizeof(line), format, words);
	va_end(words);
	if (length >= (int)sizeof(line))
		length = sizeof(line) - 1;
	if (verdict < 0 || write(verdict, line, length) != length)
		fprintf(stderr, "rig: exact: cannot tell: %s", line);
}

static void power_off(void)
{
	FILE *log = fopen("/dev/kmsg", "w");

	/* The rig looks for this line: it proves that the console was recorded to the end. */
	if (log) {
		fputs("<6>rig: exact: end\n", log);
		fclose(log);
	}
	verdict_line("end\n");
	reboot(RB_POWER_OFF);
	_exit(1); /* which panics, and so is seen */
}

static void give_up(const char *what)
{
	verdict_line("error %s: %s\n", what, strerror(errno));
	power_off();
}

static void mount_at(const char *type, const char *place, const char *options)
{
	if (mkdir(place, 0755) && errno != EEXIST)
		give_up(place);
	if (mount(type, place, type, 0, options))
		give_up(place);
}

/*
 * Nothing on this machine is random, so the kernel's generator would never be ready, and until it
 * is, every random number costs it 9,000 instructions: each new task needs one. So it gets the
 * same seed each time, and is ready as it would be on any other machine.
 */
static void seed_generator(void)
{
	struct {
		struct rand_pool_info info;
		unsigned char bytes[SEED_BYTES];
	} seed = { .info = { .entropy_count = SEED_BYTES * 8, .buf_size = SEED_BYTES } };
	int device = open("/dev/urandom", O_WRONLY | O_CLOEXEC);

	memset(seed.info.buf, 0x5a, SEED_BYTES);
	if (device < 0 || ioctl(device, RNDADDENTROPY, &seed))
		give_up("/dev/urandom");
	close(device);
}

static int open_port(int number)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	char path[32];
	int waited, port;

	snprintf(path, sizeof(path), "/dev/vport0p%d", number);
	for (waited = 0; waited < PORTS_WAIT_MS; waited++) {
		port = open(path, O_WRONLY | O_CLOEXEC);
		if (port >= 0)
			return port;
		nanosleep(&pause, NULL);
	}
	give_up(path);
	return -1;
}

static struct plan read_plan(void)
{
	struct plan plan = { 0 };
	unsigned long value;
	char key[32];
	FILE *file = fopen("/rig/plan", "r");

	if (!file)
		give_up("/rig/plan");
	while (fscanf(file, "%31s %lu", key, &value) == 2) {
		if (!strcmp(key, "timeout_s"))
			plan.timeout_s = value;
		else if (!strcmp(key, "skip"))
			plan.skip = value;
		else if (!strcmp(key, "seed"))
			plan.seed = value;
		else if (!strcmp(key, "ext4"))
			plan.ext4 = value;
	}
	fclose(file);
	return plan;
}

static char **read_argv(void)
{
	static char bytes[ARGV_BYTES];
	static char *words[ARGV_WORDS + 1];
	int file = open("/rig/argv", O_RDONLY | O_CLOEXEC);
	ssize_t length, at;
	int count = 0;

	if (file < 0)
		give_up("/rig/argv");
	length = read(file, bytes, sizeof(bytes) - 1);
	close(file);
	if (length <= 0)
		give_up("/rig/argv");
	for (at = 0; at < length && count < ARGV_WORDS; at += strlen(bytes + at) + 1)
		words[count++] = bytes + at;
	return words;
}

/* The blocks that are not empty onto the RAM disk, which is then mounted on /ext4. */
static void make_ext4(void)
{
	static struct {
		uint64_t number;
		char bytes[BLOCK_BYTES];
	} block;
	int from = open(EXT4_BLOCKS, O_RDONLY | O_CLOEXEC);
	int to = open(RAM_DISK, O_WRONLY | O_CLOEXEC);

	if (from < 0 || to < 0)
		give_up(from < 0 ? EXT4_BLOCKS : RAM_DISK);
	while (read(from, &block, sizeof(block)) == sizeof(block))
		if (pwrite(to, block.bytes, BLOCK_BYTES, block.number * BLOCK_BYTES) != BLOCK_BYTES)
			give_up(RAM_DISK);
	if (fsync(to))
		give_up(RAM_DISK);
	close(from);
	close(to);
	unlink(EXT4_BLOCKS);
	mkdir("/ext4", 0755);
	if (mount(RAM_DISK, "/ext4", "ext4", 0, NULL))
		give_up("/ext4");
}

/* The seed's share: start so many instructions later, so that every timer meets other code. */
static void let_pass(uint64_t instructions)
{
	uint64_t start = exact_clock();

	while (exact_clock() - start < instructions)
		;
}

/* The next of a sequence of numbers that look random (splitmix64). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t value = *state += 0x9e3779b97f4a7c15;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
	value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
	return value ^ (value >> 31);
}

/*
 * The rest of the seed's share, in a process for each CPU: interrupt whatever runs there, at
 * moments that the seed chooses. QEMU gives the turn to the next CPU whenever a timer is due.
 */
static void disturb(unsigned int cpu, uint64_t seed)
{
	struct sched_param priority = { .sched_priority = 1 };
	struct timespec pause = { 0 };
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	prctl(PR_SET_NAME, "disturb");
	prctl(PR_SET_TIMERSLACK, 1);
	seed += cpu;
	if (sched_setaffinity(0, sizeof(here), &here) ||
	    sched_setscheduler(0, SCHED_FIFO, &priority))
		_exit(1);
	for (;;) {
		pause.tv_nsec = next_random(&seed) % DISTURB_MAX;
		nanosleep(&pause, NULL);
	}
}

static void start_disturbing(uint64_t seed)
{
	long cpu, cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pid_t child;

	for (cpu = 0; cpu < cpus; cpu++) {
		child = fork();
		if (child < 0)
			give_up("fork");
		if (!child)
			disturb(cpu, seed);
	}
}

static void ring(int number)
{
	(void)number;
	rang = 1;
}

static void alarm_after(unsigned long seconds)
{
	struct sigaction action = { .sa_handler = ring };
	struct itimerval timer = { .it_value.tv_sec = seconds };

	rang = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

/* In the child: the program in its place, with nothing of ours. Returns only when it cannot. */
static void become(char **argv, int out, int err)
{
	static char *const environment[] = {
		"PATH=/work", "HOME=/tmp", "TERM=dumb", "LC_ALL=C", "TZ=UTC", NULL
	};
	int in = open("/dev/null", O_RDONLY);

	setsid();
	if (in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		return;
	if (in > 2)
		close(in);
	if (!chdir("/work"))
		execve(argv[0], argv, environment);
}

/* The status of the program itself; others that end meanwhile are only collected. */
static bool await(pid_t program, int *status)
{
	pid_t ended;

	for (;;) {
		ended = wait(status);
		if (ended == program)
			return true;
		if (ended < 0 && (errno != EINTR || rang))
			return false;
	}
}

/* End what the program has left behind. */
static void clean_up(void)
{
	alarm_after(LEFTOVER_WAIT_S);
	kill(-1, SIGKILL);
	while (!rang && (wait(NULL) > 0 || errno == EINTR))
		;
	if (rang)
		verdict_line("leftover\n");
	alarm_after(0);
}

static void run(char **argv, const struct plan *plan, int out, int err)
{
	int failed[2], status, why = 0;
	uint64_t start, end;
	bool ended;
	pid_t program;

	if (pipe2(failed, O_CLOEXEC))
		give_up("pipe");
	alarm_after(plan->timeout_s);
	start = EXACT_READ(EXACT_MARK(3));
	program = fork();
	if (program < 0)
		give_up("fork");
	if (!program) {
		become(argv, out, err);
		why = errno;
		if (write(failed[1], &why, sizeof(why)) != sizeof(why))
			_exit(126);
		_exit(127);
	}
	ended = await(program, &status);
	end = EXACT_READ(EXACT_MARK(4));
	close(failed[1]);
	clean_up();
	verdict_line("clock %llu\n", (unsigned long long)(end - start));
	if (read(failed[0], &why, sizeof(why)) == sizeof(why))
		verdict_line("error cannot execute %s: %s\n", argv[0], strerror(why));
	else if (!ended)
		verdict_line("timeout\n");
	else if (WIFSIGNALED(status))
		verdict_line("signal %d\n", WTERMSIG(status));
	else
		verdict_line("exit %d\n", WEXITSTATUS(status));
}

int main(void)
{
	struct plan plan;
	int out, err;

	mount_at("devtmpfs", "/dev", "");
	verdict = open_port(3);
	verdict_line("exact 1\n");
	out = open_port(1);
	err = open_port(2);
	seed_generator();
	mount_at("proc", "/proc", "");
	mount_at("sysfs", "/sys", "");
	mount_at("tmpfs", "/tmp", "mode=1777");
	mount_at("tmpfs", "/dev/shm", "mode=1777");
	plan = read_plan();
	if (plan.ext4)
		make_ext4();
	let_pass(plan.skip);
	if (plan.seed)
		start_disturbing(plan.seed);
	run(read_argv(), &plan, out, err);
	power_off();
}
