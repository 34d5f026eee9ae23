/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The disk's size, which may change at any time: a request is looked at with what
 * it is when it begins, and ends as the storage has it.
 *
 *   who wants another size ──► disk_id: sectors, told_bytes ──► workers, records
 *                                 │                             get_identity()
 *                                 └──► mmio.c, which shows it and counts the
 *                                      generation, at the driver's next look
 *
 * The lock of the sessions orders a change with the driver's DRIVER_OK, before
 * which there is no interrupt, and with a change by another thread.
 */

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "device.h"
#include "util.h"
#include "vhost-user/vhost-user.h"

/* With the lock. The driver is to look at config space again. */
static void raise_config(struct ktvblk_dev *dev)
{
	if (dev->transport) {
		transport_config_changed(dev->transport);
		return;
	}
	if (!(atomic_load(&dev->era->status) & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	atomic_fetch_or(&dev->era->interrupt_status, VIRTIO_MMIO_INT_CONFIG);
	device_interrupt(dev);
}

void device_resize(struct ktvblk_dev *dev, uint64_t bytes, uint64_t told_bytes)
{
	struct disk_id *disk = dev->disk_id;
	const uint64_t sectors = (bytes - bytes % dev->disk.block_bytes) >>
				 SECTOR_SHIFT;
	bool changed;

	SCOPED_LOCK(&dev->session_lock);
	changed = disk_id_sectors(disk) != sectors;
	/* Zeros must not be given out for data at any time in between. */
	if (told_bytes > disk_id_told_bytes(disk))
		atomic_store(&disk->told_bytes, told_bytes);
	atomic_store(&disk->capacity_sectors, sectors);
	atomic_store(&disk->told_bytes, told_bytes);
	if (!sectors && bytes)
		log_event(&dev->id, CAPACITY_BELOW_SECTOR, bytes,
			  dev->disk.block_bytes);
	if (changed)
		raise_config(dev);
}

/*
 * It had read what is not so any more when it wrote DRIVER_OK, or when it was
 * saved.
 */
void device_tell_missed_resize(struct ktvblk_dev *dev)
{
	SCOPED_LOCK(&dev->session_lock);

	if (dev->capacity_was_read &&
	    dev->read_sectors != disk_id_sectors(dev->disk_id))
		raise_config(dev);
}

void device_size_unknown(struct ktvblk_dev *dev, int error)
{
	SCOPED_LOCK(&dev->session_lock);

	log_event(&dev->id, CAPACITY_UNKNOWN, error);
}

int ktvblk_set_capacity(struct ktvblk_dev *dev, uint64_t bytes)
{
	if (!dev || !bytes)
		return -EINVAL;
	device_forget_asking(dev);
	/* What was cut off, the storage need not have any more. */
	device_resize(dev, bytes, MIN(disk_id_told_bytes(dev->disk_id), bytes));
	return 0;
}
