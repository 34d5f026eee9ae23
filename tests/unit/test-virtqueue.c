/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The rings by direct calls: which head comes next, what goes onto the used
 * ring, who is told of it. Chains are in test-chain.c.
 */

#include <linux/virtio_ring.h>
#include <string.h>

#include "harness.h"
#include "virtqueue.h"

#define RAM_BYTES 0x10000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define NOWHERE 0x1000000u

/* A queue in memory of two regions, that meet in the middle. */
struct ring {
	unsigned char *ram;
	struct ktvblk_mem *mem;
	struct virtqueue vq;
};

static void ring_open(struct ring *ring, uint16_t size)
{
	struct ktvblk_region regions[2] = {
		{ .guest_addr = 0, .size = RAM_BYTES / 2 },
		{ .guest_addr = RAM_BYTES / 2, .size = RAM_BYTES / 2 },
	};

	memset(ring, 0, sizeof(*ring));
	ring->ram = aligned_alloc(4096, RAM_BYTES);
	ck_assert_ptr_nonnull(ring->ram);
	memset(ring->ram, 0, RAM_BYTES);
	regions[0].host_addr = ring->ram;
	regions[1].host_addr = ring->ram + RAM_BYTES / 2;
	ck_assert_int_eq(ktvblk_mem_new(regions, 2, NULL, NULL, &ring->mem), 0);
	ring->vq = (struct virtqueue){
		.mem = ring->mem,
		.ring = { .size = size,
			  .ready = true,
			  .avail_addr = AVAIL,
			  .used_addr = USED },
	};
	virtqueue_map(&ring->vq);
}

static void ring_move(struct ring *ring, uint64_t avail, uint64_t used)
{
	ring->vq.ring.avail_addr = avail;
	ring->vq.ring.used_addr = used;
	virtqueue_map(&ring->vq);
}

static void ring_close(struct ring *ring)
{
	ktvblk_mem_unref(ring->mem);
	free(ring->ram);
}

static void put16(struct ring *ring, uint64_t addr, uint16_t value)
{
	value = htole16(value);
	memcpy(ring->ram + addr, &value, sizeof(value));
}

static uint16_t get16(const struct ring *ring, uint64_t addr)
{
	uint16_t value;

	memcpy(&value, ring->ram + addr, sizeof(value));
	return le16toh(value);
}

static uint32_t get32(const struct ring *ring, uint64_t addr)
{
	uint32_t value;

	memcpy(&value, ring->ram + addr, sizeof(value));
	return le32toh(value);
}

static void put_avail(struct ring *ring, uint16_t slot, uint16_t head)
{
	put16(ring, ring->vq.ring.avail_addr + 4 + 2u * slot, head);
}

static void put_avail_idx(struct ring *ring, uint16_t idx)
{
	put16(ring, ring->vq.ring.avail_addr + 2, idx);
}

/* Pop says this, with that head if there is one. */
#define ck_assert_pop(ring, want_result, want_head)                            \
	do {                                                                   \
		uint16_t head_ = 0xdead, idx_ = 0xdead;                        \
                                                                               \
		ck_assert_int_eq(virtqueue_pop(&(ring)->vq, &head_, &idx_),    \
				 want_result);                                 \
		if ((want_result) == POP_HEAD)                                 \
			ck_assert_uint_eq(head_, want_head);                   \
	} while (0)

START_TEST(pop_of_an_empty_ring_is_empty)
{
	struct ring ring;

	ring_open(&ring, 8);
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ck_assert_uint_eq(ring.vq.next_avail, 0);
	ring_close(&ring);
}
END_TEST

START_TEST(pop_takes_heads_in_their_order)
{
	struct ring ring;

	ring_open(&ring, 8);
	put_avail(&ring, 0, 5);
	put_avail(&ring, 1, 2);
	put_avail(&ring, 2, 5);
	put_avail_idx(&ring, 3);
	ck_assert_pop(&ring, POP_HEAD, 5);
	ck_assert_pop(&ring, POP_HEAD, 2);
	ck_assert_pop(&ring, POP_HEAD, 5);
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ring_close(&ring);
}
END_TEST

START_TEST(pop_wraps_at_65536)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.next_avail = 65535;
	put_avail(&ring, 7, 3);
	put_avail(&ring, 0, 4);
	put_avail_idx(&ring, 1);
	ck_assert_pop(&ring, POP_HEAD, 3);
	ck_assert_pop(&ring, POP_HEAD, 4);
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ck_assert_uint_eq(ring.vq.next_avail, 1);
	ring_close(&ring);
}
END_TEST

