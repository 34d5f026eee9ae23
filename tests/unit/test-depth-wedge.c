/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Storage that answers later, and does not answer some of many: reset and
 * destroy keep to their budget, what can still be answered is, before the stop
 * and during it, and behind it an answer only lets go. Fenced and zero-copy.
 */

/* wrap: gate_enter_until */

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "fleet.h"
#include "harness.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define BUDGET_MS 60u
#define OVER_MS 50u
/* Of those in flight so many hang; of the rest as many again end in the stop. */
#define MANY 32u
#define STUCK 16u
#define LATE ((MANY - STUCK) / 2)
#define HEIR 40u

struct sea {
	struct later later;
	struct rig rig;
	struct recorder rec;
	struct traces before;
	bool zero_copy;
	uint32_t budget_ms;
};

/* Numbers 0 to 31 are out: writes in the place of every fourth. */
static uint32_t type_of(unsigned int i)
{
	return i % 4 == 3 ? T_OUT : T_IN;
}

/* A worker held off a processor may have its gate, and keep it. */
static struct gate *_Atomic watched_gate;
static _Atomic bool gate_is_kept;

bool __real_gate_enter_until(struct gate *gate, uint64_t deadline_ns);
bool __wrap_gate_enter_until(struct gate *gate, uint64_t deadline_ns);

bool __wrap_gate_enter_until(struct gate *gate, uint64_t deadline_ns)
{
	const bool entered = __real_gate_enter_until(gate, deadline_ns);

	if (!entered && gate == watched_gate)
		gate_is_kept = true;
	return entered;
}

static void sea_open_for(struct sea *sea, bool zero_copy, uint32_t budget_ms)
{
	static const struct ktvblk_region small = { .size = WEDGE_RAM_BYTES };
	struct rig_options options = fleet_options();

	memset(sea, 0, sizeof(*sea));
	sea->zero_copy = zero_copy;
	sea->budget_ms = budget_ms;
	sea->before = traces_now();
	wedge_record(&sea->rec);
	later_init(&sea->later);
	options.later = &sea->later;
	options.regions = &small;
	options.n_regions = 1;
	options.config = (struct ktvblk_config){
		.reset_timeout_ms = budget_ms,
		.destroy_timeout_ms = budget_ms,
		.depth = MANY,
		.flags = zero_copy ? KTVBLK_ZERO_COPY : 0,
	};
	rig_open(&sea->rig, &options);
	rig_start(&sea->rig);
}

static void sea_open(struct sea *sea, bool zero_copy)
{
	sea_open_for(sea, zero_copy, BUDGET_MS);
}

/* Of those that follow none is to time out. */
static void sea_be_patient(struct sea *sea)
{
	sea->rig.dev->reset_timeout_ms = WAIT_MS;
	sea->rig.dev->destroy_timeout_ms = WAIT_MS;
}

static void sea_free(struct sea *sea)
{
	rig_free(&sea->rig);
	recorder_stop(&sea->rec);
	traces_expect_gone(&sea->before);
}

static void send_many(struct sea *sea)
{
	uint16_t heads[MANY];

	for (unsigned int i = 0; i < MANY; i++) {
		fleet_chain(&sea->rig, i, type_of(i));
		heads[i] = (uint16_t)(3 * i);
	}
	rig_avail_all(&sea->rig, heads, MANY);
	rig_kick(&sea->rig);
	later_wait(&sea->later, MANY);
}

/*
 * Every other one that is out is answered: then half of what was. They stand in
 * the list in their order, so with n in it these are the odd places.
 */
static void answer_others(struct sea *sea, unsigned int n_answers)
{
	const uint16_t n_used = rig_used_idx(&sea->rig);

	for (unsigned int n = 0; n < n_answers; n++) {
		later_complete(&sea->later, n + 1);
		rig_wait_used(&sea->rig, (uint16_t)(n_used + n + 1));
	}
}

