/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See disk-throttle.h. */

#include "bounds.h"
#include "disk-throttle.h"
#include "util.h"

struct disk_throttle *disk_throttle_new(const struct ktvblk_throttle *config,
					uint64_t now)
{
	struct disk_throttle *shared = calloc(1, sizeof(*shared));

	if (!shared)
		return NULL;
	atomic_init(&shared->refs, 1);
	throttle_init(&shared->throttle, config, now);
	atomic_init(&shared->limits, throttle_limits(&shared->throttle));
	return shared;
}

struct disk_throttle *disk_throttle_ref(struct disk_throttle *shared)
{
	refs_get(&shared->refs);
	return shared;
}

void disk_throttle_unref(struct disk_throttle *shared)
{
	if (shared && refs_put(&shared->refs))
		free(shared);
}

bool disk_throttle_change(struct disk_throttle *shared,
			  const struct ktvblk_throttle *config,
			  uint64_t deadline_ns)
{
	if (!gate_enter_until(&shared->lock, deadline_ns))
		return false;
	throttle_change(&shared->throttle, config, now_ns());
	atomic_store(&shared->limits, throttle_limits(&shared->throttle));
	/* Before the kick: the worker reads that, and then this. */
	atomic_fetch_add(&shared->changes, 1);
	gate_leave(&shared->lock);
	return true;
}

void disk_throttle_leave(struct disk_throttle *shared,
			 const _Atomic bool *revoked)
{
	const _Atomic bool *first = revoked;

	atomic_compare_exchange_strong(&shared->first, &first, NULL);
}

/* Behind the first, which looks again by itself when there is enough for it. */
static struct throttle_verdict wait_behind(struct throttle *throttle,
					   uint64_t bytes, uint64_t now)
{
	return (struct throttle_verdict){
		.wait_ns = MAX(throttle_wait_ns(throttle, bytes, now), TURN_NS),
	};
}

/* With the lock. */
static struct throttle_verdict take(struct disk_throttle *shared,
				    const _Atomic bool *revoked, uint64_t bytes,
				    uint64_t now)
{
	const _Atomic bool *first = atomic_load(&shared->first);
	struct throttle_verdict verdict;

	if (first && first != revoked)
		return wait_behind(&shared->throttle, shared->first_bytes, now);
	verdict = throttle_take(&shared->throttle, bytes, now);
	if (verdict.ops_ok && verdict.bytes_ok) {
		disk_throttle_leave(shared, revoked);
		return verdict;
	}
	shared->first_bytes = bytes;
	atomic_store(&shared->first, revoked);
	/*
	 * Who revokes it sets that first and then has it leave: one of us sees
	 * the other.
	 */
	if (atomic_load(revoked))
		disk_throttle_leave(shared, revoked);
	return verdict;
}

bool disk_throttle_take(struct disk_throttle *shared,
			const _Atomic bool *revoked, uint64_t bytes,
			uint64_t now, struct throttle_verdict *ret_verdict)
{
	bool granted;

	if (!disk_throttle_limits(shared)) {
		*ret_verdict = (struct throttle_verdict){ .ops_ok = true,
							  .bytes_ok = true };
		return true;
	}
	gate_enter(&shared->lock);
	granted = !atomic_load(revoked);
	if (granted)
		*ret_verdict = take(shared, revoked, bytes, now);
	gate_leave(&shared->lock);
	return granted;
}

void disk_throttle_look(struct disk_throttle *shared, struct throttle *ret)
{
	gate_enter(&shared->lock);
	*ret = shared->throttle;
	gate_leave(&shared->lock);
}

static void set_balance(struct bucket *bucket, const struct bucket *from,
			uint64_t now)
{
	if (!bucket->rate || !from->rate)
		return;
	bucket_init(bucket, bucket->capacity, bucket->rate, now);
	if (from->available < bucket->available) {
		bucket->available = from->available;
		bucket->remainder = from->remainder;
	}
}

void disk_throttle_set_balance(struct disk_throttle *shared,
			       const struct throttle *from, uint64_t now)
{
	gate_enter(&shared->lock);
	set_balance(&shared->throttle.ops, &from->ops, now);
	set_balance(&shared->throttle.bytes, &from->bytes, now);
	gate_leave(&shared->lock);
}
