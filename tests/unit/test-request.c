/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gates, by direct calls: what a chain means, in bytes whatever its
 * descriptors; and which gate answers, the first that has something to say.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "harness.h"
#include "journal.h"
#include "recorder.h"
#include "request.h"

#define RAM_BYTES 0x400000u
#define HEADER 0x8000u
#define DATA 0x10000u
#define STATUS 0x9000u
#define NOWHERE 0x10000000u

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define T_GET_ID VIRTIO_BLK_T_GET_ID
#define T_ODD 0xbeefu

#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP

#define R(a, l)                                                                \
	{                                                                      \
		(a), (l), false                                                \
	}
#define W(a, l)                                                                \
	{                                                                      \
		(a), (l), true                                                 \
	}

struct fixture {
	unsigned char *ram;
	struct ktvblk_mem *mem;
	struct virtqueue vq;
	struct identity id;
	struct ktvblk_stats *stats;
	struct recorder rec;
	struct range ranges[RANGES_MAX];
	struct request_rules rules;
	struct request request;
	uint8_t status;
};

static void open_fixture(struct fixture *f)
{
	struct ktvblk_region region = { .size = RAM_BYTES };

	memset(f, 0, sizeof(*f));
	ck_assert_int_eq(log_ref(), 0);
	recorder_start(&f->rec);
	f->ram = aligned_alloc(4096, RAM_BYTES);
	ck_assert_ptr_nonnull(f->ram);
	memset(f->ram, 0, RAM_BYTES);
	region.host_addr = f->ram;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, NULL, NULL, &f->mem), 0);
	f->vq.mem = f->mem;
	f->vq.ring.size = 256;
	f->request.chain.descs = malloc(CHAIN_BYTES);
	ck_assert_ptr_nonnull(f->request.chain.descs);
	f->request.ranges = f->ranges;
	f->id.disk = disk_id_new(NULL, 128);
	f->stats = stats_new();
}

static void close_fixture(struct fixture *f)
{
	recorder_stop(&f->rec);
	log_unref(now_ns() + WAIT_MS * NSEC_PER_MSEC);
	ktvblk_stats_unref(f->stats);
	disk_id_unref(f->id.disk);
	ktvblk_mem_unref(f->mem);
	free(f->request.chain.descs);
	free(f->ram);
}

static void put_header(struct fixture *f, uint64_t addr, uint32_t type,
		       uint64_t sector)
{
	const struct virtio_blk_outhdr header = {
		.type = htole32(type),
		.sector = htole64(sector),
	};

	memcpy(f->ram + addr, &header, sizeof(header));
}

static void put_chain(struct fixture *f, const struct chain_desc *descs,
		      unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const struct vring_desc desc = {
			.addr = htole64(descs[i].addr),
			.len = htole32(descs[i].len),
			.flags = htole16((
				uint16_t)((descs[i].writable ? VRING_DESC_F_WRITE
							     : 0) |
					  (i + 1 < n ? VRING_DESC_F_NEXT : 0))),
			.next = htole16((uint16_t)(i + 1)),
		};

		memcpy(f->ram + i * sizeof(desc), &desc, sizeof(desc));
	}
}

static enum request_action read_it(struct fixture *f, bool read_only)
{
	f->status = 0xee;
	f->rules.read_only = read_only;
	return request_read(&f->request, &f->vq, &f->rules, &f->id, f->stats,
			    &f->status);
}

#define ck_assert_action(f, want, ...)                                         \
	do {                                                                   \
		const struct chain_desc descs_[] = { __VA_ARGS__ };            \
                                                                               \
		put_chain(f, descs_, ARRAY_SIZE(descs_));                      \
		ck_assert_int_eq(read_it(f, false), want);                     \
	} while (0)

#define ck_assert_refused(f, record, ...)                                      \
	do {                                                                   \
		ck_assert_action(f, REQUEST_COMPLETE, __VA_ARGS__);            \
		ck_assert_uint_eq((f)->status, IOERR);                         \
		recorder_wait(&(f)->rec, record);                              \
	} while (0)

