/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk that works: the guest reads and writes at random, with several
 * requests in flight, and all it reads is judged.
 */

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include <ktvblk-messages.h>

#include "machine.h"
#include "records.h"
#include "say.h"
#include "tour.h"

#define SECTORS_MAX (DRIVER_DATA_BYTES / KTVBLK_SECTOR_SIZE)
#define FLUSH_EACH 256 /* requests */
#define PROGRESS_S 0.05

struct load {
	struct image *image;
	struct driver *driver;
	uint64_t random; /* state */
	struct {
		uint32_t type;
		uint64_t sector, n;
	} flights[DRIVER_SLOTS];
	uint64_t reads, writes, flushes;
	uint64_t bytes_read, bytes_written;
	uint64_t bad_sectors, failures;
};

/* Two requests in flight may be done in any order: keep them apart. */
static bool is_apart(const struct load *load, uint64_t sector, uint64_t n)
{
	for (int i = 0; i < DRIVER_SLOTS; i++)
		if ((load->driver->busy >> i & 1) &&
		    sector < load->flights[i].sector + load->flights[i].n &&
		    load->flights[i].sector < sector + n)
			return false;
	return true;
}

static bool pick_range(struct load *load, uint64_t *ret_sector, uint64_t *ret_n)
{
	const uint64_t all = load->image->sectors;

	/* A very small disk may have no room for another. */
	for (int i = 0; i < 32; i++) {
		uint64_t n = 1 + next_random(&load->random) % SECTORS_MAX;
		uint64_t sector;

		n = n < all ? n : all;
		sector = next_random(&load->random) % (all - n + 1);
		if (!is_apart(load, sector, n))
			continue;
		*ret_sector = sector;
		*ret_n = n;
		return true;
	}
	return false;
}

static uint32_t pick_type(struct load *load)
{
	const uint64_t random = next_random(&load->random);

	if (random % FLUSH_EACH == 0)
		return VIRTIO_BLK_T_FLUSH;
	return load->image->read_only || random >> 63 ? VIRTIO_BLK_T_IN
						      : VIRTIO_BLK_T_OUT;
}

static bool submit_one(struct load *load)
{
	uint64_t sector = 0, n = 0;
	uint32_t type;
	int slot;

	slot = driver_free_slot(load->driver);
	if (slot < 0)
		return false;
	type = pick_type(load);
	if (type != VIRTIO_BLK_T_FLUSH && !pick_range(load, &sector, &n))
		return false;
	if (type == VIRTIO_BLK_T_OUT)
		image_stamp(load->image, sector, n,
			    driver_data(load->driver, slot));
	load->flights[slot].type = type;
	load->flights[slot].sector = sector;
	load->flights[slot].n = n;
	driver_submit(load->driver, slot, type, sector,
		      (uint32_t)n * KTVBLK_SECTOR_SIZE);
	return true;
}

static void complete_one(struct load *load)
{
	uint8_t status;
	const int slot = driver_wait(load->driver, 5000, &status);
	uint64_t sector, n;

	if (slot < 0)
		die("a request was not completed within 5 s");
	sector = load->flights[slot].sector;
	n = load->flights[slot].n;
	load->failures += status != VIRTIO_BLK_S_OK;
	switch (load->flights[slot].type) {
	case VIRTIO_BLK_T_IN:
		load->reads++;
		load->bytes_read += n * KTVBLK_SECTOR_SIZE;
		load->bad_sectors +=
			image_judge(load->image, sector, n,
				    driver_data(load->driver, slot));
		break;
	case VIRTIO_BLK_T_OUT:
		load->writes++;
		load->bytes_written += n * KTVBLK_SECTOR_SIZE;
		break;
	default:
		load->flushes++;
	}
}

static double mib(uint64_t bytes)
{
	return (double)bytes / (1 << 20);
}

static void report(const struct load *load, double part, double seconds)
{
	progress(part, "%6.0f MiB/s %8.0f requests/s",
		 mib(load->bytes_read + load->bytes_written) / seconds,
		 (double)(load->reads + load->writes + load->flushes) /
			 seconds);
}

