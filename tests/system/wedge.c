/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Storage that blocks in the kernel: each way to block, for each request it
 * blocks, at reset, at destroy, and at a reset whose guest starts again at
 * once; fenced and zero-copy.
 *
 * Each time: the call came back in its budget; the record says where the worker
 * is stuck; nothing was released yet. Then the guest uses its memory for
 * something else, and the storage comes back. Fenced, guest memory stays as it
 * is, all of it; not fenced, all but the request's own segments. The disk got
 * that one write, whole or not at all, or nothing. The worker is reclaimed, and
 * the disk serves.
 */

/* wrap: _ck_assert_failed _mark_point watch_scan */

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "way.h"
#include "wedge-cases.h"

enum verb { RESET, DESTROY, RESTART, VERB_COUNT };

struct wedge_case {
	const struct way *way;
	enum storage_op op;
	enum verb verb;
	bool zero_copy;
	enum ktvblk_engine engine;
	char name[64];
};

static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
				  [OP_WRITE] = VIRTIO_BLK_T_OUT,
				  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH,
				  [OP_DISCARD] = VIRTIO_BLK_T_DISCARD,
				  [OP_WRITE_ZEROES] =
					  VIRTIO_BLK_T_WRITE_ZEROES };

/* The request that hangs, and one behind it that is never served. */
#define SECTOR 4096u
#define LENGTH 8192u
#define NEXT_SECTOR 6144u
#define NEXT_DATA 0x110000u
/* What the next driver uses. */
#define HEIR_DATA 0x210000u

static struct recorder rec;
static unsigned char before[SLOW_BYTES], after[SLOW_BYTES];

/* Other bytes for each case, as they all have the same disks. */
static unsigned int first_fill(const struct wedge_case *test);
static unsigned int next_fill(const struct wedge_case *test);

static bool by_ring(const struct wedge_case *test)
{
	return test->engine == KTVBLK_ENGINE_IO_URING;
}

/* It is the worker that hangs, at a page of guest memory. */
static bool in_copy(const struct wedge_case *test)
{
	return way_page(test->way).len && !test->zero_copy;
}

/* Is the request behind the one that hangs served all the same? */
static bool is_next_served(const struct wedge_case *test)
{
	return by_ring(test) && test->way->serves_others && !in_copy(test);
}

/* Is it with the storage, and hangs there too? */
static bool does_next_hang(const struct wedge_case *test)
{
	return by_ring(test) && !test->way->serves_others;
}

static enum storage_op next_op(const struct wedge_case *test)
{
	return is_next_served(test) && test->op != OP_READ ? OP_READ : OP_WRITE;
}

/* It is about a range of the disk, and has no data in guest memory. */
static bool is_ranges(const struct wedge_case *test)
{
	return test->op == OP_DISCARD || test->op == OP_WRITE_ZEROES;
}

static bool has_data(const struct wedge_case *test)
{
	return test->op == OP_READ || test->op == OP_WRITE;
}

static bool writes(const struct wedge_case *test)
{
	return test->op == OP_WRITE || is_ranges(test);
}

static bool fenced(const struct wedge_case *test)
{
	if (in_copy(test))
		return false; /* it has the gate while it copies */
	return !test->zero_copy || (!has_data(test) && !does_next_hang(test));
}

static void check_worker(const struct wedge_case *test,
			 const struct kept_record *record)
{
	static const char *const calls[] = { "preadv", "pwritev", "fdatasync",
					     "fallocate", "fallocate" };
	const char *state = kept_field(record, KTVBLK_FIELD_STUCK_STATE);
	const char *wchan = kept_field(record, KTVBLK_FIELD_STUCK_WCHAN);

	check_field(record, KTVBLK_FIELD_STUCK_THREADS, "1");
	check_field(record, KTVBLK_FIELD_STUCK_SYSCALL,
		    in_copy(test) ? "none" : calls[test->op]);
	ck_assert_msg(state && strstr(test->way->states[test->op], state),
		      "state %s, not of %s", state ? state : "missing",
		      test->way->states[test->op]);
	ck_assert_msg(wchan && *wchan && strcmp(wchan, "0") != 0, "wchan %s",
		      wchan ? wchan : "missing");
}