static void check_seg(const struct fixture *f, unsigned int i, uint64_t addr,
		      uint32_t len, bool writable)
{
	ck_assert_uint_lt(i, f->request.n_segs);
	ck_assert_uint_eq(f->request.chain.descs[i].addr, addr);
	ck_assert_uint_eq(f->request.chain.descs[i].len, len);
	ck_assert_int_eq(f->request.chain.descs[i].writable, writable);
}

/*
 * Framing
 */

START_TEST(the_usual_shape)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_IN, 7);
	ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 16), W(DATA, 512),
			 W(DATA + 4096, 1024), W(STATUS, 1));
	ck_assert_uint_eq(f.request.type, T_IN);
	ck_assert_uint_eq(f.request.sector, 7);
	ck_assert_uint_eq(f.request.data_len, 1536);
	ck_assert_uint_eq(f.request.n_segs, 2);
	check_seg(&f, 0, DATA, 512, true);
	check_seg(&f, 1, DATA + 4096, 1024, true);
	ck_assert_uint_eq(f.request.status_addr, STATUS);
	ck_assert(f.request.well_formed);
	close_fixture(&f);
}
END_TEST

/* 12.9.11: the reference does not join it and answers IOERR. */
START_TEST(changed_fragmented_header_is_accepted)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_IN, 7);
	memcpy(f.ram + DATA, f.ram + HEADER + 8, 8);
	memset(f.ram + HEADER + 8, 0xff, 8);
	ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 8), R(DATA, 8),
			 W(DATA + 4096, 512), W(STATUS, 1));
	ck_assert_uint_eq(f.request.type, T_IN);
	ck_assert_uint_eq(f.request.sector, 7);
	ck_assert_uint_eq(f.request.n_segs, 1);
	close_fixture(&f);
}
END_TEST

/* 12.5.11, as far as it goes: 8 bytes in all are no header. */
START_TEST(changed_header_of_sixteen_single_bytes_is_accepted)
{
	struct chain_desc descs[18];
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_OUT, 0x0102030405060708);
	for (unsigned int i = 0; i < 16; i++)
		descs[i] = (struct chain_desc)R(HEADER + i, 1);
	descs[16] = (struct chain_desc)R(DATA, 512);
	descs[17] = (struct chain_desc)W(STATUS, 1);
	put_chain(&f, descs, 18);
	ck_assert_int_eq(read_it(&f, false), REQUEST_SERVE);
	ck_assert_uint_eq(f.request.sector, 0x0102030405060708);
	ck_assert_uint_eq(f.request.n_segs, 1);
	close_fixture(&f);
}
END_TEST

START_TEST(changed_header_and_data_in_one_descriptor_are_accepted)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_OUT, 7);
	ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 16 + 512), W(STATUS, 1));
	ck_assert_uint_eq(f.request.n_segs, 1);
	check_seg(&f, 0, HEADER + 16, 512, false);
	close_fixture(&f);
}
END_TEST

START_TEST(changed_status_in_the_last_data_descriptor_is_accepted)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_IN, 7);
	ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 16), W(DATA, 513));
	ck_assert_uint_eq(f.request.n_segs, 1);
	check_seg(&f, 0, DATA, 512, true);
	ck_assert_uint_eq(f.request.status_addr, DATA + 512);
	close_fixture(&f);
}
END_TEST

/* Changed: the reference refuses those above SIZE_MAX, which it offers. */
START_TEST(changed_segments_of_any_size_are_accepted)
{
	static const uint32_t sizes[] = { 1 << 20, (1 << 20) + 512, 8 << 20,
					  UINT32_MAX - 511 - 512 };
	struct fixture f;

	open_fixture(&f);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		put_header(&f, HEADER, T_IN, 7);
		ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 16),
				 W(DATA, sizes[i]), W(STATUS, 1));
		ck_assert_uint_eq(f.request.data_len, sizes[i]);
		put_header(&f, HEADER, T_OUT, 7);
		ck_assert_action(&f, REQUEST_SERVE, R(HEADER, 16),
				 R(DATA, sizes[i]), W(STATUS, 1));
		ck_assert_uint_eq(f.request.data_len, sizes[i]);
	}
	close_fixture(&f);
}
END_TEST

