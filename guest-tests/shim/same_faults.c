// SPDX-License-Identifier: GPL-2.0
/*
 * Calls that sleep where they touch the memory of the program, which is not there yet: nearly
 * every call may. Another thread provides it (userfaultfd).
 */
#include <linux/futex.h>
#include <linux/stat.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/xattr.h>

#include "same.h"

#define PAGE	4096

static char *missing;
static int faults;
/* What is in the page when it comes. */
static char content[PAGE] __attribute__((aligned(PAGE)));

static void provide(void *unused)
{
	struct uffdio_copy copy = {
		.dst = (unsigned long)missing, .src = (unsigned long)content, .len = PAGE,
	};
	struct uffd_msg message;

	NEEDS(read(faults, &message, sizeof(message)) == sizeof(message));
	NEEDS(message.event == UFFD_EVENT_PAGEFAULT);
	NEEDS(!ioctl(faults, UFFDIO_COPY, &copy));
}

static void prepare(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	missing = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (unsigned long)missing;
	range.range.len = PAGE;
	faults = syscall(__NR_userfaultfd, O_CLOEXEC);
	NEEDS(missing != MAP_FAILED && faults >= 0);
	NEEDS(!ioctl(faults, UFFDIO_API, &api) && !ioctl(faults, UFFDIO_REGISTER, &range));
}

static unsigned int sum(const void *at, size_t size)
{
	const unsigned char *byte = at;
	unsigned int value = 0;

	while (size--)
		value = 31 * value + *byte++;
	return value;
}

