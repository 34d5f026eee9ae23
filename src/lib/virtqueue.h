/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VIRTQUEUE_H
#define KTVBLK_VIRTQUEUE_H

/*
 * The device's side of a split virtqueue (section 2.7). One worker owns it; its
 * parameters were latched at DRIVER_OK. Functions that return bool answer
 * false for an address that is not in guest memory, and then changed nothing.
 */

#include <stdbool.h>
#include <stdint.h>

#include "bounds.h"
#include "dirty.h"
#include "memory.h"
#include "taken.h"

/* As the driver set it up. */
struct queue_config {
	uint16_t size;
	bool ready;
	uint64_t desc_addr;
	uint64_t avail_addr;
	uint64_t used_addr;
};

struct virtqueue {
	const struct ktvblk_mem *mem;
	/* Then nothing is written any more; NULL: that cannot be. */
	const _Atomic bool *revoked;
	struct dirty_log dirty; /* of the whole session */
	struct queue_config ring;
	bool event_idx;
	bool indirect;
	struct piece desc, avail, used; /* by virtqueue_map() */
	uint16_t next_avail;
	uint16_t n_avail; /* chains known to be there, from next_avail on */
	uint16_t n_heads; /* of those, in heads[]: avail idx modulo its size */
	uint16_t heads[AVAIL_BATCH];
	uint16_t next_used;
	uint16_t num_added; /* used entries since the last look at used_event */
	struct taken taken;
};

enum pop_result {
	POP_HEAD,
	POP_EMPTY,
	POP_BAD_INDEX, /* avail idx is further ahead than the queue is long */
	POP_NO_ACCESS, /* the avail ring, or the entry, cannot be read */
};

struct chain_desc {
	uint64_t addr;
	uint32_t len;
	bool writable;
};

struct chain {
	unsigned int n_descs;
	struct chain_desc
		*descs; /* the owner's, with room for all there can be */
};
#define CHAIN_BYTES (CHAIN_DESC_MAX * sizeof(struct chain_desc))

enum chain_result {
	CHAIN_WHOLE,
	CHAIN_FLAWED, /* all of it is there, but it is no request */
	CHAIN_MALFORMED, /* it has no end that can be trusted */
};

/* Look the rings up, once mem and ring are set; without it all is slower. */
void virtqueue_map(struct virtqueue *vq);

/*
 * The ring was in use before: go on behind its used index, with the heads that an
 * earlier session took and did not give back.
 */
bool virtqueue_resume(struct virtqueue *vq);

/* Are they wholly in guest memory, with the fields that the feature brings? */
bool virtqueue_is_in_memory(const struct queue_config *ring, bool event_idx,
			    const struct ktvblk_mem *mem);

/* Take the next head; *ret_avail_idx is what POP_BAD_INDEX complains of. */
enum pop_result virtqueue_pop(struct virtqueue *vq, uint16_t *ret_head,
			      uint16_t *ret_avail_idx);

/* Put the head just taken back. */
void virtqueue_unpop(struct virtqueue *vq);

/* What was taken there has no end that the driver sees. */
static inline void virtqueue_forget(struct virtqueue *vq, uint16_t head)
{
	if (taken_is_wanted(&vq->taken))
		taken_forget(&vq->taken, head);
}

/*
 * Copy the chain at head, each descriptor once. *ret_reason is a constant that
 * says what is wrong with it; of one that is malformed *chain is of no use.
 */
enum chain_result virtqueue_read_chain(const struct virtqueue *vq,
				       uint16_t head, struct chain *chain,
				       const char **ret_reason);

/* The next chain will be wanted soon. */
void virtqueue_prefetch(const struct virtqueue *vq);

bool virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len);

/* Ask the driver not to notify; a hint, and nothing to do with EVENT_IDX. */
bool virtqueue_disable_notify(struct virtqueue *vq);

/* Ask it to notify again; *ret_more: it made more available before it knew. */
bool virtqueue_enable_notify(struct virtqueue *vq, bool *ret_more);

/* Is there a chain to take? */
bool virtqueue_has_more(const struct virtqueue *vq, bool *ret_more);

/*
 * Does the driver want an interrupt for what was pushed since the last look?
 * The caller has a full barrier between the last push and this.
 */
bool virtqueue_needs_irq(struct virtqueue *vq, bool *ret_needs);

#endif
