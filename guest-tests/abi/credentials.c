// SPDX-License-Identifier: GPL-2.0
/*
 * An offloaded call runs with what its submitter has at that moment: credentials, working
 * directory, descriptors. Workers of earlier calls keep no privilege alive.
 */
#include <grp.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include "calls.h"
#include "../kselftest_harness.h"

#define NOBODY	65534

FIXTURE(secret)
{
	char path[64];
};

static long offloaded(long nr, const unsigned long *args)
{
	long result = UNTOUCHED;

	return final_value(async_submit(ASYNC_SUBMIT_OFFLOAD, &result, nr, args), &result);
}

/* Tries to open the file in a worker; 0 or the error. */
static long open_offloaded(const char *path)
{
	long fd = offloaded(__NR_openat, ARGS(AT_FDCWD, P(path), O_RDONLY));

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* Whether the file itself denies this thread to read it, and not the way to it. */
static bool denies(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && open(path, O_RDONLY) == -1 && errno == EACCES;
}

/* A file only root may read, and workers that were made and used by root. */
FIXTURE_SETUP(secret)
{
	int fd, i;

	if (geteuid())
		SKIP(return, "needs root");
	snprintf(self->path, sizeof(self->path), "/tmp/async_secret.XXXXXX");
	fd = mkstemp(self->path);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fchmod(fd, 0600));
	close(fd);
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, open_offloaded(self->path));
}

/* The test may have dropped what it takes to remove the file: its parent does it. */
FIXTURE_TEARDOWN_PARENT(secret)
{
	unlink(self->path);
}

/* The calls of the kernel itself: of this thread, not of all that libc knows of. */
static long set_uids(long real, long effective, long saved)
{
	return raw_call(__NR_setresuid, real, effective, saved);
}

TEST_F(secret, dropped_user)
{
	ASSERT_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	ASSERT_TRUE(denies(self->path));
	for (int i = 0; i < 8; i++)
		EXPECT_EQ(-EACCES, open_offloaded(self->path));
	EXPECT_EQ(NOBODY, offloaded(__NR_getuid, ARGS(0)));
	EXPECT_EQ(NOBODY, offloaded(__NR_geteuid, ARGS(0)));
}

TEST_F(secret, dropped_user_inline)
{
	long result = UNTOUCHED, ret;

	ASSERT_EQ(0, set_uids(NOBODY, NOBODY, NOBODY));
	ASSERT_TRUE(denies(self->path));
	ret = async_submit(0, &result, __NR_openat, ARGS(AT_FDCWD, P(self->path), O_RDONLY));
	EXPECT_EQ(-EACCES, final_value(ret, &result));
}

TEST_F(secret, user_dropped_and_taken_back)
{
	ASSERT_EQ(0, set_uids(-1, NOBODY, -1));
	EXPECT_EQ(-EACCES, open_offloaded(self->path));
	ASSERT_EQ(0, set_uids(-1, 0, -1));
	EXPECT_EQ(0, open_offloaded(self->path));
	ASSERT_EQ(0, set_uids(-1, NOBODY, -1));
	EXPECT_EQ(-EACCES, open_offloaded(self->path));
}

TEST_F(secret, credentials_at_submission_count)
{
	char byte[2];
	long result = UNTOUCHED, cookie;
	int fds[2];

	/* Submitted as nobody, asleep while the submitter is root again. */
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, set_uids(-1, NOBODY, -1));
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_read,
			      ARGS(fds[0], P(byte), 1));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(0, set_uids(-1, 0, -1));
	EXPECT_EQ(0, open_offloaded(self->path));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_EQ(1, final_value(cookie, &result));
}

TEST_F(secret, dropped_capability)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { };

	/* Root without capabilities is a stranger to a file that is not its own. */
	ASSERT_EQ(0, chown(self->path, NOBODY, NOBODY));
	ASSERT_EQ(0, open_offloaded(self->path));
	ASSERT_EQ(0, raw_call(__NR_capset, &header, data));
	ASSERT_TRUE(denies(self->path));
	for (int i = 0; i < 8; i++)
		EXPECT_EQ(-EACCES, open_offloaded(self->path));
}

TEST_F(secret, dropped_group)
{
	ASSERT_EQ(0, chown(self->path, 12345, 54321));
	ASSERT_EQ(0, chmod(self->path, 0640));
	ASSERT_EQ(0, setgroups(1, (gid_t[]){ 54321 }));
	ASSERT_EQ(0, set_uids(NOBODY, NOBODY, 0));
	ASSERT_LE(0, open(self->path, O_RDONLY));
	EXPECT_EQ(0, open_offloaded(self->path));
	ASSERT_EQ(0, set_uids(-1, 0, -1));
	ASSERT_EQ(0, setgroups(0, NULL));
	ASSERT_EQ(0, set_uids(-1, NOBODY, -1));
	ASSERT_TRUE(denies(self->path));
	EXPECT_EQ(-EACCES, open_offloaded(self->path));
}

