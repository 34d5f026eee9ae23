/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Single cases: see the table at the end. */

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"
#include "way.h"
#include "wedge-cases.h"

#define EIGHT 8u
#define STALL_MS 500u
/* Time enough for a worker to get to where it hangs. */
#define CLOSE_MS 5000u
#define SECTOR 4096u
#define LENGTH 8192u
#define LONG (2u << 20)
#define NEXT_DATA 0x110000u

static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
				  [OP_WRITE] = VIRTIO_BLK_T_OUT,
				  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH };

/* What a case is about; of the last two as far as it matters. */
struct subject {
	enum ktvblk_engine engine;
	enum storage_op op;
	const char *way;
};

static struct recorder rec;
static enum ktvblk_engine engine; /* of the case that runs */

static bool by_ring(void)
{
	return engine == KTVBLK_ENGINE_IO_URING;
}

static const struct subject *begin_case(const void *arg)
{
	const struct subject *subject = (const struct subject *)arg;

	engine = subject->engine;
	recorder_start(&rec);
	return subject;
}

static void open_for(struct disk *disk, const char *path, uint32_t budget_ms,
		     uint32_t stall_ms)
{
	const struct disk_options options = {
		.path = path,
		.config = { .reset_timeout_ms = budget_ms,
			    .destroy_timeout_ms = budget_ms,
			    .stall_warn_ms = stall_ms,
			    .engine = engine },
	};

	disk_open(disk, &options);
}

static void open_at(struct disk *disk, const char *path)
{
	open_for(disk, path, BUDGET_MS, STALL_MS);
}

static void open_way(struct disk *disk, const struct way *way)
{
	char path[WAY_PATH_MAX];

	way_path(way, path);
	open_at(disk, path);
}

static void submit(struct disk *disk, enum storage_op op, uint32_t len)
{
	disk_submit(disk, 0, types[op], op == OP_FLUSH ? 0 : SECTOR, RIG_DATA,
		    op == OP_FLUSH ? 0 : len);
	rig_kick(&disk->rig);
}

static const struct kept_record *destroy_timed_out(struct disk *disk,
						   uint32_t budget_ms)
{
	const struct kept_record *record;
	enum ktvblk_outcome outcome;

	case_call_begins();
	outcome = disk_destroy(disk);
	case_call_ended(budget_ms);
	ck_assert_int_eq(outcome, KTVBLK_TIMED_OUT);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_DESTROY_TIMED_OUT);
	note_stuck("timed out", record);
	return record;
}

/*
 * close() is a call into the storage, too
 */

static void check_close_record(const struct kept_record *record)
{
	check_field(record, KTVBLK_FIELD_STUCK_SYSCALL, "close");
	check_field(record, KTVBLK_FIELD_FENCED, "yes");
	ck_assert_ptr_null(kept_field(record, KTVBLK_FIELD_REQ_TYPE));
}

static void hang_in_close(const void *arg, bool started)
{
	char path[WAY_PATH_MAX];
	struct disk disk;

	begin_case(arg);
	way_path(way_named("fuse"), path);
	open_for(&disk, path, CLOSE_MS, UNWARNED_MS);
	if (started) {
		rig_start(&disk.rig);
		disk_check_works(&disk, 0);
	}
	slowfs_hold(way_slowfs(), SLOW_CLOSE);
	check_close_record(destroy_timed_out(&disk, CLOSE_MS));
	ck_assert(slowfs_wait_held(way_slowfs(), 1));
	ck_assert(disk_released(&disk, 0, 0));
	slowfs_let_go(way_slowfs());
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(disk_released(&disk, 1, 1));
	disk_free(&disk);
}

static void close_hangs(const void *arg)
{
	hang_in_close(arg, true);
}

static void close_hangs_unstarted(const void *arg)
{
	hang_in_close(arg, false);
}

static void read_hangs_and_close(const void *arg)
{
	struct slowfs *slow = way_slowfs();
	const struct kept_record *record;
	struct disk disk;
	pid_t worker;

	begin_case(arg);
	open_way(&disk, way_named("fuse"));
	rig_start(&disk.rig);
	slowfs_hold(slow, SLOW_READ | SLOW_CLOSE);
	submit(&disk, OP_READ, LENGTH);
	way_wait_held(way_named("fuse"), &disk);
	worker = find_thread("ktvblk-0");
	record = destroy_timed_out(&disk, BUDGET_MS);
	if (by_ring())
		check_helpers(record, worker);
	else
		check_field(record, KTVBLK_FIELD_STUCK_SYSCALL, "preadv");
	/* The read ends, and the worker goes on into close(). */
	slowfs_hold(slow, SLOW_CLOSE);
	ck_assert(eventually(thread_in_call(worker, SYS_close)));
	ck_assert(slowfs_wait_held(slow, 1));
	ck_assert(disk_released(&disk, 0, 0));
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RECLAIMED), 0);
	slowfs_let_go(slow);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(disk_released(&disk, 1, 1));
	disk_free(&disk);
}

