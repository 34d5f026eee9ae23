/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * After a reset the device is as it was made, but for what it must remember:
 * the storage, guest memory, the counters, the throttle's balance. And the old
 * worker is gone, however fast the resets come.
 */

/* wrap: calloc malloc eventfd mmap munmap */

#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_EVENTFD

WRAP(void *, malloc, (size_t size), (size), 0, NULL)
WRAP(void *, mmap,
     (void *addr, size_t len, int prot, int flags, int fd, off_t at),
     (addr, len, prot, flags, fd, at), 0, MAP_FAILED)
WRAP(int, munmap, (void *addr, size_t len), (addr, len), 0, -1)

static void open_throttled(struct rig *rig, uint64_t iops, uint64_t bytes)
{
	const struct rig_options options = {
		.config = { .throttle = { .iops = iops,
					  .bytes_per_sec = bytes } },
	};

	rig_open(rig, &options);
}

/* 12.1.7: a reset gives no tokens */
START_TEST(reset_rebuilds_throttle_buckets_changed_balance_survives)
{
	const struct throttle *throttle;
	const uint64_t start = now_ns();
	int64_t ops, bytes, took_ms;
	struct rig rig;

	open_throttled(&rig, 4, 8192);
	rig_start(&rig);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_reset(&rig);
	throttle = &rig.dev->throttle->throttle;
	ops = throttle->ops.available;
	bytes = throttle->bytes.available;
	/* But time has given some, where all that took long. */
	took_ms = (int64_t)ms_since(start) + 1;
	ck_assert_int_le(ops, took_ms * 4 / 1000);
	ck_assert_int_le(bytes, 8192 - 4 * 512 + took_ms * 8192 / 1000);
	for (int i = 0; i < 10; i++)
		rig_reset(&rig);
	throttle = &rig.dev->throttle->throttle;
	ck_assert_int_eq(throttle->ops.available, ops);
	ck_assert_int_eq(throttle->bytes.available, bytes);
	ck_assert_uint_eq(throttle->ops.rate, 4);
	ck_assert_uint_eq(throttle->bytes.rate, 8192);
	rig_close(&rig);
}
END_TEST

/* 12.1.14: A is done, and B waits for what A took */
START_TEST(reset_rebuilds_throttle_then_stalls_changed_on_first_chain)
{
	struct rig rig;

	/* A goes on credit, of 3 s. */
	open_throttled(&rig, 1, 128);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_reset(&rig);
	rig_start(&rig);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).throttled_count == 1));
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	rig_wait_used(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* 12.1.8 */
START_TEST(reset_clears_queue_next_avail)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	for (int i = 0; i < 7; i++)
		ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_reset(&rig);
	ck_assert_uint_eq(rig.dev->queues[0].session->vq.next_avail, 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	rig_close(&rig);
}
END_TEST

/* 12.1.9, 12.1.16 */
START_TEST(reset_drains_irq_evt_pending_count)
{
	const uint64_t one = 1;
	struct rig rig;

	rig_open(&rig, NULL);
	for (int writes = 1; writes <= 3; writes += 2) {
		for (int i = 0; i < writes; i++)
			ck_assert_int_eq(write(ktvblk_irq_fd(rig.dev), &one,
					       sizeof(one)),
					 sizeof(one));
		rig_reset(&rig);
		ck_assert_uint_eq(rig_irqs(&rig), 0);
	}
	rig_close(&rig);
}
END_TEST

/* 12.1.10 */
START_TEST(reset_clears_interrupt_status)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert(eventually(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS)));
	rig_reset(&rig);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_close(&rig);
}
END_TEST

/* 12.1.12 */
START_TEST(reset_then_reactivate_processes_new_chain)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 2);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	rig_close(&rig);
}
END_TEST

/* 12.1.13 */
START_TEST(reset_preserves_counters)
{
	static const int64_t error = -EIO;
	struct ktvblk_counters before, after;
	struct rig rig;

	open_throttled(&rig, 1, 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	storage_script(rig.storage, &error, 1);
	ck_assert_int_eq(rig_read_sector(&rig), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	before = rig_counters(&rig);
	ck_assert_uint_eq(before.reads_completed, 2);
	ck_assert_uint_eq(before.bytes_read, 1024);
	ck_assert_uint_eq(before.io_errors, 1);
	ck_assert_uint_ge(before.throttled_count, 1);
	rig_reset(&rig);
	after = rig_counters(&rig);
	ck_assert_mem_eq(&before, &after, sizeof(after));
	rig_close(&rig);
}
END_TEST

/* 12.1.15 */
START_TEST(changed_a_reset_forgets_the_queue_and_takes_another)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	rig_reset(&rig);
	ck_assert_uint_eq(rig.dev->queues[0].config.avail_addr, 0);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 256);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x4000);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NUM, 8);
	ck_assert_uint_eq(rig.dev->queues[0].config.desc_addr, 0x4000);
	ck_assert_uint_eq(rig.dev->queues[0].config.size, 8);
	ck_assert_uint_eq(rig_status(&rig), 0);
	rig_close(&rig);
}
END_TEST