static void check_record(const struct wedge_case *test,
			 const struct kept_record *record, int32_t stop_fd,
			 pid_t worker)
{
	static const char *const names[] = { "in", "out", "flush", "discard",
					     "write_zeroes" };

	check_field(record, KTVBLK_FIELD_FENCED, fenced(test) ? "yes" : "no");
	check_field(record, KTVBLK_FIELD_REQ_TYPE, names[test->op]);
	check_field(record, KTVBLK_FIELD_IN_FLIGHT,
		    does_next_hang(test) ? "2" : "1");
	if (by_ring(test) && !in_copy(test))
		check_helpers(record, worker);
	else
		check_worker(test, record);
	if (test->op != OP_FLUSH) {
		ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_SECTOR),
				  SECTOR);
		ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_LENGTH),
				  LENGTH);
	}
	ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_STOP_FD),
			  (uint64_t)stop_fd);
	ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_TIMEOUT_MS),
			  BUDGET_MS);
	/* It was in service for the budget at least. */
	ck_assert_uint_ge(kept_number(record, KTVBLK_FIELD_AGE_MS),
			  BUDGET_MS - 1);
}

static void check_next(const struct wedge_case *test, struct disk *disk)
{
	const bool is_served = is_next_served(test);

	ck_assert_uint_eq(*rig_chain_status(&disk->rig, 8),
			  is_served ? VIRTIO_BLK_S_OK : SENTINEL);
	if (is_served && next_op(test) == OP_READ)
		ck_assert(disk_holds(disk, NEXT_DATA, LENGTH,
				     before + NEXT_SECTOR * 512));
	else
		ck_assert(disk_is_filled(disk, NEXT_DATA, LENGTH,
					 next_fill(test)));
}

static void open_disk(const struct wedge_case *test, struct disk *disk)
{
	struct disk_options options = {
		.open_flags = test->way->open_flags,
		.features = test->op == OP_DISCARD	  ? RIG_DISCARD
			    : test->op == OP_WRITE_ZEROES ? RIG_WRITE_ZEROES
							  : 0,
		.config = { .reset_timeout_ms = BUDGET_MS,
			    .destroy_timeout_ms = BUDGET_MS,
			    .stall_warn_ms = UNWARNED_MS,
			    .name = test->way->name,
			    .engine = test->engine,
			    .flags = test->zero_copy ? KTVBLK_ZERO_COPY : 0 },
	};
	char path[WAY_PATH_MAX];

	way_path(test->way, path);
	options.path = path;
	disk_open(disk, &options);
	rig_start(&disk->rig);
	disk_check_works(disk, 0);
	if (test->op == OP_FLUSH)
		disk_write(disk, 0);
}

/*
 * The request behind the one that hangs: served beside it, or hangs too, or is
 * never looked at.
 */
static void submit_next(const struct wedge_case *test, struct disk *disk)
{
	const uint16_t n_used = rig_used_idx(&disk->rig);
	const bool is_read = next_op(test) == OP_READ;

	disk_fill(disk, NEXT_DATA, LENGTH, next_fill(test) + is_read);
	disk_submit(disk, 8, types[next_op(test)], NEXT_SECTOR, NEXT_DATA,
		    LENGTH);
	rig_kick(&disk->rig);
	if (does_next_hang(test))
		ck_assert(eventually(worker_waits(way_worker(disk))));
	if (!is_next_served(test))
		return;
	rig_wait_used(&disk->rig, (uint16_t)(n_used + 1u));
	ck_assert_uint_eq(rig_used(&disk->rig, n_used).id, 8);
	check_next(test, disk);
	/* Who has served it may be on its way to where it waits for more. */
	ck_assert(eventually(helpers_of(way_worker(disk)).all_sleep));
}

