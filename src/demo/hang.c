/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See hang.h. All but capacity() run on the device's worker. */

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "event.h"
#include "hang.h"
#include "image.h"
#include "say.h"

static void maybe_hang(struct hang *hang)
{
	if (!hang->hanging)
		return;
	event_signal(hang->stuck);
	event_await(hang->let_go, FOR_EVER);
}

static ssize_t hang_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	struct hang *hang = (struct hang *)userdata;
	ssize_t n;

	maybe_hang(hang);
	n = preadv(hang->fd, iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static ssize_t hang_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	struct hang *hang = (struct hang *)userdata;
	ssize_t n;

	maybe_hang(hang);
	n = pwritev(hang->fd, iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static int hang_flush(void *userdata)
{
	struct hang *hang = (struct hang *)userdata;

	maybe_hang(hang);
	return fdatasync(hang->fd) < 0 ? -errno : 0;
}

static int hang_capacity(void *userdata, uint64_t *ret_bytes)
{
	const struct hang *hang = (const struct hang *)userdata;

	return image_size(hang->fd, ret_bytes);
}

static void hang_release(void *userdata)
{
	struct hang *hang = (struct hang *)userdata;

	event_signal(hang->released);
}

void hang_open(struct hang *hang, int fd)
{
	*hang = (struct hang){
		.fd = fd,
		.stuck = event_new(),
		.let_go = event_new(),
		.released = event_new(),
	};
}

struct ktvblk_backend *hang_backend(struct hang *hang, bool read_only)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = hang_preadv,
		.pwritev = read_only ? NULL : hang_pwritev,
		.flush = hang_flush,
		.capacity = hang_capacity,
		.release = hang_release,
	};
	struct ktvblk_backend *backend = NULL;
	const int r = ktvblk_backend_new(&ops, hang, &backend);

	if (r < 0)
		die("ktvblk_backend_new: %s", strerror(-r));
	return backend;
}

void hang_arm(struct hang *hang)
{
	hang->hanging = true;
}

void hang_await_stuck(struct hang *hang)
{
	if (!event_await(hang->stuck, A_WHILE_MS))
		die("the request did not reach the storage");
}

void hang_let_go(struct hang *hang)
{
	hang->hanging = false;
	event_signal(hang->let_go);
}

bool hang_close(struct hang *hang)
{
	if (!event_await(hang->released, A_WHILE_MS))
		return false;
	close(hang->stuck);
	close(hang->let_go);
	close(hang->released);
	return true;
}
