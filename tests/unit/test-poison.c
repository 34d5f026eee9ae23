/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An avail ring that cannot be right stops the queue, once and with notice,
 * and only a reset starts it again.
 */

#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define OK VIRTIO_BLK_S_OK
#define VRING VIRTIO_MMIO_INT_VRING
#define CONFIG VIRTIO_MMIO_INT_CONFIG
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

struct fixture {
	struct rig rig;
	struct recorder rec;
};

static void start(struct fixture *f, uint64_t features)
{
	recorder_start(&f->rec);
	rig_open(&f->rig, &(struct rig_options){ .features = features });
	rig_start(&f->rig);
}

/* A device whose avail ring is at this address. */
static void start_avail_at(struct fixture *f, uint32_t low, uint32_t high)
{
	recorder_start(&f->rec);
	rig_open(&f->rig, NULL);
	rig_prepare(&f->rig);
	rig_write(&f->rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, low);
	rig_write(&f->rig, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, high);
	rig_write(&f->rig, VIRTIO_MMIO_STATUS, S_OK);
}

static void finish(struct fixture *f)
{
	rig_close(&f->rig);
	recorder_stop(&f->rec);
}

static void wait_poisoned(struct rig *rig)
{
	rig_kick(rig);
	ck_assert(eventually(rig_status(rig) & NEEDS_RESET));
}

/* Kick in vain: the worker looks, and does nothing at all. */
static void kick_in_vain(struct rig *rig)
{
	for (int i = 0; i < 5; i++) {
		rig_kick(rig);
		ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
		ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	}
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

/* 12.2.1 hostile_avail_idx_poisons_queue_until_reset, 12.3.20 */
START_TEST(hostile_avail_idx_poisons_queue_until_reset)
{
	struct ktvblk_counters counters;
	struct fixture f;

	start(&f, 0);
	rig_chain(&f.rig, 0, T_IN, 0, 512);
	rig_set_avail_idx(&f.rig, 1000);
	wait_poisoned(&f.rig);
	kick_in_vain(&f.rig);
	counters = rig_counters(&f.rig);
	ck_assert_uint_eq(counters.invalid_avail_idx_count, 1);
	ck_assert_uint_eq(counters.reads_completed, 0);
	ck_assert_uint_eq(counters.io_errors, 0);
	ck_assert_uint_eq(rig_used_idx(&f.rig), 0);
	/* A good index now comes too late. */
	rig_set_avail_idx(&f.rig, 1);
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(rig_used_idx(&f.rig), 0);

	rig_reset(&f.rig);
	rig_start(&f.rig);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 512), OK);
	ck_assert_uint_eq(rig_counters(&f.rig).invalid_avail_idx_count, 1);
	finish(&f);
}
END_TEST

