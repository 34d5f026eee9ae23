/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See way.h. */

#include <ctype.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "harness.h"
#include "runner.h"
#include "way.h"
#include "wedge-cases.h"

#define ALL_OPS                                                                \
	{                                                                      \
		true, true, true, true, true                                   \
	}
#define PAGE 4096u

/* The first page of what the cases' requests are about. */
static const struct span held_page = { RIG_DATA, PAGE };

const struct way ways[] = {
	{ .name = "fuse",
	  .env = "WEDGE_FUSE",
	  .file = "direct0",
	  .blocks = ALL_OPS,
	  .serves_others = true,
	  .states = { "S", "S", "S", "S", "S" } },
	{ .name = "fuse cached",
	  .env = "WEDGE_FUSE",
	  .file = "cached0",
	  .slow_disk = SLOW_DISKS,
	  .blocks = ALL_OPS,
	  .serves_others = true,
	  .states = { "D", "DS", "DS", "DS", "DS" } },
	{ .name = "fuse O_DIRECT",
	  .env = "WEDGE_FUSE",
	  .file = "cached1",
	  .open_flags = O_DIRECT,
	  .slow_disk = SLOW_DISKS + 1,
	  .blocks = ALL_OPS,
	  .serves_others = true,
	  .states = { "DS", "DS", "DS", "DS", "DS" } },
	{ .name = "loop on fuse",
	  .env = "WEDGE_LOOP_ON_FUSE",
	  .open_flags = O_DIRECT,
	  .slow_disk = SLOW_DISKS - 1,
	  .blocks = ALL_OPS,
	  .states = { "D", "D", "D", "D", "D" } },
	/* It serves reads, and a flush that has nothing to write. */
	{ .name = "frozen ext4",
	  .kind = WAY_FROZEN,
	  .env = "WEDGE_EXT4",
	  .file = "disk",
	  .blocks = { [OP_WRITE] = true,
		      [OP_DISCARD] = true,
		      [OP_WRITE_ZEROES] = true },
	  .serves_others = true,
	  .states = { [OP_WRITE] = "D",
		      [OP_DISCARD] = "D",
		      [OP_WRITE_ZEROES] = "D" } },
	{ .name = "loop on frozen",
	  .kind = WAY_FROZEN_LOOP,
	  .env = "WEDGE_LOOP_ON_EXT4",
	  .open_flags = O_DIRECT,
	  .blocks = ALL_OPS,
	  .states = { "D", "D", "D", "D", "D" } },
	{ .name = "userfault",
	  .kind = WAY_USERFAULT,
	  .env = "WEDGE_DIR",
	  .file = "plain",
	  .blocks = { [OP_READ] = true, [OP_WRITE] = true },
	  .serves_others = true,
	  .states = { "DS", "DS" } },
	/* Only a page that is written has to be made writable first. */
	{ .name = "frozen ram",
	  .kind = WAY_FROZEN_RAM,
	  .env = "WEDGE_DIR",
	  .file = "plain",
	  .blocks = { [OP_READ] = true },
	  .serves_others = true,
	  .states = { "D" } },
	{ .name = NULL },
};

const struct way *way_named(const char *name)
{
	const struct way *way = ways;

	while (strcmp(way->name, name) != 0)
		way++;
	return way;
}

/* What the launcher says of this, or the case is skipped. */
static const char *told(const char *name)
{
	const char *value = getenv(name);
	char why[64];

	if (value && *value)
		return value;
	/* "no loop on ext4 to be had" */
	snprintf(why, sizeof(why), "no %s to be had", name + strlen("WEDGE_"));
	for (char *at = why; *at; at++)
		*at = *at == '_' ? ' ' : (char)tolower(*at);
	case_skip(why);
}

void way_path(const struct way *way, char path[WAY_PATH_MAX])
{
	snprintf(path, WAY_PATH_MAX, "%s%s%s", told(way->env),
		 way->file ? "/" : "", way->file ? way->file : "");
}

