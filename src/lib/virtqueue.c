/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Ring fields are little-endian and shared with the guest's CPUs.
 *
 * Two places need a store of ours to be seen before a load of ours, against
 * the driver doing the mirror image: avail_event, then avail idx; and used
 * idx, then used_event. The first are seq_cst here. Between the second there is
 * a fence, the caller's, before the load and not behind the store: a store that
 * waits for the driver's cache costs more than all else we do to a request, and
 * in between it gets there by itself. Both pair with the full barrier the
 * driver has between its own two accesses.
 *
 * The lines of a ring that the driver has just written are slow to come. So
 * avail idx is read again only when all it promised has been taken, its entries
 * are read many at a time, and what the next chain needs is asked for before
 * the storage is.
 */

#include <linux/virtio_ring.h>

#include "util.h"
#include "virtqueue.h"

/* Offsets into the avail and the used ring. */
#define RING_FLAGS 0u
#define RING_IDX 2u
#define RING_ENTRIES 4u

static unsigned int slot(const struct virtqueue *vq, uint16_t idx)
{
	return idx & (vq->ring.size - 1u);
}

/* Where the head at that avail idx is kept. */
static unsigned int kept(uint16_t idx)
{
	return idx % AVAIL_BATCH;
}

/* Offsets into the rings, of what has no place in their heads. */
static uint64_t avail_entry(const struct virtqueue *vq, uint16_t idx)
{
	return RING_ENTRIES + sizeof(uint16_t) * slot(vq, idx);
}

static uint64_t used_entry(const struct virtqueue *vq, uint16_t idx)
{
	return RING_ENTRIES + sizeof(struct vring_used_elem) * slot(vq, idx);
}

static uint64_t used_event(const struct queue_config *ring)
{
	return RING_ENTRIES + sizeof(uint16_t) * ring->size;
}

static uint64_t avail_event(const struct queue_config *ring)
{
	return RING_ENTRIES + sizeof(struct vring_used_elem) * ring->size;
}

void virtqueue_map(struct virtqueue *vq)
{
	vq->desc = piece_at(vq->mem, vq->ring.desc_addr,
			    sizeof(struct vring_desc) * vq->ring.size);
	vq->avail = piece_at(vq->mem, vq->ring.avail_addr,
			     used_event(&vq->ring) + sizeof(uint16_t));
	vq->used = piece_for(vq->mem, vq->ring.used_addr,
			     avail_event(&vq->ring) + sizeof(uint16_t), true);
}

bool virtqueue_is_in_memory(const struct queue_config *ring, bool event_idx,
			    const struct ktvblk_mem *mem)
{
	const uint64_t event = event_idx ? sizeof(uint16_t) : 0;

	return mem_covers(mem, ring->desc_addr,
			  sizeof(struct vring_desc) * ring->size) &&
	       mem_covers(mem, ring->avail_addr, used_event(ring) + event) &&
	       mem_covers_writable(mem, ring->used_addr,
				   avail_event(ring) + event);
}

/* A field of a ring, or NULL; the guest chose the ring's address. */
static void *field(const struct virtqueue *vq, const struct piece *piece,
		   uint64_t ring, uint64_t offset, size_t size, bool writing)
{
	uint64_t addr;

	if (offset + size <= piece->bytes)
		return piece->host + offset;
	return __builtin_add_overflow(ring, offset, &addr)
		       ? NULL
		       : mem_at_for(vq->mem, addr, size, writing);
}

static inline void *used_field(const struct virtqueue *vq, uint64_t offset,
			       size_t size)
{
	return field(vq, &vq->used, vq->ring.used_addr, offset, size, true);
}

static bool load_avail(const struct virtqueue *vq, uint64_t offset,
		       uint16_t *ret)
{
	const _Atomic uint16_t *at =
		(_Atomic uint16_t *)field(vq, &vq->avail, vq->ring.avail_addr,
					  offset, sizeof(*at), false);

	if (!at)
		return false;
	*ret = le16toh(atomic_load(at));
	return true;
}

