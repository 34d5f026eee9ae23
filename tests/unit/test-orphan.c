/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A wedge ends: behind a wedged reset the next worker waits for the one left
 * behind, no other call reaches the storage meanwhile, and once that call has
 * ended the guest is served without doing anything. What ends late touches
 * nothing.
 */

#include <string.h>

#include "device.h"
#include "wedge.h"

#define BUDGET 400

/* Negotiate without touching the rings: rig_prepare() would clear them. */
static void start_with_chain(struct rig *rig, uint32_t type, uint64_t sector)
{
	rig_prepare(rig);
	rig_chain(rig, 3, type, sector, 512);
	rig_avail(rig, 3);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	rig_kick(rig);
}

/* Wedged by a read of sector 2, then reset. */
static void open_wedged_and_reset(struct rig *rig, struct recorder *rec)
{
	wedge_record(rec);
	wedge_open(rig, BUDGET, 0);
	wedge(rig, VIRTIO_BLK_T_IN, 2);
	rig_reset(rig);
	recorder_wait(rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
}

static void close_all(struct rig *rig, struct recorder *rec)
{
	wedge_close(rig);
	recorder_stop(rec);
}

START_TEST(a_wedged_reset_leaves_a_device_at_reset)
{
	struct ktvblk_identity before;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	before = rig_identity(&rig);
	wedge(&rig, VIRTIO_BLK_T_IN, 2);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_RUNNING);
	rig_reset(&rig);
	ck_assert_uint_eq(rig_status(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION), 1);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	ck_assert_int_eq(ktvblk_is_paused(rig.dev), 0);
	/* The eventfd of the session that hangs is not used again. */
	ck_assert_int_ne(rig_identity(&rig).stop_fd, before.stop_fd);
	ck_assert_uint_eq(rig_identity(&rig).instance_id, before.instance_id);
	close_all(&rig, &rec);
}
END_TEST

START_TEST(the_next_worker_waits_and_then_serves_unasked)
{
	struct recorder rec;
	struct rig rig;

	open_wedged_and_reset(&rig, &rec);
	start_with_chain(&rig, VIRTIO_BLK_T_IN, 5);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	recorder_wait(&rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	ck_assert(eventually(worker_tid(&rig) != 0));
	for (int i = 0; i < 5; i++)
		rig_kick(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	/* Only the one that hangs is in the storage. */
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 1);

	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig_used(&rig, 0).id, 3);
	ck_assert_uint_eq(*rig_chain_status(&rig, 3), 0);
	ck_assert_uint_eq(*(unsigned char *)rig_at(&rig, RIG_DATA),
			  storage_pattern(5 * 512));
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(
		recorder_count(&rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN), 1);
	ck_assert_int_eq(recorder_count(&rec, NULL), 3);
	close_all(&rig, &rec);
}
END_TEST

/* Calls into storage that began while another was in it. */
static _Atomic unsigned int inside, overlaps;

static void count_overlap(struct storage *storage, enum storage_op op)
{
	const struct timespec a_while = { .tv_nsec = 2000000 };

	(void)op;
	if (atomic_fetch_add(&inside, 1))
		atomic_fetch_add(&overlaps, 1);
	if (storage->hook_data) /* the wedge: until the latch is set */
		latch_wait((struct latch *)storage->hook_data, WAIT_MS);
	clock_nanosleep(CLOCK_MONOTONIC, 0, &a_while, NULL);
	atomic_fetch_sub(&inside, 1);
}