struct slowfs *way_slowfs(void)
{
	static struct slowfs *slow;
	char path[WAY_PATH_MAX];

	if (!slow) {
		told("WEDGE_FUSE");
		snprintf(path, sizeof(path), "%s/control", told("WEDGE_DIR"));
		slow = slowfs_map(path);
		ck_assert_ptr_nonnull(slow);
	}
	return slow;
}

struct span way_page(const struct way *way)
{
	const bool in_ram = way->kind == WAY_USERFAULT ||
			    way->kind == WAY_FROZEN_RAM;

	return in_ram ? held_page : (struct span){ 0 };
}

/* FIFREEZE or FITHAW. */
static int freeze(unsigned long how)
{
	__attribute__((cleanup(closep))) int fd =
		open(told("WEDGE_EXT4"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -1 : ioctl(fd, how, 0);
}

/*
 * The loop device serves one request at a time. One write of ours, of what is
 * there already, hangs in the frozen file; what comes behind it waits, a read
 * and a flush too.
 */
static const uint64_t plug_offset = SLOW_BYTES - PAGE;
static pthread_t plug_thread;
static _Atomic pid_t plug_tid;

static void *plug(void *arg)
{
	static _Alignas(PAGE) unsigned char page[PAGE];
	const int fd = *(int *)arg;

	ck_assert_int_eq(pread(fd, page, PAGE, (off_t)plug_offset), PAGE);
	ck_assert_int_eq(freeze(FIFREEZE), 0);
	plug_tid = gettid();
	ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)plug_offset), PAGE);
	close(fd);
	return NULL;
}

