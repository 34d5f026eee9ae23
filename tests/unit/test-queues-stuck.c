/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What hangs in one of several queues is nobody else's; all are stopped by one
 * deadline, and paused all or none.
 */

#include "several.h"

/* For a stop that some have to make while others hang. */
#define LONG_BUDGET_MS 3000

START_TEST(one_queue_that_hangs_is_nobody_elses)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open_with(&several, &(struct rig_options){
					    .config = { .n_queues = 4,
							.stall_warn_ms = 20 },
					    .features = RIG_MQ });
	rig_start(rig);
	several_hang(&several, 1);
	expect_number(recorder_wait(&several.rec,
				    KTVBLK_MESSAGE_REQUEST_STALLED),
		      "KTVBLK_QUEUE", 0);
	for (int round = 0; round < 10; round++)
		for (unsigned int i = 1; i < 4; i++)
			ck_assert_int_eq(several_read(rig, i), VIRTIO_BLK_S_OK);
	ck_assert(
		eventually(ktvblk_get_state(rig->dev) == KTVBLK_STATE_STALLED));
	latch_set(&several.stuck.go);
	several_await(rig, 0);
	ck_assert(
		eventually(ktvblk_get_state(rig->dev) == KTVBLK_STATE_RUNNING));
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	several_close(&several);
}
END_TEST

/* Each of the stuck is told of by its own STOP_FD and queue, once. */
static void expect_left(struct several *several, const char *id, unsigned int n)
{
	bool queues[KTVBLK_QUEUES_MAX] = { false };
	uint64_t stop_fds[KTVBLK_QUEUES_MAX];

	for (unsigned int i = 0; i < n; i++) {
		const struct kept_record *record =
			recorder_wait_n(&several->rec, id, (int)i + 1);
		const uint64_t queue = kept_number(record, "KTVBLK_QUEUE");

		ck_assert_uint_lt(queue, n);
		ck_assert(!queues[queue]);
		queues[queue] = true;
		stop_fds[i] = kept_number(record, "STOP_FD");
		for (unsigned int k = 0; k < i; k++)
			ck_assert_uint_ne(stop_fds[i], stop_fds[k]);
		expect_text(record, "KTVBLK_FENCED", "yes");
		expect_text(record, "KTVBLK_REQ_TYPE", "flush");
	}
	ck_assert_int_eq(recorder_count(&several->rec, id), (int)n);
}

static uint32_t budget_of(unsigned int n_queues, unsigned int n_stuck)
{
	return n_stuck < n_queues ? LONG_BUDGET_MS : SEVERAL_BUDGET_MS;
}

static void check_reset(unsigned int n_queues, unsigned int n_stuck)
{
	const uint32_t budget_ms = budget_of(n_queues, n_stuck);
	struct several several;
	struct rig *rig = &several.rig;
	uint64_t start, sum;

	several_open(&several, n_queues, budget_ms);
	several_hang(&several, n_stuck);
	start = clock_start();
	rig_reset(rig);
	ck_assert_uint_ge(ms_since(start), budget_ms);
	ck_assert_uint_lt(ms_since(start), bound_ms(budget_ms + 50));
	several_be_patient(&several);
	sum = wedge_ram_sum(rig);
	ck_assert_uint_eq(rig_status(rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_WEDGED);
	expect_left(&several, KTVBLK_MESSAGE_RESET_TIMED_OUT, n_stuck);
	ck_assert_uint_eq(wedge_ram_sum(rig), sum);

	/* None of the next life is served before the last one has ended. */
	rig_start(rig);
	for (unsigned int i = 0; i < n_queues; i++)
		several_ask(rig, i, VIRTIO_BLK_T_IN);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	start = clock_start();
	rig_reset(rig);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 2));
	rig_start(rig);
	for (unsigned int i = 0; i < n_queues; i++)
		several_ask(rig, i, VIRTIO_BLK_T_IN);
	sum = wedge_ram_sum(rig);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	ck_assert_uint_eq(wedge_ram_sum(rig), sum);
	latch_set(&several.stuck.go);
	for (unsigned int i = 0; i < n_queues; i++)
		several_await(rig, i);
	recorder_wait_n(&several.rec, KTVBLK_MESSAGE_RECLAIMED, (int)n_stuck);
	/* The late ones have not touched what is the driver's now. */
	ck_assert_uint_eq(rig_status(rig), S_OK);
	ck_assert_uint_eq(rig_counters(rig).flushes_completed, 0);
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	several_close(&several);
}

