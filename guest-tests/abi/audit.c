// SPDX-License-Identifier: GPL-2.0
/*
 * Audit sees the calls that are submitted as those that are made directly: each has one record,
 * with its number, its arguments, who made it and what became of it, and all that belongs to it.
 * The record of async_submit() is complete before that of the call begins. Whatever is lost or
 * nested is a panic here.
 */
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "filters.h"
#include "missing.h"
#include "../kselftest_harness.h"

#if defined(__x86_64__)
#define THIS_ARCH	AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH	AUDIT_ARCH_AARCH64
#elif defined(__riscv)
#define THIS_ARCH	AUDIT_ARCH_RISCV64
#endif

#define KEY		"async_audit"

/* Said of a child first and last: a call that is recorded, with an argument of nobody else. */
#define FIRST_WORD	0xf1257UL
#define LAST_WORD	0x1a57UL

/* Calls of the children of a test that are recorded. */
struct rule {
	pid_t parent;
	/* Up to -1. */
	const long *calls;
	/* What else has to be so; 0: nothing. */
	unsigned int field, value;
	/* The file that has to be used. */
	const char *path;
};

static int open_audit(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT);
}

FIXTURE(audit)
{
	int fd;
	pid_t pid;
	unsigned int lost;
	struct rule rules[4];
	int n;
};

FIXTURE_VARIANT(audit)
{
	bool other;
};

FIXTURE_VARIANT_ADD(audit, main)
{
	.other = false,
};

FIXTURE_VARIANT_ADD(audit, other)
{
	.other = true,
};

struct request {
	struct nlmsghdr header;
	char data[sizeof(struct audit_rule_data) + 256];
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
	if (size)
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

/* How it is; false if nobody says so. */
static bool get_status(int fd, struct audit_status *status)
{
	const struct nlmsghdr request = {
		.nlmsg_len = NLMSG_LENGTH(0),
		.nlmsg_type = AUDIT_GET,
		.nlmsg_flags = NLM_F_REQUEST,
	};
	struct request reply;

	if (send(fd, &request, request.nlmsg_len, 0) < 0)
		return false;
	do {
		if (recv(fd, &reply, sizeof(reply), MSG_TRUNC) < 0)
			return false;
	} while (reply.header.nlmsg_type != AUDIT_GET);
	memcpy(status, reply.data, sizeof(*status));
	return true;
}

struct rule_request {
	struct audit_rule_data data;
	char text[128];
};

static void add_condition(struct rule_request *rule, unsigned int field, unsigned int value)
{
	unsigned int i = rule->data.field_count++;

	rule->data.fields[i] = field;
	rule->data.fieldflags[i] = AUDIT_EQUAL;
	rule->data.values[i] = value;
}

static void add_text(struct rule_request *rule, unsigned int field, const char *text)
{
	add_condition(rule, field, strlen(text));
	memcpy(rule->text + rule->data.buflen, text, strlen(text));
	rule->data.buflen += strlen(text);
}

static int change_rule(int fd, int request, const struct rule *rule)
{
	struct rule_request wire = {
		.data = { .flags = AUDIT_FILTER_EXIT, .action = AUDIT_ALWAYS },
	};
	const long *call;

	for (call = rule->calls; *call >= 0; call++)
		wire.data.mask[AUDIT_WORD(*call)] |= AUDIT_BIT(*call);
	add_condition(&wire, AUDIT_ARCH, THIS_ARCH);
	add_condition(&wire, AUDIT_PPID, rule->parent);
	if (rule->field)
		add_condition(&wire, rule->field, rule->value);
	if (rule->path)
		add_text(&wire, AUDIT_WATCH, rule->path);
	add_text(&wire, AUDIT_FILTERKEY, KEY);
	return ask(fd, request, &wire, sizeof(wire.data) + wire.data.buflen);
}

/* Tasks that are made while this holds are not audited, ever. */
static int change_new_tasks(int fd, int request)
{
	struct audit_rule_data rule = { .flags = AUDIT_FILTER_TASK, .action = AUDIT_NEVER };
	int i;

	for (i = 0; i < AUDIT_BITMASK_SIZE; i++)
		rule.mask[i] = ~0U;
	return ask(fd, request, &rule, sizeof(rule));
}

static const long words[] = { __NR_getegid, -1 };
static const long calls[] = {
	__NR_getppid, __NR_gettid, __NR_read, __NR_readv, __NR_openat, __NR_nanosleep,
	__NR_kill, __NR_connect, __NR_unshare, __NR_async_submit, -1
};
static const long opening[] = { __NR_openat, -1 };

FIXTURE_SETUP(audit)
{
	/* A record that is lost or begun within another is the end of the machine. */
	const struct audit_status wanted = {
		.enabled = 1, .failure = AUDIT_FAIL_PANIC, .pid = getpid(),
		.backlog_limit = 8192,
	};
	struct audit_status status = { };
	int size = 16 << 20, ret;

	if (geteuid())
		SKIP(return, "needs root");
	self->fd = open_audit();
	if (self->fd < 0)
		SKIP(return, "no audit");
	ASSERT_EQ(0, setsockopt(self->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)));
	ret = set_status(self->fd, AUDIT_STATUS_ENABLED | AUDIT_STATUS_FAILURE |
			 AUDIT_STATUS_PID | AUDIT_STATUS_BACKLOG_LIMIT, &wanted);
	ASSERT_EQ(0, ret)
		TH_LOG("audit cannot be switched on: %d", ret);
	ASSERT_TRUE(get_status(self->fd, &status));
	self->lost = status.lost;
	self->pid = getpid();
	self->rules[self->n++] = (struct rule){ self->pid, words };
	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE, &self->rules[0]));
}

/* By the parent of the test: an assertion that fails leaves everything as it was. */
FIXTURE_TEARDOWN_PARENT(audit)
{
	const struct audit_status off = { .failure = AUDIT_FAIL_PRINTK };
	struct audit_status status = { };
	int fd = open_audit();

	/* That the test has ended is as good as that it hangs up. */
	EXPECT_EQ(0, set_status(fd, AUDIT_STATUS_ENABLED | AUDIT_STATUS_FAILURE, &off));
	EXPECT_TRUE(get_status(fd, &status));
	EXPECT_EQ(self->lost, status.lost);
	while (self->n)
		EXPECT_EQ(0, change_rule(fd, AUDIT_DEL_RULE, &self->rules[--self->n]));
	/* It is there only if the test has failed. */
	change_new_tasks(fd, AUDIT_DEL_RULE);
	close(fd);
}

#define ADD_RULE(...)							\
do {									\
	self->rules[self->n] = (struct rule){ self->pid, __VA_ARGS__ };	\
	ASSERT_EQ(0, change_rule(self->fd, AUDIT_ADD_RULE,		\
				 &self->rules[self->n]));		\
	self->n++;							\
} while (0)

