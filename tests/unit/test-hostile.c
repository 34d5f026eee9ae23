/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What other devices got wrong about rings and requests, a test for each. More
 * of them, by their root cause, in the tests of:
 *   io            beyond the end of the disk (QEMU 3c2daac0b9), guest address
 *                 and length wrap, the end of RAM (OpenVMM #4047)
 *   io-storage    uninitialised bytes to the guest (CVE-2024-8612)
 *   chain         circular chains (CVE-2019-9547), oversized tables
 *   request       not whole sectors (CVE-2011-1750), strict chain shape
 *   poison        more chains than the queue is long (CVE-2016-5403)
 */

#include <string.h>

#include "bounds.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define IS_TABLE VRING_DESC_F_INDIRECT

#define NOWHERE 0x10000000u

static void start(struct rig *rig, const struct rig_options *options)
{
	rig_open(rig, options);
	rig_start(rig);
}

/* Head 0 is dropped, whatever it is, and what comes behind it is served. */
static void check_dropped(struct rig *rig)
{
	const uint64_t errors = rig_counters(rig).io_errors;

	rig_drop(rig, 0);
	ck_assert_uint_eq(rig_counters(rig).io_errors, errors + 1);
}

/* CVE-2026-45782 cloud-hypervisor: a head made available twice. */
START_TEST(the_same_head_twice_is_two_requests_one_after_the_other)
{
	static const uint16_t heads[] = { 0, 0, 0 };
	struct rig rig;

	start(&rig, NULL);
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail_all(&rig, heads, 3);
	rig_kick(&rig);
	rig_wait_used(&rig, 3);
	for (uint16_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(rig_used(&rig, i).id, 0);
		ck_assert_uint_eq(rig_used(&rig, i).len, 513);
	}
	ck_assert_uint_eq(rig_counters(&rig).reads_completed, 3);
	rig_close(&rig);
}
END_TEST

START_TEST(a_head_made_available_again_while_in_service_is_served_again)
{
	struct rig rig;

	start(&rig, NULL);
	storage_hold(rig.storage);
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 2);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 2);
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	rig_close(&rig);
}
END_TEST

/* CVE-2026-5747 Firecracker: the queue set up anew behind DRIVER_OK. */
START_TEST(ring_parameters_are_latched_at_driver_ok)
{
	static const struct {
		uint32_t reg, value;
	} changes[] = {
		{ VIRTIO_MMIO_QUEUE_NUM, 1 },
		{ VIRTIO_MMIO_QUEUE_NUM, 0 },
		{ VIRTIO_MMIO_QUEUE_NUM, 256 },
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, NOWHERE },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, NOWHERE },
		{ VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 1 },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, NOWHERE },
		{ VIRTIO_MMIO_QUEUE_READY,
		  1 }, /* 0 stops it: test-queue-stop */
		{ VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX },
	};
	struct rig rig;

	start(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		rig_write(&rig, changes[i].reg, changes[i].value);
		for (int j = 0; j < 20; j++)
			ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	}
	rig_close(&rig);
}
END_TEST

/* GHSA-jmr4-g2hv-mjj6: a format guessed from what the guest wrote. */
START_TEST(sector_0_is_only_a_sector_whatever_the_guest_writes_there)
{
	static const char magics[][5] = { "QFI\xfb", "KDMV", "conn", "vhdx" };
	struct rig rig;
	char *ram;

	start(&rig, NULL);
	ram = rig_at(&rig, RIG_DATA);
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		memset(ram, 1, 512);
		memcpy(ram, magics[i], 4);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 0, 512), OK);
		rig_reset(&rig);
		rig_start(&rig);
		memset(ram, 0, 512);
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
		ck_assert_mem_eq(ram, magics[i], 4);
		ck_assert_int_eq(ram[511], 1);
		/* Nobody but the guest reads. */
		ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), i + 1);
	}
	ck_assert_uint_eq(rig_identity(&rig).capacity_sectors,
			  RIG_DISK_BYTES / 512);
	rig_close(&rig);
}
END_TEST

/* CVE-2011-1750 QEMU: requests that are not whole sectors. */
START_TEST(lengths_that_are_not_sectors_never_reach_the_storage)
{
	static const uint32_t lens[] = { 1, 511, 513, 1023, 4095, 65535 };
	struct rig rig;

	start(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, lens[i]), IOERR);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 0, lens[i]), IOERR);
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	rig_close(&rig);
}
END_TEST