struct other {
	const char *path;
	long before;
	long after;
	pthread_barrier_t *dropped;
	pthread_barrier_t *tried;
};

static void *drops_its_user(void *argument)
{
	struct other *other = argument;

	other->before = open_offloaded(other->path);
	set_uids(NOBODY, NOBODY, NOBODY);
	pthread_barrier_wait(other->dropped);
	pthread_barrier_wait(other->tried);
	other->after = open_offloaded(other->path);
	return NULL;
}

TEST_F(secret, each_thread_has_its_own)
{
	pthread_barrier_t dropped, tried;
	struct other other = { .path = self->path, .dropped = &dropped, .tried = &tried };
	pthread_t thread;

	ASSERT_EQ(0, pthread_barrier_init(&dropped, NULL, 2));
	ASSERT_EQ(0, pthread_barrier_init(&tried, NULL, 2));
	ASSERT_EQ(0, pthread_create(&thread, NULL, drops_its_user, &other));
	pthread_barrier_wait(&dropped);
	EXPECT_EQ(0, open_offloaded(self->path));
	pthread_barrier_wait(&tried);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, other.before);
	EXPECT_EQ(-EACCES, other.after);
	EXPECT_EQ(0, open_offloaded(self->path));
}

TEST(working_directory_of_the_process)
{
	char buffer[PATH_MAX];

	ASSERT_EQ(0, chdir("/proc"));
	ASSERT_LT(0, offloaded(__NR_getcwd, ARGS(P(buffer), sizeof(buffer))));
	EXPECT_STREQ("/proc", buffer);
	ASSERT_EQ(0, offloaded(__NR_chdir, ARGS(P("/"))));
	ASSERT_NE(NULL, getcwd(buffer, sizeof(buffer)));
	EXPECT_STREQ("/", buffer);
}

struct apart {
	int unshared;
	int fd;
	char directory[PATH_MAX];
	long directory_length;
	long read_value;
	char byte;
};

static void *has_a_directory_of_its_own(void *argument)
{
	struct apart *apart = argument;

	apart->unshared = unshare(CLONE_FS) || chdir("/proc");
	apart->directory_length = offloaded(__NR_getcwd,
					    ARGS(P(apart->directory), sizeof(apart->directory)));
	return NULL;
}

TEST(working_directory_of_a_thread_with_its_own)
{
	static struct apart apart;
	pthread_t thread;

	ASSERT_EQ(0, chdir("/"));
	ASSERT_EQ(2, offloaded(__NR_getcwd, ARGS(P(apart.directory), sizeof(apart.directory))));
	ASSERT_EQ(0, pthread_create(&thread, NULL, has_a_directory_of_its_own, &apart));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, apart.unshared);
	ASSERT_LT(0, apart.directory_length);
	EXPECT_STREQ("/proc", apart.directory);
}

static void *has_descriptors_of_its_own(void *argument)
{
	struct apart *apart = argument;
	int fds[2];

	apart->unshared = unshare(CLONE_FILES) || pipe(fds) || write(fds[1], "x", 1) != 1 ||
			  dup2(fds[0], apart->fd) < 0;
	apart->read_value = offloaded(__NR_read, ARGS(apart->fd, P(&apart->byte), 1));
	return NULL;
}

TEST(descriptors_of_a_thread_with_its_own)
{
	static struct apart apart = { .fd = 200 };
	pthread_t thread;

	ASSERT_EQ(-EBADF, offloaded(__NR_read, ARGS(apart.fd, P(&apart.byte), 1)));
	ASSERT_EQ(0, pthread_create(&thread, NULL, has_descriptors_of_its_own, &apart));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, apart.unshared);
	EXPECT_EQ(1, apart.read_value);
	EXPECT_EQ('x', apart.byte);
	EXPECT_EQ(-EBADF, offloaded(__NR_read, ARGS(apart.fd, P(&apart.byte), 1)));
}

TEST(lowered_limit_on_open_files)
{
	const struct rlimit none = { 0, 4096 };

	ASSERT_LE(0, offloaded(__NR_dup, ARGS(0)));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(-EMFILE, offloaded(__NR_dup, ARGS(0)));
}

TEST_HARNESS_MAIN
