/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Paused means paused; no resume is lost, however quickly it follows; a pause
 * that cannot be had fails in time and the device runs on; a pause outlives a
 * reset, and holds neither reset nor destroy up.
 */

/* wrap: write */

#include <fcntl.h>
#include <sys/eventfd.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

#define BUDGET 40

WRAP_WRITE

/* A chain at head 0 that nobody serves yet. */
static void make_available(struct rig *rig)
{
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

static int new_eventfd(void)
{
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static uint64_t take(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	return n;
}

static bool comes(int fd)
{
	return poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, (int)WAIT_MS) == 1;
}

/*
 * Pausing and going on
 */

/* 12.3.25: changed, a pause is a number and the kick wakes */
START_TEST(pause_and_resume_count_on_changed)
{
	struct rig rig;

	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1); /* no worker */
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_PAUSED);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_paused_device_serves_nothing_and_a_resumed_one_all)
{
	uint64_t sum;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	make_available(&rig);
	rig_kick(&rig);
	sum = wedge_ram_sum(&rig);
	ck_assert(eventually(thread_state(worker_tid(&rig)) == 'S'));
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 1);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

/* A kick taken by a worker on its way to the park is not lost either. */
START_TEST(what_came_during_a_pause_needs_no_kick_after_it)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	make_available(&rig);
	take(ktvblk_kick_fd(rig.dev));
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 2);
	rig_close(&rig);
}
END_TEST

/* 13.3.8, 13.2 "lost next cycle" */
START_TEST(no_resume_and_no_pause_is_lost_however_quick)
{
	const unsigned int n = rounds("CYCLES", 1000, 100);
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	for (unsigned int i = 1; i <= n; i++) {
		/* A resume before the worker saw the pause. */
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		if (i % 2)
			ck_assert_int_eq(rig_read_sector(&rig), 0);
		/* A pause before it saw the resume: this one holds. */
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
		make_available(&rig);
		ck_assert(eventually(ktvblk_is_paused(rig.dev) == 1));
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		ck_assert(eventually(rig_used_idx(&rig) == rig.avail_idx));
		rig.used_seen = rig.avail_idx;
	}
	rig_close(&rig);
}
END_TEST

START_TEST(a_pause_is_obeyed_between_two_requests_of_one_drain)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	storage_hold(rig.storage);
	for (uint16_t i = 0; i < 4; i++) {
		rig_chain(&rig, (uint16_t)(i * 3), VIRTIO_BLK_T_IN, i, 512);
		rig_avail(&rig, (uint16_t)(i * 3));
	}
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
	storage_let_go(rig.storage);
	ck_assert(eventually(ktvblk_is_paused(rig.dev) == 1));
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 4);
	rig_close(&rig);
}
END_TEST

