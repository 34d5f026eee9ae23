/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who hears of what: the guest of completions, by interrupts and the interrupt
 * status; the device of new chains, by the flags or the avail event.
 */

/* wrap: write */

#include <string.h>

#include "bounds.h"
#include "faults.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_FLUSH VIRTIO_BLK_T_FLUSH
/* Answered without storage, so that no time passes in between. */
#define T_ODD 0xbeefu
#define OK VIRTIO_BLK_S_OK
#define VRING VIRTIO_MMIO_INT_VRING

WRAP_WRITE

static void start(struct rig *rig, uint64_t features)
{
	rig_open(rig, &(struct rig_options){ .features = features });
	rig_start(rig);
}

/* This many chains at once, thus in one drain. */
static void batch(struct rig *rig, uint32_t type, unsigned int n)
{
	static const uint16_t heads[] = { 0, 3, 6, 9, 12 };
	const uint16_t used = rig_used_idx(rig);

	for (unsigned int i = 0; i < n; i++)
		rig_chain(rig, heads[i], type, 0, type == T_IN ? 512 : 0);
	rig_avail_all(rig, heads, n);
	rig_kick(rig);
	rig_wait_used(rig, (uint16_t)(used + n));
}

static uint32_t int_status(struct rig *rig)
{
	return rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS);
}

static void ack(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_INTERRUPT_ACK, VRING);
	ck_assert_uint_eq(int_status(rig), 0);
}

/* Move one of the rings elsewhere, before DRIVER_OK. */
static void start_with_ring_at(struct rig *rig, uint64_t features, uint32_t reg,
			       uint32_t addr)
{
	rig_open(rig, &(struct rig_options){ .features = features });
	rig_prepare(rig);
	rig_write(rig, reg, addr);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
}

static uint16_t load16(struct rig *rig, uint64_t addr)
{
	return le16toh(__atomic_load_n((uint16_t *)rig_at(rig, addr),
				       __ATOMIC_SEQ_CST));
}

static void store16(struct rig *rig, uint64_t addr, uint16_t value)
{
	__atomic_store_n((uint16_t *)rig_at(rig, addr), htole16(value),
			 __ATOMIC_SEQ_CST);
}

/*
 * Without EVENT_IDX
 */

/* 12.9.1 process_requests_fires_irqfd_on_legacy_path */
START_TEST(legacy_fires_once_for_a_drain)
{
	struct rig rig;

	start(&rig, 0);
	batch(&rig, T_ODD, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	batch(&rig, T_ODD, 5);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	rig_close(&rig);
}
END_TEST

/* 12.9.6 legacy_path_fires_irqfd_every_drain: used_event means nothing here */
START_TEST(legacy_fires_for_every_drain_and_ignores_used_event)
{
	struct rig rig;

	start(&rig, 0);
	rig_set_used_event(&rig, 1000);
	for (int i = 0; i < 10; i++) {
		batch(&rig, T_IN, 1);
		ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	}
	rig_close(&rig);
}
END_TEST

/* No news, no interrupt. */
START_TEST(a_drain_without_a_completion_is_silent)
{
	struct rig rig;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(&rig, event_idx ? RIG_EVENT_IDX : 0);
		for (int i = 0; i < 3; i++) {
			rig_kick(&rig);
			ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
		}
		ck_assert_uint_eq(int_status(&rig), 0);
		rig_close(&rig);
	}
}
END_TEST

/* Storage that takes its time from the second call on, and hangs in the 3rd. */
static void slow_then_hold(struct storage *storage, enum storage_op op)
{
	const uint64_t start = now_ns();
	unsigned int *calls = (unsigned int *)storage->hook_data;

	(void)op;
	switch (++*calls) {
	case 2:
		while (now_ns() - start < 2 * IRQ_HOLD_NS)
			;
		break;
	case 3:
		storage_hold(storage);
		break;
	}
}

/*
 * Once 100 us have passed since the first completion nobody was told of, the
 * next request does not start before the interrupt is out.
 */
