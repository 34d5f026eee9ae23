/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Reset and destroy come back within their budget and 50 ms, whatever hangs:
 * the storage, the sink of the records, guest memory itself, the stop eventfd.
 */

/* wrap: write */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "page.h"
#include "teardown.h"
#include "wedge.h"

#define BUDGET 50

WRAP_WRITE

static enum ktvblk_outcome destroy(struct rig *rig)
{
	const enum ktvblk_outcome outcome = ktvblk_destroy(rig->dev);

	rig->dev = NULL;
	return outcome;
}

/*
 * The budget
 */

/* 12.3.1, 12.3.2, 12.3.5 */
START_TEST(a_join_comes_back_at_once_or_at_the_end_of_the_budget)
{
	uint64_t start;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	start = clock_start();
	rig_close(&rig);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 2));

	wedge_open(&rig, BUDGET, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	start = clock_start();
	ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(200));
	wedge_close(&rig);

	wedge_open(&rig, 100, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	start = clock_start();
	rig_reset(&rig);
	ck_assert_uint_ge(ms_since(start), 100);
	ck_assert_uint_lt(ms_since(start), bound_ms(200));
	wedge_close(&rig);
}
END_TEST

static void leave_thread(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_exit(NULL);
}

/* 12.3.3, the text that comes with it being in test-teardown-outcomes */
START_TEST(join_worker_with_timeout_returns_panicked_on_worker_panic)
{
	uint64_t start;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	rig.storage->hook = leave_thread;
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	start = clock_start();
	ck_assert_int_eq(destroy(&rig), KTVBLK_PANICKED);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 2));
	wedge_close(&rig);
}
END_TEST

/* 12.3.4 */
START_TEST(reset_join_timeout_matches_drop_budget)
{
	uint64_t start;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .own_budgets = true });
	ck_assert_uint_eq(rig.dev->reset_timeout_ms, 1000);
	ck_assert_uint_eq(rig.dev->destroy_timeout_ms, 1000);
	rig_start(&rig);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	start = clock_start();
	ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(start), 1000);
	ck_assert_uint_lt(ms_since(start), bound_ms(1050));
	wedge_close(&rig);
}
END_TEST

/* Keep the thread of the records busy: its sink hangs in a record. */
static void hold_records(struct rig *rig, struct recorder *rec)
{
	recorder_hold(rec);
	ck_assert_int_eq(ktvblk_set_memory(rig->dev, rig->dev->holdings->mem),
			 -EBUSY);
	recorder_wait_held(rec);
}

static void check_budget(bool destroying)
{
	for (int i = 0; i < 20; i++) {
		struct recorder rec;
		uint64_t start, took;
		struct rig rig;

		wedge_record(&rec);
		wedge_open(&rig, 20, 0);
		wedge(&rig, VIRTIO_BLK_T_OUT, 0);
		hold_records(&rig, &rec);
		start = clock_start();
		if (destroying)
			ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
		else
			rig_reset(&rig);
		took = ms_since(start);
		recorder_go_on(&rec);
		ck_assert_msg(took >= 20 && took < bound_ms(20 + 50),
			      "try %d took %u ms", i, (unsigned int)took);
		wedge_close(&rig);
		recorder_stop(&rec);
	}
}

START_TEST(a_wedged_reset_keeps_to_its_budget_though_the_records_hang)
{
	check_budget(false);
}
END_TEST

START_TEST(a_wedged_destroy_keeps_to_its_budget_though_the_records_hang)
{
	check_budget(true);
}
END_TEST

static bool destroy_is_short_under_a_hanging_sink(void)
{
	struct recorder rec;
	struct rig rig;
	uint64_t start;
	bool is_short;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	hold_records(&rig, &rec);
	start = clock_start();
	ck_assert_int_eq(destroy(&rig), KTVBLK_JOINED);
	is_short = ms_since(start) < bound_ms(50);
	recorder_go_on(&rec);
	wedge_close(&rig);
	recorder_stop(&rec);
	ck_assert(eventually(count_threads("ktvblk") == 0));
	return is_short;
}

