/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_ERA_H
#define KTVBLK_ERA_H

/*
 * What the device is from one reset to the next, shared by its sessions of that
 * time. A worker that a reset left behind keeps the old one, and so cannot touch
 * what the driver sees now.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The disk's cache as the driver has it. */
enum write_cache {
	CACHE_THROUGH, /* each write is durable */
	CACHE_BACK,
	CACHE_GUESSED_THROUGH, /* until there is a flush: it counts on those */
};

struct era {
	_Atomic unsigned int refs;
	_Atomic uint32_t status; /* see status.c */
	_Atomic uint32_t interrupt_status;
	_Atomic bool flush_failed; /* what was written before may be lost */
	_Atomic uint8_t cache; /* enum write_cache */
};

/* At the state of reset; NULL: no memory. */
struct era *era_new(void);
struct era *era_ref(struct era *era);
void era_unref(struct era *era);

/* Begin anew with the same one, which no worker has any more. */
void era_renew(struct era *era);

#endif
