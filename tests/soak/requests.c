/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The guest's driver. Requests at work never overlap, so each write has wholly
 * happened or not at all, whatever became of its device.
 */

#include <poll.h>
#include <string.h>

#include "harness.h"
#include "soak.h"

static uint64_t data_addr(const struct guest *guest, const struct slot *slot)
{
	return SOAK_DATA + (uint64_t)(slot - guest->slots) * SLOT_BYTES;
}

static unsigned int index_of(const struct guest *guest, const struct slot *slot)
{
	return (unsigned int)(slot - guest->slots);
}

uint8_t *slot_status(struct guest *guest, const struct slot *slot)
{
	return (uint8_t *)rig_at(&guest->rig,
				 RIG_STATUS + index_of(guest, slot));
}

/* The i-th of the queue that is selected. */
static struct slot *slot_of(struct guest *guest, unsigned int i)
{
	return &guest->slots[guest->rig.queue * guest->n_slots + i];
}

static bool overlaps(const struct guest *guest, uint64_t offset, uint32_t len)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		const struct slot *slot = &guest->slots[i];

		if (slot->state != SLOT_FREE &&
		    offset < slot->offset + slot->len &&
		    slot->offset < offset + len)
			return true;
	}
	return false;
}

/* The chain: header, one or two parts of data, status; see rig_chain(). */
static void make_chain(struct guest *guest, struct slot *slot)
{
	const uint64_t data = data_addr(guest, slot);
	const unsigned int index = index_of(guest, slot);
	const unsigned int i = index % guest->n_slots;
	const uint16_t flags = slot->type == VIRTIO_BLK_T_OUT ? READABLE
							      : WRITABLE;
	const uint32_t first =
		slot->len ? 1 + (uint32_t)soak_random(guest, slot->len) : 0;
	struct rig *rig = &guest->rig;
	struct rig_part parts[4];
	size_t n = 0;

	slot->queue = rig->queue;
	slot->head = (uint16_t)(rig->options.features & RIG_INDIRECT_DESC
					? i
					: i * 4);
	rig_header(rig, RIG_HEADER + index * 16u, slot->type,
		   slot->offset / KTVBLK_SECTOR_SIZE);
	*slot_status(guest, slot) = SENTINEL;
	parts[n++] =
		(struct rig_part){ RIG_HEADER + index * 16u, 16, READABLE };
	if (first)
		parts[n++] = (struct rig_part){ data, first, flags };
	if (first < slot->len)
		parts[n++] = (struct rig_part){ data + first, slot->len - first,
						flags };
	parts[n++] = (struct rig_part){ RIG_STATUS + index, 1, WRITABLE };
	if (!(guest->rig.options.features & RIG_INDIRECT_DESC)) {
		rig_parts(rig, slot->head, parts, n);
		return;
	}
	for (size_t at = 0; at < n; at++)
		rig_indirect(rig, (uint16_t)(i * 8 + at), parts[at].addr,
			     parts[at].len,
			     (uint16_t)(parts[at].flags |
					(at + 1 < n ? VRING_DESC_F_NEXT : 0)),
			     (uint16_t)(at + 1));
	rig_desc(rig, slot->head,
		 RIG_INDIRECT + rig->queue * RIG_QUEUE_BYTES + i * 8 * 16u,
		 (uint32_t)(n * sizeof(struct vring_desc)),
		 VRING_DESC_F_INDIRECT, 0);
}

/* What to ask for; false: there is no room for it just now. */
static bool choose(struct guest *guest, struct slot *slot)
{
	const uint64_t what = soak_random(guest, 20);
	uint32_t len = guest->block_bytes;
	uint64_t offset = 0;

	/* That of a disk that is only read does not reach its storage. */
	if (what == 0 && !guest->read_only) {
		slot->type = VIRTIO_BLK_T_FLUSH;
		slot->offset = slot->len = 0;
		return true;
	}
	len *= 1 + (uint32_t)soak_random(guest, soak_random(guest, 8)
							? 16
							: SLOT_BYTES / len);
	offset = soak_random(guest,
			     (SOAK_DISK_BYTES - len) / guest->block_bytes + 1) *
		 guest->block_bytes;
	if (overlaps(guest, offset, len))
		return false;
	slot->type = what % 2 && !guest->read_only ? VIRTIO_BLK_T_OUT
						   : VIRTIO_BLK_T_IN;
	slot->offset = offset;
	slot->len = len;
	return true;
}

static void fill(struct guest *guest, struct slot *slot)
{
	unsigned char *data = rig_at(&guest->rig, data_addr(guest, slot));

	if (slot->type == VIRTIO_BLK_T_IN) {
		memset(data, SENTINEL, slot->len);
	} else {
		uint64_t word = soak_random(guest, UINT64_MAX);

		for (uint32_t i = 0; i < slot->len; i += 8, word += word << 7)
			memcpy(data + i, &word, sizeof(word));
		memcpy(slot->written, data, slot->len);
	}
}

/* Section 2.7.10: does the device want to hear of it? */
static bool wants_kick(struct guest *guest, uint16_t before)
{
	struct rig *rig = &guest->rig;

	if (rig->options.features & RIG_EVENT_IDX)
		return vring_need_event(rig_avail_event(rig), rig->avail_idx,
					before);
	return !(rig_used_flags(rig) & VRING_USED_F_NO_NOTIFY);
}

static void kick(struct guest *guest)
{
	const uint64_t one = 1;

	if (soak_random(guest, 2))
		rig_kick(&guest->rig);
	else
		must(guest, write(ktvblk_queue_kick_fd(guest->rig.dev,
						       guest->rig.queue),
				  &one, sizeof(one)) == sizeof(one));
}

