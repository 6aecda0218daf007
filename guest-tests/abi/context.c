// SPDX-License-Identifier: GPL-2.0
/*
 * After a call that slept, user space sees the thread it always was, in either mode and in any
 * thread: what it is, what it holds, and every register.
 */
#include <linux/capability.h>
#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#include "calls.h"
#include "../kselftest_harness.h"

FIXTURE(sleeper)
{
	int fds[2];
	long result;
	char byte;
};

FIXTURE_VARIANT(sleeper)
{
	unsigned long flags;
	bool other_thread;
};

FIXTURE_VARIANT_ADD(sleeper, main_thread)
{
	.flags = 0,
	.other_thread = false,
};

FIXTURE_VARIANT_ADD(sleeper, main_thread_offloaded)
{
	.flags = ASYNC_SUBMIT_OFFLOAD,
	.other_thread = false,
};

FIXTURE_VARIANT_ADD(sleeper, other_thread)
{
	.flags = 0,
	.other_thread = true,
};

FIXTURE_VARIANT_ADD(sleeper, other_thread_offloaded)
{
	.flags = ASYNC_SUBMIT_OFFLOAD,
	.other_thread = true,
};

FIXTURE_SETUP(sleeper)
{
}

FIXTURE_TEARDOWN(sleeper)
{
}

/*
 * A read that sleeps: what async_submit returned, with the call ended by the time this returns
 * if it waited in place, and ended by finish() if it is outstanding.
 */
struct blocked {
	int fds[2];
	long result;
	long submitted;
	char byte;
	struct feeder feeder;
};

static bool submit_blocked(struct blocked *b, unsigned long flags)
{
	b->result = UNTOUCHED;
	b->byte = 0;
	if (pipe(b->fds) || feeder_start(&b->feeder, b->fds[1]))
		return false;
	b->submitted = async_submit(flags, &b->result, __NR_read,
				    ARGS(b->fds[0], P(&b->byte), 1));
	return b->submitted >= 0;
}

static bool finish(struct blocked *b)
{
	const char *trouble = feeder_end(&b->feeder);
	bool ended = !trouble && final_value(b->submitted, &b->result) == 1 && b->byte == 'x';

	close(b->fds[0]);
	close(b->fds[1]);
	return ended;
}

/* --- what a thread is ------------------------------------------------------------------- */

static __thread int local = 1;

/* All that can be asked in one go, compared as bytes: everything is filled with zeroes before. */
struct identity {
	pid_t tid, pid, ppid, pgrp, sid;
	uid_t uids[3];
	gid_t gids[3];
	struct __user_cap_data_struct capabilities[2];
	int no_new_privs, dumpable, keep_caps, pdeathsig, securebits;
	long timer_slack, personality;
	char name[16];
	int nice, policy, priority;
	cpu_set_t affinity;
	sigset_t mask;
	stack_t alternate;
	void *robust_list;
	size_t robust_list_size;
	void *thread_pointer;
	unsigned int io_priority;
	char directory[64];
	char own_stat[32];
	char cgroup[64];
	int tls;
	int error;
};

/* Reads the first characters of a file, without what may differ by right. */
static void read_start(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t length = -1;

	if (fd >= 0)
		length = read(fd, text, size - 1);
	text[length < 0 ? 0 : length] = 0;
	if (fd >= 0)
		close(fd);
}

