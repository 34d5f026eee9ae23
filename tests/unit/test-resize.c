/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk whose size changes under a driver: what it reads and hears of, and what
 * becomes of its requests.
 */

#include <string.h>

#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define CONFIG VIRTIO_MMIO_INT_CONFIG
#define GENERATION VIRTIO_MMIO_CONFIG_GENERATION
#define KIB UINT64_C(1024)

static void resize(struct rig *rig, uint64_t bytes)
{
	ck_assert_int_eq(ktvblk_set_capacity(rig->dev, bytes), 0);
}

static uint32_t read_half(struct rig *rig, unsigned int i)
{
	return rig_read(rig, VIRTIO_MMIO_CONFIG + 4 * i);
}

static uint64_t read_sectors(struct rig *rig)
{
	return read_half(rig, 0) | (uint64_t)read_half(rig, 1) << 32;
}

static int read_at(struct rig *rig, uint64_t sector)
{
	return rig_request(rig, T_IN, sector, 512);
}

START_TEST(bad_sizes_change_nothing)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_set_capacity(NULL, 512), -EINVAL);
	ck_assert_int_eq(ktvblk_set_capacity(rig.dev, 0), -EINVAL);
	ck_assert_uint_eq(read_sectors(&rig), 128);
	ck_assert_uint_eq(rig_read(&rig, GENERATION), 0);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(sizes_are_rounded_down_to_whole_blocks)
{
	for (uint32_t block = 512; block <= 4096; block *= 8) {
		const uint64_t ends[] = { block, 17 * block,
					  UINT64_MAX / block * block };
		struct recorder rec;
		struct rig rig;

		recorder_start(&rec);
		rig_open(&rig, &(struct rig_options){ .block_bytes = block,
						      .mem_align = 1 });
		for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
			resize(&rig, ends[i] + block - 1);
			ck_assert_uint_eq(read_sectors(&rig), ends[i] / 512);
			ck_assert_uint_eq(rig_identity(&rig).capacity_sectors,
					  ends[i] / 512);
		}
		ck_assert_int_eq(recorder_count(&rec, NULL), 0);
		resize(&rig, block - 1);
		ck_assert_uint_eq(read_sectors(&rig), 0);
		expect_number(
			recorder_wait(&rec,
				      KTVBLK_MESSAGE_CAPACITY_BELOW_SECTOR),
			"KTVBLK_CAPACITY_BYTES", block - 1);
		rig_close(&rig);
		recorder_stop(&rec);
	}
}
END_TEST

/* Whatever the driver has read of it when it changes. */
START_TEST(a_torn_size_is_seen_by_its_generation)
{
	const uint64_t sizes[2] = { 0x1ffffffffull << 9, 0x200000000ull << 9 };

	for (unsigned int at = 0; at < 5; at++)
		for (unsigned int i = 0; i < 2; i++) {
			uint32_t before, behind, half[2];
			struct rig rig;

			rig_open(&rig, NULL);
			resize(&rig, sizes[i]);
			if (at == 0)
				resize(&rig, sizes[!i]);
			before = rig_read(&rig, GENERATION);
			for (unsigned int j = 0; j < 2; j++) {
				if (at == j + 1)
					resize(&rig, sizes[!i]);
				half[j] = read_half(&rig, j);
			}
			if (at == 3)
				resize(&rig, sizes[!i]);
			behind = rig_read(&rig, GENERATION);
			if (at == 4)
				resize(&rig, sizes[!i]);
			/* Torn, or old, and then known to be so. */
			ck_assert_int_eq(before != behind, at > 0 && at < 4);
			if (before == behind)
				ck_assert_uint_eq(half[0] | (uint64_t)half[1]
								    << 32,
						  sizes[at ? i : !i] >> 9);
			ck_assert_uint_eq(read_sectors(&rig), sizes[!i] >> 9);
			rig_close(&rig);
		}
}
END_TEST

START_TEST(a_running_driver_is_interrupted_once_for_each_change)
{
	struct rig rig;

	rig_open(&rig, NULL);
	resize(&rig, 32 * KIB);
	rig_prepare(&rig);
	resize(&rig, 16 * KIB);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	resize(&rig, 32 * KIB);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), CONFIG);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK, CONFIG);
	/* To the same one, which is none. */
	resize(&rig, 32 * KIB + 511);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	ck_assert_uint_eq(rig_irqs(&rig), 0);
	resize(&rig, 32 * KIB + 512);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS), CONFIG);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	rig_close(&rig);
}
END_TEST

START_TEST(a_driver_that_read_the_old_size_hears_of_it_at_driver_ok)
{
	for (unsigned int again = 0; again < 2; again++) {
		struct rig rig;

		rig_open(&rig, NULL);
		rig_prepare(&rig);
		ck_assert_uint_eq(read_sectors(&rig), 128);
		resize(&rig, 32 * KIB);
		/* What else it reads does not say that it knows. */
		rig_read(&rig, GENERATION);
		rig_read(&rig, VIRTIO_MMIO_CONFIG + 20);
		if (again)
			ck_assert_uint_eq(read_sectors(&rig), 64);
		ck_assert_uint_eq(rig_irqs(&rig), 0);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		ck_assert_uint_eq(rig_irqs(&rig), !again);
		ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
				  again ? 0 : CONFIG);
		/* A driver behind a reset has read nothing yet. */
		rig_reset(&rig);
		resize(&rig, 16 * KIB);
		rig_start(&rig);
		ck_assert_uint_eq(rig_irqs(&rig), 0);
		rig_close(&rig);
	}
}
END_TEST

