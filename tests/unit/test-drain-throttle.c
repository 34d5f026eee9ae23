/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A request without tokens waits in the ring as if it had never been taken:
 * first in, first out, nothing written, and whatever ends the wait ends the
 * gauge. Most tests stop the buckets' clock and fill them by hand.
 */

#include <poll.h>
#include <string.h>

#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define T_GET_ID VIRTIO_BLK_T_GET_ID
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP
#define VRING VIRTIO_MMIO_INT_VRING

static void park(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
}

static void start_with(struct rig *rig, const struct rig_options *options,
		       int64_t ops, int64_t bytes)
{
	rig_open(rig, options);
	rig_prepare(rig);
	rig_set_tokens(rig, ops, bytes);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
}

/* One request a second, and this many now. */
static void start_ops(struct rig *rig, uint64_t features, int64_t ops)
{
	start_with(rig,
		   &(struct rig_options){ .features = features,
					  .config.throttle.iops = 1 },
		   ops, 0);
}

/* 512 bytes a second. */
static void start_bytes(struct rig *rig, int64_t bytes)
{
	start_with(rig,
		   &(struct rig_options){ .config.throttle.bytes_per_sec =
						  512 },
		   0, bytes);
}

static void add(struct rig *rig, uint16_t head, uint32_t type, uint64_t sector,
		uint32_t len)
{
	rig_chain(rig, head, type, sector, len);
	rig_avail(rig, head);
	rig_kick(rig);
}

static void wait_stalls(struct rig *rig, uint64_t n)
{
	ck_assert(eventually(rig_counters(rig).throttled_count == n));
	/* The one is counted behind the other. */
	ck_assert(eventually(rig_counters(rig).currently_throttled == 1));
}

static void check_gauge(struct rig *rig, uint64_t now, uint64_t count)
{
	ck_assert_uint_eq(rig_counters(rig).currently_throttled, now);
	ck_assert_uint_eq(rig_counters(rig).throttled_count, count);
}

/* 12.6.1 process_requests_throttled_rolls_back_chain, 12.3.11 */
START_TEST(throttled_request_rolls_back_chain)
{
	struct rig rig;
	uint64_t start;

	start_ops(&rig, 0, 0);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	park(&rig);
	check_gauge(&rig, 1, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	/* Notifications are on: the guest must not think we are at it. */
	ck_assert_uint_eq(rig_used_flags(&rig), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	/* The wait is no reason to be late. */
	start = clock_start();
	ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
	ck_assert_uint_lt(ms_since(start), bound_ms(500));
	ck_assert_uint_eq(rig_counters(&rig).currently_throttled, 0);
	rig_free(&rig);
}
END_TEST

/* 12.6.2 throttle_stall_then_refill_retry_succeeds, 12.3.12 gauge */
START_TEST(stall_then_refill_retry_succeeds)
{
	struct rig rig;

	start_ops(&rig, 0, 0);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	rig_grant(&rig, 1, 0);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 1);
	check_gauge(&rig, 0, 1);
	rig_close(&rig);
}
END_TEST

/* 12.6.3 throttle_stall_fifo_order */
START_TEST(stall_keeps_fifo_order)
{
	const uint8_t *ram;
	struct rig rig;

	start_ops(&rig, 0, 1);
	add(&rig, 0, T_IN, 0, 512);
	rig_wait_used(&rig, 1);
	add(&rig, 3, T_IN, 5, 512);
	wait_stalls(&rig, 1);
	/* This one is not throttled by itself, and waits all the same. */
	add(&rig, 6, 0xbeef, 0, 0);
	park(&rig);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_grant(&rig, 1, 0);
	rig_wait_used(&rig, 3);
	ram = rig_at(&rig, RIG_DATA);
	ck_assert_uint_eq(ram[0], storage_pattern(5 * 512));
	ck_assert_uint_eq(rig_used(&rig, 1).id, 3);
	ck_assert_uint_eq(rig_used(&rig, 2).id, 6);
	rig_close(&rig);
}
END_TEST

/* 12.6.10 throttle_stall_mid_batch_three_chains */
START_TEST(stall_mid_batch_of_three_chains)
{
	static const uint16_t heads[] = { 0, 3, 6 };
	struct rig rig;

	start_ops(&rig, 0, 1);
	for (unsigned int i = 0; i < 3; i++)
		rig_chain(&rig, heads[i], T_FLUSH, 0, 0);
	rig_avail_all(&rig, heads, 3);
	rig_kick(&rig);
	wait_stalls(&rig, 1);
	park(&rig);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 3), SENTINEL);
	ck_assert_uint_eq(*rig_chain_status(&rig, 6), SENTINEL);
	/* Nor does the first completion wait for the others' tokens. */
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), VRING);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_grant(&rig, 2, 0);
	rig_wait_used(&rig, 3);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_uint_eq(rig_used(&rig, (uint16_t)i).id, heads[i]);
	rig_close(&rig);
}
END_TEST

