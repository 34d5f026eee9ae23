/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PAGES_H
#define KTVBLK_PAGES_H

/*
 * Memory that is mapped: the table of requests in flight with their buffers,
 * room for the longest chain there can be, of which only what is used counts,
 * and the stack that ktvblk-drop would have. They go from one session to the
 * next by way of the device, so that a reset maps and unmaps nothing: while any
 * thread of the process is stuck in a page fault, that could wait for the
 * kernel.
 */

#include <stdbool.h>
#include <stddef.h>

struct io;
struct iovec;
struct chain_desc;

/* What a device's sessions need. */
struct pages_shape {
	unsigned int n_ios;
	size_t bounce_bytes; /* of each; 0: none */
	bool iovs; /* for zero-copy */
};

struct pages {
	void *drop_stack; /* DROP_STACK_BYTES; NULL: none of all this is there */
	struct chain_desc *chain; /* CHAIN_BYTES */
	struct io *ios;
	struct iovec *iovs; /* IOV_BATCH_MAX for each io, or NULL */
	unsigned char *bounce; /* NULL: none */
	size_t bounce_bytes;
	size_t bytes; /* of all */
};

/* Map them unless they are there. False: they cannot be had, errno being set. */
bool pages_map(struct pages *pages, const struct pages_shape *shape);

/* Let the memory of all but the stack go, but not its place. */
void pages_idle(const struct pages *pages);

/* Takes empty ones, leaves empty ones. */
void pages_unmap(struct pages *pages);

/* Have what the other had. */
void pages_take(struct pages *to, struct pages *from);

#endif
