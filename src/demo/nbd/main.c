/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ktvblk-nbd: a guest at work on a disk that an NBD server has. It reads what
 * it wrote, with 32 requests in flight, and tells what becomes of the disk: kill
 * the server meanwhile, start it again, or stop and continue it.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ktvblk-messages.h>

#include "../driver.h"
#include "../event.h"
#include "../say.h"
#include "nbd.h"

#define SECTORS_MAX (DRIVER_DATA_BYTES / KTVBLK_SECTOR_SIZE)
#define FLUSH_EACH 32 /* requests */
#define LOOK_MS 100

enum { GOOD, FAILED, USAGE, LEFT_BEHIND }; /* exit status */

/* Each slot has a part of the disk for itself, and knows what it wrote last. */
struct part {
	uint64_t sector, n;
	uint64_t stamp; /* 0: nothing */
	uint32_t type; /* in flight */
};

struct load {
	struct ktvblk_dev *dev;
	struct driver driver;
	struct part parts[DRIVER_SLOTS];
	uint64_t part_sectors;
	uint64_t n_done[2], n_flushes; /* reads, writes */
	uint64_t n_errors, n_wrong;
	int state;
};

static struct {
	const char *uri;
	double seconds;
	unsigned int flags;
	struct ktvblk_config config;
} options = { .seconds = 5, .config = KTVBLK_CONFIG_INIT };

static volatile sig_atomic_t told_to_end;
static int reclaimed; /* an event: so says a record */

static void on_signal(int number)
{
	(void)number;
	told_to_end = 1;
}

static void print_record(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	if (!strcmp(record->message_id, KTVBLK_MESSAGE_RECLAIMED))
		event_signal(reclaimed);
	fprintf(stderr, "<%d>", record->priority);
	for (size_t i = 0; i < record->n_fields; i++)
		fprintf(stderr, " [%s]", record->fields[i]);
	fputc('\n', stderr);
}

static void stamp(void *data, const struct part *part)
{
	uint64_t *words = data;

	for (uint64_t i = 0; i < part->n * KTVBLK_SECTOR_SIZE / 8; i++)
		words[i] = part->stamp + i;
}

static bool is_stamped(const void *data, const struct part *part)
{
	const uint64_t *words = data;

	for (uint64_t i = 0; i < part->n * KTVBLK_SECTOR_SIZE / 8; i++)
		if (words[i] != part->stamp + i)
			return false;
	return true;
}

static void submit_one(struct load *load, int slot)
{
	static uint64_t n;
	struct part *part = &load->parts[slot];
	const uint64_t max = load->part_sectors < SECTORS_MAX
				     ? load->part_sectors
				     : SECTORS_MAX;

	if (++n % FLUSH_EACH == 0) {
		part->type = VIRTIO_BLK_T_FLUSH;
		driver_submit(&load->driver, slot, part->type, 0, 0);
		return;
	}
	part->type = part->stamp && rand() % 2 ? VIRTIO_BLK_T_IN
					       : VIRTIO_BLK_T_OUT;
	if (part->type == VIRTIO_BLK_T_OUT) {
		part->n = 1 + (uint64_t)rand() % max;
		part->sector =
			(uint64_t)slot * load->part_sectors +
			(uint64_t)rand() % (load->part_sectors - part->n + 1);
		part->stamp = n << 32;
		stamp(driver_data(&load->driver, slot), part);
	}
	driver_submit(&load->driver, slot, part->type, part->sector,
		      (uint32_t)part->n * KTVBLK_SECTOR_SIZE);
}

static void complete_one(struct load *load, int slot, uint8_t status)
{
	struct part *part = &load->parts[slot];

	if (status != VIRTIO_BLK_S_OK) {
		load->n_errors++;
		printf("error: status %u of a %s\n", status,
		       part->type == VIRTIO_BLK_T_IN	? "read"
		       : part->type == VIRTIO_BLK_T_OUT ? "write"
							: "flush");
		if (part->type == VIRTIO_BLK_T_OUT)
			part->stamp = 0; /* nobody knows what is there */
		return;
	}
	if (part->type == VIRTIO_BLK_T_FLUSH)
		load->n_flushes++;
	else
		load->n_done[part->type == VIRTIO_BLK_T_OUT]++;
	if (part->type == VIRTIO_BLK_T_IN &&
	    !is_stamped(driver_data(&load->driver, slot), part))
		load->n_wrong++;
}

