/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * --follow: wait for records, for the end of processes, for a signal, and for
 * the reader to leave.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "follow.h"
#include "process.h"
#include "say.h"
#include "util.h"

static int timeout_ms(sd_journal *journal)
{
	struct timespec ts;
	uint64_t until_us, now_us;

	if (sd_journal_get_timeout(journal, &until_us) < 0 ||
	    until_us == UINT64_MAX)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_us = (uint64_t)ts.tv_sec * USEC_PER_SEC +
		 (uint64_t)ts.tv_nsec / 1000;
	if (until_us <= now_us)
		return 0;
	until_us = (until_us - now_us) / 1000 + 1;
	return until_us > 60000 ? 60000 : (int)until_us;
}

/* Wait for something to happen: 1, or 0 to end, or -errno. */
static int await(sd_journal *journal, int signal_fd, int process_fd)
{
	struct pollfd fds[] = {
		{ .fd = sd_journal_get_fd(journal),
		  .events = (short)sd_journal_get_events(journal) },
		{ .fd = signal_fd, .events = POLLIN },
		/* For its errors: a reader who left. */
		{ .fd = STDOUT_FILENO },
		{ .fd = process_fd, .events = POLLIN },
	};
	int r;

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms(journal)) < 0 &&
	    errno != EINTR) {
		complain("poll: %s", strerror(errno));
		return -EIO;
	}
	if (fds[1].revents)
		return 0;
	if (fds[2].revents & (POLLERR | POLLHUP)) {
		complain("standard output: %s", strerror(EPIPE));
		return -EPIPE;
	}
	r = sd_journal_process(journal);
	if (r < 0) {
		complain("waiting for the journal failed: %s", strerror(-r));
		return r;
	}
	return 1;
}

/*
 * A pidfd can be read once the last thread has ended, those that are stuck among
 * them. Where there are too many for our descriptors, the end of some is seen
 * when something else happens.
 */
static bool has_ended(struct device *device, int process_fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct pollfd pollfd;

	if (device->pidfd < 0) {
		device->pidfd = process_open(&device->record);
		if (device->pidfd >= 0)
			epoll_ctl(process_fd, EPOLL_CTL_ADD, device->pidfd,
				  &event);
	}
	pollfd = (struct pollfd){ .fd = device->pidfd, .events = POLLIN };
	if (device->pidfd >= 0)
		return poll(&pollfd, 1, 0) > 0;
	return process_look(&device->record) == PROCESS_GONE;
}

/* Tell of processes that have ended since, and wait for the others. */
static void look_at_processes(struct view *view, int process_fd)
{
	struct device *device;

	TAILQ_FOREACH(device, &view->list.devices, link)
	{
		if (device->replaced || device->told_gone ||
		    !has_ended(device, process_fd))
			continue;
		device->told_gone = true;
		device_unwatch(device);
		view_print(view, &device->record, "gone", PROCESS_GONE);
	}
}

/* SIGINT and SIGTERM end it in order. */
static int signals_to_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int follow(struct view *view, sd_journal *journal)
{
	const int process_fd = epoll_create1(EPOLL_CLOEXEC);
	const int signal_fd = signals_to_fd();
	int r;

	if (process_fd < 0 || signal_fd < 0) {
		r = -errno;
		complain("%s", strerror(errno));
	} else {
		/* Each line as soon as it is whole. */
		r = flush();
		setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	}
	while (r >= 0) {
		look_at_processes(view, process_fd);
		r = flush();
		if (r == 0)
			r = await(journal, signal_fd, process_fd);
		if (r <= 0)
			break;
		r = view_take(view, journal, true);
	}
	if (process_fd >= 0)
		close(process_fd);
	if (signal_fd >= 0)
		close(signal_fd);
	return r;
}