/*
 * A hung disk that nobody resets
 */

static void check_stalled(const struct subject *subject, const struct way *way,
			  const struct kept_record *record,
			  const struct disk *disk)
{
	const char *state = kept_field(record, KTVBLK_FIELD_STUCK_STATE);

	note_stuck("stalled", record);
	ck_assert_uint_ge(kept_number(record, KTVBLK_FIELD_AGE_MS), STALL_MS);
	check_field(record, KTVBLK_FIELD_IN_FLIGHT, "1");
	/* At a page of guest memory it is the worker itself. */
	if (by_ring() && !way_page(way).len)
		check_helpers(record, way_worker(disk));
	else
		ck_assert(state && strstr(way->states[subject->op], state));
	ck_assert_int_eq(ktvblk_get_state(disk->rig.dev), KTVBLK_STATE_STALLED);
}

/* The disk goes on with what does not hang. */
static void serve_beside(enum storage_op op, struct disk *disk)
{
	const uint16_t n_used = rig_used_idx(&disk->rig);

	disk_submit(disk, 8, op == OP_READ ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
		    0, NEXT_DATA, LENGTH);
	rig_kick(&disk->rig);
	rig_wait_used(&disk->rig, (uint16_t)(n_used + 1u));
	ck_assert_uint_eq(*rig_chain_status(&disk->rig, 8), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_get_state(disk->rig.dev), KTVBLK_STATE_STALLED);
}