/* A full ring is legal, one more is not; it takes nothing. 12.3.19 */
START_TEST(pop_refuses_an_index_beyond_the_size)
{
	uint16_t head, idx = 0;
	struct ring ring;

	for (unsigned int size = 1; size <= 256; size *= 2) {
		ring_open(&ring, (uint16_t)size);
		ring.vq.next_avail = 65500;
		put_avail_idx(&ring, (uint16_t)(65500 + size + 1));
		ck_assert_int_eq(virtqueue_pop(&ring.vq, &head, &idx),
				 POP_BAD_INDEX);
		ck_assert_uint_eq(idx, (uint16_t)(65500 + size + 1));
		ck_assert_uint_eq(ring.vq.next_avail, 65500);
		put_avail_idx(&ring, (uint16_t)(65500 + size));
		ck_assert_pop(&ring, POP_HEAD, 0);
		ring_close(&ring);
	}
}
END_TEST

START_TEST(pop_refuses_an_index_that_went_back)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.next_avail = 5;
	put_avail_idx(&ring, 4);
	ck_assert_pop(&ring, POP_BAD_INDEX, 0);
	ring_close(&ring);
}
END_TEST

/* 12.9.10: next_avail_zero_rollback_wraps_to_u16_max */
START_TEST(unpop_at_zero_wraps_and_gives_the_same_head_again)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.next_avail = 65535;
	put_avail(&ring, 7, 6);
	put_avail_idx(&ring, 0);
	ck_assert_pop(&ring, POP_HEAD, 6);
	ck_assert_uint_eq(ring.vq.next_avail, 0);
	virtqueue_unpop(&ring.vq);
	ck_assert_uint_eq(ring.vq.next_avail, 65535);
	ck_assert_pop(&ring, POP_HEAD, 6);
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ring_close(&ring);
}
END_TEST

/* More than are read at a time, and each taken back once. */
START_TEST(a_full_ring_is_taken_in_its_order)
{
	struct ring ring;

	ring_open(&ring, 256);
	ring.vq.next_avail = 65500;
	for (unsigned int i = 0; i < 256; i++)
		put_avail(&ring, (uint16_t)(65500 + i) % 256,
			  (uint16_t)(255 - i));
	put_avail_idx(&ring, (uint16_t)(65500 + 256));
	for (unsigned int i = 0; i < 256; i++) {
		ck_assert_pop(&ring, POP_HEAD, 255 - i);
		virtqueue_unpop(&ring.vq);
		ck_assert_pop(&ring, POP_HEAD, 255 - i);
	}
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ring_close(&ring);
}
END_TEST

/* What was promised is taken; it is the next promise that is looked at. */
START_TEST(an_index_that_jumps_is_seen_when_all_known_is_taken)
{
	uint16_t head, idx;
	struct ring ring;

	ring_open(&ring, 8);
	put_avail(&ring, 0, 3);
	put_avail(&ring, 1, 4);
	put_avail_idx(&ring, 2);
	ck_assert_pop(&ring, POP_HEAD, 3);
	put_avail_idx(&ring, 100);
	ck_assert_pop(&ring, POP_HEAD, 4);
	virtqueue_unpop(&ring.vq);
	ck_assert_pop(&ring, POP_HEAD, 4);
	ck_assert_int_eq(virtqueue_pop(&ring.vq, &head, &idx), POP_BAD_INDEX);
	ck_assert_uint_eq(ring.vq.next_avail, 2);
	/* Back to where it was: nothing is known from the bad one. */
	put_avail_idx(&ring, 2);
	ck_assert_pop(&ring, POP_EMPTY, 0);
	ring_close(&ring);
}
END_TEST

/* Whatever the next heads and descriptors say, it is only a hint. */
START_TEST(prefetch_takes_nothing_and_believes_nothing)
{
	struct ring ring;

	for (unsigned int n = 0; n <= 2; n++) {
		ring_open(&ring, 8);
		ring.vq.ring.desc_addr = 0x1000;
		virtqueue_map(&ring.vq);
		put_avail(&ring, 0, (uint16_t)(n == 1 ? 8 : 0));
		put_avail(&ring, 1, 0xffff);
		memset(ring.ram + 0x1000, n == 2 ? 0xff : 0, 16);
		put_avail_idx(&ring, 2);
		virtqueue_prefetch(&ring.vq);
		ck_assert_pop(&ring, POP_HEAD, n == 1 ? 8 : 0);
		virtqueue_prefetch(&ring.vq);
		ck_assert_pop(&ring, POP_HEAD, 0xffff);
		virtqueue_prefetch(&ring.vq);
		ck_assert_pop(&ring, POP_EMPTY, 0);
		ring_close(&ring);
	}
}
END_TEST

