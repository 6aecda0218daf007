/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the hand-over share: the counters that tell which way a call took, a call
 * that sleeps until it is told to end, and bodies that run in one thread or another.
 *
 * A body returns NULL, or what went wrong: so it is the same in the main thread, in another
 * thread and in a child, where the assertions of the harness do not work.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdarg.h>

#include "calls.h"

/* --- what went wrong -------------------------------------------------------------------- */

__attribute__((format(printf, 1, 2)))
static inline const char *trouble(const char *format, ...)
{
	char *text = NULL;
	va_list list;

	va_start(list, format);
	if (vasprintf(&text, format, list) < 0)
		text = NULL;
	va_end(list);
	return text ?: "trouble, and no memory to say which";
}

/* Ends a body if a condition does not hold. */
#define CHECK(condition)						\
do {									\
	if (!(condition))						\
		return trouble("%s:%d: not %s (errno %d)", __FILE__,	\
			       __LINE__, #condition, errno);		\
} while (0)

/* Ends a body if two numbers differ, and says which they are. */
#define CHECK_EQ(expected, seen)					\
do {									\
	long __expected = (long)(expected), __seen = (long)(seen);	\
									\
	if (__expected != __seen)					\
		return trouble("%s:%d: %s is %ld (%#lx), not %ld",	\
			       __FILE__, __LINE__, #seen, __seen,	\
			       __seen, __expected);			\
} while (0)

/* Ends a body if another one found trouble. */
#define TRY(body)							\
do {									\
	const char *__trouble = (body);					\
									\
	if (__trouble)							\
		return trouble("%s:%d: %s", __FILE__, __LINE__,		\
			       __trouble);				\
} while (0)

/* In a TEST(): fails if a body found trouble. */
#define EXPECT_FINE(body)						\
do {									\
	const char *__trouble = (body);					\
									\
	EXPECT_EQ(NULL, __trouble)					\
		TH_LOG("%s", __trouble);				\
} while (0)

#define ASSERT_FINE(body)						\
do {									\
	const char *__trouble = (body);					\
									\
	ASSERT_EQ(NULL, __trouble)					\
		TH_LOG("%s", __trouble);				\
} while (0)

/* --- the counters ----------------------------------------------------------------------- */

/* A line of /proc/PID/async_submit, -1 if there is none. */
static inline long counter_of(const char *pid, const char *name)
{
	char path[64], text[1024], line[64];
	ssize_t length;
	char *found;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/async_submit", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	text[0] = '\n';
	length = read(fd, text + 1, sizeof(text) - 2);
	close(fd);
	text[length > 0 ? length + 1 : 1] = 0;
	snprintf(line, sizeof(line), "\n%s: ", name);
	found = strstr(text, line);
	return found ? atol(found + strlen(line)) : -1;
}

static inline long counter(const char *name)
{
	return counter_of("self", name);
}

/* Does a loop last as long as it would overnight? */
static inline bool takes_long(void)
{
	const char *wanted = getenv("ASYNC_LONG");

	return wanted && *wanted && *wanted != '0';
}

/* How often: a few seconds' worth, or a night's. */
static inline int times(int usually, int at_length)
{
	return takes_long() ? at_length : usually;
}

/* --- a call that sleeps ----------------------------------------------------------------- */

struct submission {
	long result;
	long cookie;
};

/* Submits a call that sleeps: it has to be outstanding, and handed over. */
static inline const char *submit_sleeping(struct submission *s, long nr, const unsigned long *args)
{
	long handed_over = counter("handed_over");

	s->result = UNTOUCHED;
	s->cookie = async_submit(0, &s->result, nr, args);
	if (!is_cookie(s->cookie))
		return trouble("call %ld: submitted %ld with result %ld, not a cookie",
			       nr, s->cookie, s->result);
	CHECK_EQ(handed_over + 1, counter("handed_over"));
	return NULL;
}

/* Waits for the value of a submission. */
static inline const char *ends_with(struct submission *s, long value)
{
	CHECK_EQ(0, wait_for_async(0, s->cookie, &deadline));
	CHECK_EQ(value, result_of(&s->result));
	return NULL;
}

/* A read of an empty pipe. */
struct reading {
	struct submission s;
	int fds[2];
	char byte;
};

static inline const char *begin_reading(struct reading *r)
{
	r->byte = 0;
	CHECK_EQ(0, pipe(r->fds));
	TRY(submit_sleeping(&r->s, __NR_read, ARGS(r->fds[0], P(&r->byte), 1)));
	CHECK_EQ(r->s.cookie, result_of(&r->s.result));
	return NULL;
}

static inline const char *end_reading(struct reading *r)
{
	CHECK_EQ(r->s.cookie, result_of(&r->s.result));
	CHECK_EQ(1, write(r->fds[1], "x", 1));
	TRY(ends_with(&r->s, 1));
	CHECK_EQ('x', r->byte);
	CHECK_EQ(0, close(r->fds[0]));
	CHECK_EQ(0, close(r->fds[1]));
	return NULL;
}

/* One hand-over from begin to end. */
static inline const char *hand_over_once(void)
{
	struct reading r;

	TRY(begin_reading(&r));
	TRY(end_reading(&r));
	return NULL;
}

/*
 * The same while other threads do so too, so that the counters tell nothing about one of them,
 * and among signals.
 */
static inline const char *hand_over_among_others(void)
{
	long result, cookie;
	char byte = 0;
	int fds[2], ret;

	CHECK_EQ(0, pipe(fds));
	do {
		result = UNTOUCHED;
		cookie = async_submit(0, &result, __NR_read, ARGS(fds[0], P(&byte), 1));
		/* About to sleep with a signal pending. */
	} while (!cookie && result == -EINTR);
	CHECK(is_cookie(cookie));
	CHECK_EQ(cookie, result_of(&result));
	CHECK_EQ(1, write(fds[1], "x", 1));
	while ((ret = wait_for_async(0, cookie, &deadline)) == -EINTR)
		;
	CHECK_EQ(0, ret);
	CHECK_EQ(1, result_of(&result));
	CHECK_EQ('x', byte);
	close(fds[0]);
	close(fds[1]);
	return NULL;
}

static inline const char *hand_over(int n)
{
	int i;

	for (i = 0; i < n; i++)
		TRY(hand_over_once());
	return NULL;
}

/* A call that does not sleep: from here on a worker is in reserve for the next one. */
static inline const char *makes_a_call_in_place(void)
{
	long result = UNTOUCHED;

	CHECK_EQ(0, async_submit(0, &result, __NR_getpid, ARGS(0)));
	CHECK_EQ(getpid(), result);
	return NULL;
}

/* --- tasks ------------------------------------------------------------------------------- */

/* How many tasks of a process are in a state, 0 for any. */
static inline int tasks_of(const char *pid, char state)
{
	struct dirent *entry;
	char path[288];
	int found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/task/%s/stat", pid, entry->d_name);
		found += !state || state_in(path) == state;
	}
	if (dir)
		closedir(dir);
	return found;
}

