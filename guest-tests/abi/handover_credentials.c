// SPDX-License-Identifier: GPL-2.0
/*
 * Credentials and namespaces are a thread's, and follow it. Whoever goes on as the thread may do
 * what that may, and so may the calls it submits: no worker keeps a privilege alive.
 */
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>

#include "handover.h"
#include "../kselftest_harness.h"

#define NOBODY	65534

FIXTURE(secret)
{
	char path[64];
};

FIXTURE_VARIANT(secret)
{
	bool other;
};

FIXTURE_VARIANT_ADD(secret, main)
{
	.other = false,
};

FIXTURE_VARIANT_ADD(secret, other)
{
	.other = true,
};

static char *path;

/* A file that only root may read. */
FIXTURE_SETUP(secret)
{
	int fd;

	if (geteuid())
		SKIP(return, "needs root");
	snprintf(self->path, sizeof(self->path), "/tmp/async_secret.XXXXXX");
	fd = mkstemp(self->path);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fchmod(fd, 0600));
	close(fd);
	path = self->path;
}

/* The test may have dropped what it takes to remove the file: its parent does it. */
FIXTURE_TEARDOWN_PARENT(secret)
{
	unlink(self->path);
}

/* A body in either thread, as root, with a file that only root may read. */
#define WITH_A_SECRET(name)	WITH_A_SECRET_IF(name, true)

