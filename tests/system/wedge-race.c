/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The storage comes back just as a short budget ends: the worker either makes
 * it, or is left behind, and then must not touch guest memory any more. Guest
 * memory is made read-only as soon as the call has returned, so that a store of
 * the worker's is caught in the act.
 *
 * When to let go is learned on the way: later after a round the worker made,
 * earlier after one it did not. So the rounds stay at the edge, and find it soon
 * where a busy machine has moved it.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "way.h"
#include "wedge-cases.h"

#define ROUNDS 1000
#define RESETS 20u /* of one device */
#define STEP_NS 20000
#define SMALL_STEPS 3u /* in a row; from then on each is twice the last */
#define DOUBLINGS_MAX 7u
/* Rings, header, status and data are all in it: a short time to look. */
#define RACE_RAM 0x20000u
#define DATA 0x10000u
#define LENGTH 8192u
#define SECTOR 4096u

struct race {
	struct disk disk;
	struct recorder rec;
	struct disk_options options;
	uint32_t budget_ms;
	int64_t offset_ns; /* of letting go, from the end of the budget */
	enum ktvblk_outcome last; /* outcome, which came so often in a row */
	unsigned int n_last;
	bool destroying;
	unsigned int n_unfenced;
	unsigned int ends[KTVBLK_HELPER_DISCONNECTED + 1];

	/* The thread that lets go. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t at_ns; /* 0: nothing to do, or done */
	bool over;
};

static void *let_go(void *arg)
{
	struct race *race = (struct race *)arg;

	SCOPED_LOCK(&race->lock);
	for (;;) {
		while (!race->at_ns && !race->over)
			pthread_cond_wait(&race->changed, &race->lock);
		if (race->over)
			return NULL;

		const struct timespec ts = ns_to_timespec(race->at_ns);

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
		slowfs_let_go(way_slowfs());
		race->at_ns = 0;
		pthread_cond_broadcast(&race->changed);
	}
}

static void let_go_at(struct race *race, uint64_t at_ns)
{
	SCOPED_LOCK(&race->lock);
	race->at_ns = at_ns;
	pthread_cond_broadcast(&race->changed);
}

static void wait_let_go(struct race *race)
{
	SCOPED_LOCK(&race->lock);
	while (race->at_ns)
		pthread_cond_wait(&race->changed, &race->lock);
}

static void open_race(struct race *race, unsigned int round)
{
	struct ktvblk_config *config = &race->options.config;

	/* 5 to 20 ms; of the other call, the default. */
	race->budget_ms = 5 + round / RESETS * 7 % 16;
	if (race->destroying)
		config->destroy_timeout_ms = race->budget_ms;
	else
		config->reset_timeout_ms = race->budget_ms;
	disk_open(&race->disk, &race->options);
	rig_start(&race->disk.rig);
}

static void close_race(struct race *race)
{
	disk_close(&race->disk);
}

static enum ktvblk_outcome end_session(struct race *race)
{
	const uint64_t start_ns = now_ns();
	enum ktvblk_outcome outcome = KTVBLK_JOINED;

	case_call_begins();
	let_go_at(race, start_ns + race->budget_ms * NSEC_PER_MSEC +
				(uint64_t)race->offset_ns);
	if (race->destroying)
		outcome = ktvblk_destroy(race->disk.rig.dev);
	else
		rig_reset(&race->disk.rig);
	/* From here on the guest's memory is the guest's. */
	ck_assert_int_eq(mprotect(race->disk.rig.ram, RACE_RAM, PROT_READ), 0);
	case_call_ended(race->budget_ms);
	if (!race->destroying &&
	    recorder_find(&race->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT))
		outcome = KTVBLK_TIMED_OUT;
	return outcome;
}

static void learn(struct race *race, enum ktvblk_outcome outcome)
{
	const int64_t sign = outcome == KTVBLK_JOINED ? 1 : -1;
	unsigned int doublings;

	race->n_last = outcome == race->last ? race->n_last + 1 : 1;
	race->last = outcome;
	doublings = race->n_last - MIN(race->n_last, SMALL_STEPS);
	race->offset_ns +=
		sign * STEP_NS * (1 << MIN(doublings, DOUBLINGS_MAX));
}

static const char *timed_out_id(const struct race *race)
{
	return race->destroying ? KTVBLK_MESSAGE_DESTROY_TIMED_OUT
				: KTVBLK_MESSAGE_RESET_TIMED_OUT;
}

/*
 * The worker may have been kept from a processor in the midst of its copy, for
 * longer than the gate waits: then the record does not promise anything.
 */
static bool was_fenced(struct race *race)
{
	const struct kept_record *record =
		recorder_find(&race->rec, timed_out_id(race));

	return !record ||
	       strcmp(kept_field(record, KTVBLK_FIELD_FENCED), "yes") == 0;
}

static struct race the_race;

/* On the worker, in a copy: it may go on if the record says so. */
static void caught(int signal_number, siginfo_t *info, void *context)
{
	unsigned char *ram = the_race.disk.rig.ram;
	const unsigned char *at = (const unsigned char *)info->si_addr;

	(void)context;
	if (at < ram || at >= ram + RACE_RAM) {
		signal(signal_number, SIG_DFL);
		return;
	}
	check_field(recorder_wait(&the_race.rec, timed_out_id(&the_race)),
		    KTVBLK_FIELD_FENCED, "no");
	ck_assert_int_eq(mprotect(ram, RACE_RAM, PROT_READ | PROT_WRITE), 0);
}