START_TEST(a_reset_with_some_stuck_takes_one_budget)
{
	check_reset(4, 1);
	check_reset(4, 4);
	check_reset(16, 16);
}
END_TEST

static void check_destroy(unsigned int n_queues, unsigned int n_stuck)
{
	const uint32_t budget_ms = budget_of(n_queues, n_stuck);
	struct several several;
	uint64_t start;

	several_open(&several, n_queues, budget_ms);
	several_hang(&several, n_stuck);
	start = clock_start();
	ck_assert_int_eq(ktvblk_destroy(several.rig.dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(start), budget_ms);
	ck_assert_uint_lt(ms_since(start), bound_ms(budget_ms + 50));
	several.rig.dev = NULL;
	expect_left(&several, KTVBLK_MESSAGE_DESTROY_TIMED_OUT, n_stuck);
	ck_assert_uint_eq(several.rig.ram_released, 0);
	several_close(&several);
}

START_TEST(a_destroy_with_some_stuck_takes_one_budget)
{
	check_destroy(4, 3);
	check_destroy(16, 16);
}
END_TEST

static void end_worker(struct storage *storage, enum storage_op op)
{
	(void)storage;
	if (op == OP_FLUSH)
		pthread_exit(NULL);
}

START_TEST(the_worst_of_all_queues_is_the_outcome)
{
	struct several several;

	several_open(&several, 4, WAIT_MS);
	several.rig.storage->hook = end_worker;
	several_ask(&several.rig, 2, VIRTIO_BLK_T_FLUSH);
	expect_number(recorder_wait(&several.rec,
				    KTVBLK_MESSAGE_WORKER_PANICKED),
		      "KTVBLK_QUEUE", 2);
	ck_assert_int_eq(ktvblk_get_state(several.rig.dev),
			 KTVBLK_STATE_NEEDS_RESET);
	ck_assert_int_eq(rig_destroy(&several.rig), KTVBLK_PANICKED);
	several_close(&several);

	/* One has ended by itself, and another one hangs. */
	several_open(&several, 4, SEVERAL_BUDGET_MS);
	several.rig.storage->hook = end_worker;
	several_ask(&several.rig, 2, VIRTIO_BLK_T_FLUSH);
	recorder_wait(&several.rec, KTVBLK_MESSAGE_WORKER_PANICKED);
	several.rig.storage->hook = several_hang_flush;
	several_hang(&several, 1);
	ck_assert_int_eq(ktvblk_destroy(several.rig.dev), KTVBLK_TIMED_OUT);
	several.rig.dev = NULL;
	several_close(&several);
}
END_TEST

START_TEST(a_request_to_stop_or_reset_reaches_all)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open(&several, 4, WAIT_MS);
	ck_assert_int_eq(ktvblk_request_reset(rig->dev), 0);
	ck_assert(eventually(several_workers(rig) == 0));
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_STOPPING);
	/* Nothing is served until the reset, whatever is made ready. */
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, 1);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(several_workers(rig), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_STOPPING);
	rig_reset(rig);
	rig_start(rig);
	for (unsigned int i = 0; i < 4; i++)
		ck_assert_int_eq(several_read(rig, i), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_request_stop(rig->dev), 0);
	ck_assert(eventually(several_workers(rig) == 0));
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	several_close(&several);
}
END_TEST

static void stop_queue(struct rig *rig, unsigned int queue)
{
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, queue);
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
}

