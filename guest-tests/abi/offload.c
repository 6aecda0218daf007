// SPDX-License-Identifier: GPL-2.0
/* ASYNC_SUBMIT_OFFLOAD: a worker runs the call, the submitter gets a cookie at once. */
#include <sys/socket.h>

#include "calls.h"
#include "../kselftest_harness.h"

static long offload(long *result, long nr, const unsigned long *args)
{
	return async_submit(ASYNC_SUBMIT_OFFLOAD, result, nr, args);
}

TEST(always_returns_a_cookie)
{
	long result, cookie;
	int i;

	for (i = 0; i < 200; i++) {
		result = UNTOUCHED;
		cookie = offload(&result, __NR_getppid, ARGS(0));
		ASSERT_TRUE(is_cookie(cookie));
		ASSERT_EQ(getppid(), final_value(cookie, &result));
	}
}

TEST(result_holds_the_cookie_while_outstanding)
{
	long result = UNTOUCHED, cookie;
	char byte;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	cookie = offload(&result, __NR_read, ARGS(fds[0], P(&byte), 1));
	ASSERT_LT(0, cookie);
	EXPECT_EQ(cookie, result_of(&result));
	EXPECT_TRUE(ASYNC_PENDING(result_of(&result)));
	EXPECT_EQ(-ETIME, wait_for_async(0, cookie, &no_time));
	EXPECT_EQ(cookie, result_of(&result));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_EQ(1, final_value(cookie, &result));
	EXPECT_FALSE(ASYNC_PENDING(result_of(&result)));
}

TEST(result_turns_final_without_a_wait)
{
	long result = UNTOUCHED;
	long cookie = offload(&result, __NR_getppid, ARGS(0));

	ASSERT_LT(0, cookie);
	ASSERT_TRUE(becomes_true(!ASYNC_PENDING(result_of(&result))));
	EXPECT_EQ(getppid(), result);
}

TEST(data_is_there_when_the_result_is)
{
	char buffer[8] = "";
	long result = UNTOUCHED, cookie;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	cookie = offload(&result, __NR_read, ARGS(fds[0], P(buffer), sizeof(buffer)));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(5, write(fds[1], "hello", 5));
	ASSERT_EQ(5, final_value(cookie, &result));
	EXPECT_STREQ("hello", buffer);
}

TEST(error_of_the_call)
{
	long result = UNTOUCHED;
	long cookie = offload(&result, __NR_close, ARGS(-1UL));

	ASSERT_LT(0, cookie);
	EXPECT_EQ(-EBADF, final_value(cookie, &result));
}

TEST(call_acts_for_the_process)
{
	long result = UNTOUCHED;

	EXPECT_EQ(getpid(), final_value(offload(&result, __NR_getpid, ARGS(0)), &result));
	EXPECT_EQ(getppid(), final_value(offload(&result, __NR_getppid, ARGS(0)), &result));
	EXPECT_EQ(getpgrp(), final_value(offload(&result, __NR_getpgid, ARGS(0)), &result));
	EXPECT_EQ(getsid(0), final_value(offload(&result, __NR_getsid, ARGS(0)), &result));
	EXPECT_EQ(getuid(), final_value(offload(&result, __NR_getuid, ARGS(0)), &result));
}

TEST(opened_file_belongs_to_the_process)
{
	long result = UNTOUCHED, fd;
	struct stat st;

	fd = final_value(offload(&result, __NR_openat, ARGS(AT_FDCWD, P("/"), O_RDONLY)), &result);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(0, final_value(offload(&result, __NR_close, ARGS(fd)), &result));
	EXPECT_EQ(-1, fstat(fd, &st));
}

TEST(mapping_belongs_to_the_process)
{
	long result = UNTOUCHED, page = getpagesize();
	char *map;

	map = (char *)final_value(offload(&result, __NR_mmap,
					  ARGS(0, page, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1UL, 0)), &result);
	ASSERT_FALSE((long)map < 0 && (long)map > -4096);
	map[page - 1] = 1;
	EXPECT_EQ(0, munmap(map, page));
}

TEST(arguments_are_copied)
{
	unsigned long args[6];
	char buffer[4] = "";
	long result = UNTOUCHED, cookie;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	memcpy(args, ARGS(fds[0], P(buffer), 4), sizeof(args));
	cookie = offload(&result, __NR_read, args);
	memset(args, 0xff, sizeof(args));
	ASSERT_LT(0, cookie);
	ASSERT_EQ(2, write(fds[1], "ok", 2));
	EXPECT_EQ(2, final_value(cookie, &result));
	EXPECT_STREQ("ok", buffer);
}