/* Its worker needs a processor to end, so it may take longer now and then. */
START_TEST(a_clean_destroy_waits_for_a_hanging_sink_but_shortly)
{
	ck_assert(eventually(destroy_is_short_under_a_hanging_sink()));
}
END_TEST

/*
 * Many devices, one budget
 */

#define MANY 8

START_TEST(many_wedged_devices_share_one_budget)
{
	struct rig rigs[MANY];
	uint64_t start;

	for (int i = 0; i < MANY; i++) {
		wedge_open(&rigs[i], 100, 0);
		wedge(&rigs[i], VIRTIO_BLK_T_IN, 0);
	}
	start = clock_start();
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(ktvblk_request_stop(rigs[i].dev), 0);
		ck_assert_int_eq(ktvblk_get_state(rigs[i].dev),
				 KTVBLK_STATE_STOPPING);
	}
	ck_assert_uint_lt(ms_since(start), bound_ms(50));
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(destroy(&rigs[i]), KTVBLK_TIMED_OUT);
	ck_assert_uint_lt(ms_since(start), bound_ms(100 + 50));
	for (int i = 0; i < MANY; i++)
		wedge_close(&rigs[i]);
}
END_TEST

/* What a wedged neighbour used up must not make a healthy disk look wedged. */
START_TEST(a_healthy_device_is_joined_behind_a_wedged_one)
{
	struct rig wedged, busy, idle;
	struct recorder rec;
	unsigned int threads;

	wedge_record(&rec);
	wedge_open(&wedged, 30, 0);
	wedge_open(&busy, 30, 0);
	wedge_open_idle(&idle, 30, 0);
	ck_assert_int_eq(rig_read_sector(&busy), 0);
	wedge(&wedged, VIRTIO_BLK_T_IN, 0);
	threads = count_threads("");
	ktvblk_request_stop(wedged.dev);
	ktvblk_request_stop(busy.dev);
	ktvblk_request_stop(idle.dev);
	ck_assert_int_eq(destroy(&wedged), KTVBLK_TIMED_OUT);
	/* Theirs have ended; one waits for the wedged worker. */
	ck_assert(eventually(count_threads("") == threads));
	ck_assert_int_eq(destroy(&busy), KTVBLK_JOINED);
	ck_assert_int_eq(destroy(&idle), KTVBLK_JOINED);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_DESTROY_TIMED_OUT),
			 1);
	wedge_close(&busy);
	wedge_close(&idle);
	wedge_close(&wedged);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_device_told_to_stop_answers_but_starts_no_worker)
{
	struct ktvblk_mem *mem;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	mem = ktvblk_mem_ref(rig.dev->holdings->mem);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	ck_assert(eventually(worker_tid(&rig) == 0));
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, mem), -EBUSY);
	ktvblk_mem_unref(mem);
	recorder_clear(&rec);
	rig_reset(&rig);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	ck_assert_int_eq(worker_tid(&rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_STOPPING);
	ck_assert_int_eq(destroy(&rig), KTVBLK_JOINED);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* The guest does not know, and resets in between. */
START_TEST(a_device_told_to_stop_may_be_reset_though_it_is_wedged)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	rig_reset(&rig);
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
	recorder_wait(&rec, KTVBLK_MESSAGE_DESTROY_STILL_WEDGED);
	ck_assert_uint_eq(rig.storage->released, 0);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(rig.storage->released, 1);
	wedge_close(&rig);
	ck_assert_int_eq(recorder_count(&rec, NULL), 3);
	recorder_stop(&rec);
}
END_TEST

/*
 * Stuck with the gate in its hands
 */

