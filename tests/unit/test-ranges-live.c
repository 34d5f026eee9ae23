/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests about ranges while the disk, its queue or guest memory changes: they
 * are as fenced as those with data.
 */

#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "later.h"
#include "mmio.h"
#include "ranges.h"
#include "wedge.h"

#define BUDGET 50
#define KIB UINT64_C(1024)
#define RING_RESET (UINT64_C(1) << VIRTIO_F_RING_RESET)

static void resize(struct rig *rig, uint64_t bytes)
{
	ck_assert_int_eq(ktvblk_set_capacity(rig->dev, bytes), 0);
}

START_TEST(ranges_are_inside_the_size_of_now)
{
	static const uint32_t types[] = { T_DISCARD, T_ZEROES };
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_RANGES });
	rig_start(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		const enum storage_op op =
			types[i] == T_DISCARD ? OP_DISCARD : OP_WRITE_ZEROES;

		resize(&rig, 32 * KIB);
		ck_assert_int_eq(request(&rig, types[i], { 63, 1, 0 }), OK);
		ck_assert_int_eq(request(&rig, types[i], { 63, 2, 0 }), IOERR);
		ck_assert_int_eq(request(&rig, types[i], { 0, 1, 0 },
					 { 64, 1, 0 }),
				 IOERR);
		ck_assert_uint_eq(storage_calls(rig.storage, op), 1);
		disk_expect(&rig, 0, 63, -1);
		disk_expect(&rig, 64, 63, -1);
		resize(&rig, 64 * KIB);
		ck_assert_int_eq(request(&rig, types[i], { 63, 1, 0 },
					 { 127, 1, 0 }),
				 OK);
		ck_assert_int_eq(request(&rig, types[i], { 128, 1, 0 }), IOERR);
		ck_assert_uint_eq(storage_calls(rig.storage, op), 3);
	}
	rig_close(&rig);
}
END_TEST

/* One is asked for at a time, and the guest's copy of them is not looked at. */
START_TEST(those_in_storage_end_in_the_new_memory)
{
	static const struct test_range ranges[] = { { 1, 2, 0 }, { 9, 1, 0 } };
	static const struct {
		uint32_t type;
		unsigned int lacks;
		int byte;
	} ways[] = {
		{ T_DISCARD, 0, 0xdd },
		{ T_ZEROES, 0, 0 },
		{ T_ZEROES, NO_WRITE_ZEROES, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct ktvblk_region region;
		struct ktvblk_mem *mem;
		unsigned char *ram;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){ .features = RIG_RANGES,
						      .lacks = ways[i].lacks });
		rig_start(&rig);
		storage_hold(rig.storage);
		ranges_chain(&rig, ways[i].type, ranges, ARRAY_SIZE(ranges));
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_wait_held(rig.storage, 1);
		ram = mmap(NULL, RIG_RAM_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ck_assert_ptr_ne(ram, MAP_FAILED);
		memcpy(ram, rig.ram, RIG_RAM_BYTES);
		memset(ram + RIG_DATA, 0xff, sizeof(ranges));
		region = (struct ktvblk_region){ .host_addr = ram,
						 .size = RIG_RAM_BYTES };
		ck_assert_int_eq(ktvblk_mem_new(&region, 1, NULL, NULL, &mem),
				 0);
		ck_assert_int_eq(ktvblk_replace_memory(rig.dev, mem, WAIT_MS),
				 0);
		/* Nobody looks there any more, or it is a signal. */
		ck_assert_int_eq(mprotect(rig.ram, RIG_RAM_BYTES, PROT_NONE),
				 0);
		rig.regions[0].host_addr = ram;
		storage_let_go(rig.storage);
		rig_wait_used(&rig, 1);
		ck_assert_int_eq(*rig_chain_status(&rig, 0), OK);
		disk_expect(&rig, 0, 1, -1);
		disk_expect(&rig, 1, 2, ways[i].byte);
		disk_expect(&rig, 3, 6, -1);
		disk_expect(&rig, 9, 1, ways[i].byte);
		ktvblk_mem_unref(mem);
		rig.dev->destroy_timeout_ms = WAIT_MS;
		ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
		rig_free(&rig);
		munmap(ram, RIG_RAM_BYTES);
	}
}
END_TEST

/* What the storage refused it is not asked for again, in whatever memory. */
START_TEST(a_refusal_is_kept_over_other_memory)
{
	const int64_t answers[] = { -EOPNOTSUPP };
	struct ktvblk_region region;
	struct ktvblk_mem *mem;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_RANGES });
	rig_start(&rig);
	storage_script(rig.storage, answers, 1);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 0, 1, 0 }), OK);
	region = rig.regions[0];
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, NULL, NULL, &mem), 0);
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, mem, WAIT_MS), 0);
	ktvblk_mem_unref(mem);
	ck_assert_int_eq(request(&rig, T_DISCARD, { 0, 1, 0 }), OK);
	ck_assert_uint_eq(storage_calls(rig.storage, OP_DISCARD), 1);
	disk_expect(&rig, 0, 128, -1);
	rig_close(&rig);
}
END_TEST

static void send_ranges(struct rig *rig, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		const uint64_t at = RIG_DATA + i * 64u;
		const struct rig_part data = { at, RANGE_BYTES, READABLE };
		const struct test_range range = { i, 1, 0 };

		ranges_put(rig, at, &range, 1);
		rig_data(rig, (uint16_t)(3 * i), i % 2 ? T_ZEROES : T_DISCARD,
			 0, &data, 1);
		rig_avail(rig, (uint16_t)(3 * i));
	}
	rig_kick(rig);
}

static void reset_though_they_hang(uint16_t n)
{
	struct recorder rec;
	struct later later;
	uint64_t start_ns, sum;
	struct rig rig;

	wedge_record(&rec);
	later_init(&later);
	rig_open(&rig,
		 &(struct rig_options){
			 .config = { .reset_timeout_ms = BUDGET, .depth = n },
			 .features = RIG_RANGES | RING_RESET,
			 .queue_size = 128,
			 .later = &later });
	rig_start(&rig);
	send_ranges(&rig, n);
	later_wait(&later, n);
	sum = wedge_ram_sum(&rig);
	start_ns = clock_start();
	rig_write(&rig, VIRTIO_MMIO_QUEUE_SEL, 0);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_RESET, 1);
	ck_assert_uint_ge(ms_since(start_ns), BUDGET);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(BUDGET + 50));
	expect_text(recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
		    "KTVBLK_FENCED", "yes");
	later_complete_all(&later);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	/* No status byte, no used entry; and the disk as they left it. */
	ck_assert_uint_eq(wedge_ram_sum(&rig), sum);
	for (unsigned int i = 0; i < n; i++)
		disk_expect(&rig, i, 1, i % 2 ? 0 : 0xdd);
	rig_set_up_queue(&rig);
	send_ranges(&rig, n);
	later_wait(&later, n);
	later_complete_all(&later);
	rig_wait_used(&rig, n);
	for (unsigned int i = 0; i < n; i++)
		ck_assert_int_eq(*rig_chain_status(&rig, (uint16_t)(3 * i)),
				 OK);
	rig_close(&rig);
	recorder_stop(&rec);
}

START_TEST(a_queue_is_reset_though_its_discards_hang)
{
	reset_though_they_hang(1);
	reset_though_they_hang(32);
}
END_TEST

TEST_PROGRAM("ranges-live", ranges_are_inside_the_size_of_now,
	     those_in_storage_end_in_the_new_memory,
	     a_refusal_is_kept_over_other_memory,
	     a_queue_is_reset_though_its_discards_hang)
