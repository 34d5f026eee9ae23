/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The pure parts of the loop: how long to wait, what to do next, what a batch
 * of events asks for. 12.11 of the reference. The resolving of a drain that is
 * to be made again is watched at a real worker whose drain is scripted.
 */

/* wrap: drain timerfd_settime */

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "device.h"
#include "drain.h"
#include "wedge.h"
#include "worker.h"

/* What the next drains answer; behind that it is the real one. */
static struct {
	enum drain_end end;
	uint64_t wait_ns;
} script[4];
static _Atomic unsigned int script_len, drains;
static _Atomic uint64_t armed_ns[8];
static _Atomic uint64_t drained_ns; /* the last time */
static _Atomic unsigned int n_armed;

enum drain_end __real_drain(struct session *session, uint64_t *ret_wait_ns);
enum drain_end __wrap_drain(struct session *session, uint64_t *ret_wait_ns);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old);

enum drain_end __wrap_drain(struct session *session, uint64_t *ret_wait_ns)
{
	unsigned int i;

	/* The time before the count, as below. */
	atomic_store(&drained_ns, now_ns());
	i = atomic_fetch_add(&drains, 1);
	if (i >= atomic_load(&script_len))
		return __real_drain(session, ret_wait_ns);
	*ret_wait_ns = script[i].wait_ns;
	return script[i].end;
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *value,
			   struct itimerspec *old)
{
	/* The value before the count, which the test waits for. */
	atomic_store(&armed_ns[atomic_load(&n_armed) % 8],
		     (uint64_t)value->it_value.tv_sec * NSEC_PER_SEC +
			     (uint64_t)value->it_value.tv_nsec);
	atomic_fetch_add(&n_armed, 1);
	return __real_timerfd_settime(fd, flags, value, old);
}

/*
 * clamp
 */

/* 12.11.1 */
START_TEST(clamp_zero_floors_at_one)
{
	ck_assert_uint_eq(retry_clamp_ns(0), 1);
}
END_TEST

/* 12.11.2 */
START_TEST(clamp_saturates_at_cap)
{
	const uint64_t cap = 1000000000;

	ck_assert_uint_eq(retry_clamp_ns(UINT64_MAX), cap);
	ck_assert_uint_eq(retry_clamp_ns(cap + 1), cap);
	ck_assert_uint_eq(retry_clamp_ns(cap), cap);
	ck_assert_uint_eq(retry_clamp_ns(cap - 1), cap - 1);
	ck_assert_uint_eq(retry_clamp_ns(1), 1);
	ck_assert_uint_eq(retry_clamp_ns(500000000), 500000000);
}
END_TEST

/* 12.11.3 */
START_TEST(retry_timer_max_nanos_constant_pin)
{
	ck_assert_uint_eq(RETRY_NS_MAX, 1000000000);
	ck_assert_uint_eq(RETRY_NS_MIN, 1);
}
END_TEST

/*
 * decide
 */

/* 12.11.4 */
START_TEST(decide_done_is_continue)
{
	ck_assert_int_eq(retry_decide(false, 0).action, RETRY_NOT);
	ck_assert_int_eq(retry_decide(false, 5).action, RETRY_NOT);
}
END_TEST

/* 12.11.5 */
START_TEST(decide_zero_wait_is_redrain)
{
	ck_assert_int_eq(retry_decide(true, 0).action, RETRY_NOW);
}
END_TEST

/* 12.11.6 */
START_TEST(decide_nonzero_wait_is_sleep_with_clamped_nanos)
{
	ck_assert_int_eq(retry_decide(true, 1).action, RETRY_LATER);
	ck_assert_uint_eq(retry_decide(true, 1).wait_ns, 1);
	ck_assert_uint_eq(retry_decide(true, 777).wait_ns, 777);
	ck_assert_int_eq(retry_decide(true, UINT64_MAX).action, RETRY_LATER);
	ck_assert_uint_eq(retry_decide(true, UINT64_MAX).wait_ns, RETRY_NS_MAX);
}
END_TEST

