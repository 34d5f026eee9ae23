/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Limits that change while the device runs: at once, for who waits already, and
 * whatever a worker is stuck in.
 */

#include "device.h"
#include "harness.h"
#include "rig.h"
#include "wedge.h"

#define OK VIRTIO_BLK_S_OK
#define HOUR_NS (3600 * NSEC_PER_SEC)

static const struct ktvblk_throttle none;

/* Who was taking tokens may have had no processor for 20 ms: once more. */
static void set(struct rig *rig, const struct ktvblk_throttle *throttle)
{
	int r = -EAGAIN;

	ck_assert(eventually((r = ktvblk_set_throttle(rig->dev, throttle)) !=
			     -EAGAIN));
	ck_assert_int_eq(r, 0);
}

/* A device that has no tokens, nor gets any, under one request a second. */
static void open_dry(struct rig *rig, struct rig_options options)
{
	options.config.throttle.iops = 1;
	rig_open(rig, &options);
	rig_drain_throttle(rig, now_ns() + HOUR_NS);
	rig_start(rig);
}

static void add(struct rig *rig, uint32_t type)
{
	rig_chain(rig, 0, type, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

static void wait_throttled(struct rig *rig, uint64_t n)
{
	ck_assert(eventually(rig_counters(rig).currently_throttled == n));
}

START_TEST(bad_limits_change_nothing)
{
	const struct ktvblk_throttle reserved = { .reserved[3] = 1 };
	const struct ktvblk_throttle burst = { .iops = 2, .iops_burst = 1 };
	const struct throttle *now;
	struct throttle before;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config.throttle.iops = 7 });
	now = &rig.dev->throttle->throttle;
	before = *now;
	ck_assert_int_eq(ktvblk_set_throttle(NULL, &none), -EINVAL);
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev, NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev, &reserved), -EINVAL);
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev, &burst), -EINVAL);
	ck_assert_mem_eq(now, &before, sizeof(before));
	rig_close(&rig);
}
END_TEST

START_TEST(a_waiting_request_goes_on_at_once_without_limits)
{
	for (unsigned int event_idx = 0; event_idx < 2; event_idx++) {
		struct rig rig;

		open_dry(&rig,
			 (struct rig_options){
				 .features = event_idx ? RIG_EVENT_IDX : 0 });
		add(&rig, VIRTIO_BLK_T_IN);
		wait_throttled(&rig, 1);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
		set(&rig, &none);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
		ck_assert_uint_eq(rig_counters(&rig).currently_throttled, 0);
		ck_assert_uint_eq(rig_counters(&rig).throttled_count, 1);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512),
				 OK);
		rig_close(&rig);
	}
}
END_TEST

/* Not by its timer, which comes within a second: that many would take long. */
START_TEST(no_change_of_limits_is_missed)
{
	const unsigned int n = rounds("LIMIT_ROUNDS", 300, 30);
	const struct ktvblk_throttle slow = { .bytes_per_sec = 1 };
	uint64_t start_ns;
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	start_ns = clock_start();
	for (unsigned int i = 0; i < n; i++) {
		set(&rig, &slow);
		/* The first goes on credit, so the second has to wait long. */
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512),
				 OK);
		add(&rig, VIRTIO_BLK_T_IN);
		/* Sometimes before, and sometimes while it finds no tokens. */
		if (i % 3 == 0)
			wait_throttled(&rig, 1);
		else if (i % 3 == 1)
			rig_kick(&rig);
		set(&rig, &none);
		rig_wait_used(&rig, (uint16_t)(2 * i + 2));
	}
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(n * 80ul));
	rig_close(&rig);
}
END_TEST

