/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The storage answers exactly when the budget ends, again and again: whatever
 * the outcome, guest memory is not touched from the moment reset or destroy
 * has come back.
 *
 * The moment is looked for: a round that ended clean makes the next release
 * later, one that timed out makes it earlier. A worker that has no processor in
 * the midst of a copy is not fenced, as its record says: such a round proves
 * nothing, and most must be others.
 */

#include <stdio.h>
#include <string.h>

#include "wedge.h"

#define BUDGET 20
#define STEP_NS 15000
#define READ_BYTES (32u << 10)

struct releaser {
	struct storage *storage;
	uint64_t at_ns;
};

static void *release_at(void *arg)
{
	const struct releaser *releaser = (const struct releaser *)arg;
	const struct timespec at = ns_to_timespec(releaser->at_ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
		;
	storage_let_go(releaser->storage);
	return NULL;
}

struct race {
	struct rig rig;
	struct ktvblk_counters counters; /* when it came back */
	uint64_t sum;
	bool timed_out;
	bool fenced; /* or there was nothing to fence */
};

/* A read that hangs, let go offset_ns after the budget of `end` is over. */
static void run_to_the_line(struct race *race, int64_t offset_ns,
			    void (*end)(struct race *race))
{
	struct rig *rig = &race->rig;
	struct releaser releaser = { .storage = rig->storage };
	pthread_t thread;

	storage_hold(rig->storage);
	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 1, READ_BYTES);
	rig_avail(rig, 0);
	rig_kick(rig);
	storage_wait_held(rig->storage, 1);
	/* The thread's start is not to be part of the race. */
	releaser.at_ns = now_ns() + 2 * NSEC_PER_MSEC;
	releaser.at_ns += BUDGET * NSEC_PER_MSEC + (uint64_t)offset_ns;
	ck_assert_int_eq(pthread_create(&thread, NULL, release_at, &releaser),
			 0);
	while (now_ns() <
	       releaser.at_ns - BUDGET * NSEC_PER_MSEC - (uint64_t)offset_ns)
		;
	end(race);
	race->sum = wedge_ram_sum(rig);
	race->counters = rig_counters(rig);
	pthread_join(thread, NULL);
}

/* By the record of it, if there is one. */
static void look_for_fence(struct race *race, struct recorder *rec,
			   const char *id)
{
	const struct kept_record *record = recorder_find(rec, id);

	race->fenced = !record ||
		       strcmp(kept_field(record, "KTVBLK_FENCED"), "yes") == 0;
	recorder_clear(rec);
}

static void expect_untouched(struct race *race)
{
	const struct ktvblk_counters now = rig_counters(&race->rig);

	ck_assert_uint_eq(wedge_ram_sum(&race->rig), race->sum);
	ck_assert_mem_eq(&now, &race->counters, sizeof(now));
	/* It was served in time and wholly, or not at all. */
	ck_assert_uint_eq(now.reads_completed, rig_used_idx(&race->rig));
	ck_assert_uint_eq(*rig_chain_status(&race->rig, 0),
			  now.reads_completed ? 0 : SENTINEL);
}

static void end_by_reset(struct race *race)
{
	rig_reset(&race->rig);
	race->timed_out = ktvblk_get_state(race->rig.dev) ==
			  KTVBLK_STATE_WEDGED;
}

static void end_by_destroy(struct race *race)
{
	const enum ktvblk_outcome outcome = ktvblk_destroy(race->rig.dev);

	race->rig.dev = NULL;
	ck_assert(outcome == KTVBLK_JOINED || outcome == KTVBLK_TIMED_OUT);
	race->timed_out = outcome == KTVBLK_TIMED_OUT;
}

static int64_t next_offset(int64_t offset, bool timed_out)
{
	return timed_out ? offset - STEP_NS : offset + STEP_NS;
}

static void expect_score(const char *name, unsigned int n,
			 unsigned int timed_out, unsigned int fenced)
{
	fprintf(stderr, "race of the %s: %u of %u timed out, %u not fenced\n",
		name, timed_out, n, n - fenced);
	ck_assert_uint_gt(fenced, n / 2);
}