/* The same where the kernel can do it at all. */
#define WITH_A_SECRET_IF(name, condition)				\
	static const char *name##_body(void);				\
	TEST_F(secret, name)						\
	{								\
		if (!(condition))					\
			SKIP(return, "not " #condition);		\
		EXPECT_FINE(run_in(variant->other, name##_body));	\
	}								\
	static const char *name##_body(void)

/* The calls of the kernel itself: of this thread, not of all that libc knows of. */
static long set_uids(long real, long effective, long saved)
{
	return raw_call(__NR_setresuid, real, effective, saved);
}

/* Opens the file directly, submitted and offloaded, each with the same success. */
static const char *opens_with(long error)
{
	const unsigned long *args = ARGS(AT_FDCWD, P(path), O_RDONLY);
	unsigned long flags;
	long fd, result;

	fd = raw_call(__NR_openat, args[0], args[1], args[2]);
	CHECK_EQ(error, fd < 0 ? fd : close(fd));
	for (flags = 0; flags <= ASYNC_SUBMIT_OFFLOAD; flags++) {
		result = UNTOUCHED;
		fd = final_value(async_submit(flags, &result, __NR_openat, args), &result);
		CHECK_EQ(error, fd < 0 ? fd : close(fd));
	}
	return NULL;
}

/* Workers that were made and used with all privileges, as many as a test needs. */
static const char *warm_up(void)
{
	struct reading r[8];
	int i;

	for (i = 0; i < 8; i++)
		TRY(begin_reading(&r[i]));
	for (i = 0; i < 8; i++)
		TRY(end_reading(&r[i]));
	return opens_with(0);
}

/* Whatever is going on, and whoever goes on. */
static const char *is_denied(void)
{
	struct reading r[3];
	int i;

	TRY(opens_with(-EACCES));
	for (i = 0; i < 3; i++) {
		TRY(begin_reading(&r[i]));
		TRY(opens_with(-EACCES));
	}
	for (i = 0; i < 3; i++)
		TRY(end_reading(&r[i]));
	TRY(hand_over(3));
	return opens_with(-EACCES);
}

/* Files are not read any more, but those below /proc. */
static const char *give_up_files(void)
{
	const struct landlock_ruleset_attr handled = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE,
	};
	struct landlock_path_beneath_attr proc = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
		.parent_fd = open("/proc", O_PATH | O_CLOEXEC),
	};
	int rules = raw_call(__NR_landlock_create_ruleset, &handled, sizeof(handled), 0);

	CHECK(rules >= 0);
	CHECK(proc.parent_fd >= 0);
	CHECK_EQ(0, raw_call(__NR_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &proc, 0));
	CHECK_EQ(0, raw_call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_EQ(0, raw_call(__NR_landlock_restrict_self, rules, 0));
	close(rules);
	close(proc.parent_fd);
	return NULL;
}

static bool has_landlock(void)
{
	return raw_call(__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

WITH_A_SECRET_IF(files_given_up, has_landlock())
{
	TRY(warm_up());
	TRY(give_up_files());
	return is_denied();
}

static const char *gives_up_files(void)
{
	TRY(give_up_files());
	return is_denied();
}

/* What one thread has given up the others still have, and their workers are not its. */
WITH_A_SECRET_IF(files_given_up_by_another_thread, has_landlock())
{
	TRY(warm_up());
	TRY(run_in(true, gives_up_files));
	return warm_up();
}

static long thread_keyring(bool make)
{
	return raw_call(__NR_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, make);
}

/* A new task has none of the keyring of the thread that it is made by. */
WITH_A_SECRET_IF(keyring_of_the_thread, thread_keyring(false) != -ENOSYS)
{
	struct reading r[3];
	long keyring;
	int i;

	CHECK_EQ(-ENOKEY, thread_keyring(false));
	TRY(hand_over(3));
	keyring = thread_keyring(true);
	CHECK(keyring > 0);
	for (i = 0; i < 3; i++) {
		TRY(begin_reading(&r[i]));
		CHECK_EQ(keyring, thread_keyring(false));
	}
	for (i = 0; i < 3; i++) {
		TRY(end_reading(&r[i]));
		CHECK_EQ(keyring, thread_keyring(false));
	}
	TRY(hand_over(3));
	CHECK_EQ(keyring, thread_keyring(false));
	return NULL;
}

WITH_A_SECRET(user_dropped)
{
	TRY(warm_up());
	CHECK_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	TRY(is_denied());
	CHECK_EQ(NOBODY, raw_call(__NR_getuid));
	CHECK_EQ(-EPERM, set_uids(0, 0, 0));
	return NULL;
}

WITH_A_SECRET(user_dropped_with_a_call_outstanding)
{
	struct reading r;

	TRY(warm_up());
	TRY(begin_reading(&r));
	CHECK_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	TRY(is_denied());
	TRY(end_reading(&r));
	TRY(is_denied());
	CHECK_EQ(-EPERM, set_uids(0, 0, 0));
	return NULL;
}

WITH_A_SECRET(user_dropped_and_taken_back)
{
	struct reading r;
	int i;

	TRY(warm_up());
	for (i = 0; i < 5; i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(0, set_uids(-1, NOBODY, -1));
		TRY(is_denied());
		CHECK_EQ(0, set_uids(-1, 0, -1));
		TRY(opens_with(0));
		TRY(end_reading(&r));
		TRY(hand_over_once());
		TRY(opens_with(0));
	}
	return NULL;
}

WITH_A_SECRET(capabilities_dropped)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };

	CHECK_EQ(0, chown(path, NOBODY, NOBODY));
	TRY(warm_up());
	CHECK_EQ(0, raw_call(__NR_capset, &header, data));
	TRY(is_denied());
	CHECK_EQ(0, raw_call(__NR_capget, &header, data));
	CHECK_EQ(0, data[0].effective | data[0].permitted | data[1].effective);
	CHECK_EQ(-EPERM, set_uids(1, 1, 1));
	return NULL;
}

WITH_A_SECRET(group_dropped)
{
	const gid_t group = 54321;
	struct reading r;

	CHECK_EQ(0, chown(path, 12345, group));
	CHECK_EQ(0, chmod(path, 0640));
	CHECK_EQ(0, raw_call(__NR_setgroups, 1, &group));
	CHECK_EQ(0, set_uids(NOBODY, NOBODY, 0));
	TRY(warm_up());
	TRY(begin_reading(&r));
	CHECK_EQ(0, set_uids(-1, 0, -1));
	CHECK_EQ(0, raw_call(__NR_setgroups, 0, NULL));
	CHECK_EQ(0, set_uids(-1, NOBODY, -1));
	TRY(is_denied());
	return end_reading(&r);
}

static int stage;

static const char *drops_its_user(void)
{
	TRY(opens_with(0));
	CHECK_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	TRY(is_denied());
	reach(&stage, 1);
	CHECK(await(&stage, 2));
	return is_denied();
}

WITH_A_SECRET(user_dropped_by_another_thread)
{
	static body_fn body = drops_its_user;
	void *found = "no value";
	struct reading r;
	pthread_t thread;
	int i;

	TRY(warm_up());
	stage = 0;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	CHECK(await(&stage, 1));
	/* The workers were nobody's in the end, and are root's again. */
	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r));
		TRY(opens_with(0));
		CHECK_EQ(0, raw_call(__NR_geteuid));
		TRY(end_reading(&r));
	}
	reach(&stage, 2);
	CHECK_EQ(0, pthread_join(thread, &found));
	return found;
}

