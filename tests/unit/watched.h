/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_WATCHED_H
#define TEST_WATCHED_H

/* A watch in a test's hands, which is worker and log thread to it. */

#include "harness.h"
#include "watch.h"

#define T0 (50 * NSEC_PER_SEC)
#define LIMIT (5 * NSEC_PER_SEC)
#define SLOTS 8u

/* A watch of this thread's, as a worker has it. */
__attribute__((unused)) static struct watch *enter_new(uint64_t limit_ns)
{
	struct disk_id *disk = disk_id_new("vda", 2048);
	const struct identity id = { disk, 7, 0 };
	struct watch *watch = watch_new(&id, limit_ns, NULL, SLOTS);

	disk_id_unref(disk);
	watch_enter(watch);
	return watch;
}

__attribute__((unused)) static void leave(struct watch *watch)
{
	watch_leave(watch);
	watch_unref(watch);
}

__attribute__((unused)) static bool begin_in(struct watch *watch, uint32_t slot,
					     uint64_t since_ns)
{
	const struct watch_request request = {
		.type = 1, .sector = 34, .length = 4096, .since_ns = since_ns
	};

	return watch_begin(watch, slot, &request);
}

__attribute__((unused)) static bool begin_at(struct watch *watch,
					     uint64_t since_ns)
{
	return begin_in(watch, 0, since_ns);
}

/* It ends, and that is told at once; true: it had been found. */
__attribute__((unused)) static bool end_in(struct watch *watch, uint32_t slot)
{
	const bool found = watch_end(watch, slot) == WATCH_MARKED;

	if (found)
		watch_close(watch, 0);
	return found;
}

__attribute__((unused)) static bool end(struct watch *watch)
{
	return end_in(watch, 0);
}

/* Nothing is busy and nobody looks, whatever happened before. */
__attribute__((unused)) static void look_until_idle(void)
{
	struct watch_snapshot seen;
	uint64_t again;

	ck_assert_ptr_null(watch_scan(T0, 0, &again, &seen));
	ck_assert_uint_eq(again, 0);
}

/* The same, where a look was due at that time. */
__attribute__((unused)) static void look_until_idle_at(uint64_t again)
{
	struct watch_snapshot seen;

	do
		ck_assert_ptr_null(watch_scan(again, 0, &again, &seen));
	while (again);
}

/* What a scan finds, without its reference. */
__attribute__((unused)) static struct watch *scan_at(uint64_t now,
						     uint64_t *ret_again)
{
	struct watch_snapshot seen;
	struct watch *watch = watch_scan(now, 0, ret_again, &seen);

	watch_unref(watch);
	return watch;
}

/* By a scan, which is told at its end: a bit of the word. */
__attribute__((unused)) static bool was_found(const struct watch *watch)
{
	return atomic_load(&watch->slots[0].word) & 2u;
}

__attribute__((unused)) static bool
is_of_one_request(const struct watch_request *seen)
{
	return seen->sector == seen->type * UINT64_C(3) &&
	       seen->length == seen->type * UINT64_C(5) &&
	       seen->since_ns == seen->type * UINT64_C(7);
}

#endif