/* --- what is recorded --------------------------------------------------------------------- */

/* A record, and what belongs to it. */
struct record {
	int type;
	long nr, exit;
	unsigned long args[4];
	bool success, has_value;
	unsigned long serial;
	pid_t pid;
	long auid;
	/* From the number of its files on: who made the call, where, and the key. */
	char who[400];
	/* The types of what belongs to it, and the files that are named there. */
	char others[80], files[600];
};

static struct record records[4096];
static int n;

#define MOST_RECORDS	((int)(sizeof(records) / sizeof(*records)))

/* What follows the name of a field in a record; NULL if there is none. */
static const char *field(const char *text, const char *name)
{
	char key[32];
	const char *at;

	snprintf(key, sizeof(key), " %s=", name);
	at = strstr(text, key);
	return at ? at + strlen(key) : NULL;
}

/* As a number; -1 if there is none. */
static long number(const char *text, const char *name, int base)
{
	const char *value = field(text, name);

	return value ? (long)strtoul(value, NULL, base) : -1;
}

static bool is(const char *text, const char *name, const char *expected)
{
	const char *value = field(text, name);

	return value && !strncmp(value, expected, strlen(expected));
}

static unsigned long serial_of(const char *text)
{
	const char *serial = strchr(text, ':');

	return serial ? strtoul(serial + 1, NULL, 10) : 0;
}

__attribute__((format(printf, 3, 4)))
static void append(char *text, size_t size, const char *format, ...)
{
	size_t length = strlen(text);
	va_list list;

	va_start(list, format);
	vsnprintf(text + length, size - length, format, list);
	va_end(list);
}

#define APPEND(text, ...)	append(text, sizeof(text), __VA_ARGS__)

static struct record parse(int type, const char *text)
{
	static const char * const names[] = { "a0", "a1", "a2", "a3" };
	struct record record = { .type = type, .serial = serial_of(text) };
	const char *who = field(text, "items");
	int i;

	record.nr = number(text, "syscall", 10);
	record.exit = number(text, "exit", 10);
	record.pid = number(text, "pid", 10);
	record.auid = number(text, "auid", 10);
	record.success = is(text, "success", "yes");
	record.has_value = field(text, "success") && field(text, "exit");
	for (i = 0; i < 4; i++)
		record.args[i] = number(text, names[i], 16);
	APPEND(record.who, "%s", who ? who - strlen(" items=") : "");
	return record;
}

/* Calls of several threads may be recorded at a time. */
static struct record *find_record(unsigned long serial)
{
	int i;

	for (i = n - 1; i >= 0; i--)
		if (records[i].serial == serial)
			return &records[i];
	return NULL;
}

/* Makes a call that is recorded when a process has ended, with all its threads. */
static void say_when_it_has_ended(pid_t child)
{
	struct pollfd ended = { .events = POLLIN };

	ended.fd = raw_call(__NR_pidfd_open, child, 0);
	poll(&ended, 1, DEADLINE_S * 1000);
	syscall(__NR_getegid, LAST_WORD);
	_exit(ended.revents == POLLIN ? 0 : 99);
}

/* Takes what is recorded of a process until that is said. */
static const char *take_records(int fd, pid_t child, bool begun)
{
	static char buffer[16384];
	struct nlmsghdr *header = (void *)buffer;
	char *text = NLMSG_DATA(header);
	struct record *of;

	for (n = 0;;) {
		ssize_t length = recv(fd, buffer, sizeof(buffer) - 1, 0);

		CHECK(length > (ssize_t)NLMSG_HDRLEN);
		buffer[length] = 0;
		if (header->nlmsg_type == AUDIT_SYSCALL || header->nlmsg_type == AUDIT_SECCOMP ||
		    header->nlmsg_type == AUDIT_FIRST_USER_MSG) {
			struct record record = parse(header->nlmsg_type, text);

			if (record.nr == __NR_getegid && record.args[0] == LAST_WORD)
				return NULL;
			/* How the child came to be, and how the rules did. */
			if (record.nr == __NR_getegid && record.args[0] == FIRST_WORD) {
				begun = true;
				continue;
			}
			if (!begun || record.pid != child)
				continue;
			CHECK(n < MOST_RECORDS);
			/* One record for one serial number. */
			CHECK(!find_record(record.serial));
			records[n++] = record;
			continue;
		}
		of = find_record(serial_of(text));
		if (!of)
			continue;
		APPEND(of->others, " %d", header->nlmsg_type);
		if (header->nlmsg_type == AUDIT_PATH || header->nlmsg_type == AUDIT_CWD)
			APPEND(of->files, "%s", strchr(text, ')') ?: "");
	}
}

/* Which tasks are made as ones that are not audited. */
enum unaudited { NONE, CHILD, WORKERS };