START_TEST(a_gate_that_is_not_given_up_costs_20_ms_and_the_fence)
{
	for (int destroying = 0; destroying < 2; destroying++) {
		struct session *session;
		struct recorder rec;
		uint64_t start;
		struct rig rig;

		wedge_record(&rec);
		wedge_open(&rig, BUDGET, 0);
		ck_assert_int_eq(rig_read_sector(&rig), 0);
		session = rig.dev->queues[0].session;
		refs_get(&session->refs);
		gate_enter(&session->gate);
		start = clock_start();
		if (destroying)
			ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
		else
			rig_reset(&rig);
		ck_assert_uint_ge(ms_since(start), BUDGET + 20);
		ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
		const struct kept_record *record = recorder_wait(
			&rec, destroying ? KTVBLK_MESSAGE_DESTROY_TIMED_OUT
					 : KTVBLK_MESSAGE_RESET_TIMED_OUT);
		expect_text(record, "KTVBLK_FENCED", "no");
		/* It was between two requests. */
		ck_assert_ptr_null(kept_field(record, "KTVBLK_REQ_TYPE"));
		ck_assert(session->revoked);
		gate_leave(&session->gate);
		recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
		session_unref(session);
		wedge_close(&rig);
		recorder_stop(&rec);
	}
}
END_TEST

START_TEST(guest_memory_that_blocks_costs_20_ms_and_the_fence)
{
	const struct kept_record *record;
	struct recorder rec;
	struct page page;
	uint64_t start;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	if (!page_block(&page, rig_at(&rig, RIG_DATA)))
		goto out;
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 7, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	page_wait(&page);
	start = clock_start();
	rig_reset(&rig);
	ck_assert_uint_ge(ms_since(start), BUDGET + 20);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	record = recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	expect_text(record, "KTVBLK_FENCED", "no");
	expect_text(record, "KTVBLK_REQ_TYPE", "in");
	expect_number(record, "KTVBLK_SECTOR", 7);
	page_bring(&page, NULL);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	/* The copy it was in ends; no status and no used entry follow it. */
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
out:
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* Who wants no records gets none, not even of that. */
START_TEST(the_level_holds_for_wedges_and_stalls)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET,
			    .destroy_timeout_ms = BUDGET,
			    .stall_warn_ms = 10 },
	};
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	ck_assert_int_eq(ktvblk_set_log_level(LOG_ALERT), 0);
	rig_start(&rig);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	/* The bit with which the log thread says that it has told. */
	ck_assert(eventually(rig.dev->queues[0].session->watch->slots[0].word &
			     2u));
	rig_reset(&rig);
	ck_assert_int_eq(destroy(&rig), KTVBLK_TIMED_OUT);
	wedge_close(&rig);
	/* One that has not come to run is not called ktvblk-drop yet. */
	ck_assert(eventually(count_threads("ktvblk") == 0));
	ck_assert_int_eq(ktvblk_set_log_level(LOG_INFO), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	recorder_stop(&rec);
}
END_TEST

/*
 * The stop eventfd
 */

/* Full for real: it stays readable, so the worker ends all the same. */
START_TEST(a_full_stop_eventfd_is_tried_four_times_and_done_without)
{
	const uint64_t full = UINT64_MAX - 1;
	const struct kept_record *record;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(write(rig_identity(&rig).stop_fd, &full, sizeof(full)),
			 sizeof(full));
	ck_assert_int_eq(destroy(&rig), KTVBLK_JOINED);
	for (int i = 0; i < 4; i++) {
		record = recorder_wait_n(&rec, KTVBLK_MESSAGE_STOP_RETRIED,
					 i + 1);
		expect_number(record, "KTVBLK_ATTEMPT", i);
		ck_assert_int_eq(record->priority, LOG_WARNING);
	}
	record = recorder_wait(&rec, KTVBLK_MESSAGE_STOP_GAVE_UP);
	expect_number(record, "KTVBLK_RETRIES", 4);
	ck_assert_int_eq(record->priority, LOG_ERR);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_stop_eventfd_that_is_full_for_a_moment_is_written_in_the_end)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EAGAIN,
					.times = 3,
					.fd = rig_identity(&rig).stop_fd });
	rig_reset(&rig);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_STOP_RETRIED), 3);
	ck_assert_int_eq(recorder_count(&rec, NULL), 3);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* The worker sleeps in epoll, and a kick wakes it as well. */