/* 12.3.8 */
START_TEST(reset_bumps_config_generation_by_exactly_one_each)
{
	struct rig rig;

	rig_open(&rig, NULL);
	for (uint32_t i = 1; i <= 16; i++) {
		if (i % 2)
			rig_start(&rig);
		rig_reset(&rig);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  i);
		ck_assert_uint_eq(rig.dev->config_generation, i);
	}
	rig_close(&rig);
}
END_TEST

/* 9.5 */
START_TEST(resets_in_a_row_are_cheap_and_silent)
{
	struct recorder rec;
	uint64_t ran;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, NULL);
	clock_start();
	ran = process_ns();
	for (int i = 0; i < 100; i++)
		rig_reset(&rig);
	rig_start(&rig);
	for (int i = 0; i < 100; i++)
		rig_reset(&rig);
	ran = process_ns() - ran;
	ck_assert_uint_lt(ran, bound_ms(500) * NSEC_PER_MSEC);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(each_session_has_a_stop_eventfd_of_its_own)
{
	const unsigned int fds = count_fds();
	struct rig rig;
	int before;

	rig_open(&rig, NULL);
	for (int i = 0; i < 5; i++) {
		before = rig_identity(&rig).stop_fd;
		rig_reset(&rig);
		ck_assert_int_ne(rig_identity(&rig).stop_fd, before);
		ck_assert_int_ge(rig_identity(&rig).stop_fd, 0);
	}
	rig_close(&rig);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

START_TEST(a_throttled_worker_is_reset_quickly)
{
	struct recorder rec;
	uint64_t start;
	struct rig rig;

	wedge_record(&rec);
	/* The first goes on credit, of minutes. */
	open_throttled(&rig, 0, 1);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).throttled_count == 1));
	start = clock_start();
	rig_reset(&rig);
	/* It would look again after a second. */
	ck_assert_uint_lt(ms_since(start), bound_ms(500));
	rig_close(&rig);
	ck_assert_ptr_null(rec.first);
	recorder_stop(&rec);
}
END_TEST

/* 13.3.2: a guest that never lets the ring run dry */
START_TEST(a_worker_that_never_runs_dry_is_reset_quickly)
{
	struct recorder rec;
	uint64_t ran;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &(struct rig_options){ .queue_size = 256 });
	rig_start(&rig);
	rig_chain(&rig, 0, 99, 0, 512);
	clock_start();
	ran = process_ns();
	for (int i = 0; i < 100; i++) {
		for (int j = 0; j < 256; j++)
			rig_avail(&rig, 0);
		rig_kick(&rig);
		rig_reset(&rig);
		rig_start(&rig);
	}
	ran = process_ns() - ran;
	ck_assert_uint_lt(ran, bound_ms(1000) * NSEC_PER_MSEC);
	rig_close(&rig);
	ck_assert_ptr_null(rec.first);
	recorder_stop(&rec);
}
END_TEST

/* A write that ends while the reset waits for it is either whole or unseen. */
START_TEST(a_request_that_ends_during_the_reset_is_answered_or_not_at_all)
{
	for (int i = 0; i < 50; i++) {
		uint64_t sum;
		struct rig rig;

		wedge_open(&rig, WAIT_MS, 0);
		rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 1, 512);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		rig_reset(&rig);
		sum = wedge_ram_sum(&rig);
		ck_assert(rig_used_idx(&rig) == 0 ||
			  *rig_chain_status(&rig, 0) == 0);
		ck_assert_uint_eq(rig_counters(&rig).reads_completed,
				  rig_used_idx(&rig));
		ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
		rig_close(&rig);
	}
}
END_TEST

/*
 * A reset needs nothing that it has not: with a worker stuck in a page fault and
 * no descriptor left it must not wait, and cannot fail
 */

static void expect_needless_reset(struct rig *rig)
{
	struct fault *const faults[] = { &calloc_fault, &malloc_fault,
					 &eventfd_fault, &mmap_fault,
					 &munmap_fault };
	const struct fault_when never = { .error = ENOMEM,
					  .here = true,
					  .times = 1000 };
	unsigned int asked = 0;

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		fault_set(faults[i], &never);
	rig_reset(rig);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		asked += never.times - faults[i]->left;
		fault_clear(faults[i]);
	}
	ck_assert_uint_eq(asked, 0);
	ck_assert_uint_eq(rig_status(rig), 0);
}

