// SPDX-License-Identifier: GPL-2.0
/*
 * A thread whose calls were handed over is the thread it was: for itself, for the rest of its
 * process, and for its parent, who knows the process by its pid.
 */
#include <linux/futex.h>
#include <dirent.h>
#include <sys/pidfd.h>
#include <sys/resource.h>

#include "handover.h"
#include "../kselftest_harness.h"

EITHER_THREAD()

/* --- what it finds itself --------------------------------------------------------------- */

struct names {
	pid_t tid, pid, ppid, pgrp, sid;
	char self[32], thread_self[64], status[128], stat[64];
};

/* The lines of a status file that name the thread. */
static void read_numbers(const char *path, char *text, size_t size)
{
	static const char *const lines[] = { "\nName:", "\nTgid:", "\nPid:", "\nPPid:", "\nTracerPid:" };
	char status[4096] = "\n";
	size_t i, length = 0;

	text[0] = 0;
	if (!read_text(path, status + 1, sizeof(status) - 1))
		return;
	for (i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		char *line = strstr(status, lines[i]);

		if (line)
			length += snprintf(text + length, size - length, "%.*s",
					   (int)strcspn(line + 1, "\n") + 1, line);
	}
}

static void look(struct names *n)
{
	memset(n, 0, sizeof(*n));
	n->tid = gettid();
	n->pid = syscall(__NR_getpid);
	n->ppid = getppid();
	n->pgrp = getpgrp();
	n->sid = getsid(0);
	if (readlink("/proc/self", n->self, sizeof(n->self) - 1) < 0)
		n->self[0] = 0;
	if (readlink("/proc/thread-self", n->thread_self, sizeof(n->thread_self) - 1) < 0)
		n->thread_self[0] = 0;
	read_numbers("/proc/thread-self/status", n->status, sizeof(n->status));
	read_text("/proc/thread-self/stat", n->stat, 16);
}

