// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that hand over from several threads are killed, crashed and stopped, exit and become
 * another program at any moment: each has to end with the right status, before a deadline, and to
 * leave nothing behind.
 *
 * STORM_PROCESSES says how many (200), STORM_SEED which random numbers, STORM_SIDE_BY_SIDE how
 * many of them at a time (4). A failure names the seed and the number of the process.
 */
#include <ctype.h>
#include <dirent.h>
#include <linux/futex.h>
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

enum { MAX_CALLS = 50, MAX_THREADS = 3, MAX_SIDE = 64 };

/* How long a process goes on before it is hit, at most. */
#define MAX_LIFE_US	20000

/* Where the calls of a process store their values, and its next program keeps something else. */
#define FIXED_MEMORY	((void *)0x200000000000UL)

/* With what a process ends that is not killed. */
enum { EXITED_WITH = 7, NEXT_ENDED_WITH = 42 };

enum blow { KILLED, TERMINATED, CRASHED, DUMPED, STOPPED, EXITED, EXECED, BLOWS };

static const char *const blow_names[BLOWS] = {
	[KILLED] = "SIGKILL",
	[TERMINATED] = "a signal nobody handles",
	[CRASHED] = "SIGSEGV without a core dump",
	[DUMPED] = "SIGSEGV with a core dump",
	[STOPPED] = "SIGSTOP, SIGCONT, SIGKILL",
	[EXITED] = "exit_group()",
	[EXECED] = "execve()",
};

/* All that end a process by default, but SIGKILL; the real-time signals are one as the other. */
static const int fatal_signals[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGPIPE,
	SIGALRM, SIGTERM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSYS,
	35, 64,
};

static long number_in(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text && *text ? atol(text) : otherwise;
}

/* --- random numbers that are the same in every run ---------------------------------------- */

struct random {
	unsigned long state;
};

static unsigned int draw(struct random *random, unsigned int below)
{
	random->state = random->state * 6364136223846793005UL + 1442695040888963407UL;
	return (random->state >> 33) % below;
}

/* --- a process of the storm --------------------------------------------------------------- */

struct plan {
	unsigned int number;
	enum blow blow;
	int threads;		/* besides the main one */
	int calls;		/* outstanding at a time, for each thread */
	unsigned int life_us;
	int signal;		/* for TERMINATED */
	bool by_main;		/* for EXITED and EXECED: by the main thread, or by another */
};

struct victim {
	struct plan plan;
	pid_t pid;
	long long hit_ns;
	int hits;
	int hold;		/* the other end of a pipe all its tasks hold */
};

struct slot {
	long result;
	long cookie;
	int fds[2];
	char byte;
	bool used;
};

static int hold_fd;

/* One of the ways to sleep. Trouble ends the process with a status no signal gives. */
static void submit_one(struct slot *slot, struct random *random)
{
	static const struct timespec soon = { .tv_nsec = 2 * 1000 * 1000 };
	unsigned long flags = draw(random, 4) ? 0 : ASYNC_SUBMIT_OFFLOAD;
	static int never;

	slot->used = true;
	slot->result = UNTOUCHED;
	switch (draw(random, 4)) {
	case 0:
		slot->cookie = async_submit(flags, &slot->result, __NR_nanosleep,
					    ARGS(P(&soon), 0));
		break;
	case 1:
		slot->cookie = async_submit(flags, &slot->result, __NR_futex,
					    ARGS(P(&never), FUTEX_WAIT_PRIVATE, 0, P(&soon)));
		break;
	default:
		slot->cookie = async_submit(flags, &slot->result, __NR_read,
					    ARGS(slot->fds[0], P(&slot->byte), 1));
		break;
	}
	if (slot->cookie < 0 && slot->cookie != -EAGAIN)
		_exit(80);
}