/* 12.2.2 poison_signals_needs_reset_int_config_and_irqfd */
START_TEST(poison_signals_needs_reset_int_config_and_irqfd)
{
	struct fixture f;

	start(&f, 0);
	rig_set_avail_idx(&f.rig, 17);
	wait_poisoned(&f.rig);
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(rig_status(&f.rig), S_OK | NEEDS_RESET);
	ck_assert_uint_eq(rig_read(&f.rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  CONFIG);
	ck_assert_uint_eq(rig_irqs(&f.rig), 1);
	ck_assert_int_eq(ktvblk_get_state(f.rig.dev), KTVBLK_STATE_NEEDS_RESET);
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(rig_irqs(&f.rig), 0);
	ck_assert_uint_eq(rig_status(&f.rig), S_OK | NEEDS_RESET);
	ck_assert_uint_eq(rig_read(&f.rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  CONFIG);
	rig_reset(&f.rig);
	ck_assert_uint_eq(rig_status(&f.rig), 0);
	ck_assert_uint_eq(rig_read(&f.rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	finish(&f);
}
END_TEST

START_TEST(the_record_of_a_poisoned_index_has_both_indices)
{
	const struct kept_record *r;
	struct fixture f;

	start(&f, 0);
	ck_assert_int_eq(rig_request(&f.rig, T_IN, 0, 512), OK);
	rig_set_avail_idx(&f.rig, 1 + 17);
	wait_poisoned(&f.rig);
	r = recorder_wait(&f.rec, KTVBLK_MESSAGE_QUEUE_POISONED_INDEX);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_AVAIL_IDX"), 18);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_NEXT_AVAIL"), 1);
	kick_in_vain(&f.rig);
	ck_assert_int_eq(recorder_count(&f.rec, NULL), 1);
	finish(&f);
}
END_TEST

/* 12.3.19 inflated_avail_idx_poisons_queue_no_livelock: 257 on size 256 */
START_TEST(an_index_one_beyond_a_full_queue_poisons_and_a_full_one_does_not)
{
	struct fixture f;

	recorder_start(&f.rec);
	rig_open(&f.rig, &(struct rig_options){ .queue_size = 256 });
	rig_start(&f.rig);
	rig_chain(&f.rig, 0, VIRTIO_BLK_T_FLUSH, 0, 0);
	rig_set_avail_idx(&f.rig, 256);
	rig_kick(&f.rig);
	rig_wait_used(&f.rig, 256);
	ck_assert_uint_eq(rig_status(&f.rig), S_OK);
	rig_set_avail_idx(&f.rig, 256 + 257);
	wait_poisoned(&f.rig);
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(rig_counters(&f.rig).invalid_avail_idx_count, 1);
	ck_assert_uint_eq(rig_used_idx(&f.rig), 256);
	finish(&f);
}
END_TEST

/* 12.3.21 poisoned_queue_kicks_dont_touch_used_flags */
START_TEST(kicks_of_a_poisoned_queue_do_not_touch_the_used_ring)
{
	struct fixture f;

	start(&f, 0);
	rig_set_avail_idx(&f.rig, 1000);
	wait_poisoned(&f.rig);
	kick_in_vain(&f.rig);
	/* Left as the drain that found it had set it. */
	ck_assert_uint_eq(rig_used_flags(&f.rig), VRING_USED_F_NO_NOTIFY);
	*(uint8_t *)rig_at(&f.rig, RIG_USED) = 0x5a;
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(rig_used_flags(&f.rig), 0x5a);
	finish(&f);
}
END_TEST

/* The kick is taken out, or the wait for events would not wait. */
START_TEST(a_poisoned_worker_sleeps_between_kicks)
{
	struct fixture f;
	struct pollfd kick;

	start(&f, 0);
	rig_set_avail_idx(&f.rig, 1000);
	wait_poisoned(&f.rig);
	kick = (struct pollfd){ .fd = ktvblk_kick_fd(f.rig.dev),
				.events = POLLIN };
	for (int i = 0; i < 5; i++) {
		rig_kick(&f.rig);
		ck_assert(eventually(poll(&kick, 1, 0) == 0 &&
				     worker_sleeps(&f.rig)));
	}
	finish(&f);
}
END_TEST

/* The guest is told of what was completed before, too. */
START_TEST(an_index_that_jumps_in_a_drain_poisons_after_the_request)
{
	struct fixture f;

	start(&f, 0);
	storage_hold(f.rig.storage);
	rig_chain(&f.rig, 0, T_IN, 0, 512);
	rig_avail(&f.rig, 0);
	rig_kick(&f.rig);
	storage_wait_held(f.rig.storage, 1);
	rig_set_avail_idx(&f.rig, 30000);
	storage_let_go(f.rig.storage);
	rig_wait_used(&f.rig, 1);
	ck_assert(eventually(rig_status(&f.rig) & NEEDS_RESET));
	kick_in_vain(&f.rig);
	ck_assert_uint_eq(*rig_chain_status(&f.rig, 0), OK);
	ck_assert_uint_eq(rig_read(&f.rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  CONFIG | VRING);
	ck_assert_uint_eq(rig_irqs(&f.rig), 2);
	finish(&f);
}
END_TEST

/*
 * Poison B: the ring cannot be read. It counts as an error, not as an index.
 */
static void check_poison_b(struct fixture *f)
{
	struct ktvblk_counters counters;
	const struct kept_record *r;

	wait_poisoned(&f->rig);
	kick_in_vain(&f->rig);
	counters = rig_counters(&f->rig);
	ck_assert_uint_eq(counters.invalid_avail_idx_count, 0);
	ck_assert_uint_eq(counters.io_errors, 1);
	ck_assert_uint_eq(rig_used_idx(&f->rig), 0);
	ck_assert_uint_eq(rig_irqs(&f->rig), 1);
	ck_assert_uint_eq(rig_read(&f->rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  CONFIG);
	r = recorder_wait(&f->rec, KTVBLK_MESSAGE_QUEUE_POISONED_ACCESS);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_NEXT_AVAIL"), 0);
	ck_assert_int_eq(recorder_count(&f->rec, NULL), 1);
	rig_reset(&f->rig);
	rig_start(&f->rig);
	ck_assert_int_eq(rig_request(&f->rig, T_IN, 0, 512), OK);
	finish(f);
}

START_TEST(an_avail_address_of_zero_poisons)
{
	struct fixture f;

	start_avail_at(&f, 0, 0);
	check_poison_b(&f);
}
END_TEST

START_TEST(an_avail_ring_outside_memory_poisons)
{
	struct fixture f;

	start_avail_at(&f, RIG_RAM_BYTES, 0);
	check_poison_b(&f);
	start_avail_at(&f, RIG_AVAIL, 1);
	check_poison_b(&f);
}
END_TEST

/* The index is at address 0 then, which the guest has; that is not the ring. */
START_TEST(an_avail_ring_that_wraps_around_zero_poisons)
{
	struct fixture f;

	start_avail_at(&f, 0xfffffffe, 0xffffffff);
	check_poison_b(&f);
}
END_TEST

/* "Empty, but there is more" for ever, and the worker deaf to a stop. */
START_TEST(an_unreadable_entry_under_a_readable_index_is_no_livelock)
{
	const uint32_t avail = RIG_RAM_BYTES - 4;
	struct fixture f;

	start_avail_at(&f, avail, 0);
	__atomic_store_n((uint16_t *)rig_at(&f.rig, avail + 2), htole16(1),
			 __ATOMIC_SEQ_CST);
	check_poison_b(&f);
}
END_TEST

START_TEST(a_poisoned_device_ends_at_once)
{
	struct fixture f;

	start(&f, RIG_EVENT_IDX);
	rig_set_avail_idx(&f.rig, 1000);
	wait_poisoned(&f.rig);
	ck_assert_int_eq(rig_destroy(&f.rig), KTVBLK_JOINED);
	rig_free(&f.rig);
	recorder_stop(&f.rec);
}
END_TEST

TEST_PROGRAM("poison", hostile_avail_idx_poisons_queue_until_reset,
	     poison_signals_needs_reset_int_config_and_irqfd,
	     the_record_of_a_poisoned_index_has_both_indices,
	     an_index_one_beyond_a_full_queue_poisons_and_a_full_one_does_not,
	     kicks_of_a_poisoned_queue_do_not_touch_the_used_ring,
	     a_poisoned_worker_sleeps_between_kicks,
	     an_index_that_jumps_in_a_drain_poisons_after_the_request,
	     an_avail_address_of_zero_poisons,
	     an_avail_ring_outside_memory_poisons,
	     an_avail_ring_that_wraps_around_zero_poisons,
	     an_unreadable_entry_under_a_readable_index_is_no_livelock,
	     a_poisoned_device_ends_at_once)
