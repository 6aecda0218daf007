// SPDX-License-Identifier: GPL-2.0
/*
 * Runs one command of a session: run TAG DIRECTORY NAME=VALUE... -- PROGRAM ARGUMENT...
 *
 * What the shell script in rig/session.py does where this program is not there,
 * in one process instead of four: each costs some 30 ms in a machine that was
 * just restored under emulation. The program gets a session and process group
 * of its own, whose number is left in /run/rig-TAG; a working directory
 * (DIRECTORY, "" for none); an environment; and no protection from the
 * out-of-memory killer, which sshd has. The exit code is its own, or 128 + n
 * when signal n ended it; 126 and 127 as a shell has them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t size = strlen(text);

	if (fd < 0)
		return -1;
	if (write(fd, text, size) != size) {
		close(fd);
		return -1;
	}
	return close(fd);
}

static void leave(int code, const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(code);
}

/* A group leader cannot make a session: then a child does, and we wait for it. */
static void enter_session(void)
{
	pid_t child;
	int status;

	if (setsid() >= 0)
		return;
	child = fork();
	if (child < 0)
		leave(126, "fork");
	if (!child) {
		setsid();
		return;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	char path[128], number[16];
	pid_t child;
	int status;
	int at = 3;

	if (argc < 5)
		return 126;
	enter_session();
	snprintf(path, sizeof(path), "/run/rig-%s", argv[1]);
	snprintf(number, sizeof(number), "%d\n", getpid());
	if (write_file(path, number))
		leave(126, path);
	if (write_file("/proc/self/oom_score_adj", "0\n"))
		leave(126, "oom_score_adj");
	if (argv[2][0] && chdir(argv[2]))
		leave(126, argv[2]);
	while (at < argc && strcmp(argv[at], "--"))
		putenv(argv[at++]);
	at++;
	if (at >= argc)
		return 126;

	child = fork();
	if (child < 0)
		leave(126, "fork");
	if (!child) {
		execvp(argv[at], argv + at);
		leave(errno == ENOENT ? 127 : 126, argv[at]);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return 126;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