/* 12.11.7 */
START_TEST(decide_is_pure)
{
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(retry_decide(true, 9).action, RETRY_LATER);
		ck_assert_uint_eq(retry_decide(true, 9).wait_ns, 9);
		ck_assert_int_eq(retry_decide(false, 9).action, RETRY_NOT);
	}
}
END_TEST

/* 12.11.8: should it have to sleep after all, the timer is not disarmed. */
START_TEST(decide_redrain_downgrades_to_sleep_one_ns)
{
	ck_assert_uint_eq(retry_decide(true, 0).wait_ns, 1);
}
END_TEST

/*
 * resolve: the real worker, a scripted drain
 */

static void resolve(struct rig *rig, enum drain_end first, uint64_t first_wait,
		    enum drain_end second, uint64_t second_wait)
{
	script[0].end = first;
	script[0].wait_ns = first_wait;
	script[1].end = second;
	script[1].wait_ns = second_wait;
	script_len = 2;
	drains = 0;
	n_armed = 0;
	wedge_open(rig, WAIT_MS, 0);
}

/* Or only when the timer of a second had brought it. */
static void expect_no_redrain(uint64_t start_ns)
{
	if (atomic_load(&drains) != 1)
		ck_assert_uint_ge(drained_ns - start_ns, RETRY_NS_MAX);
}

static void resolve_close(struct rig *rig)
{
	rig_close(rig);
	script_len = 0;
}