static const char *is_same(const struct names *a, const struct names *b)
{
	CHECK_EQ(a->tid, b->tid);
	CHECK_EQ(a->pid, b->pid);
	CHECK_EQ(a->ppid, b->ppid);
	CHECK_EQ(a->pgrp, b->pgrp);
	CHECK_EQ(a->sid, b->sid);
	CHECK(!strcmp(a->self, b->self));
	CHECK(!strcmp(a->thread_self, b->thread_self));
	CHECK(!strcmp(a->status, b->status));
	CHECK(!strcmp(a->stat, b->stat));
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(names_stay, 300)
{
	struct names before, now;
	char expected[64];
	struct reading r;
	int i;

	look(&before);
	snprintf(expected, sizeof(expected), "%d", getpid());
	CHECK(!strcmp(expected, before.self));
	snprintf(expected, sizeof(expected), "%d/task/%d", getpid(), gettid());
	CHECK(!strcmp(expected, before.thread_self));
	for (i = 0; i < times(300, 10000); i++) {
		TRY(begin_reading(&r));
		look(&now);
		TRY(is_same(&before, &now));
		TRY(end_reading(&r));
		look(&now);
		TRY(is_same(&before, &now));
	}
	return NULL;
}

IN_EITHER_THREAD_TIMEOUT(tid_stays_1000_times, 300)
{
	pid_t tid = gettid(), pid = getpid();
	struct reading r;
	int i;

	for (i = 0; i < times(1000, 50000); i++) {
		TRY(begin_reading(&r));
		CHECK_EQ(tid, gettid());
		CHECK_EQ(pid, syscall(__NR_getpid));
		CHECK_EQ(0, tgkill(pid, tid, 0));
		TRY(end_reading(&r));
		CHECK_EQ(tid, gettid());
	}
	return NULL;
}

/* The start time and the name in a stat file. */
static bool read_stat(const char *path, char *comm, unsigned long long *start)
{
	char text[1024], *after;
	int field;

	if (!read_text(path, text, sizeof(text)))
		return false;
	after = strrchr(text, ')');
	if (!after || !strchr(text, '('))
		return false;
	snprintf(comm, 32, "%.*s", (int)(after - strchr(text, '(') - 1), strchr(text, '(') + 1);
	/* after points at field 2; field 22 is the start time. */
	for (field = 2; field < 22 && after; field++)
		after = strchr(after + 1, ' ');
	if (!after)
		return false;
	*start = strtoull(after + 1, NULL, 10);
	return true;
}

IN_EITHER_THREAD(start_time_and_name_stay)
{
	unsigned long long start_before, start;
	char comm_before[32], comm[32];
	struct reading r;
	int i;

	CHECK_EQ(0, prctl(PR_SET_NAME, "I am (me) 1"));
	CHECK(read_stat("/proc/thread-self/stat", comm_before, &start_before));
	CHECK(!strcmp("I am (me) 1", comm_before));
	/* Start times are in ticks: the worker shall not be of the same one. */
	usleep(30 * 1000);
	for (i = 0; i < 20; i++) {
		TRY(begin_reading(&r));
		CHECK(read_stat("/proc/thread-self/stat", comm, &start));
		CHECK(!strcmp(comm_before, comm));
		CHECK_EQ(start_before, start);
		TRY(end_reading(&r));
	}
	/* What a thread is named to is what it is asked for, and the other way round. */
	CHECK_EQ(0, prctl(PR_SET_NAME, "another name"));
	TRY(hand_over_once());
	CHECK_EQ(0, prctl(PR_GET_NAME, comm));
	CHECK(!strcmp("another name", comm));
	return NULL;
}

static int count_tasks(bool *has_own, bool *has_main)
{
	char path[64];
	DIR *directory = opendir("/proc/self/task");
	struct dirent *entry;
	int n = 0;

	*has_own = *has_main = false;
	if (!directory)
		return -1;
	while ((entry = readdir(directory))) {
		pid_t tid = atoi(entry->d_name);

		if (!tid)
			continue;
		n++;
		*has_own |= tid == gettid();
		*has_main |= tid == getpid();
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
		if (access(path, R_OK))
			n = -1000;
	}
	closedir(directory);
	return n;
}

IN_EITHER_THREAD(task_directory_lists_each_once)
{
	bool has_own, has_main;
	struct reading r[10];
	int i, threads;

	threads = count_tasks(&has_own, &has_main);
	CHECK(has_own && has_main);
	for (i = 0; i < 10; i++) {
		TRY(begin_reading(&r[i]));
		/* Ten workers that sleep; there may be an idle one besides. */
		int n = count_tasks(&has_own, &has_main);

		CHECK(has_own && has_main);
		CHECK(n >= threads + i + 1 && n <= threads + i + 2);
		CHECK_EQ(counter("workers"), n - threads);
	}
	for (i = 0; i < 10; i++)
		TRY(end_reading(&r[i]));
	return NULL;
}

/* Every tid the process has ever shown as its own answers to tgkill, and only to it. */
IN_EITHER_THREAD(pid_file_descriptor_of_itself)
{
	int fd = pidfd_open(getpid(), 0);
	struct pollfd entry = { .fd = fd, .events = POLLIN };
	struct reading r;

	CHECK(fd >= 0);
	TRY(begin_reading(&r));
	CHECK_EQ(0, pidfd_send_signal(fd, 0, NULL, 0));
	CHECK_EQ(0, poll(&entry, 1, 0));
	close(fd);
	fd = pidfd_open(getpid(), 0);
	CHECK(fd >= 0);
	entry.fd = fd;
	CHECK_EQ(0, pidfd_send_signal(fd, 0, NULL, 0));
	CHECK_EQ(0, poll(&entry, 1, 0));
	close(fd);
	/* What a directory of /proc is of, kill(2) by it too. */
	fd = open("/proc/self", O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	CHECK_EQ(0, pidfd_send_signal(fd, 0, NULL, 0));
	close(fd);
	return end_reading(&r);
}

static volatile sig_atomic_t handled_by;

static void note_thread(int signal)
{
	handled_by = gettid();
}

IN_EITHER_THREAD_TIMEOUT(signals_to_itself, 300)
{
	const struct sigaction action = { .sa_handler = note_thread };
	struct reading r;
	int i;

	CHECK_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (i = 0; i < times(200, 10000); i++) {
		TRY(begin_reading(&r));
		handled_by = 0;
		CHECK_EQ(0, tgkill(getpid(), gettid(), SIGUSR1));
		CHECK_EQ(gettid(), handled_by);
		handled_by = 0;
		CHECK_EQ(0, pthread_kill(pthread_self(), SIGUSR1));
		CHECK_EQ(gettid(), handled_by);
		handled_by = 0;
		CHECK_EQ(0, syscall(__NR_tkill, gettid(), SIGUSR1));
		CHECK_EQ(gettid(), handled_by);
		handled_by = 0;
		CHECK_EQ(0, kill(getpid(), SIGUSR1));
		CHECK(becomes_true(handled_by != 0));
		TRY(end_reading(&r));
	}
	return NULL;
}

IN_A_CHILD(group_and_session_by_itself)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(0, setpgid(0, 0));
	CHECK_EQ(getpid(), getpgrp());
	CHECK_EQ(getpid(), getpgid(getpid()));
	TRY(hand_over_once());
	CHECK_EQ(getpid(), getpgrp());
	TRY(end_reading(&r));
	CHECK_EQ(getpid(), getpgid(0));
	return NULL;
}

IN_A_CHILD(session_of_its_own)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(getpid(), setsid());
	CHECK_EQ(getpid(), getsid(0));
	CHECK_EQ(getpid(), getpgrp());
	TRY(end_reading(&r));
	TRY(hand_over_once());
	CHECK_EQ(getpid(), getsid(getpid()));
	/* A leader of a group cannot begin a session once more. */
	CHECK_EQ(-EPERM, raw_call(__NR_setsid));
	return NULL;
}

