/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GET_ID: the serial in exactly 20 bytes, wherever the guest puts them. */

#include <string.h>

#include "harness.h"
#include "rig.h"

#define T_GET_ID VIRTIO_BLK_T_GET_ID
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR

#define NOWHERE 0x10000000u

static const char default_id[20] = "libktvblk";

static void start(struct rig *rig, const char *serial, uint64_t flags)
{
	rig_open(rig, &(struct rig_options){
			      .config = { .serial = serial, .flags = flags } });
	rig_start(rig);
	memset(rig_at(rig, RIG_DATA), 0xaa, 512);
}

#define get_id(rig, used_len, ...)                                             \
	({                                                                     \
		const struct rig_part data_[] = { __VA_ARGS__ };               \
                                                                               \
		rig_data(rig, 0, T_GET_ID, UINT64_MAX, data_,                  \
			 ARRAY_SIZE(data_));                                   \
		ck_assert_uint_eq(rig_serve(rig, 0), used_len);                \
		*rig_chain_status(rig, 0);                                     \
	})

static void check_counters(struct rig *rig, uint64_t io_errors)
{
	const struct ktvblk_counters want = { .io_errors = io_errors };
	const struct ktvblk_counters have = rig_counters(rig);

	ck_assert_mem_eq(&have, &want, sizeof(want));
}

/* 12.7.2 writes_serial_and_returns_ok, 12.7.5 full_get_id_chain */
START_TEST(full_get_id_chain)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA, 20, WRITABLE }), OK);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), default_id, 20);
	ck_assert_uint_eq(rig_used_idx(&rig), 1);
	check_counters(&rig, 0);
	rig_close(&rig);
}
END_TEST

/* What the buffer has more is not touched. */
START_TEST(a_larger_buffer_gets_twenty_bytes)
{
	const uint8_t *ram;
	struct rig rig;

	start(&rig, NULL, 0);
	ram = rig_at(&rig, RIG_DATA);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA, 512, WRITABLE }), OK);
	ck_assert_mem_eq(ram, default_id, 20);
	for (unsigned int i = 20; i < 512; i++)
		ck_assert_uint_eq(ram[i], 0xaa);
	rig_close(&rig);
}
END_TEST

/* 12.7.10: all 20 bytes may be the serial's; the rest is zeros. */
START_TEST(the_serial_is_padded_with_zeros_and_needs_no_end)
{
	struct rig rig;

	start(&rig, "0123456789abcdefghij", 0);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA, 21, WRITABLE }), OK);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), "0123456789abcdefghij\xaa",
			 21);
	rig_close(&rig);

	start(&rig, "", 0);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA, 20, WRITABLE }), OK);
	for (unsigned int i = 0; i < 20; i++)
		ck_assert_uint_eq(((uint8_t *)rig_at(&rig, RIG_DATA))[i], 0);
	rig_close(&rig);
}
END_TEST

/* 12.7.6 get_id_succeeds_on_ro_disk */
START_TEST(get_id_succeeds_on_a_read_only_disk)
{
	struct rig rig;

	start(&rig, NULL, KTVBLK_READ_ONLY);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA, 20, WRITABLE }), OK);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), default_id, 20);
	rig_close(&rig);
}
END_TEST

/* 12.7.3 and 12.7.7 short_buffer */
START_TEST(a_buffer_of_19_bytes_is_ioerr)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_uint_eq(get_id(&rig, 1, { RIG_DATA, 19, WRITABLE }), IOERR);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0xaa);
	ck_assert_uint_eq(get_id(&rig, 1, { RIG_DATA, 0, WRITABLE }), IOERR);
	check_counters(&rig, 2);
	rig_close(&rig);
}
END_TEST

/* 12.7.8 zero_data: no data descriptor */
START_TEST(no_buffer_is_ioerr)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_int_eq(rig_request(&rig, T_GET_ID, 0, 0), IOERR);
	check_counters(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* 12.7.4 and 12.7.9 readonly_data */
START_TEST(a_readable_buffer_is_ioerr)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_uint_eq(get_id(&rig, 1, { RIG_DATA, 20, READABLE }), IOERR);
	ck_assert_uint_eq(*(uint8_t *)rig_at(&rig, RIG_DATA), 0xaa);
	check_counters(&rig, 1);
	rig_close(&rig);
}
END_TEST

/* The reference looks at the first descriptor alone. */
START_TEST(changed_the_buffer_may_be_in_several_descriptors)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_uint_eq(get_id(&rig, 21, { RIG_DATA + 100, 3, WRITABLE },
				 { RIG_DATA, 0, WRITABLE },
				 { RIG_DATA + 200, 16, WRITABLE },
				 { RIG_DATA + 300, 99, WRITABLE }),
			  OK);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA + 100), "lib\xaa", 4);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA + 200),
			 "ktvblk\0\0\0\0\0\0\0\0\0\0\xaa", 17);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA + 300), "\0\xaa", 2);
	rig_close(&rig);
}
END_TEST

START_TEST(a_buffer_outside_memory_is_ioerr)
{
	struct rig rig;

	start(&rig, NULL, 0);
	ck_assert_uint_eq(get_id(&rig, 1, { NOWHERE, 20, WRITABLE }), IOERR);
	ck_assert_uint_eq(get_id(&rig, 1, { RIG_RAM_BYTES - 19, 20, WRITABLE }),
			  IOERR);
	check_counters(&rig, 2);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("get-id", full_get_id_chain, a_larger_buffer_gets_twenty_bytes,
	     the_serial_is_padded_with_zeros_and_needs_no_end,
	     get_id_succeeds_on_a_read_only_disk, a_buffer_of_19_bytes_is_ioerr,
	     no_buffer_is_ioerr, a_readable_buffer_is_ioerr,
	     changed_the_buffer_may_be_in_several_descriptors,
	     a_buffer_outside_memory_is_ioerr)
