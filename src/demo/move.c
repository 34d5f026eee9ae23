/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A disk that is moved: what its device is, as bytes, and another device that goes
 * on with it. The guest has requests in flight, and sees nothing of it.
 */

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "say.h"
#include "tour.h"

#define IN_FLIGHT 8
#define PAUSE_MS 5000

struct move {
	struct tour *tour;
	struct guest guest;
	struct driver driver;
	struct ktvblk_dev *dev;
	uint64_t sectors[DRIVER_SLOTS];
	uint64_t random; /* state */
	uint64_t reads, bad;
	int bytes; /* of the last state */
};

/* Each has its own storage, as in another process; guest memory is one. */
static struct ktvblk_dev *make_device(const struct move *move)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	const struct image *image = &move->tour->image;
	struct ktvblk_dev *dev = NULL;
	int r;

	config.name = "demo";
	config.flags = image->read_only ? KTVBLK_READ_ONLY : 0;
	r = ktvblk_backend_new_fd(image->fd, NULL, NULL, &config.backend);
	if (r == 0)
		r = ktvblk_new(&config, &dev);
	ktvblk_backend_unref(config.backend);
	if (r == 0)
		r = ktvblk_set_memory(dev, move->guest.mem);
	if (r < 0)
		die("no device: %s", strerror(-r));
	return dev;
}

static void submit_some(struct move *move)
{
	for (int i = 0; i < IN_FLIGHT; i++) {
		const int slot = driver_free_slot(&move->driver);

		move->sectors[slot] =
			next_random(&move->random) % move->tour->image.sectors;
		driver_submit(&move->driver, slot, VIRTIO_BLK_T_IN,
			      move->sectors[slot], KTVBLK_SECTOR_SIZE);
	}
	driver_kick(&move->driver);
}

static void complete_all(struct move *move)
{
	while (move->driver.busy) {
		uint8_t status = 0xff;
		const int slot = driver_wait(&move->driver, 5000, &status);

		if (slot < 0)
			die("a request was lost by the way");
		move->reads++;
		move->bad += status != VIRTIO_BLK_S_OK ||
			     image_judge(&move->tour->image,
					 move->sectors[slot], 1,
					 driver_data(&move->driver, slot));
	}
}

/* What a VMM does: the bytes may go by a file or a network in between. */
static void move_once(struct move *move)
{
	struct ktvblk_dev *next;
	void *state;
	int r;

	r = ktvblk_pause(move->dev, PAUSE_MS);
	if (r < 0)
		die("ktvblk_pause: %s", strerror(-r));
	move->bytes = ktvblk_save(move->dev, NULL, 0);
	state = malloc((size_t)move->bytes);
	if (!state)
		die("no memory");
	r = ktvblk_save(move->dev, state, (size_t)move->bytes);
	if (r < 0)
		die("ktvblk_save: %s", strerror(-r));
	if (ktvblk_destroy(move->dev) != KTVBLK_JOINED)
		die("the first device did not end");
	next = make_device(move);
	r = ktvblk_restore(next, state, (size_t)r);
	if (r < 0)
		die("ktvblk_restore: %s", strerror(-r));
	free(state);
	move->dev = move->driver.dev = next;
	ktvblk_resume(next);
}

void show_move(struct tour *tour)
{
	const uint32_t moves = tour->options.moves;
	struct move move = { .tour = tour, .random = tour->options.seed };

	heading("A disk that is moved");
	guest_open(&move.guest);
	move.dev = make_device(&move);
	driver_start(&move.driver, move.dev, &move.guest);
	for (uint32_t i = 0; i < moves; i++) {
		submit_some(&move);
		move_once(&move);
		complete_all(&move);
	}
	promise(move.reads == (uint64_t)moves * IN_FLIGHT && !move.bad,
		"saved, and restored to another device, %" PRIu32
		" times with %d reads in flight: each came once, and was right",
		moves, IN_FLIGHT);
	say("saved", "%d bytes", move.bytes);
	guest_lend(&move.guest);
	promise(ktvblk_destroy(move.dev) == KTVBLK_JOINED &&
			guest_close(&move.guest),
		"the last of them is destroyed: the worker is joined");
}
