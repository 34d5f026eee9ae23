/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What holds for any chain, on chains by chance. TEST_SEED and TEST_CASES set
 * where chance begins and how long it goes on; a failure tells its case.
 */

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "harness.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define OK VIRTIO_BLK_S_OK
#define UNSUPP VIRTIO_BLK_S_UNSUPP

#define QUEUE 256
#define LAST 250 /* the head of the flush that closes a case */
#define HEADERS 0x200000u /* a place full of good headers */

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static uint64_t seed(void)
{
	return number("TEST_SEED", 20260101);
}

static uint64_t rnd_state;

/* splitmix64 */
static uint64_t rnd(uint64_t below)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % below;
}

/* Each property and each case of it begin anew, to be run alone. */
#define for_each_case(i)                                                       \
	for (uint64_t i = 0, cases_ = number("TEST_CASES", 256);               \
	     i < cases_ && (rnd_state = seed() + i * 1000003, true); i++)

#define check(i, condition)                                                    \
	do {                                                                   \
		if (!(condition))                                              \
			ck_abort_msg("case %llu: %s", (unsigned long long)(i), \
				     #condition);                              \
	} while (0)

static void start(struct rig *rig, uint64_t features)
{
	rig_open(rig, &(struct rig_options){ .features = features,
					     .queue_size = QUEUE });
	rig_start(rig);
	for (uint32_t i = 0; i < 4096; i++)
		rig_header(rig, HEADERS + i * 16, (uint32_t)rnd(12), rnd(140));
}

/* Make head 0 available and a flush behind it; used entries until that. */
static uint16_t serve(struct rig *rig)
{
	static const uint16_t heads[] = { 0, LAST };
	const uint16_t used = rig_used_idx(rig);

	rig_chain(rig, LAST, T_FLUSH, 0, 0);
	rig_avail_all(rig, heads, 2);
	rig_kick(rig);
	ck_assert(eventually(({
		const uint16_t now = rig_used_idx(rig);

		now != used &&rig_used(rig, (uint16_t)(now - 1)).id == LAST;
	})));
	return (uint16_t)(rig_used_idx(rig) - used - 1);
}

static bool grew(const struct ktvblk_counters *from,
		 const struct ktvblk_counters *to)
{
	return to->reads_completed >= from->reads_completed &&
	       to->writes_completed >= from->writes_completed &&
	       to->flushes_completed >= from->flushes_completed &&
	       to->bytes_read >= from->bytes_read &&
	       to->bytes_written >= from->bytes_written &&
	       to->throttled_count == 0 && to->currently_throttled == 0 &&
	       to->invalid_avail_idx_count == 0 &&
	       to->io_errors >= from->io_errors;
}

/* 12.10.1 process_requests_progress_under_random_chains */
START_TEST(random_chains_are_answered_or_dropped_and_counted)
{
	struct ktvblk_counters before, after;
	struct rig rig;

	start(&rig, RIG_INDIRECT_DESC | RIG_EVENT_IDX);
	after = rig_counters(&rig);
	for_each_case(i)
	{
		const uint64_t n = 1 + rnd(200);
		uint16_t done;

		for (uint16_t d = 0; d < n; d++)
			rig_desc(&rig, d, RIG_DATA + rnd(16 << 20),
				 (uint32_t)(rnd(2) ? rnd(8 << 20)
						   : 512 * rnd(64)),
				 (uint16_t)rnd(8),
				 (uint16_t)(rnd(4) ? rnd(n) : rnd(65536)));
		/* Half of them begin well, or nothing gets far. */
		if (rnd(2))
			rig_desc(&rig, 0, HEADERS + 16 * rnd(4096), 16,
				 VRING_DESC_F_NEXT, (uint16_t)rnd(n));
		before = after;
		done = serve(&rig);
		after = rig_counters(&rig);
		check(i, done <= 1);
		check(i, grew(&before, &after));
		check(i, done || after.io_errors > before.io_errors);
		check(i, after.flushes_completed > before.flushes_completed);
	}
	rig_close(&rig);
}
END_TEST

/* Head 0: header, data, status; one used entry and a status of the three. */
static void check_completes(struct rig *rig, uint64_t i,
			    const struct rig_part *parts)
{
	uint8_t *status = rig_chain_status(rig, 0);

	*status = SENTINEL;
	rig_parts(rig, 0, parts, 3);
	check(i, serve(rig) == 1);
	check(i, *status <= UNSUPP);
}

/* 12.10.2 random_header_addr_either_succeeds_or_ioerrs */
START_TEST(random_header_addresses_succeed_or_fail)
{
	struct rig rig;

	start(&rig, 0);
	for_each_case(i)
	{
		const struct rig_part parts[] = {
			{ rnd(2) ? rnd(16 << 20) : HEADERS + rnd(65520), 16,
			  READABLE },
			{ RIG_DATA, 512, WRITABLE },
			{ RIG_STATUS, 1, WRITABLE },
		};

		check_completes(&rig, i, parts);
	}
	rig_close(&rig);
}
END_TEST

/* 12.10.3 random_data_len_either_succeeds_or_ioerrs */
START_TEST(random_data_lengths_succeed_or_fail)
{
	struct rig rig;

	start(&rig, 0);
	for_each_case(i)
	{
		const struct rig_part parts[] = {
			{ RIG_HEADER, 16, READABLE },
			{ RIG_DATA + rnd(1 << 20),
			  (uint32_t)(rnd(2) ? rnd(UINT32_MAX - 16)
					    : 512 * rnd(300)),
			  (uint16_t)rnd(2) * WRITABLE },
			{ RIG_STATUS, 1, WRITABLE },
		};

		rig_header(&rig, RIG_HEADER, (uint32_t)rnd(9), rnd(130));
		check_completes(&rig, i, parts);
	}
	rig_close(&rig);
}
END_TEST

/* 12.10.4 random_flags_either_succeeds_or_ioerrs, INDIRECT or not */
START_TEST(random_flags_are_answered_or_dropped)
{
	struct ktvblk_counters before;
	struct rig rig;

	for (int indirect = 0; indirect < 2; indirect++) {
		start(&rig, indirect ? RIG_INDIRECT_DESC : 0);
		for_each_case(i)
		{
			uint16_t done;

			rig_header(&rig, RIG_HEADER, (uint32_t)rnd(9),
				   rnd(130));
			rig_desc(&rig, 0, RIG_HEADER, 16, VRING_DESC_F_NEXT, 1);
			rig_desc(&rig, 1, RIG_DATA, (uint32_t)(512 * rnd(9)),
				 (uint16_t)rnd(16), 2);
			rig_desc(&rig, 2, RIG_STATUS, 1, VRING_DESC_F_WRITE, 0);
			before = rig_counters(&rig);
			done = serve(&rig);
			check(i, done <= 1);
			check(i, done || rig_counters(&rig).io_errors >
						 before.io_errors);
		}
		rig_close(&rig);
	}
}
END_TEST

/* 12.10.5 throttle_stall_under_random_chain_shapes_holds_invariants */
START_TEST(without_tokens_random_shapes_are_refused_or_wait_untouched)
{
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config.throttle.iops = 1 });
	/* Drained, and the clock stopped; a reset changes neither. */
	rig_drain_throttle(&rig, now_ns() + 3600 * NSEC_PER_SEC);
	for_each_case(i)
	{
		const struct ktvblk_counters before = rig_counters(&rig);
		const uint32_t type = (uint32_t)rnd(10);
		struct ktvblk_counters after;

		rig_start(&rig);
		rig_chain(&rig, 0, type, rnd(200),
			  (uint32_t)(rnd(4) ? 512 * rnd(20) : rnd(2000)));
		rig_avail(&rig, 0);
		rig_kick(&rig);
		ck_assert(eventually(({
			after = rig_counters(&rig);
			after.throttled_count > before.throttled_count ||
				rig_used_idx(&rig) == 1;
		})));
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		after = rig_counters(&rig);
		if (after.throttled_count > before.throttled_count) {
			check(i, rig_used_idx(&rig) == 0);
			check(i, *rig_chain_status(&rig, 0) == SENTINEL);
			check(i, after.currently_throttled == 1);
			check(i, after.io_errors == before.io_errors);
			check(i, rig_irqs(&rig) == 0);
		} else {
			check(i, rig_used_idx(&rig) == 1);
			check(i, *rig_chain_status(&rig, 0) != OK);
			check(i, after.currently_throttled == 0);
		}
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		rig_reset(&rig);
		check(i, rig_counters(&rig).currently_throttled == 0);
	}
	check(0, rig_counters(&rig).throttled_count > 0);
	check(0, storage_calls(rig.storage, OP_READ) == 0);
	check(0, storage_calls(rig.storage, OP_WRITE) == 0);
	rig_close(&rig);
}
END_TEST

