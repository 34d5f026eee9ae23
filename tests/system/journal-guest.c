/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Events of rings and requests: what a guest, or the storage, does wrong. */

#include <errno.h>
#include <string.h>

#include "harness.h"
#include "journal-events.h"

#define OUTSIDE RIG_RAM_BYTES /* of guest memory */

static void answer(struct rig *rig, int64_t answer, unsigned int n,
		   uint32_t type)
{
	int64_t script[STORAGE_SCRIPT_MAX];

	for (unsigned int i = 0; i < n; i++)
		script[i] = answer;
	storage_script(rig->storage, script, n);
	start_and_submit(rig, type, type == FLUSH ? 0 : 3,
			 type == FLUSH ? 0 : 512);
}

/*
 * Rings
 */

static void start_with(struct rig *rig, uint32_t offset, uint32_t value)
{
	rig_prepare(rig);
	rig_write(rig, offset, value);
	set_status(rig, S_OK);
}

static void avail_in_service(struct rig *rig)
{
	start_and_submit(rig, IN, 0, 512);
	later_wait(rig->options.later, 1);
	make_available(rig, 0);
	wait_needs_reset(rig);
	later_complete_all(rig->options.later);
}

static void replace_memory(struct rig *rig)
{
	const struct ktvblk_region elsewhere = {
		.guest_addr = RIG_RAM_BYTES,
		.host_addr = rig->ram,
		.size = RIG_RAM_BYTES,
	};
	struct ktvblk_mem *mem;

	rig_start(rig);
	ck_assert_int_eq(ktvblk_mem_new(&elsewhere, 1, NULL, NULL, &mem), 0);
	ck_assert_int_eq(ktvblk_replace_memory(rig->dev, mem, WAIT_MS), 0);
	ktvblk_mem_unref(mem);
}

static void avail_outside(struct rig *rig)
{
	start_with(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, OUTSIDE);
}

static void used_outside(struct rig *rig)
{
	start_with(rig, VIRTIO_MMIO_QUEUE_USED_LOW, OUTSIDE);
}

static void used_outside_served(struct rig *rig)
{
	used_outside(rig);
	submit(rig, IN, 0, 512);
}

/* The avail ring is the last thing in memory: used_event is behind it. */
static void used_event_outside(struct rig *rig)
{
	const uint32_t avail = RIG_RAM_BYTES - 4 - 2 * 16;
	const uint16_t one = 1;

	start_with(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail);
	rig_chain(rig, 0, IN, 0, 512);
	memcpy(rig_at(rig, avail + 2), &one, sizeof(one));
	rig_kick(rig);
}

static void irq_full(struct rig *rig)
{
	fill_eventfd(ktvblk_irq_fd(rig->dev));
	start_and_submit(rig, IN, 0, 512);
}

/*
 * Requests
 */

static void malformed(struct rig *rig)
{
	rig_start(rig);
	rig_desc(rig, 0, RIG_HEADER, 16, NEXT, 99);
	make_available(rig, 0);
}

static void no_status(struct rig *rig)
{
	rig_start(rig);
	rig_desc(rig, 0, RIG_HEADER, 16, 0, 0);
	make_available(rig, 0);
}

static void header(struct rig *rig, uint64_t addr, uint32_t len)
{
	rig_start(rig);
	rig_desc(rig, 0, addr, len, NEXT, 1);
	rig_desc(rig, 1, RIG_STATUS, 1, WRITE, 0);
	make_available(rig, 0);
}

static void short_header(struct rig *rig)
{
	header(rig, RIG_HEADER, 8);
}

static void header_outside(struct rig *rig)
{
	header(rig, OUTSIDE, 16);
}

static void header_behind_status(struct rig *rig)
{
	rig_start(rig);
	rig_desc(rig, 0, RIG_STATUS, 1, NEXT | WRITE, 1);
	rig_desc(rig, 1, RIG_HEADER, 16, 0, 0);
	make_available(rig, 0);
}

static void no_data(struct rig *rig)
{
	start_and_submit(rig, IN, 0, 0);
}

static void flush_with_data(struct rig *rig)
{
	start_and_submit(rig, FLUSH, 0, 512);
}

static void half_sector(struct rig *rig)
{
	start_and_submit(rig, IN, 0, 100);
}

/* The storage takes 4096 bytes: see its options below. */
static void half_block(struct rig *rig)
{
	start_and_submit(rig, IN, 3, 512);
}

static void wrong_way(struct rig *rig)
{
	rig_start(rig);
	rig_chain(rig, 0, OUT, 0, 512);
	rig_desc(rig, 1, RIG_DATA, 512, NEXT | WRITE, 2);
	make_available(rig, 0);
}

static void read_fails(struct rig *rig)
{
	answer(rig, -EIO, 1, IN);
}

static void write_fails(struct rig *rig)
{
	answer(rig, -ENOSPC, 1, OUT);
}

static void no_progress(struct rig *rig)
{
	answer(rig, 0, 1, OUT);
}

static void flush_fails(struct rig *rig)
{
	answer(rig, -EIO, 1, FLUSH);
}

static void flush_fails_then_again(struct rig *rig)
{
	flush_fails(rig);
	rig_wait_used(rig, 1);
	submit(rig, FLUSH, 0, 0);
}

/* One range, of this many sectors, in so many bytes. */
static void ranges(struct rig *rig, uint32_t type, uint32_t n_sectors,
		   uint32_t len)
{
	const struct virtio_blk_discard_write_zeroes range = {
		.sector = htole64(3),
		.num_sectors = htole32(n_sectors),
	};
	const struct rig_part part = { RIG_DATA, len, 0 };

	rig_start(rig);
	memcpy(rig_at(rig, RIG_DATA), &range, sizeof(range));
	rig_data(rig, 0, type, 0, &part, 1);
	make_available(rig, 0);
}