START_TEST(legacy_completions_do_not_wait_for_a_request_that_hangs)
{
	static const uint16_t heads[] = { 0, 3, 6 };
	unsigned int calls = 0;
	struct rig rig;

	start(&rig, 0);
	rig.storage->hook_data = &calls;
	rig.storage->hook = slow_then_hold;
	for (int i = 0; i < 3; i++)
		rig_chain(&rig, heads[i], T_IN, 0, 512);
	rig_avail_all(&rig, heads, 3);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 2);
	ck_assert_uint_ge(rig_irqs(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 3);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	rig_close(&rig);
}
END_TEST

static void hold_second(struct storage *storage, enum storage_op op)
{
	unsigned int *calls = (unsigned int *)storage->hook_data;

	(void)op;
	if (++*calls == 2)
		storage_hold(storage);
}

/* 12.7.16 clears_used_flags_post_bracket, 12.7.13 in a real drain */
START_TEST(legacy_flags_say_no_notify_in_a_drain_and_notify_after_it)
{
	struct rig rig;

	start(&rig, 0);
	storage_hold(rig.storage);
	rig_chain(&rig, 0, T_FLUSH, 0, 0);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	ck_assert_uint_eq(rig_used_flags(&rig), VRING_USED_F_NO_NOTIFY);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert(eventually(rig_used_flags(&rig) == 0));
	rig_close(&rig);
}
END_TEST

/* A chain that comes in between is seen without a kick. */
START_TEST(a_chain_added_in_a_drain_is_served_without_a_kick)
{
	struct rig rig;

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(&rig, event_idx ? RIG_EVENT_IDX : 0);
		storage_hold(rig.storage);
		rig_chain(&rig, 0, T_FLUSH, 0, 0);
		rig_chain(&rig, 3, T_FLUSH, 0, 0);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_wait_held(rig.storage, 1);
		rig_avail(&rig, 3);
		storage_let_go(rig.storage);
		rig_wait_used(&rig, 2);
		ck_assert_uint_eq(rig_used(&rig, 1).id, 3);
		rig_close(&rig);
	}
}
END_TEST

/* The avail ring's flags, as the driver writes them; after rig_start(). */
static void set_no_interrupt(struct rig *rig, bool on)
{
	store16(rig, RIG_AVAIL, on ? VRING_AVAIL_F_NO_INTERRUPT : 0);
}

/*
 * Section 2.7.7.2. The reference fires for every drain. A driver that looks by
 * itself finds the used entries, and the bit.
 */
START_TEST(changed_legacy_does_not_fire_where_the_driver_wants_none)
{
	struct rig rig;

	start(&rig, 0);
	set_no_interrupt(&rig, true);
	for (int i = 0; i < 10; i++) {
		batch(&rig, i % 2 ? T_IN : T_ODD, 5);
		ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
		ck_assert_uint_eq(int_status(&rig), VRING);
		ack(&rig);
	}
	set_no_interrupt(&rig, false);
	batch(&rig, T_IN, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	/* Other bits of the flags are nobody's. */
	store16(&rig, RIG_AVAIL, 0xfffe);
	batch(&rig, T_IN, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	rig_close(&rig);
}
END_TEST

/* Before a call that may hang the bit is there, and no interrupt. */
START_TEST(legacy_completions_of_slow_storage_do_not_fire_either)
{
	static const uint16_t heads[] = { 0, 3, 6 };
	unsigned int calls = 0;
	struct rig rig;

	start(&rig, 0);
	set_no_interrupt(&rig, true);
	rig.storage->hook_data = &calls;
	rig.storage->hook = slow_then_hold;
	for (int i = 0; i < 3; i++)
		rig_chain(&rig, heads[i], T_IN, 0, 512);
	rig_avail_all(&rig, heads, 3);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 2);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	/* Wanted again, for the one that is out. */
	set_no_interrupt(&rig, false);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 3);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	rig_close(&rig);
}
END_TEST

/*
 * A driver that switches interrupts off and on, and looks at the used index
 * after the latter, misses nothing: see the barrier in drain.c.
 */