/* --- the call keeps those it was submitted with ------------------------------------------- */

static int connect_to(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (const void *)address, sizeof(*address)))
		return -1;
	return fd;
}

/* Who the peer of the next connection says it is; -1. */
static long accept_peer(int listener)
{
	struct ucred peer = { .uid = -1 };
	socklen_t length = sizeof(peer);
	int fd = accept(listener, NULL, NULL);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length))
		return -1;
	return peer.uid;
}

/* connect() says who it is once there is room for it: then the thread is somebody else. */
WITH_A_SECRET(call_is_made_as_who_submitted_it)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct submission s;
	int listener, fd;

	snprintf(address.sun_path + 1, 64, "async.%d.%d", getpid(), gettid());
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(0, bind(listener, (void *)&address, sizeof(address)));
	CHECK_EQ(0, listen(listener, 0));
	CHECK(connect_to(&address) >= 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(0, set_uids(-1, NOBODY, -1));
	TRY(submit_sleeping(&s, __NR_connect, ARGS(fd, P(&address), sizeof(address))));
	CHECK_EQ(0, set_uids(-1, 0, -1));
	TRY(hand_over(3));
	CHECK_EQ(0, accept_peer(listener));
	CHECK_EQ(NOBODY, accept_peer(listener));
	return ends_with(&s, 0);
}

/* --- namespaces --------------------------------------------------------------------------- */

static const char *is_called(const char *name)
{
	struct utsname names;
	long result = UNTOUCHED;

	CHECK_EQ(0, uname(&names));
	CHECK(!strcmp(name, names.nodename));
	memset(&names, 0, sizeof(names));
	CHECK_EQ(0, final_value(async_submit(0, &result, __NR_uname, ARGS(P(&names))), &result));
	CHECK(!strcmp(name, names.nodename));
	memset(&names, 0, sizeof(names));
	CHECK_EQ(0, final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_uname,
					     ARGS(P(&names))), &result));
	CHECK(!strcmp(name, names.nodename));
	return NULL;
}

static struct utsname at_first;

static const char *is_called_as_at_first(void)
{
	TRY(hand_over(2));
	return is_called(at_first.nodename);
}

WITH_A_SECRET(namespace_of_its_own)
{
	struct reading r;

	CHECK_EQ(0, uname(&at_first));
	TRY(warm_up());
	TRY(begin_reading(&r));
	CHECK_EQ(0, unshare(CLONE_NEWUTS));
	CHECK_EQ(0, sethostname("apart", 5));
	TRY(is_called("apart"));
	TRY(end_reading(&r));
	TRY(hand_over(3));
	TRY(is_called("apart"));
	return NULL;
}

static const char *is_called_apart(void)
{
	TRY(warm_up());
	CHECK_EQ(0, unshare(CLONE_NEWUTS));
	CHECK_EQ(0, sethostname("apart", 5));
	TRY(hand_over(3));
	TRY(is_called("apart"));
	return NULL;
}

/* Workers that come from a thread with a namespace of its own are none of it any more. */
WITH_A_SECRET(namespace_of_another_thread)
{
	int i;

	CHECK_EQ(0, uname(&at_first));
	TRY(warm_up());
	for (i = 0; i < 5; i++) {
		TRY(run_in(true, is_called_apart));
		TRY(is_called_as_at_first());
	}
	return NULL;
}

/* --- whose the process is ---------------------------------------------------------------- */

/* Shared with the child. */
static int *at;

/* Leaves the main thread to other tasks, in a process group of its own, and becomes nobody. */
static const char *becomes_nobody(bool with_a_call)
{
	struct reading r;

	CHECK_EQ(0, setpgid(0, 0));
	TRY(hand_over(3));
	if (with_a_call)
		TRY(begin_reading(&r));
	CHECK_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	reach(at, 1);
	CHECK(await(at, 2));
	if (with_a_call)
		TRY(end_reading(&r));
	return NULL;
}

