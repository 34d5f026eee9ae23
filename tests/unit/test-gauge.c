/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gauge of requests that wait for tokens is 1 from the first stall to
 * whatever ends it: a grant, a reset, the end of the device, a guest that makes
 * another request of it. And the poisoned queue, which stays silent.
 */

/* wrap: throttle_take */

#include <syslog.h>

#include "device.h"
#include "throttle.h"
#include "wedge.h"

/*
 * What the throttle says next; behind that it is the real one. A LONG wait is
 * said again and again: how late the test is does not matter.
 */
#define LONG 1000000000
static struct throttle_verdict script[4];
static _Atomic unsigned int script_len, verdicts;

struct throttle_verdict __real_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now);
struct throttle_verdict __wrap_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now);

struct throttle_verdict __wrap_throttle_take(struct throttle *throttle,
					     uint64_t bytes, uint64_t now)
{
	const unsigned int n = atomic_load(&script_len);
	unsigned int i = atomic_fetch_add(&verdicts, 1);

	if (n && i >= n && script[n - 1].wait_ns == LONG)
		i = n - 1;
	return i < n ? script[i] : __real_throttle_take(throttle, bytes, now);
}

static void stall(uint64_t wait_ns)
{
	const unsigned int n = script_len;

	script[n] = (struct throttle_verdict){ .wait_ns = wait_ns };
	script_len = n + 1;
}

static uint64_t gauge(struct rig *rig)
{
	return rig_counters(rig).currently_throttled;
}

static uint64_t stalls(struct rig *rig)
{
	return rig_counters(rig).throttled_count;
}

/* With a limit, so that there are verdicts. */
static void open_limited(struct rig *rig, uint32_t budget_ms)
{
	wedge_open_idle(rig, budget_ms, 0);
	rig->dev->throttle->limits = true;
	rig_start(rig);
}

static void open_with_chain(struct rig *rig)
{
	open_limited(rig, WAIT_MS);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

static void close_gauge(struct rig *rig)
{
	ktvblk_destroy(rig->dev);
	rig->dev = NULL;
	ck_assert_uint_eq(gauge(rig), 0);
	rig_free(rig);
	script_len = 0;
	verdicts = 0;
}

/* 12.3.16 */
START_TEST(currently_throttled_gauge_initially_zero)
{
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_uint_eq(gauge(&rig), 0);
	close_gauge(&rig);
}
END_TEST

/* 12.3.11 */
START_TEST(currently_throttled_gauge_increments_on_first_stall)
{
	struct rig rig;

	stall(LONG);
	open_with_chain(&rig);
	ck_assert(eventually(stalls(&rig) == 1));
	ck_assert(eventually(gauge(&rig) == 1));
	ck_assert(rig.dev->queues[0].session->throttled);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	close_gauge(&rig);
}
END_TEST

/* 12.3.12 */
START_TEST(currently_throttled_gauge_decrements_on_retry_success)
{
	struct rig rig;

	stall(1000000);
	open_with_chain(&rig);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(gauge(&rig), 0);
	ck_assert_uint_eq(stalls(&rig), 1);
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 1);
	ck_assert(!rig.dev->queues[0].session->throttled);
	close_gauge(&rig);
}
END_TEST

/* 12.3.13 */
START_TEST(changed_neither_gauge_nor_count_double_inc_on_re_stall)
{
	struct rig rig;

	stall(1000000);
	stall(LONG);
	open_with_chain(&rig);
	ck_assert(eventually(verdicts >= 2));
	ck_assert_uint_eq(gauge(&rig), 1);
	/* Of one request, however often it was looked at. */
	ck_assert_uint_eq(stalls(&rig), 1);
	close_gauge(&rig);
}
END_TEST

/* 12.3.14; 13.3.10: it is 0 as soon as the reset is back */
START_TEST(reset_decrements_pending_throttle_gauge)
{
	struct rig rig;

	stall(LONG);
	open_with_chain(&rig);
	ck_assert(eventually(gauge(&rig) == 1));
	rig_reset(&rig);
	ck_assert_uint_eq(gauge(&rig), 0);
	ck_assert_uint_eq(stalls(&rig), 1);
	/* Nor does the device's end take it below. */
	close_gauge(&rig);
}
END_TEST

/* 12.3.15 */
START_TEST(reset_on_non_stalled_device_leaves_gauge_at_zero)
{
	struct rig rig;

	open_with_chain(&rig);
	rig_wait_used(&rig, 1);
	rig_reset(&rig);
	ck_assert_uint_eq(gauge(&rig), 0);
	rig_reset(&rig);
	ck_assert_uint_eq(gauge(&rig), 0);
	close_gauge(&rig);
}
END_TEST