/* 12.6.4 validation_precedes_throttle_on_stall */
START_TEST(validation_precedes_throttle)
{
	struct rig rig;

	start_ops(&rig, 0, 0);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 513), IOERR);
	check_gauge(&rig, 0, 0);
	rig_close(&rig);
}
END_TEST

/* 12.6.5 throttle_stall_event_idx_retry_routes_through_gate */
START_TEST(event_idx_retry_is_silent_below_the_event)
{
	struct rig rig;

	start_ops(&rig, RIG_EVENT_IDX, 0);
	rig_set_used_event(&rig, 65535);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	rig_grant(&rig, 1, 0);
	rig_wait_used(&rig, 1);
	park(&rig);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), VRING);
	rig_close(&rig);
}
END_TEST

/* 12.7.17 throttle_event_idx_stall_leaves_chain_in_avail_ring */
START_TEST(event_idx_stall_leaves_chain_in_avail_ring)
{
	struct rig rig;

	start_ops(&rig, RIG_EVENT_IDX, 1);
	add(&rig, 0, T_FLUSH, 0, 0);
	rig_wait_used(&rig, 1);
	ck_assert(eventually(rig_avail_event(&rig) == 1));
	park(&rig);
	rig_irqs(&rig);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, VRING);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	add(&rig, 3, T_FLUSH, 0, 0);
	wait_stalls(&rig, 1);
	park(&rig);
	/* Armed for the chain that is put back. */
	ck_assert_uint_eq(rig_avail_event(&rig), 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_close(&rig);
}
END_TEST

/* 12.9.9 enable_notification_err_on_stall_path_breaks_outer_cleanly */
START_TEST(a_stall_with_the_avail_event_outside_memory_is_like_others)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_EVENT_IDX,
					      .config.throttle.iops = 1 });
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_USED_LOW,
		  RIG_RAM_BYTES - (4 + 8 * 16));
	rig_set_tokens(&rig, 0, 0);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	add(&rig, 0, T_FLUSH, 0, 0);
	wait_stalls(&rig, 1);
	park(&rig);
	check_gauge(&rig, 1, 1);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	rig_close(&rig);
}
END_TEST

/* 12.6.6 throttle_bytes_request_exceeds_capacity_stalls: when in debt */
START_TEST(a_request_larger_than_the_bucket_waits_for_debt_only)
{
	struct rig rig;

	start_bytes(&rig, -1);
	add(&rig, 0, T_IN, 0, 4096);
	wait_stalls(&rig, 1);
	rig_grant(&rig, 0, 0);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	/* Now it owes, and those behind it wait. */
	add(&rig, 3, T_IN, 0, 512);
	wait_stalls(&rig, 2);
	park(&rig);
	ck_assert_int_eq(rig.dev->throttle->throttle.bytes.available, -4096);
	rig_close(&rig);
}
END_TEST

/* 12.6.7 throttle_both_buckets_max_wait: one event, of the slower bucket */
START_TEST(of_two_empty_buckets_the_slower_is_waited_for)
{
	const struct kept_record *r;
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	ktvblk_set_log_level(LOG_DEBUG);
	start_with(&rig,
		   &(struct rig_options){
			   .config.throttle = { .iops = 1000,
						.bytes_per_sec = 1024 } },
		   0, 0);
	add(&rig, 0, T_IN, 0, 512);
	r = recorder_wait(&rec, KTVBLK_MESSAGE_THROTTLE_STALLED);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_WAIT_NS"), 500000000);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_OPS_OK"), 0);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_BYTES_OK"), 0);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_HEAD"), 0);
	check_gauge(&rig, 1, 1);
	rig_close(&rig);
	ktvblk_set_log_level(LOG_INFO);
	recorder_stop(&rec);
}
END_TEST