static void submit_first(const struct wedge_case *test, struct disk *disk)
{
	const uint32_t type = types[test->op];

	if (is_ranges(test)) {
		disk_put_range(disk, RIG_DATA, SECTOR, LENGTH);
		disk_submit(disk, 0, type, 0, RIG_DATA, DISK_RANGE_BYTES);
	} else if (test->op == OP_FLUSH) {
		disk_submit(disk, 0, type, 0, RIG_DATA, 0);
	} else {
		disk_submit(disk, 0, type, SECTOR, RIG_DATA, LENGTH);
	}
}

/* Two requests; the first hangs. */
static void submit(const struct wedge_case *test, struct disk *disk)
{
	disk_fill(disk, RIG_DATA, LENGTH, first_fill(test));
	way_hold(test->way, test->op, disk);
	submit_first(test, disk);
	rig_kick(&disk->rig);
	way_wait_held(test->way, disk);
	submit_next(test, disk);
}

static const struct kept_record *end_session(const struct wedge_case *test,
					     struct disk *disk)
{
	const struct kept_record *record;
	enum ktvblk_outcome outcome = KTVBLK_TIMED_OUT;

	case_call_begins();
	if (test->verb == DESTROY)
		outcome = disk_destroy(disk);
	else
		rig_reset(&disk->rig);
	case_call_ended(BUDGET_MS);
	ck_assert_int_eq(outcome, KTVBLK_TIMED_OUT);
	record = recorder_wait(&rec, test->verb == DESTROY
					     ? KTVBLK_MESSAGE_DESTROY_TIMED_OUT
					     : KTVBLK_MESSAGE_RESET_TIMED_OUT);
	note_stuck(ktvblk_outcome_name(outcome), record);
	if (test->verb != DESTROY)
		ck_assert_int_eq(ktvblk_get_state(disk->rig.dev),
				 KTVBLK_STATE_WEDGED);
	return record;
}

/*
 * The guest has its memory back and uses it for other things; a store of ours
 * would be caught in the act. (With zero-copy the kernel's stores into the
 * request's own segments are allowed.)
 */
static void reuse_memory(const struct wedge_case *test, struct disk *disk)
{
	const struct span page = way_page(test->way);

	for (uint64_t i = 0; i < disk->ram_bytes; i++)
		if (!in_span(page, i))
			disk->rig.ram[i] =
				disk_pattern(first_fill(test) + 2, i);
	disk_look(disk, page);
	if (fenced(test))
		ck_assert_int_eq(
			mprotect(disk->rig.ram, disk->ram_bytes, PROT_READ), 0);
}

static void check_memory(const struct wedge_case *test, struct disk *disk)
{
	const struct span nothing = { 0 };
	const struct span first = { RIG_DATA, LENGTH / 2 };
	const struct span second = { RIG_DATA + LENGTH / 2 + HOLE, LENGTH / 2 };

	if (!fenced(test)) {
		disk_check_untouched(disk, first, second);
		return;
	}
	ck_assert_uint_eq(checksum(disk->rig.ram, disk->ram_bytes),
			  checksum(disk->seen, disk->ram_bytes));
	disk_check_untouched(disk, nothing, nothing);
	ck_assert_int_eq(mprotect(disk->rig.ram, disk->ram_bytes,
				  PROT_READ | PROT_WRITE),
			 0);
}

/* What was written is all there or, unless it must be, nothing of it. */
static void check_written(uint64_t start, unsigned int fill, bool must)
{
	if (!must && memcmp(before + start, after + start, LENGTH) == 0)
		return;
	for (uint64_t i = 0; i < LENGTH; i++)
		ck_assert_msg(after[start + i] == disk_pattern(fill, i),
			      "not the old bytes at %#lx",
			      (unsigned long)(start + i));
}