static void look(struct identity *id)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct sched_param parameters;
	int error = errno;

	memset(id, 0, sizeof(*id));
	id->error = error;
	id->tid = gettid();
	id->pid = getpid();
	id->ppid = getppid();
	id->pgrp = getpgrp();
	id->sid = getsid(0);
	getresuid(&id->uids[0], &id->uids[1], &id->uids[2]);
	getresgid(&id->gids[0], &id->gids[1], &id->gids[2]);
	syscall(__NR_capget, &header, id->capabilities);
	id->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	id->dumpable = prctl(PR_GET_DUMPABLE);
	id->keep_caps = prctl(PR_GET_KEEPCAPS);
	id->securebits = prctl(PR_GET_SECUREBITS);
	prctl(PR_GET_PDEATHSIG, &id->pdeathsig);
	id->timer_slack = prctl(PR_GET_TIMERSLACK);
	id->personality = syscall(__NR_personality, 0xffffffff);
	prctl(PR_GET_NAME, id->name);
	id->nice = getpriority(PRIO_PROCESS, 0);
	id->policy = sched_getscheduler(0);
	sched_getparam(0, &parameters);
	id->priority = parameters.sched_priority;
	sched_getaffinity(0, sizeof(id->affinity), &id->affinity);
	pthread_sigmask(SIG_BLOCK, NULL, &id->mask);
	sigaltstack(NULL, &id->alternate);
	syscall(__NR_get_robust_list, 0, &id->robust_list, &id->robust_list_size);
	id->thread_pointer = __builtin_thread_pointer();
	id->io_priority = syscall(__NR_ioprio_get, 1, 0);
	if (readlink("/proc/thread-self", id->directory, sizeof(id->directory) - 1) < 0)
		id->directory[0] = 0;
	/* Its number and name. */
	read_start("/proc/thread-self/stat", id->own_stat, 12);
	read_start("/proc/thread-self/cgroup", id->cgroup, sizeof(id->cgroup));
	id->tls = local;
	errno = error;
}

struct looks {
	unsigned long flags;
	struct identity before, outstanding, after;
	bool submitted, finished;
};

static void *look_around_a_call(void *argument)
{
	static char stack[1 << 16];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct looks *looks = argument;
	struct blocked b;
	sigset_t mask;

	/* Unlike any other thread. */
	local = 4711;
	prctl(PR_SET_NAME, "sleeper");
	prctl(PR_SET_TIMERSLACK, 123456);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGRTMIN + 3);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	sigaltstack(&alternate, NULL);
	setpriority(PRIO_PROCESS, 0, 3);
	errno = EDOM;
	look(&looks->before);
	looks->submitted = submit_blocked(&b, looks->flags);
	look(&looks->outstanding);
	looks->finished = finish(&b);
	errno = EDOM;
	look(&looks->after);
	return NULL;
}

#define EXPECT_SAME(field)						\
	EXPECT_EQ(0, memcmp(&a->field, &b->field, sizeof(a->field)))

static void compare(struct __test_metadata *_metadata, const struct identity *a,
		    const struct identity *b)
{
	EXPECT_SAME(tid);
	EXPECT_SAME(pid);
	EXPECT_SAME(ppid);
	EXPECT_SAME(pgrp);
	EXPECT_SAME(sid);
	EXPECT_SAME(uids);
	EXPECT_SAME(gids);
	EXPECT_SAME(capabilities);
	EXPECT_SAME(no_new_privs);
	EXPECT_SAME(dumpable);
	EXPECT_SAME(keep_caps);
	EXPECT_SAME(pdeathsig);
	EXPECT_SAME(securebits);
	EXPECT_SAME(timer_slack);
	EXPECT_SAME(personality);
	EXPECT_SAME(name);
	EXPECT_SAME(nice);
	EXPECT_SAME(policy);
	EXPECT_SAME(priority);
	EXPECT_SAME(affinity);
	EXPECT_SAME(mask);
	EXPECT_SAME(alternate);
	EXPECT_SAME(robust_list);
	EXPECT_SAME(robust_list_size);
	EXPECT_SAME(thread_pointer);
	EXPECT_SAME(io_priority);
	EXPECT_SAME(directory);
	EXPECT_SAME(own_stat);
	EXPECT_SAME(cgroup);
	EXPECT_SAME(tls);
	EXPECT_SAME(error);
}

/* Runs a function in this thread or in another one, by the variant. */
static bool run_in(bool other_thread, void *(*run)(void *), void *argument)
{
	pthread_t thread;

	if (!other_thread) {
		run(argument);
		return true;
	}
	return !pthread_create(&thread, NULL, run, argument) && !pthread_join(thread, NULL);
}

