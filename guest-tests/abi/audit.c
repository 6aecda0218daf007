// SPDX-License-Identifier: GPL-2.0
/*
 * Audit sees the calls that are submitted as those that are made directly: each has one record,
 * with its number, its arguments and what became of it. The record of async_submit() is complete
 * before that of the call begins. Whatever is lost or nested is a panic here.
 */
#include <linux/audit.h>
#include <linux/netlink.h>
#include <sys/time.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#include "filters.h"
#include "handover.h"
#include "../kselftest_harness.h"

#if defined(__x86_64__)
#define THIS_ARCH	AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH	AUDIT_ARCH_AARCH64
#elif defined(__riscv)
#define THIS_ARCH	AUDIT_ARCH_RISCV64
#endif

/* What a child says first and last: a call that is recorded, with an argument of nobody else. */
#define FIRST_WORD	0xf1257UL
#define LAST_WORD	0x1a57UL

/* A record of a system call. */
struct record {
	long nr, exit;
	unsigned long args[4];
	bool success;
	unsigned long serial;
	int paths, directories;
};

#define MOST_RECORDS	4096

FIXTURE(audit)
{
	int fd;
	struct audit_status before;
	struct record records[MOST_RECORDS];
	int n;
};

struct request {
	struct nlmsghdr header;
	char data[sizeof(struct audit_rule_data) + 64];
};

/* Sends a request; 0 or a negative error code. */
static int ask(int fd, int type, const void *data, size_t size)
{
	struct request request = { }, reply;
	static unsigned int sequence;
	ssize_t length;

	request.header = (struct nlmsghdr){
		.nlmsg_len = NLMSG_LENGTH(size),
		.nlmsg_type = type,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
		.nlmsg_seq = ++sequence,
	};
	memcpy(request.data, data, size);
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
		return -errno;
	/* Records may come in between. They are of earlier calls. */
	for (;;) {
		length = recv(fd, &reply, sizeof(reply), MSG_TRUNC);
		if (length < 0)
			return -errno;
		if (reply.header.nlmsg_type == NLMSG_ERROR &&
		    reply.header.nlmsg_seq == sequence)
			return *(int *)reply.data;
	}
}

static int set_status(int fd, unsigned int mask, const struct audit_status *values)
{
	struct audit_status status = *values;

	status.mask = mask;
	return ask(fd, AUDIT_SET, &status, sizeof(status));
}

/* A rule for some calls of the children of this process; error: only those that end so. */
static int change_rule(int fd, int request, const long *calls, long error)
{
	struct audit_rule_data rule = {
		.flags = AUDIT_FILTER_EXIT,
		.action = AUDIT_ALWAYS,
	};
	int n = 0;

	for (; *calls >= 0; calls++)
		rule.mask[AUDIT_WORD(*calls)] |= AUDIT_BIT(*calls);
	rule.fields[n] = AUDIT_ARCH;
	rule.fieldflags[n] = AUDIT_EQUAL;
	rule.values[n++] = THIS_ARCH;
	rule.fields[n] = AUDIT_PPID;
	rule.fieldflags[n] = AUDIT_EQUAL;
	rule.values[n++] = getpid();
	if (error) {
		rule.fields[n] = AUDIT_EXIT;
		rule.fieldflags[n] = AUDIT_EQUAL;
		rule.values[n++] = error;
	}
	rule.field_count = n;
	return ask(fd, request, &rule, sizeof(rule));
}

static const long words[] = { __NR_getegid, -1 };
static const long recorded[] = {
	__NR_getppid, __NR_read, __NR_openat, __NR_nanosleep, __NR_async_submit, -1
};