START_TEST(a_request_of_each_queue_is_looked_at_again)
{
	struct rig rig;

	open_dry(&rig, (struct rig_options){ .features = RIG_MQ,
					     .config.n_queues = 3 });
	for (unsigned int i = 0; i < 3; i++) {
		rig_select(&rig, i);
		add(&rig, VIRTIO_BLK_T_IN);
	}
	wait_throttled(&rig, 3);
	set(&rig, &none);
	for (unsigned int i = 0; i < 3; i++) {
		rig_select(&rig, i);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	}
	wait_throttled(&rig, 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_limit_holds_for_the_next_request)
{
	const struct ktvblk_throttle slow = { .bytes_per_sec = 512 };
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	set(&rig, &slow);
	rig_drain_throttle(&rig, now_ns() + HOUR_NS);
	add(&rig, VIRTIO_BLK_T_OUT);
	wait_throttled(&rig, 1);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	set(&rig, &none);
	rig_wait_used(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* Somebody has the tokens' lock and no processor: nobody waits for him. */
START_TEST(limits_that_cannot_be_changed_now_are_said_to_be_so)
{
	const struct ktvblk_throttle slow = { .iops = 5 };
	struct disk_throttle *throttle;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ 0 });
	throttle = rig.dev->throttle;
	gate_enter(&throttle->lock);
	ck_assert_int_eq(ktvblk_set_throttle(rig.dev, &slow), -EAGAIN);
	ck_assert_uint_eq(throttle->throttle.ops.rate, 0);
	gate_leave(&throttle->lock);
	set(&rig, &slow);
	ck_assert_uint_eq(throttle->throttle.ops.rate, 5);
	rig_close(&rig);
}
END_TEST

START_TEST(limits_change_without_memory_or_a_worker_and_behind_a_stop)
{
	const struct ktvblk_throttle slow = { .iops = 5 };
	const struct throttle *now;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .no_memory = true });
	now = &rig.dev->throttle->throttle;
	set(&rig, &slow);
	ck_assert_uint_eq(now->ops.rate, 5);
	ck_assert_int_eq(now->ops.available, 5);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	set(&rig, &none);
	ck_assert_uint_eq(now->ops.rate, 0);
	ktvblk_destroy(rig.dev);
	rig_free(&rig);
}
END_TEST

START_TEST(limits_change_while_a_worker_is_stuck_and_left_behind)
{
	const struct ktvblk_throttle slow = { .iops = 1000 };
	uint64_t start_ns;
	struct rig rig;

	wedge_open(&rig, 20, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	start_ns = clock_start();
	set(&rig, &slow);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	set(&rig, &none);
	set(&rig, &slow);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(500));
	wedge_close(&rig);
}
END_TEST

struct setter {
	struct rig *rig;
	_Atomic bool end;
};

static void *set_on_and_on(void *arg)
{
	const struct ktvblk_throttle limits[] = {
		{ 0 }, { .iops = 100000 }, { .bytes_per_sec = 1u << 30 }
	};
	struct setter *setter = (struct setter *)arg;

	for (size_t i = 0; !atomic_load(&setter->end); i++) {
		set(setter->rig, &limits[i % 3]);
		sched_yield(); /* the processors are not all theirs */
	}
	return NULL;
}

START_TEST(other_threads_change_limits_under_requests_and_resets)
{
	const unsigned int n = rounds("LIMIT_ROUNDS", 300, 30);
	pthread_t threads[2];
	struct rig rig;
	struct setter setter = { .rig = &rig };

	rig_open(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						set_on_and_on, &setter),
				 0);
	for (unsigned int i = 0; i < n; i++) {
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512),
				 OK);
		rig_reset(&rig);
	}
	atomic_store(&setter.end, true);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("set-throttle", bad_limits_change_nothing,
	     a_waiting_request_goes_on_at_once_without_limits,
	     no_change_of_limits_is_missed,
	     a_request_of_each_queue_is_looked_at_again,
	     a_limit_holds_for_the_next_request,
	     limits_that_cannot_be_changed_now_are_said_to_be_so,
	     limits_change_without_memory_or_a_worker_and_behind_a_stop,
	     limits_change_while_a_worker_is_stuck_and_left_behind,
	     other_threads_change_limits_under_requests_and_resets)
