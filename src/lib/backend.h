/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_BACKEND_H
#define KTVBLK_BACKEND_H

/* Where sectors live: an ops table, counted by references. */

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "ktvblk.h"

/* What a storage says of itself; 0: nothing. */
struct backend_shape {
	uint32_t logical_bytes, physical_bytes; /* its blocks */
	uint32_t min_io_bytes, opt_io_bytes; /* what is good to ask for */
	uint32_t offset_bytes; /* of the first physical block */
};

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
	_Atomic unsigned int cannot; /* what it refused: ranges.h */
	struct backend_shape shape;
	bool block_device; /* which fd is of */
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

static inline bool backend_can_discard(const struct ktvblk_backend *backend)
{
	return backend->ops.discard ||
	       (backend->ops.submit_flags & KTVBLK_SUBMIT_DISCARD);
}

static inline bool
backend_can_write_zeroes(const struct ktvblk_backend *backend)
{
	return backend->ops.write_zeroes ||
	       (backend->ops.submit_flags & KTVBLK_SUBMIT_WRITE_ZEROES);
}

/* Of a file: what fallocate() is to do for such a transfer. */
static inline int fallocate_mode(uint32_t op, uint32_t flags)
{
	/* Zeros where a file has become shorter make it long enough again. */
	return op == KTVBLK_IO_DISCARD || (flags & KTVBLK_IO_MAY_UNMAP)
		       ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
		       : FALLOC_FL_ZERO_RANGE;
}

#endif