FIXTURE_SETUP(audit)
{
	/* A record that is lost or begun within another is the end of the machine. */
	const struct audit_status wanted = {
		.enabled = 1, .failure = AUDIT_FAIL_PANIC, .pid = getpid(),
		.backlog_limit = 8192,
	};
	int size = 16 << 20, ret;

	if (geteuid())
		SKIP(return, "needs root");
	self->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
	if (self->fd < 0)
		SKIP(return, "no audit");
	ASSERT_EQ(0, setsockopt(self->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)));
	ret = set_status(self->fd, AUDIT_STATUS_ENABLED | AUDIT_STATUS_FAILURE |
			 AUDIT_STATUS_PID | AUDIT_STATUS_BACKLOG_LIMIT, &wanted);
	ASSERT_EQ(0, ret)
		TH_LOG("audit cannot be switched on: %d", ret);
	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, words, 0));
}

FIXTURE_TEARDOWN(audit)
{
	const struct audit_status off = { .failure = AUDIT_FAIL_PRINTK };

	if (self->fd < 0)
		return;
	change_rule(self->fd, AUDIT_DEL_RULE, words, 0);
	change_rule(self->fd, AUDIT_DEL_RULE, recorded, 0);
	change_rule(self->fd, AUDIT_DEL_RULE, recorded, -ENOENT);
	set_status(self->fd, AUDIT_STATUS_ENABLED | AUDIT_STATUS_FAILURE | AUDIT_STATUS_PID, &off);
	close(self->fd);
}

/* --- what is recorded --------------------------------------------------------------------- */

/* The value of a field in a record, in this base; -1 if there is none. */
static unsigned long field(const char *text, const char *name, int base)
{
	char key[32];
	const char *at;

	snprintf(key, sizeof(key), " %s=", name);
	at = strstr(text, key);
	return at ? strtoul(at + strlen(key), NULL, base) : -1UL;
}

static struct record parse(const char *text)
{
	static const char * const names[] = { "a0", "a1", "a2", "a3" };
	const char *serial = strchr(text, ':');
	struct record record = { };
	int i;

	record.nr = field(text, "syscall", 10);
	record.exit = field(text, "exit", 10);
	record.success = strstr(text, " success=yes") != NULL;
	record.serial = serial ? strtoul(serial + 1, NULL, 10) : 0;
	for (i = 0; i < 4; i++)
		record.args[i] = field(text, names[i], 16);
	return record;
}

