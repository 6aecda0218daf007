// SPDX-License-Identifier: GPL-2.0
/*
 * Runs one command of a session, and is root's login shell so that nothing else has to start:
 *
 *   run TAG DIRECTORY NAME=VALUE... -- PROGRAM ARGUMENT...
 *   run -c COMMAND
 *
 * The first form is what the shell script in rig/session.py does where this program is not there,
 * in two processes instead of five. The program gets a session and process group of its own, whose
 * number is left in /run/rig-TAG; a working directory (DIRECTORY, "" for none); an environment; and
 * no protection from the out-of-memory killer, which sshd has. The exit code is its own, or 128 + n
 * when signal n ended it; 126 and 127 as a shell has them.
 *
 * The second form is how sshd calls a login shell. Where COMMAND begins with the first form as
 * rig/session.py writes it, the shell's part of it is done here; everything else is /bin/sh's.
 *
 * In a machine that was just restored under emulation all code is slow once. So no stdio, and
 * vfork: a fork would copy page tables.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SELF
#define SELF "/usr/lib/rig/run"
#endif
#define FORM "[ -x " SELF " ] && exec " SELF " "
#define BARE "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-"

static void say(const char *words)
{
	if (write(STDERR_FILENO, words, strlen(words)) < 0)
		_exit(126);	/* nobody to tell */
}

static void leave(int code, const char *what)
{
	const char *why = strerror(errno);

	say(what);
	say(": ");
	say(why);
	say("\n");
	_exit(code);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != size || close(fd))
		leave(126, path);
}

/* The number at the end of a buffer of this size, as a line. */
static char *decimal(char *text, size_t size, unsigned int number)
{
	char *at = text + size - 1;

	*at = '\0';
	*--at = '\n';
	do
		*--at = '0' + number % 10;
	while (number /= 10);
	return at;
}

static int ended(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return 126;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A group leader cannot make a session: then a child does, and we wait for it. */
static void enter_session(void)
{
	pid_t child;

	if (setsid() >= 0)
		return;
	child = fork();
	if (child < 0)
		leave(126, "fork");
	if (child)
		_exit(ended(child));
	setsid();
}

static void leave_number(const char *tag)
{
	char path[128] = "/run/rig-", text[16];

	if (strlen(tag) > sizeof(path) - sizeof("/run/rig-")) {
		errno = ENAMETOOLONG;
		leave(126, tag);
	}
	write_file(strcat(path, tag), decimal(text, sizeof(text), getpid()));
}

static int start(char **program)
{
	pid_t child = vfork();

	if (child < 0)
		leave(126, "vfork");
	if (!child) {
		execvp(*program, program);
		leave(errno == ENOENT ? 127 : 126, *program);
	}
	return ended(child);
}

/* words: TAG DIRECTORY NAME=VALUE... -- PROGRAM ARGUMENT..., ended by NULL. */
static int run(char **words)
{
	const char *tag = words[0], *directory = tag ? words[1] : NULL;

	if (!directory)
		return 126;
	enter_session();
	leave_number(tag);
	write_file("/proc/self/oom_score_adj", "0\n");
	if (*directory && chdir(directory))
		leave(126, directory);
	setenv("SHELL", "/bin/sh", 1);	/* sshd has put us there */
	for (words += 2; *words && strcmp(*words, "--"); words++)
		putenv(*words);
	if (!*words || !*++words)
		return 126;
	return start(words);
}

/*
 * The words of a shell's command up to its first ";", if any, in place; false unless a shell would
 * make the same of it. Knows no more than what Python's shlex.join writes: words with one space
 * between them, of bare characters, '...' and, for an apostrophe, "'".
 */
static bool parse(char *text, char **word)
{
	char *to = text, *from, end;

	do {
		*word++ = to;
		for (from = text; *text && *text != ' ' && *text != ';'; text++) {
			if (*text == '\'') {
				while (*++text && *text != '\'')
					*to++ = *text;
				if (!*text)
					return false;
			} else if (!strncmp(text, "\"'\"", 3)) {
				*to++ = '\'';
				text += 2;
			} else if (strchr(BARE, *text)) {
				*to++ = *text;
			} else {
				return false;
			}
		}
		if (text == from)
			return false;
		end = *text;
		if (end)
			text++;
		*to++ = '\0';
	} while (end == ' ');
	*word = NULL;
	return true;
}

static int shell(char **argv)
{
	argv[0] = *argv[0] == '-' ? "-sh" : "sh";
	setenv("SHELL", "/bin/sh", 1);
	execv("/bin/sh", argv);
	leave(126, "/bin/sh");
	return 126;
}

static int command(char **argv)
{
	size_t size = strlen(argv[2]) + 1;
	char text[size], *words[size / 2 + 2];	/* each word takes two characters at least */

	if (strncmp(argv[2], FORM, strlen(FORM)))
		return shell(argv);
	memcpy(text, argv[2], size);
	return parse(text + strlen(FORM), words) ? run(words) : shell(argv);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "-c"))
		return command(argv);
	if (argc > 4)
		return run(argv + 1);
	return shell(argv);
}