/* Runs a body in a child and takes all that is recorded of it. */
static const char *record_child(int fd, bool other_thread, enum unaudited unaudited, body_fn body)
{
	struct timeval limit = { .tv_sec = DEADLINE_S };
	int *stage = share(sizeof(*stage));
	pid_t child, closer;

	CHECK(stage);
	if (unaudited == CHILD)
		CHECK_EQ(0, change_new_tasks(fd, AUDIT_ADD_RULE));
	child = fork_child();
	if (!child) {
		if (!await(stage, 1))
			exit_fine("not told to begin");
		syscall(__NR_getegid, FIRST_WORD);
		exit_fine(run_in(other_thread, body));
	}
	if (unaudited == CHILD)
		CHECK_EQ(0, change_new_tasks(fd, AUDIT_DEL_RULE));
	CHECK(child > 0);
	closer = fork_child();
	if (!closer)
		say_when_it_has_ended(child);
	CHECK(closer > 0);
	if (unaudited == WORKERS)
		CHECK_EQ(0, change_new_tasks(fd, AUDIT_ADD_RULE));
	CHECK_EQ(0, setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	reach(stage, 1);
	TRY(take_records(fd, child, unaudited == CHILD));
	if (unaudited == WORKERS)
		CHECK_EQ(0, change_new_tasks(fd, AUDIT_DEL_RULE));
	CHECK_EQ(0, munmap(stage, sizeof(*stage)));
	CHECK_EQ(0, status_of(closer));
	CHECK_EQ(0, status_of(child));
	return NULL;
}

#define RECORD(body)	ASSERT_FINE(record_child(self->fd, variant->other, NONE, body))

static int how_many(long nr)
{
	int i, found = 0;

	for (i = 0; i < n; i++)
		found += records[i].type == AUDIT_SYSCALL && records[i].nr == nr;
	return found;
}

/* The one with this number that comes so many before the last one; NULL if there is none. */
static struct record *last(long nr, int before)
{
	int i;

	for (i = n - 1; i >= 0; i--)
		if (records[i].type == AUDIT_SYSCALL && records[i].nr == nr && !before--)
			return &records[i];
	return NULL;
}

/* Is it the same but for the time? */
static const char *same(const struct record *a, const struct record *b)
{
	int i;

	CHECK_EQ(a->type, b->type);
	CHECK_EQ(a->nr, b->nr);
	CHECK_EQ(a->has_value, b->has_value);
	CHECK_EQ(a->exit, b->exit);
	CHECK_EQ(a->success, b->success);
	for (i = 0; i < 4; i++)
		CHECK_EQ(a->args[i], b->args[i]);
	if (strcmp(a->who, b->who))
		return trouble("%s, not %s", b->who, a->who);
	if (strcmp(a->others, b->others))
		return trouble("with records%s, not%s", b->others, a->others);
	if (strcmp(a->files, b->files))
		return trouble("with files %s, not %s", b->files, a->files);
	return NULL;
}

/* The submission of a call that is recorded: complete, with a record of its own. */
static const char *submits(const struct record *outer, const struct record *inner)
{
	CHECK_EQ(__NR_async_submit, outer->nr);
	CHECK(outer->success);
	CHECK_EQ(0, outer->exit);
	CHECK_EQ(inner->nr, outer->args[2]);
	CHECK(outer->serial < inner->serial);
	return NULL;
}

static void show(void)
{
	int i;

	for (i = 0; i < n && i < 20; i++)
		printf("# record %d of type %d: call %ld(%#lx, %#lx, %#lx, %#lx) %s, exit %ld;%s%s\n",
		       i, records[i].type, records[i].nr, records[i].args[0], records[i].args[1],
		       records[i].args[2], records[i].args[3],
		       records[i].success ? "succeeded" : "failed", records[i].exit,
		       records[i].others, records[i].files);
}

/* Ends a test if there are not as many records. */
#define ASSERT_RECORDS(number)						\
do {									\
	if (n != (number))						\
		show();							\
	ASSERT_EQ(number, n);						\
} while (0)

/* As many of the call with this number. */
#define ASSERT_CALLS(number, nr)					\
do {									\
	if (how_many(nr) != (number))					\
		show();							\
	ASSERT_EQ(number, how_many(nr));				\
} while (0)

/* --- calls that are complete -------------------------------------------------------------- */

static long direct(long nr, const unsigned long *args)
{
	return raw_call(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* The call directly, then submitted. */
static const char *makes(long nr, const unsigned long *args)
{
	long value = direct(nr, args), result = UNTOUCHED;

	/* So that the next descriptor is the same. */
	if (nr == __NR_openat && value >= 0)
		close(value);
	CHECK_EQ(0, async_submit(0, &result, nr, args));
	CHECK_EQ(value, result);
	return NULL;
}

static const char *asks_for_its_parent(void)
{
	return makes(__NR_getppid, ARGS(0x11, 0x22, 0x33, 0x44));
}

TEST_F(audit, inline_call)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(asks_for_its_parent);
	ASSERT_RECORDS(3);
	EXPECT_EQ(__NR_getppid, r[0].nr);
	EXPECT_EQ(getpid(), r[0].exit);
	EXPECT_EQ(0x44, r[0].args[3]);
	EXPECT_TRUE(is(r[0].who, "key", "\"" KEY "\""));
	EXPECT_FINE(submits(&r[1], &r[2]));
	EXPECT_FINE(same(&r[0], &r[2]));
}

static const char *reads_from_nowhere(void)
{
	return makes(__NR_readv, ARGS(-1UL, 0x1000, 1));
}

TEST_F(audit, call_that_fails)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(reads_from_nowhere);
	ASSERT_RECORDS(3);
	EXPECT_FALSE(r[0].success);
	EXPECT_EQ(-EBADF, r[0].exit);
	EXPECT_FINE(submits(&r[1], &r[2]));
	EXPECT_FINE(same(&r[0], &r[2]));
}

static const char *asks_who_it_is(void)
{
	return makes(__NR_gettid, ARGS(1, 2));
}

TEST_F(audit, call_in_place)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(asks_who_it_is);
	ASSERT_RECORDS(3);
	EXPECT_FINE(submits(&r[1], &r[2]));
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
	ADD_RULE(calls);
	RECORD(is_not_submitted);
	ASSERT_RECORDS(1);
	EXPECT_EQ(__NR_async_submit, records[0].nr);
	EXPECT_FALSE(records[0].success);
	EXPECT_EQ(-EOPNOTSUPP, records[0].exit);
}

static const char *opens(void)
{
	TRY(makes(__NR_openat, ARGS(AT_FDCWD, P("/dev/null"), O_RDONLY)));
	return makes(__NR_openat, ARGS(AT_FDCWD, P("/no/such/file"), O_RDONLY));
}

TEST_F(audit, paths_of_a_call)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(opens);
	ASSERT_RECORDS(6);
	EXPECT_TRUE(strstr(r[0].files, "cwd=") && strstr(r[0].files, "name=\"/dev/null\""));
	EXPECT_FINE(submits(&r[1], &r[2]));
	EXPECT_FINE(same(&r[0], &r[2]));
	EXPECT_EQ(-ENOENT, r[3].exit);
	EXPECT_FINE(submits(&r[4], &r[5]));
	EXPECT_FINE(same(&r[3], &r[5]));
}

static const char *sends(void)
{
	static const struct sockaddr_un nowhere = { AF_UNIX, "/no/such/socket" };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	TRY(makes(__NR_connect, ARGS(fd, P(&nowhere), sizeof(nowhere))));
	return makes(__NR_kill, ARGS(getpid(), 0));
}

/* An address, and a process. */
TEST_F(audit, what_else_belongs_to_a_call)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(sends);
	ASSERT_RECORDS(6);
	EXPECT_TRUE(strstr(r[0].others, " 1306"));
	EXPECT_FINE(same(&r[0], &r[2]));
	EXPECT_TRUE(strstr(r[3].others, " 1318"));
	EXPECT_FINE(same(&r[3], &r[5]));
}

TEST_F(audit, rule_about_the_value)
{
	ADD_RULE(calls, AUDIT_EXIT, -ENOENT);
	RECORD(opens);
	ASSERT_RECORDS(2);
	EXPECT_EQ(-ENOENT, records[0].exit);
	EXPECT_FINE(same(&records[0], &records[1]));
}

static const char *asks_with_arguments(void)
{
	TRY(makes(__NR_getppid, ARGS(0x11)));
	return makes(__NR_getppid, ARGS(0x12));
}

TEST_F(audit, rule_about_an_argument)
{
	ADD_RULE(calls, AUDIT_ARG0, 0x12);
	RECORD(asks_with_arguments);
	ASSERT_RECORDS(2);
	EXPECT_EQ(__NR_getppid, records[0].nr);
	EXPECT_EQ(0x12, records[0].args[0]);
	EXPECT_FINE(same(&records[0], &records[1]));
}

