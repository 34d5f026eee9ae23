/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See machine.h: all that a VMM does to have a disk. */

#include <linux/virtio_blk.h>
#include <string.h>

#include "machine.h"
#include "say.h"

void machine_start(struct machine *machine, const struct ktvblk_config *config)
{
	int r;

	memset(machine, 0, sizeof(*machine));
	r = ktvblk_new(config, &machine->dev);
	ktvblk_backend_unref(config->backend); /* the device has its own */
	if (r < 0)
		die("ktvblk_new: %s", strerror(-r));
	guest_open(&machine->guest);
	r = ktvblk_set_memory(machine->dev, machine->guest.mem);
	guest_lend(&machine->guest);
	if (r < 0)
		die("ktvblk_set_memory: %s", strerror(-r));
	machine->stats = ktvblk_get_stats(machine->dev);
	driver_start(&machine->driver, machine->dev, &machine->guest);
	ktvblk_get_identity(machine->dev, &machine->id, sizeof(machine->id));
}

int machine_hang(struct machine *machine, struct hang *hang)
{
	struct driver *driver = &machine->driver;
	const int slot = driver_free_slot(driver);

	hang_arm(hang);
	driver_submit(driver, slot, VIRTIO_BLK_T_IN, 0, KTVBLK_SECTOR_SIZE);
	driver_kick(driver);
	hang_await_stuck(hang);
	return slot;
}

bool machine_end(struct machine *machine)
{
	machine->stats = ktvblk_stats_unref(machine->stats);
	return guest_close(&machine->guest);
}
