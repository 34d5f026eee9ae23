/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What was looked at has changed when it is looked at again: two threads of
 * the guest's write descriptors, tables, the avail ring and headers while the
 * worker reads them. Whatever it makes of them, it stays in guest memory, which
 * has pages nobody can touch around it; what it says it wrote can be; resets
 * are quick, and in the end the device serves.
 */

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "harness.h"
#include "rig.h"
#include "wedge.h"

#define QUEUE 16u
#define HEADS 4u /* of the driver's requests, four descriptors for each */
#define RUN_MS 1200u
#define ROUND_MS 15u
#define LOW_END 0x20000u
#define HIGH 0x40000u
#define HIGH_END 0x50000u

/*
 * That a guest changes data while they are copied is its own affair, and so it
 * is with memory that it calls data. Of the rest each race is one too many.
 */
__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^mem_read$\nrace:^mem_zero$\n"
	       "race:^mem_write$\nrace:^mem_write_byte$\n"
	       "race:^request_copy_in$\nrace:^request_copy_out$\n"
	       "race:^storage_preadv$\nrace:^storage_pwritev$\n";
}

struct racer {
	struct rig *rig;
	pthread_t thread;
	uint64_t rnd;
	uint64_t writes;
};

/* Held for writing while the driver sets up, and nobody else may write. */
static pthread_rwlock_t set_up = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic bool over;
static _Atomic uint16_t driver_idx;

static uint64_t rnd(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % below;
}

static void put16(struct rig *rig, uint64_t addr, uint64_t value)
{
	__atomic_store_n((uint16_t *)rig_at(rig, addr),
			 htole16((uint16_t)value), __ATOMIC_RELAXED);
}

/* In halves, quarters, bytes that the worker may see one by one. */
static void put(struct rig *rig, uint64_t addr, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 2)
		put16(rig, addr + i, value >> 8 * i);
}

static void put_desc(struct rig *rig, uint64_t at, uint64_t addr, uint32_t len,
		     uint16_t flags, uint16_t next)
{
	put(rig, at, addr, 8);
	put(rig, at + 8, len, 4);
	put(rig, at + 12, flags, 2);
	put(rig, at + 14, next, 2);
}

static uint64_t any_addr(uint64_t *state)
{
	static const uint64_t places[] = {
		RIG_DATA,
		RIG_DATA + 8,
		LOW_END - 512,
		LOW_END - 16,
		LOW_END - 1,
		LOW_END,
		HIGH,
		HIGH + 0x1000,
		HIGH - 1,
		HIGH_END - 16,
		HIGH_END - 4096,
		HIGH_END - 1,
		HIGH_END,
		RIG_HEADER,
		RIG_HEADER + 16,
		RIG_INDIRECT,
		RIG_INDIRECT,
		UINT64_MAX,
		UINT64_MAX - 15,
		0,
	};

	return places[rnd(state, ARRAY_SIZE(places))];
}

static uint32_t any_len(uint64_t *state)
{
	/* None that reaches the used ring, not even in halves: see check_used(). */
	static const uint32_t lens[] = { 0,    1,	16,  17,	20,
					 48,   64,	512, 513,	512,
					 4096, 1 << 20, 512, 0xffff0200 };

	return lens[rnd(state, ARRAY_SIZE(lens))];
}

static uint64_t any_flags(uint64_t *state)
{
	static const uint16_t flags[] = { 0,
					  VRING_DESC_F_NEXT,
					  VRING_DESC_F_NEXT,
					  VRING_DESC_F_WRITE,
					  VRING_DESC_F_NEXT |
						  VRING_DESC_F_WRITE,
					  VRING_DESC_F_INDIRECT,
					  UINT16_MAX };

	return flags[rnd(state, ARRAY_SIZE(flags))];
}

static void change_descriptor(struct racer *racer)
{
	uint64_t *state = &racer->rnd;
	const uint64_t table = rnd(state, 3) ? RIG_DESC : RIG_INDIRECT;
	const uint64_t at = table + 16 * rnd(state, QUEUE);

	switch (rnd(state, 4)) {
	case 0:
		put(racer->rig, at, any_addr(state), 8);
		break;
	case 1:
		put(racer->rig, at + 8, any_len(state), 4);
		break;
	case 2:
		put(racer->rig, at + 12, any_flags(state), 2);
		break;
	case 3:
		put(racer->rig, at + 14, rnd(state, QUEUE + 2), 2);
		break;
	}
}

static void change_avail(struct racer *racer)
{
	uint64_t *state = &racer->rnd;
	uint64_t idx = driver_idx;

	if (rnd(state, 4)) {
		put(racer->rig, RIG_AVAIL + 4 + 2 * rnd(state, QUEUE),
		    rnd(state, QUEUE + 1), 2);
		return;
	}
	/* Seldom one that ends the session. */
	idx += rnd(state, 2000) ? rnd(state, 3) : QUEUE + 50;
	put(racer->rig, RIG_AVAIL + 2, idx, 2);
}

static void change_header(struct racer *racer)
{
	const uint64_t at = RIG_HEADER + 16 * rnd(&racer->rnd, HEADS);

	if (rnd(&racer->rnd, 2))
		put(racer->rig, at, rnd(&racer->rnd, 10), 4);
	else
		put(racer->rig, at + 8, rnd(&racer->rnd, 4) * 43, 8);
}

static void *race(void *arg)
{
	struct racer *racer = (struct racer *)arg;

	while (!over) {
		pthread_rwlock_rdlock(&set_up);
		for (int i = 0; i < 200; i++, racer->writes++)
			switch (rnd(&racer->rnd, 8)) {
			case 0:
				change_avail(racer);
				break;
			case 1:
				change_header(racer);
				break;
			default:
				change_descriptor(racer);
			}
		pthread_rwlock_unlock(&set_up);
		/* So that the driver gets it, and the worker a processor. */
		sched_yield();
	}
	return NULL;
}