START_TEST(a_throttled_device_is_paused_and_goes_on)
{
	const struct rig_options options = {
		.config = { .throttle = { .iops = 2 } },
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_set_tokens(&rig, 2, 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	make_available(&rig);
	ck_assert(eventually(rig_counters(&rig).throttled_count == 1));
	rig_go_on_throttle(&rig);
	rig_wait_used(&rig, 3);
	rig_close(&rig);
}
END_TEST

/*
 * Being told
 */

START_TEST(the_parked_eventfd_is_told_once_for_each_pause)
{
	struct rig rig;
	int fd = new_eventfd();

	wedge_open(&rig, WAIT_MS, 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
		ck_assert(comes(fd));
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
		ck_assert_uint_eq(take(fd), 1);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		ck_assert_int_eq(rig_read_sector(&rig), 0);
		ck_assert_uint_eq(take(fd), 0);
	}
	/* Paused already: at once, by the caller itself. */
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	ck_assert_uint_eq(take(fd), 1);
	rig_close(&rig);
	close(fd);
}
END_TEST

START_TEST(without_a_worker_it_is_told_at_once)
{
	const int fd = new_eventfd();
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	ktvblk_set_log_level(LOG_DEBUG);
	wedge_open_idle(&rig, WAIT_MS, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	ck_assert_uint_eq(take(fd), 1);
	recorder_wait(&rec, KTVBLK_MESSAGE_PAUSE_NO_WORKER);
	ktvblk_set_log_level(LOG_INFO);
	rig_close(&rig);
	recorder_stop(&rec);
	close(fd);
}
END_TEST

START_TEST(the_caller_may_close_its_parked_eventfd_right_away)
{
	const unsigned int fds = count_fds();
	const int mine = new_eventfd();
	struct rig rig;
	int fd;

	wedge_open(&rig, WAIT_MS, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	fd = fcntl(mine, F_DUPFD_CLOEXEC, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	close(fd);
	storage_let_go(rig.storage);
	ck_assert(comes(mine));
	ck_assert_uint_eq(take(mine), 1);
	rig_close(&rig);
	close(mine);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(asking_again_replaces_who_is_told)
{
	const unsigned int fds = count_fds();
	const int first = new_eventfd(), second = new_eventfd();
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, first), 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, second), 0);
	storage_let_go(rig.storage);
	ck_assert(comes(second));
	ck_assert_uint_eq(take(first), 0);
	/* A resume takes back what was not told yet. */
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_wait_used(&rig, 1);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, first), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 2);
	ck_assert_uint_eq(take(first), 0);
	rig_close(&rig);
	close(first);
	close(second);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(one_left_behind_tells_when_it_has_gone)
{
	const int fd = new_eventfd();
	struct rig rig;

	/* Without a next worker, and with one that waits. */
	for (int start_again = 0; start_again < 2; start_again++) {
		wedge_open(&rig, BUDGET, 0);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
		rig_reset(&rig);
		if (start_again)
			rig_start(&rig);
		ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
		ck_assert_uint_eq(take(fd), 0);
		storage_let_go(rig.storage);
		ck_assert(comes(fd));
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
		ck_assert_uint_eq(take(fd), 1);
		wedge_close(&rig);
	}
	close(fd);
}
END_TEST

/* Idle, the one who pauses tells; else the worker, once it parks. */
static void check_full_parked_fd(bool idle)
{
	const uint64_t full = UINT64_MAX - 1;
	const int fd = new_eventfd();
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	ktvblk_set_log_level(LOG_DEBUG);
	ck_assert_int_eq(write(fd, &full, sizeof(full)), sizeof(full));
	wedge_open_idle(&rig, WAIT_MS, 0);
	if (!idle) {
		rig_start(&rig);
		wedge(&rig, VIRTIO_BLK_T_IN, 0);
	}
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	storage_let_go(rig.storage);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_PARKED_FD_FAILED),
		      "ERRNO", EAGAIN);
	ck_assert(eventually(ktvblk_is_paused(rig.dev) == 1));
	ktvblk_set_log_level(LOG_INFO);
	rig_close(&rig);
	recorder_stop(&rec);
	close(fd);
}

START_TEST(a_parked_eventfd_that_is_full_is_told_of_in_a_debug_record)
{
	check_full_parked_fd(false);
	check_full_parked_fd(true);
}
END_TEST

/* A worker that sleeps, and whose next kick fails. */
static void open_with_a_kick_that_fails(struct rig *rig)
{
	wedge_open(rig, WAIT_MS, 0);
	ck_assert_int_eq(rig_read_sector(rig), 0);
	ck_assert(eventually(worker_sleeps(rig)));
	fault_set(&write_fault,
		  &(struct fault_when){ .error = EIO,
					.fd = ktvblk_kick_fd(rig->dev) });
}

START_TEST(a_worker_that_cannot_be_woken_is_told_of)
{
	const struct kept_record *record;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	open_with_a_kick_that_fails(&rig);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_PAUSE_KICK_FAILED);
	expect_number(record, "ERRNO", EIO);
	ck_assert_int_eq(record->priority, LOG_WARNING);
	/* Asked again it is. */
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	ck_assert(eventually(ktvblk_is_paused(rig.dev) == 1));
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_pause_that_follows_one_in_vain_wakes_the_worker)
{
	struct rig rig;

	open_with_a_kick_that_fails(&rig);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	rig_close(&rig);
}
END_TEST

/*
 * Pauses that cannot be had
 */

