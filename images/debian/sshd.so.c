// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into the sshd of the session line, which is a virtio port: answers two questions of
 * dropbear otherwise than the C library does.
 *
 * Started as inetd would start it, dropbear asks for its peer's address; a port has none, and that
 * would be the end. And to seed its random numbers it reads much of /proc after it has called
 * getrandom(), before the first session and again in every child: under emulation that takes longer
 * than the rest of the child's start, and adds nothing to 32 bytes from the kernel.
 *
 * A session's program does not inherit this: dropbear clears the environment before it starts one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int named(long number, int fd, struct sockaddr *address, socklen_t *size)
{
	int result = syscall(number, fd, address, size);

	if (result && errno == ENOTSOCK && *size >= sizeof(address->sa_family)) {
		address->sa_family = AF_UNIX;
		*size = sizeof(address->sa_family);	/* unix(7): unnamed */
		return 0;
	}
	return result;
}

int getpeername(int fd, struct sockaddr *address, socklen_t *size)
{
	return named(SYS_getpeername, fd, address, size);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
	return named(SYS_getsockname, fd, address, size);
}

int open(const char *path, int flags, ...)
{
	mode_t mode = 0;
	va_list rest;

	if (!strncmp(path, "/proc/", 6)) {
		errno = ENOENT;
		return -1;
	}
	if (flags & O_CREAT) {
		va_start(rest, flags);
		mode = va_arg(rest, mode_t);
		va_end(rest);
	}
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
