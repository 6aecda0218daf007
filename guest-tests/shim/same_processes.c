// SPDX-License-Identifier: GPL-2.0
/*
 * Threads and processes that a program makes: they begin where they should, their calls are as
 * asynchronous as its own, and each ends as it would.
 */
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>

#include <sys/time.h>

#include "same.h"

static int sleep_a_little(void *unused)
{
	struct timespec time = { .tv_nsec = 10000000 };

	return raw(__NR_nanosleep, &time, NULL);
}

static void show_end(pid_t child)
{
	int status = 0;

	SHOW(waitpid(child, &status, 0) == child);
	SHOW(status);
}

SAME(fork_and_wait, __NR_nanosleep)
{
	int depth = 0;
	pid_t child;

	/* Children of children. */
	do {
		child = fork();
		NEEDS(child >= 0);
		depth++;
	} while (!child && depth < 4);
	if (!child) {
		SHOW(sleep_a_little(NULL));
		_exit(depth);
	}
	show_end(child);
	SHOW(depth);
	if (depth > 1)
		_exit(depth);
}

SAME(fork_with_registers, NOTHING)
{
	long value;
	int status;

	/* What the kernel keeps over a call is kept. */
	asm volatile("mov $11, %%rdi\n\t"
		     "mov $12, %%rsi\n\t"
		     "mov $13, %%rdx\n\t"
		     "mov $14, %%r8\n\t"
		     "mov $15, %%r9\n\t"
		     "mov $16, %%r10\n\t"
		     "mov $17, %%r12\n\t"
		     "movl $77, -4(%%rsp)\n\t"
		     "movl $78, -128(%%rsp)\n\t"
		     "syscall\n\t"
		     "cmp $11, %%rdi\n\t"
		     "jne 1f\n\t"
		     "cmp $12, %%rsi\n\t"
		     "jne 1f\n\t"
		     "cmp $13, %%rdx\n\t"
		     "jne 1f\n\t"
		     "cmp $14, %%r8\n\t"
		     "jne 1f\n\t"
		     "cmp $15, %%r9\n\t"
		     "jne 1f\n\t"
		     "cmp $16, %%r10\n\t"
		     "jne 1f\n\t"
		     "cmp $17, %%r12\n\t"
		     "jne 1f\n\t"
		     "cmpl $77, -4(%%rsp)\n\t"
		     "jne 1f\n\t"
		     "cmpl $78, -128(%%rsp)\n\t"
		     "je 2f\n"
		     "1:	ud2\n"
		     "2:"
		     : "=a" (value)
		     : "a" (__NR_fork)
		     : "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "r12", "memory", "cc");
	if (!value)
		_exit(3);
	NEEDS(value > 0);
	NEEDS(waitpid(value, &status, 0) == value);
	SHOW(status);
}

SAME(vfork_and_exec, NOTHING)
{
	volatile int shared = 0;
	pid_t child = vfork();

	if (!child) {
		shared = 1;
		execl("/bin/true", "true", NULL);
		_exit(9);
	}
	NEEDS(child > 0);
	SHOW(shared);
	show_end(child);
}

SAME(vfork_and_exit, NOTHING)
{
	volatile int shared = 0;
	pid_t child;
	int i;

	for (i = 0; i < 20; i++) {
		child = vfork();
		if (!child) {
			shared++;
			getppid();
			_exit(shared);
		}
		NEEDS(child > 0);
		show_end(child);
	}
	SHOW(shared);
}

SAME(vfork_in_a_vfork, NOTHING)
{
	volatile int shared = 0;
	pid_t child = vfork();

	if (!child) {
		child = vfork();
		if (!child) {
			shared += 1;
			_exit(1);
		}
		shared += 10;
		_exit(2);
	}
	NEEDS(child > 0);
	SHOW(shared);
	show_end(child);
}

SAME(spawn_of_a_program, NOTHING)
{
	char *argv[] = { "sh", "-c", "exit 5", NULL }, *env[] = { "PATH=/bin:/usr/bin", NULL };
	pid_t child;

	SHOW(posix_spawn(&child, "/bin/sh", NULL, NULL, argv, env));
	show_end(child);
	SHOW(posix_spawn(&child, "/there/is/none", NULL, NULL, argv, env));
}

SAME(output_of_a_command, NOTHING)
{
	char line[100] = "";
	FILE *output = popen("echo one; echo two", "r");

	NEEDS(output);
	while (fgets(line, sizeof(line), output))
		dprintf(STDOUT_FILENO, "%s", line);
	SHOW(pclose(output));
	SHOW(system("exit 3"));
}

SAME(exec_that_fails, NOTHING)
{
	char *argv[] = { "none", NULL };

	SHOW(raw(__NR_execve, "/there/is/none", argv, argv));
	SHOW(raw(__NR_execve, "/etc", argv, argv));
	SHOW(raw(__NR_execve, NULL, NULL, NULL));
	SHOW(getppid() > 0);
}

SAME(exec_of_itself, NOTHING)
{
	dprintf(STDOUT_FILENO, "before\n");
	setenv("SAME_RUN", "end_of_a_main_thread", 1);
	execl("/proc/self/exe", "again", NULL);
	_exit(96);
}

/* --- threads ------------------------------------------------------------------------------ */

#define MANY	20

static __thread int mine;
static int counter;

static void *work(void *given)
{
	long number = (long)given;
	int i;

	mine = number;
	for (i = 0; i < 5; i++) {
		NEEDS(!sleep_a_little(NULL));
		__atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED);
	}
	NEEDS(mine == number);
	return (void *)(number + 1000);
}