/* len bytes in pieces of any size, each somewhere else; how many pieces. */
static size_t cut(struct rig_part *parts, uint64_t len, uint64_t place,
		  uint16_t flags)
{
	size_t n = 0;
	uint64_t piece;

	do {
		piece = rnd(rnd(2) ? 1500 : 20);
		/* The last one takes all that is left. */
		if (piece > len || n == 24)
			piece = len;
		parts[n++] = (struct rig_part){ place, (uint32_t)piece, flags };
		place += piece + 1 + rnd(100);
		len -= piece;
	} while (len || (n < 25 && rnd(4) == 0));
	return n;
}

/* Byte i of what the pieces hold, one after another. */
static uint8_t *piece_byte(struct rig *rig, const struct rig_part *parts,
			   uint64_t i)
{
	while (i >= parts->len)
		i -= (parts++)->len;
	return (uint8_t *)rig_at(rig, parts->addr + i);
}

/* Section 2.7.4: where descriptors end means nothing. Firecracker #857 */
START_TEST(a_request_cut_anyhow_is_the_same_request)
{
	struct rig rig;

	start(&rig, 0);
	for_each_case(i)
	{
		const uint32_t type = rnd(2) ? T_IN : T_OUT;
		const uint64_t len = 512 * (1 + rnd(20)), sector = rnd(100);
		const uint64_t out = type == T_OUT ? len : 0, in = len - out;
		struct rig_part parts[50], *last;
		size_t n_out, n;

		n_out = cut(parts, 16 + out, RIG_DATA, READABLE);
		n = n_out +
		    cut(parts + n_out, in + 1, RIG_DATA + 0x20000, WRITABLE);
		last = parts + n_out;
		rig_header(&rig, RIG_HEADER, type, sector);
		for (uint64_t b = 0; b < 16; b++)
			*piece_byte(&rig, parts, b) =
				*(uint8_t *)rig_at(&rig, RIG_HEADER + b);
		for (uint64_t b = 0; b < out; b++)
			*piece_byte(&rig, parts, 16 + b) = (uint8_t)(b * 5 + i);
		*piece_byte(&rig, last, in) = SENTINEL;
		rig_parts(&rig, 0, parts, n);
		check(i, rig_serve(&rig, 0) == in + 1);
		check(i, *piece_byte(&rig, last, in) == OK);
		for (uint64_t b = 0; b < len; b++) {
			const uint8_t have =
				rig.storage->bytes[sector * 512 + b];

			check(i, have == (out ? (uint8_t)(b * 5 + i)
					      : *piece_byte(&rig, last, b)));
		}
	}
	rig_close(&rig);
}
END_TEST