/* 12.3.17 */
START_TEST(currently_throttled_gauge_inline_redrain_succeeds_decrements_once)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	ktvblk_set_log_level(LOG_DEBUG);
	stall(0);
	open_with_chain(&rig);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(gauge(&rig), 0);
	ck_assert_uint_eq(stalls(&rig), 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_THROTTLE_REDRAINED);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_THROTTLE_STALLED),
			 1);
	ktvblk_set_log_level(LOG_INFO);
	close_gauge(&rig);
	recorder_stop(&rec);
}
END_TEST

/* 12.3.18 */
START_TEST(changed_neither_gauge_nor_count_double_inc_on_inline_redrain)
{
	struct rig rig;

	stall(0);
	stall(LONG);
	open_with_chain(&rig);
	ck_assert(eventually(verdicts >= 2));
	ck_assert_uint_eq(gauge(&rig), 1);
	/* Of one request, however often it was looked at. */
	ck_assert_uint_eq(stalls(&rig), 1);
	close_gauge(&rig);
}
END_TEST

/* 12.3.22: the real buckets, and of the two the bytes' alone */
START_TEST(currently_throttled_gauge_bytes_only_stall_and_retry)
{
	const struct rig_options options = {
		.config = { .throttle = { .bytes_per_sec = 1024 } },
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_set_tokens(&rig, 0, 1024);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 1024), 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(stalls(&rig) == 1));
	ck_assert(eventually(gauge(&rig) == 1));
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	rig_go_on_throttle(&rig);
	rig_wait_used(&rig, 2);
	ck_assert_uint_eq(gauge(&rig), 0);
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 2);
	close_gauge(&rig);
}
END_TEST

/* The guest rewrites the head that waits into one that needs no tokens. */
START_TEST(a_waiting_request_that_becomes_another_leaves_no_gauge)
{
	struct rig rig;

	stall(LONG);
	open_with_chain(&rig);
	ck_assert(eventually(gauge(&rig) == 1));
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	rig_header(&rig, RIG_HEADER, 99, 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 1);
	ck_assert_int_eq(*rig_chain_status(&rig, 0), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(gauge(&rig), 0);
	close_gauge(&rig);
}
END_TEST

/* Past the gate's grace it is counted out by who revokes, once. */
START_TEST(a_throttled_worker_stuck_with_its_gate_leaves_no_gauge)
{
	struct session *session;
	struct rig rig;

	stall(LONG);
	open_limited(&rig, 20);
	session = rig.dev->queues[0].session;
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(gauge(&rig) == 1));
	refs_get(&session->refs);
	gate_enter(&session->gate);
	rig_reset(&rig);
	ck_assert_uint_eq(gauge(&rig), 0);
	gate_leave(&session->gate);
	session_unref(session);
	ck_assert(eventually(ktvblk_get_state(rig.dev) == KTVBLK_STATE_IDLE));
	ck_assert_uint_eq(gauge(&rig), 0);
	close_gauge(&rig);
}
END_TEST

/*
 * Counters
 */

#define ADDERS 8
#define ADDS 5000

static void *add_all(void *arg)
{
	struct ktvblk_stats *stats = (struct ktvblk_stats *)arg;

	for (int i = 0; i < ADDS; i++) {
		count_read(stats, 2);
		count_write(stats, 3);
		count_flush(stats);
		count_io_error(stats);
	}
	return NULL;
}

/* 12.3.9 */
START_TEST(counters_concurrent_fetch_add_no_lost_updates)
{
	struct ktvblk_stats *stats = stats_new();
	struct ktvblk_counters now, before = { 0 };
	pthread_t threads[ADDERS];

	for (int i = 0; i < ADDERS; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, add_all, stats), 0);
	do {
		ktvblk_stats_read(stats, &now, sizeof(now));
		ck_assert_uint_ge(now.reads_completed, before.reads_completed);
		ck_assert_uint_ge(now.bytes_written, before.bytes_written);
		before = now;
	} while (now.io_errors < ADDERS * ADDS);
	for (int i = 0; i < ADDERS; i++)
		pthread_join(threads[i], NULL);
	ktvblk_stats_read(stats, &now, sizeof(now));
	ck_assert_uint_eq(now.reads_completed, ADDERS * ADDS);
	ck_assert_uint_eq(now.writes_completed, ADDERS * ADDS);
	ck_assert_uint_eq(now.flushes_completed, ADDERS * ADDS);
	ck_assert_uint_eq(now.bytes_read, 2 * ADDERS * ADDS);
	ck_assert_uint_eq(now.bytes_written, 3 * ADDERS * ADDS);
	ktvblk_stats_unref(stats);
}
END_TEST

