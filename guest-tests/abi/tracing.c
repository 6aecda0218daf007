// SPDX-License-Identifier: GPL-2.0
/*
 * What a tracer of the whole system sees of a call: the entry and the exit of async_submit(), and
 * between them those of the inner call, once each and in this order, whichever way the call goes;
 * and the events of the series, as often as /proc/PID/async_submit counts. And a function with a
 * return probe, which no other task can return from.
 *
 * For kernels with kernel-configs/perf.config.
 */
#include <sys/mount.h>
#include <sys/socket.h>

#include "handover.h"
#include "../kselftest_harness.h"

#define TRACING		"/sys/kernel/tracing"
#define INSTANCE	TRACING "/instances/async"
#define PROBES		TRACING "/uprobe_events"
#define PROBE		"async_tracing/returns"

enum { CALLS = 8, TEXT = 1 << 20 };

/* An event in the trace: what it is, and the number and value of a call. */
struct event {
	char name[32];
	long nr, value;
};

static char trace_text[TEXT];
static struct event events[4096];
static int seen;

static bool appends_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return written;
}

/*
 * "    name-123     [000] ..... 1.234567: sys_enter: NR 45 (...". The name is not always known, and
 * a call has several tasks; but nobody else makes such calls meanwhile.
 */
static bool read_event(const char *line, struct event *event)
{
	const char *at = strstr(line, ": ");

	if (*line == '#')
		return false;
	if (!at || sscanf(at + 2, "%31[a-z_]:", event->name) != 1)
		return false;
	event->nr = event->value = -1;
	at = strchr(at + 2, ' ');
	if (!strncmp(event->name, "sys_", 4))
		return sscanf(at, " NR %ld = %ld", &event->nr, &event->value) > 0;
	/* Some of the others have no number. */
	if (at)
		sscanf(at, " nr=%ld", &event->nr);
	return true;
}

/* All that has been recorded since it was cleared; what reads it is not. */
static const char *read_trace(void)
{
	size_t size = 0;
	ssize_t more;
	int fd;

	CHECK(write_text(INSTANCE "/tracing_on", "0"));
	fd = open(INSTANCE "/trace", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	while ((more = read(fd, trace_text + size, sizeof(trace_text) - 1 - size)) > 0)
		size += more;
	close(fd);
	CHECK_EQ(0, more);
	trace_text[size] = 0;
	seen = 0;
	for (char *line = strtok(trace_text, "\n"); line; line = strtok(NULL, "\n")) {
		CHECK(seen < (int)(sizeof(events) / sizeof(*events)));
		seen += read_event(line, &events[seen]);
	}
	return NULL;
}

static const char *clear_trace(void)
{
	int fd = open(INSTANCE "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	CHECK(fd >= 0);
	close(fd);
	CHECK(write_text(INSTANCE "/tracing_on", "1"));
	return NULL;
}

static int count_of(const char *name, long nr)
{
	int i, count = 0;

	for (i = 0; i < seen; i++)
		count += !strcmp(events[i].name, name) && (nr < 0 || events[i].nr == nr);
	return count;
}

/* Each of n submissions of this call is in the trace, as four events in their order. */
static const char *each_is_whole(long nr, int n)
{
	const struct { const char *name; long nr; } expected[] = {
		{ "sys_enter", __NR_async_submit }, { "sys_enter", nr },
		{ "sys_exit", nr }, { "sys_exit", __NR_async_submit },
	};
	int i, at = 0;

	for (i = 0; i < seen; i++) {
		if (strncmp(events[i].name, "sys_", 4) ||
		    (events[i].nr != nr && events[i].nr != __NR_async_submit))
			continue;
		if (strcmp(events[i].name, expected[at % 4].name) ||
		    events[i].nr != expected[at % 4].nr)
			return trouble("event %d is %s of %ld, not %s of %ld", at, events[i].name,
				       events[i].nr, expected[at % 4].name, expected[at % 4].nr);
		at++;
	}
	CHECK_EQ(4 * n, at);
	return NULL;
}

FIXTURE(traced) { int sockets[2]; };
FIXTURE_VARIANT(traced) { bool other; };
FIXTURE_VARIANT_ADD(traced, main) { .other = false, };
FIXTURE_VARIANT_ADD(traced, other) { .other = true, };

static int sockets[2];

FIXTURE_SETUP(traced)
{
	if (access(INSTANCE "/events/raw_syscalls/enable", W_OK))
		SKIP(return, "no trace of system calls in this kernel (kernel-configs/perf.config)");
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_DGRAM, 0, self->sockets));
	memcpy(sockets, self->sockets, sizeof(sockets));
	ASSERT_FINE(clear_trace());
}