/* 12.11.9 */
START_TEST(resolve_continue_skips_redrain)
{
	struct rig rig;

	resolve(&rig, DRAIN_DONE, 0, DRAIN_DONE, 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	ck_assert_uint_eq(drains, 1);
	rig_kick(&rig);
	ck_assert(eventually(atomic_load(&drains) == 2));
	ck_assert_uint_eq(n_armed, 0);
	resolve_close(&rig);
}
END_TEST

/* 12.11.10: with a time to wait the drain comes by the timer, not at once. */
START_TEST(resolve_sleep_skips_redrain)
{
	const uint64_t start_ns = now_ns();
	struct rig rig;

	resolve(&rig, DRAIN_STALLED, UINT64_MAX, DRAIN_DONE, 0);
	ck_assert(eventually(atomic_load(&n_armed) == 1));
	ck_assert_uint_eq(armed_ns[0], RETRY_NS_MAX);
	expect_no_redrain(start_ns);
	resolve_close(&rig);
	expect_no_redrain(start_ns);
}
END_TEST

/* 12.11.11 */
START_TEST(resolve_redrain_done_is_continue)
{
	struct rig rig;

	resolve(&rig, DRAIN_STALLED, 0, DRAIN_DONE, 0);
	ck_assert(eventually(atomic_load(&drains) == 2));
	/* It takes kicks again: no timer is awaited. */
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_uint_eq(n_armed, 0);
	resolve_close(&rig);
}
END_TEST

/* 12.11.12 */
START_TEST(resolve_redrain_sleep_passes_through)
{
	struct rig rig;

	resolve(&rig, DRAIN_STALLED, 0, DRAIN_STALLED, 900000000);
	ck_assert(eventually(atomic_load(&n_armed) == 1));
	ck_assert_uint_eq(armed_ns[0], 900000000);
	ck_assert_uint_eq(drains, 2);
	resolve_close(&rig);
}
END_TEST

/* 12.11.13 */
START_TEST(resolve_redrain_redrain_downgrades_to_sleep_one_ns)
{
	struct rig rig;

	resolve(&rig, DRAIN_STALLED, 0, DRAIN_STALLED, 0);
	ck_assert(eventually(atomic_load(&n_armed) == 1));
	ck_assert_uint_eq(armed_ns[0], 1);
	/* Whose timer brings the third. */
	ck_assert(eventually(atomic_load(&drains) == 3));
	resolve_close(&rig);
}
END_TEST

/*
 * dispatch
 */

/* A batch of up to three events, and the records it makes. */
struct batch {
	struct recorder rec;
	struct identity id;
	struct epoll_event events[3];
	int n;
};

static void batch_open(struct batch *batch)
{
	*batch = (struct batch){ .id = { disk_id_new("vda", 8), 7, 0 } };
	wedge_record(&batch->rec);
	ck_assert_int_eq(log_ref(), 0);
}

static void batch_add(struct batch *batch, uint32_t token, uint32_t events)
{
	batch->events[batch->n++] =
		(struct epoll_event){ .events = events, .data.u32 = token };
}

static struct wake batch_dispatch(struct batch *batch)
{
	return worker_dispatch(batch->events, batch->n, &batch->id);
}

static void batch_close(struct batch *batch)
{
	recorder_stop(&batch->rec);
	log_unref(now_ns() + WAIT_MS * NSEC_PER_MSEC);
	disk_id_unref(batch->id.disk);
}

/* One event; how many records it makes, and the first of them. */
static struct wake dispatch_one(uint32_t token, uint32_t events, int n_records,
				const char *record)
{
	struct batch batch;
	struct wake wake;

	batch_open(&batch);
	batch_add(&batch, token, events);
	wake = batch_dispatch(&batch);
	ck_assert_int_eq(recorder_count(&batch.rec, NULL), n_records);
	if (record) {
		const struct kept_record *r = recorder_find(&batch.rec, record);

		ck_assert_ptr_nonnull(r);
		expect_number(r, "KTVBLK_TOKEN", token);
		expect_number(r, "STOP_FD", 7);
	}
	batch_close(&batch);
	return wake;
}

static void expect_wake(struct wake wake, bool stop, bool kick, bool timer)
{
	ck_assert(wake.stop == stop);
	ck_assert(wake.kick == kick);
	ck_assert(wake.timer == timer);
}

/* 12.11.14 */
START_TEST(dispatch_stop_token_clean)
{
	expect_wake(dispatch_one(TOKEN_STOP, EPOLLIN, 0, NULL), true, false,
		    false);
}
END_TEST

/* 12.11.15 */
START_TEST(dispatch_kick_token_clean)
{
	expect_wake(dispatch_one(TOKEN_KICK, EPOLLIN, 0, NULL), false, true,
		    false);
}
END_TEST

/* 12.11.16 */
START_TEST(dispatch_throttle_token_sets_flag)
{
	expect_wake(dispatch_one(TOKEN_TIMER, EPOLLIN, 0, NULL), false, false,
		    true);
}
END_TEST

/* 12.11.17, 12.11.18: a pause has no descriptor, a kick carries it. */
START_TEST(dispatch_pause_token_changed_to_a_kick_that_wakes_a_sleeper)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert(eventually(worker_sleeps(&rig)));
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
	rig_close(&rig);
}
END_TEST

/* 12.11.19 */
START_TEST(dispatch_unknown_tokens_skip)
{
	static const uint32_t tokens[] = { 0, TOKEN_COUNT + 1, 99, UINT32_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(tokens); i++)
		expect_wake(dispatch_one(tokens[i], EPOLLIN, 1,
					 KTVBLK_MESSAGE_EPOLL_UNKNOWN_TOKEN),
			    false, false, false);
}
END_TEST

/* 12.11.20 */
START_TEST(dispatch_kick_with_error_drains)
{
	expect_wake(dispatch_one(TOKEN_KICK, EPOLLIN | EPOLLERR, 1,
				 KTVBLK_MESSAGE_EPOLL_ERROR),
		    false, true, false);
}
END_TEST

/* 12.11.21 */
START_TEST(dispatch_throttle_with_error_drains)
{
	expect_wake(dispatch_one(TOKEN_TIMER, EPOLLIN | EPOLLERR, 1,
				 KTVBLK_MESSAGE_EPOLL_ERROR),
		    false, false, true);
}
END_TEST

/* 12.11.22 */
START_TEST(dispatch_stop_with_error_stops)
{
	expect_wake(dispatch_one(TOKEN_STOP, EPOLLIN | EPOLLERR, 1,
				 KTVBLK_MESSAGE_EPOLL_ERROR),
		    true, false, false);
}
END_TEST

