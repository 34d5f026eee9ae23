/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Identities are counted, never pointers: a record must not tell addresses. */

#include <string.h>

#include "identity.h"
#include "bounds.h"
#include "util.h"

static _Atomic uint64_t next_instance_id;

struct disk_id *disk_id_new(const char *name, uint64_t capacity_sectors)
{
	size_t len = name ? strlen(name) : 0;
	struct disk_id *disk = calloc(1, sizeof(*disk) + len + 1);

	if (!disk)
		return NULL;
	atomic_init(&disk->refs, 1);
	disk->instance_id = atomic_fetch_add_explicit(&next_instance_id, 1,
						      memory_order_relaxed);
	atomic_init(&disk->capacity_sectors, capacity_sectors);
	if (name)
		memcpy(disk->name, name, len);
	return disk;
}

struct disk_id *disk_id_ref(struct disk_id *disk)
{
	if (disk)
		refs_get(&disk->refs);
	return disk;
}

void disk_id_unref(struct disk_id *disk)
{
	if (disk && refs_put(&disk->refs))
		free(disk);
}

bool rate_limit_pass(struct rate_limit *limit, uint32_t burst, uint64_t now_ns,
		     uint32_t *ret_suppressed)
{
	uint64_t start = atomic_load_explicit(&limit->window_start_ns,
					      memory_order_relaxed);

	*ret_suppressed = 0;
	if ((start == 0 || now_ns - start >= LOG_LIMIT_NS) &&
	    atomic_compare_exchange_strong_explicit(
		    &limit->window_start_ns, &start, now_ns,
		    memory_order_relaxed, memory_order_relaxed)) {
		*ret_suppressed = atomic_exchange_explicit(
			&limit->suppressed, 0, memory_order_relaxed);
		atomic_store_explicit(&limit->passed, 1, memory_order_relaxed);
		return true;
	}
	if (atomic_load_explicit(&limit->passed, memory_order_relaxed) <
	    burst) {
		atomic_fetch_add_explicit(&limit->passed, 1,
					  memory_order_relaxed);
		return true;
	}
	atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
	return false;
}

bool disk_id_may_log(struct disk_id *disk, enum event event, uint64_t now_ns,
		     uint32_t *ret_suppressed)
{
	const int flags = event_table[event].flags;
	struct rate_limit *limit = &disk->limits[event];
	uint32_t any;

	*ret_suppressed = 0;
	if (!(flags & (EV_LIMITED | EV_REPEATED)))
		return true;
	if (!rate_limit_pass(limit, LOG_LIMIT_BURST, now_ns, ret_suppressed))
		return false;
	if (!(flags & EV_LIMITED) ||
	    rate_limit_pass(&disk->budget, LOG_BUDGET_BURST, now_ns, &any))
		return true;
	/* Told with those of its own kind. */
	atomic_fetch_add_explicit(&limit->suppressed, *ret_suppressed + 1,
				  memory_order_relaxed);
	return false;
}
