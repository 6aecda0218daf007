// SPDX-License-Identifier: GPL-2.0
/* The result word: where it may lie, when it changes, and what happens if it cannot. */
#include "calls.h"
#include "../kselftest_harness.h"

FIXTURE(word)
{
	int fds[2];
	char byte;
	size_t page;
	long *result;
	long cookie;
};

/* A call that sleeps; its result word has a page of its own. */
FIXTURE_SETUP(word)
{
	self->page = getpagesize();
	ASSERT_EQ(0, pipe(self->fds));
	self->result = mmap(NULL, self->page, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->result);
	/* The page is not touched before: the kernel brings it in. */
	self->cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, self->result, __NR_read,
				    ARGS(self->fds[0], P(&self->byte), 1));
	ASSERT_LT(0, self->cookie);
	ASSERT_EQ(self->cookie, result_of(self->result));
}

FIXTURE_TEARDOWN(word)
{
	close(self->fds[1]);
	EXPECT_EQ(0, wait_for_async(0, 0, &deadline));
}

/* The call ends, its value is lost, and everything else is as usual. */
static bool ends_as_usual(FIXTURE_DATA(word) *self)
{
	return write(self->fds[1], "x", 1) == 1 &&
	       wait_for_async(0, self->cookie, &deadline) == 0 &&
	       self->byte == 'x' &&
	       wait_for_async(0, 0, &no_time) == 0 &&
	       async_cancel(0, self->cookie) == -ENOENT;
}

TEST_F(word, unmapped_while_outstanding)
{
	ASSERT_EQ(0, munmap(self->result, self->page));
	EXPECT_TRUE(ends_as_usual(self));
}

TEST_F(word, read_only_while_outstanding)
{
	ASSERT_EQ(0, mprotect(self->result, self->page, PROT_READ));
	EXPECT_TRUE(ends_as_usual(self));
	EXPECT_EQ(self->cookie, result_of(self->result));
}

TEST_F(word, inaccessible_while_outstanding)
{
	ASSERT_EQ(0, mprotect(self->result, self->page, PROT_NONE));
	EXPECT_TRUE(ends_as_usual(self));
	ASSERT_EQ(0, mprotect(self->result, self->page, PROT_READ));
	EXPECT_EQ(self->cookie, result_of(self->result));
}

TEST_F(word, new_mapping_at_its_address_takes_the_value)
{
	ASSERT_EQ(self->result, mmap(self->result, self->page, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_TRUE(ends_as_usual(self));
	EXPECT_EQ(1, result_of(self->result));
}

TEST_F(word, stored_once)
{
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	ASSERT_EQ(0, wait_for_async(0, self->cookie, &deadline));
	__atomic_store_n(self->result, UNTOUCHED, __ATOMIC_RELEASE);
	/* More calls by the same workers, then look again. */
	for (int i = 0; i < 50; i++) {
		long other;
		long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &other, __NR_getppid, ARGS(0));

		ASSERT_EQ(getppid(), final_value(cookie, &other));
	}
	EXPECT_EQ(UNTOUCHED, result_of(self->result));
}

TEST_F(word, copy_of_a_child_keeps_the_cookie)
{
	int go[2];
	pid_t child;
	char byte;

	ASSERT_EQ(0, pipe(go));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		close(go[1]);
		/* Until the parent's call is final. */
		if (read(go[0], &byte, 1) != 1)
			_exit(2);
		_exit(result_of(self->result) == self->cookie ? 0 : 1);
	}
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	EXPECT_EQ(1, final_value(self->cookie, self->result));
	ASSERT_EQ(1, write(go[1], "g", 1));
	EXPECT_EQ(0, status_of(child));
}

TEST_F(word, only_cookie_and_final_value_are_seen)
{
	long value;
	int i;

	for (i = 0; i < 200; i++)
		ASSERT_EQ(self->cookie, result_of(self->result));
	ASSERT_EQ(1, write(self->fds[1], "x", 1));
	while ((value = result_of(self->result)) == self->cookie)
		sched_yield();
	EXPECT_EQ(1, value);
}

TEST_F(word, final_value_carries_the_data)
{
	ASSERT_EQ(1, write(self->fds[1], "q", 1));
	while (ASYNC_PENDING(result_of(self->result)))
		sched_yield();
	EXPECT_EQ('q', self->byte);
}

TEST(shared_with_another_process)
{
	long *result = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[2], go[2];
	pid_t child;
	char byte;

	ASSERT_NE(MAP_FAILED, result);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, pipe(go));
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		close(go[1]);
		if (async_submit(ASYNC_SUBMIT_OFFLOAD, result, __NR_read,
				 ARGS(fds[0], P(&byte), 1)) <= 0)
			_exit(1);
		/* Lives until the parent has seen enough. */
		_exit(read(go[0], &byte, 1) == 0 ? 0 : 2);
	}
	ASSERT_TRUE(becomes_true(ASYNC_PENDING(result_of(result))));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_TRUE(becomes_true(result_of(result) == 1));
	close(go[1]);
	EXPECT_EQ(0, status_of(child));
}

TEST(in_a_file)
{
	const size_t page = getpagesize();
	int fd = memfd_create("word", 0);
	long *result, stored, cookie;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, page));
	result = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, result);
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, result, __NR_getppid, ARGS(0));
	ASSERT_EQ(getppid(), final_value(cookie, result));
	ASSERT_EQ(sizeof(stored), pread(fd, &stored, sizeof(stored), 0));
	EXPECT_EQ(getppid(), stored);
}

TEST(beyond_the_end_of_a_file_is_efault)
{
	const size_t page = getpagesize();
	int fd = memfd_create("short", 0);
	char byte;
	int fds[2];
	long *result;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pipe2(fds, O_NONBLOCK));
	result = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, result);
	EXPECT_EQ(-EFAULT, async_submit(0, result, __NR_write, ARGS(fds[1], P("x"), 1)));
	EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, result, __NR_write,
					ARGS(fds[1], P("x"), 1)));
	EXPECT_EQ(-1, read(fds[0], &byte, 1));
}

TEST(read_only_mapping_of_a_file_is_efault)
{
	const size_t page = getpagesize();
	int fd = memfd_create("read_only", 0);
	long *result;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, page));
	result = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, result);
	EXPECT_EQ(-EFAULT, async_submit(0, result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(-EFAULT, async_submit(ASYNC_SUBMIT_OFFLOAD, result, __NR_getppid, ARGS(0)));
	EXPECT_EQ(0, *result);
}

TEST(inline_call_that_unmaps_its_own_word_loses_the_value)
{
	const size_t page = getpagesize();
	long *result = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	long cookie;

	ASSERT_NE(MAP_FAILED, result);
	EXPECT_EQ(0, async_submit(0, result, __NR_munmap, ARGS(P(result), page)));
	EXPECT_EQ(-1, mprotect(result, page, PROT_READ));

	result = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, result);
	cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, result, __NR_munmap, ARGS(P(result), page));
	ASSERT_LT(0, cookie);
	EXPECT_EQ(0, wait_for_async(0, cookie, &deadline));
}

TEST(one_word_for_several_calls_ends_final)
{
	long result = UNTOUCHED, last = 0;
	int i;

	for (i = 0; i < 20; i++) {
		last = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));
		ASSERT_LT(0, last);
		ASSERT_EQ(0, wait_for_async(0, last, &deadline));
		ASSERT_EQ(getppid(), result_of(&result));
	}
}

TEST_HARNESS_MAIN
