/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See gate.h. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gate.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static struct gate gate;

static void pass_gate(void)
{
	pthread_mutex_lock(&lock);
	gate.waiting++;
	while (gate.shut)
		pthread_cond_wait(&opened, &lock);
	gate.waiting--;
	pthread_mutex_unlock(&lock);
}

void gate_shut(bool shut)
{
	pthread_mutex_lock(&lock);
	gate.shut = shut;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&lock);
}

struct gate gate_look(void)
{
	struct gate now;

	pthread_mutex_lock(&lock);
	now = gate;
	pthread_mutex_unlock(&lock);
	return now;
}

/* The gated file: userdata is its descriptor. */

static int gated_fd(void *userdata)
{
	return *(int *)userdata;
}

static ssize_t gated_preadv(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	ssize_t n;

	pass_gate();
	n = preadv(gated_fd(userdata), iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static ssize_t gated_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			     uint64_t offset)
{
	ssize_t n;

	pass_gate();
	n = pwritev(gated_fd(userdata), iov, n_iov, (off_t)offset);
	return n < 0 ? -errno : n;
}

static int gated_flush(void *userdata)
{
	pass_gate();
	return fdatasync(gated_fd(userdata)) < 0 ? -errno : 0;
}

static int gated_capacity(void *userdata, uint64_t *ret_bytes)
{
	struct stat st;

	if (fstat(gated_fd(userdata), &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static void gated_release(void *userdata)
{
	close(gated_fd(userdata));
	free(userdata);
	pthread_mutex_lock(&lock);
	gate.released++;
	pthread_mutex_unlock(&lock);
}

int gate_open(const char *path, struct ktvblk_backend **ret_storage)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = gated_preadv,
		.pwritev = gated_pwritev,
		.flush = gated_flush,
		.capacity = gated_capacity,
		.release = gated_release,
	};
	int *fd = malloc(sizeof(*fd));

	if (!fd)
		return -ENOMEM;
	*fd = open(path, O_RDWR | O_CLOEXEC);
	if (*fd < 0) {
		free(fd);
		return -errno;
	}
	return ktvblk_backend_new(&ops, fd, ret_storage);
}