START_TEST(pop_refuses_an_avail_address_of_zero)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, 0, USED);
	put16(&ring, 2, 1);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ring_close(&ring);
}
END_TEST

START_TEST(pop_refuses_an_avail_ring_outside_memory)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, NOWHERE, USED);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ring_move(&ring, RAM_BYTES - 2, USED);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ring_close(&ring);
}
END_TEST

/* An address that overflows is not one at the other end of memory. */
START_TEST(pop_refuses_an_avail_ring_that_wraps_around_zero)
{
	struct ring ring;

	ring_open(&ring, 8);
	put16(&ring, 0, 1);
	ring_move(&ring, UINT64_MAX - 1, USED);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ck_assert_uint_eq(ring.vq.next_avail, 0);
	ring_close(&ring);
}
END_TEST

/* "Empty" would have the drain look again for ever. */
START_TEST(pop_refuses_an_entry_outside_memory_under_a_good_index)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, RAM_BYTES - 4, USED);
	put_avail_idx(&ring, 1);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ck_assert_uint_eq(ring.vq.next_avail, 0);
	ring_close(&ring);
}
END_TEST

START_TEST(pop_takes_what_can_be_read_of_a_ring_that_ends_outside)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, RAM_BYTES - 4 - 2 * 2, USED);
	put_avail(&ring, 0, 5);
	put_avail(&ring, 1, 2);
	put_avail_idx(&ring, 3);
	ck_assert_pop(&ring, POP_HEAD, 5);
	ck_assert_pop(&ring, POP_HEAD, 2);
	ck_assert_pop(&ring, POP_NO_ACCESS, 0);
	ck_assert_uint_eq(ring.vq.next_avail, 2);
	ring_close(&ring);
}
END_TEST

START_TEST(an_avail_ring_may_lie_over_a_region_border)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, RAM_BYTES / 2 - 6, USED);
	put_avail(&ring, 0, 3);
	put_avail(&ring, 1, 4);
	put_avail_idx(&ring, 2);
	ck_assert_pop(&ring, POP_HEAD, 3);
	ck_assert_pop(&ring, POP_HEAD, 4);
	ring_close(&ring);
}
END_TEST

START_TEST(push_writes_the_entry_and_then_the_index)
{
	struct ring ring;

	ring_open(&ring, 8);
	ck_assert(virtqueue_push(&ring.vq, 5, 513));
	ck_assert(virtqueue_push(&ring.vq, 2, 1));
	ck_assert_uint_eq(get32(&ring, USED + 4), 5);
	ck_assert_uint_eq(get32(&ring, USED + 8), 513);
	ck_assert_uint_eq(get32(&ring, USED + 12), 2);
	ck_assert_uint_eq(get32(&ring, USED + 16), 1);
	ck_assert_uint_eq(get16(&ring, USED + 2), 2);
	ck_assert_uint_eq(ring.vq.next_used, 2);
	ck_assert_uint_eq(ring.vq.num_added, 2);
	ring_close(&ring);
}
END_TEST

/* What is told, and what the driver could see at that time. */
static struct {
	const struct ring *ring;
	struct {
		uint64_t addr, len;
		uint32_t id;
		uint16_t idx;
	} of[8];
	size_t n;
} told;

static void tell(void *userdata, uint64_t addr, uint64_t len)
{
	ck_assert_ptr_eq(userdata, &told);
	ck_assert_uint_lt(told.n, ARRAY_SIZE(told.of));
	told.of[told.n].addr = addr;
	told.of[told.n].len = len;
	told.of[told.n].id = get32(told.ring, USED + 4);
	told.of[told.n++].idx = get16(told.ring, USED + 2);
}

START_TEST(push_tells_of_the_entry_before_the_index_and_of_that_again)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.dirty = (struct dirty_log){ tell, &told };
	told.ring = &ring;
	ck_assert(virtqueue_push(&ring.vq, 5, 513));
	ck_assert_uint_eq(told.n, 3);
	for (size_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(told.of[i].addr, i ? USED + 2 : USED + 4);
		ck_assert_uint_eq(told.of[i].len, i ? 2 : 8);
		ck_assert_uint_eq(told.of[i].id, 5);
		ck_assert_uint_eq(told.of[i].idx, i == 2);
	}
	/* And of what asks for notifications. */
	told.n = 0;
	ck_assert(virtqueue_disable_notify(&ring.vq));
	ck_assert_uint_eq(told.n, 1);
	ck_assert_uint_eq(told.of[0].addr, USED);
	ring.vq.event_idx = true;
	ck_assert(virtqueue_enable_notify(&ring.vq, &(bool){ false }));
	ck_assert_uint_eq(told.n, 2);
	ck_assert_uint_eq(told.of[1].addr, USED + 4 + 8 * 8);
	/* What is not written is not told. */
	ring_move(&ring, AVAIL, NOWHERE);
	ck_assert(!virtqueue_push(&ring.vq, 5, 513));
	ck_assert_uint_eq(told.n, 2);
	ring_close(&ring);
}
END_TEST