/* As an inner call setsid() acts for the process too. */
IN_A_CHILD(session_by_an_inner_call)
{
	long result = UNTOUCHED;

	TRY(hand_over_once());
	CHECK_EQ(0, async_submit(0, &result, __NR_setsid, ARGS(0)));
	CHECK_EQ(getpid(), result);
	CHECK_EQ(getpid(), getsid(0));
	return NULL;
}

/* --- what its parent finds -------------------------------------------------------------- */

/* A child that has handed over, with the call outstanding, and does as it is told. */
struct stage {
	int at;
	pid_t tid;
	struct reading r;
};

static struct stage *stage;

/* Goes to sleep in user space with one call outstanding. Stage 1: so far. Stage 2: end. */
static const char *stays(void)
{
	struct reading r;

	/*
	 * With the one below an odd number: the main thread goes on as one task and then as the
	 * other again, and the process has the pid of the one that does not lead it.
	 */
	TRY(hand_over(2));
	TRY(begin_reading(&r));
	stage->tid = gettid();
	reach(&stage->at, 1);
	stay_until(&stage->at, 2);
	return end_reading(&r);
}

CHILD_FIXTURE(child, stage, stays)

TEST_F(child, exit_status)
{
	EXPECT_ENDS_WELL();
}

TEST_F(child, exit_by_waitid_pid)
{
	siginfo_t info = { };

	EXPECT_EQ(0, waitid(P_PID, self->pid, &info, WEXITED | WNOHANG));
	EXPECT_EQ(0, info.si_pid);
	reach(&stage->at, 2);
	ASSERT_TRUE(becomes_true(waitid(P_PID, self->pid, &info, WEXITED | WNOHANG) ||
				 info.si_pid));
	EXPECT_EQ(self->pid, info.si_pid);
	EXPECT_EQ(CLD_EXITED, info.si_code);
	EXPECT_EQ(0, info.si_status);
	self->pid = 0;
}

TEST_F(child, exit_by_waitid_pidfd)
{
	int fd = pidfd_open(self->pid, 0);
	struct pollfd entry = { .fd = fd, .events = POLLIN };
	siginfo_t info = { };

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, poll(&entry, 1, 0));
	reach(&stage->at, 2);
	/* It wakes who polls, and only when the process has ended. */
	ASSERT_EQ(1, poll(&entry, 1, DEADLINE_S * 1000));
	ASSERT_EQ(0, waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG));
	EXPECT_EQ(self->pid, info.si_pid);
	EXPECT_EQ(0, info.si_status);
	self->pid = 0;
}

