/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A disk that hangs; the guest resets it, starts it anew, and gets it back. */

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include <ktvblk-messages.h>

#include "machine.h"
#include "records.h"
#include "say.h"
#include "tour.h"

#define NOT_SERVED_MS 50

/* What the guest has put where the late read would go. */
static void fill(const struct tour *tour, unsigned char *data)
{
	uint64_t state = ~tour->options.seed;

	for (size_t i = 0; i < KTVBLK_SECTOR_SIZE; i++)
		data[i] = (unsigned char)next_random(&state);
}

static void show_reset(struct machine *machine, uint32_t budget_ms)
{
	const struct moment start = moment_now();
	struct moment reset, started;
	double ms;
	int state;

	driver_reset(&machine->driver);
	reset = moment_now();
	driver_start(&machine->driver, machine->dev, &machine->guest);
	started = moment_now();
	ms = own_ms(start, reset);
	promise(ms <= budget_ms + GRACE_MS,
		"the guest's reset took %.1f ms, with a budget of %" PRIu32
		" ms",
		ms, budget_ms);
	ms = own_ms(reset, started);
	promise(ms <= budget_ms + GRACE_MS,
		"its driver starts again, to DRIVER_OK, in %.1f ms", ms);
	state = ktvblk_get_state(machine->dev);
	promise(state == KTVBLK_STATE_WEDGED,
		"the device is \"%s\": no second worker touches the disk "
		"while the first may still",
		ktvblk_state_name(state));
	records_tell("the reset timed out", KTVBLK_MESSAGE_RESET_TIMED_OUT,
		     machine->id.instance_id);
	records_tell("the disk has to wait", KTVBLK_MESSAGE_WAITING_FOR_ORPHAN,
		     machine->id.instance_id);
}

static void show_recovery(struct tour *tour, struct machine *machine,
			  struct hang *hang)
{
	struct driver *driver = &machine->driver;
	const int slot = driver_free_slot(driver);
	const uint64_t sector = tour->image.sectors - 1;
	uint8_t status = 0xff;
	int done, state;

	driver_submit(driver, slot, VIRTIO_BLK_T_IN, sector,
		      KTVBLK_SECTOR_SIZE);
	driver_kick(driver);
	promise(driver_wait(driver, NOT_SERVED_MS, &status) < 0,
		"a new read waits");
	hang_let_go(hang);
	say(NULL, "The storage comes back; nobody does anything.");
	done = driver_wait(driver, 5000, &status);
	promise(done == slot && status == VIRTIO_BLK_S_OK &&
			image_judge(&tour->image, sector, 1,
				    driver_data(driver, slot)) == 0,
		"the new read is served, and right");
	records_tell("the worker was reclaimed", KTVBLK_MESSAGE_RECLAIMED,
		     machine->id.instance_id);
	state = ktvblk_get_state(machine->dev);
	promise(state == KTVBLK_STATE_RUNNING, "the device is \"%s\"",
		ktvblk_state_name(state));
}

void show_healing(struct tour *tour)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	unsigned char mine[KTVBLK_SECTOR_SIZE];
	struct machine machine;
	struct hang hang;
	void *data;
	int slot;

	heading("A disk that hangs, and is reset by the guest");
	hang_open(&hang, tour->image.fd);
	config.name = "demo";
	config.flags = tour->image.read_only ? KTVBLK_READ_ONLY : 0;
	config.backend = hang_backend(&hang, tour->image.read_only);
	config.reset_timeout_ms = tour->options.budget_ms;
	machine_start(&machine, &config);

	slot = machine_hang(&machine, &hang);
	data = driver_data(&machine.driver, slot);
	say(NULL, "The guest reads a sector, and the storage hangs.");
	show_reset(&machine, tour->options.budget_ms);
	/* The memory is the guest's again: it uses it for something else. */
	fill(tour, mine);
	memcpy(data, mine, sizeof(mine));
	show_recovery(tour, &machine, &hang);
	promise(memcmp(data, mine, sizeof(mine)) == 0,
		"what the stuck read brought late did not reach guest memory");
	promise(ktvblk_destroy(machine.dev) == KTVBLK_JOINED &&
			machine_end(&machine) && hang_close(&hang),
		"destroyed: the worker is joined");
}
