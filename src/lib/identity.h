/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_IDENTITY_H
#define KTVBLK_IDENTITY_H

/*
 * What names a device on its records. The disk's part is shared by all that may
 * still speak of it, a record in the queue as well as a worker left behind; the
 * stop eventfd's number belongs to one session.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "events.h"

/* How often one kind of record came lately. Approximate under contention. */
struct rate_limit {
	_Atomic uint64_t window_start_ns;
	_Atomic uint32_t passed;
	_Atomic uint32_t suppressed;
};

struct disk_id {
	_Atomic unsigned int refs;
	uint64_t instance_id;
	_Atomic uint64_t capacity_sectors; /* see resize.c */
	_Atomic uint64_t told_bytes; /* the storage said that it has so many */
	struct rate_limit limits[EVENT_COUNT]; /* of each kind */
	struct rate_limit budget; /* of all that a guest can provoke */
	char name[]; /* empty: the VMM gave none */
};

struct identity {
	struct disk_id *disk; /* NULL only in a queued record of no device */
	int stop_fd;
	unsigned int of_queue; /* from 1; 0: the device's, or its only one's */
};

static inline uint64_t disk_id_sectors(const struct disk_id *disk)
{
	return atomic_load_explicit(&disk->capacity_sectors,
				    memory_order_acquire);
}

static inline uint64_t disk_id_told_bytes(const struct disk_id *disk)
{
	return atomic_load_explicit(&disk->told_bytes, memory_order_acquire);
}

/* A new one with the process's next instance_id; NULL: no memory. */
struct disk_id *disk_id_new(const char *name, uint64_t capacity_sectors);
struct disk_id *disk_id_ref(struct disk_id *disk);
void disk_id_unref(struct disk_id *disk);

/*
 * May this record go out at now_ns, if so many may in a window? *ret_suppressed:
 * how many were held back before, to be told now.
 */
bool rate_limit_pass(struct rate_limit *limit, uint32_t burst, uint64_t now_ns,
		     uint32_t *ret_suppressed);

/* The same for a record of this event, by all limits that it is under. */
bool disk_id_may_log(struct disk_id *disk, enum event event, uint64_t now_ns,
		     uint32_t *ret_suppressed);

#endif