TEST_F(child, exit_by_group_and_any)
{
	siginfo_t info = { };

	ASSERT_EQ(0, setpgid(self->pid, self->pid));
	EXPECT_EQ(0, waitid(P_PGID, self->pid, &info, WEXITED | WNOHANG));
	EXPECT_EQ(0, info.si_pid);
	reach(&stage->at, 2);
	ASSERT_TRUE(becomes_true(waitid(P_PGID, self->pid, &info, WEXITED | WNOHANG | WNOWAIT) ||
				 info.si_pid));
	EXPECT_EQ(self->pid, info.si_pid);
	EXPECT_EQ(self->pid, waitpid(-1, NULL, 0));
	self->pid = 0;
}

static siginfo_t child_info;
static volatile sig_atomic_t child_signals;

static void on_child(int signal, siginfo_t *info, void *context)
{
	child_info = *info;
	child_signals++;
}

static void handle_sigchld(void)
{
	const struct sigaction action = { .sa_sigaction = on_child, .sa_flags = SA_SIGINFO };

	child_signals = 0;
	sigaction(SIGCHLD, &action, NULL);
}

TEST_F(child, sigchld_names_it)
{
	handle_sigchld();
	reach(&stage->at, 2);
	ASSERT_TRUE(becomes_true(child_signals));
	EXPECT_EQ(self->pid, child_info.si_pid);
	EXPECT_EQ(CLD_EXITED, child_info.si_code);
	EXPECT_EQ(0, status_of(self->pid));
	EXPECT_EQ(1, child_signals);
	self->pid = 0;
}

TEST_F(child, stop_and_continue_by_waitid)
{
	int fd = pidfd_open(self->pid, 0), i;

	ASSERT_LE(0, fd);
	handle_sigchld();
	for (i = 0; i < 20; i++) {
		siginfo_t info = { };
		idtype_t type = i % 2 ? P_PIDFD : P_PID;
		id_t id = i % 2 ? fd : self->pid;

		child_signals = 0;
		ASSERT_EQ(0, kill(self->pid, SIGSTOP));
		ASSERT_TRUE(becomes_true(waitid(type, id, &info, WSTOPPED | WNOHANG) ||
					 info.si_pid));
		ASSERT_EQ(self->pid, info.si_pid);
		ASSERT_EQ(CLD_STOPPED, info.si_code);
		ASSERT_EQ(SIGSTOP, info.si_status);
		ASSERT_TRUE(becomes_true(child_signals == 1));
		ASSERT_EQ(self->pid, child_info.si_pid);
		ASSERT_EQ(CLD_STOPPED, child_info.si_code);

		child_signals = 0;
		info = (siginfo_t){ };
		ASSERT_EQ(0, kill(self->pid, SIGCONT));
		ASSERT_TRUE(becomes_true(waitid(type, id, &info, WCONTINUED | WNOHANG) ||
					 info.si_pid));
		ASSERT_EQ(self->pid, info.si_pid);
		ASSERT_EQ(CLD_CONTINUED, info.si_code);
		ASSERT_TRUE(becomes_true(child_signals == 1));
		ASSERT_EQ(self->pid, child_info.si_pid);
		ASSERT_EQ(CLD_CONTINUED, child_info.si_code);
	}
	EXPECT_ENDS_WELL();
}

TEST_F(child, stop_and_continue_by_waitpid)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_FINE(stop_child(self->pid));
		ASSERT_FINE(continue_child(self->pid));
	}
	EXPECT_ENDS_WELL();
}