START_TEST(legacy_a_driver_that_sleeps_between_looks_sleeps_on_nothing)
{
	struct pollfd irq = { .events = POLLIN };
	struct rig rig;

	start(&rig, 0);
	irq.fd = ktvblk_irq_fd(rig.dev);
	for (uint16_t i = 1; i <= 500; i++) {
		set_no_interrupt(&rig, true);
		rig_chain(&rig, 0, T_ODD, 0, 0);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		set_no_interrupt(&rig, false);
		while (rig_used_idx(&rig) != i) {
			ck_assert_int_eq(poll(&irq, 1, (int)WAIT_MS), 1);
			rig_irqs(&rig);
		}
	}
	rig_close(&rig);
}
END_TEST

/*
 * With EVENT_IDX
 */

/* 12.9.2 suppresses_when_threshold_unreached: bit set, no interrupt */
START_TEST(event_idx_below_the_event_the_bit_is_set_and_nothing_fires)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig_set_used_event(&rig, 1);
	batch(&rig, T_IN, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	rig_close(&rig);
}
END_TEST

/* 12.9.3 fires_when_threshold_reached, 12.9.4 multi_chain_drain_fires_once */
START_TEST(event_idx_fires_once_when_the_event_is_crossed)
{
	struct rig rig;

	for (uint16_t event = 0; event < 3; event++) {
		start(&rig, RIG_EVENT_IDX);
		rig_set_used_event(&rig, event);
		batch(&rig, T_IN, 3);
		ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
		ck_assert_uint_eq(int_status(&rig), VRING);
		rig_close(&rig);
	}
}
END_TEST

/* 12.9.5 multi_chain_drain_suppresses_below_threshold */
START_TEST(event_idx_of_a_batch_below_the_event_nothing_fires)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig_set_used_event(&rig, 10);
	batch(&rig, T_IN, 3);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	rig_close(&rig);
}
END_TEST

/* 12.7.11 successive_drains_span_threshold */
START_TEST(event_idx_successive_drains_span_the_event)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig_set_used_event(&rig, 2);
	batch(&rig, T_ODD, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	ack(&rig);
	batch(&rig, T_ODD, 2);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	/* Not armed again: silence. */
	batch(&rig, T_ODD, 5);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	rig_close(&rig);
}
END_TEST

/* The reference looks once for a drain; here each completion is looked at. */
START_TEST(changed_event_idx_fires_at_the_crossing_and_not_at_the_drains_end)
{
	static const uint16_t heads[] = { 0, 3 };
	unsigned int calls = 0;
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig.storage->hook_data = &calls;
	rig.storage->hook = hold_second;
	for (int i = 0; i < 2; i++)
		rig_chain(&rig, heads[i], T_IN, 0, 512);
	rig_avail_all(&rig, heads, 2);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 2);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	rig_close(&rig);
}
END_TEST

static uint16_t used_at_irq;

static void note_used(void *arg)
{
	used_at_irq = rig_used_idx((struct rig *)arg);
}

/* Such chains may go on for longer than the index can tell how many. */
START_TEST(event_idx_fires_between_chains_that_need_no_storage)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig_set_used_event(&rig, 0);
	fault_set(&write_fault,
		  &(struct fault_when){ .before = note_used,
					.arg = &rig,
					.fd = ktvblk_irq_fd(rig.dev) });
	batch(&rig, T_ODD, 5);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(used_at_irq, 1);
	rig_close(&rig);
}
END_TEST

/* 12.9.12 error_chain_suppressed_when_threshold_unreached */
START_TEST(event_idx_error_completions_are_like_others)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	rig_set_used_event(&rig, 1);
	rig_request(&rig, T_IN, UINT64_MAX, 512);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	rig_request(&rig, T_IN, 0, 513);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 2);
	rig_close(&rig);
}
END_TEST