/* Runs a body in a child and takes all that is recorded of it. */
static const char *record_child(int fd, body_fn body, struct record *records, int *n)
{
	struct timeval limit = { .tv_sec = DEADLINE_S };
	pid_t child = fork_child();
	struct record *last = NULL;
	bool begun = false;

	CHECK(child >= 0);
	if (!child) {
		const char *found;

		syscall(__NR_getegid, FIRST_WORD);
		found = body();
		syscall(__NR_getegid, LAST_WORD);
		exit_fine(found);
	}
	CHECK_EQ(0, setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	for (*n = 0;;) {
		static char buffer[16384];
		struct nlmsghdr *header = (void *)buffer;
		ssize_t length = recv(fd, buffer, sizeof(buffer) - 1, 0);
		char *text = NLMSG_DATA(header);

		CHECK(length > (ssize_t)NLMSG_HDRLEN);
		buffer[length] = 0;
		if (header->nlmsg_type == AUDIT_SYSCALL) {
			struct record record = parse(text);

			if (record.nr == __NR_getegid && record.args[0] == LAST_WORD)
				break;
			/* How the child came to be, and how the rules did. */
			if (record.nr == __NR_getegid && record.args[0] == FIRST_WORD) {
				begun = true;
				continue;
			}
			if (!begun)
				continue;
			CHECK(*n < MOST_RECORDS);
			last = &records[*n];
			records[(*n)++] = record;
		}
		/* What belongs to a record follows it. */
		if (last && header->nlmsg_type == AUDIT_PATH)
			last->paths++;
		if (last && header->nlmsg_type == AUDIT_CWD)
			last->directories++;
	}
	CHECK_EQ(0, status_of(child));
	return NULL;
}

#define RECORD(body)							\
	ASSERT_FINE(record_child(self->fd, body, self->records, &self->n))

static int how_many(const struct record *records, int n, long nr)
{
	int i, found = 0;

	for (i = 0; i < n; i++)
		found += records[i].nr == nr;
	return found;
}

/* Is it the same but for the time? */
static const char *same(const struct record *a, const struct record *b)
{
	int i;

	CHECK_EQ(a->nr, b->nr);
	CHECK_EQ(a->exit, b->exit);
	CHECK_EQ(a->success, b->success);
	for (i = 0; i < 4; i++)
		CHECK_EQ(a->args[i], b->args[i]);
	CHECK_EQ(a->paths, b->paths);
	CHECK_EQ(a->directories, b->directories);
	return NULL;
}

static void show(const struct record *records, int n)
{
	int i;

	for (i = 0; i < n && i < 20; i++)
		printf("# record %d: call %ld(%#lx, %#lx, %#lx, %#lx) %s, exit %ld, %d paths\n", i,
		       records[i].nr, records[i].args[0], records[i].args[1], records[i].args[2],
		       records[i].args[3], records[i].success ? "succeeded" : "failed",
		       records[i].exit, records[i].paths);
}

/* Ends a test if there are not as many records. */
#define ASSERT_RECORDS(number)						\
do {									\
	if (self->n != (number))					\
		show(self->records, self->n);				\
	ASSERT_EQ(number, self->n);					\
} while (0)

/* --- calls that are complete ------------------------------------------------------------------ */

/* The call directly, then submitted. */
static const char *makes(long nr, const unsigned long *args)
{
	long direct, result = UNTOUCHED;

	direct = raw_call(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	CHECK_EQ(0, async_submit(0, &result, nr, args));
	if (nr != __NR_openat || direct < 0)
		CHECK_EQ(direct, result);
	return NULL;
}

static const char *asks_for_its_parent(void)
{
	return makes(__NR_getppid, ARGS(0x11, 0x22, 0x33, 0x44));
}

TEST_F(audit, inline_call)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(asks_for_its_parent);
	ASSERT_RECORDS(3);
	EXPECT_EQ(__NR_getppid, r[0].nr);
	EXPECT_EQ(getpid(), r[0].exit);
	EXPECT_EQ(0x44, r[0].args[3]);
	/* The outer one is complete when the inner one begins: it is a record of its own. */
	EXPECT_EQ(__NR_async_submit, r[1].nr);
	EXPECT_TRUE(r[1].success);
	EXPECT_EQ(0, r[1].exit);
	EXPECT_EQ(__NR_getppid, r[1].args[2]);
	EXPECT_LT(r[1].serial, r[2].serial);
	EXPECT_FINE(same(&r[0], &r[2]));
}

static const char *reads_from_nowhere(void)
{
	return makes(__NR_read, ARGS(-1UL, 0x1000, 1));
}

TEST_F(audit, call_that_fails)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(reads_from_nowhere);
	ASSERT_RECORDS(3);
	EXPECT_FALSE(r[0].success);
	EXPECT_EQ(-EBADF, r[0].exit);
	EXPECT_TRUE(r[1].success);
	EXPECT_FINE(same(&r[0], &r[2]));
}

static const char *is_not_submitted(void)
{
	long result;

	CHECK_EQ(-EOPNOTSUPP, async_submit(0, &result, __NR_fork, ARGS(0)));
	return NULL;
}

TEST_F(audit, submission_that_fails)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(is_not_submitted);
	ASSERT_RECORDS(1);
	EXPECT_EQ(__NR_async_submit, r[0].nr);
	EXPECT_FALSE(r[0].success);
	EXPECT_EQ(-EOPNOTSUPP, r[0].exit);
}