TEST_F(sleeper, is_the_thread_it_was)
{
	struct looks looks = { .flags = variant->flags };

	ASSERT_TRUE(run_in(variant->other_thread, look_around_a_call, &looks));
	ASSERT_TRUE(looks.submitted);
	ASSERT_TRUE(looks.finished);
	compare(_metadata, &looks.before, &looks.outstanding);
	compare(_metadata, &looks.before, &looks.after);
}

/* --- locks and signals by thread -------------------------------------------------------- */

static void *holds_mutexes_over_a_call(void *argument)
{
	static const int kinds[] = {
		PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE,
	};
	const unsigned long *flags = argument;
	int robust, errors = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds) * 2; i++) {
		pthread_mutexattr_t attributes;
		pthread_mutex_t mutex;
		struct blocked b;

		robust = i % 2 ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED;
		pthread_mutexattr_init(&attributes);
		pthread_mutexattr_settype(&attributes, kinds[i / 2]);
		pthread_mutexattr_setrobust(&attributes, robust);
		pthread_mutex_init(&mutex, &attributes);
		errors += pthread_mutex_lock(&mutex) != 0;
		errors += !submit_blocked(&b, *flags);
		if (kinds[i / 2] == PTHREAD_MUTEX_ERRORCHECK)
			errors += pthread_mutex_lock(&mutex) != EDEADLK;
		errors += pthread_mutex_unlock(&mutex) != 0;
		errors += !finish(&b);
		errors += pthread_mutex_lock(&mutex) != 0;
		errors += pthread_mutex_unlock(&mutex) != 0;
	}
	return (void *)(long)errors;
}

static void *mutexes_in(void *argument)
{
	unsigned long *word = argument;

	*word = (unsigned long)holds_mutexes_over_a_call(word);
	return NULL;
}

TEST_F(sleeper, keeps_its_mutexes)
{
	/* In: the flags; out: the number of errors. */
	unsigned long word = variant->flags;

	ASSERT_TRUE(run_in(variant->other_thread, mutexes_in, &word));
	EXPECT_EQ(0, word);
}

static pid_t signalled;

static void note_thread(int signal)
{
	__atomic_store_n(&signalled, gettid(), __ATOMIC_RELAXED);
}

/* Whether the handler ran, and here. */
static bool was_signalled(void)
{
	return __atomic_exchange_n(&signalled, 0, __ATOMIC_RELAXED) == gettid();
}

struct signalling {
	unsigned long flags;
	bool reached;
};

static void *is_signalled_after_a_call(void *argument)
{
	const struct sigaction action = { .sa_handler = note_thread };
	struct signalling *s = argument;
	struct blocked b;

	sigaction(SIGUSR1, &action, NULL);
	if (!submit_blocked(&b, s->flags))
		return NULL;
	s->reached = !tgkill(getpid(), gettid(), SIGUSR1) && was_signalled() &&
		     !pthread_kill(pthread_self(), SIGUSR1) && was_signalled();
	s->reached = finish(&b) && s->reached;
	return NULL;
}

TEST_F(sleeper, takes_its_own_signals)
{
	struct signalling s = { .flags = variant->flags };

	ASSERT_TRUE(run_in(variant->other_thread, is_signalled_after_a_call, &s));
	EXPECT_TRUE(s.reached);
}

struct clocks {
	unsigned long flags;
	long long thread_before, thread_after, usage_before, usage_after;
	bool finished;
};