/* A case that has ended early has left it. */
static void remove_probe(void)
{
	write_text(INSTANCE "/events/" PROBE "/enable", "0");
	appends_text(PROBES, "-:" PROBE);
}

FIXTURE_TEARDOWN(traced)
{
	remove_probe();
	close(self->sockets[0]);
	close(self->sockets[1]);
}

#define TRACED(name)							\
	static const char *name##_body(void);				\
	TEST_F(traced, name)						\
	{								\
		EXPECT_FINE(run_in(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

/* Nothing else here receives: what sleeps in these tests is known by that. */
static long receive(unsigned long flags, long *result, char *byte)
{
	*result = UNTOUCHED;
	return async_submit(flags, result, __NR_recvfrom, ARGS(sockets[0], P(byte), 1, 0, 0, 0));
}

static const char *receive_one(unsigned long flags)
{
	long result, cookie;
	char byte = 0;

	cookie = receive(flags, &result, &byte);
	CHECK(is_cookie(cookie));
	CHECK_EQ(1, send(sockets[1], "x", 1, 0));
	CHECK_EQ(1, final_value(cookie, &result));
	return NULL;
}

TRACED(call_that_does_not_sleep)
{
	long result = UNTOUCHED;
	int i;

	TRY(makes_a_call_in_place());
	TRY(clear_trace());
	for (i = 0; i < CALLS; i++)
		CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0)));
	TRY(read_trace());
	TRY(each_is_whole(__NR_getppid, CALLS));
	for (i = 0; i < seen; i++)
		if (!strcmp(events[i].name, "sys_exit") && events[i].nr == __NR_getppid)
			CHECK_EQ(result, events[i].value);
	CHECK_EQ(CALLS, count_of("async_submit_inline", __NR_getppid));
	CHECK_EQ(0, count_of("async_submit_hand_over", -1));
	CHECK_EQ(0, count_of("async_submit_complete", -1));
	return NULL;
}

TRACED(call_that_is_handed_over)
{
	long before;
	int i;

	TRY(receive_one(0));
	TRY(clear_trace());
	before = counter("handed_over");
	for (i = 0; i < CALLS; i++)
		TRY(receive_one(0));
	CHECK_EQ(before + CALLS, counter("handed_over"));
	TRY(read_trace());
	TRY(each_is_whole(__NR_recvfrom, CALLS));
	CHECK_EQ(CALLS, count_of("async_submit_hand_over", __NR_recvfrom));
	CHECK_EQ(CALLS, count_of("async_submit_take_over", -1));
	CHECK_EQ(CALLS, count_of("async_submit_complete", __NR_recvfrom));
	CHECK_EQ(0, count_of("async_submit_inline", -1));
	/* While the call is outstanding, its exit and that of the submission show the cookie. */
	for (i = 0; i < seen; i++)
		if (!strcmp(events[i].name, "sys_exit") &&
		    (events[i].nr == __NR_recvfrom || events[i].nr == __NR_async_submit))
			CHECK(is_cookie(events[i].value));
	return NULL;
}

TRACED(call_that_a_worker_makes)
{
	int i;

	TRY(receive_one(ASYNC_SUBMIT_OFFLOAD));
	TRY(clear_trace());
	for (i = 0; i < CALLS; i++)
		TRY(receive_one(ASYNC_SUBMIT_OFFLOAD));
	TRY(read_trace());
	TRY(each_is_whole(__NR_recvfrom, CALLS));
	CHECK_EQ(CALLS, count_of("async_submit_offload", __NR_recvfrom));
	CHECK_EQ(CALLS, count_of("async_submit_complete", __NR_recvfrom));
	CHECK_EQ(0, count_of("async_submit_hand_over", -1));
	return NULL;
}

