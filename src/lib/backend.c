/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The object around an ops table. */

#include "backend.h"
#include "bounds.h"
#include "sized.h"
#include "util.h"

/* The ops of version 1.0. */
#define OPS_SIZE_1_0 (6 * sizeof(void *))
_Static_assert(offsetof(struct ktvblk_backend_ops, release) + sizeof(void *) ==
		       OPS_SIZE_1_0,
	       "ABI");

static bool ranges_ok(const struct ktvblk_backend_ops *ops)
{
	const uint32_t known = KTVBLK_SUBMIT_DISCARD |
			       KTVBLK_SUBMIT_WRITE_ZEROES;
	const uint32_t granularity = ops->discard_granularity_bytes;

	return !(ops->submit_flags & ~known) &&
	       (ops->submit || !ops->submit_flags) &&
	       (!granularity || (granularity >= SECTOR_BYTES &&
				 !(granularity & (granularity - 1))));
}

int ktvblk_backend_new(const struct ktvblk_backend_ops *ops, void *userdata,
		       struct ktvblk_backend **ret_backend)
{
	struct ktvblk_backend *backend;
	struct ktvblk_backend_ops ours;
	int r;

	if (!ops || !ret_backend)
		return -EINVAL;
	r = sized_copy_in(&ours, sizeof(ours), ops, ops->size, OPS_SIZE_1_0);
	if (r < 0)
		return r;
	if (!(ours.preadv || ours.submit) || !ours.capacity ||
	    !ranges_ok(&ours))
		return -EINVAL;
	backend = malloc(sizeof(*backend));
	if (!backend)
		return -ENOMEM;
	atomic_init(&backend->refs, 1);
	backend->ops = ours;
	backend->userdata = userdata;
	backend->fd = -1;
	backend->told_bytes = 0;
	backend->block_bytes = SECTOR_BYTES;
	backend->mem_align = 1;
	atomic_init(&backend->written, 0);
	atomic_init(&backend->flushed, 0);
	atomic_init(&backend->cannot, 0);
	backend->shape = (struct backend_shape){ 0 };
	backend->block_device = false;
	*ret_backend = backend;
	return 0;
}

struct ktvblk_backend *ktvblk_backend_ref(struct ktvblk_backend *backend)
{
	if (backend)
		refs_get(&backend->refs);
	return backend;
}

struct ktvblk_backend *ktvblk_backend_unref(struct ktvblk_backend *backend)
{
	void (*release)(void *userdata);
	void *userdata;

	if (!backend || !refs_put(&backend->refs))
		return NULL;
	release = backend->ops.release;
	userdata = backend->userdata;
	/* Before: it may end the thread. */
	free(backend);
	if (release)
		release(userdata);
	return NULL;
}
