/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include <ktvblk.h>

#include "guard.h"
#include "say.h"

/* Behind the child's budget: it has more to do than to destroy the device. */
#define GRACE_MS 1000
#define RECORDS_MS 1000
/* A message of this begins with it, and a status is behind; others are systemd's. */
#define THE_END "END="

static int child_end = -1; /* the child's end of the socket pair */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * The child
 */

void guard_tell(const char *format, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* A guard that is stopped may miss some. */
	send(child_end, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

int guard_fd(void)
{
	return child_end;
}

/* As it was when we were started, but that threads of the library's may block. */
static void restore_signals(const sigset_t *mask)
{
	sigprocmask(SIG_SETMASK, mask, NULL);
}

/*
 * What a stuck thread keeps open is all of the process's: nobody shall wait for
 * the end of a pipe of ours.
 */
static void let_go_of_stdio(void)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	fflush(NULL);
	for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
}

static _Noreturn void child_run(const struct guarded *guarded, pid_t guard,
				const sigset_t *mask)
{
	int status;

	/* Who kills the guard means us: and what the guest has is fenced. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != guard)
		_exit(STATUS_FAILED);
	restore_signals(mask);
	status = guarded->serve(guarded->userdata);
	let_go_of_stdio();
	prctl(PR_SET_PDEATHSIG, 0);
	guard_tell(THE_END "%d", status);
	/* Nobody waits for us any more. */
	ktvblk_log_flush(RECORDS_MS);
	_exit(status);
}

/*
 * The guard
 */

struct guard {
	pid_t child;
	int fd; /* our end */
	int signal_fd;
	uint32_t patience_ms;
	int64_t deadline_ms; /* 0: there is none */
	bool told_to_end;
	int status; /* -1: not yet */
};

static void read_message(struct guard *guard)
{
	char text[1025];
	const ssize_t n = recv(guard->fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	if (n <= 0)
		return;
	text[n] = '\0';
	if (!strncmp(text, THE_END, strlen(THE_END)))
		guard->status = atoi(text + strlen(THE_END));
	else
		sd_notify(0, text);
}

/* It ended without a word: it was killed, or told to end before it served. */
static void child_has_ended(struct guard *guard)
{
	int how;

	/* What it said last comes first. */
	read_message(guard);
	while (guard->status < 0 &&
	       recv(guard->fd, &how, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
		read_message(guard);
	if (waitpid(guard->child, &how, WNOHANG) != guard->child ||
	    guard->status >= 0)
		return;
	if (WIFEXITED(how)) {
		guard->status = WEXITSTATUS(how);
	} else if (guard->told_to_end &&
		   (WTERMSIG(how) == SIGTERM || WTERMSIG(how) == SIGINT)) {
		guard->status = STATUS_GOOD;
	} else {
		complain("the server has died: %s", strsignal(WTERMSIG(how)));
		guard->status = STATUS_FAILED;
	}
}

static void read_signal(struct guard *guard)
{
	struct signalfd_siginfo info;

	if (read(guard->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD) {
		child_has_ended(guard);
		return;
	}
	/* Systemd's watchdog: the child is silent, and would not hear of an end. */
	if (info.ssi_signo == SIGABRT) {
		complain("the server is silent");
		kill(guard->child, SIGKILL);
		guard->status = STATUS_FAILED;
		return;
	}
	kill(guard->child, (int)info.ssi_signo);
	if (info.ssi_signo == SIGHUP || guard->told_to_end)
		return;
	guard->told_to_end = true;
	guard->deadline_ms = now_ms() + guard->patience_ms;
	sd_notify(0, "STOPPING=1");
}

static int time_left_ms(const struct guard *guard)
{
	const int64_t left = guard->deadline_ms - now_ms();

	if (!guard->deadline_ms)
		return -1;
	return left > 0 ? (int)left : 0;
}

static int watch(struct guard *guard)
{
	struct pollfd fds[2] = { { .fd = guard->fd, .events = POLLIN },
				 { .fd = guard->signal_fd, .events = POLLIN } };
	int left;

	while (guard->status < 0) {
		left = time_left_ms(guard);
		if (left == 0) {
			complain("the server does not end");
			return STATUS_LEFT_BEHIND;
		}
		if (poll(fds, 2, left) < 0 && errno != EINTR) {
			complain("poll: %s", strerror(errno));
			return STATUS_FAILED;
		}
		if (fds[0].revents & POLLIN)
			read_message(guard);
		else if (fds[0].revents)
			fds[0].fd = -1; /* SIGCHLD follows */
		if (fds[1].revents)
			read_signal(guard);
	}
	return guard->status;
}

static int fail(const char *what)
{
	complain("%s: %s", what, strerror(errno));
	return STATUS_FAILED;
}

int guard_run(const struct guarded *guarded)
{
	struct guard guard = { .patience_ms = guarded->budget_ms + GRACE_MS,
			       .status = -1 };
	const pid_t self = getpid();
	sigset_t ours, before;
	int pair[2];

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigaddset(&ours, SIGABRT);
	sigaddset(&ours, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ours, &before);
	signal(SIGCHLD, SIG_DFL); /* as inherited, it may be ignored */
	guard.signal_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
	if (guard.signal_fd < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail("descriptors");
	fflush(NULL);
	guard.child = fork();
	if (guard.child < 0)
		return fail("fork");
	if (guard.child == 0) {
		close(guard.signal_fd);
		close(pair[0]);
		child_end = pair[1];
		child_run(guarded, self, &before);
	}
	close(pair[1]);
	if (guarded->fd >= 0)
		close(guarded->fd);
	guard.fd = pair[0];
	return watch(&guard);
}