TEST_F(child, proc_by_its_pid)
{
	unsigned long long start;
	char path[64], comm[32], own[32], numbers[256], expected[128];
	unsigned long long own_start;

	ASSERT_TRUE(read_stat("/proc/self/stat", own, &own_start));
	snprintf(path, sizeof(path), "/proc/%d/stat", self->pid);
	ASSERT_TRUE(read_stat(path, comm, &start));
	EXPECT_STREQ(own, comm);
	EXPECT_LE(own_start, start);
	snprintf(path, sizeof(path), "/proc/%d/status", self->pid);
	read_numbers(path, numbers, sizeof(numbers));
	snprintf(expected, sizeof(expected), "\nName:\t%s\nTgid:\t%d\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0",
		 own, self->pid, self->pid, getpid());
	EXPECT_STREQ(expected, numbers);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", self->pid, stage->tid);
	read_numbers(path, numbers, sizeof(numbers));
	snprintf(expected, sizeof(expected), "\nName:\t%s\nTgid:\t%d\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0",
		 own, self->pid, stage->tid, getpid());
	EXPECT_STREQ(expected, numbers);
	snprintf(path, sizeof(path), "/proc/%d/exe", self->pid);
	EXPECT_EQ(0, access(path, F_OK));
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", getpid(), gettid());
	if (read_text(path, numbers, sizeof(numbers))) {
		snprintf(expected, sizeof(expected), "%d ", self->pid);
		EXPECT_STREQ(expected, numbers);
	}
	EXPECT_ENDS_WELL();
}

