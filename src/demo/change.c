/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk that changes under its guest: it has new limits, gives back what the
 * guest discards, grows, and tells what of guest memory it writes. The disk is
 * one of its own, which the tour may write.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"
#include "say.h"
#include "tour.h"

#define MIB (UINT64_C(1) << 20)
#define CALL_MS 5000
/* Of guest memory, as a VMM that migrates marks it. */
#define PAGE_BYTES UINT64_C(4096)
#define PAGES (GUEST_BYTES / PAGE_BYTES)
/* Requests that a new limit is shown by: a burst and some that wait. */
#define LIMITED_S 0.25

struct change {
	struct machine machine;
	int fd;
	_Atomic unsigned char dirty[PAGES];
};

static int request(struct change *change, uint32_t type, uint64_t sector,
		   uint32_t bytes, const void *data)
{
	struct driver *driver = &change->machine.driver;
	const int slot = driver_free_slot(driver);

	if (data)
		memcpy(driver_data(driver, slot), data, bytes);
	return driver_request(driver, slot, type, sector, bytes);
}

static void must(int r, const char *what)
{
	if (r < 0)
		die("%s: %s", what, strerror(-r));
}

/* A limit that comes while the disk runs, and goes again. */
static void show_limit(struct change *change, uint32_t iops)
{
	struct ktvblk_throttle limit = { .iops = iops }, none = { 0 };
	const unsigned int n = iops + (unsigned int)(iops * LIMITED_S) + 1;
	unsigned int failed = 0;
	double begin, seconds;

	must(ktvblk_set_throttle(change->machine.dev, &limit),
	     "ktvblk_set_throttle");
	begin = now_s();
	for (unsigned int i = 0; i < n; i++)
		failed += request(change, VIRTIO_BLK_T_IN, 0,
				  KTVBLK_SECTOR_SIZE, NULL) != 0;
	seconds = now_s() - begin;
	must(ktvblk_set_throttle(change->machine.dev, &none),
	     "ktvblk_set_throttle");
	promise(!failed && seconds >= LIMITED_S,
		"a limit of %" PRIu32 " requests/s, while it runs: %u reads "
		"behind it took %.2f s, as a burst is one second's",
		iops, n, seconds);
}

static uint64_t stored_bytes(const struct change *change)
{
	struct stat st;

	if (fstat(change->fd, &st) < 0)
		die("no status of the disk: %s", strerror(errno));
	return (uint64_t)st.st_blocks * 512;
}

/* Written, and then discarded: the host has the space again. */
static void show_discard(struct change *change, uint32_t mib)
{
	const uint64_t bytes = mib * MIB;
	const struct virtio_blk_discard_write_zeroes range = {
		.num_sectors = htole32((uint32_t)(bytes / KTVBLK_SECTOR_SIZE)),
	};
	static const unsigned char ones[DRIVER_DATA_BYTES] = { 1 };
	uint64_t written;
	int status = 0;

	for (uint64_t at = 0; at < bytes && !status; at += sizeof(ones))
		status = request(change, VIRTIO_BLK_T_OUT,
				 at / KTVBLK_SECTOR_SIZE, sizeof(ones), ones);
	written = stored_bytes(change);
	if (!status)
		status = request(change, VIRTIO_BLK_T_DISCARD, 0, sizeof(range),
				 &range);
	promise(!status && stored_bytes(change) + bytes <= written,
		"%" PRIu32 " MiB discarded: the file has %" PRIu64
		" KiB, and had %" PRIu64,
		mib, stored_bytes(change) / 1024, written / 1024);
}