static void hold_loop(const struct way *way)
{
	static int fd;

	fd = open(told(way->env), O_RDWR | O_DIRECT | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	plug_tid = 0;
	ck_assert_int_eq(pthread_create(&plug_thread, NULL, plug, &fd), 0);
	ck_assert(eventually(plug_tid && thread_state(plug_tid) == 'D'));
}

/* One for all disks: each fault is one message. */
static int userfault = -1;

static void hold_userfault(void *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { (uint64_t)(uintptr_t)page, PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (userfault < 0) {
		userfault = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
		if (userfault < 0)
			case_skip("userfaultfd is not allowed");
		ck_assert_int_eq(ioctl(userfault, UFFDIO_API, &api), 0);
	}
	ck_assert_int_eq(ioctl(userfault, UFFDIO_REGISTER, &range), 0);
	ck_assert_int_eq(madvise(page, PAGE, MADV_DONTNEED), 0);
}

static void let_userfault_go(void *page)
{
	struct uffdio_zeropage zero = {
		.range = { (uint64_t)(uintptr_t)page, PAGE },
	};

	ck_assert_int_eq(ioctl(userfault, UFFDIO_ZEROPAGE, &zero), 0);
}

/* The page becomes one of a file that is then frozen, clean and read-only. */
static void hold_ram_file(void *page)
{
	char path[WAY_PATH_MAX];
	void *map;

	/*
	 * While the fault hangs nobody in this process can map memory, nor
	 * grow the heap: what the recorder needs must be there.
	 */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	free(malloc(100000));
	snprintf(path, sizeof(path), "%s/ram", told("WEDGE_EXT4"));
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	map = mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		   fd, 0);
	ck_assert_ptr_eq(map, page);
	ck_assert_int_eq(freeze(FIFREEZE), 0);
}

void way_hold(const struct way *way, enum storage_op op, struct disk *disk)
{
	static const uint32_t calls[] = {
		[OP_READ] = SLOW_READ,
		[OP_WRITE] = SLOW_WRITE,
		[OP_FLUSH] = SLOW_FSYNC,
		[OP_DISCARD] = SLOW_FALLOCATE,
		[OP_WRITE_ZEROES] = SLOW_FALLOCATE,
	};

	switch (way->kind) {
	case WAY_FUSE:
		slowfs_hold(way_slowfs(), calls[op]);
		break;
	case WAY_FROZEN:
		ck_assert_int_eq(freeze(FIFREEZE), 0);
		break;
	case WAY_FROZEN_LOOP:
		hold_loop(way);
		break;
	case WAY_USERFAULT:
		hold_userfault(disk->rig.ram + held_page.start);
		break;
	case WAY_FROZEN_RAM:
		hold_ram_file(disk->rig.ram + held_page.start);
		break;
	}
}

pid_t way_worker(const struct disk *disk)
{
	struct ktvblk_identity identity;
	char name[24];

	ktvblk_get_identity(disk->rig.dev, &identity, sizeof(identity));
	snprintf(name, sizeof(name), "ktvblk-%llu",
		 (unsigned long long)identity.instance_id);
	return find_thread(name);
}

void way_wait_held(const struct way *way, struct disk *disk)
{
	const bool by_call = disk->engine == KTVBLK_ENGINE_SYNC;
	struct pollfd fault = { .fd = userfault, .events = POLLIN };
	struct uffd_msg msg;
	pid_t worker;

	/* It takes its name itself. */
	ck_assert(eventually((worker = way_worker(disk)) != 0));
	switch (way->kind) {
	case WAY_FUSE:
		ck_assert_msg(slowfs_wait_held(way_slowfs(), 1),
			      "the server got no call");
		break;
	case WAY_USERFAULT:
		ck_assert_int_eq(poll(&fault, 1, WAIT_MS), 1);
		ck_assert_int_eq(read(userfault, &msg, sizeof(msg)),
				 sizeof(msg));
		break;
	case WAY_FROZEN:
	case WAY_FROZEN_LOOP:
	case WAY_FROZEN_RAM:
		ck_assert(eventually(thread_state(worker) == 'D' ||
				     (!by_call && worker_waits(worker))));
		break;
	}
	/* However long it takes to fall asleep, a record finds it so. */
	ck_assert(eventually(
		(thread_state(worker) == 'S' || thread_state(worker) == 'D') &&
		helpers_of(worker).all_sleep));
}

void way_let_go(const struct way *way, struct disk *disk)
{
	switch (way->kind) {
	case WAY_FUSE:
		slowfs_let_go(way_slowfs());
		break;
	case WAY_FROZEN:
	case WAY_FROZEN_RAM:
		ck_assert_int_eq(freeze(FITHAW), 0);
		break;
	case WAY_FROZEN_LOOP:
		ck_assert_int_eq(freeze(FITHAW), 0);
		pthread_join(plug_thread, NULL);
		break;
	case WAY_USERFAULT:
		let_userfault_go(disk->rig.ram + held_page.start);
		break;
	}
}

void way_read_disk(const struct way *way, unsigned char *bytes)
{
	char path[WAY_PATH_MAX];
	ssize_t n, done = 0;

	if (way->kind == WAY_FUSE) {
		memcpy(bytes, way_slowfs()->bytes[way->slow_disk], SLOW_BYTES);
		return;
	}
	way_path(way, path);
	if (way->kind == WAY_FROZEN_LOOP)
		snprintf(path, sizeof(path), "%s/inner", told("WEDGE_EXT4"));
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	for (; done < (ssize_t)SLOW_BYTES; done += n) {
		n = pread(fd, bytes + done, SLOW_BYTES - (size_t)done, done);
		ck_assert_int_gt(n, 0);
	}
}

void way_let_all_go(void)
{
	const char *dir = getenv("WEDGE_DIR");
	char path[WAY_PATH_MAX];

	/* Not told(): this is no case. */
	if (getenv("WEDGE_EXT4") && *getenv("WEDGE_EXT4"))
		freeze(FITHAW);
	if (dir && getenv("WEDGE_FUSE") && *getenv("WEDGE_FUSE")) {
		static struct slowfs *slow;

		snprintf(path, sizeof(path), "%s/control", dir);
		if (!slow)
			slow = slowfs_map(path);
		if (slow)
			slowfs_let_go(slow);
	}
}
