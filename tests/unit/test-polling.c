/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A worker that looks at the avail ring before it sleeps: it needs no kick
 * meanwhile, keeps nobody waiting, and stops looking where that finds nothing.
 */

#include "device.h"
#include "front-end.h"
#include "harness.h"
#include "rig.h"

/* Far longer than a test takes, so that what ends in it did not wait for it. */
#define ENDLESS_NS (600 * NSEC_PER_SEC)

/*
 * The arithmetic, with a bound of 50 us
 */

static uint64_t adapted(uint64_t window_ns, uint64_t slept_ns)
{
	struct polling polling;

	polling_init(&polling, 50);
	polling.window_ns = window_ns;
	polling_adapt(&polling, slept_ns);
	return polling.window_ns;
}

START_TEST(short_sleeps_lengthen_the_poll_up_to_its_bound)
{
	ck_assert_uint_eq(adapted(0, 0), 5000);
	ck_assert_uint_eq(adapted(0, 100000), 5000);
	ck_assert_uint_eq(adapted(5000, 95000), 10000);
	ck_assert_uint_eq(adapted(20000, 30000), 40000);
	ck_assert_uint_eq(adapted(40000, 30000), 50000);
	ck_assert_uint_eq(adapted(50000, 50000), 50000);
}
END_TEST

START_TEST(long_sleeps_shorten_the_poll_down_to_none)
{
	ck_assert_uint_eq(adapted(0, 100001), 0);
	ck_assert_uint_eq(adapted(50000, 50001), 25000);
	ck_assert_uint_eq(adapted(25000, UINT64_MAX), 12500);
	ck_assert_uint_eq(adapted(12500, 1000000), 6250);
	ck_assert_uint_eq(adapted(6250, 1000000), 0);
}
END_TEST

START_TEST(a_bound_below_the_first_window_is_kept)
{
	struct polling polling;

	polling_init(&polling, 1);
	ck_assert_uint_eq(polling.window_ns, 0);
	polling_adapt(&polling, 0);
	ck_assert_uint_eq(polling.window_ns, 1000);
	polling_adapt(&polling, 2001);
	ck_assert_uint_eq(polling.window_ns, 0);
}
END_TEST

/*
 * The worker. What it keeps for itself may be looked at while it is parked.
 */

static void park(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
}

static struct polling polling_of(struct rig *rig)
{
	struct polling polling;

	park(rig);
	polling = rig->dev->queues[0].session->polling;
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	return polling;
}

/* Start a worker that polls for so long. */
static void start_with_window(struct rig *rig, uint64_t window_ns)
{
	rig_start(rig);
	park(rig);
	rig->dev->queues[0].session->polling.window_ns = window_ns;
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

static void open_with_window(struct rig *rig, uint64_t features,
			     uint64_t window_ns)
{
	rig_open(rig, &(struct rig_options){ .features = features,
					     .config.poll_us = 1000 });
	start_with_window(rig, window_ns);
}

/* A device whose worker polls without an end. */
static void start_polling(struct rig *rig, uint64_t features)
{
	open_with_window(rig, features, ENDLESS_NS);
}

static void serve_without_kick(struct rig *rig)
{
	const uint16_t used = rig_used_idx(rig);

	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_wait_used(rig, (uint16_t)(used + 1u));
	ck_assert_int_eq(*rig_chain_status(rig, 0), VIRTIO_BLK_S_OK);
}

START_TEST(a_worker_that_polls_needs_no_kick_and_asks_for_none)
{
	const bool event_idx = _i;
	struct rig rig;

	start_polling(&rig, event_idx ? RIG_EVENT_IDX : 0);
	for (int i = 0; i < 3; i++)
		serve_without_kick(&rig);
	if (event_idx)
		ck_assert_uint_eq(rig_avail_event(&rig), 0);
	else
		ck_assert_uint_eq(rig_used_flags(&rig), VRING_USED_F_NO_NOTIFY);
	rig_close(&rig);
}
END_TEST

START_TEST(a_worker_that_polls_interrupts_first)
{
	struct rig rig;
	struct pollfd irq = { .events = POLLIN };

	start_polling(&rig, 0);
	irq.fd = ktvblk_irq_fd(rig.dev);
	serve_without_kick(&rig);
	ck_assert_int_eq(poll(&irq, 1, WAIT_MS), 1);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	rig_close(&rig);
}
END_TEST

START_TEST(a_poll_delays_neither_pause_nor_reset_nor_destroy)
{
	struct rig rig;

	start_polling(&rig, RIG_EVENT_IDX);
	serve_without_kick(&rig);
	park(&rig);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	serve_without_kick(&rig);
	/* Joined: else the device would be wedged. */
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	start_with_window(&rig, ENDLESS_NS);
	serve_without_kick(&rig);
	rig_close(&rig);
}
END_TEST

START_TEST(after_the_poll_it_asks_for_kicks_and_sleeps)
{
	const uint16_t heads[] = { 0, 3 };
	struct rig rig;

	open_with_window(&rig, RIG_EVENT_IDX, NSEC_PER_MSEC);
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		rig_chain(&rig, heads[i], VIRTIO_BLK_T_IN, 0, 512);
	rig_avail_all(&rig, heads, ARRAY_SIZE(heads));
	rig_kick(&rig);
	rig_wait_used(&rig, 2);
	ck_assert(eventually(rig_avail_event(&rig) == 2));
	ck_assert(eventually(thread_state(find_thread("ktvblk-")) == 'S'));
	rig_close(&rig);
}
END_TEST

/* What is unreadable or not to be believed ends a poll like a drain. */
START_TEST(a_poll_finds_a_bad_index_too)
{
	struct rig rig;

	start_polling(&rig, 0);
	rig_set_avail_idx(&rig, 1000);
	ck_assert(eventually(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET));
	ck_assert_uint_eq(rig_counters(&rig).invalid_avail_idx_count, 1);
	rig_close(&rig);
}
END_TEST

/*
 * Who polls
 */

START_TEST(a_driver_that_comes_back_soon_makes_it_poll)
{
	struct rig rig;
	bool polls = false;

	rig_open(&rig, &(struct rig_options){ .config.poll_us = 1000 });
	rig_start(&rig);
	/* Only a machine that never wakes us within 2 ms would see none. */
	for (int i = 0; i < 1000 && !polls; i++) {
		rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512);
		polls = polling_of(&rig).window_ns != 0;
	}
	ck_assert(polls);
	rig_close(&rig);
}
END_TEST

