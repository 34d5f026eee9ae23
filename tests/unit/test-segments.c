/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Drivers that know no limit: segments of many MiB, as EDK2 and U-Boot send
 * them, and chains as long as the queue, the table or the index lets them be.
 * What can be served is, the rest is answered, and a stop waits for none of it.
 */

#include <string.h>

#include "device.h"
#include "harness.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define NEXT VRING_DESC_F_NEXT
#define IS_TABLE VRING_DESC_F_INDIRECT

#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (8 * MIB)
#define TABLE 0x200000u /* of as many descriptors as there can be: 1 MiB */

static void open_disk(struct rig *rig, bool zero_copy, uint16_t queue_size)
{
	struct rig_options options = {
		.features = RIG_INDIRECT_DESC,
		.queue_size = queue_size,
		.disk_bytes = DISK_BYTES,
	};

	options.config.flags = zero_copy ? KTVBLK_ZERO_COPY : 0;
	rig_open(rig, &options);
	rig_start(rig);
}

static unsigned char own_pattern(uint64_t i)
{
	return (unsigned char)(i * 11 + (i >> 13) + 5);
}

static void fill(unsigned char *bytes, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		bytes[i] = own_pattern(i);
}

/* How many are another. */
static uint64_t differs(const unsigned char *bytes, uint64_t len)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < len; i++)
		n += bytes[i] != own_pattern(i);
	return n;
}

/*
 * Segments of many MiB
 */

static void check_big(bool zero_copy, unsigned int calls)
{
	const uint32_t len = 3 * MIB;
	/* The same memory twice: there is not so much of it. */
	struct rig_part data[2] = { { RIG_DATA, len, READABLE },
				    { RIG_DATA, len, READABLE } };
	unsigned char *ram;
	struct rig rig;

	open_disk(&rig, zero_copy, 16);
	ram = (unsigned char *)rig_at(&rig, RIG_DATA);
	fill(ram, len);
	rig_data(&rig, 0, T_OUT, 2, data, 2);
	ck_assert_uint_eq(rig_serve(&rig, 0), 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(differs(rig.storage->bytes + 1024, len), 0);
	ck_assert_uint_eq(differs(rig.storage->bytes + 1024 + len, len), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), calls);

	memset(ram, 0, len);
	data[0].flags = data[1].flags = WRITABLE;
	rig_data(&rig, 0, T_IN, 2, data, 2);
	ck_assert_uint_eq(rig_serve(&rig, 0), 2 * len + 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_uint_eq(differs(ram, len), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), calls);
	rig_close(&rig);
}

START_TEST(changed_segments_of_many_mib_are_served_in_chunks)
{
	check_big(false, (unsigned int)(6 * MIB / BOUNCE_BYTES));
}
END_TEST

START_TEST(changed_segments_of_many_mib_are_served_in_chunks_without_a_copy)
{
	check_big(true, 2);
}
END_TEST

/* The call that is out when the stop comes is the last. */
START_TEST(a_reset_does_not_wait_for_the_rest_of_a_large_segment)
{
	for (int zero_copy = 0; zero_copy < 2; zero_copy++) {
		const uint32_t len = 3 * MIB;
		const struct rig_part data[2] = {
			{ RIG_DATA, len, READABLE },
			{ RIG_DATA, len, READABLE },
		};
		struct rig rig;

		open_disk(&rig, zero_copy, 16);
		rig_data(&rig, 0, T_OUT, 0, data, 2);
		storage_hold(rig.storage);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_wait_held(rig.storage, 1);
		ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
		storage_let_go(rig.storage);
		rig.dev->destroy_timeout_ms = WAIT_MS;
		ck_assert_int_eq(rig_destroy(&rig), KTVBLK_JOINED);
		ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 1);
		rig_free(&rig);
	}
}
END_TEST

/*
 * Long chains
 */

static void put_table(struct rig *rig, uint16_t i, uint64_t addr, uint32_t len,
		      uint16_t flags)
{
	const struct vring_desc desc = {
		.addr = htole64(addr),
		.len = htole32(len),
		.flags = htole16(flags),
		.next = htole16((uint16_t)(i + 1)),
	};

	memcpy(rig_at(rig, TABLE + i * sizeof(desc)), &desc, sizeof(desc));
}

/*
 * A request of n descriptors in a table, whose data are pieces of this length
 * one after another, but the last, which fills up the sector; how many bytes.
 */
static size_t put_long(struct rig *rig, uint32_t type, unsigned int n,
		       uint32_t piece)
{
	const uint16_t way = type == T_IN ? WRITABLE : READABLE;
	size_t at = 0;

	rig_header(rig, RIG_HEADER, type, 1);
	put_table(rig, 0, RIG_HEADER, 16, NEXT);
	for (unsigned int i = 1; i < n - 2; i++, at += piece)
		put_table(rig, (uint16_t)i, RIG_DATA + at, piece, NEXT | way);
	piece = (uint32_t)(512 - at % 512);
	put_table(rig, (uint16_t)(n - 2), RIG_DATA + at, piece, NEXT | way);
	put_table(rig, (uint16_t)(n - 1), RIG_STATUS, 1, WRITABLE);
	*(uint8_t *)rig_at(rig, RIG_STATUS) = SENTINEL;
	rig_desc(rig, 0, TABLE, n * 16, IS_TABLE, 0);
	return at + piece;
}

