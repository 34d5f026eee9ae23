/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Walking a chain, by direct calls: whatever the descriptors say, the walk
 * ends, and what it calls whole is whole.
 */

#include <linux/virtio_ring.h>
#include <string.h>

#include "harness.h"
#include "virtqueue.h"

#define RAM_BYTES 0x120000u
#define TABLE 0x0u
#define INDIRECT 0x4000u
#define BORDER (RAM_BYTES / 2) /* between the two regions */
#define NOWHERE 0x1000000u

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define IS_TABLE VRING_DESC_F_INDIRECT

struct fixture {
	unsigned char *ram;
	struct ktvblk_mem *mem;
	struct virtqueue vq;
	struct chain chain;
	const char *reason;
};

static void open_fixture(struct fixture *f, uint16_t size)
{
	struct ktvblk_region regions[2] = {
		{ .guest_addr = 0, .size = BORDER },
		{ .guest_addr = BORDER, .size = RAM_BYTES - BORDER },
	};

	memset(f, 0, sizeof(*f));
	f->ram = aligned_alloc(4096, RAM_BYTES);
	ck_assert_ptr_nonnull(f->ram);
	memset(f->ram, 0, RAM_BYTES);
	regions[0].host_addr = f->ram;
	regions[1].host_addr = f->ram + BORDER;
	ck_assert_int_eq(ktvblk_mem_new(regions, 2, NULL, NULL, &f->mem), 0);
	f->chain.descs = malloc(CHAIN_BYTES);
	ck_assert_ptr_nonnull(f->chain.descs);
	f->vq = (struct virtqueue){
		.mem = f->mem,
		.ring = { .size = size, .ready = true, .desc_addr = TABLE },
		.indirect = true,
	};
	virtqueue_map(&f->vq);
}

static void close_fixture(struct fixture *f)
{
	ktvblk_mem_unref(f->mem);
	free(f->chain.descs);
	free(f->ram);
}

static void put(struct fixture *f, uint64_t table, unsigned int i,
		uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	const struct vring_desc desc = {
		.addr = htole64(addr),
		.len = htole32(len),
		.flags = htole16(flags),
		.next = htole16(next),
	};

	memcpy(f->ram + table + i * sizeof(desc), &desc, sizeof(desc));
}

/* n descriptors one after another, the last without a next. */
static void put_row(struct fixture *f, uint64_t table, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		put(f, table, i, 0x8000 + i, 1, i + 1 < n ? NEXT : 0,
		    (uint16_t)(i + 1));
}

static enum chain_result read_at(struct fixture *f, uint16_t head)
{
	f->reason = "none";
	return virtqueue_read_chain(&f->vq, head, &f->chain, &f->reason);
}

#define ck_assert_bad(f, head, how, why)                                       \
	do {                                                                   \
		ck_assert_int_eq(read_at(f, head), how);                       \
		ck_assert_str_eq((f)->reason, why);                            \
	} while (0)
#define ck_assert_malformed(f, head, why)                                      \
	ck_assert_bad(f, head, CHAIN_MALFORMED, why)
#define ck_assert_flawed(f, head, why) ck_assert_bad(f, head, CHAIN_FLAWED, why)

START_TEST(a_chain_is_copied_in_its_order)
{
	struct fixture f;

	open_fixture(&f, 8);
	put(&f, TABLE, 6, 0x1000, 16, NEXT, 1);
	put(&f, TABLE, 1, 0x2000, 0, NEXT | WRITE, 4);
	put(&f, TABLE, 4, UINT64_MAX, 0xffff, WRITE, 77);
	ck_assert_int_eq(read_at(&f, 6), CHAIN_WHOLE);
	ck_assert_uint_eq(f.chain.n_descs, 3);
	ck_assert_uint_eq(f.chain.descs[0].addr, 0x1000);
	ck_assert_uint_eq(f.chain.descs[0].len, 16);
	ck_assert(!f.chain.descs[0].writable);
	ck_assert_uint_eq(f.chain.descs[1].len, 0);
	ck_assert(f.chain.descs[1].writable);
	ck_assert_uint_eq(f.chain.descs[2].addr, UINT64_MAX);
	ck_assert_uint_eq(f.chain.descs[2].len, 0xffff);
	close_fixture(&f);
}
END_TEST