/* What came of the request is whole: all of it or nothing. */
static void check_data(struct race *race, enum storage_op op, unsigned int n,
		       unsigned int n_used)
{
	const unsigned char *there =
		way_slowfs()->bytes[0] + SECTOR * UINT64_C(512);
	const uint8_t status = *rig_chain_status(&race->disk.rig, 0);
	const unsigned int used = rig_used_idx(&race->disk.rig);

	ck_assert_uint_eq(used, n_used + (status == VIRTIO_BLK_S_OK));
	ck_assert(status == VIRTIO_BLK_S_OK || status == SENTINEL);
	if (op == OP_READ)
		ck_assert(disk_is_filled(&race->disk, DATA, LENGTH,
					 used ? n + 1 : n));
	if (op == OP_WRITE)
		for (uint64_t i = 0; i < LENGTH; i++)
			ck_assert_uint_eq(there[i], disk_pattern(n, i));
}

static void run_round(struct race *race, unsigned int round)
{
	static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
					  [OP_WRITE] = VIRTIO_BLK_T_OUT,
					  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH };
	static const uint32_t calls[] = { SLOW_READ, SLOW_WRITE, SLOW_FSYNC };
	const enum storage_op op = round % ARRAY_SIZE(calls);
	const bool flush = op == OP_FLUSH;
	struct slowfs *slow = way_slowfs();
	struct disk *disk = &race->disk;
	enum ktvblk_outcome outcome;
	uint64_t sum;

	if (flush)
		disk_write(disk, 0);
	disk_fill(disk, DATA, LENGTH, round);
	for (uint64_t i = 0; op == OP_READ && i < LENGTH; i++)
		slow->bytes[0][SECTOR * 512 + i] = disk_pattern(round + 1, i);
	slowfs_hold(slow, calls[op]);
	disk_submit(disk, 0, types[op], SECTOR, DATA, flush ? 0 : LENGTH);
	rig_kick(&disk->rig);
	ck_assert(slowfs_wait_held(slow, 1));

	outcome = end_session(race);
	sum = checksum(disk->rig.ram, RACE_RAM);
	race->ends[outcome]++;
	learn(race, outcome);
	wait_let_go(race);
	if (outcome == KTVBLK_TIMED_OUT)
		recorder_wait(&race->rec, KTVBLK_MESSAGE_RECLAIMED);
	else
		ck_assert_int_eq(outcome, KTVBLK_JOINED);
	if (was_fenced(race)) {
		ck_assert_uint_eq(checksum(disk->rig.ram, RACE_RAM), sum);
		check_data(race, op, round, flush);
	} else {
		race->n_unfenced++;
	}
	ck_assert_int_eq(
		mprotect(disk->rig.ram, RACE_RAM, PROT_READ | PROT_WRITE), 0);
	ck_assert(disk_released(disk, race->destroying, race->destroying));
	if (race->destroying)
		disk_free(disk);
	else
		rig_start(&disk->rig);
	ck_assert_int_eq(recorder_count(&race->rec, NULL),
			 outcome == KTVBLK_TIMED_OUT ? 2 : 0);
	recorder_clear(&race->rec);
}

struct race_case {
	bool destroying;
	enum ktvblk_engine engine;
};

static void run_race(const void *arg)
{
	const struct race_case *which = (const struct race_case *)arg;
	const struct sigaction action = { .sa_sigaction = caught,
					  .sa_flags = SA_SIGINFO };
	char path[WAY_PATH_MAX];
	unsigned int fds;
	pthread_t thread;

	way_path(way_named("fuse"), path);
	the_race.options = (struct disk_options){
		.path = path,
		.ram_bytes = RACE_RAM,
		.config = { .engine = which->engine,
			    .stall_warn_ms = UNWARNED_MS },
	};
	the_race.destroying = which->destroying;
	the_race.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	cond_init(&the_race.changed);
	way_slowfs();
	sigaction(SIGSEGV, &action, NULL);
	recorder_start(&the_race.rec);
	fds = count_fds();
	ck_assert_int_eq(pthread_create(&thread, NULL, let_go, &the_race), 0);
	for (unsigned int round = 0; round < ROUNDS / 2; round++) {
		if (the_race.destroying || round % RESETS == 0)
			open_race(&the_race, round);
		run_round(&the_race, round);
		if (!the_race.destroying && round % RESETS == RESETS - 1)
			close_race(&the_race);
	}
	pthread_mutex_lock(&the_race.lock);
	the_race.over = true;
	pthread_cond_broadcast(&the_race.changed);
	pthread_mutex_unlock(&the_race.lock);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(count_fds(), fds);
	case_note("%u rounds, %u joined, %u timed out, %u unfenced", ROUNDS / 2,
		  the_race.ends[KTVBLK_JOINED], the_race.ends[KTVBLK_TIMED_OUT],
		  the_race.n_unfenced);
	/* Else something else than a busy machine is the reason. */
	ck_assert_uint_le(the_race.n_unfenced, ROUNDS / 20);
	/* Else it was no race. */
	ck_assert_uint_ge(the_race.ends[KTVBLK_JOINED], ROUNDS / 20);
	ck_assert_uint_ge(the_race.ends[KTVBLK_TIMED_OUT], ROUNDS / 20);
}

static const struct race_case races[] = {
	{ false, KTVBLK_ENGINE_SYNC },
	{ true, KTVBLK_ENGINE_SYNC },
	{ false, KTVBLK_ENGINE_IO_URING },
	{ true, KTVBLK_ENGINE_IO_URING },
};

const struct system_case race_cases[4] = {
	{ "race, reset", run_race, &races[0], 60 },
	{ "race, destroy", run_race, &races[1], 60 },
	{ "race, reset, io_uring", run_race, &races[2], 60 },
	{ "race, destroy, io_uring", run_race, &races[3], 60 },
};