/* A call that writes to the page: what it returns, and what is there then. */
#define SHOW_WRITING(nr, size, ...)					\
SAME(nr##_to_memory_that_is_missing, __NR_##nr)				\
{									\
	prepare();							\
	SHOW_WOKEN(provide, 0, raw(__NR_##nr, __VA_ARGS__));		\
	SHOW(sum(missing, size));					\
}

/* The same where what is written is different every time. */
#define SHOW_RUNNING(nr, ...)						\
SAME(nr##_to_memory_that_is_missing, __NR_##nr)				\
{									\
	prepare();							\
	SHOW_WOKEN(provide, 0, raw(__NR_##nr, __VA_ARGS__) >= 0);	\
	SHOW(sum(missing, 64) != 0);					\
}

/* A call that reads the page, which holds what is given before. */
#define SHOW_READING(nr, text, ...)					\
SAME(nr##_of_memory_that_is_missing, __NR_##nr)				\
{									\
	strcpy(content, text);						\
	prepare();							\
	SHOW_WOKEN(provide, 0, raw(__NR_##nr, __VA_ARGS__));		\
}

SHOW_WRITING(uname, sizeof(struct utsname), missing)
SHOW_WRITING(getcwd, 2, missing, 100L)
SHOW_WRITING(stat, 24, "/", missing)
SHOW_WRITING(lstat, 24, "/etc", missing)
SHOW_WRITING(newfstatat, 24, AT_FDCWD, "/etc", missing, 0)
SHOW_WRITING(statx, 32, AT_FDCWD, "/", 0, STATX_MODE, missing)
SHOW_WRITING(statfs, 16, "/proc", missing)
SHOW_WRITING(readlink, 4, "/proc/self/root", missing, 100L)
SHOW_WRITING(readlinkat, 4, AT_FDCWD, "/proc/self/root", missing, 100L)
SHOW_WRITING(getrlimit, sizeof(struct rlimit), RLIMIT_CORE, missing)
SHOW_WRITING(prlimit64, sizeof(struct rlimit), 0, RLIMIT_NOFILE, NULL, missing)
SHOW_WRITING(getresuid, sizeof(uid_t), missing, missing + 8, missing + 16)
SHOW_WRITING(getresgid, sizeof(gid_t), missing, missing + 8, missing + 16)
SHOW_WRITING(clock_getres, sizeof(struct timespec), CLOCK_MONOTONIC, missing)
SHOW_WRITING(getitimer, sizeof(struct itimerval), ITIMER_REAL, missing)
SHOW_WRITING(pipe, 0, missing)
SHOW_WRITING(pipe2, 0, missing, O_CLOEXEC)
SHOW_WRITING(socketpair, 0, AF_UNIX, SOCK_STREAM, 0, missing)
SHOW_WRITING(mincore, 1, content, (long)PAGE, missing)
SHOW_WRITING(getgroups, 4, 32, missing)
SHOW_RUNNING(clock_gettime, CLOCK_MONOTONIC, missing)
SHOW_RUNNING(gettimeofday, missing, NULL)
SHOW_RUNNING(time, missing)
SHOW_RUNNING(sysinfo, missing)
SHOW_RUNNING(getrandom, missing, 64L, 0)
SHOW_RUNNING(getdents64, open("/proc", O_RDONLY | O_DIRECTORY), missing, (long)PAGE)

/* It may not have run for as long as a tick. */
SAME(times_to_memory_that_is_missing, __NR_times)
{
	prepare();
	SHOW_WOKEN(provide, 0, raw(__NR_times, missing) > 0);
}

SHOW_READING(access, "/etc", missing, R_OK)
SHOW_READING(faccessat, "/etc", AT_FDCWD, missing, R_OK)
SHOW_READING(chdir, "/etc", missing)
SHOW_READING(unlink, "/tmp/there is none", missing)
SHOW_READING(unlinkat, "/tmp/there is none", AT_FDCWD, missing, 0)
SHOW_READING(rmdir, "/tmp/there is none", missing)
SHOW_READING(mkdir, "/etc", missing, 0700)
SHOW_READING(rename, "/tmp/there is none", missing, "/tmp/other")
SHOW_READING(renameat2, "/tmp/there is none", AT_FDCWD, missing, AT_FDCWD, "/tmp/other", 0)
SHOW_READING(link, "/tmp/there is none", missing, "/tmp/other")
SHOW_READING(symlink, "/etc", "/tmp", missing)
SHOW_READING(chmod, "/tmp/there is none", missing, 0600)
SHOW_READING(chown, "/tmp/there is none", missing, 1, 1)
SHOW_READING(utimensat, "/tmp/there is none", AT_FDCWD, missing, NULL, 0)
SHOW_READING(setxattr, "/tmp/there is none", missing, "user.x", "y", 1L, 0)
SHOW_READING(getxattr, "/tmp/there is none", missing, "user.x", content, 1L)
SHOW_READING(listxattr, "/tmp/there is none", missing, content, 1L)
SHOW_READING(mknod, "/etc", missing, S_IFREG | 0600, 0)
SHOW_READING(umount2, "/etc", missing, 0)
SHOW_READING(inotify_add_watch, "/tmp/there is none", inotify_init(), missing, 1)

SAME(sum_of_what_is_written, __NR_write)
{
	char path[] = "/var/tmp/same.XXXXXX", seen[PAGE];
	int fd = mkstemp(path);

	NEEDS(fd >= 0 && !unlink(path));
	memset(content, 'w', PAGE);
	prepare();
	SHOW_WOKEN(provide, 0, raw(__NR_write, fd, missing, 3000L));
	SHOW(pread(fd, seen, sizeof(seen), 0));
	SHOW(sum(seen, 3000));
}

SAME(pread64_of_a_file, __NR_pread64)
{
	char path[] = "/var/tmp/same.XXXXXX";
	int fd = mkstemp(path);

	NEEDS(fd >= 0 && !unlink(path) && write(fd, "0123456789", 10) == 10);
	prepare();
	SHOW_WOKEN(provide, 0, raw(__NR_pread64, fd, missing, 100L, 3L));
	dprintf(STDOUT_FILENO, "%.7s\n", missing);
}

SAME(preadv_of_a_file, __NR_preadv)
{
	char path[] = "/var/tmp/same.XXXXXX";
	struct iovec vector = { };
	int fd = mkstemp(path);

	NEEDS(fd >= 0 && !unlink(path) && write(fd, "0123456789", 10) == 10);
	prepare();
	vector = (struct iovec){ missing, 4 };
	SHOW_WOKEN(provide, 0, raw(__NR_preadv, fd, &vector, 1, 5L, 0L));
	dprintf(STDOUT_FILENO, "%.4s\n", missing);
}

SAME(process_vm_readv_of_itself, __NR_process_vm_readv)
{
	struct iovec local = { }, remote = { };
	char seen[8] = "";

	strcpy(content, "content");
	prepare();
	local = (struct iovec){ seen, 8 };
	remote = (struct iovec){ missing, 8 };
	SHOW_WOKEN(provide, 0, raw(__NR_process_vm_readv, getpid(), &local, 1L, &remote, 1L, 0L));
	dprintf(STDOUT_FILENO, "%s\n", seen);
}

SAME(process_vm_writev_of_itself, __NR_process_vm_writev)
{
	struct iovec local = { }, remote = { };

	prepare();
	local = (struct iovec){ "written", 8 };
	remote = (struct iovec){ missing, 8 };
	SHOW_WOKEN(provide, 0, raw(__NR_process_vm_writev, getpid(), &local, 1L, &remote, 1L, 0L));
	dprintf(STDOUT_FILENO, "%s\n", missing);
}

SAME(futex_whose_word_is_missing, __NR_futex)
{
	prepare();
	SHOW_WOKEN(provide, 0, raw(__NR_futex, missing, FUTEX_WAIT, 1, NULL));
}

SAME(madvise_that_populates, __NR_madvise)
{
	prepare();
	/* MADV_POPULATE_WRITE: faults as if each page was written to. */
	SHOW_WOKEN(provide, 0, raw(__NR_madvise, missing, (long)PAGE, 23));
}

SAME(mlock_of_memory, __NR_mlock)
{
	prepare();
	SHOW_WOKEN(provide, 0, raw(__NR_mlock, missing, (long)PAGE));
}

TEST(fifty_calls_are_compared)
{
	TH_LOG("%d system calls", calls_compared());
	EXPECT_LE(50, calls_compared());
}

SAME_MAIN