/* Rings and all: whatever the bytes, the device stays in the VMM's hands. */
START_TEST(random_memory_never_takes_the_device_away)
{
	struct pollfd kick = { .events = POLLIN };
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = RIG_INDIRECT_DESC |
							  RIG_EVENT_IDX });
	kick.fd = ktvblk_kick_fd(rig.dev);
	for_each_case(i)
	{
		uint64_t start_ns;

		rig_prepare(&rig);
		for (uint64_t at = 0; at < RIG_DATA; at += 8)
			*(uint64_t *)rig_at(&rig, at) = rnd(UINT64_MAX);
		for (uint16_t d = 0; d < 512; d++)
			(rnd(2) ? rig_desc : rig_indirect)(
				&rig, d, rnd(RIG_RAM_BYTES + 0x1000),
				(uint32_t)(rnd(2) ? 16 * rnd(64) : rnd(70000)),
				(uint16_t)rnd(8), (uint16_t)rnd(17));
		for (uint64_t h = 0; h < 0x1000; h += 16)
			rig_header(&rig, RIG_HEADER + h, (uint32_t)rnd(9),
				   rnd(130));
		for (uint64_t slot = 0; slot < 16; slot++)
			*(uint16_t *)rig_at(&rig, RIG_AVAIL + 4 + 2 * slot) =
				(uint16_t)rnd(17);
		rig_set_avail_idx(&rig, (uint16_t)rnd(18));
		rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
		rig_kick(&rig);
		/* Read behind the first drain. */
		ck_assert(eventually(poll(&kick, 1, 0) == 0));
		start_ns = clock_start();
		rig_reset(&rig);
		check(i, rig_status(&rig) == 0);
		check(i, ms_since(start_ns) < bound_ms(2000));
	}
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_close(&rig);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		random_chains_are_answered_or_dropped_and_counted,
		random_header_addresses_succeed_or_fail,
		random_data_lengths_succeed_or_fail,
		random_flags_are_answered_or_dropped,
		without_tokens_random_shapes_are_refused_or_wait_untouched,
		a_request_cut_anyhow_is_the_same_request,
		random_memory_never_takes_the_device_away,
	};

	printf("TEST_SEED=%llu\n", (unsigned long long)seed());
	return run_tests("property", tests, ARRAY_SIZE(tests));
}
