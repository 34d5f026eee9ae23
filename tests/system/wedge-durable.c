/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Block devices that lose what was written, become shorter, or have blocks of
 * 4 KiB: what the guest is told is so.
 */

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness.h"
#include "wedge-cases.h"

#define LENGTH 65536u
#define WRITES 64u /* twice what there is room for, and more */
#define BLOCK 4096u

static struct recorder rec;

static const char *path_of(const char *variable)
{
	const char *path = getenv(variable);

	if (!path || !*path)
		case_skip("no such device");
	return path;
}

static void open_path(struct disk *disk, const char *path, int flags,
		      uint64_t config_flags)
{
	const struct disk_options options = { .path = path,
					      .open_flags = flags,
					      .config.flags = config_flags };

	recorder_start(&rec);
	disk_open(disk, &options);
}

static int request(struct disk *disk, uint32_t type, uint64_t sector,
		   uint64_t addr, uint32_t len)
{
	const uint16_t used = rig_used_idx(&disk->rig);

	disk_submit(disk, 0, type, sector, addr, len);
	rig_kick(&disk->rig);
	rig_wait_used(&disk->rig, (uint16_t)(used + 1u));
	return *rig_chain_status(&disk->rig, 0);
}

static int write_nth(struct disk *disk, unsigned int n)
{
	return request(disk, VIRTIO_BLK_T_OUT, n * LENGTH / 512, RIG_DATA,
		       LENGTH);
}

static void close_disk(struct disk *disk)
{
	disk_close(disk);
}

/* The page cache takes all of it, and writing back fails. */
static void every_flush_fails(const void *arg)
{
	struct disk disk;

	(void)arg;
	open_path(&disk, path_of("WEDGE_LOOP_FULL"), 0, 0);
	rig_start(&disk.rig);
	disk_fill(&disk, RIG_DATA, LENGTH, 1);
	for (unsigned int i = 0; i < WRITES; i++)
		ck_assert_int_eq(write_nth(&disk, i), VIRTIO_BLK_S_OK);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0),
				 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_FLUSH_FAILED), 1);
	ck_assert_int_eq(
		recorder_count(&rec, KTVBLK_MESSAGE_FLUSH_FAILED_BEFORE), 2);
	close_disk(&disk);
}

/* The same for a driver that cannot flush: each write tells. */
static void a_write_through_fails(const void *arg)
{
	unsigned int good = 0;
	struct disk disk;

	(void)arg;
	open_path(&disk, path_of("WEDGE_LOOP_FULL"), 0, 0);
	disk.rig.options.no_flush = true;
	rig_start(&disk.rig);
	disk_fill(&disk, RIG_DATA, LENGTH, 2);
	while (good < WRITES && write_nth(&disk, good) == VIRTIO_BLK_S_OK)
		good++;
	ck_assert_uint_lt(good, WRITES);
	ck_assert_int_eq(write_nth(&disk, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_FLUSH_FAILED), 1);
	/* What was told to be written can be read. */
	for (unsigned int i = 0; i < good; i++) {
		disk_fill(&disk, RIG_DATA, LENGTH, 3);
		ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_IN,
					 i * LENGTH / 512, RIG_DATA, LENGTH),
				 VIRTIO_BLK_S_OK);
		ck_assert(disk_is_filled(&disk, RIG_DATA, LENGTH, 2));
	}
	case_note("%u writes of %u KiB", good, LENGTH / 1024);
	close_disk(&disk);
}

/* What Linux does to a disk that is pulled out: its size becomes 0. */
static void a_shorter_device(const void *arg)
{
	const char *path = path_of("WEDGE_LOOP_SHRINK");
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct disk disk;

	(void)arg;
	ck_assert_int_ge(fd, 0);
	open_path(&disk, path, 0, 0);
	rig_start(&disk.rig);
	disk_check_works(&disk, 2048);
	ck_assert_int_eq(truncate(path_of("WEDGE_SHRINK"), 0), 0);
	ck_assert_int_eq(ioctl(fd, LOOP_SET_CAPACITY, 0), 0);
	ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_IN, 2048, RIG_DATA,
				 LENGTH),
			 VIRTIO_BLK_S_IOERR);
	recorder_wait(&rec, KTVBLK_MESSAGE_READ_NO_PROGRESS);
	ck_assert_int_eq(write_nth(&disk, 16), VIRTIO_BLK_S_IOERR);
	close_disk(&disk);
	close(fd);
}

static void blocks_of_4_kib(const void *arg)
{
	const uint64_t flags = *(const uint64_t *)arg;
	struct disk disk;

	open_path(&disk, path_of("WEDGE_LOOP_4K"), O_DIRECT, flags);
	ck_assert_uint_eq(rig_read(&disk.rig, VIRTIO_MMIO_CONFIG + 0x14),
			  BLOCK);
	rig_start(&disk.rig);
	disk_check_works(&disk, 8);
	/* Segments of a guest that does not mind where they lie. */
	for (uint64_t at = RIG_DATA; at < RIG_DATA + 3; at++) {
		disk_fill(&disk, at, 2 * BLOCK, 4);
		ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_OUT, 16, at,
					 2 * BLOCK),
				 VIRTIO_BLK_S_OK);
		disk_fill(&disk, at, 2 * BLOCK, 5);
		ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_IN, 16, at,
					 2 * BLOCK),
				 VIRTIO_BLK_S_OK);
		ck_assert(disk_is_filled(&disk, at, 2 * BLOCK, 4));
	}
	ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_IN, 0, RIG_DATA, 512),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(request(&disk, VIRTIO_BLK_T_OUT, 1, RIG_DATA, BLOCK),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_DATA_NOT_BLOCKS),
			 2);
	close_disk(&disk);
}

static const uint64_t config_flags[] = { 0, KTVBLK_ZERO_COPY };

const struct system_case durable_cases[5] = {
	{ "lost writes, every flush fails", every_flush_fails, NULL, 0 },
	{ "lost writes, a write-through fails", a_write_through_fails, NULL,
	  0 },
	{ "a block device becomes shorter", a_shorter_device, NULL, 0 },
	{ "blocks of 4 KiB, fenced", blocks_of_4_kib, &config_flags[0], 0 },
	{ "blocks of 4 KiB, zero-copy", blocks_of_4_kib, &config_flags[1], 0 },
};