/* 12.8.1: the reference drops what has more than 130. */
START_TEST(changed_chains_of_any_length_are_served)
{
	static const unsigned int lengths[] = { 130, 131, 256, 1026, 0x10000 };

	for (int zero_copy = 0; zero_copy < 2; zero_copy++) {
		struct rig rig;

		open_disk(&rig, zero_copy, 16);
		for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
			const unsigned int n = lengths[i];
			size_t len = put_long(&rig, T_OUT, n, 8);
			unsigned char *ram =
				(unsigned char *)rig_at(&rig, RIG_DATA);

			fill(ram, len);
			ck_assert_uint_eq(rig_serve(&rig, 0), 1);
			ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
			ck_assert_uint_eq(
				differs(rig.storage->bytes + 512, len), 0);
			memset(ram, 0, len);
			ck_assert_uint_eq(put_long(&rig, T_IN, n, 8), len);
			ck_assert_uint_eq(rig_serve(&rig, 0), len + 1);
			ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
			ck_assert_uint_eq(differs(ram, len), 0);
		}
		ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
		rig_close(&rig);
	}
}
END_TEST

START_TEST(changed_a_chain_that_fills_the_queue_is_served)
{
	struct rig_part data[254];
	struct rig rig;

	open_disk(&rig, false, 256);
	for (unsigned int i = 0; i < 254; i++)
		data[i] =
			(struct rig_part){ RIG_DATA + 512 * i, 512, WRITABLE };
	rig_data(&rig, 0, T_IN, 3, data, 254);
	ck_assert_uint_eq(rig_serve(&rig, 0), 254 * 512 + 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), rig.storage->bytes + 3 * 512,
			 254 * 512);
	rig_close(&rig);
}
END_TEST

/* Circles in the longest table, as many as the queue has room for. */
START_TEST(a_reset_does_not_wait_for_long_walks)
{
	uint64_t ran;
	struct rig rig;

	open_disk(&rig, false, 256);
	rig.dev->reset_timeout_ms = WAIT_MS;
	for (unsigned int i = 0; i < 0x10000; i++)
		put_table(&rig, (uint16_t)i, RIG_DATA, 8, NEXT);
	for (uint16_t head = 0; head < 256; head++) {
		rig_desc(&rig, head, TABLE, 0x10000 * 16, IS_TABLE, 0);
		rig_avail(&rig, head);
	}
	rig_kick(&rig);
	ck_assert(eventually(rig_counters(&rig).io_errors > 0));
	clock_start();
	ran = process_ns();
	rig_reset(&rig);
	ran = process_ns() - ran;
	/* The default budget, if nobody else had the processor. */
	ck_assert_uint_lt(ran, bound_ms(1000) * NSEC_PER_MSEC);
	ck_assert_int_ne(ktvblk_get_state(rig.dev), KTVBLK_STATE_WEDGED);
	ck_assert_uint_eq(rig_used_idx(&rig), 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_close(&rig);
}
END_TEST

/*
 * Chains that are none, but say where their answer goes
 */

START_TEST(changed_a_flawed_chain_is_answered_where_its_status_is)
{
	static const struct rig_part chains[][4] = {
		{ { RIG_HEADER, 16, READABLE },
		  { RIG_STATUS, 1, WRITABLE },
		  { RIG_DATA, 512, READABLE } },
		{ { RIG_HEADER, 16, READABLE },
		  { RIG_DATA, UINT32_MAX, WRITABLE },
		  { RIG_DATA, 512, WRITABLE },
		  { RIG_STATUS, 1, WRITABLE } },
		{ { RIG_DATA, 512, WRITABLE },
		  { RIG_HEADER, 16, READABLE },
		  { RIG_STATUS, 1, WRITABLE } },
	};
	struct rig rig;

	open_disk(&rig, false, 16);
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		const size_t n = chains[i][3].len ? 4 : 3;

		rig_header(&rig, RIG_HEADER, T_OUT, 0);
		*rig_chain_status(&rig, 0) = SENTINEL;
		rig_parts(&rig, 0, chains[i], n);
		ck_assert_uint_eq(rig_serve(&rig, 0), 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), IOERR);
		*rig_chain_status(&rig, 0) = SENTINEL;
		rig_parts_indirect(&rig, 0, chains[i], n);
		ck_assert_uint_eq(rig_serve(&rig, 0), 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), IOERR);
	}
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 2 * ARRAY_SIZE(chains));
	ck_assert_uint_eq(storage_calls(rig.storage, OP_READ), 0);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_WRITE), 0);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("segments", changed_segments_of_many_mib_are_served_in_chunks,
	     changed_segments_of_many_mib_are_served_in_chunks_without_a_copy,
	     a_reset_does_not_wait_for_the_rest_of_a_large_segment,
	     changed_chains_of_any_length_are_served,
	     changed_a_chain_that_fills_the_queue_is_served,
	     a_reset_does_not_wait_for_long_walks,
	     changed_a_flawed_chain_is_answered_where_its_status_is)
