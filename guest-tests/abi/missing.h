/* SPDX-License-Identifier: GPL-2.0 */
/* Memory that is not there: a call that touches it cannot go on until it is. */
#ifndef MISSING_H
#define MISSING_H

#include <linux/userfaultfd.h>

#include "handover.h"

/* A page that is not there until it is given: who touches it in the kernel waits. */
struct missing {
	int fd;
	char *page;
};

static inline const char *make_missing(struct missing *m)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	const long size = getpagesize();

	m->fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	CHECK(m->fd >= 0);
	m->page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(m->page != MAP_FAILED);
	CHECK_EQ(0, ioctl(m->fd, UFFDIO_API, &api));
	range.range.start = P(m->page);
	range.range.len = size;
	CHECK_EQ(0, ioctl(m->fd, UFFDIO_REGISTER, &range));
	return NULL;
}

/* Does somebody wait for it? */
static inline bool page_is_waited_for(const struct missing *m)
{
	struct pollfd entry = { .fd = m->fd, .events = POLLIN };

	return poll(&entry, 1, 0) == 1;
}

static inline const char *give_missing_text(struct missing *m, const char *text)
{
	static __thread char content[4096] __attribute__((aligned(4096)));
	struct uffdio_copy copy = {
		.dst = P(m->page),
		.src = P(content),
		.len = sizeof(content),
	};

	strcpy(content, text);
	CHECK_EQ(0, ioctl(m->fd, UFFDIO_COPY, &copy));
	return NULL;
}

static inline const char *give_missing(struct missing *m)
{
	return give_missing_text(m, "content");
}

static inline void drop_missing(struct missing *m)
{
	close(m->fd);
	munmap(m->page, getpagesize());
}

#endif /* MISSING_H */
