/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_TAKEN_H
#define KTVBLK_TAKEN_H

/*
 * Which heads of a ring were taken and not given back, and in which order, in
 * memory that outlives the session: so another one, of another process if need
 * be, takes them up again. It is laid out as vhost-user has it, and in the order
 * of its stores, so that a process may be killed between any two.
 *
 * Others may have that memory mapped: what is read of it is not believed.
 * Belongs to a session's virtqueue, and so to its worker, with the gate held.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct taken_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};

#define TAKEN_VERSION 1u

struct taken_region {
	uint64_t features; /* 0 */
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct taken_desc desc[]; /* one for each of the queue */
};

static inline size_t taken_bytes(uint16_t size)
{
	return sizeof(struct taken_region) + size * sizeof(struct taken_desc);
}

struct taken {
	struct taken_region *region; /* NULL: nobody wants to know */
	uint16_t size; /* there are so many in it */
	uint16_t n_again; /* to be taken once more, of again[] ... */
	uint16_t again_at; /* ... from here on */
	bool from_again; /* the last one taken was one of them */
	uint64_t counter; /* of the next that is taken from the ring */
	uint16_t *again; /* the owner's, with room for size */
};

/* A region that was never used. */
void taken_init(struct taken_region *region, uint16_t size);

/*
 * At the start, used_idx being the ring's: what an earlier owner left undone, in
 * its order, is to be taken once more.
 */
void taken_recover(struct taken *taken, uint16_t used_idx);

/* The rest is only for a ring of which somebody does. */
static inline bool taken_is_wanted(const struct taken *taken)
{
	return __builtin_expect(taken->region != NULL, 0);
}

void taken_mark(struct taken *taken, uint16_t head);
/* The last one marked was put back. */
void taken_unmark(struct taken *taken, uint16_t head);
/* It will not be given back, and it is not to be taken again either. */
void taken_forget(struct taken *taken, uint16_t head);
/* Around the store of the used index, of a head of the ring: before, and behind. */
void taken_will_push(struct taken *taken, uint16_t head);
void taken_pushed(struct taken *taken, uint16_t head, uint16_t used_idx);

/* How many are still out; and of those, taken last, one behind the other. */
struct taken_rest {
	uint16_t n_out;
	uint16_t n_last;
};
struct taken_rest taken_rest(const struct taken_region *region, uint16_t size,
			     uint64_t counter);

#endif