/* Some were answered before the stop, some during it, and the rest hangs. */
static void stop_amid(struct sea *sea, int (*request)(struct ktvblk_dev *dev))
{
	send_many(sea);
	answer_others(sea, LATE);
	ck_assert_int_eq(request(sea->rig.dev), 0);
	answer_others(sea, LATE);
	later_wait(&sea->later, STUCK);
	/* A record tells where it is; nothing wakes it for the stop again. */
	ck_assert(eventually(worker_sleeps(&sea->rig)));
}

static bool is_stuck(struct sea *sea, unsigned int i)
{
	for (unsigned int at = 0; at < later_count(&sea->later); at++)
		if (later_look(&sea->later, at).offset ==
		    i * KTVBLK_SECTOR_SIZE)
			return true;
	return false;
}

/* What was answered is there and right, and the rest as it was. */
static void expect_answered(struct sea *sea)
{
	unsigned int n_stuck = 0;

	for (unsigned int i = 0; i < MANY; i++) {
		if (is_stuck(sea, i)) {
			ck_assert(fleet_untouched(&sea->rig, i));
			n_stuck++;
		} else {
			fleet_expect(&sea->rig, i, OK);
		}
	}
	ck_assert_uint_eq(n_stuck, STUCK);
	ck_assert_uint_eq(rig_used_idx(&sea->rig), MANY - STUCK);
}

static void expect_record(struct sea *sea, const char *id)
{
	const struct kept_record *record = recorder_wait(&sea->rec, id);
	const uint64_t sector = kept_number(record, KTVBLK_FIELD_SECTOR);

	expect_number(record, KTVBLK_FIELD_IN_FLIGHT, STUCK);
	expect_number(record, KTVBLK_FIELD_LENGTH, KTVBLK_SECTOR_SIZE);
	expect_number(record, KTVBLK_FIELD_TIMEOUT_MS, sea->budget_ms);
	expect_text(record, KTVBLK_FIELD_FENCED, sea->zero_copy ? "no" : "yes");
	ck_assert_uint_lt(sector, MANY);
	ck_assert(is_stuck(sea, (unsigned int)sector));
	expect_text(record, KTVBLK_FIELD_REQ_TYPE,
		    type_of((unsigned int)sector) == T_IN ? "in" : "out");
	ck_assert_uint_ge(kept_number(record, KTVBLK_FIELD_AGE_MS),
			  sea->budget_ms);
	if (getenv("TESTS_EMULATED"))
		return;
	/* Its worker waits, and nobody else is to be named. */
	expect_number(record, KTVBLK_FIELD_STUCK_THREADS, 0);
	ck_assert_ptr_null(kept_field(record, KTVBLK_FIELD_STUCK_TID));
	ck_assert_ptr_null(kept_field(record, KTVBLK_FIELD_STUCK_STATE));
	ck_assert_ptr_null(kept_field(record, KTVBLK_FIELD_STUCK_WCHAN));
}

static void reset_timed_out(struct sea *sea)
{
	const uint64_t start_ns = clock_start();

	rig_reset(&sea->rig);
	ck_assert_uint_le(ms_since(start_ns),
			  bound_ms(sea->budget_ms + OVER_MS));
	sea_be_patient(sea);
	ck_assert_int_eq(ktvblk_get_state(sea->rig.dev), KTVBLK_STATE_WEDGED);
	expect_record(sea, KTVBLK_MESSAGE_RESET_TIMED_OUT);
}

