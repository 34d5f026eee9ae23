/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "guard.h"
#include "listener.h"
#include "say.h"
#include "serve.h"
#include "storage.h"

struct disk {
	const struct options *options;
	struct storage storage;
	struct ktvblk_dev *dev;
	int listener;
	int signal_fd;
	int tick_ms; /* of the watchdog; -1 */
};

static void tell_status(const struct disk *disk, const char *first)
{
	const struct ktvblk_config *config = &disk->options->config;
	struct ktvblk_identity identity = { 0 };

	ktvblk_get_identity(disk->dev, &identity, sizeof(identity));
	guard_tell("%sSTATUS=%s: %s, %" PRIu64 " sectors, %s", first,
		   config->name ? config->name : "disk",
		   ktvblk_state_name(ktvblk_get_state(disk->dev)),
		   identity.capacity_sectors,
		   ktvblk_vhost_user_is_connected(disk->dev) > 0
			   ? "a front end is connected"
			   : "no front end");
}

static int make_device(struct disk *disk)
{
	struct ktvblk_config config = disk->options->config;
	int r;

	config.backend = disk->storage.backend;
	r = ktvblk_new(&config, &disk->dev);
	ktvblk_backend_unref(disk->storage.backend);
	if (r == 0)
		return 0;
	if (r == -EROFS)
		complain("the disk can only be read (--read-only)");
	else
		complain("no device: %s", strerror(-r));
	return -STATUS_FAILED;
}

/*
 * Until there is something to take back these signals end us; then they are read,
 * by this thread only.
 */
static int take_signals(void)
{
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigprocmask(SIG_BLOCK, &ours, NULL);
	signal(SIGHUP, SIG_DFL);
	return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* From now on front ends may come. The device has the socket. */
static int start(struct disk *disk)
{
	const char *path = disk->options->socket_path;
	int fd = disk->listener, r;

	if (fd == LISTENER_PATH)
		fd = listener_open(path);
	if (fd < 0)
		return 1 + fd;
	r = ktvblk_vhost_user_start(disk->dev, fd,
				    disk->options->once ? KTVBLK_VHOST_USER_ONCE
							: 0);
	close(fd);
	if (r == 0)
		return 0;
	if (disk->listener == LISTENER_PATH)
		listener_unlink(path);
	complain("the socket: %s", strerror(-r));
	return -STATUS_FAILED;
}

/* The storage may hang: the answer is a change of state. */
static void read_size(struct disk *disk)
{
	const int r = ktvblk_refresh_capacity(disk->dev);

	if (r < 0)
		complain("the size: %s",
			 r == -EBUSY ? "the storage has not answered the last "
				       "time"
				     : strerror(-r));
}

/* True: it is time to end. */
static bool read_signal(struct disk *disk)
{
	struct signalfd_siginfo info;

	if (read(disk->signal_fd, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo != SIGHUP)
		return true;
	read_size(disk);
	return false;
}

static void state_changed(struct disk *disk)
{
	uint64_t count;

	if (read(ktvblk_state_fd(disk->dev), &count, sizeof(count)) > 0)
		tell_status(disk, "");
}

static void work(struct disk *disk)
{
	struct pollfd fds[] = {
		{ .fd = disk->signal_fd, .events = POLLIN },
		{ .fd = ktvblk_state_fd(disk->dev), .events = POLLIN },
		{ .fd = ktvblk_vhost_user_ended_fd(disk->dev),
		  .events = POLLIN },
		{ .fd = guard_fd(), .events = POLLIN },
	};
	int n;

	tell_status(disk, "READY=1\n");
	for (;;) {
		n = poll(fds, sizeof(fds) / sizeof(*fds), disk->tick_ms);
		if (n < 0 && errno != EINTR)
			break;
		if (disk->tick_ms >= 0)
			tell_status(disk, "WATCHDOG=1\n");
		if (n <= 0)
			continue;
		if (fds[0].revents && read_signal(disk))
			break;
		if (fds[1].revents)
			state_changed(disk);
		if (fds[2].revents || fds[3].revents)
			break;
	}
}

/* Front ends first: nobody shall come to one that has no disk. */
static int end(struct disk *disk)
{
	enum ktvblk_outcome outcome;

	if (disk->listener == LISTENER_PATH)
		listener_unlink(disk->options->socket_path);
	guard_tell("STOPPING=1\nSTATUS=ending");
	outcome = ktvblk_destroy(disk->dev);
	if (outcome <= KTVBLK_PANICKED)
		return STATUS_GOOD;
	guard_tell("STATUS=ended, and left behind: %s",
		   ktvblk_outcome_name(outcome));
	complain("%s did not come back: %s",
		 disk->options->blk_file ? disk->options->blk_file
					 : disk->options->nbd_uri,
		 ktvblk_outcome_name(outcome));
	storage_abandon(&disk->storage);
	return STATUS_LEFT_BEHIND;
}

int serve(void *userdata)
{
	const struct server *server = userdata;
	struct disk disk = { .options = server->options,
			     .listener = server->listener,
			     .tick_ms = -1 };
	int r;

	signal(SIGHUP, SIG_IGN); /* there is no size to read yet */
	if (server->watchdog_us)
		disk.tick_ms = (int)(server->watchdog_us / 2000) + 1;
	r = storage_open(disk.options, &disk.storage);
	if (r < 0)
		return -r;
	disk.signal_fd = take_signals();
	r = make_device(&disk);
	if (r < 0)
		return -r;
	r = start(&disk);
	if (r < 0) {
		ktvblk_destroy(disk.dev);
		return -r;
	}
	work(&disk);
	return end(&disk);
}