/* CVE-2011-2212 QEMU and its like: tables of all bad kinds. */
START_TEST(bad_indirect_tables_are_dropped)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
	} bad[] = {
		{ RIG_INDIRECT, 0, IS_TABLE },
		{ RIG_INDIRECT, 1, IS_TABLE },
		{ RIG_INDIRECT, 47, IS_TABLE },
		{ RIG_INDIRECT, 32, IS_TABLE }, /* shorter than its chain */
		{ RIG_INDIRECT, 48, IS_TABLE | NEXT },
		{ NOWHERE, 48, IS_TABLE },
		{ NOWHERE, 0xfffffff0, IS_TABLE },
		{ RIG_RAM_BYTES - 16, 48, IS_TABLE },
		{ UINT64_MAX - 15, 48, IS_TABLE },
		{ RIG_DESC, 16, IS_TABLE }, /* itself */
		{ RIG_DESC, 0xfffffff0, IS_TABLE },
		{ RIG_RAM_BYTES / 2, 48, IS_TABLE }, /* of zeros: no status */
	};
	static const struct rig_part in[] = { { RIG_HEADER, 16, READABLE },
					      { RIG_DATA, 512, WRITABLE },
					      { RIG_STATUS, 1, WRITABLE } };
	struct rig rig;

	start(&rig, &(struct rig_options){ .features = RIG_INDIRECT_DESC });
	rig_header(&rig, RIG_HEADER, T_IN, 0);
	rig_parts_indirect(&rig, 0, in, 3);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		*rig_chain_status(&rig, 0) = SENTINEL;
		rig_desc(&rig, 0, bad[i].addr, bad[i].len, bad[i].flags, 1);
		check_dropped(&rig);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), SENTINEL);
	}
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	rig_close(&rig);
}
END_TEST

/* CVE-2011-2512 QEMU, kvmtool 31e0eac: the index in a notify. */
START_TEST(notifies_of_queues_that_are_not_there_do_nothing)
{
	static const uint32_t indices[] = { 1,	       2,	  0xffff,
					    0x10000,   INT32_MAX, 1u << 31,
					    UINT32_MAX };
	struct rig rig;

	start(&rig, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(indices); i++) {
		rig_write(&rig, VIRTIO_MMIO_QUEUE_NOTIFY, indices[i]);
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	}
	ck_assert_uint_eq(rig_status(&rig), S_OK);
	rig_close(&rig);
}
END_TEST

/* CVE-2011-4127, CVE-2026-48914 QEMU: commands of features not offered. */
START_TEST(scsi_discard_and_write_zeroes_are_unsupported)
{
	static const uint32_t types[] = {
		2,
		3, /* SCSI_CMD and its out direction */
		VIRTIO_BLK_T_DISCARD,
		VIRTIO_BLK_T_WRITE_ZEROES,
		VIRTIO_BLK_T_SECURE_ERASE,
		15,
		16,
		17, /* zones */
		VIRTIO_BLK_T_OUT | 1u << 31, /* the old barrier bit */
	};
	static const struct rig_part scsi[] = {
		{ RIG_HEADER, 16, READABLE },
		{ RIG_DATA, 64, READABLE },
		{ RIG_DATA + 64, 96, WRITABLE },
		{ RIG_DATA + 200, 16, WRITABLE },
		{ RIG_STATUS, 1, WRITABLE },
	};
	struct rig rig;

	start(&rig, NULL);
	memset(rig_at(&rig, RIG_DATA), 0x77, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		rig_header(&rig, RIG_HEADER, types[i], 0);
		*rig_chain_status(&rig, 0) = SENTINEL;
		rig_parts(&rig, 0, scsi, ARRAY_SIZE(scsi));
		ck_assert_uint_eq(rig_serve(&rig, 0), 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), UNSUPP);
	}
	for (unsigned int op = 0; op < OP_COUNT; op++)
		ck_assert_uint_eq(
			storage_calls(rig.storage, (enum storage_op)op), 0);
	for (unsigned int i = 0; i < 4096; i++)
		if (((uint8_t *)rig_at(&rig, RIG_DATA))[i] != 0x77)
			ck_abort_msg("byte %u was written", i);
	rig_close(&rig);
}
END_TEST

/* CVE-2016-6490 QEMU: buffers of no bytes, for ever. */
START_TEST(zero_length_descriptors_everywhere)
{
	struct rig_part nothing[14];
	struct rig rig;

	start(&rig, &(struct rig_options){ .queue_size = 32 });
	for (size_t n = 1; n <= ARRAY_SIZE(nothing); n++) {
		for (size_t i = 0; i < n; i++)
			nothing[i] = (struct rig_part){ NOWHERE, 0,
							i > n / 2 ? WRITABLE
								  : READABLE };
		rig_parts(&rig, 0, nothing, n);
		check_dropped(&rig);
	}
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_close(&rig);
}
END_TEST