START_TEST(zero_length_descriptors_hold_neither_header_nor_status)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_IN, 7);
	ck_assert_action(&f, REQUEST_SERVE, R(NOWHERE, 0), R(HEADER, 16),
			 R(NOWHERE, 0), W(NOWHERE, 0), W(DATA, 512),
			 W(NOWHERE, 0), W(STATUS, 1), W(NOWHERE, 0),
			 W(NOWHERE, 0));
	ck_assert_uint_eq(f.request.status_addr, STATUS);
	ck_assert_uint_eq(f.request.data_len, 512);
	close_fixture(&f);
}
END_TEST

START_TEST(a_chain_without_a_writable_byte_is_dropped)
{
	struct fixture f;

	open_fixture(&f);
	ck_assert_action(&f, REQUEST_DROP, R(HEADER, 16));
	ck_assert_action(&f, REQUEST_DROP, R(HEADER, 16), R(STATUS, 1));
	ck_assert_action(&f, REQUEST_DROP, R(HEADER, 16), W(STATUS, 0));
	ck_assert_action(&f, REQUEST_DROP, R(HEADER, 0));
	ck_assert_uint_eq(f.stats->io_errors, 4);
	ck_assert_uint_eq(f.status, 0xee);
	recorder_wait_n(&f.rec, KTVBLK_MESSAGE_CHAIN_NO_STATUS, 4);
	close_fixture(&f);
}
END_TEST

START_TEST(a_status_whose_address_overflows_is_dropped)
{
	struct fixture f;

	open_fixture(&f);
	ck_assert_action(&f, REQUEST_DROP, R(HEADER, 16), W(UINT64_MAX, 2));
	recorder_wait(&f.rec, KTVBLK_MESSAGE_CHAIN_NO_STATUS);
	/* The last byte there is, is an address; it is not in memory. */
	ck_assert_action(&f, REQUEST_COMPLETE, R(HEADER, 16), W(UINT64_MAX, 1));
	ck_assert_uint_eq(f.request.status_addr, UINT64_MAX);
	close_fixture(&f);
}
END_TEST

/* 12.8.11: of a 4-byte status only byte 3 is the status. */
START_TEST(changed_multi_byte_status_is_data_and_a_status)
{
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_FLUSH, 0);
	ck_assert_refused(&f, KTVBLK_MESSAGE_FLUSH_WITH_DATA, R(HEADER, 16),
			  W(STATUS, 4));
	ck_assert_uint_eq(f.request.status_addr, STATUS + 3);
	put_header(&f, HEADER, T_IN, 0);
	ck_assert_refused(&f, KTVBLK_MESSAGE_DATA_NOT_SECTORS, R(HEADER, 16),
			  W(DATA, 512), W(STATUS, 4));
	ck_assert_uint_eq(f.request.status_addr, STATUS + 3);
	close_fixture(&f);
}
END_TEST

START_TEST(a_chain_of_writable_bytes_only_has_no_header)
{
	struct fixture f;

	open_fixture(&f);
	ck_assert_refused(&f, KTVBLK_MESSAGE_HEADER_INVALID, W(STATUS, 1));
	ck_assert_refused(&f, KTVBLK_MESSAGE_HEADER_INVALID, W(HEADER, 16),
			  W(STATUS, 1));
	ck_assert_uint_eq(f.stats->io_errors, 2);
	close_fixture(&f);
}
END_TEST