START_TEST(flags_that_mean_nothing_are_ignored)
{
	struct fixture f;

	open_fixture(&f, 8);
	put(&f, TABLE, 0, 0x1000, 16, 0xfff8 | NEXT, 1);
	put(&f, TABLE, 1, 0x2000, 1, 0xfff8 | WRITE, 0);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	ck_assert_uint_eq(f.chain.n_descs, 2);
	close_fixture(&f);
}
END_TEST

/* Changed: the reference takes 130, whatever the driver negotiated. */
START_TEST(changed_a_chain_may_be_as_long_as_any_queue)
{
	struct fixture f;

	open_fixture(&f, KTVBLK_QUEUE_SIZE_MAX);
	for (unsigned int n = 130; n <= KTVBLK_QUEUE_SIZE_MAX; n += 149) {
		put_row(&f, TABLE, n);
		ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
		ck_assert_uint_eq(f.chain.n_descs, n);
		ck_assert_uint_eq(f.chain.descs[n - 1].addr, 0x8000 + n - 1);
	}
	close_fixture(&f);
}
END_TEST

START_TEST(changed_an_indirect_chain_may_be_as_long_as_indices_go)
{
	static const unsigned int lengths[] = { 130, 131, 1025, 0xffff,
						0x10000 };
	struct fixture f;

	open_fixture(&f, 2);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		const unsigned int n = lengths[i];

		put_row(&f, INDIRECT, n);
		put(&f, TABLE, 0, INDIRECT, n * 16, IS_TABLE, 0);
		ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
		ck_assert_uint_eq(f.chain.n_descs, n);
		ck_assert_uint_eq(f.chain.descs[n - 1].addr, 0x8000 + n - 1);
	}
	close_fixture(&f);
}
END_TEST

/* All of the largest queue but the last, which is the largest table. */
START_TEST(the_longest_chain_there_can_be_fits)
{
	const unsigned int direct = KTVBLK_QUEUE_SIZE_MAX - 1;
	struct fixture f;

	open_fixture(&f, KTVBLK_QUEUE_SIZE_MAX);
	put_row(&f, TABLE, direct + 1);
	put(&f, TABLE, direct, INDIRECT, 0x10000 * 16, IS_TABLE, 0);
	put_row(&f, INDIRECT, 0x10000);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	ck_assert_uint_eq(f.chain.n_descs, direct + 0x10000);
	ck_assert_uint_le(f.chain.n_descs, CHAIN_DESC_MAX);
	/* One more step can only go in a circle. */
	put(&f, INDIRECT, 0xffff, 0x1000, 1, NEXT, 0xffff);
	ck_assert_malformed(&f, 0, "descriptor loop");
	close_fixture(&f);
}
END_TEST

START_TEST(a_head_out_of_range_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, TABLE, 16);
	ck_assert_malformed(&f, 8, "descriptor index out of range");
	ck_assert_malformed(&f, 0xffff, "descriptor index out of range");
	close_fixture(&f);
}
END_TEST

/* The last descriptor seen must not be taken for the status. */
START_TEST(a_next_out_of_range_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, TABLE, 7);
	put(&f, TABLE, 7, 0x1000, 1, WRITE, 0);
	for (unsigned int next = 8; next < 0x10000; next += 0x1fff) {
		put(&f, TABLE, 6, 0x1000, 1, NEXT | WRITE, (uint16_t)next);
		ck_assert_malformed(&f, 0, "descriptor index out of range");
	}
	close_fixture(&f);
}
END_TEST