/* Acquire: pairs with the store of who takes the session away. */
static bool revoked(const struct virtqueue *vq)
{
	return vq->revoked &&
	       atomic_load_explicit(vq->revoked, memory_order_acquire);
}

static bool store_used(const struct virtqueue *vq, uint64_t offset,
		       uint16_t value)
{
	_Atomic uint16_t *at =
		(_Atomic uint16_t *)used_field(vq, offset, sizeof(*at));

	if (!at)
		return false;
	if (revoked(vq))
		return true;
	atomic_store(at, htole16(value));
	dirty_tell(&vq->dirty, vq->ring.used_addr + offset, sizeof(*at));
	return true;
}

/* Relaxed: pairs with stop_queues(), which may look at a worker that is left. */
static void move_to(struct virtqueue *vq, uint16_t next_avail)
{
	__atomic_store_n(&vq->next_avail, next_avail, __ATOMIC_RELAXED);
}

/* Have the driver's avail idx, when all of the last was taken. */
static enum pop_result look(struct virtqueue *vq, uint16_t *ret_avail_idx)
{
	uint16_t idx, n;

	/* Acquire: the entries and chains were written before the index. */
	if (!vq->ring.avail_addr || !load_avail(vq, RING_IDX, &idx))
		return POP_NO_ACCESS;
	*ret_avail_idx = idx;
	n = (uint16_t)(idx - vq->next_avail);
	if (n > vq->ring.size)
		return POP_BAD_INDEX;
	vq->n_avail = n;
	return n ? POP_HEAD : POP_EMPTY;
}

/* Read entries of the avail ring, as many as can be had. */
static void read_heads(struct virtqueue *vq)
{
	const uint16_t max = MIN(vq->n_avail, (uint16_t)AVAIL_BATCH);
	uint16_t n, idx;

	for (n = 0; n < max; n++) {
		idx = (uint16_t)(vq->next_avail + n);
		if (!load_avail(vq, avail_entry(vq, idx),
				&vq->heads[kept(idx)]))
			break;
	}
	vq->n_heads = n;
}

bool virtqueue_resume(struct virtqueue *vq)
{
	const _Atomic uint16_t *at =
		(_Atomic uint16_t *)used_field(vq, RING_IDX, sizeof(*at));

	if (!at)
		return false;
	vq->next_used = le16toh(atomic_load(at));
	taken_recover(&vq->taken, vq->next_used);
	/*
	 * A front end whose back end was killed knows no more than what was used,
	 * but what was taken is either that or still out.
	 */
	if ((uint16_t)(vq->next_avail - vq->next_used) < vq->taken.n_again)
		move_to(vq, (uint16_t)(vq->next_used + vq->taken.n_again));
	return true;
}

/* One that an earlier session took. */
static uint16_t pop_again(struct taken *taken)
{
	taken->from_again = true;
	taken->n_again--;
	return taken->again[taken->again_at++];
}

enum pop_result virtqueue_pop(struct virtqueue *vq, uint16_t *ret_head,
			      uint16_t *ret_avail_idx)
{
	enum pop_result result;

	if (!vq->n_heads) {
		/* There are such only where none was read yet. */
		if (vq->taken.n_again) {
			*ret_head = pop_again(&vq->taken);
			return POP_HEAD;
		}
		if (!vq->n_avail &&
		    (result = look(vq, ret_avail_idx)) != POP_HEAD)
			return result;
		read_heads(vq);
		if (!vq->n_heads)
			return POP_NO_ACCESS;
	}
	*ret_head = vq->heads[kept(vq->next_avail)];
	move_to(vq, (uint16_t)(vq->next_avail + 1u));
	vq->n_avail--;
	vq->n_heads--;
	if (taken_is_wanted(&vq->taken))
		taken_mark(&vq->taken, *ret_head);
	return POP_HEAD;
}