START_TEST(
	a_disk_that_shrinks_refuses_what_is_behind_and_one_that_grows_serves_it)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_MQ,
					      .config.n_queues = 2 });
	rig_start(&rig);
	for (unsigned int i = 0; i < 2; i++) {
		unsigned int calls;

		resize(&rig, 64 * KIB);
		rig_select(&rig, i);
		ck_assert_int_eq(read_at(&rig, 127), OK);
		ck_assert_int_eq(read_at(&rig, 128), IOERR);
		resize(&rig, 32 * KIB);
		calls = storage_calls(rig.storage, OP_READ);
		ck_assert_int_eq(read_at(&rig, 127), IOERR);
		ck_assert_int_eq(read_at(&rig, 64), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_IN, 63, 1024), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 64, 512), IOERR);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), calls);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
		ck_assert_int_eq(read_at(&rig, 63), OK);
	}
	rig_close(&rig);
}
END_TEST

START_TEST(a_disk_larger_than_its_storage_has_zeros_behind_it)
{
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	resize(&rig, 128 * KIB);
	memset(rig_at(&rig, RIG_DATA), 0xaa, 512);
	ck_assert_int_eq(read_at(&rig, 200), OK);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA + 511), 0);
	/* But not for what it has told: that is lost. */
	rig.storage->size = 32 * KIB;
	ck_assert_int_eq(read_at(&rig, 100), IOERR);
	ck_assert_int_eq(read_at(&rig, 200), OK);
	/* What the VMM has cut off is not. */
	resize(&rig, 32 * KIB);
	resize(&rig, 64 * KIB);
	ck_assert_int_eq(read_at(&rig, 100), OK);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0);
	rig_close(&rig);
}
END_TEST

START_TEST(requests_in_flight_behind_the_end_end_as_the_storage_has_them)
{
	for (unsigned int cut = 0; cut < 2; cut++) {
		struct rig rig;

		rig_open(&rig, NULL);
		rig_start(&rig);
		storage_hold(rig.storage);
		rig_chain(&rig, 0, T_IN, 100, 512);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_wait_held(rig.storage, 1);
		resize(&rig, 32 * KIB);
		if (cut)
			rig.storage->size = 32 * KIB;
		storage_let_go(rig.storage);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), cut ? IOERR : OK);
		if (!cut)
			ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA),
					  storage_pattern(100 * 512));
		rig_close(&rig);
	}
}
END_TEST

START_TEST(records_tell_the_size_of_their_time)
{
	struct recorder rec;
	struct rig rig;

	recorder_start(&rec);
	rig_open(&rig, NULL);
	recorder_hold(&rec);
	/* The first hangs in the handler, the second waits in the queue. */
	for (unsigned int i = 0; i < 3; i++) {
		if (i == 2)
			resize(&rig, 4 * KIB);
		rig_write(&rig, VIRTIO_MMIO_STATUS, 0x10);
	}
	recorder_wait_held(&rec);
	recorder_go_on(&rec);
	for (int i = 1; i <= 3; i++) {
		const struct kept_record *record =
			recorder_wait_n(&rec, KTVBLK_MESSAGE_STATUS_ILLEGAL, i);

		expect_number(record, "CAPACITY_SECTORS", i < 3 ? 128 : 8);
		ck_assert_ptr_nonnull(
			strstr(record->message, i < 3 ? "capacity_sectors=128 "
						      : "capacity_sectors=8 "));
	}
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_size_is_set_at_once_while_stuck_and_kept_over_resets)
{
	uint64_t start_ns;
	struct rig rig;

	wedge_open(&rig, 20, 0);
	wedge(&rig, T_IN, 0);
	start_ns = clock_start();
	resize(&rig, 32 * KIB);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	ck_assert_uint_eq(read_sectors(&rig), 64);
	rig_start(&rig);
	resize(&rig, 16 * KIB);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(500));
	storage_let_go(rig.storage);
	ck_assert_int_eq(read_at(&rig, 32), IOERR);
	ck_assert_int_eq(read_at(&rig, 31), OK);
	rig_reset(&rig);
	ck_assert_uint_eq(read_sectors(&rig), 32);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	resize(&rig, 8 * KIB);
	ck_assert_uint_eq(rig_identity(&rig).capacity_sectors, 16);
	wedge_close(&rig);
}
END_TEST

TEST_PROGRAM(
	"resize", bad_sizes_change_nothing,
	sizes_are_rounded_down_to_whole_blocks,
	a_torn_size_is_seen_by_its_generation,
	a_running_driver_is_interrupted_once_for_each_change,
	a_driver_that_read_the_old_size_hears_of_it_at_driver_ok,
	a_disk_that_shrinks_refuses_what_is_behind_and_one_that_grows_serves_it,
	a_disk_larger_than_its_storage_has_zeros_behind_it,
	requests_in_flight_behind_the_end_end_as_the_storage_has_them,
	records_tell_the_size_of_their_time,
	a_size_is_set_at_once_while_stuck_and_kept_over_resets)