TEST(value_that_looks_like_a_cookie_is_eoverflow)
{
	const unsigned long far = (1UL << 62) + 5;
	int fd = memfd_create("sparse", 0);
	long result = UNTOUCHED;

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EOVERFLOW, final_value(offload(&result, __NR_lseek, ARGS(fd, far, SEEK_SET)),
					  &result));
	/* The call itself was done. */
	EXPECT_EQ((long)far, lseek(fd, 0, SEEK_CUR));
	/* The largest value below the range passes. */
	EXPECT_EQ((1L << 62) - 1, final_value(offload(&result, __NR_lseek,
						      ARGS(fd, (1UL << 62) - 1, SEEK_SET)),
					      &result));
}

TEST(closed_file_is_released_when_the_result_is_final)
{
	long result, cookie;
	char byte;
	int fds[2], i;

	for (i = 0; i < 50; i++) {
		result = UNTOUCHED;
		ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
		cookie = offload(&result, __NR_close, ARGS(fds[1]));
		ASSERT_LT(0, cookie);
		while (ASYNC_PENDING(result_of(&result)))
			sched_yield();
		ASSERT_EQ(0, result);
		/* The peer sees end of file, not an empty pipe. */
		ASSERT_EQ(0, read(fds[0], &byte, 1));
		ASSERT_EQ(0, close(fds[0]));
	}
}

TEST(many_calls_sleep_side_by_side)
{
	enum { CALLS = 64 };
	long results[CALLS], cookies[CALLS];
	char bytes[CALLS];
	int fds[CALLS][2], i;

	for (i = 0; i < CALLS; i++) {
		results[i] = UNTOUCHED;
		ASSERT_EQ(0, pipe(fds[i]));
		cookies[i] = offload(&results[i], __NR_read, ARGS(fds[i][0], P(&bytes[i]), 1));
		ASSERT_LT(0, cookies[i]);
	}
	/* Backwards: no call waits for an earlier one. */
	for (i = CALLS - 1; i >= 0; i--) {
		char byte = 'A' + i % 26;

		EXPECT_EQ(cookies[i], result_of(&results[i]));
		ASSERT_EQ(1, write(fds[i][1], &byte, 1));
		EXPECT_EQ(1, final_value(cookies[i], &results[i]));
		EXPECT_EQ(byte, bytes[i]);
	}
}

TEST(two_calls_talk_to_each_other)
{
	long results[2] = { UNTOUCHED, UNTOUCHED }, cookies[2];
	char byte = 0;
	int sv[2];

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	cookies[0] = offload(&results[0], __NR_read, ARGS(sv[0], P(&byte), 1));
	cookies[1] = offload(&results[1], __NR_write, ARGS(sv[1], P("y"), 1));
	EXPECT_EQ(1, final_value(cookies[0], &results[0]));
	EXPECT_EQ(1, final_value(cookies[1], &results[1]));
	EXPECT_EQ('y', byte);
}

/*
 * The very first call of a process: its worker may find a descriptor table that was not shared
 * when the call began. Both ends are closed while the call sleeps or is about to start.
 */
static int close_both_ends_under_the_first_call(void)
{
	long result = UNTOUCHED, cookie, value;
	char byte;
	int fds[2];

	if (pipe(fds))
		return 2;
	cookie = offload(&result, __NR_read, ARGS(fds[0], P(&byte), 1));
	if (cookie <= 0)
		return 3;
	close(fds[0]);
	close(fds[1]);
	value = final_value(cookie, &result);
	/* End of file for who has the file by then, a bad descriptor for who comes too late. */
	return value == 0 || value == -EBADF ? 0 : 4;
}

TEST(descriptors_closed_under_the_first_call_of_a_process)
{
	pid_t child;
	int i;

	for (i = 0; i < 20; i++) {
		child = fork_child();
		ASSERT_LE(0, child);
		if (child == 0)
			_exit(close_both_ends_under_the_first_call());
		ASSERT_EQ(0, status_of(child));
	}
}

struct submission {
	int fd;
	long cookie;
	long result;
	char byte;
};

static void *submit_read(void *argument)
{
	struct submission *s = argument;

	s->cookie = offload(&s->result, __NR_read, ARGS(s->fd, P(&s->byte), 1));
	return NULL;
}

TEST(threads_submit_at_the_same_time)
{
	enum { THREADS = 8 };
	struct submission s[THREADS];
	pthread_t threads[THREADS];
	int fds[2], i;

	ASSERT_EQ(0, pipe(fds));
	for (i = 0; i < THREADS; i++) {
		s[i] = (struct submission){ .fd = fds[0], .result = UNTOUCHED };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, submit_read, &s[i]));
	}
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
	ASSERT_EQ(THREADS, write(fds[1], "abcdefgh", THREADS));
	for (i = 0; i < THREADS; i++) {
		ASSERT_LT(0, s[i].cookie);
		EXPECT_EQ(1, final_value(s[i].cookie, &s[i].result));
	}
}

TEST_HARNESS_MAIN
