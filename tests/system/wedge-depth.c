/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Many requests with the kernel at once, of which every other one hangs: the
 * rest is served beside them, also while the device is stalled, and the end is
 * that of one which hangs. And the end of a process with all of them out.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "harness.h"
#include "way.h"
#include "wedge-cases.h"

#define HALF 16u
#define LENGTH 8192u
/* Each has its own place in guest memory, with the hole in its middle. */
#define DATA_BYTES 0x4000u
#define DATA_END (RIG_DATA + 2 * HALF * DATA_BYTES)
/* And on the disk; the two halves are apart, as the kernel reads ahead. */
#define FIRST_SECTOR 1024u
#define SECTORS 64u
#define OTHERS_SECTOR 4096u
#define FILL 17u

struct depth_case {
	const char *way;
	enum storage_op op; /* what hangs */
	bool destroying;
	bool zero_copy;
};

static struct recorder rec;
static unsigned char before[SLOW_BYTES], after[SLOW_BYTES];

/* Of all requests the even ones hang. */
static bool hangs(unsigned int i)
{
	return i % 2 == 0;
}

static enum storage_op op_of(const struct depth_case *test, unsigned int i)
{
	if (hangs(i))
		return test->op;
	return test->op == OP_READ ? OP_WRITE : OP_READ;
}

static uint64_t sector_of(unsigned int i)
{
	return (hangs(i) ? FIRST_SECTOR : OTHERS_SECTOR) + i / 2 * SECTORS;
}

static uint16_t head_of(unsigned int i)
{
	return (uint16_t)(4 * i);
}

static uint64_t data_of(unsigned int i)
{
	return RIG_DATA + i * DATA_BYTES;
}

static void open_disk(const struct depth_case *test, struct disk *disk)
{
	const struct way *way = way_named(test->way);
	const struct disk_options options = {
		.path = (char[WAY_PATH_MAX]){ 0 },
		.open_flags = way->open_flags,
		.queue_size = 256,
		.config = { .reset_timeout_ms = BUDGET_MS,
			    .destroy_timeout_ms = BUDGET_MS,
			    .stall_warn_ms = UNWARNED_MS,
			    .engine = KTVBLK_ENGINE_IO_URING,
			    .depth = 2 * HALF,
			    .flags = test->zero_copy ? KTVBLK_ZERO_COPY : 0 },
	};

	way_path(way, (char *)options.path);
	disk_open(disk, &options);
	rig_start(&disk->rig);
	disk_check_works(disk, 0);
}

/* Every request, or again those that do not hang. */
static void submit_all(const struct depth_case *test, struct disk *disk,
		       bool again)
{
	static const uint32_t types[] = {
		[OP_READ] = VIRTIO_BLK_T_IN, [OP_WRITE] = VIRTIO_BLK_T_OUT
	};

	for (unsigned int i = again; i < 2 * HALF; i += 1 + again) {
		disk_fill(disk, data_of(i), LENGTH, FILL + i);
		disk_submit(disk, head_of(i), types[op_of(test, i)],
			    sector_of(i), data_of(i), LENGTH);
	}
	rig_kick(&disk->rig);
}

/* Just those that do not hang were answered, and rightly. */
static void check_served(const struct depth_case *test, struct disk *disk)
{
	for (unsigned int i = 0; i < 2 * HALF; i++) {
		const uint8_t status =
			*rig_chain_status(&disk->rig, head_of(i));

		ck_assert_uint_eq(status,
				  hangs(i) ? SENTINEL : VIRTIO_BLK_S_OK);
		if (!hangs(i) && op_of(test, i) == OP_READ)
			ck_assert(disk_holds(disk, data_of(i), LENGTH,
					     before + sector_of(i) * 512));
	}
}

static void hang_half(const struct depth_case *test, struct disk *disk)
{
	const struct way *way = way_named(test->way);
	const uint16_t n_used = rig_used_idx(&disk->rig);

	way_hold(way, test->op, disk);
	submit_all(test, disk, false);
	rig_wait_used(&disk->rig, (uint16_t)(n_used + HALF));
	way_wait_held(way, disk);
	ck_assert(eventually(worker_waits(way_worker(disk))));
	check_served(test, disk);
	/* And with all of the others where they hang. */
	submit_all(test, disk, true);
	rig_wait_used(&disk->rig, (uint16_t)(n_used + 2 * HALF));
	check_served(test, disk);
	ck_assert(eventually(worker_waits(way_worker(disk))));
}

static void end_session(const struct depth_case *test, struct disk *disk)
{
	const bool is_fenced = !test->zero_copy;
	const pid_t worker = way_worker(disk);
	const struct kept_record *record;

	case_call_begins();
	if (test->destroying)
		ck_assert_int_eq(disk_destroy(disk), KTVBLK_TIMED_OUT);
	else
		rig_reset(&disk->rig);
	case_call_ended(BUDGET_MS);
	record = recorder_wait(&rec, test->destroying
					     ? KTVBLK_MESSAGE_DESTROY_TIMED_OUT
					     : KTVBLK_MESSAGE_RESET_TIMED_OUT);
	note_stuck("timed out", record);
	ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_IN_FLIGHT), HALF);
	check_field(record, KTVBLK_FIELD_FENCED, is_fenced ? "yes" : "no");
	check_field(record, KTVBLK_FIELD_REQ_TYPE,
		    test->op == OP_READ ? "in" : "out");
	ck_assert_uint_eq(kept_number(record, KTVBLK_FIELD_SECTOR) % SECTORS,
			  0);
	ck_assert_uint_lt(kept_number(record, KTVBLK_FIELD_SECTOR),
			  OTHERS_SECTOR);
	check_helpers(record, worker);
}