TRACED(call_that_is_cancelled)
{
	long result, cookie;
	char byte;

	TRY(receive_one(0));
	TRY(clear_trace());
	cookie = receive(0, &result, &byte);
	CHECK(is_cookie(cookie));
	CHECK_EQ(0, async_cancel(0, cookie));
	CHECK_EQ(-ECANCELED, final_value(cookie, &result));
	TRY(read_trace());
	TRY(each_is_whole(__NR_recvfrom, 1));
	CHECK_EQ(1, count_of("async_submit_cancel", -1));
	CHECK_EQ(1, count_of("async_submit_complete", __NR_recvfrom));
	return NULL;
}

/* Refused before it is shown to anybody: there is no inner call. */
TRACED(call_that_is_refused)
{
	long result = UNTOUCHED;

	CHECK_EQ(-EOPNOTSUPP, async_submit(0, &result, __NR_execve, ARGS(0)));
	TRY(read_trace());
	CHECK_EQ(1, count_of("sys_enter", __NR_async_submit));
	CHECK_EQ(1, count_of("sys_exit", __NR_async_submit));
	CHECK_EQ(0, count_of("sys_enter", __NR_execve));
	CHECK_EQ(0, count_of("sys_exit", __NR_execve));
	return NULL;
}

/* --- a return probe ------------------------------------------------------------------------- */

static const char *probed_trouble;

static __attribute__((noinline, noclone)) long receive_in_a_probed_function(void)
{
	probed_trouble = receive_one(0);
	/* Not a tail call, which would leave nothing to return to here. */
	__asm__ volatile("" ::: "memory");
	return probed_trouble != NULL;
}

/* Where a function of this program is in its file; -1. */
static long offset_of(const void *function)
{
	unsigned long start, end, offset, address = (unsigned long)function;
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	long found = -1;

	while (maps && found < 0 && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 &&
		    address >= start && address < end)
			found = address - start + offset;
	if (maps)
		fclose(maps);
	return found;
}

static const char *has_a_return_probe(void)
{
	long fell_back = counter("fell_back_uretprobe"), over = counter("handed_over");
	char probe[PATH_MAX + 64], path[PATH_MAX] = "";
	long hits;

	CHECK(readlink("/proc/self/exe", path, sizeof(path) - 1) > 0);
	snprintf(probe, sizeof(probe), "r:" PROBE " %s:%#lx", path,
		 offset_of(receive_in_a_probed_function));
	CHECK(appends_text(PROBES, probe));
	CHECK(write_text(INSTANCE "/events/" PROBE "/enable", "1"));
	CHECK_EQ(0, receive_in_a_probed_function());
	CHECK_EQ(0, receive_in_a_probed_function());
	TRY(read_trace());
	hits = count_of("returns", -1);
	remove_probe();
	CHECK_EQ(fell_back + 2, counter("fell_back_uretprobe"));
	CHECK_EQ(over, counter("handed_over"));
	TRY(each_is_whole(__NR_recvfrom, 2));
	CHECK_EQ(2, count_of("async_submit_fall_back", __NR_recvfrom));
	CHECK_EQ(2, count_of("async_submit_complete", __NR_recvfrom));
	CHECK_EQ(2, hits);
	/* Out of it, calls are handed over again. */
	TRY(receive_one(0));
	CHECK_EQ(over + 1, counter("handed_over"));
	return NULL;
}

TEST_F(traced, function_with_a_return_probe)
{
	if (access(PROBES, W_OK))
		SKIP(return, "no probes of programs in this kernel (kernel-configs/perf.config)");
	EXPECT_FINE(run_in(variant->other, has_a_return_probe));
}

/*
 * An instance of its own for the harness and its cases, on from here to the end: the kernel is not
 * patched for each case (see HOLDS_PERF()). Whoever comes after it is not traced.
 */
static __attribute__((constructor)) void begin_tracing(void)
{
	mount("tracefs", TRACING, "tracefs", 0, NULL);
	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		return;
	write_text(INSTANCE "/trace_clock", "mono");
	write_text(INSTANCE "/events/raw_syscalls/enable", "1");
	write_text(INSTANCE "/events/async_submit/enable", "1");
}

static __attribute__((destructor)) void end_tracing(void)
{
	write_text(INSTANCE "/events/enable", "0");
	rmdir(INSTANCE);
}

TEST_HARNESS_MAIN
