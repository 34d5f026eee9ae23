/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_LOAN_H
#define KTVBLK_LOAN_H

/*
 * What a transport whose driver is in another process lends a session: with MMIO
 * all that is the device's own. It goes back with the worker's end; or, where the
 * worker is left behind, at once, unless it may still be in there.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dirty.h"
#include "ktvblk.h"
#include "taken.h"
#include "util.h"

/* Something that is shared and goes with the last who has it. */
struct lease {
	_Atomic unsigned int refs;
	void (*release)(struct lease *lease);
};

/* These take NULL. */
static inline struct lease *lease_ref(struct lease *lease)
{
	if (lease)
		refs_get(&lease->refs);
	return lease;
}

static inline void lease_unref(struct lease *lease)
{
	if (lease && refs_put(&lease->refs))
		lease->release(lease);
}

/* Where in its rings a queue is. */
struct ring_position {
	uint16_t next_avail, next_used;
	bool poisoned;
	uint64_t counter; /* of taken.h */
};

enum { LOAN_REGION, LOAN_LOG, LOAN_LEASES };

struct loan {
	struct ktvblk_mem *mem;
	/* The driver's own; -1: none. The session works on duplicates. */
	int kick_fd, call_fd, error_fd;
	struct ring_position at; /* the used index is that of the ring */
	struct taken_region *region;
	struct dirty_log dirty;
	/* What these two are in; NULL: they are not. */
	struct lease *leases[LOAN_LEASES];
};

#endif
