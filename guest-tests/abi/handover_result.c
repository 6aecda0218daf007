// SPDX-License-Identifier: GPL-2.0
/*
 * The result word of a call that was handed over: wherever it lies and whatever becomes of it,
 * the call ends, and its value is stored once, or lost.
 */
#include <sys/syscall.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* A read of an empty pipe with its result word in a page of its own. */
struct apart {
	long *result;
	long cookie;
	size_t page;
	int fds[2];
	char byte;
};

static const char *submit_apart(struct apart *a)
{
	long handed_over = counter("handed_over");

	a->byte = 0;
	a->page = getpagesize();
	CHECK_EQ(0, pipe(a->fds));
	a->cookie = async_submit(0, a->result, __NR_read, ARGS(a->fds[0], P(&a->byte), 1));
	CHECK(is_cookie(a->cookie));
	CHECK_EQ(handed_over + 1, counter("handed_over"));
	CHECK_EQ(a->cookie, result_of(a->result));
	return NULL;
}

static const char *begin_apart(struct apart *a)
{
	/* Not touched before: the kernel brings it in, to see whether it is writable. */
	a->result = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(a->result != MAP_FAILED);
	return submit_apart(a);
}

/* The call ends as usual, whatever its word has become. */
static const char *end_apart(struct apart *a)
{
	CHECK_EQ(1, write(a->fds[1], "r", 1));
	CHECK_EQ(0, wait_for_async(0, a->cookie, &deadline));
	CHECK_EQ('r', a->byte);
	CHECK_EQ(0, wait_for_async(0, 0, &no_time));
	CHECK_EQ(-ENOENT, async_cancel(0, a->cookie));
	CHECK_EQ(0, counter("outstanding"));
	close(a->fds[0]);
	close(a->fds[1]);
	return hand_over_once();
}

IN_EITHER_THREAD(unmapped)
{
	struct apart a;
	int i;

	for (i = 0; i < 5; i++) {
		TRY(begin_apart(&a));
		CHECK_EQ(0, munmap(a.result, a.page));
		TRY(end_apart(&a));
	}
	return NULL;
}

IN_EITHER_THREAD(read_only)
{
	struct apart a;
	int i;

	for (i = 0; i < 5; i++) {
		TRY(begin_apart(&a));
		CHECK_EQ(0, mprotect(a.result, a.page, PROT_READ));
		TRY(end_apart(&a));
		CHECK_EQ(a.cookie, result_of(a.result));
		CHECK_EQ(0, munmap(a.result, a.page));
	}
	return NULL;
}

IN_EITHER_THREAD(writable_again_in_time)
{
	struct apart a;

	TRY(begin_apart(&a));
	CHECK_EQ(0, mprotect(a.result, a.page, PROT_NONE));
	TRY(hand_over_once());
	CHECK_EQ(0, mprotect(a.result, a.page, PROT_READ | PROT_WRITE));
	TRY(end_apart(&a));
	CHECK_EQ(1, result_of(a.result));
	return NULL;
}