START_TEST(a_circle_is_malformed_on_every_queue_size)
{
	struct fixture f;

	for (unsigned int size = 1; size <= 256; size *= 2)
		for (unsigned int back = 0; back < size; back += 1 + back) {
			open_fixture(&f, (uint16_t)size);
			put_row(&f, TABLE, size);
			put(&f, TABLE, size - 1, 0x1000, 1, NEXT,
			    (uint16_t)back);
			ck_assert_malformed(&f, 0, "descriptor loop");
			close_fixture(&f);
		}
}
END_TEST

START_TEST(a_descriptor_that_is_its_own_next_is_malformed)
{
	struct fixture f;

	for (unsigned int size = 1; size <= 128; size *= 2) {
		open_fixture(&f, (uint16_t)size);
		put(&f, TABLE, size - 1, 0x1000, 1, NEXT | WRITE,
		    (uint16_t)(size - 1));
		ck_assert_malformed(&f, (uint16_t)(size - 1),
				    "descriptor loop");
		close_fixture(&f);
	}
}
END_TEST

START_TEST(a_chain_may_use_every_descriptor_once)
{
	struct fixture f;

	for (unsigned int size = 1; size <= 128; size *= 2) {
		open_fixture(&f, (uint16_t)size);
		put_row(&f, TABLE, size);
		ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
		ck_assert_uint_eq(f.chain.n_descs, size);
		close_fixture(&f);
	}
}
END_TEST

START_TEST(a_circle_in_an_indirect_table_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 2);
	put_row(&f, INDIRECT, 3);
	put(&f, INDIRECT, 2, 0x1000, 1, NEXT, 1);
	put(&f, TABLE, 0, INDIRECT, 3 * 16, IS_TABLE, 0);
	ck_assert_malformed(&f, 0, "descriptor loop");
	close_fixture(&f);
}
END_TEST

START_TEST(a_descriptor_outside_memory_is_malformed)
{
	static const uint64_t bad[] = {
		NOWHERE, RAM_BYTES, /* just behind the last byte */
		RAM_BYTES - 8, /* half of it is there */
		UINT64_MAX - 15, /* and the next wraps around zero */
	};
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, TABLE, 8);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		f.vq.ring.desc_addr = bad[i];
		virtqueue_map(&f.vq);
		ck_assert_malformed(&f, 0, "descriptor not in guest memory");
		ck_assert_malformed(&f, 1, "descriptor not in guest memory");
	}
	close_fixture(&f);
}
END_TEST

START_TEST(a_chain_that_leaves_memory_halfway_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	f.vq.ring.desc_addr = RAM_BYTES - 32;
	virtqueue_map(&f.vq);
	put(&f, RAM_BYTES - 32, 0, 0x1000, 16, NEXT, 1);
	put(&f, RAM_BYTES - 32, 1, 0x1000, 1, NEXT | WRITE, 2);
	ck_assert_malformed(&f, 0, "descriptor not in guest memory");
	close_fixture(&f);
}
END_TEST

START_TEST(lengths_may_add_up_to_4_gib_but_one_byte)
{
	struct fixture f;

	open_fixture(&f, 8);
	put(&f, TABLE, 0, 0x1000, 0xfffffff0, NEXT, 1);
	put(&f, TABLE, 1, 0x1000, 0xf, WRITE, 0);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	put(&f, TABLE, 1, 0x1000, 0x10, WRITE, 0);
	ck_assert_flawed(&f, 0, "total length above 4 GiB");
	/* As often as it may be, and the end is found. */
	for (uint16_t i = 1; i < 7; i++)
		put(&f, TABLE, i, 0x1000, UINT32_MAX, NEXT | WRITE,
		    (uint16_t)(i + 1));
	put(&f, TABLE, 7, 0x2000, 1, WRITE, 0);
	ck_assert_flawed(&f, 0, "total length above 4 GiB");
	ck_assert_uint_eq(f.chain.n_descs, 8);
	ck_assert_uint_eq(f.chain.descs[7].addr, 0x2000);
	close_fixture(&f);
}
END_TEST

