/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Config space (section 5.2.4), little-endian. What belongs to a feature that is
 * not offered reads as zeros, as what is behind the end.
 */

#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "device.h"
#include "util.h"

static bool offers(const struct ktvblk_dev *dev, unsigned int feature)
{
	return dev->features >> feature & 1;
}

/* Without indirect tables a request must fit into the queue itself. */
static uint32_t seg_max(const struct ktvblk_dev *dev)
{
	if (offers(dev, VIRTIO_RING_F_INDIRECT_DESC))
		return SEG_MAX;
	return MIN(SEG_MAX, MAX(dev->queue_size_max, 3u) - 2);
}

static void fill_ranges(const struct ktvblk_dev *dev,
			struct virtio_blk_config *config)
{
	const struct disk_config *disk = &dev->disk;

	if (offers(dev, VIRTIO_BLK_F_DISCARD)) {
		config->max_discard_sectors = htole32(DISCARD_SECTORS_MAX);
		config->max_discard_seg = htole32(RANGES_MAX);
		config->discard_sector_alignment =
			htole32(disk->discard_align_sectors);
	}
	if (offers(dev, VIRTIO_BLK_F_WRITE_ZEROES)) {
		config->max_write_zeroes_sectors = htole32(ZERO_SECTORS_MAX);
		config->max_write_zeroes_seg = htole32(ZERO_RANGES_MAX);
		config->write_zeroes_may_unmap = disk->unmap;
	}
}

void config_reset(struct ktvblk_dev *dev)
{
	atomic_store(&dev->era->cache,
		     dev->write_cache ? CACHE_BACK : CACHE_THROUGH);
}

/* Section 5.2.5.2: who cannot flush has nothing that needs it. */
void config_agree(struct ktvblk_dev *dev)
{
	atomic_store(&dev->era->cache,
		     dev->write_cache && dev->driver_features >>
							 VIRTIO_BLK_F_FLUSH &
						 1
			     ? CACHE_BACK
			     : CACHE_THROUGH);
}

void config_set_cache(struct ktvblk_dev *dev, bool back)
{
	/* Release: what is made available behind it is begun so. */
	atomic_store_explicit(&dev->era->cache,
			      back ? CACHE_BACK : CACHE_THROUGH,
			      memory_order_release);
}

void config_write(struct ktvblk_dev *dev, uint64_t offset, const void *data,
		  size_t len)
{
	const unsigned char *bytes = (const unsigned char *)data;

	if (config_has_cache(offset, len) &&
	    status_has_feature(dev, VIRTIO_BLK_F_CONFIG_WCE))
		config_set_cache(dev, bytes[CONFIG_CACHE_AT - offset]);
}

/*
 * The disk's size may change on any thread and at any time, and the driver reads
 * it in two halves, with the generation before and behind. So what is shown of it
 * changes here only, and the generation with it.
 */
void config_look(struct ktvblk_dev *dev)
{
	const uint64_t sectors = disk_id_sectors(dev->disk_id);

	if (sectors == dev->shown_sectors)
		return;
	dev->shown_sectors = sectors;
	dev->config_generation++;
}

/* By an access at this offset. */
static uint64_t read_capacity(struct ktvblk_dev *dev, uint64_t offset)
{
	const size_t size = sizeof(((struct virtio_blk_config *)0)->capacity);

	if (offset < offsetof(struct virtio_blk_config, capacity) + size) {
		config_look(dev);
		dev->capacity_was_read = true;
		dev->read_sectors = dev->shown_sectors;
	}
	return dev->shown_sectors;
}

void config_read(struct ktvblk_dev *dev, uint64_t offset, void *data,
		 size_t len)
{
	struct virtio_blk_config config = {
		.capacity = htole64(read_capacity(dev, offset)),
		.seg_max = htole32(seg_max(dev)),
		.blk_size = htole32(dev->disk.block_bytes),
	};

	if (offers(dev, VIRTIO_BLK_F_MQ))
		config.num_queues = htole16((uint16_t)dev->n_queues);
	if (offers(dev, VIRTIO_BLK_F_TOPOLOGY)) {
		config.physical_block_exp = dev->topology.physical_exp;
		config.alignment_offset = dev->topology.offset_blocks;
		config.min_io_size = htole16(dev->topology.min_io_blocks);
		config.opt_io_size = htole32(dev->topology.opt_io_blocks);
	}
	if (offers(dev, VIRTIO_BLK_F_CONFIG_WCE))
		config.wce = atomic_load(&dev->era->cache) == CACHE_BACK;
	fill_ranges(dev, &config);
	memset(data, 0, len);
	if (offset < sizeof(config))
		memcpy(data, (const char *)&config + offset,
		       (size_t)MIN(len, sizeof(config) - offset));
}