/* 12.11.23 */
START_TEST(dispatch_kick_with_hangup_drains)
{
	expect_wake(dispatch_one(TOKEN_KICK, EPOLLIN | EPOLLHUP, 1,
				 KTVBLK_MESSAGE_EPOLL_HANGUP),
		    false, true, false);
}
END_TEST

/* 12.11.24 */
START_TEST(dispatch_kick_error_alone_drains)
{
	expect_wake(dispatch_one(TOKEN_KICK, EPOLLERR, 1,
				 KTVBLK_MESSAGE_EPOLL_ERROR),
		    false, true, false);
}
END_TEST

/* 12.11.25 */
START_TEST(dispatch_throttle_with_all_flags_drains)
{
	expect_wake(dispatch_one(TOKEN_TIMER, EPOLLIN | EPOLLERR | EPOLLHUP, 2,
				 KTVBLK_MESSAGE_EPOLL_HANGUP),
		    false, false, true);
}
END_TEST

/* 12.11.26: the event set is told as it came. */
START_TEST(epoll_event_set_roundtrip_pin)
{
	const uint32_t set = EPOLLIN | EPOLLERR | EPOLLHUP;
	struct batch batch;

	batch_open(&batch);
	batch_add(&batch, TOKEN_KICK, set);
	batch_dispatch(&batch);
	expect_number(recorder_wait(&batch.rec, KTVBLK_MESSAGE_EPOLL_ERROR),
		      "KTVBLK_EVENT_SET", set);
	expect_number(recorder_wait(&batch.rec, KTVBLK_MESSAGE_EPOLL_HANGUP),
		      "KTVBLK_EVENT_SET", set);
	batch_close(&batch);
}
END_TEST

START_TEST(dispatch_takes_all_of_a_batch_but_what_is_behind_a_stop)
{
	struct batch batch;

	batch_open(&batch);
	batch_add(&batch, TOKEN_KICK, EPOLLIN);
	batch_add(&batch, TOKEN_TIMER, EPOLLIN);
	expect_wake(batch_dispatch(&batch), false, true, true);
	batch.n = 0;
	batch_add(&batch, TOKEN_KICK, EPOLLIN);
	batch_add(&batch, TOKEN_STOP, EPOLLIN);
	batch_add(&batch, 99, EPOLLIN);
	expect_wake(batch_dispatch(&batch), true, true, false);
	ck_assert_int_eq(recorder_count(&batch.rec, NULL), 0);

	/* Nothing at all: a time-out, or a signal. */
	batch.n = 0;
	expect_wake(batch_dispatch(&batch), false, false, false);
	batch.n = -1;
	expect_wake(batch_dispatch(&batch), false, false, false);
	batch_close(&batch);
}
END_TEST

TEST_PROGRAM("worker", clamp_zero_floors_at_one, clamp_saturates_at_cap,
	     retry_timer_max_nanos_constant_pin, decide_done_is_continue,
	     decide_zero_wait_is_redrain,
	     decide_nonzero_wait_is_sleep_with_clamped_nanos, decide_is_pure,
	     decide_redrain_downgrades_to_sleep_one_ns,
	     resolve_continue_skips_redrain, resolve_sleep_skips_redrain,
	     resolve_redrain_done_is_continue,
	     resolve_redrain_sleep_passes_through,
	     resolve_redrain_redrain_downgrades_to_sleep_one_ns,
	     dispatch_stop_token_clean, dispatch_kick_token_clean,
	     dispatch_throttle_token_sets_flag,
	     dispatch_pause_token_changed_to_a_kick_that_wakes_a_sleeper,
	     dispatch_unknown_tokens_skip, dispatch_kick_with_error_drains,
	     dispatch_throttle_with_error_drains,
	     dispatch_stop_with_error_stops, dispatch_kick_with_hangup_drains,
	     dispatch_kick_error_alone_drains,
	     dispatch_throttle_with_all_flags_drains,
	     epoll_event_set_roundtrip_pin,
	     dispatch_takes_all_of_a_batch_but_what_is_behind_a_stop)
