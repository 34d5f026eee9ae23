/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See store.h. */

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "measure.h"
#include "store.h"

static ssize_t null_move(void *userdata, const struct iovec *iov, int n_iov,
			 uint64_t offset)
{
	ssize_t n = 0;

	(void)userdata;
	(void)offset;
	for (int i = 0; i < n_iov; i++)
		n += (ssize_t)iov[i].iov_len;
	return n;
}

static int null_flush(void *userdata)
{
	(void)userdata;
	return 0;
}

static int null_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = DISK_BYTES;
	return 0;
}

static const struct ktvblk_backend_ops null_ops = {
	.size = sizeof(null_ops),
	.preadv = null_move,
	.pwritev = null_move,
	.flush = null_flush,
	.capacity = null_capacity,
};

/* A file without a name: nothing is left behind. */
static int open_file(enum store_kind kind, const char *directory,
		     const char **ret_why)
{
	struct statfs fs;
	int fd;

	if (kind == STORE_TMPFS)
		return memfd_create("bench", MFD_CLOEXEC);
	if (statfs(directory, &fs) == 0 && fs.f_type == TMPFS_MAGIC) {
		*ret_why = "its directory is on tmpfs (BENCH_DIR)";
		return -1;
	}
	fd = open(directory,
		  O_TMPFILE | O_RDWR | O_CLOEXEC |
			  (kind == STORE_DIRECT ? O_DIRECT : 0),
		  0600);
	if (fd < 0)
		*ret_why = strerror(errno);
	return fd;
}

static void fill(int fd)
{
	const size_t bytes = 1 << 20;
	void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (data == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	memset(data, 0x5a, bytes);
	for (uint64_t at = 0; at < DISK_BYTES; at += bytes)
		if (pwrite(fd, data, bytes, (off_t)at) != (ssize_t)bytes)
			die("cannot write the test file: %s", strerror(errno));
	munmap(data, bytes);
	fdatasync(fd);
}

bool store_open(struct store *store, enum store_kind kind,
		const char *directory, const char **ret_why)
{
	*store = (struct store){ .kind = kind, .fd = -1 };
	if (kind == STORE_NULL)
		return true;
	store->fd = open_file(kind, directory, ret_why);
	if (store->fd < 0)
		return false;
	fill(store->fd);
	return true;
}

void store_close(struct store *store)
{
	if (store->fd >= 0)
		close(store->fd);
	store->fd = -1;
}

struct ktvblk_backend *store_backend(const struct store *store,
				     const struct api *api)
{
	struct ktvblk_backend *backend;
	int r = store->kind == STORE_NULL
			? api->backend_new(&null_ops, NULL, &backend)
			: api->backend_new_fd(store->fd, NULL, NULL, &backend);

	if (r < 0)
		die("backend %s: %s", store_name(store->kind), strerror(-r));
	return backend;
}