/* The file is made larger, and the device told to look. */
static void show_growth(struct change *change, uint32_t mib)
{
	struct driver *driver = &change->machine.driver;
	const uint64_t before = driver->capacity;
	const uint64_t sectors = before + mib * MIB / KTVBLK_SECTOR_SIZE;
	bool told;

	if (ftruncate(change->fd, (off_t)(sectors * KTVBLK_SECTOR_SIZE)) < 0)
		die("the disk cannot grow: %s", strerror(errno));
	must(ktvblk_refresh_capacity(change->machine.dev),
	     "ktvblk_refresh_capacity");
	told = driver_await_change(driver, CALL_MS) &&
	       driver->capacity == sectors;
	promise(told && request(change, VIRTIO_BLK_T_IN, sectors - 1,
				KTVBLK_SECTOR_SIZE, NULL) == 0,
		"grown by %" PRIu32 " MiB: an interrupt tells the guest, which "
		"reads the last of %" PRIu64 " sectors",
		mib, sectors);
}

/* What a VMM does that copies memory while the guest runs. */
static void mark(void *userdata, uint64_t guest_addr, uint64_t length)
{
	struct change *change = (struct change *)userdata;
	const uint64_t first = (guest_addr - GUEST_BASE) / PAGE_BYTES;
	const uint64_t last =
		(guest_addr + length - 1 - GUEST_BASE) / PAGE_BYTES;

	for (uint64_t i = first; i <= last; i++)
		change->dirty[i] = 1;
}

/* How many pages of these were told; and how many are not as they were. */
static unsigned int compare(const struct change *change,
			    const unsigned char *data,
			    const unsigned char *before, size_t bytes,
			    unsigned int *ret_changed)
{
	const size_t first =
		(size_t)(data - change->machine.guest.ram) / PAGE_BYTES;
	unsigned int told = 0;

	*ret_changed = 0;
	for (size_t i = 0; i < bytes / PAGE_BYTES; i++) {
		told += change->dirty[first + i];
		*ret_changed += memcmp(data + i * PAGE_BYTES,
				       before + i * PAGE_BYTES,
				       PAGE_BYTES) != 0;
	}
	return told;
}

/* What a guest reads goes into memory that nobody else writes. */
static void show_dirty(struct change *change, uint32_t reads)
{
	struct driver *driver = &change->machine.driver;
	const size_t bytes = DRIVER_SLOTS * (size_t)DRIVER_DATA_BYTES;
	unsigned char *data = driver_data(driver, 0), *before = malloc(bytes);
	unsigned int changed, told, failed = 0;

	if (!before)
		die("no memory");
	memset(data, 0xa5, bytes);
	memcpy(before, data, bytes);
	must(ktvblk_set_dirty_log(change->machine.dev, mark, change, CALL_MS),
	     "ktvblk_set_dirty_log");
	for (uint32_t i = 0; i < reads; i++)
		failed += request(change, VIRTIO_BLK_T_IN, i,
				  KTVBLK_SECTOR_SIZE, NULL) != 0;
	must(ktvblk_set_dirty_log(change->machine.dev, NULL, NULL, CALL_MS),
	     "ktvblk_set_dirty_log");
	told = compare(change, data, before, bytes, &changed);
	free(before);
	promise(!failed && changed && told == changed,
		"the dirty log told of %u pages of data, and %u changed by "
		"%" PRIu32 " reads",
		told, changed, reads);
}

static void start(struct change *change)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;

	change->fd = memfd_create("ktvblk-demo", MFD_CLOEXEC);
	if (change->fd < 0 || ftruncate(change->fd, CHANGE_MIB * MIB) < 0)
		die("no disk in memory: %s", strerror(errno));
	config.name = "demo";
	must(ktvblk_backend_new_fd(change->fd, NULL, NULL, &config.backend),
	     "ktvblk_backend_new_fd");
	machine_start(&change->machine, &config);
}

void show_change(struct tour *tour)
{
	const struct options *options = &tour->options;
	static struct change change;

	heading("A disk that changes");
	start(&change);
	if (options->iops)
		show_limit(&change, options->iops);
	if (options->discard_mib)
		show_discard(&change, options->discard_mib);
	if (options->grow_mib)
		show_growth(&change, options->grow_mib);
	if (options->dirty_reads)
		show_dirty(&change, options->dirty_reads);
	promise(ktvblk_destroy(change.machine.dev) == KTVBLK_JOINED &&
			machine_end(&change.machine),
		"destroyed: the worker is joined, guest memory is unmapped");
	close(change.fd);
}
