// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the guest: mounts what fstab lists, names the machine, brings its network up, starts
 * what the rig talks to, and reaps orphans for ever.
 *
 * It says "rig: ready" on the console once an sshd has the session line, a virtio port, and callers
 * over the network get one each; "rig: no session line" where there is no port, "rig: nobody can log
 * in" where there is no network either. On a board (images/board/init.c) there is the network only,
 * of which the kernel's command line tells: rig_net=MAC,ADDRESS,NETMASK,GATEWAY (the last may be
 * empty). One program, because each process that a script would start
 * costs some 30 ms under emulation. What else fails is said on standard error, which is the console,
 * and does not keep the rest from being done, for a kernel under test need not have all of these; a
 * line of fstab marked nofail fails silently.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPTIONS 256

/* On QEMU's user network; nothing but the rig is reached through it. */
#define ADDRESS "10.0.2.15"
#define NETMASK "255.255.255.0"
#define GATEWAY "10.0.2.2"

/* A board's, on the kernel's command line, and so in our environment; how long a card may take. */
#define BOARD_NET "rig_net"
#define CARD_MS 30000

#define SESSION_PORT "/dev/vport0p1"
#define RENEWAL_PORT "/dev/vport0p2"
#define SSH 22
#define BACKLOG 16
#define WAIT_MS 1000
#define STEP_MS 5
#define PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static void failed(const char *what)
{
	fprintf(stderr, "init: %s: %s\n", what, strerror(errno));
}

/* What of the options is the file system's own: all but words for mount(8). */
static void own_options(const struct mntent *entry, char *kept, size_t size)
{
	char *all = strdup(entry->mnt_opts), *rest = all, *word;

	*kept = '\0';
	while (all && (word = strsep(&rest, ","))) {
		if (!strcmp(word, "nofail") || !strcmp(word, "defaults") || !strncmp(word, "X-", 2))
			continue;
		if (*kept)
			strncat(kept, ",", size - strlen(kept) - 1);
		strncat(kept, word, size - strlen(kept) - 1);
	}
	free(all);
}

static void mount_entry(const struct mntent *entry)
{
	char options[OPTIONS];

	own_options(entry, options, sizeof(options));
	if (hasmntopt(entry, "X-mount.mkdir"))
		mkdir(entry->mnt_dir, 0755);
	if (mount(entry->mnt_fsname, entry->mnt_dir, entry->mnt_type, 0, options) &&
	    !hasmntopt(entry, "nofail"))
		failed(entry->mnt_dir);
}

/* /proc, or all the others; the root is mounted already. */
static void mount_all(bool proc)
{
	FILE *table = setmntent("/etc/fstab", "r");
	const struct mntent *entry;

	if (!table) {
		failed("/etc/fstab");
		return;
	}
	while ((entry = getmntent(table)))
		if (strcmp(entry->mnt_dir, "/") && !strcmp(entry->mnt_dir, "/proc") == proc)
			mount_entry(entry);
	endmntent(table);
}

static struct sockaddr address(const char *text)
{
	struct sockaddr_in found = { .sin_family = AF_INET };
	struct sockaddr plain;

	if (inet_pton(AF_INET, text, &found.sin_addr) != 1) {
		errno = EINVAL;
		failed(text);
	}
	memcpy(&plain, &found, sizeof(plain));
	return plain;
}

static void bring_up(int fd, const char *name)
{
	struct ifreq request = { 0 };

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	request.ifr_flags = IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		failed(name);
}

static void add_route(int fd, const char *gateway)
{
	struct rtentry route = {
		.rt_dst = address("0.0.0.0"),
		.rt_genmask = address("0.0.0.0"),
		.rt_gateway = address(gateway),
		.rt_flags = RTF_UP | RTF_GATEWAY,
	};

	if (ioctl(fd, SIOCADDRT, &route))
		failed(gateway);
}

/* gateway: "" for none. */
static void bring_network_up(const char *name, const char *own, const char *mask,
			     const char *gateway)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	if (fd < 0) {
		failed("socket");
		return;
	}
	bring_up(fd, "lo");
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	request.ifr_addr = address(own);
	if (ioctl(fd, SIOCSIFADDR, &request))
		failed(own);
	request.ifr_netmask = address(mask);
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		failed(mask);
	bring_up(fd, name);
	if (*gateway)
		add_route(fd, gateway);
	close(fd);
}

static bool has_hardware_address(int fd, const char *name, const char *wanted)
{
	struct ifreq request = { 0 };
	unsigned char *own = (unsigned char *)request.ifr_hwaddr.sa_data;
	char found[18];

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &request))
		return false;
	snprintf(found, sizeof(found), "%02x:%02x:%02x:%02x:%02x:%02x", own[0], own[1], own[2],
		 own[3], own[4], own[5]);
	return !strcasecmp(found, wanted);
}

/* Cards are found in their own time, and named in any order. */
static bool card_found(const char *wanted, char name[IFNAMSIZ])
{
	const struct timespec step = { .tv_nsec = STEP_MS * 1000000 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool found = false;

	for (int ms = 0; fd >= 0 && !found && ms < CARD_MS; ms += STEP_MS) {
		struct if_nameindex *all = if_nameindex();

		for (int at = 0; all && all[at].if_index && !found; at++) {
			found = has_hardware_address(fd, all[at].if_name, wanted);
			if (found)
				strcpy(name, all[at].if_name);
		}
		if (all)
			if_freenameindex(all);
		if (!found)
			nanosleep(&step, NULL);
	}
	if (fd >= 0)
		close(fd);
	return found;
}

/* A board's network: rig_net's words. Whether it has a card for them. */
static bool bring_board_up(const char *words)
{
	char all[128], name[IFNAMSIZ], *rest = all, *part[4] = { 0 };

	snprintf(all, sizeof(all), "%s", words);
	for (int at = 0; at < 4; at++)
		part[at] = strsep(&rest, ",");
	if (!part[3]) {
		errno = EINVAL;
		failed(BOARD_NET);
	} else if (!card_found(part[0], name)) {
		errno = ENODEV;
		failed(part[0]);
	} else {
		bring_network_up(name, part[1], part[2], part[3]);
		return true;
	}
	return false;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ssize_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != size)
		failed(path);
	if (fd >= 0)
		close(fd);
}