START_TEST(push_wraps_at_the_size_and_at_65536)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.next_used = 65535;
	ck_assert(virtqueue_push(&ring.vq, 1, 10));
	ck_assert(virtqueue_push(&ring.vq, 2, 20));
	ck_assert_uint_eq(get32(&ring, USED + 4 + 8 * 7), 1);
	ck_assert_uint_eq(get32(&ring, USED + 4), 2);
	ck_assert_uint_eq(get16(&ring, USED + 2), 1);
	ring_close(&ring);
}
END_TEST

/* The device's cursor and the index the guest sees must not part. */
START_TEST(push_that_cannot_write_changes_nothing)
{
	static const uint64_t bad[] = {
		NOWHERE,
		RAM_BYTES - 4, /* the index is there, the entry is not */
		RAM_BYTES - 8, /* half the entry is */
	};
	unsigned char before[16];
	struct ring ring;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ring_open(&ring, 8);
		ring_move(&ring, AVAIL, bad[i]);
		memcpy(before, ring.ram + RAM_BYTES - 16, 16);
		ck_assert(!virtqueue_push(&ring.vq, 5, 513));
		ck_assert_mem_eq(before, ring.ram + RAM_BYTES - 16, 16);
		ck_assert_uint_eq(ring.vq.next_used, 0);
		ck_assert_uint_eq(ring.vq.num_added, 0);
		ring_close(&ring);
	}
}
END_TEST

/* A used ring needs to be aligned to 4 only, its entries have 8 bytes. */
START_TEST(push_writes_an_entry_that_lies_over_a_region_border)
{
	const uint64_t used = RAM_BYTES / 2 - 8;
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, AVAIL, used);
	ck_assert(virtqueue_push(&ring.vq, 5, 513));
	ck_assert_uint_eq(get32(&ring, used + 4), 5);
	ck_assert_uint_eq(get32(&ring, used + 8), 513);
	ck_assert_uint_eq(get16(&ring, used + 2), 1);
	ring_close(&ring);
}
END_TEST

START_TEST(push_refuses_a_used_ring_that_wraps_around_zero)
{
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, AVAIL, UINT64_MAX - 3);
	ck_assert(!virtqueue_push(&ring.vq, 5, 513));
	ck_assert_uint_eq(get32(&ring, 0), 0);
	ring_close(&ring);
}
END_TEST

/* 12.7.13: legacy_disable_enable_notification_toggles_used_flags */
START_TEST(without_event_idx_the_flags_say_no_notify_and_notify)
{
	bool more = true;
	struct ring ring;

	ring_open(&ring, 8);
	for (int i = 0; i < 2; i++) {
		ck_assert(virtqueue_disable_notify(&ring.vq));
		ck_assert_uint_eq(get16(&ring, USED), VRING_USED_F_NO_NOTIFY);
		ck_assert(virtqueue_enable_notify(&ring.vq, &more));
		ck_assert_uint_eq(get16(&ring, USED), 0);
		ck_assert(!more);
	}
	ring_close(&ring);
}
END_TEST

START_TEST(with_event_idx_the_avail_event_is_armed_and_the_flags_stay)
{
	const uint64_t avail_event = USED + 4 + 8 * 8;
	bool more = true;
	struct ring ring;

	ring_open(&ring, 8);
	ring.vq.event_idx = true;
	ring.vq.next_avail = 65533;
	put_avail_idx(&ring, 65533);
	ck_assert(virtqueue_disable_notify(&ring.vq));
	ck_assert_uint_eq(get16(&ring, USED), 0);
	ck_assert_uint_eq(get16(&ring, avail_event), 0);
	ck_assert(virtqueue_enable_notify(&ring.vq, &more));
	ck_assert(!more);
	ck_assert_uint_eq(get16(&ring, USED), 0);
	ck_assert_uint_eq(get16(&ring, avail_event), 65533);
	ring_close(&ring);
}
END_TEST