/* --- threads and children --------------------------------------------------------------- */

typedef const char *(*body_fn)(void);

static inline void *run_body(void *argument)
{
	body_fn *body = argument;

	return (void *)(*body)();
}

/* Runs a body in this thread, or in another one while this one waits for it. */
static inline const char *run_in(bool other_thread, body_fn body)
{
	void *found = "no value";
	pthread_t thread;

	if (!other_thread)
		return body();
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	CHECK_EQ(0, pthread_join(thread, &found));
	return found;
}

/* In a child: says what went wrong, and ends it. */
static inline void __attribute__((noreturn)) exit_fine(const char *found)
{
	if (found)
		dprintf(STDERR_FILENO, "# in process %d: %s\n", getpid(), found);
	_exit(found ? 99 : 0);
}

/* Runs a body in a child process, in its main thread or another one. */
static inline const char *run_in_child(bool other_thread, body_fn body)
{
	pid_t child = fork_child();

	CHECK(child >= 0);
	if (child == 0)
		exit_fine(run_in(other_thread, body));
	CHECK_EQ(0, status_of(child));
	return NULL;
}

/* What a child does next: as waitpid(), with a deadline; -ETIME. */
static inline int next_status(pid_t child, int options)
{
	pid_t found = 0;
	int status = 0;

	if (!becomes_true((found = waitpid(child, &status, options | WNOHANG))))
		return -ETIME;
	return found == child ? status : -errno;
}

/* Stops a child; what went wrong, if its parent did not get to know it. */
static inline const char *stop_child(pid_t child)
{
	int status;

	CHECK_EQ(0, kill(child, SIGSTOP));
	status = next_status(child, WUNTRACED);
	if (status < 0 || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		return trouble("status %d (%#x) of a stopped child", status, status);
	return NULL;
}

static inline const char *continue_child(pid_t child)
{
	int status;

	CHECK_EQ(0, kill(child, SIGCONT));
	status = next_status(child, WCONTINUED);
	if (status < 0 || !WIFCONTINUED(status))
		return trouble("status %d (%#x) of a continued child", status, status);
	return NULL;
}

/* Memory that a child and its parent share. */
static inline void *share(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* A word that one thread or process sets and another one waits for. */
static inline void reach(int *stage, int value)
{
	__atomic_store_n(stage, value, __ATOMIC_RELEASE);
}

static inline bool is_reached(const int *stage, int value)
{
	return __atomic_load_n(stage, __ATOMIC_ACQUIRE) >= value;
}

#define await(stage, value)	becomes_true(is_reached(stage, value))

/* In a child, which is there for as long as its parent wants it. */
static inline void stay_until(const int *stage, int value)
{
	while (!is_reached(stage, value))
		poll(NULL, 0, 1);
}

/* The start of a file, as a string; false if it cannot be read. */
static inline bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = -1;

	if (fd >= 0) {
		length = read(fd, text, size - 1);
		close(fd);
	}
	text[length < 0 ? 0 : length] = 0;
	return length >= 0;
}

static inline bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written;

	if (fd < 0)
		return false;
	written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return written;
}

