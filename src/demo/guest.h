/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_GUEST_H
#define DEMO_GUEST_H

/*
 * Guest memory. It is mapped by us and lent to the device, which may need it
 * longer than we think: a worker that is stuck in storage still has it. So it
 * is unmapped by the release callback and nowhere else.
 */

#include <stdatomic.h>
#include <stdbool.h>

#include <ktvblk.h>

#define GUEST_BASE UINT64_C(0x40000000) /* where the guest sees it */
#define GUEST_BYTES (UINT64_C(16) << 20)

/* The upper half is nobody's; the lower is the driver's. */
#define GUEST_FREE (GUEST_BASE + GUEST_BYTES / 2)
#define GUEST_FREE_BYTES (GUEST_BYTES / 2)

struct guest {
	unsigned char *ram;
	struct ktvblk_mem *mem;
	_Atomic unsigned int releases; /* how often the callback ran */
	int released; /* event: it did */
};

void guest_open(struct guest *guest);

/* Give our own reference up, once the device has taken one. */
void guest_lend(struct guest *guest);

/* Wait until the memory is unmapped; false: it is not. */
bool guest_close(struct guest *guest);

/* What the guest has at an address of its own. */
void *guest_at(const struct guest *guest, uint64_t addr);

#endif
