/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See null-store.h. */

#include <stdlib.h>

#include "null-store.h"

#define DISK_BYTES (32u << 10)

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

static int null_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = DISK_BYTES;
	return 0;
}

struct ktvblk_backend *null_store(void)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = null_move,
		.pwritev = null_move,
		.capacity = null_capacity,
	};
	struct ktvblk_backend *backend;

	if (ktvblk_backend_new(&ops, NULL, &backend) < 0)
		abort();
	return backend;
}