static const char *opens(void)
{
	TRY(makes(__NR_openat, ARGS(AT_FDCWD, P("/dev/null"), O_RDONLY)));
	return makes(__NR_openat, ARGS(AT_FDCWD, P("/no/such/file"), O_RDONLY));
}

TEST_F(audit, paths_of_a_call)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(opens);
	ASSERT_RECORDS(6);
	EXPECT_LE(1, r[0].paths);
	EXPECT_EQ(1, r[0].directories);
	EXPECT_EQ(0, r[1].paths);
	/* The next descriptor. */
	EXPECT_EQ(r[0].exit + 1, r[2].exit);
	r[2].exit = r[0].exit;
	EXPECT_FINE(same(&r[0], &r[2]));
	EXPECT_EQ(-ENOENT, r[3].exit);
	EXPECT_FINE(same(&r[3], &r[5]));
}

TEST_F(audit, rule_about_the_value)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, -ENOENT));
	RECORD(opens);
	ASSERT_RECORDS(2);
	EXPECT_EQ(-ENOENT, r[0].exit);
	EXPECT_FINE(same(&r[0], &r[1]));
}

static const char *is_filtered(void)
{
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	return asks_for_its_parent();
}

/* A call that a filter answers is not made, and has no record when made directly either. */
TEST_F(audit, call_that_is_filtered)
{
	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(is_filtered);
	ASSERT_RECORDS(1);
	EXPECT_EQ(__NR_async_submit, self->records[0].nr);
}

/* --- calls that sleep --------------------------------------------------------------------------- */

static const char *reads_a_pipe(void)
{
	return hand_over(1);
}

TEST_F(audit, call_that_is_handed_over)
{
	struct record *r = self->records;
	int i;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(reads_a_pipe);
	/* The counters are read and opened too. */
	EXPECT_EQ(1, how_many(r, self->n, __NR_async_submit));
	for (i = 0; i < self->n && r[i].nr != __NR_async_submit; i++)
		;
	ASSERT_LT(i, self->n);
	EXPECT_TRUE(r[i].success);
	EXPECT_EQ(0, r[i].exit);
	/* The record of the call comes with its value, when it has ended. */
	EXPECT_EQ(__NR_read, r[self->n - 1].nr);
	EXPECT_TRUE(r[self->n - 1].success);
	EXPECT_EQ(1, r[self->n - 1].exit);
	EXPECT_EQ(1, r[self->n - 1].args[2]);
}

#define MANY	300

/* As hand_over(), but with no other calls that are recorded. */
static const char *reads_many_pipes(void)
{
	int i, fds[2];
	char byte;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < MANY; i++) {
		struct submission s = { UNTOUCHED, 0 };

		s.cookie = async_submit(0, &s.result, __NR_read, ARGS(fds[0], P(&byte), 1));
		CHECK(is_cookie(s.cookie));
		CHECK_EQ(1, write(fds[1], "x", 1));
		TRY(ends_with(&s, 1));
		/* In between one that does not sleep, in the task that went on. */
		CHECK_EQ(0, async_submit(0, &s.result, __NR_getppid, ARGS(i)));
	}
	return NULL;
}

TEST_F(audit, each_of_many_hand_overs)
{
	struct record *r = self->records;
	int i, parents = 0;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(reads_many_pipes);
	ASSERT_RECORDS(4 * MANY);
	EXPECT_EQ(2 * MANY, how_many(r, self->n, __NR_async_submit));
	EXPECT_EQ(MANY, how_many(r, self->n, __NR_read));
	for (i = 0; i < self->n; i++) {
		ASSERT_TRUE(r[i].success);
		if (r[i].nr == __NR_getppid) {
			ASSERT_EQ(parents, (long)r[i].args[0]);
			parents++;
		} else {
			ASSERT_EQ(r[i].nr == __NR_read, r[i].exit);
		}
	}
	EXPECT_EQ(MANY, parents);
}