static void stalls(const void *arg)
{
	const struct subject *subject = begin_case(arg);
	const struct way *way = way_named(subject->way);
	const enum storage_op op = subject->op;
	const struct kept_record *record;
	struct disk disk;
	uint16_t n_used;

	open_way(&disk, way);
	rig_start(&disk.rig);
	/* Not before it sleeps, however long that takes. */
	case_hides_stalls = true;
	if (op == OP_FLUSH)
		disk_write(&disk, 0);
	way_hold(way, op, &disk);
	submit(&disk, op, LENGTH);
	way_wait_held(way, &disk);
	case_hides_stalls = false;
	record = recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_STALLED);
	check_stalled(subject, way, record, &disk);
	if (by_ring() && !way_page(way).len)
		serve_beside(op, &disk);
	n_used = rig_used_idx(&disk.rig);
	way_let_go(way, &disk);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_REQUEST_RESUMED);
	ck_assert_uint_ge(kept_number(record, KTVBLK_FIELD_AGE_MS), STALL_MS);
	rig_wait_used(&disk.rig, (uint16_t)(n_used + 1u));
	ck_assert_uint_eq(*rig_chain_status(&disk.rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_get_state(disk.rig.dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	disk_close(&disk);
}

/*
 * Eight at once
 */

static void destroy_eight(const void *arg)
{
	const struct way *way = way_named(begin_case(arg)->way);
	static struct disk disks[EIGHT];
	const struct kept_record *record = NULL;
	/*
	 * The first one has spent the budget, and a moment at its gate, which
	 * is in the grace. Each other looks once more for its worker, and, where
	 * that has its gate, for the gate: a millisecond each.
	 */
	const uint32_t looks_ms = (way_page(way).len ? 2 : 1) * (EIGHT - 1);
	uint64_t seen = 0;
	char path[WAY_PATH_MAX];

	way_path(way, path);
	for (unsigned int i = 0; i < EIGHT; i++) {
		if (way->kind == WAY_FUSE) /* direct0 to direct7 */
			path[strlen(path) - 1] = (char)('0' + i);
		open_at(&disks[i], path);
		rig_start(&disks[i].rig);
	}
	for (unsigned int i = 0; i < EIGHT; i++) {
		way_hold(way, OP_READ, &disks[i]);
		submit(&disks[i], OP_READ, LENGTH);
		if (way->kind != WAY_FUSE)
			way_wait_held(way, &disks[i]);
	}
	if (way->kind == WAY_FUSE)
		ck_assert(slowfs_wait_held(way_slowfs(), EIGHT));
	case_call_begins();
	for (unsigned int i = 0; i < EIGHT; i++)
		ck_assert_int_eq(ktvblk_request_stop(disks[i].rig.dev), 0);
	for (unsigned int i = 0; i < EIGHT; i++)
		ck_assert_int_eq(disk_destroy(&disks[i]), KTVBLK_TIMED_OUT);
	case_call_ended(BUDGET_MS + looks_ms);
	for (unsigned int i = 0; i < EIGHT; i++) {
		record = recorder_wait_n(&rec, KTVBLK_MESSAGE_DESTROY_TIMED_OUT,
					 (int)i + 1);
		seen |= UINT64_C(1) << kept_number(record, "INSTANCE_ID");
	}
	ck_assert_uint_eq(seen, 0xff);
	note_stuck("timed out", record);
	for (unsigned int i = 0; i < EIGHT; i++)
		ck_assert(disk_released(&disks[i], 0, 0));
	for (unsigned int i = 0; i < EIGHT; i++)
		way_let_go(way, &disks[i]);
	recorder_wait_n(&rec, KTVBLK_MESSAGE_RECLAIMED, EIGHT);
	for (unsigned int i = 0; i < EIGHT; i++)
		disk_free(&disks[i]);
	ck_assert(eventually(count_threads("ktvblk-") == 0));
}

/*
 * The rest
 */

/*
 * A request larger than the device's buffer is several calls; of a session that
 * is over only the one in progress goes on.
 */
static void only_the_first_chunk(const void *arg)
{
	const enum storage_op op = begin_case(arg)->op;
	const struct way *way = way_named("fuse");
	static unsigned char before[SLOW_BYTES], after[SLOW_BYTES];
	const struct span nothing = { 0 };
	struct disk disk;

	open_way(&disk, way);
	rig_start(&disk.rig);
	way_read_disk(way, before);
	disk_fill(&disk, RIG_DATA, LONG, (unsigned int)now_ns());
	way_hold(way, op, &disk);
	disk_submit(&disk, 0, types[op], 0, RIG_DATA, LONG);
	rig_kick(&disk.rig);
	way_wait_held(way, &disk);
	case_call_begins();
	rig_reset(&disk.rig);
	case_call_ended(BUDGET_MS);
	disk_look(&disk, nothing);
	note_stuck("timed out",
		   recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT));
	way_let_go(way, &disk);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	disk_check_untouched(&disk, nothing, nothing);
	way_read_disk(way, after);
	ck_assert_int_eq(memcmp(before + LONG / 2, after + LONG / 2,
				SLOW_BYTES - LONG / 2),
			 0);
	disk_close(&disk);
}

/* What a frozen file system still does is served as ever. */
static void frozen_serves_reads(const void *arg)
{
	const struct way *way = way_named("frozen ext4");
	char path[WAY_PATH_MAX];
	struct disk disk;

	begin_case(arg);
	way_path(way, path);
	open_for(&disk, path, WAIT_MS, UNWARNED_MS);
	rig_start(&disk.rig);
	disk_check_works(&disk, 0);
	way_hold(way, OP_READ, &disk);
	submit(&disk, OP_READ, LENGTH);
	rig_wait_used(&disk.rig, 4);
	submit(&disk, OP_FLUSH, 0);
	rig_wait_used(&disk.rig, 5);
	ck_assert_uint_eq(*rig_chain_status(&disk.rig, 0), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(disk_destroy(&disk), KTVBLK_JOINED);
	way_let_go(way, &disk);
	disk_free(&disk);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
}

/*
 * The default: a call of the worker's own where such were quick. It may be the
 * one that hangs.
 */
static void trusted_call_hangs(const void *arg)
{
	const struct way *way = way_named("frozen ext4");
	const struct kept_record *record;
	struct disk disk;

	begin_case(arg);
	open_way(&disk, way);
	rig_start(&disk.rig);
	for (unsigned int i = 0; i < 256; i++)
		disk_write(&disk, 0);
	way_hold(way, OP_WRITE, &disk);
	submit(&disk, OP_WRITE, LENGTH);
	way_wait_held(way, &disk);
	case_call_begins();
	rig_reset(&disk.rig);
	case_call_ended(BUDGET_MS);
	record = recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	note_stuck("timed out", record);
	check_field(record, KTVBLK_FIELD_FENCED, "yes");
	check_field(record, KTVBLK_FIELD_IN_FLIGHT, "1");
	check_field(record, KTVBLK_FIELD_STUCK_THREADS, "1");
	check_field(record, KTVBLK_FIELD_STUCK_STATE, "D");
	way_let_go(way, &disk);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	rig_start(&disk.rig);
	disk_check_works(&disk, 0);
	disk_close(&disk);
}

/* A server of the case's own, mounted at fuse2. */
static pid_t start_server(char path[WAY_PATH_MAX])
{
	char program[WAY_PATH_MAX], mounted[WAY_PATH_MAX];
	const char *dir = getenv("WEDGE_DIR");
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 8);
	struct stat st, root;
	pid_t pid;

	ck_assert_int_gt(n, 0);
	program[n] = '\0';
	strcpy(strrchr(program, '/') + 1, "slowfs");
	snprintf(mounted, sizeof(mounted), "%s/fuse2", dir);
	mkdir(mounted, 0700);
	stat(mounted, &root);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chdir(dir) == 0)
			execl(program, "slowfs", "control2", "fuse2", "-f",
			      "-o", "max_idle_threads=8", NULL);
		_exit(1);
	}
	ck_assert(eventually(stat(mounted, &st) == 0 &&
			     st.st_dev != root.st_dev));
	snprintf(path, WAY_PATH_MAX, "%s/fuse2/direct0", dir);
	return pid;
}