/* 12.6.8 throttle_bytes_bucket_retry_succeeds, 12.3.22 bytes_only */
START_TEST(bytes_bucket_alone_stalls_and_retries)
{
	struct rig rig;

	start_bytes(&rig, -1024);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	check_gauge(&rig, 1, 1);
	rig_grant(&rig, 0, 512);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	check_gauge(&rig, 0, 1);
	rig_close(&rig);
}
END_TEST

/* 12.6.9 throttle_multi_stall_same_head, 12.3.13 and 12.3.18 no double inc */
START_TEST(changed_a_request_that_stalls_again_counts_once)
{
	struct rig rig;

	start_ops(&rig, 0, 0);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	for (int n = 1; n <= 3; n++) {
		rig_grant(&rig, 0, 0);
		ck_assert(eventually(worker_sleeps(&rig)));
		check_gauge(&rig, 1, 1);
	}
	rig_grant(&rig, 1, 0);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig_used(&rig, 0).id, 0);
	check_gauge(&rig, 0, 1);
	/* The next one counts. */
	add(&rig, 3, T_IN, 0, 512);
	wait_stalls(&rig, 2);
	check_gauge(&rig, 1, 2);
	rig_close(&rig);
}
END_TEST

/* 12.6.11 throttle_flush_on_drained_bytes_bucket */
START_TEST(a_flush_costs_no_bytes)
{
	struct rig rig;

	start_bytes(&rig, -1000000);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	check_gauge(&rig, 0, 0);
	rig_close(&rig);
}
END_TEST

START_TEST(get_id_and_flush_cost_a_request)
{
	struct rig rig;

	start_ops(&rig, 0, 2);
	ck_assert_int_eq(rig_request(&rig, T_GET_ID, 0, 20), OK);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	add(&rig, 0, T_GET_ID, 0, 20);
	wait_stalls(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* The range is looked at behind the tokens: such a request costs. */
START_TEST(an_out_of_range_request_costs_its_tokens)
{
	struct rig rig;

	start_with(&rig,
		   &(struct rig_options){
			   .config.throttle = { .iops = 4,
						.bytes_per_sec = 4096 } },
		   4, 4096);
	ck_assert_int_eq(rig_request(&rig, T_IN, UINT64_MAX, 512), IOERR);
	park(&rig);
	ck_assert_int_eq(rig.dev->throttle->throttle.ops.available, 3);
	ck_assert_int_eq(rig.dev->throttle->throttle.bytes.available,
			 4096 - 512);
	rig_close(&rig);
}
END_TEST

/* 12.8.16 and 12.9.14 validation_gates_do_not_consume_throttle_tokens */
START_TEST(gates_do_not_consume_tokens)
{
	struct rig rig;

	start_ops(&rig, 0, 1);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 513), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 0), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 512), IOERR);
		ck_assert_int_eq(rig_request(&rig, 0xbeef, 0, 512), UNSUPP);
	}
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	check_gauge(&rig, 0, 0);
	rig_close(&rig);
}
END_TEST

