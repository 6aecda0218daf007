// SPDX-License-Identifier: GPL-2.0
/*
 * Mounts what fstab lists, brings the network up: setup ADDRESS NETMASK GATEWAY
 *
 * What `mount -a` and `ip` would do, without the 0.1 s that each of them takes
 * to start under emulation. Runs from init, once. What fails is said on
 * standard error and does not keep the rest from being done, for a kernel under
 * test need not have all of these; a line of fstab marked nofail fails silently.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <mntent.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPTIONS 256

static int status;

static void failed(const char *what)
{
	fprintf(stderr, "setup: %s: %s\n", what, strerror(errno));
	status = 1;
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

/* The root is mounted already. */
static void mount_all(void)
{
	FILE *table = setmntent("/etc/fstab", "r");
	const struct mntent *entry;

	if (!table) {
		failed("/etc/fstab");
		return;
	}
	while ((entry = getmntent(table)))
		if (strcmp(entry->mnt_dir, "/"))
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

static void network(const char *own, const char *mask, const char *gateway)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "eth0" };
	struct rtentry route = {
		.rt_dst = address("0.0.0.0"),
		.rt_genmask = address("0.0.0.0"),
		.rt_gateway = address(gateway),
		.rt_flags = RTF_UP | RTF_GATEWAY,
	};

	if (fd < 0) {
		failed("socket");
		return;
	}
	bring_up(fd, "lo");
	request.ifr_addr = address(own);
	if (ioctl(fd, SIOCSIFADDR, &request))
		failed(own);
	request.ifr_netmask = address(mask);
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		failed(mask);
	bring_up(fd, "eth0");
	if (ioctl(fd, SIOCADDRT, &route))
		failed(gateway);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s ADDRESS NETMASK GATEWAY\n", argv[0]);
		return 2;
	}
	mount_all();
	network(argv[1], argv[2], argv[3]);
	return status;
}