SAME(threads_that_sleep, __NR_nanosleep)
{
	pthread_t threads[MANY];
	void *value;
	long i, sum = 0;

	for (i = 0; i < MANY; i++)
		NEEDS(!pthread_create(&threads[i], NULL, work, (void *)i));
	for (i = 0; i < MANY; i++) {
		NEEDS(!pthread_join(threads[i], &value));
		sum += (long)value;
	}
	SHOW(sum);
	SHOW(counter);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int turn;

static void *take_turns(void *given)
{
	long number = (long)given;
	int i;

	for (i = 0; i < 100; i++) {
		pthread_mutex_lock(&mutex);
		while (turn % 2 != number)
			pthread_cond_wait(&condition, &mutex);
		turn++;
		pthread_cond_broadcast(&condition);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

SAME(threads_that_take_turns, __NR_futex)
{
	pthread_t threads[2];
	long i;

	for (i = 0; i < 2; i++)
		NEEDS(!pthread_create(&threads[i], NULL, take_turns, (void *)i));
	for (i = 0; i < 2; i++)
		NEEDS(!pthread_join(threads[i], NULL));
	SHOW(turn);
}

static int fds[2];
static volatile int cleaned;

static void clean_up(void *unused)
{
	cleaned = 1;
}

static void *read_for_ever(void *unused)
{
	char byte;

	pthread_cleanup_push(clean_up, NULL);
	NEEDS(read(fds[0], &byte, 1) == 1);
	pthread_cleanup_pop(0);
	return NULL;
}

static volatile pid_t reader;

static void *read_and_tell(void *unused)
{
	reader = gettid();
	return read_for_ever(unused);
}

/* Cancellation unwinds the stack, from the handler of a signal. */
SAME(thread_that_is_cancelled, __NR_read)
{
	pthread_t thread;
	void *value;

	NEEDS(!pipe(fds));
	NEEDS(!pthread_create(&thread, NULL, read_and_tell, NULL));
	while (!reader)
		doze(1);
	wait_until_asleep(getpid(), reader);
	SHOW(pthread_cancel(thread));
	SHOW(pthread_join(thread, &value));
	SHOW(value == PTHREAD_CANCELED);
	SHOW(cleaned);
	/* The read is over: this is for the one that follows. */
	NEEDS(write(fds[1], "x", 1) == 1);
	NEEDS(!pthread_create(&thread, NULL, read_for_ever, NULL));
	SHOW(pthread_join(thread, &value));
	SHOW(value == NULL);
}

static char stack[65536] __attribute__((aligned(16)));
static int plain_value;

static int plain_child(void *argument)
{
	plain_value = sleep_a_little(NULL) + (long)argument;
	return 4;
}

/* Not a thread, but with the memory, and the thread-local storage, of its parent. */
SAME(clone_that_shares_memory, __NR_nanosleep)
{
	pid_t child = clone(plain_child, stack + sizeof(stack), CLONE_VM | SIGCHLD, (void *)33);

	NEEDS(child > 0);
	show_end(child);
	SHOW(plain_value);
}

SAME(clone3_on_a_stack_of_its_own, NOTHING)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD,
		.stack = (unsigned long)stack, .stack_size = sizeof(stack),
	};
	long child;

	asm volatile("syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     "mov $110, %%eax\n\t"	/* getppid */
		     "syscall\n\t"
		     "mov $6, %%edi\n\t"
		     "mov $60, %%eax\n\t"	/* exit */
		     "syscall\n"
		     "1:"
		     : "=a" (child)
		     : "a" (__NR_clone3), "D" (&args), "S" (sizeof(args))
		     : "rcx", "r11", "memory", "cc");
	NEEDS(child > 0);
	SHOW(args.stack_size);
	show_end(child);
}

/* As vfork(): on the stack of the parent. */
SAME(clone3_as_a_vfork, NOTHING)
{
	static struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD,
	};
	long child;

	asm volatile("mov $21, %%r12\n\t"
		     "syscall\n\t"
		     "test %%rax, %%rax\n\t"
		     "jnz 1f\n\t"
		     "mov $110, %%eax\n\t"	/* getppid */
		     "syscall\n\t"
		     "mov $6, %%edi\n\t"
		     "mov $231, %%eax\n\t"	/* exit_group */
		     "syscall\n"
		     "1:	cmp $21, %%r12\n\t"
		     "je 2f\n\t"
		     "ud2\n"
		     "2:"
		     : "=a" (child)
		     : "a" (__NR_clone3), "D" (&args), "S" (sizeof(args))
		     : "rcx", "r11", "r12", "memory", "cc");
	NEEDS(child > 0);
	show_end(child);
}