START_TEST(no_two_workers_are_in_the_storage_at_once)
{
	struct latch release;
	struct rig rig;

	overlaps = 0;
	latch_init(&release);
	wedge_open(&rig, BUDGET, 0);
	rig.storage->hook = count_overlap;
	rig.storage->hook_data = &release;
	rig_chain(&rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(eventually(atomic_load(&inside) == 1));
	rig_reset(&rig);
	start_with_chain(&rig, VIRTIO_BLK_T_IN, 1);
	ck_assert(eventually(worker_tid(&rig) != 0));
	ck_assert_uint_eq(inside, 1);
	latch_set(&release);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(overlaps, 0);
	wedge_close(&rig);
	latch_destroy(&release);
}
END_TEST

START_TEST(a_waiter_is_reset_quickly_and_in_silence)
{
	struct recorder rec;
	uint64_t start;
	struct rig rig;

	open_wedged_and_reset(&rig, &rec);
	for (uint32_t i = 2; i < 7; i++) {
		start_with_chain(&rig, VIRTIO_BLK_T_IN, 5);
		/* It has said that it waits, if it was to. */
		ck_assert(eventually(thread_state(worker_tid(&rig)) == 'S'));
		recorder_clear(&rec);
		start = clock_start();
		rig_reset(&rig);
		ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET));
		ck_assert_int_eq(recorder_count(&rec, NULL), 0);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_CONFIG_GENERATION),
				  i);
		ck_assert_int_eq(ktvblk_get_state(rig.dev),
				 KTVBLK_STATE_WEDGED);
	}
	/* Six sessions later the first one's call ends. */
	start_with_chain(&rig, VIRTIO_BLK_T_IN, 6);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 1);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 3), 0);
	close_all(&rig, &rec);
}
END_TEST

START_TEST(a_waiter_is_destroyed_quickly_and_the_rest_goes_later)
{
	const struct traces before = traces_now();
	struct recorder rec;
	uint64_t start;
	struct rig rig;

	open_wedged_and_reset(&rig, &rec);
	rig_start(&rig);
	start = clock_start();
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_TIMED_OUT);
	rig.dev = NULL;
	ck_assert_uint_lt(ms_since(start), bound_ms(BUDGET));
	recorder_wait(&rec, KTVBLK_MESSAGE_DESTROY_STILL_WEDGED);
	/* The one left behind still uses them. */
	ck_assert_uint_eq(rig.storage->released, 0);
	ck_assert_uint_eq(rig.ram_released, 0);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	close_all(&rig, &rec);
	traces_expect_gone(&before);
}
END_TEST

START_TEST(a_wedge_may_happen_again_and_again)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	for (int i = 1; i <= 3; i++) {
		wedge(&rig, VIRTIO_BLK_T_IN, 2);
		rig_reset(&rig);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT, i);
		rig_start(&rig);
		storage_let_go(rig.storage);
		recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED, i);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 1, 512), 0);
	}
	close_all(&rig, &rec);
}
END_TEST

/*
 * What ends late touches nothing: guest memory, ring, status byte, interrupt,
 * counters, the new session's registers.
 */
static void check_late_end(uint32_t type, bool start_again)
{
	struct ktvblk_counters counters, after;
	struct recorder rec;
	uint64_t sum;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	memset(rig_at(&rig, RIG_DATA), 0x5a, 512);
	wedge(&rig, type, 2);
	rig_reset(&rig);
	sum = wedge_ram_sum(&rig);
	counters = rig_counters(&rig);
	if (start_again) {
		rig_prepare(&rig);
		sum = wedge_ram_sum(&rig);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	}
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	if (start_again)
		ck_assert(eventually(worker_sleeps(&rig)));
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	after = rig_counters(&rig);
	ck_assert_int_eq(memcmp(&after, &counters, sizeof(after)), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_status(&rig), start_again ? S_OK : 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ) +
				  storage_calls(rig.storage, OP_WRITE) +
				  storage_calls(rig.storage, OP_FLUSH),
			  1);
	close_all(&rig, &rec);
}

START_TEST(a_late_end_touches_nothing)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
					  VIRTIO_BLK_T_FLUSH };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		check_late_end(types[i], false);
		check_late_end(types[i], true);
	}
}
END_TEST

/* It answers with an error, short, or too much: nobody is there to care. */
START_TEST(a_late_error_touches_nothing_and_is_not_recorded)
{
	static const int64_t answers[] = { -EIO, 0, 100, -EINTR };

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct recorder rec;
		uint64_t sum;
		struct rig rig;

		wedge_record(&rec);
		wedge_open(&rig, BUDGET, 0);
		storage_script(rig.storage, &answers[i], 1);
		wedge(&rig, VIRTIO_BLK_T_OUT, 2);
		rig_reset(&rig);
		sum = wedge_ram_sum(&rig);
		storage_let_go(rig.storage);
		recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
		ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
		ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 1);
		ck_assert_int_eq(recorder_count(&rec, NULL), 2);
		close_all(&rig, &rec);
	}
}
END_TEST