static void half_range(struct rig *rig)
{
	ranges(rig, VIRTIO_BLK_T_DISCARD, 1, 8);
}

static void empty_range(struct rig *rig)
{
	ranges(rig, VIRTIO_BLK_T_DISCARD, 0, 16);
}

static void ranges_fail(struct rig *rig, uint32_t type)
{
	static const int64_t error = -EIO;

	storage_script(rig->storage, &error, 1);
	ranges(rig, type, 1, 16);
}

static void discard_fails(struct rig *rig)
{
	ranges_fail(rig, VIRTIO_BLK_T_DISCARD);
}

static void zeros_fail(struct rig *rig)
{
	ranges_fail(rig, VIRTIO_BLK_T_WRITE_ZEROES);
}

static void storage_ends(struct rig *rig)
{
	answer(rig, 0, 1, IN);
}

static void interrupted(struct rig *rig)
{
	answer(rig, -EINTR, 17, IN);
}

static void read_sector_7(struct rig *rig)
{
	start_and_submit(rig, IN, 7, 512);
}

#define HEAD "KTVBLK_HEAD=0"
#define HEAD_IN HEAD "|KTVBLK_REQ_TYPE=in"
#define SECTOR "KTVBLK_SECTOR=3"

/* clang-format off */
#define EV(name, how, says, ...)                                               \
	{ .event = EVENT_##name, .provoke = how, .values = says, __VA_ARGS__ }
const struct provoked guest_events[] = {
	EV(QUEUE_POISONED_INDEX, poison,
	  "KTVBLK_AVAIL_IDX=100|KTVBLK_NEXT_AVAIL=0"),
	EV(QUEUE_POISONED_HEAD, avail_in_service, "KTVBLK_HEAD=0"),
	EV(QUEUE_POISONED_MEMORY, replace_memory, ""),
	EV(QUEUE_POISONED_ACCESS, avail_outside, "KTVBLK_NEXT_AVAIL=0"),
	EV(NOTIFY_DISABLE_FAILED, used_outside, ""),
	EV(NOTIFY_ENABLE_FAILED, used_outside, ""),
	EV(NOTIFY_CHECK_FAILED, used_event_outside, "",
	   .options = { .features = RIG_EVENT_IDX }),
	EV(IRQ_WRITE_FAILED, irq_full, "ERRNO=11"),
	EV(USED_WRITE_FAILED, used_outside_served,
	  HEAD "|KTVBLK_REASON=normal"),
	EV(CHAIN_MALFORMED, malformed,
	  HEAD "|KTVBLK_REASON=descriptor index out of range"),
	EV(CHAIN_REFUSED, header_behind_status,
	  HEAD "|KTVBLK_REASON=readable descriptor after a writable one"),
	EV(CHAIN_NO_STATUS, no_status, HEAD),
	EV(HEADER_INVALID, short_header, HEAD),
	EV(HEADER_UNREADABLE, header_outside, HEAD),
	EV(DATA_MISSING, no_data, HEAD_IN),
	EV(FLUSH_WITH_DATA, flush_with_data, HEAD "|KTVBLK_SEG_COUNT=1"),
	EV(DATA_NOT_SECTORS, half_sector, HEAD_IN "|KTVBLK_LENGTH=100"),
	EV(DATA_NOT_BLOCKS, half_block,
	  SECTOR "|KTVBLK_LENGTH=512|KTVBLK_BLOCK_SIZE=4096",
	   .options = { .block_bytes = 4096, .mem_align = 512 }),
	EV(DATA_DIRECTION, wrong_way, HEAD "|KTVBLK_REQ_TYPE=out"),
	EV(READ_FAILED, read_fails, SECTOR "|ERRNO=5"),
	EV(READ_NO_PROGRESS, storage_ends,
	  SECTOR "|KTVBLK_TOTAL_READ=0|KTVBLK_LENGTH=512"),
	EV(WRITE_FAILED, write_fails, SECTOR "|ERRNO=28"),
	EV(WRITE_NO_PROGRESS, no_progress,
	  SECTOR "|KTVBLK_TOTAL_WRITTEN=0|KTVBLK_LENGTH=512"),
	EV(RANGES_INVALID, half_range,
	  HEAD "|KTVBLK_REQ_TYPE=discard|KTVBLK_LENGTH=8",
	  .options = { .features = RIG_DISCARD }),
	EV(RANGE_REFUSED, empty_range,
	  "KTVBLK_REQ_TYPE=discard|" SECTOR
	  "|KTVBLK_SECTOR_COUNT=0|KTVBLK_REASON=no sectors",
	  .options = { .features = RIG_DISCARD }),
	EV(DISCARD_FAILED, discard_fails, SECTOR "|ERRNO=5",
	   .options = { .features = RIG_DISCARD }),
	EV(WRITE_ZEROES_FAILED, zeros_fail, SECTOR "|ERRNO=5",
	   .options = { .features = RIG_WRITE_ZEROES }),
	EV(FLUSH_FAILED, flush_fails, "ERRNO=5"),
	EV(FLUSH_FAILED_BEFORE, flush_fails_then_again,
	  "KTVBLK_REQ_TYPE=flush|KTVBLK_SECTOR=0"),
	EV(INTERRUPTED_TOO_OFTEN, interrupted, SECTOR),
	EV(REQUEST_DONE, read_sector_7,
	  "KTVBLK_REQ_TYPE=in|KTVBLK_REQ_TYPE_RAW=0|KTVBLK_SECTOR=7|" HEAD
	  "|KTVBLK_STATUS=0|KTVBLK_USED_LEN=513"),
	{ .provoke = NULL },
};