/* A range has all been dealt with, or nothing of it. */
static void check_zeros(uint64_t start)
{
	static const unsigned char zeros[LENGTH];

	ck_assert(memcmp(before + start, after + start, LENGTH) == 0 ||
		  memcmp(zeros, after + start, LENGTH) == 0);
}

/* At most the writes that were with the kernel; fenced, as they were. */
static void check_disk(const struct wedge_case *test)
{
	const bool next = by_ring(test) && !in_copy(test) &&
			  next_op(test) == OP_WRITE;
	const struct span first_span = { SECTOR * 512u,
					 writes(test) ? LENGTH : 0 };
	const struct span next_span = { NEXT_SECTOR * 512u, next ? LENGTH : 0 };

	way_read_disk(test->way, after);
	for (uint64_t i = 0; i < SLOW_BYTES; i++)
		ck_assert_msg(in_span(first_span, i) || in_span(next_span, i) ||
				      before[i] == after[i],
			      "the disk was touched at %#lx", (unsigned long)i);
	if (is_ranges(test))
		check_zeros(first_span.start);
	else if (first_span.len && fenced(test))
		check_written(first_span.start, first_fill(test), false);
	if (next_span.len && (fenced(test) || is_next_served(test)))
		check_written(next_span.start, next_fill(test),
			      is_next_served(test));
}

/* The storage comes back; the worker that was left behind goes. */
static void let_go(const struct wedge_case *test, struct disk *disk)
{
	const struct kept_record *record;

	/* A device that stands has references of its own. */
	ck_assert(disk_released(disk, 0, 0));
	way_let_go(test->way, disk);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_le(kept_number(record, KTVBLK_FIELD_STUCK_MS), WAIT_MS);
	if (test->verb == DESTROY)
		ck_assert(disk_released(disk, 1, 1));
}

/*
 * The guest that was reset starts again while the storage still hangs, and asks
 * for something; it is served when that ends, and without its doing anything.
 */
static void restart_while_stuck(const struct wedge_case *test,
				struct disk *disk)
{
	struct rig *rig = &disk->rig;

	rig_start(rig);
	recorder_wait(&rec, KTVBLK_MESSAGE_WAITING_FOR_ORPHAN);
	disk_fill(disk, HEIR_DATA, LENGTH, 102);
	disk_submit(disk, 4, VIRTIO_BLK_T_OUT, 0, HEIR_DATA, LENGTH);
	rig_kick(rig);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_WEDGED);
	ck_assert_uint_eq(rig_used_idx(rig), 0);
	way_read_disk(test->way, after);
	ck_assert_mem_eq(before, after, LENGTH); /* where it is to go */
	let_go(test, disk);
	rig_wait_used(rig, 1);
	ck_assert_uint_eq(rig_used(rig, 0).id, 4);
	ck_assert_uint_eq(*rig_chain_status(rig, 4), VIRTIO_BLK_S_OK);
	/* The old requests' places were written by nobody. */
	ck_assert_uint_eq(*rig_chain_status(rig, 0), SENTINEL);
	check_next(test, disk);
	if (fenced(test) && !is_ranges(test))
		ck_assert(disk_is_filled(disk, RIG_DATA, LENGTH,
					 first_fill(test)));
}