static void destroy_timed_out(struct sea *sea)
{
	const uint64_t start_ns = clock_start();

	ck_assert_int_eq(ktvblk_destroy(sea->rig.dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_le(ms_since(start_ns),
			  bound_ms(sea->budget_ms + OVER_MS));
	sea->rig.dev = NULL;
	expect_record(sea, KTVBLK_MESSAGE_DESTROY_TIMED_OUT);
}

/*
 * The guest's memory is the guest's again. With zero-copy the storage itself may
 * write where the reads it still has were to go: then they are answered without.
 */
static void answer_late(struct sea *sea)
{
	struct rig *rig = &sea->rig;
	uint64_t sum;

	for (uint64_t i = 0; i < WEDGE_RAM_BYTES; i++)
		rig->ram[i] = (unsigned char)(i * 13 + 5);
	sum = wedge_ram_sum(rig);
	ck_assert_int_eq(mprotect(rig->ram, WEDGE_RAM_BYTES, PROT_READ), 0);
	for (unsigned int n = STUCK; n > 1; n--) {
		if (sea->zero_copy)
			later_answer(&sea->later, n / 2, KTVBLK_SECTOR_SIZE);
		else
			later_complete(&sea->later, n / 2);
	}
	/* The last counts. */
	ck_assert_int_eq(recorder_count(&sea->rec, KTVBLK_MESSAGE_RECLAIMED),
			 0);
	ck_assert_uint_eq(rig->ram_released, 0);
	ck_assert_uint_eq(rig->storage->released, 0);
	if (sea->zero_copy)
		later_answer(&sea->later, 0, -EIO);
	else
		later_complete_all(&sea->later);
	recorder_wait(&sea->rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(wedge_ram_sum(rig), sum);
	ck_assert_int_eq(
		mprotect(rig->ram, WEDGE_RAM_BYTES, PROT_READ | PROT_WRITE), 0);
	/* One record of the wedge and one of its end; no failure of a request. */
	ck_assert_int_eq(recorder_count(&sea->rec, NULL), 2);
}

START_TEST(a_reset_while_half_of_many_hang)
{
	struct ktvblk_counters counters;
	struct sea sea;

	sea_open(&sea, _i);
	stop_amid(&sea, ktvblk_request_reset);
	reset_timed_out(&sea);
	expect_answered(&sea);
	counters = rig_counters(&sea.rig);
	answer_late(&sea);
	/* Nor was any of them counted. */
	ck_assert_uint_eq(rig_counters(&sea.rig).reads_completed,
			  counters.reads_completed);
	ck_assert_uint_eq(rig_counters(&sea.rig).writes_completed,
			  counters.writes_completed);
	ck_assert_uint_eq(rig_counters(&sea.rig).io_errors, 0);
	ck_assert_uint_eq(counters.reads_completed + counters.writes_completed,
			  MANY - STUCK);
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	sea_free(&sea);
}
END_TEST

START_TEST(a_destroy_while_half_of_many_hang)
{
	struct sea sea;

	sea_open(&sea, _i);
	stop_amid(&sea, ktvblk_request_stop);
	destroy_timed_out(&sea);
	expect_answered(&sea);
	answer_late(&sea);
	ck_assert_uint_eq(sea.rig.ram_released, 1);
	ck_assert_uint_eq(sea.rig.storage->released, 1);
	sea_free(&sea);
}
END_TEST

START_TEST(all_that_is_answered_during_the_stop_makes_it_a_clean_one)
{
	struct sea sea;

	sea_open_for(&sea, _i, WAIT_MS);
	send_many(&sea);
	ck_assert_int_eq(ktvblk_request_reset(sea.rig.dev), 0);
	later_complete_all(&sea.later);
	rig_reset(&sea.rig);
	ck_assert_int_eq(ktvblk_get_state(sea.rig.dev), KTVBLK_STATE_IDLE);
	ck_assert_uint_eq(rig_used_idx(&sea.rig), MANY);
	for (unsigned int i = 0; i < MANY; i++)
		fleet_expect(&sea.rig, i, OK);
	ck_assert_int_eq(recorder_count(&sea.rec, NULL), 0);
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	sea_free(&sea);
}
END_TEST

/* The worker on its way with another one, until it is let go. */
static struct latch submitting, go_on;

static void hold_up(struct later *later, struct ktvblk_io *io)
{
	(void)later;
	(void)io;
	latch_set(&submitting);
	ck_assert(latch_wait(&go_on, WAIT_MS));
}

/*
 * Answers that came together, and the first, which was short, may not go on: the
 * others have come all the same, and nobody wakes the worker for them again.
 */
START_TEST(what_was_answered_with_one_that_a_stop_ends_is_not_waited_for)
{
	struct sea sea;

	latch_init(&submitting);
	latch_init(&go_on);
	sea_open_for(&sea, _i, WAIT_MS);
	fleet_send(&sea.rig, 0, 3, T_IN);
	later_wait(&sea.later, 3);
	sea.later.hook = hold_up;
	sea.later.refusal = -EIO;
	fleet_send(&sea.rig, 3, 1, T_IN);
	ck_assert(latch_wait(&submitting, WAIT_MS));
	later_answer(&sea.later, 0, KTVBLK_SECTOR_SIZE / 2);
	later_complete_all(&sea.later);
	ck_assert_int_eq(ktvblk_request_stop(sea.rig.dev), 0);
	latch_set(&go_on);
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	ck_assert_int_eq(fleet_status(&sea.rig, 0), SENTINEL);
	fleet_expect(&sea.rig, 1, OK);
	fleet_expect(&sea.rig, 2, OK);
	sea_free(&sea);
	latch_destroy(&submitting);
	latch_destroy(&go_on);
}
END_TEST

/* Who comes next waits for the last of them, and not for the most. */
START_TEST(the_next_session_begins_with_the_last_answer)
{
	struct sea sea;

	sea_open(&sea, _i);
	stop_amid(&sea, ktvblk_request_reset);
	reset_timed_out(&sea);
	rig_start(&sea.rig);
	recorder_wait(&sea.rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	fleet_send(&sea.rig, HEIR, 1, T_OUT);
	while (later_count(&sea.later) > 1) {
		later_complete(&sea.later, 0);
		ck_assert_int_eq(ktvblk_get_state(sea.rig.dev),
				 KTVBLK_STATE_WEDGED);
	}
	ck_assert_int_eq(recorder_count(&sea.rec, KTVBLK_MESSAGE_RECLAIMED), 0);
	ck_assert_uint_eq(later_count(&sea.later), 1);
	ck_assert_uint_eq(later_look(&sea.later, 0).length, KTVBLK_SECTOR_SIZE);
	ck_assert_uint_ne(later_look(&sea.later, 0).offset,
			  HEIR * KTVBLK_SECTOR_SIZE);
	ck_assert_uint_eq(rig_used_idx(&sea.rig), 0);
	later_complete(&sea.later, 0);
	recorder_wait(&sea.rec, KTVBLK_MESSAGE_RECLAIMED);
	later_wait(&sea.later, 1);
	ck_assert_uint_eq(later_look(&sea.later, 0).offset,
			  HEIR * KTVBLK_SECTOR_SIZE);
	later_complete(&sea.later, 0);
	rig_wait_used(&sea.rig, 1);
	fleet_expect(&sea.rig, HEIR, OK);
	ck_assert_int_eq(ktvblk_get_state(sea.rig.dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	sea_free(&sea);
}
END_TEST

/* And who is reset while it waits goes at once, if it gets a processor. */
START_TEST(a_session_that_waits_for_many_is_stopped_at_once)
{
	uint64_t start_ns;
	struct sea sea;

	sea_open(&sea, _i);
	stop_amid(&sea, ktvblk_request_reset);
	reset_timed_out(&sea);
	for (unsigned int n = 0; n < 3; n++) {
		rig_start(&sea.rig);
		fleet_send(&sea.rig, HEIR, 1, T_OUT);
		start_ns = clock_start();
		rig_reset(&sea.rig);
		ck_assert_uint_lt(ms_since(start_ns), bound_ms(WAIT_MS / 2));
		ck_assert(fleet_untouched(&sea.rig, HEIR));
	}
	ck_assert_int_eq(
		recorder_count(&sea.rec, KTVBLK_MESSAGE_RESET_TIMED_OUT), 1);
	later_complete_all(&sea.later);
	recorder_wait(&sea.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(fleet_untouched(&sea.rig, HEIR));
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	sea_free(&sea);
}
END_TEST

/*
 * The last answers come as the budget ends
 */

#define RACE_MS 20u
#define STEP_NS 40000

struct answerer {
	struct sea *sea;
	uint64_t at_ns;
};

static void *answer_at(void *arg)
{
	const struct answerer *answerer = (const struct answerer *)arg;
	const struct timespec at = ns_to_timespec(answerer->at_ns);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
		;
	/* Of zero-copy no bytes: those would be the storage's doing. */
	while (later_count(&answerer->sea->later)) {
		if (answerer->sea->zero_copy)
			later_answer(&answerer->sea->later, 0,
				     KTVBLK_SECTOR_SIZE);
		else
			later_complete(&answerer->sea->later, 0);
	}
	return NULL;
}

/* Of what was answered each is wholly, or not at all. */
static void expect_whole(struct sea *sea, unsigned int n_used, bool kept)
{
	unsigned int n_ok = 0;

	for (unsigned int i = 0; i < MANY; i++) {
		ck_assert(fleet_status(&sea->rig, i) == OK ||
			  fleet_status(&sea->rig, i) == SENTINEL);
		n_ok += fleet_status(&sea->rig, i) == OK;
	}
	/* But where it was revoked in its gate, at one of them. */
	ck_assert_uint_ge(n_ok, n_used);
	ck_assert_uint_le(n_ok, n_used + kept);
}

/* True: it timed out. */
static bool run_to_the_line(struct sea *sea, int64_t offset_ns)
{
	struct answerer answerer = { .sea = sea };
	unsigned int n_used;
	pthread_t thread;
	uint64_t start_ns, sum;
	bool timed_out, kept;

	send_many(sea);
	watched_gate = &sea->rig.dev->queues[0].session->gate;
	gate_is_kept = false;
	/* The thread's start is not to be part of the race. */
	start_ns = now_ns() + 2 * NSEC_PER_MSEC;
	answerer.at_ns =
		start_ns + RACE_MS * NSEC_PER_MSEC + (uint64_t)offset_ns;
	ck_assert_int_eq(pthread_create(&thread, NULL, answer_at, &answerer),
			 0);
	while (now_ns() < start_ns)
		;
	rig_reset(&sea->rig);
	sum = wedge_ram_sum(&sea->rig);
	n_used = rig_used_idx(&sea->rig);
	timed_out = ktvblk_get_state(sea->rig.dev) == KTVBLK_STATE_WEDGED;
	kept = gate_is_kept;
	watched_gate = NULL;
	if (timed_out && !sea->zero_copy)
		expect_text(recorder_wait(&sea->rec,
					  KTVBLK_MESSAGE_RESET_TIMED_OUT),
			    KTVBLK_FIELD_FENCED, kept ? "no" : "yes");
	pthread_join(thread, NULL);
	ck_assert(eventually(ktvblk_get_state(sea->rig.dev) ==
			     KTVBLK_STATE_IDLE));
	if (!kept) {
		ck_assert_uint_eq(wedge_ram_sum(&sea->rig), sum);
		ck_assert_uint_eq(rig_used_idx(&sea->rig), n_used);
	}
	expect_whole(sea, rig_used_idx(&sea->rig), kept);
	return timed_out;
}

START_TEST(answers_that_come_with_the_end_of_the_budget)
{
	const unsigned int n = rounds("RACE_ROUNDS", 60, 8);
	unsigned int n_timed_out = 0;
	int64_t offset_ns = 0;
	struct sea sea;

	sea_open_for(&sea, _i, RACE_MS);
	for (unsigned int round = 0; round < n; round++) {
		const bool timed_out = run_to_the_line(&sea, offset_ns);

		n_timed_out += timed_out;
		offset_ns += timed_out ? -STEP_NS : STEP_NS;
		recorder_clear(&sea.rec);
		rig_start(&sea.rig);
	}
	fprintf(stderr,
		"answers at the end of the budget: %u of %u timed out\n",
		n_timed_out, n);
	sea_be_patient(&sea);
	ck_assert_int_eq(rig_destroy(&sea.rig), KTVBLK_JOINED);
	sea_free(&sea);
}
END_TEST

LOOP_PROGRAM("depth-wedge", 2, a_reset_while_half_of_many_hang,
	     a_destroy_while_half_of_many_hang,
	     all_that_is_answered_during_the_stop_makes_it_a_clean_one,
	     what_was_answered_with_one_that_a_stop_ends_is_not_waited_for,
	     the_next_session_begins_with_the_last_answer,
	     a_session_that_waits_for_many_is_stopped_at_once,
	     answers_that_come_with_the_end_of_the_budget)