/*
 * Poison
 */

static bool kick_is_taken(struct rig *rig)
{
	return poll(&(struct pollfd){ ktvblk_kick_fd(rig->dev), POLLIN, 0 }, 1,
		    0) == 0 &&
	       worker_sleeps(rig);
}

static void kick_and_let_it_look(struct rig *rig)
{
	rig_kick(rig);
	ck_assert(eventually(kick_is_taken(rig)));
}

static void poison(struct rig *rig, uint16_t queue_size, uint16_t idx)
{
	const struct rig_options options = { .queue_size = queue_size };

	rig_open(rig, &options);
	rig_start(rig);
	rig_set_avail_idx(rig, idx);
	rig_kick(rig);
	ck_assert(eventually(rig_status(rig) ==
			     (S_OK | VIRTIO_CONFIG_S_NEEDS_RESET)));
	ck_assert_uint_eq(rig_counters(rig).invalid_avail_idx_count, 1);
}

/* 12.3.19, 12.2.1 */
START_TEST(inflated_avail_idx_poisons_queue_no_livelock)
{
	static const struct {
		uint16_t size, idx;
	} rows[] = { { 256, 257 }, { 16, 1000 }, { 16, 17 } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct rig rig;

		poison(&rig, rows[i].size, rows[i].idx);
		for (int kick = 0; kick < 5; kick++)
			kick_and_let_it_look(&rig);
		ck_assert_uint_eq(rig_counters(&rig).invalid_avail_idx_count,
				  1);
		ck_assert_uint_eq(rig_counters(&rig).reads_completed, 0);
		rig_close(&rig);
	}
}
END_TEST

/* 12.3.20, 12.2.1 */
START_TEST(poisoned_queue_clears_on_reset)
{
	struct rig rig;

	poison(&rig, 16, 1000);
	rig_reset(&rig);
	ck_assert(!rig.dev->queues[0].session->poisoned);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_uint_eq(rig_counters(&rig).invalid_avail_idx_count, 1);
	rig_close(&rig);
}
END_TEST

/* 12.3.21 */
START_TEST(poisoned_queue_kicks_dont_touch_used_flags)
{
	struct rig rig;
	uint64_t sum;

	poison(&rig, 16, 1000);
	kick_and_let_it_look(&rig);
	*(volatile uint16_t *)rig_at(&rig, RIG_USED) = htole16(0x1234);
	sum = wedge_ram_sum(&rig);
	for (int kick = 0; kick < 5; kick++)
		kick_and_let_it_look(&rig);
	ck_assert_uint_eq(rig_used_flags(&rig), 0x1234);
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	rig_close(&rig);
}
END_TEST

/* 12.2.2 */
START_TEST(poison_signals_needs_reset_int_config_and_irqfd)
{
	struct rig rig;

	poison(&rig, 16, 1000);
	ck_assert(eventually(rig_irqs(&rig) == 1));
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG);
	kick_and_let_it_look(&rig);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_status(&rig), S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_NEEDS_RESET);
	rig_reset(&rig);
	ck_assert_uint_eq(rig_status(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("gauge", currently_throttled_gauge_initially_zero,
	     currently_throttled_gauge_increments_on_first_stall,
	     currently_throttled_gauge_decrements_on_retry_success,
	     changed_neither_gauge_nor_count_double_inc_on_re_stall,
	     reset_decrements_pending_throttle_gauge,
	     reset_on_non_stalled_device_leaves_gauge_at_zero,
	     currently_throttled_gauge_inline_redrain_succeeds_decrements_once,
	     changed_neither_gauge_nor_count_double_inc_on_inline_redrain,
	     currently_throttled_gauge_bytes_only_stall_and_retry,
	     a_waiting_request_that_becomes_another_leaves_no_gauge,
	     a_throttled_worker_stuck_with_its_gate_leaves_no_gauge,
	     counters_concurrent_fetch_add_no_lost_updates,
	     inflated_avail_idx_poisons_queue_no_livelock,
	     poisoned_queue_clears_on_reset,
	     poisoned_queue_kicks_dont_touch_used_flags,
	     poison_signals_needs_reset_int_config_and_irqfd)