/* Changed: the reference takes them; section 2.7.4.2 forbids them. */
START_TEST(changed_a_readable_descriptor_after_a_writable_one_is_a_flaw)
{
	struct fixture f;

	open_fixture(&f, 8);
	for (uint32_t len = 0; len < 2; len++) {
		put(&f, TABLE, 0, 0x1000, 16, NEXT, 1);
		put(&f, TABLE, 1, 0x1000, len, NEXT | WRITE, 2);
		put(&f, TABLE, 2, 0x1000, len, NEXT, 3);
		put(&f, TABLE, 3, 0x1000, 1, WRITE, 0);
		ck_assert_flawed(&f, 0,
				 "readable descriptor after a writable one");
		ck_assert_uint_eq(f.chain.n_descs, 4);
	}
	/* Without an end it is nothing at all. */
	put(&f, TABLE, 3, 0x1000, 1, NEXT | WRITE, 2);
	ck_assert_malformed(&f, 0, "descriptor loop");
	close_fixture(&f);
}
END_TEST

START_TEST(indirect_not_negotiated_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, INDIRECT, 3);
	put(&f, TABLE, 0, INDIRECT, 3 * 16, IS_TABLE, 0);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	f.vq.indirect = false;
	ck_assert_malformed(&f, 0, "indirect descriptor, not negotiated");
	close_fixture(&f);
}
END_TEST

START_TEST(indirect_lengths_must_be_whole_descriptors_and_at_least_one)
{
	static const uint32_t bad[] = { 0,  1,	15,	    17,
					31, 47, 0xfffffff1, UINT32_MAX };
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, INDIRECT, 3);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(&f, TABLE, 0, INDIRECT, bad[i], IS_TABLE, 0);
		ck_assert_malformed(&f, 0, "indirect table of a bad length");
	}
	close_fixture(&f);
}
END_TEST

/* It is never walked by its length, only along its nexts. */
START_TEST(a_huge_indirect_table_costs_no_more_than_its_chain)
{
	const uint64_t table = RAM_BYTES - 3 * 16;
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, table, 3);
	put(&f, TABLE, 0, table, 0xfffffff0, IS_TABLE, 0);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	ck_assert_uint_eq(f.chain.n_descs, 3);
	put(&f, table, 1, 0x1000, 1, NEXT, 0xffff);
	ck_assert_malformed(&f, 0, "descriptor not in guest memory");
	put(&f, table, 1, 0x1000, 1, NEXT, 1);
	ck_assert_malformed(&f, 0, "descriptor loop");
	ck_assert_uint_le(f.chain.n_descs, CHAIN_DESC_MAX);
	close_fixture(&f);
}
END_TEST

START_TEST(an_index_behind_the_indirect_table_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, INDIRECT, 3);
	put(&f, TABLE, 0, INDIRECT, 2 * 16, IS_TABLE, 0);
	ck_assert_malformed(&f, 0, "descriptor index out of range");
	put(&f, TABLE, 0, INDIRECT, 16, IS_TABLE, 0);
	ck_assert_malformed(&f, 0, "descriptor index out of range");
	close_fixture(&f);
}
END_TEST

START_TEST(a_nested_indirect_table_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, INDIRECT + 0x100, 3);
	put(&f, INDIRECT, 0, 0x1000, 16, NEXT, 1);
	put(&f, INDIRECT, 1, INDIRECT + 0x100, 3 * 16, IS_TABLE, 0);
	put(&f, TABLE, 0, INDIRECT, 2 * 16, IS_TABLE, 0);
	ck_assert_malformed(&f, 0, "nested indirect descriptor");
	put(&f, INDIRECT, 0, INDIRECT, 2 * 16, IS_TABLE, 0);
	ck_assert_malformed(&f, 0, "nested indirect descriptor");
	close_fixture(&f);
}
END_TEST