TEST_F(audit, rule_about_a_file)
{
	ADD_RULE(calls, .path = "/dev/null");
	RECORD(opens);
	ASSERT_RECORDS(2);
	EXPECT_EQ(__NR_openat, records[0].nr);
	EXPECT_TRUE(records[0].success);
	EXPECT_FINE(same(&records[0], &records[1]));
}

static const char *is_filtered(void)
{
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	return asks_for_its_parent();
}

/* A call that a filter answers is not made, and has no record when made directly either. */
TEST_F(audit, call_that_is_filtered)
{
	ADD_RULE(calls);
	RECORD(is_filtered);
	ASSERT_RECORDS(1);
	EXPECT_EQ(__NR_async_submit, records[0].nr);
	EXPECT_TRUE(records[0].success);
	EXPECT_EQ(0, records[0].exit);
}

static const char *is_logged(void)
{
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_LOG, 0));
	return asks_for_its_parent();
}

/* What a filter says of a call names that call. */
TEST_F(audit, call_that_a_filter_logs)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(is_logged);
	ASSERT_RECORDS(5);
	EXPECT_EQ(AUDIT_SECCOMP, r[0].type);
	EXPECT_EQ(__NR_getppid, r[0].nr);
	EXPECT_EQ(__NR_getppid, r[1].nr);
	EXPECT_FINE(submits(&r[2], &r[4]));
	EXPECT_EQ(AUDIT_SECCOMP, r[3].type);
	EXPECT_FINE(same(&r[0], &r[3]));
	EXPECT_FINE(same(&r[1], &r[4]));
}

/* --- calls that are interrupted ----------------------------------------------------------- */

/*
 * An open() that waits for a lease to be given up has sent the holder, us, a signal just before
 * it sleeps: so it is pending, without a race.
 */
#define LEASED	"/tmp/async_audit"

static volatile sig_atomic_t handled;
static volatile bool gives_up;
static int lease;

static void on_lease(int signal)
{
	handled++;
	if (gives_up)
		fcntl(lease, F_SETLEASE, F_UNLCK);
}

static const char *hold_lease(int flags)
{
	const struct sigaction action = { .sa_handler = on_lease, .sa_flags = flags };
	const struct f_owner_ex owner = { .type = F_OWNER_TID, .pid = gettid() };

	handled = 0;
	gives_up = flags & SA_RESTART;
	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	lease = open(LEASED, O_RDONLY | O_CREAT, 0600);
	CHECK(lease >= 0);
	CHECK_EQ(0, fcntl(lease, F_SETSIG, SIGUSR1));
	CHECK_EQ(0, fcntl(lease, F_SETLEASE, F_RDLCK));
	CHECK_EQ(0, fcntl(lease, F_SETOWN_EX, &owner));
	return NULL;
}

static const char *let_lease_go(void)
{
	CHECK_EQ(1, handled);
	fcntl(lease, F_SETLEASE, F_UNLCK);
	CHECK_EQ(0, close(lease));
	return NULL;
}

#define OPEN_LEASED	ARGS(AT_FDCWD, P(LEASED), O_WRONLY)

static const char *is_interrupted(void)
{
	long result = UNTOUCHED;

	TRY(hold_lease(0));
	CHECK_EQ(-EINTR, direct(__NR_openat, OPEN_LEASED));
	TRY(let_lease_go());
	TRY(hold_lease(0));
	CHECK_EQ(0, async_submit(0, &result, __NR_openat, OPEN_LEASED));
	CHECK_EQ(-EINTR, result);
	return let_lease_go();
}

/* What opens the file for writing, and not the holder. */
#define ADD_LEASE_RULES()						\
do {									\
	static const long submitting[] = { __NR_async_submit, -1 };	\
									\
	ADD_RULE(opening, AUDIT_ARG2, O_WRONLY);			\
	ADD_RULE(submitting);						\
} while (0)

TEST_F(audit, interrupted_call)
{
	struct record *r = records;

	ADD_LEASE_RULES();
	RECORD(is_interrupted);
	unlink(LEASED);
	ASSERT_RECORDS(3);
	EXPECT_FALSE(r[0].success);
	EXPECT_EQ(-EINTR, r[0].exit);
	EXPECT_FINE(submits(&r[1], &r[2]));
	EXPECT_FINE(same(&r[0], &r[2]));
}

static const char *is_restarted(void)
{
	long result = UNTOUCHED, value;

	TRY(hold_lease(SA_RESTART));
	value = direct(__NR_openat, OPEN_LEASED);
	CHECK(value > lease);
	CHECK_EQ(0, close(value));
	TRY(let_lease_go());
	TRY(hold_lease(SA_RESTART));
	CHECK_EQ(0, async_submit(0, &result, __NR_openat, OPEN_LEASED));
	CHECK_EQ(value, result);
	return let_lease_go();
}

/* A direct one is made twice too, and submitting it likewise. */
TEST_F(audit, restarted_call)
{
	struct record *r = records;

	ADD_LEASE_RULES();
	RECORD(is_restarted);
	unlink(LEASED);
	ASSERT_RECORDS(6);
	EXPECT_EQ(-EINTR, r[0].exit);
	EXPECT_TRUE(r[1].success);
	EXPECT_FINE(submits(&r[2], &r[3]));
	EXPECT_FINE(same(&r[0], &r[3]));
	EXPECT_FINE(submits(&r[4], &r[5]));
	EXPECT_FINE(same(&r[1], &r[5]));
}

static const char *is_restarted_and_sleeps(void)
{
	struct submission s = { UNTOUCHED, 0 };

	TRY(hold_lease(SA_RESTART));
	gives_up = false;
	/* The second time the lease is being broken already, so that there is no signal. */
	s.cookie = async_submit(0, &s.result, __NR_openat, OPEN_LEASED);
	CHECK(is_cookie(s.cookie));
	CHECK_EQ(1, counter("handed_over"));
	TRY(let_lease_go());
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result > lease);
	return NULL;
}

TEST_F(audit, restarted_call_that_is_handed_over)
{
	struct record *r = records;

	ADD_LEASE_RULES();
	RECORD(is_restarted_and_sleeps);
	unlink(LEASED);
	ASSERT_RECORDS(4);
	EXPECT_FINE(submits(&r[0], &r[1]));
	EXPECT_EQ(-EINTR, r[1].exit);
	EXPECT_FINE(submits(&r[2], &r[3]));
	EXPECT_TRUE(r[3].success);
}

/* --- calls that sleep --------------------------------------------------------------------- */

/* With readv(), as the counters are read with read(). */
struct scattered {
	int fds[2];
	char byte;
	struct iovec iov;
};