static const char *is_interrupted(void)
{
	const struct itimerval timer = { { 0, 0 }, { 0, 20000 } };
	const struct timespec ts = { .tv_nsec = 100000000 };
	long result = UNTOUCHED;

	CHECK(signal(SIGALRM, SIG_IGN) != SIG_ERR);
	CHECK_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
	CHECK_EQ(0, final_value(async_submit(0, &result, __NR_nanosleep, ARGS(P(&ts))), &result));
	return NULL;
}

TEST_F(audit, sleep_among_signals)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(is_interrupted);
	ASSERT_RECORDS(2);
	EXPECT_EQ(__NR_async_submit, r[0].nr);
	EXPECT_EQ(__NR_nanosleep, r[1].nr);
	EXPECT_EQ(0, r[1].exit);
}

/* A process that ends takes the record with it, as that of a call that is killed. */
static const char *leaves_a_call(void)
{
	struct submission s = { UNTOUCHED, 0 };
	int fds[2];
	char byte;

	CHECK_EQ(0, pipe(fds));
	s.cookie = async_submit(0, &s.result, __NR_read, ARGS(fds[0], P(&byte), 1));
	CHECK(is_cookie(s.cookie));
	return NULL;
}

TEST_F(audit, call_that_does_not_end)
{
	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(leaves_a_call);
	EXPECT_EQ(1, how_many(self->records, self->n, __NR_async_submit));
	EXPECT_EQ(0, how_many(self->records, self->n, __NR_read));
}

/* --- calls of workers ------------------------------------------------------------------------- */

static const char *offloads(void)
{
	long result = UNTOUCHED, cookie;
	int i;

	for (i = 0; i < 20; i++) {
		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(i));
		CHECK(is_cookie(cookie));
		CHECK_EQ(getppid(), final_value(cookie, &result));
	}
	return NULL;
}

/* The record is that of the thread, which has the cookie when the call is complete for it. */
TEST_F(audit, offloaded_call)
{
	struct record *r = self->records;
	int i;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(offloads);
	/* Each of them, and getppid() once more directly. */
	ASSERT_RECORDS(3 * 20);
	for (i = 0; i < self->n; i += 3) {
		EXPECT_EQ(__NR_async_submit, r[i].nr);
		EXPECT_EQ(ASYNC_SUBMIT_OFFLOAD, r[i].args[0]);
		EXPECT_EQ(__NR_getppid, r[i + 1].nr);
		EXPECT_EQ(i / 3, (long)r[i + 1].args[0]);
		EXPECT_TRUE(r[i + 1].success);
		EXPECT_TRUE(is_cookie(r[i + 1].exit));
	}
}

static const char *falls_back(void)
{
	long result = UNTOUCHED;

	/* By its parent, which wants to know of signals only. */
	CHECK_EQ(0, ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	CHECK_EQ(0, async_submit(0, &result, __NR_getppid, ARGS(0x11, 0x22, 0x33, 0x44)));
	CHECK_EQ(0, async_submit(0, &result, __NR_read, ARGS(-1UL)));
	CHECK_EQ(-EBADF, result);
	return counter("fell_back_traced") == 2 ? NULL : "nothing fell back";
}

/* A worker makes the call, and its submitter waits: it has the value. */
TEST_F(audit, call_that_falls_back)
{
	struct record *r = self->records;

	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, recorded, 0));
	RECORD(falls_back);
	/* Then the counters are read. */
	ASSERT_LE(4, self->n);
	EXPECT_EQ(__NR_async_submit, r[0].nr);
	EXPECT_EQ(__NR_getppid, r[1].nr);
	EXPECT_EQ(getpid(), r[1].exit);
	EXPECT_EQ(0x44, r[1].args[3]);
	EXPECT_EQ(__NR_read, r[3].nr);
	EXPECT_FALSE(r[3].success);
	EXPECT_EQ(-EBADF, r[3].exit);
}

TEST_HARNESS_MAIN