START_TEST(a_call_that_ends_with_the_budget_of_the_reset)
{
	const unsigned int n = rounds("RACE_ROUNDS", 100, 15);
	unsigned int timed_out = 0, fenced = 0;
	int64_t offset = 0;
	struct recorder rec;

	wedge_record(&rec);
	for (unsigned int i = 0; i < n; i++) {
		struct race race;

		wedge_open(&race.rig, BUDGET, 0);
		run_to_the_line(&race, offset, end_by_reset);
		ck_assert(eventually(ktvblk_get_state(race.rig.dev) ==
				     KTVBLK_STATE_IDLE));
		look_for_fence(&race, &rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
		if (race.fenced) {
			expect_untouched(&race);
			ck_assert_uint_eq(rig_irqs(&race.rig), 0);
		}
		ck_assert_uint_eq(
			rig_read(&race.rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
		ck_assert_uint_eq(rig_status(&race.rig), 0);
		fenced += race.fenced;
		timed_out += race.timed_out;
		offset = next_offset(offset, race.timed_out);
		/* And the guest goes on. */
		rig_start(&race.rig);
		ck_assert_int_eq(
			rig_request(&race.rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		wedge_close(&race.rig);
	}
	expect_score("reset", n, timed_out, fenced);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_call_that_ends_with_the_budget_of_the_destroy)
{
	const unsigned int n = rounds("RACE_ROUNDS", 100, 15);
	const struct traces before = traces_now();
	unsigned int timed_out = 0, fenced = 0;
	int64_t offset = 0;
	struct recorder rec;

	/* The journal would keep a descriptor of its own. */
	wedge_record(&rec);
	for (unsigned int i = 0; i < n; i++) {
		struct race race;

		wedge_open(&race.rig, BUDGET, 0);
		run_to_the_line(&race, offset, end_by_destroy);
		storage_wait_released(race.rig.storage);
		ck_assert(eventually(__atomic_load_n(&race.rig.ram_released,
						     __ATOMIC_SEQ_CST) == 1));
		ck_assert(eventually(count_threads("ktvblk") == 0));
		look_for_fence(&race, &rec, KTVBLK_MESSAGE_DESTROY_TIMED_OUT);
		if (race.fenced)
			expect_untouched(&race);
		ck_assert_uint_eq(race.rig.storage->released, 1);
		fenced += race.fenced;
		timed_out += race.timed_out;
		offset = next_offset(offset, race.timed_out);
		wedge_close(&race.rig);
	}
	expect_score("destroy", n, timed_out, fenced);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

/* The same with several resets, the wedge ending in one of them. */
START_TEST(a_call_that_ends_while_waiters_are_reset)
{
	const unsigned int n = rounds("RACE_ROUNDS", 100, 15) / 3 + 1;

	for (unsigned int i = 0; i < n; i++) {
		struct race race;
		struct rig *rig = &race.rig;
		struct releaser releaser;
		pthread_t thread;

		wedge_open(rig, 5, 0);
		wedge(rig, VIRTIO_BLK_T_IN, 1);
		rig_reset(rig);
		releaser.storage = rig->storage;
		releaser.at_ns = now_ns() + NSEC_PER_MSEC + i * 20000u;
		ck_assert_int_eq(pthread_create(&thread, NULL, release_at,
						&releaser),
				 0);
		while (now_ns() < releaser.at_ns + NSEC_PER_MSEC) {
			rig_start(rig);
			rig_reset(rig);
		}
		pthread_join(thread, NULL);
		rig_start(rig);
		ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		ck_assert_uint_eq(rig_counters(rig).reads_completed, 1);
		wedge_close(rig);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_call_that_ends_with_the_budget_of_the_reset,
		a_call_that_ends_with_the_budget_of_the_destroy,
		a_call_that_ends_while_waiters_are_reset,
	};

	/* However many rounds were asked for. */
	if (getenv("RACE_ROUNDS"))
		setenv("CK_DEFAULT_TIMEOUT", "3600", 1);
	setenv("CK_DEFAULT_TIMEOUT", "30", 0);
	return run_tests("race", tests, ARRAY_SIZE(tests));
}