#define READV(s)	ARGS((s)->fds[0], P(&(s)->iov), 1)

static const char *have_pipe(struct scattered *s)
{
	s->iov = (struct iovec){ &s->byte, 1 };
	CHECK_EQ(0, pipe(s->fds));
	return NULL;
}

/* Directly what is there, then, handed over, what comes. */
static const char *reads_pipe(struct scattered *pipe)
{
	struct submission s;

	CHECK_EQ(1, write(pipe->fds[1], "x", 1));
	CHECK_EQ(1, direct(__NR_readv, READV(pipe)));
	TRY(submit_sleeping(&s, __NR_readv, READV(pipe)));
	CHECK_EQ(1, write(pipe->fds[1], "x", 1));
	return ends_with(&s, 1);
}

static const char *reads_one_pipe(void)
{
	struct scattered pipe;

	TRY(have_pipe(&pipe));
	return reads_pipe(&pipe);
}

/* The record of the call comes with its value, when it has ended. */
TEST_F(audit, call_that_is_handed_over)
{
	ADD_RULE(calls);
	RECORD(reads_one_pipe);
	ASSERT_CALLS(1, __NR_async_submit);
	ASSERT_CALLS(2, __NR_readv);
	EXPECT_FINE(submits(last(__NR_async_submit, 0), last(__NR_readv, 0)));
	EXPECT_EQ(1, last(__NR_readv, 0)->exit);
	EXPECT_FINE(same(last(__NR_readv, 1), last(__NR_readv, 0)));
}

