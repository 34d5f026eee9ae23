/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guest memory that the device may not write, in a mapping where a write would
 * be a signal: as if it were no memory, for what writes, and as any, for what
 * reads.
 */

#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_GET_ID VIRTIO_BLK_T_GET_ID
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR

#define ROM 0x100000u
#define ROM_BYTES 0x10000u

static const struct ktvblk_region regions[] = {
	{ .guest_addr = 0, .size = ROM },
	{ .guest_addr = ROM,
	  .size = ROM_BYTES,
	  .flags = KTVBLK_REGION_READ_ONLY },
	{ .guest_addr = ROM + ROM_BYTES, .size = ROM },
};

static unsigned char rom[ROM_BYTES]; /* what is in it */

static void protect(struct rig *rig, int prot)
{
	ck_assert_int_eq(mprotect(rig_at(rig, ROM), ROM_BYTES, prot), 0);
}

static void open_at_reset(struct rig *rig, uint64_t flags)
{
	rig_open(rig, &(struct rig_options){ .regions = regions,
					     .n_regions = ARRAY_SIZE(regions),
					     .config.flags = flags });
	for (size_t i = 0; i < ROM_BYTES; i++)
		rom[i] = (unsigned char)(i * 7 + i / 256);
	memcpy(rig_at(rig, ROM), rom, ROM_BYTES);
	protect(rig, PROT_READ);
}

static void open_started(struct rig *rig, uint64_t flags)
{
	open_at_reset(rig, flags);
	rig_start(rig);
}

/* Nothing was written, and the disk is served as ever. */
static void close_unharmed(struct rig *rig)
{
	ck_assert_mem_eq(rig_at(rig, ROM), rom, ROM_BYTES);
	ck_assert_int_eq(rig_request(rig, T_IN, 0, 512), OK);
	rig_close(rig);
}

static int request(struct rig *rig, uint32_t type, const struct rig_part *data,
		   size_t n)
{
	rig_data(rig, 0, type, 1, data, n);
	rig_serve(rig, 0);
	return *rig_chain_status(rig, 0);
}

START_TEST(a_disk_read_into_it_is_an_error_and_never_a_signal)
{
	static const struct rig_part data[][3] = {
		{ { ROM, 512, WRITABLE } },
		{ { ROM + ROM_BYTES - 512, 512, WRITABLE } },
		/* over its borders, and as one of several */
		{ { ROM - 512, 1024, WRITABLE } },
		{ { ROM + ROM_BYTES - 512, 1024, WRITABLE } },
		{ { RIG_DATA, 512, WRITABLE },
		  { ROM + 1, 512, WRITABLE },
		  { RIG_DATA + 512, 512, WRITABLE } },
		{ { ROM - 512, 0x8000, WRITABLE } },
	};

	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY)
		for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
			const size_t n = data[i][1].len ? 3 : 1;
			unsigned char before[1024];
			struct rig rig;

			open_started(&rig, flags);
			memset(rig_at(&rig, RIG_DATA), 0xaa, sizeof(before));
			memset(before, 0xaa, sizeof(before));
			ck_assert_int_eq(request(&rig, T_IN, data[i], n),
					 IOERR);
			ck_assert_mem_eq(rig_at(&rig, RIG_DATA), before,
					 sizeof(before));
			ck_assert_uint_eq(storage_calls(rig.storage, OP_READ),
					  0);
			close_unharmed(&rig);
		}
}
END_TEST

START_TEST(a_disk_write_out_of_it_has_its_bytes)
{
	static const struct rig_part data = { ROM + 100, 1024, READABLE };

	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		struct rig rig;

		open_started(&rig, flags);
		ck_assert_int_eq(request(&rig, T_OUT, &data, 1), OK);
		ck_assert_mem_eq(rig.storage->bytes + 512, rom + 100, 1024);
		close_unharmed(&rig);
	}
}
END_TEST

START_TEST(an_id_into_it_is_an_error)
{
	static const struct rig_part data = { ROM, 20, WRITABLE };
	struct rig rig;

	open_started(&rig, 0);
	ck_assert_int_eq(request(&rig, T_GET_ID, &data, 1), IOERR);
	close_unharmed(&rig);
}
END_TEST

START_TEST(a_status_in_it_drops_the_chain)
{
	const struct rig_part parts[] = { { RIG_HEADER, 16, READABLE },
					  { RIG_DATA, 512, WRITABLE },
					  { ROM + 5, 1, WRITABLE } };
	struct rig rig;

	open_started(&rig, 0);
	rig_header(&rig, RIG_HEADER, T_IN, 0);
	rig_parts(&rig, 0, parts, ARRAY_SIZE(parts));
	rig_drop(&rig, 0);
	close_unharmed(&rig);
}
END_TEST

/* Table, avail ring and header may be in ROM; what is written there may not. */
START_TEST(rings_in_it_are_read_and_not_written)
{
	for (unsigned int used = 0; used < 2; used++) {
		struct recorder rec;
		struct rig rig;

		recorder_start(&rec);
		open_at_reset(&rig, 0);
		rig_prepare(&rig);
		protect(&rig, PROT_READ | PROT_WRITE);
		rig_chain(&rig, 0, T_IN, 0, 512);
		memcpy(rig_at(&rig, ROM), rig_at(&rig, RIG_DESC), 0x1000);
		rig_avail(&rig, 0);
		memcpy(rig_at(&rig, ROM + RIG_AVAIL), rig_at(&rig, RIG_AVAIL),
		       0x1000);
		memcpy(rig_at(&rig, ROM + RIG_HEADER), rig_at(&rig, RIG_HEADER),
		       16);
		((struct vring_desc *)rig_at(&rig, ROM))->addr =
			htole64(ROM + RIG_HEADER);
		protect(&rig, PROT_READ);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_DESC_LOW, ROM);
		rig_write(&rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, ROM + RIG_AVAIL);
		if (used)
			rig_write(&rig, VIRTIO_MMIO_QUEUE_USED_LOW,
				  ROM + RIG_USED);
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		if (used)
			recorder_wait(&rec, KTVBLK_MESSAGE_USED_WRITE_FAILED);
		else
			rig_wait_used(&rig, 1);
		ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
		rig_close(&rig);
		recorder_stop(&rec);
	}
}
END_TEST

TEST_PROGRAM("rom", a_disk_read_into_it_is_an_error_and_never_a_signal,
	     a_disk_write_out_of_it_has_its_bytes, an_id_into_it_is_an_error,
	     a_status_in_it_drops_the_chain,
	     rings_in_it_are_read_and_not_written)
