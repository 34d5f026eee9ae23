/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_PAGES_H
#define KTVBLK_PAGES_H

/*
 * Memory that is mapped: the buffer that storage works on, room for the longest
 * chain there can be, of which only what is used counts, and the stack that
 * ktvblk-drop would have. They go from one session to the next by way of the
 * device, so that a reset maps and unmaps nothing: while any thread of the
 * process is stuck in a page fault, that could wait for the kernel.
 */

#include <stdbool.h>

struct pages {
	void *drop_stack; /* DROP_STACK_BYTES, or NULL */
	void *chain; /* CHAIN_BYTES, or NULL */
	unsigned char *bounce; /* BOUNCE_BYTES, or NULL: zero-copy */
};

/* Map them unless they are there. False: they cannot be had, errno being set. */
bool pages_map(struct pages *pages, bool zero_copy);

/* Let the memory of chain and buffer go, but not their place. */
void pages_idle(struct pages *pages);

/* Takes empty ones, leaves empty ones. */
void pages_unmap(struct pages *pages);

/* Have what the other had. */
void pages_take(struct pages *to, struct pages *from);

#endif