static const char *waits_in_vain(void)
{
	const struct timeval limit = { .tv_usec = 20000 };
	struct submission s;
	struct scattered sockets;

	TRY(have_pipe(&sockets));
	CHECK_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.fds));
	CHECK_EQ(0, setsockopt(sockets.fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	CHECK_EQ(-EAGAIN, direct(__NR_readv, READV(&sockets)));
	TRY(submit_sleeping(&s, __NR_readv, READV(&sockets)));
	return ends_with(&s, -EAGAIN);
}

TEST_F(audit, call_that_is_handed_over_and_fails)
{
	ADD_RULE(calls);
	RECORD(waits_in_vain);
	ASSERT_CALLS(2, __NR_readv);
	EXPECT_EQ(-EAGAIN, last(__NR_readv, 0)->exit);
	EXPECT_FALSE(last(__NR_readv, 0)->success);
	EXPECT_FINE(same(last(__NR_readv, 1), last(__NR_readv, 0)));
}

TEST_F(audit, rule_about_the_value_of_a_call_that_is_handed_over)
{
	ADD_RULE(calls, AUDIT_EXIT, -EAGAIN);
	RECORD(waits_in_vain);
	ASSERT_RECORDS(2);
	EXPECT_EQ(__NR_readv, records[0].nr);
	EXPECT_FINE(same(&records[0], &records[1]));
}

static const char *is_cancelled(void)
{
	struct scattered pipe;
	struct submission s;

	TRY(have_pipe(&pipe));
	TRY(submit_sleeping(&s, __NR_readv, READV(&pipe)));
	CHECK_EQ(0, async_cancel(0, s.cookie));
	return ends_with(&s, -ECANCELED);
}

TEST_F(audit, call_that_is_cancelled)
{
	ADD_RULE(calls);
	RECORD(is_cancelled);
	ASSERT_CALLS(1, __NR_async_submit);
	ASSERT_CALLS(1, __NR_readv);
	EXPECT_EQ(-ECANCELED, last(__NR_readv, 0)->exit);
	EXPECT_FALSE(last(__NR_readv, 0)->success);
}

#define FIFO	"/tmp/async_audit.fifo"

/* What this process does with the file otherwise, by a call that is not recorded. */
static int open_unseen(int flags)
{
	const unsigned long how[3] = { flags };

	return raw_call(__NR_openat2, AT_FDCWD, FIFO, how, sizeof(how));
}

static const char *opens_fifo(void)
{
	struct submission s;
	long writer, value;

	/* In place of a writer, so that the next descriptor is the same. */
	CHECK(dup(0) >= 0);
	writer = open_unseen(O_RDWR | O_NONBLOCK);
	CHECK(writer >= 0);
	value = direct(__NR_openat, ARGS(AT_FDCWD, P(FIFO), O_RDONLY));
	CHECK(value > writer);
	close(writer);
	CHECK_EQ(writer, dup(0));
	close(value);
	TRY(submit_sleeping(&s, __NR_openat, ARGS(AT_FDCWD, P(FIFO), O_RDONLY)));
	writer = open_unseen(O_WRONLY | O_NONBLOCK);
	CHECK(writer >= 0);
	CHECK_EQ(0, wait_for_async(0, s.cookie, &deadline));
	CHECK(s.result >= 0);
	return NULL;
}

/* Its descriptor is the lowest when it has one, which is no matter of audit. */
static const char *same_but_for_the_value(const struct record *a, const struct record *b)
{
	struct record copy = *b;

	CHECK(b->success);
	copy.exit = a->exit;
	return same(a, &copy);
}

TEST_F(audit, paths_of_a_call_that_is_handed_over)
{
	unlink(FIFO);
	ASSERT_EQ(0, mkfifo(FIFO, 0600));
	ADD_RULE(opening, .path = FIFO);
	RECORD(opens_fifo);
	unlink(FIFO);
	ASSERT_RECORDS(2);
	EXPECT_EQ(__NR_openat, records[0].nr);
	EXPECT_TRUE(strstr(records[0].files, "name=\"" FIFO "\""));
	EXPECT_FINE(same_but_for_the_value(&records[0], &records[1]));
}

static const char *becomes_another(void)
{
	struct scattered pipe;
	int i;

	TRY(have_pipe(&pipe));
	for (i = 0; i < 3; i++)
		TRY(reads_pipe(&pipe));
	CHECK_EQ(0, prctl(PR_SET_NAME, "renamed"));
	CHECK(write_text("/proc/thread-self/loginuid", "1234"));
	CHECK_EQ(0, raw_call(__NR_setresgid, 5, 6, 7));
	for (i = 0; i < 3; i++)
		TRY(reads_pipe(&pipe));
	return NULL;
}

/* A worker from before knows who it is, as does a thread that was one. */
TEST_F(audit, who_makes_a_call_that_is_handed_over)
{
	int i;

	ADD_RULE(calls);
	RECORD(becomes_another);
	ASSERT_CALLS(12, __NR_readv);
	for (i = 0; i < 12; i += 2)
		EXPECT_FINE(same(last(__NR_readv, i + 1), last(__NR_readv, i)));
	EXPECT_TRUE(is(last(__NR_readv, 0)->who, "comm", "\"renamed\""));
	EXPECT_TRUE(is(last(__NR_readv, 0)->who, "egid", "6 "));
	EXPECT_FALSE(is(last(__NR_readv, 6)->who, "comm", "\"renamed\""));
}

#define MANY	300

/* With no other calls that are recorded. */
static const char *reads_often(long mark)
{
	struct scattered pipe;
	int i;

	TRY(have_pipe(&pipe));
	for (i = 0; i < MANY; i++) {
		struct submission s = { UNTOUCHED, 0 };

		s.cookie = async_submit(0, &s.result, __NR_readv,
					ARGS(pipe.fds[0], P(&pipe.iov), 1, mark + i));
		CHECK(is_cookie(s.cookie));
		CHECK_EQ(1, write(pipe.fds[1], "x", 1));
		TRY(ends_with(&s, 1));
		/* In between one that does not sleep, in the task that went on. */
		CHECK_EQ(0, async_submit(0, &s.result, __NR_getppid, ARGS(0, 0, 0, mark + i)));
	}
	return NULL;
}

/* All of them with value, once each. */
static const char *are_there_once(int threads)
{
	static int seen[2][4 * MANY];
	int i;

	CHECK_EQ(4 * MANY * threads, n);
	CHECK_EQ(2 * MANY * threads, how_many(__NR_async_submit));
	for (i = 0; i < n; i++) {
		const struct record *r = &records[i];

		CHECK(r->success);
		if (r->nr == __NR_async_submit) {
			CHECK_EQ(0, r->exit);
			continue;
		}
		CHECK(r->args[3] < (unsigned long)MANY * threads);
		CHECK_EQ(0, seen[r->nr == __NR_readv][r->args[3]]++);
		CHECK_EQ(r->nr == __NR_readv ? 1 : getpid(), r->exit);
	}
	return NULL;
}

static const char *reads_many_times(void)
{
	return reads_often(0);
}

TEST_F(audit, each_of_many_hand_overs)
{
	ADD_RULE(calls);
	RECORD(reads_many_times);
	EXPECT_FINE(are_there_once(1));
}

static const char *reads_among_others(void)
{
	static long next;

	return reads_often(__atomic_fetch_add(&next, MANY, __ATOMIC_RELAXED));
}

#define THREADS	3

static const char *reads_in_threads(void)
{
	static body_fn body = reads_among_others;
	pthread_t threads[THREADS];
	void *found = NULL;
	int i;

	for (i = 1; i < THREADS; i++)
		CHECK_EQ(0, pthread_create(&threads[i], NULL, run_body, &body));
	TRY(body());
	for (i = 1; i < THREADS; i++) {
		CHECK_EQ(0, pthread_join(threads[i], &found));
		TRY(found);
	}
	return NULL;
}

TEST_F(audit, each_of_many_hand_overs_of_several_threads)
{
	ADD_RULE(calls);
	RECORD(reads_in_threads);
	EXPECT_FINE(are_there_once(THREADS));
}

static const char *sleeps_among_signals(void)
{
	const struct itimerval timer = { { 0, 0 }, { 0, 20000 } };
	const struct timespec ts = { .tv_nsec = 100000000 };
	long result = UNTOUCHED;

	/* With all signals blocked, as while it makes a thread, the main one would not ignore them. */
	CHECK(gettid() == getpid() || becomes_true(thread_state(getpid()) == 'S'));
	CHECK(signal(SIGALRM, SIG_IGN) != SIG_ERR);
	CHECK_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
	CHECK_EQ(0, final_value(async_submit(0, &result, __NR_nanosleep, ARGS(P(&ts))), &result));
	return NULL;
}

TEST_F(audit, sleep_among_signals)
{
	struct record *r;

	ADD_RULE(calls);
	RECORD(sleeps_among_signals);
	ASSERT_CALLS(1, __NR_async_submit);
	ASSERT_CALLS(1, __NR_nanosleep);
	/* Behind those of the look at the main thread, and the last ones of all. */
	r = &records[n - 2];
	EXPECT_FINE(submits(&r[0], &r[1]));
	EXPECT_EQ(__NR_nanosleep, r[1].nr);
	EXPECT_EQ(0, r[1].exit);
}

static struct scattered left;
static struct submission of_another;

static const char *submits_and_ends(void)
{
	TRY(have_pipe(&left));
	return submit_sleeping(&of_another, __NR_readv, READV(&left));
}

static const char *outlives_a_thread(void)
{
	TRY(run_in(true, submits_and_ends));
	CHECK_EQ(1, write(left.fds[1], "x", 1));
	return ends_with(&of_another, 1);
}

TEST_F(audit, call_that_outlives_its_thread)
{
	ADD_RULE(calls);
	RECORD(outlives_a_thread);
	ASSERT_CALLS(1, __NR_readv);
	EXPECT_FINE(submits(last(__NR_async_submit, 0), last(__NR_readv, 0)));
	EXPECT_EQ(1, last(__NR_readv, 0)->exit);
}

/* --- calls that do not end ---------------------------------------------------------------- */

static pid_t reader;

static void *reads_directly(void *argument)
{
	__atomic_store_n(&reader, gettid(), __ATOMIC_RELEASE);
	direct(__NR_readv, READV(&left));
	return NULL;
}

/* The process ends while one thread sleeps in a call, and what another has submitted does so. */
static const char *leaves_two_calls(void)
{
	pthread_t thread;

	TRY(submits_and_ends());
	CHECK_EQ(0, pthread_create(&thread, NULL, reads_directly, NULL));
	CHECK(becomes_true(__atomic_load_n(&reader, __ATOMIC_ACQUIRE) &&
			   thread_state(reader) == 'S'));
	return NULL;
}

TEST_F(audit, call_that_does_not_end)
{
	ADD_RULE(calls);
	RECORD(leaves_two_calls);
	ASSERT_CALLS(1, __NR_async_submit);
	ASSERT_CALLS(2, __NR_readv);
	EXPECT_FALSE(last(__NR_readv, 0)->success);
	EXPECT_FALSE(last(__NR_readv, 1)->success);
	EXPECT_FINE(same(last(__NR_readv, 1), last(__NR_readv, 0)));
}

/* In a process of its own: writes to a pipe, which others cannot use, until it is killed. */
static void holds(struct scattered *pipe, int *stage)
{
	struct missing m;

	if (make_missing(&m))
		_exit(99);
	reach(stage, 1);
	write(pipe->fds[1], m.page, 7);
	_exit(98);
}

/*
 * The process is killed while three reads of it wait for the pipe, which no signal ends. They get
 * it when its holder dies together with the thread, and read what is there.
 */
static const char *is_killed_in_three_calls(void)
{
	int *stage = share(sizeof(*stage));
	long result = UNTOUCHED;
	pthread_t thread;
	pid_t holder;

	CHECK(stage);
	TRY(have_pipe(&left));
	CHECK_EQ(3, write(left.fds[1], "abc", 3));
	holder = fork_child();
	CHECK(holder >= 0);
	if (!holder)
		holds(&left, stage);
	CHECK(await(stage, 1));
	CHECK(becomes_true(process_state(holder) == 'S'));
	TRY(submit_sleeping(&of_another, __NR_readv, READV(&left)));
	CHECK(is_cookie(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_readv, READV(&left))));
	CHECK_EQ(0, pthread_create(&thread, NULL, reads_directly, NULL));
	CHECK(becomes_true(tasks_of("self", 'D') == 3));
	exit_fine(NULL);
}