/* Another page at the same address: the word is an address, and takes the value. */
IN_EITHER_THREAD(mapped_anew)
{
	struct apart a;

	TRY(begin_apart(&a));
	CHECK(mmap(a.result, a.page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == a.result);
	CHECK_EQ(0, result_of(a.result));
	TRY(end_apart(&a));
	CHECK_EQ(1, result_of(a.result));
	return NULL;
}

/* Moved: the value does not follow. */
IN_EITHER_THREAD(moved_elsewhere)
{
	struct apart a;
	long *moved;

	TRY(begin_apart(&a));
	moved = mmap(NULL, a.page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(moved != MAP_FAILED);
	CHECK(mremap(a.result, a.page, a.page, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
	TRY(end_apart(&a));
	CHECK_EQ(a.cookie, result_of(moved));
	return NULL;
}

/* Memory that was given back is zero when it is read, and holds the value when that is there. */
IN_EITHER_THREAD(given_back)
{
	struct apart a;

	TRY(begin_apart(&a));
	CHECK_EQ(0, madvise(a.result, a.page, MADV_DONTNEED));
	TRY(end_apart(&a));
	CHECK_EQ(1, result_of(a.result));
	return NULL;
}

/* Of a file that became shorter: lost, and nobody is sent SIGBUS. */
IN_EITHER_THREAD(beyond_the_end_of_its_file)
{
	int fd = raw_call(__NR_memfd_create, "result", 0);
	struct apart a;

	CHECK(fd >= 0);
	CHECK_EQ(0, ftruncate(fd, getpagesize()));
	a.result = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(a.result != MAP_FAILED);
	TRY(submit_apart(&a));
	CHECK_EQ(0, ftruncate(fd, 0));
	return end_apart(&a);
}

/* --- of several --------------------------------------------------------------------------- */

/* Two calls with one word: it holds a cookie or a value of one of them, and a value at the end. */
IN_EITHER_THREAD(one_word_for_two_calls)
{
	long word, first, second, third;
	char bytes[2];
	int fds[2], i;

	CHECK_EQ(0, pipe(fds));
	for (i = 0; i < 5; i++) {
		long handed_over = counter("handed_over");

		first = async_submit(0, &word, __NR_read, ARGS(fds[0], P(bytes), 1));
		CHECK(is_cookie(first));
		CHECK_EQ(first, result_of(&word));
		second = async_submit(0, &word, __NR_read, ARGS(fds[0], P(bytes + 1), 1));
		CHECK(is_cookie(second));
		CHECK(first != second);
		CHECK_EQ(second, result_of(&word));
		CHECK_EQ(handed_over + 2, counter("handed_over"));
		/* One that is complete at once. */
		third = async_submit(0, &word, __NR_getppid, ARGS(0));
		CHECK_EQ(0, third);
		CHECK_EQ(getppid(), word);
		CHECK_EQ(2, write(fds[1], "xy", 2));
		CHECK_EQ(0, wait_for_async(0, first, &deadline));
		CHECK_EQ(0, wait_for_async(0, second, &deadline));
		CHECK_EQ(1, result_of(&word));
	}
	return NULL;
}

/* The word is what the call writes to: the value comes last. */
IN_EITHER_THREAD(word_that_the_call_writes_to)
{
	long word, cookie, handed_over = counter("handed_over");
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	cookie = async_submit(0, &word, __NR_read, ARGS(fds[0], P(&word), sizeof(word)));
	CHECK(is_cookie(cookie));
	CHECK_EQ(cookie, result_of(&word));
	CHECK_EQ(handed_over + 1, counter("handed_over"));
	CHECK_EQ(8, write(fds[1], "12345678", 8));
	CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
	CHECK_EQ(8, result_of(&word));
	return NULL;
}

/* Not on a boundary of its size: across two pages even. */
IN_EITHER_THREAD(word_across_two_pages)
{
	char *pages = mmap(NULL, 2 * getpagesize(), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *word = pages + getpagesize() - 3;
	long cookie, value, handed_over = counter("handed_over");
	char byte = 0;
	int fds[2];

	CHECK(pages != MAP_FAILED);
	CHECK_EQ(0, pipe(fds));
	cookie = async_submit(0, word, __NR_read, ARGS(fds[0], P(&byte), 1));
	CHECK(is_cookie(cookie));
	memcpy(&value, word, sizeof(value));
	CHECK_EQ(cookie, value);
	CHECK_EQ(handed_over + 1, counter("handed_over"));
	CHECK_EQ(1, write(fds[1], "p", 1));
	CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
	memcpy(&value, word, sizeof(value));
	CHECK_EQ(1, value);
	/* Half of it gone: lost. */
	cookie = async_submit(0, word, __NR_read, ARGS(fds[0], P(&byte), 1));
	CHECK(is_cookie(cookie));
	CHECK_EQ(handed_over + 2, counter("handed_over"));
	CHECK_EQ(0, munmap(pages + getpagesize(), getpagesize()));
	CHECK_EQ(1, write(fds[1], "q", 1));
	CHECK_EQ(0, wait_for_async(0, cookie, &deadline));
	CHECK_EQ('q', byte);
	/* And nothing is submitted any more with such a word. */
	CHECK_EQ(-EFAULT, async_submit(0, word, __NR_getppid, ARGS(0)));
	return hand_over_once();
}

/* --- of two processes --------------------------------------------------------------------- */

struct shared {
	int at;
	long word;
};

static struct shared *shared;

static const char *waits_for_the_word(long cookie)
{
	CHECK_EQ(cookie, result_of(&shared->word));
	reach(&shared->at, 1);
	/* Nobody but the parent can wait for it by its cookie. */
	CHECK_EQ(-EINVAL, wait_for_async(0, cookie, &no_time));
	CHECK(becomes_true(result_of(&shared->word) != cookie));
	CHECK_EQ(1, result_of(&shared->word));
	return NULL;
}

IN_EITHER_THREAD(shared_with_a_child)
{
	struct apart a;
	pid_t child;

	shared = share(sizeof(*shared));
	a.result = &shared->word;
	TRY(submit_apart(&a));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0)
		exit_fine(waits_for_the_word(a.cookie));
	CHECK(await(&shared->at, 1));
	TRY(end_apart(&a));
	CHECK_EQ(0, status_of(child));
	return NULL;
}

static const char *keeps_the_cookie(struct apart *a)
{
	CHECK(await(&shared->at, 1));
	CHECK_EQ(a->cookie, result_of(a->result));
	CHECK_EQ(0, a->byte);
	TRY(hand_over(3));
	CHECK_EQ(a->cookie, result_of(a->result));
	return NULL;
}

/* The copy that a child has of word and buffer is its own, and nothing is stored there. */
IN_EITHER_THREAD(copied_by_a_fork)
{
	struct apart a;
	pid_t child;

	shared = share(sizeof(*shared));
	TRY(begin_apart(&a));
	child = fork_child();
	CHECK(child >= 0);
	if (child == 0)
		exit_fine(keeps_the_cookie(&a));
	TRY(end_apart(&a));
	CHECK_EQ(1, result_of(a.result));
	reach(&shared->at, 1);
	CHECK_EQ(0, status_of(child));
	return NULL;
}

/* A process that ends, or becomes another program, has no value stored any more. */
static const char *leaves_with_a_call(void)
{
	struct apart a;

	a.result = &shared->word;
	TRY(submit_apart(&a));
	return NULL;
}

static const char *word_keeps_the_cookie(body_fn leaves)
{
	shared = share(sizeof(*shared));
	TRY(run_in_child(gettid() != getpid(), leaves));
	CHECK(is_cookie(result_of(&shared->word)));
	return NULL;
}

IN_EITHER_THREAD(shared_with_a_process_that_has_ended)
{
	return word_keeps_the_cookie(leaves_with_a_call);
}

/* A call that is killed half way has a value, of which nobody gets to know either. */
static const char *leaves_in_the_middle_of_a_call(void)
{
	static char pages[2 * 4096];
	long cookie;
	int fds[2];

	CHECK_EQ(0, pipe(fds));
	CHECK_EQ(4096, fcntl(fds[1], F_SETPIPE_SZ, 4096));
	cookie = async_submit(0, &shared->word, __NR_write, ARGS(fds[1], P(pages), sizeof(pages)));
	CHECK(is_cookie(cookie));
	return NULL;
}

IN_EITHER_THREAD(shared_with_a_process_that_has_ended_half_way)
{
	return word_keeps_the_cookie(leaves_in_the_middle_of_a_call);
}

/* --- at any time -------------------------------------------------------------------------- */

static long *flickering;
static bool stop;

static const char *flickers(void)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK_EQ(0, mprotect(flickering, getpagesize(), PROT_READ));
		CHECK_EQ(0, mprotect(flickering, getpagesize(), PROT_READ | PROT_WRITE));
	}
	return NULL;
}

/* Another thread takes away the right to write again and again: -EFAULT, or what is usual. */
IN_EITHER_THREAD_TIMEOUT(writable_now_and_then, 300)
{
	static body_fn body = flickers;
	const char *trouble_seen = NULL;
	long handed_over = counter("handed_over"), cookie;
	void *found = "no value";
	pthread_t thread;
	char byte;
	int fds[2], i, refused = 0;

	flickering = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(flickering != MAP_FAILED);
	CHECK_EQ(0, pipe(fds));
	stop = false;
	CHECK_EQ(0, pthread_create(&thread, NULL, run_body, &body));
	for (i = 0; i < times(1000, 100000) && !trouble_seen; i++) {
		cookie = async_submit(0, flickering, __NR_read, ARGS(fds[0], P(&byte), 1));
		if (cookie == -EFAULT) {
			refused++;
			continue;
		}
		byte = 0;
		if (!is_cookie(cookie))
			trouble_seen = trouble("submitted %ld", cookie);
		else if (write(fds[1], "f", 1) != 1 || wait_for_async(0, cookie, &deadline))
			trouble_seen = "it does not end";
		else if (byte != 'f')
			trouble_seen = "no data";
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	CHECK_EQ(0, pthread_join(thread, &found));
	TRY(trouble_seen);
	CHECK_EQ(handed_over + i - refused, counter("handed_over") + counter("fell_back"));
	return found;
}

TEST_HARNESS_MAIN