static void tell(struct load *load, bool anyway)
{
	static double told;
	const int state = ktvblk_get_state(load->dev);

	if (state != load->state)
		printf("state: %s\n", ktvblk_state_name(state));
	load->state = state;
	if (!anyway && now_s() < told + 0.2)
		return;
	told = now_s();
	printf("done: %" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64
	       " flushes; %" PRIu64 " errors, %" PRIu64 " reads wrong\n",
	       load->n_done[0], load->n_done[1], load->n_flushes,
	       load->n_errors, load->n_wrong);
}

/* What is in flight at the end is waited for, unless the disk has stalled. */
static void run(struct load *load)
{
	const double end = now_s() + options.seconds;
	bool ending = false;
	uint8_t status;
	int slot;

	while (!ending ||
	       (load->driver.busy && load->state != KTVBLK_STATE_STALLED)) {
		ending = now_s() >= end || told_to_end;
		while (!ending && (slot = driver_free_slot(&load->driver)) >= 0)
			submit_one(load, slot);
		driver_kick(&load->driver);
		slot = driver_wait(&load->driver, LOOK_MS, &status);
		if (slot >= 0)
			complete_one(load, slot, status);
		tell(load, false);
	}
	tell(load, true);
}

static void start(struct load *load, struct guest *guest)
{
	int r = ktvblk_new(&options.config, &load->dev);

	if (r < 0)
		die("ktvblk_new: %s", strerror(-r));
	guest_open(guest);
	r = ktvblk_set_memory(load->dev, guest->mem);
	guest_lend(guest);
	if (r < 0)
		die("ktvblk_set_memory: %s", strerror(-r));
	driver_start(&load->driver, load->dev, guest);
	load->part_sectors = load->driver.capacity / DRIVER_SLOTS;
	if (!load->part_sectors)
		die("the disk is too small");
}

/* It takes what it may; what is out then keeps the guest's memory. */
static bool end(struct load *load, struct guest *guest,
		struct nbd_storage *storage)
{
	const double begun = now_s();
	const enum ktvblk_outcome outcome = ktvblk_destroy(load->dev);

	printf("destroy: %s after %.0f ms\n", ktvblk_outcome_name(outcome),
	       (now_s() - begun) * 1000);
	if (outcome != KTVBLK_JOINED) {
		nbd_storage_abandon(storage);
		puts("abandoned");
	}
	if (outcome == KTVBLK_TIMED_OUT && !event_await(reclaimed, A_WHILE_MS))
		die("the worker does not come back");
	if (!guest_close(guest))
		die("guest memory does not come back");
	puts("guest memory is unmapped");
	return outcome == KTVBLK_JOINED;
}

static _Noreturn void usage(int status)
{
	puts("Usage: ktvblk-nbd [OPTION]... URI\n"
	     "  --seconds N      how long the guest works (5)\n"
	     "  --budget MS      what the end of the disk may take (1000)\n"
	     "  --stall MS       record a request that takes longer (5000)\n"
	     "  --keeps-writes   the server loses none that it has answered\n"
	     "URI: nbd://HOST, or nbd+unix:///?socket=PATH\n"
	     "Exit status: 0, 1 if something failed, 2 if the arguments are "
	     "wrong, 3 if the disk\n"
	     "was left behind stuck.");
	exit(status);
}

static void parse(int argc, char **argv)
{
	static const struct option names[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "budget", required_argument, NULL, 'b' },
		{ "stall", required_argument, NULL, 't' },
		{ "keeps-writes", no_argument, NULL, 'k' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
		if (c == 's')
			options.seconds = atof(optarg);
		else if (c == 'b')
			options.config.destroy_timeout_ms =
				(uint32_t)atoi(optarg);
		else if (c == 't')
			options.config.stall_warn_ms = (uint32_t)atoi(optarg);
		else if (c == 'k')
			options.flags |= NBD_STORAGE_KEEPS_WRITES;
		else
			usage(c == 'h' ? GOOD : USAGE);
	}
	if (optind + 1 != argc)
		usage(USAGE);
	options.uri = argv[optind];
}

int main(int argc, char **argv)
{
	static struct load load = { .state = KTVBLK_STATE_RUNNING };
	struct nbd_storage *storage;
	struct guest guest;
	bool joined;
	int r;

	parse(argc, argv);
	setlinebuf(stdout);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	reclaimed = event_new();
	ktvblk_set_log_handler(print_record, NULL, NULL);
	r = nbd_storage_new(options.uri, options.flags, &storage,
			    &options.config.backend);
	if (r < 0)
		die("%s: %s", options.uri, strerror(-r));
	options.config.name = "nbd";
	start(&load, &guest);
	run(&load);
	joined = end(&load, &guest, storage);
	ktvblk_backend_unref(options.config.backend);
	ktvblk_log_flush(1000);
	if (!joined)
		return LEFT_BEHIND;
	return load.n_errors || load.n_wrong ? FAILED : GOOD;
}
