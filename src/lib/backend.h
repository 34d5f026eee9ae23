/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_BACKEND_H
#define KTVBLK_BACKEND_H

/* Where sectors live: an ops table, counted by references. */

#include <stdatomic.h>
#include <stdbool.h>

#include "ktvblk.h"

struct ktvblk_backend {
	_Atomic unsigned int refs;
	struct ktvblk_backend_ops ops;
	void *userdata;
	int fd; /* of a file; -1 */
	uint64_t told_bytes; /* its size as it was made, where that is known */
	uint32_t block_bytes; /* it takes whole ones, in whole ones of memory */
	uint32_t mem_align; /* at multiples of this; 1: none of it matters */
	/*
	 * How many writes have ended; and what that was when the last good flush
	 * began: the same, and there is nothing to flush. A device begins with
	 * one more, as nothing is known of who had the disk before.
	 */
	_Atomic uint64_t written;
	_Atomic uint64_t flushed;
};

/* There may be something to flush that was not written here. */
static inline void backend_may_be_dirty(struct ktvblk_backend *backend)
{
	atomic_fetch_add(&backend->written, 1);
}

static inline bool backend_is_read_only(const struct ktvblk_backend *backend)
{
	return !backend->ops.pwritev && !backend->ops.submit;
}

#endif