START_TEST(a_reset_takes_and_gives_back_nothing)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open_idle(&rig, WAIT_MS, 0);
	for (int i = 0; i < 3; i++)
		expect_needless_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	for (int i = 0; i < 3; i++)
		expect_needless_reset(&rig);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_wedged_reset_takes_nothing_and_so_do_those_behind_it)
{
	const struct traces before = traces_now();
	struct recorder rec;
	struct rig rig;
	int stop_fd;

	wedge_record(&rec);
	wedge_open(&rig, 20, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	stop_fd = rig_identity(&rig).stop_fd;
	/* But for the thread that waits for the worker. */
	expect_needless_reset(&rig);
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	for (int i = 0; i < 3; i++) {
		expect_needless_reset(&rig);
		ck_assert_int_ne(rig_identity(&rig).stop_fd, stop_fd);
	}
	/* The start has what the next reset needs. */
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	expect_needless_reset(&rig);
	rig_start(&rig);
	storage_let_go(rig.storage);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	wedge_close(&rig);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

/* Behind a wedge the spare session is gone, and another cannot be had. */
START_TEST(a_start_that_lacks_the_next_session_asks_for_a_reset)
{
	const struct traces before = traces_now();
	const struct kept_record *record;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, 20, 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	rig_reset(&rig);
	rig_prepare(&rig);
	fault_set(&eventfd_fault,
		  &(struct fault_when){ .error = EMFILE, .here = true });
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_START_FAILED);
	expect_text(record, "KTVBLK_STEP", "session");
	expect_number(record, "ERRNO", EMFILE);
	ck_assert_uint_eq(rig_status(&rig), S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert(!rig.dev->queues[0].session->has_thread);
	expect_needless_reset(&rig);
	storage_let_go(rig.storage);
	rig_start(&rig);
	ck_assert_int_eq(rig_read_sector(&rig), 0);
	wedge_close(&rig);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

/*
 * S0021 rapid reset, S0053 reset during I/O: from another thread, which the
 * VMM's lock keeps from the driver's own accesses.
 */

struct contended {
	struct rig rig;
	pthread_mutex_t lock; /* the VMM's, over all register accesses */
	_Atomic bool over;
};

static void *reset_rapidly(void *arg)
{
	struct contended *contended = (struct contended *)arg;

	while (!contended->over) {
		SCOPED_LOCK(&contended->lock);
		rig_reset(&contended->rig);
	}
	return NULL;
}

static void submit_four(struct contended *contended)
{
	struct rig *rig = &contended->rig;

	SCOPED_LOCK(&contended->lock);
	if (!(rig_status(rig) & VIRTIO_CONFIG_S_DRIVER_OK))
		rig_start(rig);
	if (rig_used_idx(rig) != rig->avail_idx)
		return; /* those before are not done yet */
	for (uint16_t i = 0; i < 4; i++) {
		rig_chain(rig, (uint16_t)(i * 3),
			  i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i, 512);
		rig_avail(rig, (uint16_t)(i * 3));
	}
	rig_kick(rig);
}

START_TEST(rapid_resets_from_another_thread_break_nothing)
{
	const unsigned int n = rounds("CYCLES", 1000, 100);
	struct contended contended = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct rig *rig = &contended.rig;
	struct recorder rec;
	pthread_t thread;

	wedge_record(&rec);
	rig_open(rig, NULL);
	ck_assert_int_eq(
		pthread_create(&thread, NULL, reset_rapidly, &contended), 0);
	for (unsigned int i = 0; i < n; i++)
		submit_four(&contended);
	contended.over = true;
	pthread_join(thread, NULL);
	rig_reset(rig);
	rig_start(rig);
	ck_assert_int_eq(rig_read_sector(rig), 0);
	ck_assert_uint_eq(rig_counters(rig).io_errors, 0);
	ck_assert_uint_eq(rig_counters(rig).invalid_avail_idx_count, 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("reset", reset_rebuilds_throttle_buckets_changed_balance_survives,
	     reset_rebuilds_throttle_then_stalls_changed_on_first_chain,
	     reset_clears_queue_next_avail, reset_drains_irq_evt_pending_count,
	     reset_clears_interrupt_status,
	     reset_then_reactivate_processes_new_chain,
	     reset_preserves_counters,
	     changed_a_reset_forgets_the_queue_and_takes_another,
	     reset_bumps_config_generation_by_exactly_one_each,
	     resets_in_a_row_are_cheap_and_silent,
	     each_session_has_a_stop_eventfd_of_its_own,
	     a_throttled_worker_is_reset_quickly,
	     a_worker_that_never_runs_dry_is_reset_quickly,
	     a_request_that_ends_during_the_reset_is_answered_or_not_at_all,
	     a_reset_takes_and_gives_back_nothing,
	     a_wedged_reset_takes_nothing_and_so_do_those_behind_it,
	     a_start_that_lacks_the_next_session_asks_for_a_reset,
	     rapid_resets_from_another_thread_break_nothing)