void virtqueue_unpop(struct virtqueue *vq)
{
	if (vq->taken.from_again) {
		vq->taken.again_at--;
		vq->taken.n_again++;
		return;
	}
	move_to(vq, (uint16_t)(vq->next_avail - 1u));
	vq->n_avail++;
	vq->n_heads++;
	if (taken_is_wanted(&vq->taken))
		taken_unmark(&vq->taken, vq->heads[kept(vq->next_avail)]);
}

/* Where the walk is: in the ring's own table, or in one indirect table. */
struct walk {
	uint64_t table;
	struct piece piece; /* what of it can be read without asking */
	uint32_t n_entries;
	uint32_t index;
	uint32_t steps;
	bool indirect;
};

/* Enter an indirect table; the reason if the descriptor is not a good one. */
static const char *enter_indirect(const struct virtqueue *vq, struct walk *walk,
				  uint64_t addr, uint32_t len, uint16_t flags)
{
	if (!vq->indirect)
		return "indirect descriptor, not negotiated";
	if (walk->indirect)
		return "nested indirect descriptor";
	if (flags & VRING_DESC_F_NEXT)
		return "indirect descriptor with a next";
	if (len == 0 || len % sizeof(struct vring_desc))
		return "indirect table of a bad length";
	*walk = (struct walk){
		.table = addr,
		.piece = piece_at(vq->mem, addr, len),
		.n_entries = MIN(len / (uint32_t)sizeof(struct vring_desc),
				 TABLE_DESC_MAX),
		.indirect = true,
	};
	return NULL;
}

static bool read_desc(const struct virtqueue *vq, const struct walk *walk,
		      struct vring_desc *desc)
{
	const uint64_t offset = walk->index * sizeof(*desc);
	uint64_t addr;

	if (offset + sizeof(*desc) <= walk->piece.bytes &&
	    load_once(walk->piece.host + offset, desc))
		return true;
	return !__builtin_add_overflow(walk->table, offset, &addr) &&
	       mem_read_once(vq->mem, addr, desc, sizeof(*desc));
}

/* The head that comes after skip others, as a place in the ring's table. */
static const void *coming(const struct virtqueue *vq, uint16_t skip)
{
	const uint64_t size = sizeof(struct vring_desc);
	uint16_t head;

	if (skip >= vq->n_heads)
		return NULL;
	head = vq->heads[kept((uint16_t)(vq->next_avail + skip))];
	return (head + 1u) * size > vq->desc.bytes
		       ? NULL
		       : vq->desc.host + head * size;
}

void virtqueue_prefetch(const struct virtqueue *vq)
{
	const void *at = coming(vq, 0);
	struct vring_desc desc;
	uint64_t have;

	if (at && load_once(at, &desc))
		/* An indirect table, or the request's header. */
		__builtin_prefetch(
			mem_span(vq->mem, le64toh(desc.addr), 1, &have));
	__builtin_prefetch(coming(vq, 1));
}

enum chain_result virtqueue_read_chain(const struct virtqueue *vq,
				       uint16_t head, struct chain *chain,
				       const char **ret_reason)
{
	struct walk walk = { .table = vq->ring.desc_addr,
			     .piece = vq->desc,
			     .n_entries = vq->ring.size,
			     .index = head };
	const char *flaw = NULL;
	bool writable = false;
	uint64_t total = 0;

	chain->n_descs = 0;
	for (;;) {
		struct vring_desc desc;
		uint64_t addr;
		uint16_t flags;
		uint32_t len;

		*ret_reason = "descriptor index out of range";
		if (walk.index >= walk.n_entries)
			return CHAIN_MALFORMED;
		*ret_reason = "descriptor loop";
		if (walk.steps++ == walk.n_entries)
			return CHAIN_MALFORMED;
		*ret_reason = "descriptor not in guest memory";
		if (!read_desc(vq, &walk, &desc))
			return CHAIN_MALFORMED;
		addr = le64toh(desc.addr);
		len = le32toh(desc.len);
		flags = le16toh(desc.flags);
		if (flags & VRING_DESC_F_INDIRECT) {
			*ret_reason =
				enter_indirect(vq, &walk, addr, len, flags);
			if (*ret_reason)
				return CHAIN_MALFORMED;
			continue;
		}
		total += len;
		if (writable && !(flags & VRING_DESC_F_WRITE))
			flaw = "readable descriptor after a writable one";
		writable = flags & VRING_DESC_F_WRITE;
		chain->descs[chain->n_descs++] = (struct chain_desc){
			.addr = addr, .len = len, .writable = writable
		};
		if (!(flags & VRING_DESC_F_NEXT))
			break;
		walk.index = le16toh(desc.next);
	}
	if (total > UINT32_MAX)
		flaw = "total length above 4 GiB";
	*ret_reason = flaw;
	return flaw ? CHAIN_FLAWED : CHAIN_WHOLE;
}