static long long thread_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static long long thread_usage(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL +
	       usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static void *looks_at_clocks(void *argument)
{
	struct clocks *clocks = argument;
	struct blocked b;

	/* Time of its own, more than a worker can have. */
	while (thread_clock() < 50 * 1000 * 1000)
		;
	clocks->usage_before = thread_usage();
	clocks->thread_before = thread_clock();
	clocks->finished = submit_blocked(&b, clocks->flags);
	clocks->thread_after = thread_clock();
	clocks->usage_after = thread_usage();
	clocks->finished = finish(&b) && clocks->finished;
	return NULL;
}

TEST_F(sleeper, cpu_clock_does_not_go_back)
{
	struct clocks clocks = { .flags = variant->flags };

	ASSERT_TRUE(run_in(variant->other_thread, looks_at_clocks, &clocks));
	EXPECT_TRUE(clocks.finished);
	EXPECT_LE(clocks.thread_before, clocks.thread_after);
	EXPECT_LE(clocks.usage_before, clocks.usage_after);
}

static void *submits_often(void *argument)
{
	unsigned long *word = argument;
	unsigned long flags = *word;
	pid_t tid = gettid();
	struct blocked b;
	int i;

	*word = 0;
	for (i = 0; i < 40; i++) {
		*word += !submit_blocked(&b, flags);
		*word += gettid() != tid;
		*word += !finish(&b);
	}
	return NULL;
}

TEST_F(sleeper, many_times)
{
	unsigned long word = variant->flags;

	ASSERT_TRUE(run_in(variant->other_thread, submits_often, &word));
	EXPECT_EQ(0, word);
}

static pthread_mutex_t robust_mutex;

static void *dies_with_a_robust_mutex(void *argument)
{
	unsigned long *word = argument;
	struct blocked b;

	pthread_mutex_lock(&robust_mutex);
	*word = !submit_blocked(&b, *word);
	*word += !finish(&b);
	return NULL;
}

TEST_F(sleeper, owner_that_died_is_noticed)
{
	pthread_mutexattr_t attributes;
	unsigned long word = variant->flags;
	pthread_t thread;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	ASSERT_EQ(0, pthread_mutex_init(&robust_mutex, &attributes));
	ASSERT_EQ(0, pthread_create(&thread, NULL, dies_with_a_robust_mutex, &word));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, word);
	EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(&robust_mutex));
}

/* --- registers -------------------------------------------------------------------------- */

#ifdef __x86_64__

struct registers {
	unsigned long general[8];	/* rbx rbp r8 r9 r10 r12 r13 r14: all but rax, rcx, r11 */
	unsigned long rdi, rsi, rdx, r15;
	unsigned char vector[16][16];
	unsigned int mxcsr;
	unsigned short control;
	unsigned long flags;
};

/*
 * async_submit with every register filled: what they hold afterwards is stored. The number and
 * the arguments come in by memory, so that nothing is left to the compiler in between.
 */