START_TEST(a_late_write_puts_down_its_old_bytes_and_no_more)
{
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open(&rig, BUDGET, 0);
	memset(rig_at(&rig, RIG_DATA), 0x11, 512);
	/* A second write is in the ring behind the one that hangs. */
	rig_chain(&rig, 6, VIRTIO_BLK_T_OUT, 9, 512);
	storage_hold(rig.storage);
	rig_chain(&rig, 0, VIRTIO_BLK_T_OUT, 8, 512);
	rig_avail(&rig, 0);
	rig_avail(&rig, 6);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	rig_reset(&rig);
	/* The memory is the guest's again. */
	memset(rig_at(&rig, RIG_DATA), 0x22, 512);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	for (unsigned int i = 0; i < 512; i++) {
		ck_assert_uint_eq(rig.storage->bytes[8 * 512 + i], 0x11);
		ck_assert_uint_eq(rig.storage->bytes[9 * 512 + i],
				  storage_pattern(9 * 512 + i));
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 1);
	close_all(&rig, &rec);
}
END_TEST

/* A large write goes in chunks: the ones behind the wedge are not written. */
START_TEST(a_large_late_write_ends_with_the_chunk_it_is_in)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET,
			    .destroy_timeout_ms = BUDGET },
		.disk_bytes = 4 << 20,
	};
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	rig_start(&rig);
	/* Two segments of 1 MiB: two chunks. */
	rig_header(&rig, RIG_HEADER, VIRTIO_BLK_T_OUT, 0);
	rig_desc(&rig, 0, RIG_HEADER, 16, VRING_DESC_F_NEXT, 1);
	rig_desc(&rig, 1, 1 << 20, 1 << 20, VRING_DESC_F_NEXT, 2);
	rig_desc(&rig, 2, 2 << 20, 1 << 20, VRING_DESC_F_NEXT, 3);
	rig_desc(&rig, 3, RIG_STATUS, 1, VRING_DESC_F_WRITE, 0);
	storage_hold(rig.storage);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	rig_reset(&rig);
	storage_let_go(rig.storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 1);
	ck_assert_uint_eq(rig.storage->bytes[1 << 20],
			  storage_pattern(1 << 20));
	close_all(&rig, &rec);
}
END_TEST

/*
 * The throttle's balance is not refilled by the wedge, and is not lost. It would
 * fill with time, so its clock stands until there is one that waits.
 */
START_TEST(the_throttle_goes_on_behind_a_wedge)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = BUDGET / 20,
			    .destroy_timeout_ms = BUDGET,
			    .throttle = { .iops = 2 } },
	};
	struct rig rig;

	rig_open(&rig, &options);
	rig_set_tokens(&rig, 2, 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	wedge(&rig, VIRTIO_BLK_T_IN, 2);
	rig_reset(&rig);
	storage_let_go(rig.storage);
	start_with_chain(&rig, VIRTIO_BLK_T_IN, 1);
	ck_assert(eventually(rig_counters(&rig).throttled_count == 1));
	ck_assert(eventually(rig_counters(&rig).currently_throttled == 1));
	rig_go_on_throttle(&rig);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig_counters(&rig).currently_throttled, 0);
	wedge_close(&rig);
}
END_TEST

TEST_PROGRAM("orphan", a_wedged_reset_leaves_a_device_at_reset,
	     the_next_worker_waits_and_then_serves_unasked,
	     no_two_workers_are_in_the_storage_at_once,
	     a_waiter_is_reset_quickly_and_in_silence,
	     a_waiter_is_destroyed_quickly_and_the_rest_goes_later,
	     a_wedge_may_happen_again_and_again, a_late_end_touches_nothing,
	     a_late_error_touches_nothing_and_is_not_recorded,
	     a_late_write_puts_down_its_old_bytes_and_no_more,
	     a_large_late_write_ends_with_the_chunk_it_is_in,
	     the_throttle_goes_on_behind_a_wedge)