START_TEST(no_poll_means_none)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config.flags = KTVBLK_NO_POLL });
	rig_start(&rig);
	for (int i = 0; i < 100; i++)
		rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512);
	ck_assert_uint_eq(polling_of(&rig).max_ns, 0);
	ck_assert_uint_eq(polling_of(&rig).window_ns, 0);
	rig_close(&rig);
}
END_TEST

static uint64_t max_ns_of(const struct rig_options *options,
			  const uint32_t *cpu)
{
	struct rig rig;
	uint64_t max_ns;

	rig_open(&rig, options);
	if (cpu)
		ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, cpu, 1), 0);
	rig_start(&rig);
	max_ns = polling_of(&rig).max_ns;
	rig_close(&rig);
	return max_ns;
}

/* The first CPU of a set that is not `other`. */
static uint32_t first_cpu(const cpu_set_t *set, uint32_t other)
{
	for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (cpu != other && CPU_ISSET(cpu, set))
			return cpu;
	return CPU_SETSIZE;
}

START_TEST(by_default_a_worker_polls_only_beside_its_drivers_cpu)
{
	const struct rig_options standard = { .features = 0 };
	const struct rig_options wanted = { .config.poll_us = 7 };
	cpu_set_t all, one;
	uint32_t ours, other;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	ours = first_cpu(&all, CPU_SETSIZE);
	other = first_cpu(&all, ours);
	if (other < CPU_SETSIZE)
		ck_assert_uint_eq(max_ns_of(&standard, NULL), 50000);
	CPU_ZERO(&one);
	CPU_SET(ours, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	ck_assert_uint_eq(max_ns_of(&standard, NULL), 0);
	ck_assert_uint_eq(max_ns_of(&standard, &ours), 0);
	ck_assert_uint_eq(max_ns_of(&wanted, NULL), 7000);
	if (other < CPU_SETSIZE)
		ck_assert_uint_eq(max_ns_of(&standard, &other), 50000);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(all), &all), 0);
}
END_TEST

/* Of a device that a front end has started, where the transport is. */
static uint64_t max_ns_by_vhost_user(struct front_end *front)
{
	uint64_t max_ns;

	front_disconnect(front);
	front_connect(front);
	front_start(front);
	/* A worker has read it before it answers. */
	ck_assert_int_eq(rig_read_sector(&front->rig), 0);
	max_ns = polling_of(&front->rig).max_ns;
	front_stop(front, 0);
	return max_ns;
}

START_TEST(by_default_it_polls_beside_a_front_end_that_may_run_elsewhere)
{
	struct front_end front;
	cpu_set_t all, one;

	ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	if (CPU_COUNT(&all) < 2)
		return;
	CPU_ZERO(&one);
	CPU_SET(first_cpu(&all, CPU_SETSIZE), &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	front_open(&front, &(struct rig_options){ 0 });
	ck_assert_uint_eq(max_ns_by_vhost_user(&front), 0);
	/* The transport's thread stays where it is. */
	ck_assert_int_eq(sched_setaffinity(0, sizeof(all), &all), 0);
	ck_assert_uint_eq(max_ns_by_vhost_user(&front), 50000);
	front_close(&front);
}
END_TEST

LOOP_PROGRAM("polling", 2, short_sleeps_lengthen_the_poll_up_to_its_bound,
	     long_sleeps_shorten_the_poll_down_to_none,
	     a_bound_below_the_first_window_is_kept,
	     a_worker_that_polls_needs_no_kick_and_asks_for_none,
	     a_worker_that_polls_interrupts_first,
	     a_poll_delays_neither_pause_nor_reset_nor_destroy,
	     after_the_poll_it_asks_for_kicks_and_sleeps,
	     a_poll_finds_a_bad_index_too,
	     a_driver_that_comes_back_soon_makes_it_poll, no_poll_means_none,
	     by_default_a_worker_polls_only_beside_its_drivers_cpu,
	     by_default_it_polls_beside_a_front_end_that_may_run_elsewhere)