/*
 * HOLDS_PERF() once in a file whose cases count events or set breakpoints: while one event is there,
 * the kernel has its code for events in place, and is not patched for each case. An emulator with
 * several CPUs does not always see that in time (Oops: int3). Of the harness alone, not of its cases,
 * nor of what it is with arguments.
 */
#define HOLDS_PERF()							\
	static __attribute__((constructor)) void hold_perf(int argc)	\
	{								\
		struct perf_event_attr attributes = {			\
			.type = PERF_TYPE_SOFTWARE,			\
			.size = sizeof(attributes),			\
			.config = PERF_COUNT_SW_TASK_CLOCK,		\
			.disabled = 1,					\
		};							\
									\
		if (argc == 1)						\
			syscall(__NR_perf_event_open, &attributes, 0,	\
				-1, -1, PERF_FLAG_FD_CLOEXEC);		\
	}

/*
 * EITHER_THREAD() once in a file, then IN_EITHER_THREAD(name) { ... return NULL; } for each
 * body that is to run in the main thread and in another one.
 */
#define EITHER_THREAD()							\
	FIXTURE(thread) { };						\
	FIXTURE_VARIANT(thread) { bool other; };			\
	FIXTURE_VARIANT_ADD(thread, main) { .other = false, };		\
	FIXTURE_VARIANT_ADD(thread, other) { .other = true, };		\
	FIXTURE_SETUP(thread) { }					\
	FIXTURE_TEARDOWN(thread) { }

/* PATIENCE() once in a file, then tests that may take longer than the harness lets others. */
#define PATIENCE()							\
	FIXTURE(patient) { };						\
	FIXTURE_SETUP(patient) { }					\
	FIXTURE_TEARDOWN(patient) { }

#define PATIENT_TEST(name, seconds)	TEST_F_TIMEOUT(patient, name, seconds)

#define IN_EITHER_THREAD_TIMEOUT(name, seconds)				\
	static const char *name##_body(void);				\
	TEST_F_TIMEOUT(thread, name, seconds)				\
	{								\
		EXPECT_FINE(run_in(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

#define IN_EITHER_THREAD(name)	IN_EITHER_THREAD_TIMEOUT(name, TEST_TIMEOUT_DEFAULT)

/* The same, each in a process of its own. */
#define IN_A_CHILD(name)						\
	static const char *name##_body(void);				\
	TEST_F(thread, name)						\
	{								\
		EXPECT_FINE(run_in_child(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

/*
 * CHILD_FIXTURE(name, memory, body): a child that runs the body, in its main thread or another
 * one, and shares *memory with its parent. A stage "at" is in there: the body reaches 1 when the
 * test may begin, and goes on until 2 is reached.
 */
#define CHILD_FIXTURE(name, memory, body)				\
	FIXTURE(name) { pid_t pid; int *at; };				\
	FIXTURE_VARIANT(name) { bool other; };				\
	FIXTURE_VARIANT_ADD(name, main) { .other = false, };		\
	FIXTURE_VARIANT_ADD(name, other) { .other = true, };		\
	FIXTURE_SETUP(name)						\
	{								\
		memory = share(sizeof(*memory));			\
		ASSERT_NE(NULL, memory);				\
		self->at = &memory->at;					\
		self->pid = fork_child();				\
		ASSERT_LE(0, self->pid);				\
		if (self->pid == 0)					\
			exit_fine(run_in(variant->other, body));	\
		ASSERT_TRUE(await(self->at, 1));			\
	}								\
	FIXTURE_TEARDOWN(name)						\
	{								\
		if (self->pid > 0) {					\
			kill(self->pid, SIGKILL);			\
			waitpid(self->pid, NULL, 0);			\
		}							\
	}

/* In a test of such a child: tells it to end, which it has to do without trouble. */
#define EXPECT_ENDS_WELL()						\
do {									\
	reach(self->at, 2);						\
	EXPECT_EQ(0, status_of(self->pid));				\
	self->pid = 0;							\
} while (0)

#endif /* HANDOVER_H */