START_TEST(a_queue_is_stopped_and_started_among_others)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open(&several, 3, WAIT_MS);
	for (unsigned int i = 0; i < 3; i++) {
		stop_queue(rig, i);
		ck_assert_uint_eq(several_workers(rig), 2);
		for (unsigned int k = 0; k < 3; k++)
			if (k != i)
				ck_assert_int_eq(several_read(rig, k),
						 VIRTIO_BLK_S_OK);
		ck_assert_int_eq(ktvblk_get_state(rig->dev),
				 KTVBLK_STATE_RUNNING);
		ck_assert_uint_eq(rig_status(rig), S_OK);
		rig_select(rig, i);
		rig_set_up_queue(rig);
		ck_assert_int_eq(several_read(rig, i), VIRTIO_BLK_S_OK);
	}
	several_close(&several);
}
END_TEST

/*
 * What the driver asks of the others after the stop must not be done before what
 * the stuck one is at.
 */
START_TEST(a_queue_that_is_stopped_stuck_holds_up_the_others)
{
	struct several several;
	struct rig *rig = &several.rig;
	uint64_t start;

	several_open(&several, 3, SEVERAL_BUDGET_MS);
	several_hang(&several, 1);
	ck_assert_int_eq(several_read(rig, 1), VIRTIO_BLK_S_OK);
	start = clock_start();
	stop_queue(rig, 0);
	ck_assert_uint_lt(ms_since(start), bound_ms(SEVERAL_BUDGET_MS + 50));
	several_be_patient(&several);
	expect_left(&several, KTVBLK_MESSAGE_RESET_TIMED_OUT, 1);
	ck_assert_uint_eq(rig_status(rig), S_OK);
	several_ask(rig, 1, VIRTIO_BLK_T_IN);
	several_ask(rig, 2, VIRTIO_BLK_T_IN);
	recorder_wait_n(&several.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN, 2);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 1);
	ck_assert_int_eq(ktvblk_pause(rig->dev, 1), -ETIMEDOUT);
	latch_set(&several.stuck.go);
	several_await(rig, 1);
	several_await(rig, 2);
	/* A failure of the late flush would be nobody's either. */
	ck_assert_uint_eq(rig_status(rig), S_OK);
	rig_select(rig, 0);
	rig_set_up_queue(rig);
	ck_assert_int_eq(several_read(rig, 0), VIRTIO_BLK_S_OK);
	rig_reset(rig);
	rig_start(rig);
	ck_assert_int_eq(several_read(rig, 0), VIRTIO_BLK_S_OK);
	several_close(&several);
}
END_TEST

/*
 * Pause
 */

START_TEST(a_pause_is_one_of_all_queues_or_none)
{
	struct several several;
	struct rig *rig = &several.rig;

	several_open(&several, 4, WAIT_MS);
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_PAUSED);
	for (unsigned int i = 0; i < 4; i++)
		several_ask(rig, i, VIRTIO_BLK_T_IN);
	ck_assert_uint_eq(storage_calls(rig->storage, OP_READ), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	for (unsigned int i = 0; i < 4; i++)
		several_await(rig, i);

	several_hang(&several, 1);
	ck_assert_int_eq(ktvblk_pause(rig->dev, 30), -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_is_paused(rig->dev), 0);
	for (unsigned int i = 1; i < 4; i++)
		ck_assert_int_eq(several_read(rig, i), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, -1), 0);
	latch_set(&several.stuck.go);
	ck_assert(eventually(ktvblk_is_paused(rig->dev) == 1));
	several_await(rig, 0);
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	several_close(&several);
}
END_TEST

TEST_PROGRAM("queues-stuck", one_queue_that_hangs_is_nobody_elses,
	     a_reset_with_some_stuck_takes_one_budget,
	     a_destroy_with_some_stuck_takes_one_budget,
	     the_worst_of_all_queues_is_the_outcome,
	     a_request_to_stop_or_reset_reaches_all,
	     a_queue_is_stopped_and_started_among_others,
	     a_queue_that_is_stopped_stuck_holds_up_the_others,
	     a_pause_is_one_of_all_queues_or_none)