/* 12.7.15 multi_notify_boundary: each time; the flags say nothing here. */
START_TEST(event_idx_armed_again_fires_again_whatever_the_flags)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	set_no_interrupt(&rig, true);
	for (uint16_t i = 0; i < 20; i++) {
		rig_set_used_event(&rig, i);
		batch(&rig, T_IN, 1);
		ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
		ack(&rig);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(event_idx_the_avail_event_is_armed_at_the_drains_end)
{
	struct rig rig;

	start(&rig, RIG_EVENT_IDX);
	for (uint16_t n = 5; n < 60; n = (uint16_t)(n + 5)) {
		batch(&rig, T_ODD, 5);
		ck_assert(eventually(rig_avail_event(&rig) == n));
		ck_assert_uint_eq(rig_used_flags(&rig), 0);
	}
	rig_close(&rig);
}
END_TEST

/* 12.7.12 needs_notification_err_fires_irqfd_fail_safe */
START_TEST(event_idx_a_used_event_outside_memory_fires_to_be_safe)
{
	const uint32_t avail = RIG_RAM_BYTES - (4 + 2 * 16);
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	start_with_ring_at(&rig, RIG_EVENT_IDX, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
			   avail);
	rig_chain(&rig, 0, T_FLUSH, 0, 0);
	store16(&rig, avail + 2, 1);
	rig_kick(&rig);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	recorder_wait(&rec, KTVBLK_MESSAGE_NOTIFY_CHECK_FAILED);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* 12.9.8 enable_notification_err_breaks_outer_and_fires_irqfd_fail_safe */
START_TEST(event_idx_an_avail_event_outside_memory_is_no_endless_loop)
{
	const uint32_t used = RIG_RAM_BYTES - (4 + 8 * 16);
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	start_with_ring_at(&rig, RIG_EVENT_IDX, VIRTIO_MMIO_QUEUE_USED_LOW,
			   used);
	rig_chain(&rig, 0, T_FLUSH, 0, 0);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(load16(&rig, used + 2) == 1));
	recorder_wait(&rec, KTVBLK_MESSAGE_NOTIFY_ENABLE_FAILED);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	/* A kick still brings the next. */
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(load16(&rig, used + 2) == 2));
	/* Once for a drain; a loop would have reached the limit of 10. */
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_lt(
		recorder_count(&rec, KTVBLK_MESSAGE_NOTIFY_ENABLE_FAILED), 10);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/*
 * The interrupt's other end
 */

/* 12.7.19 interrupt_ack_clears_status_bit */
START_TEST(an_ack_clears_the_bit_of_a_real_completion)
{
	struct rig rig;

	start(&rig, 0);
	batch(&rig, T_FLUSH, 1);
	ck_assert_uint_eq(rig_irqs_settled(&rig), 1);
	ck_assert_uint_eq(int_status(&rig), VRING);
	ck_assert_uint_eq(int_status(&rig), VRING);
	ack(&rig);
	rig_close(&rig);
}
END_TEST

/* 12.1.9, 12.1.10, 12.1.16: what was raised before a reset is gone after it */
START_TEST(a_reset_takes_back_what_was_raised)
{
	struct rig rig;

	start(&rig, 0);
	for (int i = 0; i < 3; i++)
		batch(&rig, T_FLUSH, 1);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_uint_eq(int_status(&rig), VRING);
	rig_reset(&rig);
	ck_assert_uint_eq(int_status(&rig), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("interrupt", legacy_fires_once_for_a_drain,
	     legacy_fires_for_every_drain_and_ignores_used_event,
	     a_drain_without_a_completion_is_silent,
	     legacy_completions_do_not_wait_for_a_request_that_hangs,
	     legacy_flags_say_no_notify_in_a_drain_and_notify_after_it,
	     a_chain_added_in_a_drain_is_served_without_a_kick,
	     changed_legacy_does_not_fire_where_the_driver_wants_none,
	     legacy_completions_of_slow_storage_do_not_fire_either,
	     legacy_a_driver_that_sleeps_between_looks_sleeps_on_nothing,
	     event_idx_below_the_event_the_bit_is_set_and_nothing_fires,
	     event_idx_fires_once_when_the_event_is_crossed,
	     event_idx_of_a_batch_below_the_event_nothing_fires,
	     event_idx_successive_drains_span_the_event,
	     changed_event_idx_fires_at_the_crossing_and_not_at_the_drains_end,
	     event_idx_fires_between_chains_that_need_no_storage,
	     event_idx_error_completions_are_like_others,
	     event_idx_armed_again_fires_again_whatever_the_flags,
	     event_idx_the_avail_event_is_armed_at_the_drains_end,
	     event_idx_a_used_event_outside_memory_fires_to_be_safe,
	     event_idx_an_avail_event_outside_memory_is_no_endless_loop,
	     an_ack_clears_the_bit_of_a_real_completion,
	     a_reset_takes_back_what_was_raised)
