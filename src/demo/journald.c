/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See journald.h. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event.h"
#include "journald.h"

#define PROGRAM "/lib/systemd/systemd-journald"
#define NOTIFY_SOCKET "/run/ktvblk-demo.notify"
#define MACHINE_ID "/run/ktvblk-demo.machine-id"

/* "Audit=", empty: the kernel's auditing stays as it is, on or off. */
static const char config[] = "[Journal]\n"
			     "Storage=volatile\n"
			     "RateLimitIntervalSec=0\n"
			     "ReadKMsg=no\n"
			     "Audit=\n"
			     "ForwardToSyslog=no\n"
			     "ForwardToKMsg=no\n"
			     "ForwardToConsole=no\n"
			     "ForwardToWall=no\n";

static pid_t journald;
static int alive = -1; /* reads an end of file when journald is gone */

__attribute__((format(printf, 2, 3))) static bool
write_file(const char *path, const char *format, ...)
{
	FILE *file = fopen(path, "we");
	va_list ap;

	if (!file)
		return false;
	va_start(ap, format);
	vfprintf(file, format, ap);
	va_end(ap);
	return fclose(file) == 0;
}

/* As root, or else as the root of a user namespace of our own. */
static bool leave_host(void)
{
	const unsigned int uid = geteuid(), gid = getegid();

	if (unshare(CLONE_NEWNS) == 0)
		return true;
	return unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0 &&
	       write_file("/proc/self/setgroups", "deny") &&
	       write_file("/proc/self/uid_map", "0 %u 1", uid) &&
	       write_file("/proc/self/gid_map", "0 %u 1", gid);
}

static bool furnish(void)
{
	/* Not one mount of ours is to be seen outside. */
	if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("ktvblk-demo", "/run", "tmpfs", MS_NOSUID | MS_NODEV,
		  "mode=755,size=64m") < 0)
		return false;
	mkdir("/run/log", 0755);
	mkdir("/run/systemd", 0755);
	mkdir("/run/systemd/journal", 0755);
	mkdir("/run/systemd/journald.conf.d", 0755);
	/* Some containers have an empty one. */
	return write_file("/run/systemd/journald.conf.d/zz-ktvblk-demo.conf",
			  "%s", config) &&
	       write_file(MACHINE_ID, "6b7476626c6b2d64656d6f0000000001\n") &&
	       mount(MACHINE_ID, "/etc/machine-id", "none", MS_BIND, NULL) == 0;
}

static int open_notify_socket(void)
{
	const struct sockaddr_un addr = { .sun_family = AF_UNIX,
					  .sun_path = NOTIFY_SOCKET };
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 &&
	    bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static void become_journald(pid_t parent, int out)
{
	char *const args[] = { (char[]){ PROGRAM }, NULL };
	char *const env[] = { (char[]){ "NOTIFY_SOCKET=" NOTIFY_SOCKET },
			      (char[]){ "SYSTEMD_LOG_TARGET=null" }, NULL };

	/* Whatever ends us ends it too. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent && dup2(out, STDOUT_FILENO) >= 0)
		execve(PROGRAM, args, env);
	_exit(127);
}

static bool launch(void)
{
	const pid_t parent = getpid();
	int out[2];

	if (pipe2(out, O_CLOEXEC) < 0)
		return false;
	journald = fork();
	if (journald == 0)
		become_journald(parent, out[1]);
	close(out[1]);
	alive = out[0];
	return journald > 0;
}

/* It says READY=1, among other things, or is gone. */
static bool await_ready(int notify)
{
	struct pollfd fds[] = { { .fd = notify, .events = POLLIN },
				{ .fd = alive, .events = POLLIN } };
	char text[512];
	ssize_t n;

	while (poll(fds, 2, A_WHILE_MS) > 0 && !fds[1].revents) {
		n = recv(notify, text, sizeof(text) - 1, 0);
		if (n < 0)
			return false;
		text[n] = '\0';
		if (strstr(text, "READY=1"))
			return true;
	}
	return false;
}

const char *journald_start(void)
{
	bool ready;
	int notify;

	if (access(PROGRAM, X_OK) < 0)
		return "there is no " PROGRAM;
	if (access("/etc/machine-id", F_OK) < 0)
		return "there is no /etc/machine-id";
	if (!leave_host())
		return "no mount namespace is allowed here";
	if (!furnish())
		return "no mounts are allowed here";
	notify = open_notify_socket();
	if (notify < 0)
		return "no notification socket";
	ready = launch() && await_ready(notify);
	close(notify);
	if (ready)
		return NULL;
	journald_stop();
	return "systemd-journald does not start here";
}

void journald_stop(void)
{
	struct pollfd gone = { .fd = alive, .events = POLLIN };

	if (journald > 0) {
		kill(journald, SIGTERM);
		if (poll(&gone, 1, A_WHILE_MS) != 1)
			kill(journald, SIGKILL);
		waitpid(journald, NULL, 0);
	}
	if (alive >= 0)
		close(alive);
	journald = 0;
	alive = -1;
}