START_TEST(a_stop_eventfd_that_cannot_be_written_is_recorded_and_made_up_for)
{
	const struct kept_record *record;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EIO,
					.fd = rig_identity(&rig).stop_fd });
	ck_assert_int_eq(destroy(&rig), KTVBLK_JOINED);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_STOP_WRITE_FAILED);
	expect_number(record, "KTVBLK_ATTEMPT", 0);
	expect_number(record, "ERRNO", EIO);
	ck_assert_int_eq(record->priority, LOG_ERR);
	ck_assert_int_eq(recorder_count(&rec, NULL), 1);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_parked_worker_needs_no_stop_eventfd)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EIO,
					.fd = rig_identity(&rig).stop_fd });
	rig_close(&rig);
}
END_TEST

/*
 * Cancellation
 */

struct ender {
	struct rig *rig;
	bool destroying;
	struct latch cancelled;
	_Atomic bool ended;
};

static void *end_device(void *arg)
{
	struct ender *ender = (struct ender *)arg;

	/* The request is pending when the call begins, and all through it. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	latch_wait(&ender->cancelled, WAIT_MS);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	if (ender->destroying)
		ktvblk_destroy(ender->rig->dev);
	else
		rig_reset(ender->rig);
	ender->ended = true;
	pthread_testcancel();
	return NULL;
}

START_TEST(a_thread_is_not_cancelled_inside_reset_or_destroy)
{
	for (int destroying = 0; destroying < 2; destroying++) {
		struct rig rig;
		struct ender ender = { .rig = &rig, .destroying = destroying };
		pthread_t thread;
		void *ret;

		wedge_open(&rig, BUDGET, 0);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		latch_init(&ender.cancelled);
		ck_assert_int_eq(
			pthread_create(&thread, NULL, end_device, &ender), 0);
		ck_assert_int_eq(pthread_cancel(thread), 0);
		latch_set(&ender.cancelled);
		ck_assert_int_eq(pthread_join(thread, &ret), 0);
		ck_assert_ptr_eq(ret, PTHREAD_CANCELED);
		ck_assert(ender.ended);
		latch_destroy(&ender.cancelled);
		if (destroying)
			rig.dev = NULL;
		wedge_close(&rig);
	}
}
END_TEST

TEST_PROGRAM("teardown", a_join_comes_back_at_once_or_at_the_end_of_the_budget,
	     join_worker_with_timeout_returns_panicked_on_worker_panic,
	     reset_join_timeout_matches_drop_budget,
	     a_wedged_reset_keeps_to_its_budget_though_the_records_hang,
	     a_wedged_destroy_keeps_to_its_budget_though_the_records_hang,
	     a_clean_destroy_waits_for_a_hanging_sink_but_shortly,
	     many_wedged_devices_share_one_budget,
	     a_healthy_device_is_joined_behind_a_wedged_one,
	     a_device_told_to_stop_answers_but_starts_no_worker,
	     a_device_told_to_stop_may_be_reset_though_it_is_wedged,
	     a_gate_that_is_not_given_up_costs_20_ms_and_the_fence,
	     the_level_holds_for_wedges_and_stalls,
	     guest_memory_that_blocks_costs_20_ms_and_the_fence,
	     a_full_stop_eventfd_is_tried_four_times_and_done_without,
	     a_stop_eventfd_that_is_full_for_a_moment_is_written_in_the_end,
	     a_stop_eventfd_that_cannot_be_written_is_recorded_and_made_up_for,
	     a_parked_worker_needs_no_stop_eventfd,
	     a_thread_is_not_cancelled_inside_reset_or_destroy)