/* Header, two segments, status; every other one in a table. */
static void put_request(struct rig *rig, uint16_t n, uint32_t type)
{
	const uint64_t table = n & 1 ? RIG_INDIRECT : RIG_DESC;
	const uint16_t way = type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE;
	const uint16_t at = (uint16_t)(4 * n);
	const uint16_t first = n & 1 ? 0 : at; /* a table begins at 0 */
	const uint64_t to = n & 1 ? table : RIG_DESC + at * 16u;
	const uint16_t next = VRING_DESC_F_NEXT;

	put(rig, RIG_HEADER + 16 * n, type, 4);
	put(rig, RIG_HEADER + 16 * n + 8, n, 8);
	put_desc(rig, to, RIG_HEADER + 16 * n, 16, next, first + 1);
	put_desc(rig, to + 16, RIG_DATA + 0x1000 * n, 512, next | way,
		 first + 2);
	put_desc(rig, to + 32, HIGH + 0x1000 * n, 1024, next | way, first + 3);
	put_desc(rig, to + 48, RIG_STATUS + n, 1, VRING_DESC_F_WRITE, 0);
	if (n & 1)
		put_desc(rig, RIG_DESC + at * 16u, table, 64,
			 VRING_DESC_F_INDIRECT, 0);
}

static void put_requests(struct rig *rig, uint64_t *state)
{
	uint16_t idx = driver_idx;

	for (uint16_t n = 0; n < HEADS; n++) {
		put_request(rig, n, (uint32_t)rnd(state, 2));
		put(rig, RIG_AVAIL + 4 + 2 * (idx++ % QUEUE), 4u * n, 2);
	}
	driver_idx = idx;
	put(rig, RIG_AVAIL + 2, idx, 2);
	rig_kick(rig);
}

/* Of each used entry: a head there is, and a length there can be. */
static void check_used(struct rig *rig, uint16_t *seen)
{
	const uint16_t idx = rig_used_idx(rig);

	for (; *seen != idx; ++*seen) {
		const uint32_t *entry = (const uint32_t *)rig_at(
			rig, RIG_USED + 4 + 8 * (*seen % QUEUE));
		const uint32_t id =
			le32toh(__atomic_load_n(&entry[0], __ATOMIC_RELAXED));
		const uint32_t len =
			le32toh(__atomic_load_n(&entry[1], __ATOMIC_RELAXED));

		ck_assert_uint_lt(id, QUEUE);
		ck_assert_msg(len == 21 || (len >= 1 && (len - 1) % 512 == 0 &&
					    len - 1 <= RIG_DISK_BYTES),
			      "a used length of %u", len);
	}
}

/* A driver's life from reset to reset, as it thinks. */
static void live(struct rig *rig, uint64_t *state)
{
	const uint64_t end_ns = now_ns() + ROUND_MS * NSEC_PER_MSEC;
	uint16_t seen = 0;

	pthread_rwlock_wrlock(&set_up);
	driver_idx = 0;
	rig_prepare(rig);
	pthread_rwlock_unlock(&set_up);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	while (now_ns() < end_ns &&
	       !(rig_status(rig) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		put_requests(rig, state);
		for (int i = 0; i < 50 && seen == rig_used_idx(rig); i++)
			sched_yield();
		check_used(rig, &seen);
	}
	rig_reset(rig);
	/* In its budget, or it would be another state. */
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_IDLE);
	check_used(rig, &seen);
}

/* Else it was no race. */
static bool both_won(struct rig *rig)
{
	const struct ktvblk_counters counters = rig_counters(rig);

	return counters.reads_completed && counters.writes_completed &&
	       counters.io_errors;
}

static void check_race(uint64_t flags, uint64_t features)
{
	static const struct ktvblk_region regions[] = {
		{ .size = LOW_END },
		{ .guest_addr = HIGH, .size = HIGH_END - HIGH },
	};
	const uint64_t end_ns = now_ns() + RUN_MS * NSEC_PER_MSEC;
	struct racer racers[2];
	uint64_t state = 88172645463325252;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .config = { .flags = flags },
					      .features = features |
							  RIG_INDIRECT_DESC,
					      .queue_size = QUEUE,
					      .regions = regions,
					      .n_regions = 2,
					      .guarded = true });
	over = false;
	for (uint64_t i = 0; i < 2; i++) {
		racers[i] = (struct racer){ .rig = &rig, .rnd = 1234567 + i };
		ck_assert_int_eq(pthread_create(&racers[i].thread, NULL, race,
						&racers[i]),
				 0);
	}
	while (now_ns() < end_ns || !both_won(&rig)) {
		ck_assert_uint_lt(now_ns(), end_ns + WAIT_MS * NSEC_PER_MSEC);
		live(&rig, &state);
	}
	over = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(racers[i].thread, NULL);
		ck_assert_uint_gt(racers[i].writes, 0);
	}
	rig_start(&rig);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 1, 512),
				 VIRTIO_BLK_S_OK);
	rig_close(&rig);
}

START_TEST(a_guest_that_races_with_the_worker)
{
	check_race(0, 0);
}
END_TEST

START_TEST(a_guest_that_races_with_a_zero_copy_worker)
{
	check_race(KTVBLK_ZERO_COPY, RIG_EVENT_IDX);
}
END_TEST

TEST_PROGRAM("toctou", a_guest_that_races_with_the_worker,
	     a_guest_that_races_with_a_zero_copy_worker)
