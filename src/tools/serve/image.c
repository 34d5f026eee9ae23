/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"
#include "holder.h"
#include "image.h"
#include "say.h"

/* Who has just ended may take so long to let go; and how often to try. */
#define GRACE_MS 500
#define TRY_MS 50

static int lock(int fd, const struct options *options, pid_t *ret_holder)
{
	*ret_holder = 0;
	return ktvblk_image_lock(fd, options->config.flags & KTVBLK_READ_ONLY,
				 ret_holder);
}

static int try_for(int fd, const struct options *options, int ms,
		   pid_t *ret_holder)
{
	int r = lock(fd, options, ret_holder);

	for (; r == -EBUSY && ms > 0; ms -= TRY_MS) {
		poll(NULL, 0, TRY_MS);
		r = lock(fd, options, ret_holder);
	}
	return r;
}

static int await_lock(int fd, const struct options *options)
{
	pid_t pid;
	int r;

	do {
		poll(NULL, 0, TRY_MS);
		r = lock(fd, options, &pid);
	} while (r == -EBUSY);
	return r;
}

/* The signals that would end us do. */
static int wait_for_lock(int fd, const struct options *options,
			 const char *holder)
{
	complain("%s: in use by %s: waiting", options->blk_file, holder);
	guard_tell("STATUS=waiting for %s, in use by %s", options->blk_file,
		   holder);
	return await_lock(fd, options);
}

struct later {
	const struct options *options;
	int fd; /* the same open file, which has the lock */
};

static void *lock_main(void *arg)
{
	struct later *later = arg;
	const int r = await_lock(later->fd, later->options);

	complain("%s: %s", later->options->blk_file,
		 r < 0 ? strerror(-r) : "locked");
	close(later->fd);
	free(later);
	return NULL;
}

/* The disk is served meanwhile; signals are others'. */
static int lock_later(int fd, const struct options *options, const char *holder)
{
	struct later *later = malloc(sizeof(*later));
	sigset_t all, before;
	pthread_t thread;
	int r = later ? 0 : -ENOMEM;

	if (r == 0) {
		later->options = options;
		later->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		r = later->fd < 0 ? -errno : 0;
	}
	if (r == 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &before);
		r = -pthread_create(&thread, NULL, lock_main, later);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	if (r == 0) {
		pthread_detach(thread);
		complain("%s: in use by %s: locked once that has ended",
			 options->blk_file, holder);
	}
	return r;
}

static int take_lock(int fd, const struct options *options)
{
	char holder[HOLDER_TEXT_MAX];
	pid_t pid;
	int r = try_for(fd, options, options->incoming ? 0 : GRACE_MS, &pid);

	if (r == -EBUSY) {
		holder_describe(fd, pid, holder);
		if (options->incoming) {
			r = lock_later(fd, options, holder);
		} else if (options->wait) {
			r = wait_for_lock(fd, options, holder);
		} else {
			complain("%s: in use by %s", options->blk_file, holder);
			return r;
		}
	}
	if (r < 0)
		complain("%s: cannot be locked (--no-lock): %s",
			 options->blk_file, strerror(-r));
	return r;
}

static int refuse(const char *path)
{
	const bool could_read = errno == EROFS || errno == EACCES ||
				errno == EPERM;

	complain("%s: %s%s", path, strerror(errno),
		 could_read && access(path, R_OK) == 0
			 ? ": it can only be read (--read-only)"
			 : "");
	return -STATUS_FAILED;
}

int image_open(const struct options *options)
{
	const bool reads = options->config.flags & KTVBLK_READ_ONLY;
	/* What is no disk must not hold us up either. */
	const int flags = (reads ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY |
			  O_NONBLOCK | (options->direct ? O_DIRECT : 0);
	const int fd = open(options->blk_file, flags);

	if (fd < 0 && errno == EINVAL && options->direct) {
		complain("%s: its file system has no O_DIRECT (--direct)",
			 options->blk_file);
		return -STATUS_FAILED;
	}
	if (fd < 0)
		return refuse(options->blk_file);
	/* Of a pipe or the like it is not asked for. */
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	if (!options->no_lock && take_lock(fd, options) < 0) {
		close(fd);
		return -STATUS_FAILED;
	}
	return fd;
}