static void run_wedge(const void *arg)
{
	const struct wedge_case *test = (const struct wedge_case *)arg;
	const struct kept_record *record;
	struct disk disk;
	unsigned int fds;
	int32_t stop_fd;
	pid_t worker;

	recorder_start(&rec);
	fds = count_fds();
	open_disk(test, &disk);
	stop_fd = rig_identity(&disk.rig).stop_fd;
	way_read_disk(test->way, before);
	submit(test, &disk);
	worker = way_worker(&disk);
	record = end_session(test, &disk);
	check_record(test, record, stop_fd, worker);
	if (test->verb == RESTART) {
		restart_while_stuck(test, &disk);
	} else {
		reuse_memory(test, &disk);
		let_go(test, &disk);
		check_memory(test, &disk);
		check_disk(test);
	}
	if (test->verb == DESTROY) {
		disk_free(&disk);
		open_disk(test, &disk);
	} else {
		/* Once more, whoever had the disk in between. */
		disk_reset(&disk);
		rig_start(&disk.rig);
		disk_check_works(&disk, 8);
	}
	disk_close(&disk);
	/* One stays: userfaultfd. */
	check_nothing_left(fds + (test->way->kind == WAY_USERFAULT));
	ck_assert_int_eq(recorder_count(&rec, NULL),
			 test->verb == RESTART ? 3 : 2);
}

static struct wedge_case table[512];
static struct system_case
	cases[ARRAY_SIZE(table) + ARRAY_SIZE(race_cases) +
	      ARRAY_SIZE(more_cases) + ARRAY_SIZE(durable_cases) +
	      ARRAY_SIZE(depth_cases) + ARRAY_SIZE(lock_cases) +
	      ARRAY_SIZE(front_cases)];
static size_t n_cases;

static unsigned int first_fill(const struct wedge_case *test)
{
	return 3 * (unsigned int)(test - table);
}

static unsigned int next_fill(const struct wedge_case *test)
{
	return first_fill(test) + 1;
}

static void add_row(enum ktvblk_engine engine, const struct way *way,
		    enum storage_op op)
{
	static const char *const ops[] = { "read", "write", "flush", "discard",
					   "write zeroes" };
	static const char *const verbs[] = { "reset", "destroy", "restart" };

	for (unsigned int i = 0; way->blocks[op] && i < 2 * VERB_COUNT; i++) {
		struct wedge_case *test = &table[n_cases];

		/*
		 * A start maps memory, for its thread, and waits while a page
		 * fault keeps the lock of the address space: README, Limits.
		 */
		if (way->kind == WAY_FROZEN_RAM && i / 2 == RESTART)
			continue;
		*test = (struct wedge_case){
			.way = way,
			.op = op,
			.verb = i / 2,
			.zero_copy = i % 2,
			.engine = engine,
		};
		snprintf(test->name, sizeof(test->name), "%s, %s, %s, %s%s",
			 way->name, ops[op], verbs[test->verb],
			 test->zero_copy ? "zero-copy" : "fenced",
			 by_ring(test) ? ", io_uring" : "");
		cases[n_cases++] = (struct system_case){ .name = test->name,
							 .run = run_wedge,
							 .arg = test };
	}
}

static void add_rows(enum ktvblk_engine engine)
{
	for (const struct way *way = ways; way->name; way++)
		for (unsigned int op = 0; op < OP_COUNT; op++)
			add_row(engine, way, op);
}

int main(int argc, char **argv)
{
	add_rows(KTVBLK_ENGINE_SYNC);
	add_rows(KTVBLK_ENGINE_IO_URING);
	memcpy(cases + n_cases, more_cases, sizeof(more_cases));
	n_cases += ARRAY_SIZE(more_cases);
	memcpy(cases + n_cases, depth_cases, sizeof(depth_cases));
	n_cases += ARRAY_SIZE(depth_cases);
	memcpy(cases + n_cases, lock_cases, sizeof(lock_cases));
	n_cases += ARRAY_SIZE(lock_cases);
	memcpy(cases + n_cases, front_cases, sizeof(front_cases));
	n_cases += ARRAY_SIZE(front_cases);
	memcpy(cases + n_cases, durable_cases, sizeof(durable_cases));
	n_cases += ARRAY_SIZE(durable_cases);
	memcpy(cases + n_cases, race_cases, sizeof(race_cases));
	n_cases += ARRAY_SIZE(race_cases);
	return run_cases(cases, n_cases, way_let_all_go, argc, argv);
}