static void end_one(struct slot *slot, struct random *random)
{
	long value;

	if (slot->cookie > 0) {
		if (draw(random, 2))
			async_cancel(0, slot->cookie);
		if (write(slot->fds[1], "x", 1) != 1)
			_exit(81);
		if (wait_for_async(0, slot->cookie, &deadline))
			_exit(82);
		/* A byte that nobody came for. */
		value = result_of(&slot->result);
		if (value != 1 || slot->byte != 'x')
			if (read(slot->fds[0], &slot->byte, 1) != 1)
				_exit(83);
		if (ASYNC_PENDING(value) || (value < 0 && value != -ECANCELED &&
					     value != -ETIMEDOUT))
			_exit(84);
	}
	slot->used = false;
}

static struct plan the_plan;

static size_t memory_size(int threads, int calls)
{
	return (threads + 1) * calls * sizeof(struct slot);
}

static void *map_memory(size_t size)
{
	return mmap(FIXED_MEMORY, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

/* Which thread is to take the signal that makes it leave. */
static void take_or_leave(int how)
{
	sigset_t leaving;

	sigemptyset(&leaving);
	sigaddset(&leaving, SIGUSR2);
	if (pthread_sigmask(how, &leaving, NULL))
		_exit(90);
}

/* Submits and ends calls for ever. */
static void *suffer(void *argument)
{
	struct random random = { .state = the_plan.number * 4 + (long)argument };
	struct slot *slots = FIXED_MEMORY;
	pid_t tid = gettid();
	int i;

	slots += (long)argument * the_plan.calls;
	if (!the_plan.threads || !argument == the_plan.by_main)
		take_or_leave(SIG_UNBLOCK);
	for (i = 0; i < the_plan.calls; i++)
		if (pipe(slots[i].fds))
			_exit(86);
	for (;;) {
		struct slot *slot = &slots[draw(&random, the_plan.calls)];

		slot->byte = 0;
		if (slot->used)
			end_one(slot, &random);
		else
			submit_one(slot, &random);
		if (gettid() != tid)
			_exit(87);
	}
	return NULL;
}

static void crash(int signal)
{
	static volatile int *volatile wild = (volatile int *)8;

	*wild = 0;
}

/* Whichever thread that is, and whatever it and the others have outstanding. */
static void leave(int signal)
{
	char threads[16], calls[16];

	if (the_plan.blow == EXITED)
		_exit(EXITED_WITH);
	snprintf(threads, sizeof(threads), "%d", the_plan.threads);
	snprintf(calls, sizeof(calls), "%d", the_plan.calls);
	execl("/proc/thread-self/exe", "storm", "next-program", threads, calls, NULL);
	_exit(91);
}

/* It has one thread, no calls, and its memory for itself. */
static const char *next_program(int threads, int calls)
{
	const size_t size = memory_size(threads, calls);
	char *memory = map_memory(size);
	size_t i;

	CHECK(memory == FIXED_MEMORY);
	memset(memory, 0x5a, size);
	CHECK_EQ(getpid(), gettid());
	CHECK_EQ(1, tasks_of("self", 0));
	CHECK_EQ(0, counter("outstanding"));
	CHECK_EQ(0, wait_for_async(0, 0, &no_time));
	TRY(hand_over(3));
	for (i = 0; i < size; i++)
		CHECK_EQ(0x5a, memory[i]);
	return NULL;
}

static void be_victim(const struct plan *plan, int hold)
{
	const struct rlimit files = { 1024, 1024 };
	pthread_t thread;
	long i;

	hold_fd = hold;
	setrlimit(RLIMIT_NOFILE, &files);
	if (map_memory(memory_size(plan->threads, plan->calls)) != FIXED_MEMORY)
		_exit(85);
	take_or_leave(SIG_BLOCK);
	for (i = 1; i <= plan->threads; i++)
		if (pthread_create(&thread, NULL, suffer, (void *)i))
			_exit(88);
	suffer(NULL);
}

static void make_plan(struct plan *plan, struct random *random, unsigned int number)
{
	plan->number = number;
	plan->blow = draw(random, BLOWS);
	plan->threads = draw(random, MAX_THREADS + 1);
	/* Small numbers as often as large ones. */
	plan->calls = 1 + draw(random, draw(random, 2) ? MAX_CALLS : 4);
	plan->life_us = draw(random, MAX_LIFE_US);
	plan->signal = fatal_signals[draw(random, ARRAY_SIZE(fatal_signals))];
	plan->by_main = draw(random, 2);
}

static const char *start(struct victim *victim)
{
	const bool dumps = victim->plan.blow == DUMPED;
	const struct rlimit core = { dumps ? RLIM_INFINITY : 0, RLIM_INFINITY };
	int fds[2];

	CHECK_EQ(0, pipe2(fds, O_CLOEXEC));
	/* It may be hit before it can do anything. */
	CHECK_EQ(0, setrlimit(RLIMIT_CORE, &core));
	the_plan = victim->plan;
	victim->pid = fork_child();
	CHECK(victim->pid >= 0);
	if (victim->pid == 0) {
		close(fds[0]);
		be_victim(&victim->plan, fds[1]);
		_exit(89);
	}
	close(fds[1]);
	victim->hold = fds[0];
	victim->hit_ns = now_ns() + victim->plan.life_us * 1000LL;
	victim->hits = 0;
	return NULL;
}

/* The next blow; true if it was the last. */
static bool hit(struct victim *victim)
{
	switch (victim->plan.blow) {
	case KILLED:
		kill(victim->pid, SIGKILL);
		return true;
	case TERMINATED:
		kill(victim->pid, victim->plan.signal);
		return true;
	case EXITED:
	case EXECED:
		kill(victim->pid, SIGUSR2);
		return true;
	case CRASHED:
	case DUMPED:
		kill(victim->pid, SIGUSR1);
		return true;
	default:
		victim->hits++;
		victim->hit_ns = now_ns() + victim->plan.life_us * 250LL;
		if (victim->hits == 8) {
			kill(victim->pid, SIGKILL);
			return true;
		}
		kill(victim->pid, victim->hits % 2 ? SIGSTOP : SIGCONT);
		return false;
	}
}

/* What wait() says of it, but for the core dump. */
static int expected_status(const struct plan *plan)
{
	switch (plan->blow) {
	case TERMINATED:
		return plan->signal;
	case CRASHED:
	case DUMPED:
		return SIGSEGV;
	case EXITED:
		return EXITED_WITH << 8;
	case EXECED:
		return NEXT_ENDED_WITH << 8;
	default:
		return SIGKILL;
	}
}

/* Processes that were to dump core, and those that have. */
static int dumps_wanted, dumps;

static int ends[BLOWS];

/* It has been hit for the last time: it has to end, as it should, and to let go of everything. */
static const char *bury(struct victim *victim)
{
	const struct plan *plan = &victim->plan;
	struct pollfd entry = { .fd = victim->hold };
	int status = status_of(victim->pid);

	if (status == -ETIME)
		return trouble("process %u: not ended by %s (%d threads, %d calls, %u us)",
			       plan->number, blow_names[plan->blow], plan->threads,
			       plan->calls, plan->life_us);
	/* Two that dump at a time may be in each other's way, so not every one has to. */
	if ((plan->blow == DUMPED ? status & ~0x80 : status) != expected_status(plan))
		return trouble("process %u: status %#x after %s (%d threads, %d calls, %u us)",
			       plan->number, status, blow_names[plan->blow], plan->threads,
			       plan->calls, plan->life_us);
	/* Every task of it has closed its descriptors. */
	if (poll(&entry, 1, 0) != 1 || !(entry.revents & POLLHUP))
		return trouble("process %u: reaped, and holds a pipe", plan->number);
	close(victim->hold);
	dumps_wanted += plan->blow == DUMPED;
	dumps += WCOREDUMP(status) != 0;
	ends[plan->blow]++;
	return NULL;
}

static bool is_time(const struct victim *victim)
{
	return now_ns() >= victim->hit_ns;
}

static const char *storm(int side_by_side, int processes, unsigned long seed)
{
	static struct victim victims[MAX_SIDE];
	struct random random = { .state = seed };
	int started = 0, ended = 0, i;

	for (i = 0; i < side_by_side; i++)
		victims[i].pid = 0;
	while (ended < processes) {
		for (i = 0; i < side_by_side; i++) {
			struct victim *victim = &victims[i];

			if (!victim->pid && started < processes) {
				make_plan(&victim->plan, &random, started++);
				TRY(start(victim));
			} else if (victim->pid && is_time(victim) && hit(victim)) {
				TRY(bury(victim));
				victim->pid = 0;
				ended++;
			}
		}
		poll(NULL, 0, 1);
	}
	return NULL;
}

FIXTURE(storm)
{
	char directory[32];
};

FIXTURE_SETUP(storm)
{
	/* For the children, who may be hit before they can do anything. */
	struct sigaction action = { .sa_handler = crash };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	action.sa_handler = leave;
	ASSERT_EQ(0, sigaction(SIGUSR2, &action, NULL));
	/* Core dumps go where they are removed with the directory. */
	strcpy(self->directory, "/tmp/async_storm.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->directory));
	ASSERT_EQ(0, chdir(self->directory));
}

FIXTURE_TEARDOWN(storm)
{
	struct dirent *entry;
	DIR *dir;

	/* Core dumps, by whatever name the system gives them. */
	dir = opendir(self->directory);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			EXPECT_EQ(0, unlink(entry->d_name));
	if (dir)
		closedir(dir);
	EXPECT_EQ(0, rmdir(self->directory));
}

/*
 * How many threads the processes of our group have: the test and those it has made, whoever their
 * parent is by now. The harness gives each test a group of its own.
 */
static int count_tasks_of_group(void)
{
	struct dirent *entry;
	int n = 0;
	DIR *dir;

	dir = opendir("/proc");
	while (dir && (entry = readdir(dir))) {
		char path[300], text[512], *end;
		unsigned int threads;
		int group;

		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		if (!isdigit(entry->d_name[0]) || !read_text(path, text, sizeof(text)))
			continue;
		/* See proc_pid_stat(5): the group is the 5th field, the threads are the 20th. */
		end = strrchr(text, ')');
		if (end && sscanf(end + 1, " %*c %*d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u"
				  " %*d %*d %*d %*d %u", &group, &threads) == 2 &&
		    group == getpgrp())
			n += threads;
	}
	if (dir)
		closedir(dir);
	return n;
}

TEST_F_TIMEOUT(storm, every_process_ends_as_it_should, 3600)
{
	int processes = number_in("STORM_PROCESSES", 200);
	int side_by_side = number_in("STORM_SIDE_BY_SIDE", 4);
	unsigned long seed = number_in("STORM_SEED", 20260101);
	int before = count_tasks_of_group();

	ASSERT_LE(1, before);
	ASSERT_LE(side_by_side, MAX_SIDE);
	TH_LOG("seed %lu, %d processes, %d at a time", seed, processes, side_by_side);
	EXPECT_FINE(storm(side_by_side, processes, seed));
	EXPECT_EQ(before, count_tasks_of_group());
	TH_LOG("%d of %d core dumps", dumps, dumps_wanted);
	TH_LOG("%d exits, %d other programs", ends[EXITED], ends[EXECED]);
	EXPECT_EQ(dumps_wanted > 0, dumps > 0);
}

int main(int argc, char **argv)
{
	const char *found;

	if (argc != 4 || strcmp(argv[1], "next-program"))
		return test_harness_run(argc, argv);
	found = next_program(atoi(argv[2]), atoi(argv[3]));
	if (found)
		exit_fine(found);
	_exit(NEXT_ENDED_WITH);
}