static void name_machine(void)
{
	char name[64] = "", id[34];
	unsigned char bytes[16];
	FILE *file = fopen("/etc/hostname", "r");

	if (!file || !fgets(name, sizeof(name), file))
		failed("/etc/hostname");
	if (file)
		fclose(file);
	name[strcspn(name, "\n")] = '\0';
	if (sethostname(name, strlen(name)))
		failed("sethostname");
	if (getrandom(bytes, sizeof(bytes), GRND_INSECURE) != sizeof(bytes)) {
		failed("getrandom");
		return;
	}
	for (int i = 0; i < 16; i++)
		sprintf(id + 2 * i, "%02x", bytes[i]);
	strcat(id, "\n");
	write_file("/etc/machine-id", id);
}

/* A program; io: its standard input and output, -1 for ours. SIGCHLD is blocked only here. */
static bool started(char *const *words, char *const *variables, int io)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none;
	pid_t child;

	sigemptyset(&none);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawn_file_actions_init(&files);
	if (io >= 0) {
		posix_spawn_file_actions_adddup2(&files, io, STDIN_FILENO);
		posix_spawn_file_actions_adddup2(&files, io, STDOUT_FILENO);
	}
	errno = posix_spawn(&child, *words, &files, &attributes, words, variables);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	if (!errno)
		return true;
	failed(*words);
	return false;
}

/* The driver adds ports in its own time; a kernel without it never does. */
static int open_port(const char *path)
{
	const struct timespec step = { .tv_nsec = STEP_MS * 1000000 };
	int port = -1;

	for (int ms = 0; port < 0 && ms < WAIT_MS; ms += STEP_MS) {
		port = open(path, O_RDWR | O_CLOEXEC);
		if (port < 0 && errno == ENOENT)
			nanosleep(&step, NULL);
		else if (port < 0)
			break;
	}
	if (port < 0)
		failed(path);
	return port;
}

/* sshd as inetd starts it, for one session (sshd.so.c). No passwords, no forwarding, one host key. */
static bool serve(int io)
{
	char *const sshd[] = {
		"/usr/sbin/dropbear", "-i", "-s", "-j", "-k", "-m", "-W", "1048576",
		"-r", "/etc/dropbear/host_key", NULL,
	};
	char *const preloaded[] = { PATH, "LD_PRELOAD=/usr/lib/rig/sshd.so", NULL };

	return started(sshd, preloaded, io);
}

/*
 * The first session's sshd says its version and its offer for the key exchange before anybody asks:
 * a machine that is saved then has that behind it.
 */
static bool serve_line(void)
{
	int port = open_port(SESSION_PORT);
	bool served = port >= 0 && serve(port);

	if (port >= 0)
		close(port);
	return served;
}

/* All others come over the network. */
static int listening(void)
{
	const struct sockaddr_in all = { .sin_family = AF_INET, .sin_port = htons(SSH) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, (const struct sockaddr *)&all, sizeof(all)) || listen(fd, BACKLOG)) {
		failed("port 22");
		return -1;
	}
	return fd;
}

static void serve_caller(int listener)
{
	int caller = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (caller < 0)
		return;	/* has hung up already */
	serve(caller);
	close(caller);
}

static void tell(const char *words)
{
	write_file("/dev/kmsg", words);
}

static void on_child(int signal)
{
	(void)signal;	/* it only has to end the waiting */
}

/* PID 1 must never end. SIGCHLD is blocked but while we wait. */
static void stay(int listener)
{
	struct pollfd calls = { .fd = listener, .events = POLLIN };
	sigset_t none;

	sigemptyset(&none);
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (ppoll(&calls, 1, NULL, &none) > 0)
			serve_caller(listener);
	}
}

/* Longest things first: sshd on the line gets ready, and keys are exchanged, while we go on. */
int main(void)
{
	char *const renew[] = { "/usr/lib/rig/renew", RENEWAL_PORT, NULL };
	char *const environment[] = { PATH, "HOME=/root", "LANG=C.UTF-8", NULL };
	const char *board = getenv(BOARD_NET);
	sigset_t child;
	int listener;
	bool line, card = true;

	signal(SIGCHLD, on_child);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);

	mount_all(true);
	/* The kernel must not sacrifice sshd when a test exhausts memory; sessions set this back. */
	write_file("/proc/self/oom_score_adj", "-1000\n");
	line = !board && serve_line();
	mount_all(false);
	name_machine();
	if (board)
		card = bring_board_up(board);
	else
		bring_network_up("eth0", ADDRESS, NETMASK, GATEWAY);
	listener = listening();
	/* A machine that is saved and restored is renewed over a port of its own. */
	if (!board)
		started(renew, environment, -1);
	if (!line && !board)
		tell("<4>rig: no session line\n");
	tell(line || (card && listener >= 0) ? "rig: ready\n" : "rig: nobody can log in\n");
	stay(listener);
}