FIXTURE(nobody)
{
	pid_t child;
};

FIXTURE_VARIANT(nobody)
{
	bool with_a_call;
};

FIXTURE_VARIANT_ADD(nobody, idle)
{
	.with_a_call = false,
};

FIXTURE_VARIANT_ADD(nobody, busy)
{
	.with_a_call = true,
};

FIXTURE_SETUP(nobody)
{
	if (geteuid())
		SKIP(return, "needs root");
	at = share(sizeof(*at));
	ASSERT_NE(NULL, at);
	self->child = fork_child();
	ASSERT_LE(0, self->child);
	if (!self->child)
		exit_fine(becomes_nobody(variant->with_a_call));
	ASSERT_TRUE(await(at, 1));
}

FIXTURE_TEARDOWN(nobody)
{
	if (self->child > 0) {
		kill(self->child, SIGKILL);
		waitpid(self->child, NULL, 0);
	}
}

/* What a process of this user gets when it asks whether it may send a signal there. */
static int asks_as(int uid, pid_t pid)
{
	pid_t child = fork_child();

	if (child)
		return child < 0 ? -errno : status_of(child);
	if (set_uids(uid, uid, uid))
		_exit(1);
	_exit(kill(pid, 0) ? errno : 0);
}

TEST_F(nobody, takes_signals_of_nobody)
{
	EXPECT_EQ(0, asks_as(NOBODY, self->child));
	EXPECT_EQ(0, asks_as(NOBODY, -self->child));
	EXPECT_EQ(EPERM, WEXITSTATUS(asks_as(1, self->child)));
	EXPECT_EQ(EPERM, WEXITSTATUS(asks_as(1, -self->child)));
}

TEST_F(nobody, is_told_as_nobody)
{
	siginfo_t info = { };

	ASSERT_EQ(0, kill(self->child, SIGSTOP));
	ASSERT_EQ(0, waitid(P_PID, self->child, &info, WSTOPPED));
	EXPECT_EQ(self->child, info.si_pid);
	EXPECT_EQ(NOBODY, info.si_uid);
	ASSERT_EQ(0, kill(self->child, SIGCONT));
	ASSERT_EQ(0, waitid(P_PID, self->child, &info, WCONTINUED));
	EXPECT_EQ(NOBODY, info.si_uid);
	reach(at, 2);
	ASSERT_EQ(0, waitid(P_PID, self->child, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(CLD_EXITED, info.si_code);
	EXPECT_EQ(0, info.si_status);
	EXPECT_EQ(NOBODY, info.si_uid);
}

TEST_F(nobody, is_told_as_nobody_when_killed)
{
	siginfo_t info = { };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	ASSERT_EQ(SIGCHLD, sigtimedwait(&set, &info, &(struct timespec){ DEADLINE_S, 0 }));
	EXPECT_EQ(self->child, info.si_pid);
	EXPECT_EQ(NOBODY, info.si_uid);
}

/* The main thread ends first: the last of the process is another one. */
static void *ends_later(void *argument)
{
	pid_t tid = getpid();

	/* A main thread that has ended is a zombie as long as there are others. */
	becomes_true(thread_state(tid) == 'Z' || counter("outstanding") == 0);
	await(at, 2);
	_exit(0);
	return argument;
}

static void ends_its_main_thread(void)
{
	pthread_t thread;

	if (hand_over(3) || set_uids(NOBODY, NOBODY, NOBODY) ||
	    pthread_create(&thread, NULL, ends_later, NULL))
		_exit(1);
	reach(at, 1);
	pthread_exit(NULL);
}

TEST(process_whose_main_thread_has_ended_is_nobodys)
{
	siginfo_t info = { };
	pid_t child;

	if (geteuid())
		SKIP(return, "needs root");
	at = share(sizeof(*at));
	ASSERT_NE(NULL, at);
	child = fork_child();
	ASSERT_LE(0, child);
	if (!child)
		ends_its_main_thread();
	ASSERT_TRUE(await(at, 1));
	/* Whether it has ended yet or not. */
	usleep(10000);
	reach(at, 2);
	ASSERT_EQ(0, waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(0, info.si_status);
	EXPECT_EQ(NOBODY, info.si_uid);
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