/* CVE-2019-9547 SPDK: on every size, by every way round. */
START_TEST(circular_chains_are_dropped_on_every_queue_size)
{
	struct rig rig;

	for (uint16_t size = 2; size <= 256; size = (uint16_t)(size * 2)) {
		start(&rig, &(struct rig_options){ .queue_size = size });
		rig_header(&rig, RIG_HEADER, T_IN, 0);
		for (uint16_t i = 0; i < size; i++)
			rig_desc(&rig, i, i ? RIG_DATA : RIG_HEADER, 16,
				 (uint16_t)(NEXT | (i ? WRITE : 0)),
				 (uint16_t)(i + 1 < size ? i + 1 : 0));
		rig_avail(&rig, 0);
		rig_kick(&rig);
		ck_assert(eventually(rig_counters(&rig).io_errors == 1));
		ck_assert_uint_eq(rig_used_idx(&rig), 0);
		/* The same head, mended, in the next place. */
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		rig_desc(&rig, 0, RIG_HEADER, 16, NEXT, 1);
		rig_desc(&rig, 1, RIG_DATA, 513, WRITE, 0);
		ck_assert_uint_eq(rig_serve(&rig, 0), 513);
		ck_assert_uint_eq(rig_counters(&rig).io_errors, 1);
		rig_close(&rig);
	}
}
END_TEST

/* CVE-2021-29631 bhyve, CVE-2021-36143 ACRN: a bad chain retires. */
START_TEST(malformed_chains_retire_and_the_next_is_served)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} second[] = {
		{ RIG_DATA, 512, NEXT | WRITE, 16 }, /* out of range */
		{ RIG_DATA, 512, NEXT | WRITE, 0xffff },
		{ RIG_DATA, 512, NEXT | WRITE, 0 }, /* a circle */
		{ RIG_DATA, 512, NEXT | WRITE, 1 },
		{ RIG_DATA, 512, READABLE, 0 }, /* no status */
		{ RIG_DATA, 0, WRITE, 0 },
		{ UINT64_MAX, 2, WRITE, 0 },
		{ RIG_INDIRECT, 16, IS_TABLE, 0 }, /* not negotiated */
	};
	struct rig rig;

	start(&rig, NULL);
	rig_header(&rig, RIG_HEADER, T_IN, 0);
	for (size_t i = 0; i < ARRAY_SIZE(second); i++) {
		rig_desc(&rig, 0, RIG_HEADER, 16, NEXT, 1);
		rig_desc(&rig, 1, second[i].addr, second[i].len,
			 second[i].flags, second[i].next);
		check_dropped(&rig);
	}
	for (uint32_t head = 16; head < 0x10000; head += 0x1fff)
		rig_drop(&rig, (uint16_t)head);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0);
	rig_close(&rig);
}
END_TEST

/*
 * FreeBSD-SA-24:17, virtio-villain T0051: descriptors, header and data lengths
 * changed while the request is in service.
 */
START_TEST(a_request_in_service_does_not_look_at_its_descriptors_again)
{
	struct rig rig;

	for (int zero_copy = 0; zero_copy < 2; zero_copy++) {
		start(&rig, &(struct rig_options){
				    .config.flags = zero_copy ? KTVBLK_ZERO_COPY
							      : 0 });
		rig_chain(&rig, 0, T_IN, 3, 512);
		storage_hold(rig.storage);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_wait_held(rig.storage, 1);
		rig_header(&rig, RIG_HEADER, T_OUT, UINT64_MAX);
		rig_desc(&rig, 1, RIG_DATA + 0x1000, 1u << 20, NEXT | WRITE, 2);
		rig_desc(&rig, 2, RIG_STATUS + 5, 1, WRITE, 0);
		*rig_chain_status(&rig, 5) = SENTINEL;
		storage_let_go(rig.storage);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(rig_used(&rig, 0).len, 513);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
		ck_assert_uint_eq(*rig_chain_status(&rig, 5), SENTINEL);
		ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA),
				  storage_pattern(3 * 512));
		ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA + 0x1000),
				  0);
		rig_close(&rig);
	}
}
END_TEST

/*
 * QEMU 10f5a72f70, ebb6ff25cd; virtio-villain B0041, S0021, S0053: resets in
 * the midst of completions. What comes after one is the new driver's alone.
 */
START_TEST(resets_race_with_completions)
{
	static const uint16_t heads[] = { 0, 3, 6, 9 };
	uint64_t *ram;
	struct rig rig;

	start(&rig, &(struct rig_options){ .features = RIG_EVENT_IDX });
	ram = rig_at(&rig, RIG_DATA);
	for (unsigned int round = 0; round < 200; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
			rig_chain(&rig, heads[i], T_IN, 0, 4096);
		rig_avail_all(&rig, heads, ARRAY_SIZE(heads));
		rig_kick(&rig);
		for (volatile unsigned int i = 0; i < round * 100; i++)
			;
		rig_reset(&rig);
		ck_assert_uint_eq(rig_irqs(&rig), 0);
		ram[0] = ram[511] = round;
		memset(rig_at(&rig, RIG_USED), 0x5a, 4096);
		ck_assert_uint_eq(rig_status(&rig), 0);
		ck_assert_uint_eq(ram[0], round);
		ck_assert_uint_eq(ram[511], round);
		ck_assert_uint_eq(rig_used_idx(&rig), 0x5a5a);
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, T_FLUSH, 0, 0), OK);
		ck_assert_uint_eq(rig_used_idx(&rig), 1);
	}
	rig_close(&rig);
}
END_TEST