/* They have succeeded, though nobody has got to know. */
TEST_F(audit, calls_that_end_when_the_process_does)
{
	int i;

	ADD_RULE(calls);
	RECORD(is_killed_in_three_calls);
	ASSERT_CALLS(2, __NR_async_submit);
	ASSERT_CALLS(3, __NR_readv);
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(last(__NR_readv, i)->success);
		EXPECT_EQ(1, last(__NR_readv, i)->exit);
		EXPECT_FINE(same(last(__NR_readv, i), last(__NR_readv, 0)));
	}
}

/* --- calls of workers --------------------------------------------------------------------- */

#define OFFLOADS	20

static const char *offloads(void)
{
	long result = UNTOUCHED, cookie;
	int i;

	for (i = 0; i < OFFLOADS; i++) {
		const unsigned long *args = ARGS(i, 2, 3, 4);
		long value = direct(__NR_getppid, args);

		cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, args);
		CHECK(is_cookie(cookie));
		CHECK_EQ(value, final_value(cookie, &result));
	}
	return NULL;
}

TEST_F(audit, offloaded_call)
{
	struct record *r = records;
	int i;

	ADD_RULE(calls);
	RECORD(offloads);
	ASSERT_RECORDS(3 * OFFLOADS);
	for (i = 0; i < n; i += 3) {
		EXPECT_EQ(ASYNC_SUBMIT_OFFLOAD, r[i + 1].args[0]);
		EXPECT_FINE(submits(&r[i + 1], &r[i + 2]));
		EXPECT_FINE(same(&r[i], &r[i + 2]));
	}
}

/* The record says by what name. */
static const char *offloads_by_another_name(void)
{
	TRY(offloads());
	CHECK_EQ(0, prctl(PR_SET_NAME, "another_name"));
	return offloads();
}

TEST_F(audit, name_of_an_offloaded_call)
{
	struct record *r = records;
	int i;

	ADD_RULE(calls);
	RECORD(offloads_by_another_name);
	ASSERT_RECORDS(6 * OFFLOADS);
	for (i = 0; i < n; i += 3)
		EXPECT_FINE(same(&r[i], &r[i + 2]));
	EXPECT_NE(NULL, strstr(r[n - 1].who, "another_name"));
}

static const char *offloads_opening(const char *path)
{
	long result = UNTOUCHED, value = direct(__NR_openat, ARGS(AT_FDCWD, P(path), O_RDONLY));

	if (value >= 0)
		close(value);
	CHECK_EQ(value, final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_openat,
						 ARGS(AT_FDCWD, P(path), O_RDONLY)), &result));
	return NULL;
}

static const char *offloads_opens(void)
{
	TRY(offloads_opening("/dev/null"));
	return offloads_opening("/no/such/file");
}

TEST_F(audit, paths_of_an_offloaded_call)
{
	struct record *r = records;

	ADD_RULE(calls);
	RECORD(offloads_opens);
	ASSERT_RECORDS(6);
	EXPECT_FINE(submits(&r[1], &r[2]));
	EXPECT_FINE(same(&r[0], &r[2]));
	EXPECT_FINE(same(&r[3], &r[5]));
}

TEST_F(audit, rule_about_the_value_of_an_offloaded_call)
{
	ADD_RULE(calls, AUDIT_EXIT, -ENOENT);
	RECORD(offloads_opens);
	ASSERT_RECORDS(2);
	EXPECT_FINE(same(&records[0], &records[1]));
}

TEST_F(audit, rule_about_a_file_of_an_offloaded_call)
{
	ADD_RULE(calls, .path = "/dev/null");
	RECORD(offloads_opens);
	ASSERT_RECORDS(2);
	EXPECT_FINE(same(&records[0], &records[1]));
}

#define MESSAGE	(NLMSG_LENGTH(sizeof("of a user")))

/* A message of user space says who sends it, and is sent by a worker. */
static const char *offloads_message(void)
{
	struct request message = { .header = {
		.nlmsg_len = MESSAGE,
		.nlmsg_type = AUDIT_FIRST_USER_MSG,
		.nlmsg_flags = NLM_F_REQUEST,
	} };
	long result = UNTOUCHED;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);

	CHECK(fd >= 0);
	memcpy(message.data, "of a user", sizeof("of a user"));
	/* So that there is a worker. */
	TRY(offloads());
	CHECK(write_text("/proc/thread-self/loginuid", "1234"));
	CHECK_EQ(MESSAGE, direct(__NR_sendto, ARGS(fd, P(&message), MESSAGE)));
	CHECK_EQ(MESSAGE, final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_sendto,
						   ARGS(fd, P(&message), MESSAGE)), &result));
	return NULL;
}

TEST_F(audit, message_that_is_offloaded)
{
	int i, messages = 0;

	ADD_RULE(calls);
	RECORD(offloads_message);
	for (i = 0; i < n; i++) {
		if (records[i].type != AUDIT_FIRST_USER_MSG)
			continue;
		messages++;
		EXPECT_EQ(1234, records[i].auid);
	}
	EXPECT_EQ(2, messages);
}

static const char *offloads_filtered(void)
{
	long result = UNTOUCHED;

	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ERRNO | E2BIG, 0));
	CHECK_EQ(-E2BIG, final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid,
						  ARGS(0)), &result));
	return NULL;
}

TEST_F(audit, offloaded_call_that_is_filtered)
{
	ADD_RULE(calls);
	RECORD(offloads_filtered);
	ASSERT_RECORDS(1);
	EXPECT_EQ(__NR_async_submit, records[0].nr);
}

static uint32_t lock;
static pid_t waiter;

static void *waits_for_lock(void *argument)
{
	__atomic_store_n(&waiter, gettid(), __ATOMIC_RELEASE);
	raw_call(__NR_futex, &lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL);
	return NULL;
}

/*
 * From then on the calls of this thread are made by a worker. That it has events of perf would do
 * too, but what they patch in the kernel is more than some versions of QEMU can bear.
 */
static const char *holds_a_lock(void)
{
	pthread_t thread;

	lock = gettid();
	CHECK_EQ(0, pthread_create(&thread, NULL, waits_for_lock, NULL));
	CHECK(becomes_true(__atomic_load_n(&waiter, __ATOMIC_ACQUIRE) &&
			   thread_state(waiter) == 'S'));
	return NULL;
}

