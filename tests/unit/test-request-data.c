/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The data of a request, by direct calls: one row of bytes, over segments. */

#include <string.h>

#include "harness.h"
#include "request.h"

#define RAM_BYTES 0x20000u
#define DATA 0x10000u
#define NOWHERE 0x10000000u

struct fixture {
	unsigned char *ram;
	struct ktvblk_mem *mem;
	struct request request;
	struct chain_desc segs[4];
};

static void close_fixture(struct fixture *f)
{
	ktvblk_mem_unref(f->mem);
	free(f->ram);
}

/* Segments of 3, 0, 5 and 4 bytes; the third ends where memory does. */
static void three_segments(struct fixture *f)
{
	struct ktvblk_region region = { .size = RAM_BYTES };

	memset(f, 0, sizeof(*f));
	f->ram = aligned_alloc(4096, RAM_BYTES);
	ck_assert_ptr_nonnull(f->ram);
	memset(f->ram, 0, RAM_BYTES);
	region.host_addr = f->ram;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, NULL, NULL, &f->mem), 0);
	f->request.n_segs = 4;
	f->request.chain.descs = f->segs;
	f->request.data_len = 12;
	f->request.chain.descs[0] = (struct chain_desc){ DATA, 3, true };
	f->request.chain.descs[1] = (struct chain_desc){ NOWHERE, 0, true };
	f->request.chain.descs[2] =
		(struct chain_desc){ RAM_BYTES - 5, 5, true };
	f->request.chain.descs[3] = (struct chain_desc){ DATA + 100, 4, true };
}

START_TEST(a_cursor_moves_byte_by_byte_as_in_one_go)
{
	static const char text[] = "abcdefghijkl";
	struct cursor step = { 0 };
	struct fixture f;
	char byte;

	three_segments(&f);
	ck_assert(request_copy_out(&f.request, step, f.mem, text, 12));
	for (unsigned int n = 0; n < 12; n++) {
		struct cursor jump = { 0 };

		cursor_advance(&f.request, &jump, n);
		ck_assert(request_copy_in(&f.request, jump, f.mem, &byte, 1));
		ck_assert_int_eq(byte, text[n]);
		ck_assert(request_copy_in(&f.request, step, f.mem, &byte, 1));
		ck_assert_int_eq(byte, text[n]);
		cursor_advance(&f.request, &step, 1);
	}
	ck_assert(!request_copy_in(&f.request, step, f.mem, &byte, 1));
	cursor_advance(&f.request, &step, UINT64_MAX);
	ck_assert_uint_eq(step.seg, 4);
	close_fixture(&f);
}
END_TEST

START_TEST(copies_go_over_segments_and_back)
{
	const unsigned char want[] = "hello, world";
	unsigned char have[12];
	struct fixture f;

	three_segments(&f);
	ck_assert(request_copy_out(&f.request, (struct cursor){ 0 }, f.mem,
				   want, 12));
	ck_assert(request_copy_in(&f.request, (struct cursor){ 0 }, f.mem, have,
				  12));
	ck_assert_mem_eq(have, want, 12);
	ck_assert_mem_eq(f.ram + RAM_BYTES - 5, "lo, w", 5);
	ck_assert(request_zero(&f.request, (struct cursor){ 2, 1 }, f.mem, 7));
	ck_assert_mem_eq(f.ram + RAM_BYTES - 5, "l\0\0\0\0", 5);
	ck_assert_mem_eq(f.ram + DATA + 100, "\0\0\0d", 4);
	close_fixture(&f);
}
END_TEST

static void check_copies_fail(struct fixture *f, uint64_t len)
{
	const struct cursor at = { 0 };
	unsigned char bytes[16] = { 0 };

	ck_assert(!request_copy_out(&f->request, at, f->mem, bytes, len));
	ck_assert(!request_copy_in(&f->request, at, f->mem, bytes, len));
	ck_assert(!request_zero(&f->request, at, f->mem, len));
}

START_TEST(copies_beyond_the_data_or_memory_fail)
{
	struct fixture f;

	three_segments(&f);
	check_copies_fail(&f, 13);
	f.request.chain.descs[2].addr++;
	check_copies_fail(&f, 12);
	close_fixture(&f);
}
END_TEST

START_TEST(data_is_ok_if_all_of_it_is_memory_and_of_one_direction)
{
	struct fixture f;

	three_segments(&f);
	ck_assert(request_data_ok(&f.request, f.mem, true));
	ck_assert(!request_data_ok(&f.request, f.mem, false));
	f.request.chain.descs[1].writable = false; /* of no bytes: no matter */
	ck_assert(request_data_ok(&f.request, f.mem, true));
	f.request.chain.descs[3].writable = false;
	ck_assert(!request_data_ok(&f.request, f.mem, true));
	f.request.chain.descs[3].writable = true;
	f.request.chain.descs[2].addr++;
	ck_assert(!request_data_ok(&f.request, f.mem, true));
	f.request.chain.descs[2] =
		(struct chain_desc){ UINT64_MAX - 2, 5, true };
	ck_assert(!request_data_ok(&f.request, f.mem, true));
	close_fixture(&f);
}
END_TEST

START_TEST(a_map_holds_as_many_pieces_as_were_asked_for)
{
	struct iovec iov[4];
	struct fixture f;
	int n;

	three_segments(&f);
	ck_assert_uint_eq(request_map(&f.request, (struct cursor){ 0 }, f.mem,
				      100, iov, 4, &n),
			  12);
	ck_assert_int_eq(n, 3);
	ck_assert_ptr_eq(iov[1].iov_base, f.ram + RAM_BYTES - 5);
	ck_assert_uint_eq(iov[1].iov_len, 5);
	ck_assert_uint_eq(request_map(&f.request, (struct cursor){ 2, 2 },
				      f.mem, 100, iov, 1, &n),
			  3);
	ck_assert_int_eq(n, 1);
	ck_assert_ptr_eq(iov[0].iov_base, f.ram + RAM_BYTES - 3);
	/* And no more bytes, which may end within one. */
	ck_assert_uint_eq(request_map(&f.request, (struct cursor){ 0 }, f.mem,
				      5, iov, 4, &n),
			  5);
	ck_assert_int_eq(n, 2);
	ck_assert_uint_eq(iov[1].iov_len, 2);
	close_fixture(&f);
}
END_TEST

TEST_PROGRAM("request-data", a_cursor_moves_byte_by_byte_as_in_one_go,
	     copies_go_over_segments_and_back,
	     copies_beyond_the_data_or_memory_fail,
	     data_is_ok_if_all_of_it_is_memory_and_of_one_direction,
	     a_map_holds_as_many_pieces_as_were_asked_for)