/* Changed: the reference drops what has more than 130 descriptors. */
START_TEST(changed_a_chain_as_long_as_the_queue_fits)
{
	struct chain_desc descs[256];
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_IN, 0);
	descs[0] = (struct chain_desc)R(HEADER, 16);
	for (unsigned int i = 1; i < 255; i++)
		descs[i] = (struct chain_desc)W(DATA + 512 * i, 512);
	descs[255] = (struct chain_desc)W(STATUS, 1);
	put_chain(&f, descs, 256);
	ck_assert_int_eq(read_it(&f, false), REQUEST_SERVE);
	ck_assert_uint_eq(f.request.n_segs, 254);
	check_seg(&f, 0, DATA + 512, 512, true);
	check_seg(&f, 253, DATA + 512 * 254, 512, true);
	ck_assert_uint_eq(f.request.status_addr, STATUS);
	close_fixture(&f);
}
END_TEST

/*
 * Gates
 */

struct gate_case {
	const char *what;
	uint32_t type;
	bool read_only;
	enum request_action action;
	uint8_t status;
	unsigned int io_errors;
	const char *record; /* NULL: none at all */
	unsigned int n;
	struct chain_desc descs[6];
};

#define H R(HEADER, 16)
#define S W(STATUS, 1)
#define BIG (9u << 20)

#define SERVED REQUEST_SERVE, IOERR, 0, NULL
#define DROPPED(record) REQUEST_DROP, 0xee, 1, record
#define REFUSED(record) REQUEST_COMPLETE, IOERR, 1, record
#define ANSWERED(status) REQUEST_COMPLETE, status, 0, NULL

#define M(name) KTVBLK_MESSAGE_##name