/* On the queue that is selected: how many, up to n. */
static unsigned int submit(struct guest *guest, unsigned int n)
{
	const uint16_t before = guest->rig.avail_idx;
	uint16_t heads[SLOTS];
	unsigned int made = 0;

	for (unsigned int i = 0; i < guest->n_slots && made < n; i++) {
		struct slot *slot = slot_of(guest, i);

		if (slot->state != SLOT_FREE || !choose(guest, slot))
			continue;
		fill(guest, slot);
		make_chain(guest, slot);
		slot->state = SLOT_BUSY;
		heads[made++] = slot->head;
	}
	if (!made)
		return 0;
	rig_avail_all(&guest->rig, heads, made);
	if (wants_kick(guest, before))
		kick(guest);
	return made;
}

static unsigned int count_busy(const struct guest *guest)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SLOTS; i++)
		n += guest->slots[i].state == SLOT_BUSY;
	return n;
}

bool requests_submit(struct guest *guest, unsigned int n)
{
	const unsigned int first =
		(unsigned int)soak_random(guest, guest->n_queues);
	unsigned int made = 0;

	for (unsigned int i = 0; i < guest->n_queues && made < n; i++) {
		rig_select(&guest->rig, (first + i) % guest->n_queues);
		/* On one, or spread. */
		made += submit(guest, soak_random(guest, 2)
					      ? n - made
					      : (n - made + 1) / 2);
	}
	guest->figures.most_at_work =
		MAX(guest->figures.most_at_work, count_busy(guest));
	return made;
}

static void complete(struct guest *guest, const struct vring_used_elem *elem)
{
	struct rig *rig = &guest->rig;
	const unsigned int i = rig->options.features & RIG_INDIRECT_DESC
				       ? elem->id
				       : elem->id / 4;
	struct slot *slot = slot_of(guest, i);
	const void *data;

	must(guest, i < guest->n_slots && slot->state == SLOT_BUSY);
	must(guest, slot->head == elem->id);
	must(guest, *slot_status(guest, slot) == 0);
	data = rig_at(rig, data_addr(guest, slot));
	if (slot->type == VIRTIO_BLK_T_IN) {
		must(guest, elem->len == slot->len + 1);
		must(guest,
		     memcmp(data, guest->model + slot->offset, slot->len) == 0);
		guest->seen_reads++;
	} else {
		must(guest, elem->len == 1);
		/* Whatever it did, it did not write to what it was to read. */
		must(guest, memcmp(data, slot->written, slot->len) == 0);
		memcpy(guest->model + slot->offset, slot->written, slot->len);
		guest->seen_writes += slot->type == VIRTIO_BLK_T_OUT;
	}
	slot->state = SLOT_FREE;
	guest->figures.requests++;
	guest->figures.bytes += slot->len;
}

/* Of the queue that is selected. */
static bool take_used(struct guest *guest)
{
	struct rig *rig = &guest->rig;
	bool any = false;

	while (rig->used_seen != rig_used_idx(rig)) {
		const struct vring_used_elem elem =
			rig_used(rig, rig->used_seen);

		rig->used_seen++;
		complete(guest, &elem);
		any = true;
	}
	return any;
}

static bool take_all(struct guest *guest)
{
	bool any = false;

	for (unsigned int i = 0; i < guest->n_queues; i++) {
		rig_select(&guest->rig, i);
		any |= take_used(guest);
	}
	return any;
}

static void ask_for_interrupts(struct guest *guest)
{
	for (unsigned int i = 0; i < guest->n_queues; i++) {
		rig_select(&guest->rig, i);
		rig_set_used_event(&guest->rig, guest->rig.used_seen);
	}
}

void requests_reap(struct guest *guest, bool wait)
{
	struct rig *rig = &guest->rig;
	struct pollfd irq = { .fd = ktvblk_irq_fd(rig->dev), .events = POLLIN };
	uint64_t n;

	while (!take_all(guest) && wait && count_busy(guest)) {
		ask_for_interrupts(guest);
		if (take_all(guest))
			return;
		/* Nothing but the interrupt wakes us: none may be lost. */
		must(guest, poll(&irq, 1, (int)WAIT_MS) == 1);
		must(guest, read(irq.fd, &n, sizeof(n)) == sizeof(n));
	}
}

void requests_finish(struct guest *guest)
{
	while (count_busy(guest))
		requests_reap(guest, true);
}

void requests_abandon(struct guest *guest)
{
	for (unsigned int i = 0; i < SLOTS; i++)
		if (guest->slots[i].state == SLOT_BUSY)
			guest->slots[i].state = SLOT_UNCERTAIN;
}

static void settle(struct guest *guest, struct slot *slot)
{
	const unsigned char *disk = guest->disk + slot->offset;
	unsigned char *model = guest->model + slot->offset;

	if (slot->type == VIRTIO_BLK_T_OUT &&
	    memcmp(disk, slot->written, slot->len) == 0)
		memcpy(model, slot->written, slot->len);
	must(guest, memcmp(disk, model, slot->len) == 0);
	slot->state = SLOT_FREE;
}

void requests_settle(struct guest *guest)
{
	if (guest->rig.dev &&
	    ktvblk_get_state(guest->rig.dev) == KTVBLK_STATE_WEDGED)
		return;
	for (unsigned int i = 0; i < SLOTS; i++)
		if (guest->slots[i].state == SLOT_UNCERTAIN)
			settle(guest, &guest->slots[i]);
}
