/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See taken.h. */

#include <stdlib.h>
#include <string.h>

#include "ktvblk.h"
#include "taken.h"
#include "util.h"

/* Each field is read, or written, once. */
#define GET(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
#define SET(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELEASE)

void taken_init(struct taken_region *region, uint16_t size)
{
	memset(region, 0, taken_bytes(size));
	region->desc_num = size;
	SET(region->version, (uint16_t)TAKEN_VERSION);
}

/* Relaxed: pairs with stop_queues(), which may look at a worker that is left. */
static void count_to(struct taken *taken, uint64_t counter)
{
	__atomic_store_n(&taken->counter, counter, __ATOMIC_RELAXED);
}

static bool has(const struct taken *taken, uint16_t head)
{
	return head < taken->size;
}

/* Those given back by the store of a used index that nobody noted any more. */
static void settle_last(struct taken *taken, uint16_t used_idx)
{
	struct taken_region *region = taken->region;
	uint16_t n = (uint16_t)(used_idx - GET(region->used_idx));
	uint16_t head = GET(region->last_batch_head);

	/* A batch of ours is one; of others', it is no more than the ring. */
	for (n = MIN(n, taken->size); n && head < taken->size; n--) {
		SET(region->desc[head].inflight, (uint8_t)0);
		head = GET(region->desc[head].next);
	}
	SET(region->used_idx, used_idx);
}

/* Behind a copy, as the counters could change while they are sorted. */
struct undone {
	uint64_t counter;
	uint16_t head;
};

static int compare(const void *a, const void *b)
{
	const struct undone *x = (const struct undone *)a;
	const struct undone *y = (const struct undone *)b;

	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

void taken_recover(struct taken *taken, uint16_t used_idx)
{
	struct taken_region *region = taken->region;
	struct undone undone[KTVBLK_QUEUE_SIZE_MAX];
	uint16_t n = 0;

	if (!region)
		return;
	if (GET(region->version) != TAKEN_VERSION)
		taken_init(region, taken->size);
	settle_last(taken, used_idx);
	for (uint16_t i = 0; i < taken->size; i++)
		if (GET(region->desc[i].inflight))
			undone[n++] =
				(struct undone){ GET(region->desc[i].counter),
						 i };
	qsort(undone, n, sizeof(undone[0]), compare);
	for (uint16_t i = 0; i < n; i++)
		taken->again[i] = undone[i].head;
	taken->n_again = n;
	taken->again_at = 0;
	if (n)
		count_to(taken, MAX(taken->counter, undone[n - 1].counter + 1));
}

void taken_mark(struct taken *taken, uint16_t head)
{
	taken->from_again = false;
	if (has(taken, head)) {
		SET(taken->region->desc[head].counter, taken->counter);
		SET(taken->region->desc[head].inflight, (uint8_t)1);
	}
	count_to(taken, taken->counter + 1);
}

void taken_unmark(struct taken *taken, uint16_t head)
{
	count_to(taken, taken->counter - 1);
	taken_forget(taken, head);
}

void taken_forget(struct taken *taken, uint16_t head)
{
	if (has(taken, head))
		SET(taken->region->desc[head].inflight, (uint8_t)0);
}

void taken_will_push(struct taken *taken, uint16_t head)
{
	struct taken_region *region = taken->region;

	SET(region->desc[head].next, GET(region->last_batch_head));
	SET(region->last_batch_head, head);
}

void taken_pushed(struct taken *taken, uint16_t head, uint16_t used_idx)
{
	taken_forget(taken, head);
	SET(taken->region->used_idx, used_idx);
}

struct taken_rest taken_rest(const struct taken_region *region, uint16_t size,
			     uint64_t counter)
{
	struct taken_rest rest = { 0 };
	bool found = true;

	for (uint16_t i = 0; i < size; i++)
		rest.n_out = (uint16_t)(rest.n_out +
					!!GET(region->desc[i].inflight));
	while (found && rest.n_last < rest.n_out) {
		const uint64_t last = counter - rest.n_last - 1;

		found = false;
		for (uint16_t i = 0; i < size && !found; i++)
			found = GET(region->desc[i].inflight) &&
				GET(region->desc[i].counter) == last;
		rest.n_last = (uint16_t)(rest.n_last + found);
	}
	return rest;
}