START_TEST(an_indirect_descriptor_with_a_next_is_malformed)
{
	struct fixture f;

	open_fixture(&f, 8);
	put_row(&f, INDIRECT, 3);
	put(&f, TABLE, 0, INDIRECT, 3 * 16, IS_TABLE | NEXT, 1);
	put(&f, TABLE, 1, 0x1000, 1, WRITE, 0);
	ck_assert_malformed(&f, 0, "indirect descriptor with a next");
	close_fixture(&f);
}
END_TEST

/* Section 2.7.5.3.2: both are the driver's good right. */
START_TEST(an_indirect_table_may_follow_descriptors_and_be_called_writable)
{
	struct fixture f;

	open_fixture(&f, 8);
	put(&f, TABLE, 0, 0x1000, 16, NEXT, 5);
	put(&f, TABLE, 5, INDIRECT, 3 * 16, IS_TABLE | WRITE, 0);
	put_row(&f, INDIRECT, 3);
	ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
	ck_assert_uint_eq(f.chain.n_descs, 4);
	ck_assert_uint_eq(f.chain.descs[0].len, 16);
	ck_assert(!f.chain.descs[1].writable);
	close_fixture(&f);
}
END_TEST

START_TEST(an_indirect_table_outside_memory_is_malformed)
{
	static const uint64_t bad[] = { NOWHERE, RAM_BYTES, RAM_BYTES - 15,
					UINT64_MAX - 15, UINT64_MAX - 16 };
	struct fixture f;

	open_fixture(&f, 8);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(&f, TABLE, 0, bad[i], 3 * 16, IS_TABLE, 0);
		ck_assert_malformed(&f, 0, "descriptor not in guest memory");
	}
	close_fixture(&f);
}
END_TEST

/* No alignment is asked of it, and a descriptor may be cut by the border. */
START_TEST(tables_may_lie_anywhere_and_over_a_region_border)
{
	struct fixture f;

	for (uint64_t at = BORDER - 48; at <= BORDER; at++) {
		open_fixture(&f, 8);
		put_row(&f, at, 3);
		put(&f, TABLE, 0, at, 3 * 16, IS_TABLE, 0);
		ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
		for (unsigned int i = 0; i < 3; i++)
			ck_assert_uint_eq(f.chain.descs[i].addr, 0x8000 + i);
		f.vq.ring.desc_addr = at;
		virtqueue_map(&f.vq);
		ck_assert_int_eq(read_at(&f, 0), CHAIN_WHOLE);
		ck_assert_uint_eq(f.chain.n_descs, 3);
		close_fixture(&f);
	}
}
END_TEST

TEST_PROGRAM("chain", a_chain_is_copied_in_its_order,
	     flags_that_mean_nothing_are_ignored,
	     changed_a_chain_may_be_as_long_as_any_queue,
	     changed_an_indirect_chain_may_be_as_long_as_indices_go,
	     the_longest_chain_there_can_be_fits,
	     a_head_out_of_range_is_malformed, a_next_out_of_range_is_malformed,
	     a_circle_is_malformed_on_every_queue_size,
	     a_descriptor_that_is_its_own_next_is_malformed,
	     a_chain_may_use_every_descriptor_once,
	     a_circle_in_an_indirect_table_is_malformed,
	     a_descriptor_outside_memory_is_malformed,
	     a_chain_that_leaves_memory_halfway_is_malformed,
	     lengths_may_add_up_to_4_gib_but_one_byte,
	     changed_a_readable_descriptor_after_a_writable_one_is_a_flaw,
	     indirect_not_negotiated_is_malformed,
	     indirect_lengths_must_be_whole_descriptors_and_at_least_one,
	     a_huge_indirect_table_costs_no_more_than_its_chain,
	     an_index_behind_the_indirect_table_is_malformed,
	     a_nested_indirect_table_is_malformed,
	     an_indirect_descriptor_with_a_next_is_malformed,
	     an_indirect_table_may_follow_descriptors_and_be_called_writable,
	     an_indirect_table_outside_memory_is_malformed,
	     tables_may_lie_anywhere_and_over_a_region_border)