static void server_dies(const void *arg)
{
	char path[WAY_PATH_MAX], control[WAY_PATH_MAX];
	struct slowfs *slow;
	struct disk disk;
	pid_t server;

	begin_case(arg);
	way_slowfs(); /* or skip */
	snprintf(control, sizeof(control), "%s/control2", getenv("WEDGE_DIR"));
	unlink(control); /* of one that was killed here before */
	server = start_server(path);
	slow = slowfs_map(control);
	ck_assert_ptr_nonnull(slow);
	open_at(&disk, path);
	rig_start(&disk.rig);
	disk_check_works(&disk, 0);
	slowfs_hold(slow, SLOW_WRITE);
	submit(&disk, OP_WRITE, LENGTH);
	ck_assert(slowfs_wait_held(slow, 1));
	case_call_begins();
	rig_reset(&disk.rig);
	case_call_ended(BUDGET_MS);
	note_stuck("timed out",
		   recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT));
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	/* Now there is an answer at once, if not a good one. */
	rig_start(&disk.rig);
	submit(&disk, OP_READ, LENGTH);
	rig_wait_used(&disk.rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&disk.rig, 0), VIRTIO_BLK_S_IOERR);
	disk_close(&disk);
	*strrchr(path, '/') = '\0';
	umount2(path, MNT_DETACH);
}

#define SUBJECT(engine_, ...)                                                  \
	(&(const struct subject){ KTVBLK_ENGINE_##engine_, __VA_ARGS__ })

#define CASES(engine, suffix)                                                  \
	{ "close hangs" suffix, close_hangs, SUBJECT(engine, 0, NULL), 0 },    \
		{ "close hangs, never started" suffix, close_hangs_unstarted,  \
		  SUBJECT(engine, 0, NULL), 0 },                               \
		{ "read hangs, then close" suffix, read_hangs_and_close,       \
		  SUBJECT(engine, 0, NULL), 0 },                               \
		{ "stalled, fuse, read" suffix, stalls,                        \
		  SUBJECT(engine, OP_READ, "fuse"), 0 },                       \
		{ "stalled, fuse, write" suffix, stalls,                       \
		  SUBJECT(engine, OP_WRITE, "fuse"), 0 },                      \
		{ "stalled, fuse, flush" suffix, stalls,                       \
		  SUBJECT(engine, OP_FLUSH, "fuse"), 0 },                      \
		{ "stalled, fuse cached, read" suffix, stalls,                 \
		  SUBJECT(engine, OP_READ, "fuse cached"), 0 },                \
		{ "stalled, frozen ext4, write" suffix, stalls,                \
		  SUBJECT(engine, OP_WRITE, "frozen ext4"), 0 },               \
		{ "stalled, userfault, read" suffix, stalls,                   \
		  SUBJECT(engine, OP_READ, "userfault"), 0 },                  \
		{ "eight at once, fuse" suffix, destroy_eight,                 \
		  SUBJECT(engine, OP_READ, "fuse"), 0 },                       \
		{ "eight at once, userfault" suffix, destroy_eight,            \
		  SUBJECT(engine, OP_READ, "userfault"), 0 },                  \
		{ "long write, one chunk at most" suffix,                      \
		  only_the_first_chunk, SUBJECT(engine, OP_WRITE, NULL), 0 },  \
		{ "long read, guest memory untouched" suffix,                  \
		  only_the_first_chunk, SUBJECT(engine, OP_READ, NULL), 0 },   \
		{ "frozen ext4 serves reads and flushes" suffix,               \
		  frozen_serves_reads, SUBJECT(engine, 0, NULL), 0 },          \
	{                                                                      \
		"the server dies" suffix, server_dies,                         \
			SUBJECT(engine, 0, NULL), 0                            \
	}

const struct system_case more_cases[31] = {
	CASES(SYNC, ""),
	CASES(IO_URING, ", io_uring"),
	{ "a call that was quick hangs, auto", trusted_call_hangs,
	  SUBJECT(AUTO, 0, NULL), 0 },
};