START_TEST(the_pause_of_a_stuck_worker_fails_in_time_and_it_runs_on)
{
	uint64_t start;
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	start = clock_start();
	ck_assert_int_eq(ktvblk_pause(rig.dev, BUDGET), -ETIMEDOUT);
	ck_assert_uint_ge(ms_since(start), BUDGET);
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET + 50));
	ck_assert_int_eq(ktvblk_pause(rig.dev, 0), -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0); /* it was withdrawn */
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(a_wait_that_fails_does_not_withdraw_an_earlier_request)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, -1), 0);
	ck_assert_int_eq(ktvblk_pause(rig.dev, 1), -ETIMEDOUT);
	storage_let_go(rig.storage);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	rig_close(&rig);
}
END_TEST

START_TEST(the_pause_of_a_wedged_device_fails_until_the_wedge_ends)
{
	struct rig rig;

	wedge_open(&rig, BUDGET, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_pause(rig.dev, 5), -ETIMEDOUT);
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_pause(rig.dev, 5), -ETIMEDOUT);
	storage_let_go(rig.storage);
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	wedge_close(&rig);
}
END_TEST

static int pause_answer;
static struct latch pause_tried;

static void pause_from_callback(struct storage *storage, enum storage_op op)
{
	(void)op;
	pause_answer = ktvblk_pause((struct ktvblk_dev *)storage->hook_data, 1);
	latch_set(&pause_tried);
}

START_TEST(a_pause_from_the_devices_own_worker_is_refused)
{
	struct rig rig;

	latch_init(&pause_tried);
	pause_answer = 0;
	wedge_open(&rig, WAIT_MS, 0);
	rig.storage->hook_data = rig.dev;
	rig.storage->hook = pause_from_callback;
	make_available(&rig);
	ck_assert(latch_wait(&pause_tried, WAIT_MS));
	ck_assert_int_eq(pause_answer, -EDEADLK);
	rig_wait_used(&rig, 1);
	rig.storage->hook = NULL;
	ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
	rig_close(&rig);
	latch_destroy(&pause_tried);
}
END_TEST

static void leave_thread(struct storage *storage, enum storage_op op)
{
	(void)op;
	storage->hook = NULL;
	pthread_exit(NULL);
}

/* 13.3.9: who pauses must not wait for one that is gone. */
START_TEST(a_worker_that_ended_by_itself_counts_as_paused)
{
	const int fd = new_eventfd();
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, WAIT_MS, 0);
	rig.storage->hook = leave_thread;
	make_available(&rig);
	recorder_wait(&rec, KTVBLK_MESSAGE_WORKER_PANICKED);
	ck_assert(eventually(worker_tid(&rig) == 0));
	ck_assert_int_eq(ktvblk_pause(rig.dev, BUDGET), 0);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
	ck_assert_int_eq(ktvblk_pause_begin(rig.dev, fd), 0);
	ck_assert_uint_eq(take(fd), 1);
	wedge_close(&rig);
	recorder_stop(&rec);
	close(fd);
}
END_TEST

TEST_PROGRAM("pause", pause_and_resume_count_on_changed,
	     a_paused_device_serves_nothing_and_a_resumed_one_all,
	     what_came_during_a_pause_needs_no_kick_after_it,
	     no_resume_and_no_pause_is_lost_however_quick,
	     a_pause_is_obeyed_between_two_requests_of_one_drain,
	     a_throttled_device_is_paused_and_goes_on,
	     the_parked_eventfd_is_told_once_for_each_pause,
	     without_a_worker_it_is_told_at_once,
	     the_caller_may_close_its_parked_eventfd_right_away,
	     asking_again_replaces_who_is_told,
	     one_left_behind_tells_when_it_has_gone,
	     a_parked_eventfd_that_is_full_is_told_of_in_a_debug_record,
	     a_worker_that_cannot_be_woken_is_told_of,
	     a_pause_that_follows_one_in_vain_wakes_the_worker,
	     the_pause_of_a_stuck_worker_fails_in_time_and_it_runs_on,
	     a_wait_that_fails_does_not_withdraw_an_earlier_request,
	     the_pause_of_a_wedged_device_fails_until_the_wedge_ends,
	     a_pause_from_the_devices_own_worker_is_refused,
	     a_worker_that_ended_by_itself_counts_as_paused)