/* The guest's memory is the guest's own again; zero-copy, but for the data. */
static void let_go(const struct depth_case *test, struct disk *disk)
{
	const struct span nothing = { 0 };
	const struct span data = { RIG_DATA, DATA_END - RIG_DATA };
	uint64_t sum;

	for (uint64_t i = 0; i < disk->ram_bytes; i++)
		disk->rig.ram[i] = disk_pattern(FILL - 1, i);
	disk_look(disk, nothing);
	sum = checksum(disk->rig.ram, disk->ram_bytes);
	if (!test->zero_copy)
		ck_assert_int_eq(
			mprotect(disk->rig.ram, disk->ram_bytes, PROT_READ), 0);
	ck_assert(disk_released(disk, 0, 0));
	way_let_go(way_named(test->way), disk);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	disk_check_untouched(disk, test->zero_copy ? data : nothing, nothing);
	if (test->zero_copy)
		return;
	ck_assert_uint_eq(checksum(disk->rig.ram, disk->ram_bytes), sum);
	ck_assert_int_eq(mprotect(disk->rig.ram, disk->ram_bytes,
				  PROT_READ | PROT_WRITE),
			 0);
}

/* What was written of the i-th: all of it, or, if it hung, nothing. */
static void check_place(const struct depth_case *test, unsigned int i)
{
	const uint64_t start = sector_of(i) * 512;

	if (op_of(test, i) == OP_READ || hangs(i)) {
		if (memcmp(before + start, after + start, LENGTH) == 0)
			return;
		ck_assert_int_eq(op_of(test, i), OP_WRITE);
	}
	for (uint64_t at = 0; at < LENGTH; at++)
		ck_assert_msg(after[start + at] == disk_pattern(FILL + i, at) ||
				      (hangs(i) && test->zero_copy),
			      "request %u: not its bytes", i);
}

static void check_disk(const struct depth_case *test)
{
	unsigned char *rest = before;

	way_read_disk(way_named(test->way), after);
	for (unsigned int i = 0; i < 2 * HALF; i++) {
		const uint64_t start = sector_of(i) * 512;

		check_place(test, i);
		memcpy(rest + start, after + start, LENGTH);
	}
	ck_assert_mem_eq(rest, after, SLOW_BYTES);
}

static void run_half(const void *arg)
{
	const struct depth_case *test = (const struct depth_case *)arg;
	struct disk disk;
	unsigned int fds;

	recorder_start(&rec);
	fds = count_fds();
	open_disk(test, &disk);
	way_read_disk(way_named(test->way), before);
	hang_half(test, &disk);
	end_session(test, &disk);
	let_go(test, &disk);
	check_disk(test);
	if (test->destroying) {
		disk_free(&disk);
		open_disk(test, &disk);
	} else {
		rig_start(&disk.rig);
		disk_check_works(&disk, 8);
	}
	disk_close(&disk);
	check_nothing_left(fds);
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
}

/*
 * The end of a process: nobody resets or destroys anything.
 */

static int told_fd; /* by who has left the last handler of exit() */

static void tell(void)
{
	eventfd_signal(told_fd);
}

static _Noreturn void end_with_all_out(const struct depth_case *test,
				       int ready_fd, bool by_itself)
{
	struct disk disk;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The first to be registered is the last to be called. */
	atexit(tell);
	open_disk(test, &disk);
	hang_half(test, &disk);
	eventfd_signal(ready_fd);
	if (by_itself)
		exit(0);
	for (;;)
		pause();
}

static bool await(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, (int)WAIT_MS) == 1;
}

static void run_exit(const void *arg)
{
	static const struct depth_case test = { .way = "fuse", .op = OP_READ };
	const int ready_fd = eventfd(0, EFD_CLOEXEC);
	const bool by_itself = arg != NULL;
	int process, status;
	pid_t pid;

	told_fd = eventfd(0, EFD_CLOEXEC);
	way_slowfs(); /* or skip */
	pid = fork();
	if (!pid)
		end_with_all_out(&test, ready_fd, by_itself);
	ck_assert_int_gt(pid, 0);
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	ck_assert(await(ready_fd));
	if (by_itself)
		ck_assert(await(told_fd));
	else
		ck_assert_int_eq(kill(pid, SIGKILL), 0);
	/* Now it waits in the kernel, and for nothing but its storage. */
	way_let_go(way_named(test.way), NULL);
	ck_assert(await(process));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (by_itself)
		ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	else
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(process);
}

#define HALF_CASES(way, op, op_name)                                           \
	{ "half of 32, " way ", " op_name ", reset, fenced", run_half,         \
	  &(const struct depth_case){ way, op, false, false }, 0 },            \
		{ "half of 32, " way ", " op_name ", reset, zero-copy",        \
		  run_half,                                                    \
		  &(const struct depth_case){ way, op, false, true }, 0 },     \
		{ "half of 32, " way ", " op_name ", destroy, fenced",         \
		  run_half,                                                    \
		  &(const struct depth_case){ way, op, true, false }, 0 },     \
	{                                                                      \
		"half of 32, " way ", " op_name ", destroy, zero-copy",        \
			run_half,                                              \
			&(const struct depth_case){ way, op, true, true }, 0   \
	}

const struct system_case depth_cases[22] = {
	HALF_CASES("fuse", OP_READ, "read"),
	HALF_CASES("fuse", OP_WRITE, "write"),
	HALF_CASES("fuse cached", OP_READ, "read"),
	HALF_CASES("fuse O_DIRECT", OP_READ, "read"),
	HALF_CASES("frozen ext4", OP_WRITE, "write"),
	{ "exit with 16 of 32 out", run_exit, "", 0 },
	{ "killed with 16 of 32 out", run_exit, NULL, 0 },
};