TEST_F(child, open_directory_of_proc_stays)
{
	char path[64], text[64], expected[64];
	int directory, fd;

	snprintf(path, sizeof(path), "/proc/%d", self->pid);
	directory = open(path, O_RDONLY | O_DIRECTORY);
	ASSERT_LE(0, directory);
	fd = openat(directory, "stat", O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_LT(0, read(fd, text, sizeof(text) - 1));
	snprintf(expected, sizeof(expected), "%d (", self->pid);
	EXPECT_EQ(0, strncmp(expected, text, strlen(expected)));
	EXPECT_ENDS_WELL();
	EXPECT_GT(0, openat(directory, "stat", O_RDONLY));
}

/* What is not seen in the list of processes: a worker under its own number. */
TEST_F(child, no_second_process)
{
	DIR *directory = opendir("/proc");
	struct dirent *entry;
	int n = 0;

	ASSERT_NE(NULL, directory);
	while ((entry = readdir(directory))) {
		char path[300], numbers[256], line[32];

		if (!atoi(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/status", entry->d_name);
		read_numbers(path, numbers, sizeof(numbers));
		snprintf(line, sizeof(line), "\nTgid:\t%d\n", self->pid);
		n += strstr(numbers, line) != NULL;
	}
	closedir(directory);
	EXPECT_EQ(1, n);
	EXPECT_ENDS_WELL();
}

TEST_F(child, group_by_its_parent)
{
	EXPECT_EQ(0, setpgid(self->pid, self->pid));
	EXPECT_EQ(self->pid, getpgid(self->pid));
	EXPECT_EQ(0, setpgid(self->pid, getpgrp()));
	EXPECT_EQ(getpgrp(), getpgid(self->pid));
	EXPECT_EQ(getsid(0), getsid(self->pid));
	EXPECT_ENDS_WELL();
}

TEST_F(child, kill_reaches_it)
{
	EXPECT_EQ(0, kill(self->pid, 0));
	EXPECT_EQ(0, tgkill(self->pid, stage->tid, 0));
	EXPECT_EQ(0, kill(self->pid, SIGTERM));
	EXPECT_EQ(SIGTERM, status_of(self->pid));
	EXPECT_EQ(-1, kill(self->pid, 0));
	EXPECT_EQ(ESRCH, errno);
	self->pid = 0;
}

TEST_F(child, tgkill_reaches_it)
{
	EXPECT_EQ(0, tgkill(self->pid, stage->tid, SIGTERM));
	EXPECT_EQ(SIGTERM, status_of(self->pid));
	self->pid = 0;
}

TEST_F(child, pidfd_kills_it)
{
	int fd = pidfd_open(self->pid, 0);
	siginfo_t info = { };

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, pidfd_send_signal(fd, SIGKILL, NULL, 0));
	EXPECT_EQ(0, waitid(P_PIDFD, fd, &info, WEXITED));
	EXPECT_EQ(self->pid, info.si_pid);
	EXPECT_EQ(CLD_KILLED, info.si_code);
	EXPECT_EQ(SIGKILL, info.si_status);
	self->pid = 0;
}

TEST_F(child, group_is_killed)
{
	ASSERT_EQ(0, setpgid(self->pid, self->pid));
	EXPECT_EQ(0, kill(-self->pid, SIGTERM));
	EXPECT_EQ(SIGTERM, status_of(self->pid));
	self->pid = 0;
}

TEST_F(child, limits_and_affinity_by_its_pid)
{
	struct rlimit limit;
	cpu_set_t set;

	EXPECT_EQ(0, prlimit(self->pid, RLIMIT_NOFILE, NULL, &limit));
	EXPECT_EQ(0, sched_getaffinity(stage->tid, sizeof(set), &set));
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	EXPECT_EQ(0, sched_setaffinity(stage->tid, sizeof(set), &set));
	EXPECT_EQ(0, setpriority(PRIO_PROCESS, stage->tid, 5));
	EXPECT_EQ(5, getpriority(PRIO_PROCESS, stage->tid));
	EXPECT_EQ(0, setpriority(PRIO_PROCESS, self->pid, 6));
	EXPECT_EQ(6, getpriority(PRIO_PROCESS, self->pid));
	EXPECT_ENDS_WELL();
}

/* --- the same for a child that hands over all the time ------------------------------------ */

static const char *hands_over_until_told(void)
{
	reach(&stage->at, 1);
	while (!is_reached(&stage->at, 2))
		TRY(hand_over_once());
	return NULL;
}

CHILD_FIXTURE(busy, stage, hands_over_until_told)

TEST_F_TIMEOUT(busy, stop_and_continue, 300)
{
	int i;

	for (i = 0; i < times(100, 5000); i++) {
		ASSERT_FINE(stop_child(self->pid));
		ASSERT_FINE(continue_child(self->pid));
	}
	EXPECT_ENDS_WELL();
}

TEST_F_TIMEOUT(busy, looked_at_by_its_parent, 300)
{
	char path[64], comm[32], own[32];
	unsigned long long start, first = 0;
	int i, fd;

	ASSERT_TRUE(read_stat("/proc/self/stat", own, &start));
	snprintf(path, sizeof(path), "/proc/%d/stat", self->pid);
	for (i = 0; i < times(300, 20000); i++) {
		ASSERT_EQ(0, kill(self->pid, 0));
		ASSERT_TRUE(read_stat(path, comm, &start));
		ASSERT_STREQ(own, comm);
		first = first ?: start;
		ASSERT_EQ(first, start);
		fd = pidfd_open(self->pid, 0);
		ASSERT_LE(0, fd);
		ASSERT_EQ(0, close(fd));
		ASSERT_EQ(getpgrp(), getpgid(self->pid));
		ASSERT_EQ(0, setpgid(self->pid, self->pid));
		ASSERT_EQ(0, setpgid(self->pid, getpgrp()));
		ASSERT_EQ(0, waitpid(self->pid, NULL, WNOHANG));
	}
	EXPECT_ENDS_WELL();
}

/* --- cgroup.procs ----------------------------------------------------------------------- */

#define CGROUP	"/sys/fs/cgroup/async_identity"

static bool lists(const char *path, pid_t pid)
{
	char text[4096] = "\n", line[32];

	if (!read_text(path, text + 1, sizeof(text) - 1))
		return false;
	snprintf(line, sizeof(line), "\n%d\n", pid);
	return strstr(text, line);
}

static int count_lines(const char *path)
{
	char text[4096];
	int n = 0, i;

	if (!read_text(path, text, sizeof(text)))
		return -1;
	for (i = 0; text[i]; i++)
		n += text[i] == '\n';
	return n;
}

TEST_F(child, cgroup_procs)
{
	char text[32], name[64];
	int i;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		SKIP(goto end, "no cgroup file system");
	snprintf(text, sizeof(text), "%d", self->pid);
	for (i = 0; i < 5; i++) {
		/* All its tasks move, and the process is listed once, by its pid. */
		ASSERT_TRUE(write_text(CGROUP "/cgroup.procs", text));
		EXPECT_TRUE(lists(CGROUP "/cgroup.procs", self->pid));
		EXPECT_EQ(1, count_lines(CGROUP "/cgroup.procs"));
		EXPECT_TRUE(lists(CGROUP "/cgroup.threads", stage->tid));
		snprintf(name, sizeof(name), "/proc/%d/cgroup", self->pid);
		ASSERT_TRUE(read_text(name, name, sizeof(name)));
		EXPECT_STREQ("0::/async_identity\n", name);
		ASSERT_TRUE(write_text("/sys/fs/cgroup/cgroup.procs", text));
		EXPECT_EQ(0, count_lines(CGROUP "/cgroup.procs"));
		EXPECT_EQ(0, count_lines(CGROUP "/cgroup.threads"));
	}
end:
	EXPECT_ENDS_WELL();
	EXPECT_EQ(0, rmdir(CGROUP));
}

/* Also among moves a call that sleeps is handed over: nobody else would feed its pipe. */
TEST_F_TIMEOUT(busy, cgroup_procs, 300)
{
	char text[32];
	int i;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		SKIP(goto end, "no cgroup file system");
	snprintf(text, sizeof(text), "%d", self->pid);
	for (i = 0; i < times(200, 2000); i++) {
		ASSERT_TRUE(write_text(CGROUP "/cgroup.procs", text));
		ASSERT_TRUE(lists(CGROUP "/cgroup.procs", self->pid));
		ASSERT_EQ(1, count_lines(CGROUP "/cgroup.procs"));
		ASSERT_TRUE(write_text("/sys/fs/cgroup/cgroup.procs", text));
		/* What exits just then is not moved: a worker that does not fit any more. */
		ASSERT_TRUE(becomes_true(!count_lines(CGROUP "/cgroup.threads")));
	}
end:
	EXPECT_ENDS_WELL();
	EXPECT_EQ(0, rmdir(CGROUP));
}

/* --- kill(-1) --------------------------------------------------------------------------- */

static volatile sig_atomic_t terminations;

static void on_termination(int sig)
{
	terminations += sig == SIGTERM;
}

/*
 * In a pid namespace of its own, so that it hits few: the caller is spared, and not killed
 * under the number of one of its workers. So is the first process, whose leader goes by another
 * number than 1.
 */
static const char *kills_all(void)
{
	struct reading r;
	pid_t child;
	int status;

	CHECK_EQ(1, getpid());
	TRY(hand_over(3));
	CHECK(signal(SIGTERM, on_termination) != SIG_ERR);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		pid_t other;

		signal(SIGTERM, SIG_DFL);
		other = fork();

		CHECK(other >= 0);
		if (!other)
			while (1)
				pause();
		exit_fine(({
			const char *found = begin_reading(&r);

			if (!found && kill(-1, SIGTERM))
				found = "nobody to kill";
			found ?: end_reading(&r);
		}));
	}
	CHECK_EQ(0, status_of(child));
	/* The other one was killed, and is ours now. */
	CHECK(becomes_true((child = waitpid(-1, &status, WNOHANG))));
	CHECK(child > 0);
	CHECK_EQ(SIGTERM, status);
	CHECK_EQ(0, terminations);
	return NULL;
}

TEST(kill_of_all_spares_the_caller)
{
	pid_t child;

	if (unshare(CLONE_NEWPID))
		SKIP(return, "no pid namespace");
	/* Its parent has no number in there. */
	child = fork();
	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(kills_all());
	EXPECT_EQ(0, status_of(child));
}

/* --- pid namespaces --------------------------------------------------------------------- */

static const char *is_1(void)
{
	struct reading r;

	TRY(begin_reading(&r));
	CHECK_EQ(1, getpid());
	CHECK_EQ(1, gettid());
	CHECK_EQ(0, getppid());
	TRY(end_reading(&r));
	CHECK_EQ(1, gettid());
	return hand_over(20);
}

TEST(first_process_of_a_pid_namespace)
{
	pid_t child;

	if (unshare(CLONE_NEWPID))
		SKIP(return, "no pid namespace");
	child = fork();
	ASSERT_LE(0, child);
	if (child == 0)
		exit_fine(is_1());
	EXPECT_EQ(0, status_of(child));
}

TEST_HARNESS_MAIN