/* clang-format off */
static const struct gate_case gate_cases[] = {
{ "read", T_IN, 0, SERVED, 3, { H, W(DATA, 512), S } },
{ "write", T_OUT, 0, SERVED, 3, { H, R(DATA, 512), S } },
{ "flush", T_FLUSH, 0, SERVED, 2, { H, S } },
/* 12.7.1 classify_get_id: the gates leave it to its handler, read-only or not */
{ "get id", T_GET_ID, 0, SERVED, 3, { H, W(DATA, 20), S } },
{ "read on read-only", T_IN, 1, SERVED, 3, { H, W(DATA, 512), S } },
{ "get id on read-only", T_GET_ID, 1, SERVED, 3, { H, W(DATA, 20), S } },
{ "a data length of zero", T_IN, 0, SERVED, 3, { H, W(DATA, 0), S } },
/* a flaw in the middle of a chain that has its end and its status */
{ "data behind the status", T_OUT, 0, REFUSED(M(CHAIN_REFUSED)),
  3, { H, S, R(DATA, 512) } },
{ "header behind a status", T_FLUSH, 0, REFUSED(M(CHAIN_REFUSED)),
  3, { W(DATA, 1), H, S } },
{ "more than 4 GiB", T_IN, 0, REFUSED(M(CHAIN_REFUSED)),
  4, { H, W(DATA, UINT32_MAX), W(DATA, 512), S } },
{ "more than 4 GiB, read-only, nowhere", T_OUT, 1, REFUSED(M(CHAIN_REFUSED)),
  4, { R(NOWHERE, 16), R(DATA, UINT32_MAX), R(DATA, 512), S } },
{ "a flaw, no status", T_OUT, 0, DROPPED(M(CHAIN_NO_STATUS)),
  3, { H, W(STATUS, 0), R(DATA, 512) } },
/* gate 2 comes before 3 */
{ "no status, short header", T_IN, 0, DROPPED(M(CHAIN_NO_STATUS)),
  2, { R(HEADER, 8), R(STATUS, 1) } },
{ "no status, header nowhere", T_IN, 0, DROPPED(M(CHAIN_NO_STATUS)),
  2, { R(NOWHERE, 16), W(STATUS, 0) } },
{ "no status, big segment", T_OUT, 0, DROPPED(M(CHAIN_NO_STATUS)),
  2, { H, R(DATA, BIG) } },
/* 3 before the rest */
{ "short header", T_IN, 0, REFUSED(M(HEADER_INVALID)),
  3, { R(HEADER, 15), W(DATA, 512), S } },
{ "short header, nowhere", T_IN, 0, REFUSED(M(HEADER_INVALID)),
  3, { R(NOWHERE, 15), W(DATA, 512), S } },
{ "short header, big segment", T_IN, 0, REFUSED(M(HEADER_INVALID)),
  3, { R(HEADER, 8), W(DATA, BIG), S } },
{ "short header, read-only write", T_OUT, 1, REFUSED(M(HEADER_INVALID)),
  2, { R(HEADER, 8), S } },
/* 4 */
{ "header nowhere", T_IN, 0, REFUSED(M(HEADER_UNREADABLE)),
  3, { R(NOWHERE, 16), W(DATA, 512), S } },
{ "half the header nowhere", T_IN, 0, REFUSED(M(HEADER_UNREADABLE)),
  3, { R(RAM_BYTES - 8, 16), W(DATA, 512), S } },
{ "header nowhere, big segment", T_IN, 0, REFUSED(M(HEADER_UNREADABLE)),
  3, { R(NOWHERE, 16), W(DATA, BIG), S } },
/* 5 is none any more: the size of a segment is nobody's business */
{ "big segment, read", T_IN, 0, SERVED, 3, { H, W(DATA, BIG), S } },
{ "big segment, write", T_OUT, 0, SERVED, 3, { H, R(DATA, BIG), S } },
/* 6 */
{ "read nothing", T_IN, 0, REFUSED(M(DATA_MISSING)), 2, { H, S } },
{ "write nothing", T_OUT, 0, REFUSED(M(DATA_MISSING)), 2, { H, S } },
{ "id into nothing", T_GET_ID, 0, REFUSED(M(DATA_MISSING)), 2, { H, S } },
{ "write nothing, read-only", T_OUT, 1, REFUSED(M(DATA_MISSING)),
  2, { H, S } },
/* 7: before read-only makes a flush trivial */
{ "flush with data", T_FLUSH, 0, REFUSED(M(FLUSH_WITH_DATA)),
  3, { H, W(DATA, 512), S } },
{ "flush with data of no bytes", T_FLUSH, 0, REFUSED(M(FLUSH_WITH_DATA)),
  3, { H, R(DATA, 0), S } },
{ "flush with data, read-only", T_FLUSH, 1, REFUSED(M(FLUSH_WITH_DATA)),
  3, { H, R(DATA, 512), S } },
/* 8 */
{ "read 513", T_IN, 0, REFUSED(M(DATA_NOT_SECTORS)),
  3, { H, W(DATA, 513), S } },
{ "write 511 and 2", T_OUT, 0, REFUSED(M(DATA_NOT_SECTORS)),
  4, { H, R(DATA, 511), R(DATA, 2), S } },
{ "read 300 and 212", T_IN, 0, SERVED,
  4, { H, W(DATA, 300), W(DATA, 212), S } },
{ "odd length, wrong direction", T_IN, 0, REFUSED(M(DATA_NOT_SECTORS)),
  3, { H, R(DATA, 513), S } },
{ "odd length, read-only", T_OUT, 1, REFUSED(M(DATA_NOT_SECTORS)),
  3, { H, R(DATA, 513), S } },
/* 9 to 11 */
{ "read-only write", T_OUT, 1, REFUSED(NULL), 3, { H, R(DATA, 512), S } },
{ "read-only write, wrong direction", T_OUT, 1, REFUSED(NULL),
  3, { H, W(DATA, 512), S } },
{ "read-only flush", T_FLUSH, 1, ANSWERED(OK), 2, { H, S } },
{ "unknown", T_ODD, 0, ANSWERED(UNSUPP), 2, { H, S } },
{ "unknown, read-only", T_ODD, 1, ANSWERED(UNSUPP), 2, { H, S } },
{ "unknown, both directions", T_ODD, 0, ANSWERED(UNSUPP),
  4, { H, R(DATA, 5), W(DATA, 6), S } },
/* 12 */
{ "read into readable", T_IN, 0, REFUSED(M(DATA_DIRECTION)),
  3, { H, R(DATA, 512), S } },
{ "read, one segment readable", T_IN, 0, REFUSED(M(DATA_DIRECTION)),
  4, { H, R(DATA, 512), W(DATA, 512), S } },
{ "read, header too long by a sector", T_IN, 0, REFUSED(M(DATA_DIRECTION)),
  3, { R(HEADER, 16 + 512), W(DATA, 512), S } },
{ "write from writable", T_OUT, 0, REFUSED(M(DATA_DIRECTION)),
  3, { H, W(DATA, 512), S } },
{ "id into readable", T_GET_ID, 0, REFUSED(M(DATA_DIRECTION)),
  3, { H, R(DATA, 20), S } },
};
/* clang-format on */