bool virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
	const uint64_t entry = used_entry(vq, vq->next_used);
	/* 4-aligned each, so an entry may lie across two regions. */
	uint32_t *elem_id = (uint32_t *)used_field(vq, entry, 4);
	uint32_t *elem_len = (uint32_t *)used_field(vq, entry + 4, 4);
	_Atomic uint16_t *idx =
		(_Atomic uint16_t *)used_field(vq, RING_IDX, sizeof(*idx));

	/* All before any is written: the cursors must not part. */
	if (!elem_id || !elem_len || !idx)
		return false;
	if (revoked(vq))
		return true;
	__atomic_store_n(elem_id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(elem_len, htole32(len), __ATOMIC_RELAXED);
	/* The page of the entry may have been waited for. */
	if (revoked(vq))
		return true;
	vq->next_used++;
	vq->num_added++;
	/* The index twice: it is written, too, and then the driver knows. */
	if (dirty_is_wanted(&vq->dirty)) {
		dirty_tell(&vq->dirty, vq->ring.used_addr + entry,
			   sizeof(struct vring_used_elem));
		dirty_tell(&vq->dirty, vq->ring.used_addr + RING_IDX,
			   sizeof(*idx));
	}
	if (taken_is_wanted(&vq->taken))
		taken_will_push(&vq->taken, head);
	/* Releases the entry, the status byte and the data before it. */
	atomic_store_explicit(idx, htole16(vq->next_used),
			      memory_order_release);
	if (taken_is_wanted(&vq->taken))
		taken_pushed(&vq->taken, head, vq->next_used);
	dirty_tell(&vq->dirty, vq->ring.used_addr + RING_IDX, sizeof(*idx));
	return true;
}

bool virtqueue_disable_notify(struct virtqueue *vq)
{
	return vq->event_idx ||
	       store_used(vq, RING_FLAGS, VRING_USED_F_NO_NOTIFY);
}

bool virtqueue_has_more(const struct virtqueue *vq, bool *ret_more)
{
	uint16_t idx;

	if (!load_avail(vq, RING_IDX, &idx))
		return false;
	*ret_more = idx != vq->next_avail || vq->taken.n_again;
	return true;
}

bool virtqueue_enable_notify(struct virtqueue *vq, bool *ret_more)
{
	if (vq->event_idx) {
		if (!store_used(vq, avail_event(&vq->ring), vq->next_avail))
			return false;
	} else if (!store_used(vq, RING_FLAGS, 0)) {
		return false;
	}
	return virtqueue_has_more(vq, ret_more);
}

bool virtqueue_needs_irq(struct virtqueue *vq, bool *ret_needs)
{
	const uint16_t added = vq->num_added;
	uint16_t event, flags;

	vq->num_added = 0;
	if (!vq->event_idx) {
		if (!load_avail(vq, RING_FLAGS, &flags))
			return false;
		*ret_needs = !(flags & VRING_AVAIL_F_NO_INTERRUPT);
		return true;
	}
	if (!load_avail(vq, used_event(&vq->ring), &event))
		return false;
	*ret_needs = (uint16_t)(vq->next_used - event - 1) < added;
	return true;
}