/* 12.6.12, 12.7.8, 12.7.9: throttled 0 with nothing in the bucket */
START_TEST(what_is_refused_does_not_wait_for_tokens)
{
	struct rig rig;

	start_with(&rig,
		   &(struct rig_options){ .config = { .flags = KTVBLK_READ_ONLY,
						      .throttle.iops = 1 } },
		   0, 0);
	ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	ck_assert_int_eq(rig_request(&rig, T_GET_ID, 0, 0), IOERR);
	check_gauge(&rig, 0, 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.7 and 12.1.14 the other way: a reset is no way to free tokens. */
START_TEST(changed_reset_keeps_the_balance_and_then_stalls)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){
			       .config.throttle = { .iops = 4,
						    .bytes_per_sec = 8192 } });
	rig_set_tokens(&rig, 1, -100);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
	rig_reset(&rig);
	ck_assert_int_eq(rig.dev->throttle->throttle.ops.available, 0);
	ck_assert_int_eq(rig.dev->throttle->throttle.bytes.available, -100);
	rig_start(&rig);
	add(&rig, 0, T_FLUSH, 0, 0);
	wait_stalls(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* 12.3.14 reset_decrements_pending_throttle_gauge, 12.3.15 and 12.3.16 */
START_TEST(a_reset_takes_the_waiting_request_off_the_gauge)
{
	struct rig rig;

	start_ops(&rig, 0, 0);
	check_gauge(&rig, 0, 0);
	rig_reset(&rig);
	check_gauge(&rig, 0, 0);
	rig_start(&rig);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	rig_reset(&rig);
	check_gauge(&rig, 0, 1);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	rig_close(&rig);
}
END_TEST

/* 12.3.12, with a failure: granted is granted. */
START_TEST(an_error_after_the_wait_does_not_keep_the_gauge)
{
	const int64_t eio = -EIO;
	struct rig rig;

	start_ops(&rig, 0, 0);
	storage_script(rig.storage, &eio, 1);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	rig_grant(&rig, 1, 0);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), IOERR);
	check_gauge(&rig, 0, 1);
	rig_close(&rig);
}
END_TEST

/* It is read anew: the guest may have made another of it meanwhile. */
START_TEST(a_waiting_head_that_becomes_one_to_refuse_leaves_the_gauge)
{
	static const uint32_t types[] = { 0xbeef, T_OUT };
	static const uint8_t answers[] = { UNSUPP, IOERR };
	struct rig rig;

	for (int i = 0; i < 2; i++) {
		start_ops(&rig, 0, 0);
		add(&rig, 0, T_IN, 0, 512);
		wait_stalls(&rig, 1);
		park(&rig);
		rig_header(&rig, RIG_HEADER, types[i], 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), answers[i]);
		check_gauge(&rig, 0, 1);
		rig_close(&rig);
	}
}
END_TEST

START_TEST(a_waiting_head_that_becomes_malformed_leaves_the_gauge)
{
	struct rig rig;

	start_ops(&rig, 0, 0);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	park(&rig);
	rig_desc(&rig, 0, RIG_HEADER, 16, VRING_DESC_F_NEXT, 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert(eventually(rig_counters(&rig).io_errors == 1));
	ck_assert(eventually(rig_counters(&rig).currently_throttled == 0));
	rig_close(&rig);
}
END_TEST

/* A guest that kicks on has the worker look at nothing. */
START_TEST(kicks_are_swallowed_while_a_request_waits)
{
	struct pollfd kick = { .events = POLLIN };
	struct rig rig;

	start_ops(&rig, 0, 0);
	add(&rig, 0, T_IN, 0, 512);
	wait_stalls(&rig, 1);
	kick.fd = ktvblk_kick_fd(rig.dev);
	for (int i = 0; i < 20; i++) {
		rig_kick(&rig);
		ck_assert(eventually(poll(&kick, 1, 0) == 0));
	}
	park(&rig);
	check_gauge(&rig, 1, 1);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("drain-throttle", throttled_request_rolls_back_chain,
	     stall_then_refill_retry_succeeds, stall_keeps_fifo_order,
	     stall_mid_batch_of_three_chains, validation_precedes_throttle,
	     event_idx_retry_is_silent_below_the_event,
	     event_idx_stall_leaves_chain_in_avail_ring,
	     a_stall_with_the_avail_event_outside_memory_is_like_others,
	     a_request_larger_than_the_bucket_waits_for_debt_only,
	     of_two_empty_buckets_the_slower_is_waited_for,
	     bytes_bucket_alone_stalls_and_retries,
	     changed_a_request_that_stalls_again_counts_once,
	     a_flush_costs_no_bytes, get_id_and_flush_cost_a_request,
	     an_out_of_range_request_costs_its_tokens,
	     gates_do_not_consume_tokens,
	     what_is_refused_does_not_wait_for_tokens,
	     changed_reset_keeps_the_balance_and_then_stalls,
	     a_reset_takes_the_waiting_request_off_the_gauge,
	     an_error_after_the_wait_does_not_keep_the_gauge,
	     a_waiting_head_that_becomes_one_to_refuse_leaves_the_gauge,
	     a_waiting_head_that_becomes_malformed_leaves_the_gauge,
	     kicks_are_swallowed_while_a_request_waits)