static const char *falls_back(void)
{
	TRY(holds_a_lock());
	TRY(asks_for_its_parent());
	TRY(reads_from_nowhere());
	CHECK_EQ(2, counter("fell_back_pi_futex"));
	return NULL;
}

/* A worker makes the call, and its submitter waits: it has the value. */
TEST_F(audit, call_that_falls_back)
{
	ADD_RULE(calls);
	RECORD(falls_back);
	ASSERT_CALLS(2, __NR_async_submit);
	ASSERT_CALLS(2, __NR_getppid);
	EXPECT_FINE(submits(last(__NR_async_submit, 1), last(__NR_getppid, 0)));
	EXPECT_FINE(same(last(__NR_getppid, 1), last(__NR_getppid, 0)));
	EXPECT_EQ(getpid(), last(__NR_getppid, 0)->exit);
	ASSERT_CALLS(2, __NR_readv);
	EXPECT_FINE(submits(last(__NR_async_submit, 0), last(__NR_readv, 0)));
	EXPECT_FINE(same(last(__NR_readv, 1), last(__NR_readv, 0)));
	EXPECT_EQ(-EBADF, last(__NR_readv, 0)->exit);
}

static const char *falls_back_and_opens(void)
{
	TRY(holds_a_lock());
	return opens();
}

TEST_F(audit, paths_of_a_call_that_falls_back)
{
	ADD_RULE(calls);
	RECORD(falls_back_and_opens);
	/* After those by which it is seen that the other thread waits. */
	ASSERT_LE(5, how_many(__NR_openat));
	EXPECT_FINE(same(last(__NR_openat, 3), last(__NR_openat, 2)));
	EXPECT_FINE(same(last(__NR_openat, 1), last(__NR_openat, 0)));
}

TEST_F(audit, rule_about_a_file_of_a_call_that_falls_back)
{
	ADD_RULE(calls, .path = "/dev/null");
	RECORD(falls_back_and_opens);
	ASSERT_RECORDS(2);
	EXPECT_FINE(same(&records[0], &records[1]));
}

static const char *falls_back_and_sleeps(void)
{
	struct submission s = { UNTOUCHED, 0 };
	struct scattered pipe;

	TRY(have_pipe(&pipe));
	TRY(holds_a_lock());
	CHECK_EQ(1, write(pipe.fds[1], "x", 1));
	CHECK_EQ(1, direct(__NR_readv, READV(&pipe)));
	s.cookie = async_submit(0, &s.result, __NR_readv, READV(&pipe));
	CHECK(is_cookie(s.cookie));
	CHECK_EQ(1, counter("fell_back_pi_futex"));
	CHECK_EQ(1, write(pipe.fds[1], "x", 1));
	return ends_with(&s, 1);
}

TEST_F(audit, call_that_falls_back_and_sleeps)
{
	ADD_RULE(calls);
	RECORD(falls_back_and_sleeps);
	ASSERT_CALLS(1, __NR_async_submit);
	ASSERT_CALLS(2, __NR_readv);
	EXPECT_FINE(same(last(__NR_readv, 1), last(__NR_readv, 0)));
}

/* --- the process and its threads ---------------------------------------------------------- */

static const char *is_alone_again(void)
{
	CHECK_EQ(0, direct(__NR_unshare, ARGS(CLONE_VM)));
	TRY(hand_over(3));
	CHECK_EQ(0, direct(__NR_unshare, ARGS(CLONE_VM)));
	return NULL;
}

/* The call may begin in one task and be made again in another, as any that is interrupted. */
TEST_F(audit, process_that_is_alone_again)
{
	struct record *first = NULL;
	int i, done = 0, interrupted = 0;

	if (variant->other)
		SKIP(return, "a process of two threads is not alone");
	ADD_RULE(calls);
	RECORD(is_alone_again);
	for (i = 0; i < n; i++) {
		if (records[i].nr != __NR_unshare)
			continue;
		if (!records[i].success) {
			interrupted++;
			EXPECT_EQ(-EINTR, records[i].exit);
		} else if (!first) {
			first = &records[i];
		} else {
			done++;
			EXPECT_FINE(same(first, &records[i]));
		}
	}
	EXPECT_EQ(1, done);
	EXPECT_GE(1, interrupted);
}

static const char *hands_over_unaudited(void)
{
	int i;

	TRY(hand_over(3));
	for (i = 0; i < 3; i++)
		TRY(asks_for_its_parent());
	return hand_over(3);
}

TEST_F(audit, process_that_is_not_audited)
{
	if (variant->other)
		SKIP(return, "a thread that is made later is audited");
	ADD_RULE(calls);
	ASSERT_FINE(record_child(self->fd, false, CHILD, hands_over_unaudited));
	ASSERT_RECORDS(0);
}

static const char *stays_audited(void)
{
	int i;

	CHECK(direct(__NR_getppid, ARGS(0)) > 0);
	TRY(hand_over(3));
	for (i = 0; i < 3; i++)
		TRY(asks_for_its_parent());
	return NULL;
}

/* Rules about tasks that are made are about those that user space makes. */
TEST_F(audit, process_that_is_audited_while_new_ones_are_not)
{
	if (variant->other)
		SKIP(return, "a thread that is made later is not audited");
	ADD_RULE(calls);
	ASSERT_FINE(record_child(self->fd, false, WORKERS, stays_audited));
	ASSERT_CALLS(7, __NR_getppid);
}

static const char *hands_over_unaudited_and_filtered(void)
{
	CHECK_EQ(0, filter(__NR_getppid, SECCOMP_RET_ALLOW, 0));
	return hands_over_unaudited();
}

/* A filter alone makes no records, and none is left open when the next call begins. */
TEST_F(audit, process_that_is_not_audited_but_filtered)
{
	if (variant->other)
		SKIP(return, "a thread that is made later is audited");
	ADD_RULE(calls);
	ASSERT_FINE(record_child(self->fd, false, CHILD, hands_over_unaudited_and_filtered));
	ASSERT_RECORDS(0);
}

static const char *reads_while_audit_changes(void)
{
	return reads_often(0);
}

/* A record that was begun may end when there are none, and the other way round. */
TEST_F(audit, audit_that_comes_and_goes)
{
	struct audit_status status = { };
	pid_t child = fork_child();
	siginfo_t info = { };
	int i;

	ASSERT_LE(0, child);
	if (!child)
		exit_fine(run_in(variant->other, reads_while_audit_changes));
	ADD_RULE(calls);
	for (i = 0; !info.si_pid; i++) {
		status.enabled = i & 1;
		ASSERT_EQ(0, set_status(self->fd, AUDIT_STATUS_ENABLED, &status));
		ASSERT_EQ(0, waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT));
	}
	EXPECT_LT(4, i);
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