static void check_gate(const struct gate_case *c)
{
	struct ktvblk_counters counters;
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, c->type, 1);
	put_chain(&f, c->descs, c->n);
	ck_assert_msg(read_it(&f, c->read_only) == c->action, "%s", c->what);
	ck_assert_msg(f.status == c->status, "%s: %u", c->what, f.status);
	ktvblk_stats_read(f.stats, &counters, sizeof(counters));
	ck_assert_msg(counters.io_errors == c->io_errors, "%s", c->what);
	ck_assert_msg(counters.flushes_completed ==
			      (c->action == REQUEST_COMPLETE && !f.status),
		      "%s", c->what);
	ck_assert_msg(recorder_count(&f.rec, NULL) == (c->record ? 1 : 0), "%s",
		      c->what);
	if (c->record)
		ck_assert_msg(recorder_find(&f.rec, c->record), "%s", c->what);
	close_fixture(&f);
}

START_TEST(the_first_gate_answers)
{
	for (size_t i = 0; i < ARRAY_SIZE(gate_cases); i++)
		check_gate(&gate_cases[i]);
}
END_TEST

/* A record of a gate says which head, and what was wrong with it. */
START_TEST(records_tell_the_facts)
{
	const struct kept_record *r;
	struct fixture f;

	open_fixture(&f);
	put_header(&f, HEADER, T_OUT, 0);
	ck_assert_refused(&f, M(DATA_NOT_SECTORS), H, R(DATA, 513), S);
	r = recorder_find(&f.rec, M(DATA_NOT_SECTORS));
	ck_assert_uint_eq(kept_number(r, "KTVBLK_HEAD"), 0);
	ck_assert_uint_eq(kept_number(r, "KTVBLK_LENGTH"), 513);
	ck_assert_str_eq(kept_field(r, "KTVBLK_REQ_TYPE"), "out");
	put_header(&f, HEADER, T_FLUSH, 0);
	ck_assert_refused(&f, M(FLUSH_WITH_DATA), H, R(DATA, 1), R(DATA, 1), S);
	r = recorder_find(&f.rec, M(FLUSH_WITH_DATA));
	ck_assert_uint_eq(kept_number(r, "KTVBLK_SEG_COUNT"), 2);
	f.request.head = 256;
	ck_assert_action(&f, REQUEST_DROP, H);
	r = recorder_wait(&f.rec, M(CHAIN_MALFORMED));
	ck_assert_uint_eq(kept_number(r, "KTVBLK_HEAD"), 256);
	ck_assert_str_eq(kept_field(r, "KTVBLK_REASON"),
			 "descriptor index out of range");
	close_fixture(&f);
}
END_TEST

TEST_PROGRAM("request", the_usual_shape, changed_fragmented_header_is_accepted,
	     changed_header_of_sixteen_single_bytes_is_accepted,
	     changed_header_and_data_in_one_descriptor_are_accepted,
	     changed_status_in_the_last_data_descriptor_is_accepted,
	     changed_segments_of_any_size_are_accepted,
	     zero_length_descriptors_hold_neither_header_nor_status,
	     a_chain_without_a_writable_byte_is_dropped,
	     a_status_whose_address_overflows_is_dropped,
	     changed_multi_byte_status_is_data_and_a_status,
	     a_chain_of_writable_bytes_only_has_no_header,
	     changed_a_chain_as_long_as_the_queue_fits, the_first_gate_answers,
	     records_tell_the_facts)