START_TEST(enabling_tells_of_what_came_before_it)
{
	struct ring ring;
	bool more;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		ring_open(&ring, 8);
		ring.vq.event_idx = event_idx;
		put_avail_idx(&ring, 1);
		more = false;
		ck_assert(virtqueue_enable_notify(&ring.vq, &more));
		ck_assert(more);
		ring_close(&ring);
	}
}
END_TEST

START_TEST(notifications_outside_memory_are_refused)
{
	bool more, needs;
	struct ring ring;

	ring_open(&ring, 8);
	ring_move(&ring, AVAIL, NOWHERE);
	ck_assert(!virtqueue_disable_notify(&ring.vq));
	ck_assert(!virtqueue_enable_notify(&ring.vq, &more));
	ring.vq.event_idx = true;
	ck_assert(virtqueue_disable_notify(&ring.vq));
	ck_assert(!virtqueue_enable_notify(&ring.vq, &more));
	ring_move(&ring, NOWHERE, USED);
	ck_assert(!virtqueue_enable_notify(&ring.vq, &more));
	ck_assert(!virtqueue_needs_irq(&ring.vq, &needs));
	ring_close(&ring);
}
END_TEST

/* The reference has it for every look. */
START_TEST(changed_without_event_idx_the_flags_say_if_an_interrupt_is_needed)
{
	bool needs = false;
	struct ring ring;

	ring_open(&ring, 8);
	put16(&ring, AVAIL + 4 + 2 * 8, 100); /* used_event: not looked at */
	for (uint16_t flags = 0; flags < 4; flags++) {
		put16(&ring, AVAIL, flags);
		ring.vq.num_added = 3;
		ck_assert(virtqueue_needs_irq(&ring.vq, &needs));
		ck_assert_int_eq(needs, !(flags & VRING_AVAIL_F_NO_INTERRUPT));
		ck_assert_uint_eq(ring.vq.num_added, 0);
	}
	ring_close(&ring);
}
END_TEST

/* For every distance near a crossing, as the kernel's own macro has it. */
START_TEST(with_event_idx_an_interrupt_is_needed_when_the_event_is_crossed)
{
	static const uint16_t starts[] = { 0, 7, 32767, 65530, 65535 };
	struct ring ring;
	bool needs;

	ring_open(&ring, 8);
	ring.vq.event_idx = true;
	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		for (uint16_t added = 0; added <= 8; added++)
			for (int d = -12; d <= 12; d++) {
				const uint16_t old = starts[i];
				const uint16_t now = (uint16_t)(old + added);
				const uint16_t event = (uint16_t)(old + d);

				put16(&ring, AVAIL + 4 + 2 * 8, event);
				ring.vq.next_used = now;
				ring.vq.num_added = added;
				ck_assert(
					virtqueue_needs_irq(&ring.vq, &needs));
				ck_assert_int_eq(needs,
						 vring_need_event(event, now,
								  old));
				ck_assert_uint_eq(ring.vq.num_added, 0);
			}
	ring_close(&ring);
}
END_TEST

TEST_PROGRAM("virtqueue", pop_of_an_empty_ring_is_empty,
	     pop_takes_heads_in_their_order, pop_wraps_at_65536,
	     pop_refuses_an_index_beyond_the_size,
	     an_index_that_jumps_is_seen_when_all_known_is_taken,
	     prefetch_takes_nothing_and_believes_nothing,
	     pop_refuses_an_index_that_went_back,
	     unpop_at_zero_wraps_and_gives_the_same_head_again,
	     a_full_ring_is_taken_in_its_order,
	     pop_refuses_an_avail_address_of_zero,
	     pop_refuses_an_avail_ring_outside_memory,
	     pop_refuses_an_avail_ring_that_wraps_around_zero,
	     pop_takes_what_can_be_read_of_a_ring_that_ends_outside,
	     pop_refuses_an_entry_outside_memory_under_a_good_index,
	     an_avail_ring_may_lie_over_a_region_border,
	     push_writes_the_entry_and_then_the_index,
	     push_tells_of_the_entry_before_the_index_and_of_that_again,
	     push_wraps_at_the_size_and_at_65536,
	     push_that_cannot_write_changes_nothing,
	     push_writes_an_entry_that_lies_over_a_region_border,
	     push_refuses_a_used_ring_that_wraps_around_zero,
	     without_event_idx_the_flags_say_no_notify_and_notify,
	     with_event_idx_the_avail_event_is_armed_and_the_flags_stay,
	     enabling_tells_of_what_came_before_it,
	     notifications_outside_memory_are_refused,
	     changed_without_event_idx_the_flags_say_if_an_interrupt_is_needed,
	     with_event_idx_an_interrupt_is_needed_when_the_event_is_crossed)