static long submit_with_registers(const unsigned long call[4], struct registers *after)
{
	long ret;

	asm volatile(
		/* Past the red zone. */
		"lea -128(%%rsp), %%rsp\n\t"
		"push %%rbp\n\t"
		"push %%rbx\n\t"
		"push %[after]\n\t"
		"mov %[call], %%rax\n\t"
		"mov 0(%%rax), %%rdi\n\t"
		"mov 8(%%rax), %%rsi\n\t"
		"mov 16(%%rax), %%rdx\n\t"
		"mov 24(%%rax), %%r10\n\t"
		"mov $0x1111111111111111, %%rbx\n\t"
		"mov $0x2222222222222222, %%rbp\n\t"
		"mov $0x3333333333333333, %%r8\n\t"
		"mov $0x4444444444444444, %%r9\n\t"
		"mov $0x6666666666666666, %%r12\n\t"
		"mov $0x7777777777777777, %%r13\n\t"
		"mov $0x8888888888888888, %%r14\n\t"
		"mov $0x9999999999999999, %%r15\n\t"
		".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
		"mov $0x0101010101010101 * \\n, %%rcx\n\t"
		"movq %%rcx, %%xmm\\n\n\t"
		"punpcklqdq %%xmm\\n, %%xmm\\n\n\t"
		".endr\n\t"
		"std\n\t"
		"stc\n\t"
		"mov %[nr], %%eax\n\t"
		"syscall\n\t"
		"pushfq\n\t"
		"pop %%r11\n\t"
		"cld\n\t"
		"pop %%rcx\n\t"
		"mov %%rbx, 0(%%rcx)\n\t"
		"mov %%rbp, 8(%%rcx)\n\t"
		"mov %%r8, 16(%%rcx)\n\t"
		"mov %%r9, 24(%%rcx)\n\t"
		"mov %%r10, 32(%%rcx)\n\t"
		"mov %%r12, 40(%%rcx)\n\t"
		"mov %%r13, 48(%%rcx)\n\t"
		"mov %%r14, 56(%%rcx)\n\t"
		"mov %%rdi, 64(%%rcx)\n\t"
		"mov %%rsi, 72(%%rcx)\n\t"
		"mov %%rdx, 80(%%rcx)\n\t"
		"mov %%r15, 88(%%rcx)\n\t"
		".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"
		"movdqu %%xmm\\n, 96 + 16 * \\n(%%rcx)\n\t"
		".endr\n\t"
		"stmxcsr 352(%%rcx)\n\t"
		"fnstcw 356(%%rcx)\n\t"
		"mov %%r11, 360(%%rcx)\n\t"
		"pop %%rbx\n\t"
		"pop %%rbp\n\t"
		"lea 128(%%rsp), %%rsp\n\t"
		: "=&a"(ret)
		: [call] "c"(call), [after] "d"(after), [nr] "i"(__NR_async_submit)
		: "memory", "cc", "rdi", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		  "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
		  "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	return ret;
}

_Static_assert(offsetof(struct registers, vector) == 96, "as the assembler has it");
_Static_assert(offsetof(struct registers, mxcsr) == 352, "as the assembler has it");
_Static_assert(offsetof(struct registers, control) == 356, "as the assembler has it");
_Static_assert(offsetof(struct registers, flags) == 360, "as the assembler has it");

struct register_test {
	unsigned long flags;
	unsigned long call[4];
	struct registers after;
	bool finished;
};

static void *keeps_registers(void *argument)
{
	const unsigned int mxcsr = 0x1f80 | 0x6000;
	const unsigned short control = 0x037f & ~0x0300;
	struct register_test *t = argument;
	unsigned int old_mxcsr;
	unsigned short old_control;
	struct blocked b = { .result = UNTOUCHED };

	if (pipe(b.fds) || feeder_start(&b.feeder, b.fds[1]))
		return NULL;
	memcpy(t->call, ((unsigned long [4]) {
		t->flags, P(&b.result), __NR_read, P(ARGS(b.fds[0], P(&b.byte), 1))
	}), sizeof(t->call));
	asm volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(old_mxcsr), "=m"(old_control));
	asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(control));
	b.submitted = submit_with_registers(t->call, &t->after);
	asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(old_mxcsr), "m"(old_control));
	t->finished = finish(&b);
	return NULL;
}

TEST_F(sleeper, keeps_its_registers)
{
	struct register_test t = { .flags = variant->flags };
	static const unsigned long general[8] = {
		0x1111111111111111, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444,
		0, 0x6666666666666666, 0x7777777777777777, 0x8888888888888888,
	};
	int i, k;

	ASSERT_TRUE(run_in(variant->other_thread, keeps_registers, &t));
	EXPECT_TRUE(t.finished);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(i == 4 ? t.call[3] : general[i], t.after.general[i]);
	EXPECT_EQ(t.call[0], t.after.rdi);
	EXPECT_EQ(t.call[1], t.after.rsi);
	EXPECT_EQ(t.call[2], t.after.rdx);
	EXPECT_EQ(0x9999999999999999, t.after.r15);
	for (i = 0; i < 16; i++)
		for (k = 0; k < 16; k++)
			EXPECT_EQ(i, t.after.vector[i][k])
				TH_LOG("xmm%d, byte %d", i, k);
	EXPECT_EQ(0x7f80, t.after.mxcsr & ~0x3f);
	EXPECT_EQ(0x007f, t.after.control);
	/* The carry and the direction flag. */
	EXPECT_EQ(0x401, t.after.flags & 0x401);
}

#endif /* __x86_64__ */

TEST_HARNESS_MAIN