static void count_it(int signal)
{
	counter++;
}

static void count_much(int signal)
{
	counter += 1000;
}

/* Memory is shared, handlers are not. */
SAME(vfork_child_with_handlers_of_its_own, NOTHING)
{
	struct sigaction seen;
	pid_t child;

	signal(SIGUSR1, count_it);
	child = vfork();
	if (!child) {
		signal(SIGUSR1, count_much);
		raise(SIGUSR1);
		signal(SIGUSR1, SIG_DFL);
		_exit(0);
	}
	NEEDS(child > 0);
	show_end(child);
	SHOW(counter);
	SHOW(raise(SIGUSR1));
	SHOW(counter);
	SHOW(sigaction(SIGUSR1, NULL, &seen));
	SHOW(seen.sa_handler == count_it);
}

static void set_filter(struct sock_filter *code, unsigned short length)
{
	struct sock_fprog program = { length, code };

	NEEDS(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	NEEDS(!syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

/* One call is answered with this, and all others are allowed. */
static void filter_call(unsigned int nr, unsigned int action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	set_filter(code, sizeof(code) / sizeof(*code));
}

/* In a process of its own: with the shim, it makes its own calls from then on. */
static void in_a_child(void (*body)(void))
{
	pid_t child = child_when_asleep();
	int status;

	if (!child) {
		body();
		_exit(0);
	}
	NEEDS(waitpid(child, &status, 0) == child);
	SHOW(status);
}

/* Read, write, exit and the return from a handler, and nothing else. */
static void work_in_strict_mode(void)
{
	NEEDS(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	dprintf(STDOUT_FILENO, "strict\n");
	syscall(__NR_exit, 3);
}

SAME(child_in_strict_mode, __NR_wait4)
{
	in_a_child(work_in_strict_mode);
}

/* What a filter traps is not to be ignored. */
static void ignore_a_trap(void)
{
	NEEDS(signal(SIGSYS, SIG_IGN) != SIG_ERR);
	filter_call(__NR_getppid, SECCOMP_RET_TRAP);
	SHOW(syscall(__NR_getpid) > 0);
	SHOW(syscall(__NR_getppid) > 0);
}

SAME(child_that_ignores_a_trap, __NR_wait4)
{
	in_a_child(ignore_a_trap);
}

/* As sandboxes do: what they do not know is trapped, and nobody handles that. */
static void allow_next_to_nothing(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_rt_sigreturn, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	set_filter(code, sizeof(code) / sizeof(*code));
	SHOW(write(STDOUT_FILENO, "x\n", 2));
	SHOW(syscall(__NR_getppid) > 0);
}

SAME(child_that_is_allowed_next_to_nothing, __NR_wait4)
{
	in_a_child(allow_next_to_nothing);
}

/* It need not allow the call that says which thread this is. */
static void allow_no_gettid(void)
{
	filter_call(__NR_gettid, SECCOMP_RET_KILL_PROCESS);
	SHOW(syscall(__NR_getpid) > 0);
	SHOW(close(-1));
}

SAME(child_without_gettid, __NR_wait4)
{
	in_a_child(allow_no_gettid);
}

static volatile int filtered;

static void *work_beside_a_filter(void *unused)
{
	pthread_t thread;
	sigset_t set;
	void *value;

	while (!filtered)
		sched_yield();
	NEEDS(!pthread_create(&thread, NULL, work, (void *)7L));
	NEEDS(!pthread_join(thread, &value));
	SHOW((long)value);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	NEEDS(!pthread_sigmask(SIG_BLOCK, &set, NULL));
	sigemptyset(&set);
	NEEDS(!pthread_sigmask(SIG_BLOCK, NULL, &set));
	SHOW(sigismember(&set, SIGUSR1));
	return NULL;
}

/* The filter is one thread's, but what it allows may be anything. */
SAME(threads_beside_a_filter, NOTHING)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, code };
	pthread_t thread;

	NEEDS(!pthread_create(&thread, NULL, work_beside_a_filter, NULL));
	NEEDS(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	SHOW(syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
	filtered = 1;
	NEEDS(!pthread_join(thread, NULL));
	SHOW(getppid() > 0);
	show_end(fork() ?: (_exit(3), 0));
}

SAME(clone3_as_a_fork, NOTHING)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	long child = raw(__NR_clone3, &args, sizeof(args));

	NEEDS(child >= 0);
	if (!child)
		_exit(sleep_a_little(NULL) ? 1 : 2);
	show_end(child);
	SHOW(raw(__NR_clone3, &args, 3L));
	SHOW(raw(__NR_clone3, NULL, sizeof(args)));
	args.flags = CLONE_SIGHAND;
	SHOW(raw(__NR_clone3, &args, sizeof(args)));
}

static void *end_process(void *unused)
{
	wait_until_asleep(getpid(), getpid());
	exit(11);
}

SAME(end_of_a_process_with_calls, __NR_read)
{
	pthread_t thread;
	char byte;

	NEEDS(!pipe(fds));
	NEEDS(!pthread_create(&thread, NULL, end_process, NULL));
	SHOW(read(fds[0], &byte, 1));
}

static void *outlive(void *unused)
{
	while (state_of(getpid(), getpid()) != 'Z')
		doze(1);
	dprintf(STDOUT_FILENO, "the last one\n");
	return NULL;
}

SAME(end_of_a_main_thread, NOTHING)
{
	pthread_t thread;

	NEEDS(!pthread_create(&thread, NULL, outlive, NULL));
	pthread_exit(NULL);
}

SAME_MAIN
