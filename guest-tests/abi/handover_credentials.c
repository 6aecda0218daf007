// SPDX-License-Identifier: GPL-2.0
/*
 * Credentials and namespaces are a thread's, and follow it. Whoever goes on as the thread may do
 * what that may, and so may the calls it submits: no worker keeps a privilege alive.
 */
#include <grp.h>
#include <linux/capability.h>
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
#define WITH_A_SECRET(name)						\
	static const char *name##_body(void);				\
	TEST_F(secret, name)						\
	{								\
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

TEST_HARNESS_MAIN