/* Its own rings as the place for data: that is the guest's own trouble. */
START_TEST(a_guest_may_read_over_its_own_rings)
{
	static const uint64_t places[] = { RIG_AVAIL, RIG_USED, RIG_DESC,
					   RIG_HEADER, RIG_STATUS };
	struct rig rig;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const struct rig_part data = { places[i], 4096, WRITABLE };

		start(&rig, NULL);
		rig_data(&rig, 0, T_IN, 0, &data, 1);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		ck_assert(eventually(rig_counters(&rig).reads_completed >= 1));
		rig_reset(&rig);
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
		rig_close(&rig);
	}
}
END_TEST

/* The status in the place of the used index, the header in that of the ring. */
START_TEST(a_status_may_lie_anywhere)
{
	static const uint64_t places[] = { RIG_AVAIL + 1, RIG_AVAIL + 3,
					   RIG_USED + 2,  RIG_USED + 100,
					   RIG_DESC + 8,  RIG_DESC + 14 };
	struct rig rig;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		start(&rig, NULL);
		rig_header(&rig, RIG_HEADER, T_FLUSH, 0);
		rig_desc(&rig, 0, RIG_HEADER, 16, NEXT, 1);
		rig_desc(&rig, 1, places[i], 1, WRITE, 0);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		ck_assert(
			eventually(rig_counters(&rig).flushes_completed >= 1));
		rig_reset(&rig);
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
		rig_close(&rig);
	}
}
END_TEST

/* Firecracker's rule: what a guest can have recorded is bounded, and told. */
START_TEST(a_flood_of_bad_chains_makes_few_records_and_a_sum)
{
	const uint64_t start_ns = now_ns();
	uint64_t n_suppressed = 0, n_windows;
	const struct kept_record *r;
	struct recorder rec;
	struct rig rig;
	int n;

	recorder_start(&rec);
	start(&rig, &(struct rig_options){ .queue_size = 256 });
	rig_desc(&rig, 0, RIG_HEADER, 16, READABLE, 0);
	for (unsigned int i = 1; i <= 20; i++) {
		rig_set_avail_idx(&rig, 256);
		rig_kick(&rig);
		ck_assert(eventually(rig_counters(&rig).io_errors == i * 256));
		/* No way to a fresh start. */
		rig_reset(&rig);
		rig_start(&rig);
	}
	/* Ten of each window that has begun, and a sum of the one before. */
	n = recorder_count(&rec, NULL);
	n_windows = (now_ns() - start_ns) / LOG_LIMIT_NS + 1;
	ck_assert_uint_le((uint64_t)n, (LOG_LIMIT_BURST + 1) * n_windows);
	ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
	recorder_wait(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED);
	n = recorder_count(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED);
	while (n) {
		r = recorder_wait_n(&rec, KTVBLK_MESSAGE_LOG_SUPPRESSED, n--);
		ck_assert_str_eq(kept_field(r, "KTVBLK_SUPPRESSED_ID"),
				 KTVBLK_MESSAGE_CHAIN_NO_STATUS);
		n_suppressed += kept_number(r, "KTVBLK_SUPPRESSED");
	}
	/* Nothing is lost in the sum. */
	ck_assert_uint_eq(n_suppressed +
				  (uint64_t)recorder_count(
					  &rec, KTVBLK_MESSAGE_CHAIN_NO_STATUS),
			  20 * 256);
	rig_free(&rig);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("hostile", the_same_head_twice_is_two_requests_one_after_the_other,
	     a_head_made_available_again_while_in_service_is_served_again,
	     ring_parameters_are_latched_at_driver_ok,
	     sector_0_is_only_a_sector_whatever_the_guest_writes_there,
	     lengths_that_are_not_sectors_never_reach_the_storage,
	     bad_indirect_tables_are_dropped,
	     notifies_of_queues_that_are_not_there_do_nothing,
	     scsi_discard_and_write_zeroes_are_unsupported,
	     zero_length_descriptors_everywhere,
	     circular_chains_are_dropped_on_every_queue_size,
	     malformed_chains_retire_and_the_next_is_served,
	     a_request_in_service_does_not_look_at_its_descriptors_again,
	     resets_race_with_completions, a_guest_may_read_over_its_own_rings,
	     a_status_may_lie_anywhere,
	     a_flood_of_bad_chains_makes_few_records_and_a_sum)