static void run(struct load *load, double seconds)
{
	const double start = now_s();
	double now = start, drawn = start;

	while (now < start + seconds) {
		while (submit_one(load))
			;
		driver_kick(load->driver);
		complete_one(load);
		now = now_s();
		if (now - drawn >= PROGRESS_S) {
			drawn = now;
			report(load, 0.99 * (now - start) / seconds,
			       now - start);
		}
	}
	while (load->driver->busy)
		complete_one(load);
	report(load, 1, now_s() - start);
}

static void show_load(const struct load *load)
{
	say("done",
	    "%" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64
	    " flushes; %" PRIu64 " notifications and %" PRIu64 " interrupts",
	    load->reads, load->writes, load->flushes, load->driver->kicks,
	    load->driver->interrupts);
	promise(!load->bad_sectors && !load->failures && load->reads,
		"each of %" PRIu64 " sectors read was as it should be",
		load->bytes_read / KTVBLK_SECTOR_SIZE);
}

static void show_counters(const struct machine *machine,
			  const struct load *load)
{
	struct ktvblk_counters now;

	ktvblk_stats_read(machine->stats, &now, sizeof(now));
	say("counters",
	    "reads_completed %" PRIu64 ", writes_completed %" PRIu64
	    ", flushes_completed %" PRIu64 ", bytes_read %" PRIu64
	    ", bytes_written %" PRIu64 ", throttled_count %" PRIu64
	    ", currently_throttled %" PRIu64 ", io_errors %" PRIu64
	    ", invalid_avail_idx_count %" PRIu64,
	    now.reads_completed, now.writes_completed, now.flushes_completed,
	    now.bytes_read, now.bytes_written, now.throttled_count,
	    now.currently_throttled, now.io_errors,
	    now.invalid_avail_idx_count);
	promise(now.reads_completed == load->reads &&
			now.writes_completed == load->writes &&
			now.flushes_completed == load->flushes &&
			now.bytes_read == load->bytes_read &&
			now.bytes_written == load->bytes_written &&
			!now.io_errors,
		"the device's counters agree with the guest's");
}

static void show_refusal(struct driver *driver)
{
	const int slot = driver_free_slot(driver);
	int status;

	memset(driver_data(driver, slot), 0xa5, KTVBLK_SECTOR_SIZE);
	status = driver_request(driver, slot, VIRTIO_BLK_T_OUT, 0,
				KTVBLK_SECTOR_SIZE);
	promise(status == VIRTIO_BLK_S_IOERR &&
			(driver->features >> VIRTIO_BLK_F_RO & 1),
		"the disk says it is read-only, and refuses a write: status "
		"%d, IOERR",
		status);
}

static void show_rules(struct machine *machine)
{
	promise(driver_break_a_rule(&machine->driver),
		"a guest that breaks a rule gets nowhere, and is recorded");
	records_tell("a rule was broken", KTVBLK_MESSAGE_STATUS_BIT_CLEARED,
		     machine->id.instance_id);
}

void show_disk(struct tour *tour)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct machine machine;
	struct load load = { .image = &tour->image,
			     .driver = &machine.driver,
			     .random = tour->options.seed };
	int r;

	heading("A disk that works");
	config.name = "demo";
	config.flags = tour->image.read_only ? KTVBLK_READ_ONLY : 0;
	r = ktvblk_backend_new_fd(tour->image.fd, NULL, NULL, &config.backend);
	if (r < 0)
		die("ktvblk_backend_new_fd: %s", strerror(-r));
	machine_start(&machine, &config);
	say("driver",
	    "features %#" PRIx64 ", %" PRIu64 " sectors, up to %d "
	    "requests in flight, of 512 B to 64 KiB",
	    machine.driver.features, machine.driver.capacity, DRIVER_SLOTS);
	run(&load, tour->options.seconds);
	show_load(&load);
	show_counters(&machine, &load);
	if (tour->image.read_only)
		show_refusal(&machine.driver);
	show_rules(&machine);
	promise(ktvblk_destroy(machine.dev) == KTVBLK_JOINED &&
			machine_end(&machine),
		"destroyed: the worker is joined, guest memory is unmapped");
}
