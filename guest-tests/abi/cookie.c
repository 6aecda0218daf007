// SPDX-License-Identifier: GPL-2.0
/* Cookies: their form, that none is used twice, and what a wrong one gets. */
#include "calls.h"
#include "../kselftest_harness.h"

enum { MANY = 1000 };

/* One call that ends at once; its cookie. */
static long finished_call(void)
{
	long result = UNTOUCHED;
	long cookie = async_submit(ASYNC_SUBMIT_OFFLOAD, &result, __NR_getppid, ARGS(0));

	return final_value(cookie, &result) == getppid() ? cookie : -EPROTO;
}

static int compare(const void *a, const void *b)
{
	const long *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int count_duplicates(long *cookies, int n)
{
	int i, duplicates = 0;

	qsort(cookies, n, sizeof(*cookies), compare);
	for (i = 1; i < n; i++)
		duplicates += cookies[i] == cookies[i - 1];
	return duplicates;
}

TEST(bit_63_is_clear_and_bit_62_set)
{
	int i;

	for (i = 0; i < 100; i++) {
		long cookie = finished_call();

		ASSERT_LT(0, cookie);
		ASSERT_EQ(1, (unsigned long)cookie >> 62);
	}
}

TEST(pending_macro_tests_the_two_bits)
{
	EXPECT_TRUE(ASYNC_PENDING(1L << 62));
	EXPECT_TRUE(ASYNC_PENDING(LONG_MAX));
	EXPECT_FALSE(ASYNC_PENDING(0L));
	EXPECT_FALSE(ASYNC_PENDING((1L << 62) - 1));
	EXPECT_FALSE(ASYNC_PENDING(-1L));
	EXPECT_FALSE(ASYNC_PENDING(LONG_MIN));
	EXPECT_FALSE(ASYNC_PENDING((long)(3UL << 62)));
}

TEST(none_is_used_twice_in_a_process)
{
	static long cookies[MANY];
	int i;

	for (i = 0; i < MANY; i++) {
		cookies[i] = finished_call();
		ASSERT_LT(0, cookies[i]);
	}
	EXPECT_EQ(0, count_duplicates(cookies, MANY));
}

static void *collect(void *argument)
{
	long *cookies = argument;
	int i;

	for (i = 0; i < MANY / 4; i++)
		cookies[i] = finished_call();
	return NULL;
}

TEST(none_is_used_twice_by_threads)
{
	static long cookies[MANY];
	pthread_t threads[4];
	int i;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, collect, &cookies[i * MANY / 4]));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
	for (i = 0; i < MANY; i++)
		ASSERT_LT(0, cookies[i]);
	EXPECT_EQ(0, count_duplicates(cookies, MANY));
}

TEST(parent_and_children_share_none)
{
	enum { EACH = 50, PROCESSES = 4 };
	long *cookies = mmap(NULL, EACH * PROCESSES * sizeof(*cookies), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, process;
	pid_t child;

	ASSERT_NE(MAP_FAILED, cookies);
	/* In turn: the parent, a child, the parent again, another child. */
	for (process = 0; process < PROCESSES; process++) {
		child = process % 2 ? fork_child() : 0;
		ASSERT_LE(0, child);
		if (child == 0) {
			for (i = 0; i < EACH; i++)
				cookies[process * EACH + i] = finished_call();
			if (process % 2)
				_exit(0);
		} else {
			ASSERT_EQ(0, status_of(child));
		}
	}
	for (i = 0; i < EACH * PROCESSES; i++)
		ASSERT_LT(0, cookies[i]);
	EXPECT_EQ(0, count_duplicates(cookies, EACH * PROCESSES));
}

TEST(malformed_is_einval)
{
	long given = finished_call();
	const long malformed[] = {
		-1, LONG_MIN, 1, 4096, (1L << 62) - 1, given & ~(1UL << 62), given | 1UL << 63,
		-given,
	};
	size_t i;

	ASSERT_LT(0, given);
	for (i = 0; i < ARRAY_SIZE(malformed); i++) {
		EXPECT_EQ(-EINVAL, wait_for_async(0, malformed[i], &no_time))
			TH_LOG("cookie %#lx", malformed[i]);
		EXPECT_EQ(-EINVAL, async_cancel(0, malformed[i]))
			TH_LOG("cookie %#lx", malformed[i]);
	}
	EXPECT_EQ(-EINVAL, async_cancel(0, 0));
}

TEST(never_given_is_einval)
{
	long given = finished_call();
	const long wrong[] = { given + 1, given + 4096, given ^ 1UL << 61, LONG_MAX };
	size_t i;

	ASSERT_LT(0, given);
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		EXPECT_EQ(-EINVAL, wait_for_async(0, wrong[i], &no_time))
			TH_LOG("cookie %#lx", wrong[i]);
		EXPECT_EQ(-EINVAL, async_cancel(0, wrong[i]))
			TH_LOG("cookie %#lx", wrong[i]);
	}
}

TEST(process_that_never_submitted_was_given_none)
{
	EXPECT_EQ(-EINVAL, wait_for_async(0, 1L << 62, &no_time));
	EXPECT_EQ(-EINVAL, wait_for_async(0, 1L << 62 | 1, &no_time));
	EXPECT_EQ(-EINVAL, async_cancel(0, 1L << 62 | 1));
}

TEST(cookie_of_a_finished_call_stays_known)
{
	long first = finished_call();
	int i;

	ASSERT_LT(0, first);
	for (i = 0; i < MANY; i++)
		ASSERT_LT(0, finished_call());
	EXPECT_EQ(0, wait_for_async(0, first, &no_time));
	EXPECT_EQ(-ENOENT, async_cancel(0, first));
}

TEST(cookie_of_another_process_is_einval)
{
	long *shared = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child;

	ASSERT_NE(MAP_FAILED, shared);
	child = fork_child();
	ASSERT_LE(0, child);
	if (child == 0) {
		*shared = finished_call();
		_exit(0);
	}
	ASSERT_EQ(0, status_of(child));
	ASSERT_LT(0, *shared);
	EXPECT_EQ(-EINVAL, wait_for_async(0, *shared, &no_time));
	EXPECT_EQ(-EINVAL, async_cancel(0, *shared));
	/* Nor once this process has some of its own. */
	ASSERT_LT(0, finished_call());
	EXPECT_EQ(-EINVAL, wait_for_async(0, *shared, &no_time));
}

TEST_HARNESS_MAIN
