/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The blocks that the guest is told of: those the storage has, or what the VMM
 * says, which is never less than the storage asks for. What makes no sense of
 * what a storage says of itself is left out.
 */

#include <linux/virtio_blk.h>

#include "device.h"
#include "util.h"

#define LOGICAL_BYTES_MAX 4096u
#define PHYSICAL_BYTES_MAX (1u << 20)

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

uint32_t topology_logical(const struct ktvblk_config *config)
{
	const struct ktvblk_backend *backend = config->backend;
	const bool untold = config->features_masked >> VIRTIO_BLK_F_BLK_SIZE &
			    1;

	if (config->logical_block_bytes)
		return config->logical_block_bytes;
	/* What it has, unless the guest cannot know, and what it must have. */
	return untold ? backend->block_bytes
		      : MAX(backend->block_bytes, backend->shape.logical_bytes);
}

bool topology_ok(const struct ktvblk_config *config)
{
	const uint32_t must = config->backend->block_bytes;
	const uint32_t logical = topology_logical(config);
	const uint32_t physical = config->physical_block_bytes;

	if (!is_power_of_two(logical) || logical < must ||
	    logical > MAX(LOGICAL_BYTES_MAX, must))
		return false;
	/* The guest must be told of blocks that are larger than sectors. */
	if (logical > SECTOR_BYTES &&
	    config->features_masked >> VIRTIO_BLK_F_BLK_SIZE & 1)
		return false;
	if (physical && (!is_power_of_two(physical) || physical < logical ||
			 physical > PHYSICAL_BYTES_MAX))
		return false;
	return config->opt_io_bytes % logical == 0;
}

static uint32_t physical_bytes(const struct ktvblk_config *config,
			       uint32_t logical)
{
	const uint32_t said = config->backend->shape.physical_bytes;

	if (config->physical_block_bytes)
		return config->physical_block_bytes;
	return is_power_of_two(said) && said > logical &&
			       said <= PHYSICAL_BYTES_MAX
		       ? said
		       : logical;
}

/* In whole physical blocks, or it says nothing. */
static uint32_t blocks(uint32_t bytes, uint32_t logical, uint32_t physical)
{
	return bytes % physical ? 0 : bytes / logical;
}

struct topology topology_of(const struct ktvblk_config *config)
{
	const struct backend_shape *shape = &config->backend->shape;
	const uint32_t logical = topology_logical(config);
	const uint32_t physical = physical_bytes(config, logical);
	uint32_t min = blocks(shape->min_io_bytes, logical, physical);
	struct topology topology = {
		.physical_exp = (uint8_t)__builtin_ctz(physical / logical),
		.opt_io_blocks = config->opt_io_bytes
					 ? config->opt_io_bytes / logical
					 : blocks(shape->opt_io_bytes, logical,
						  physical),
	};

	if (!min || min > UINT16_MAX)
		min = physical / logical;
	topology.min_io_blocks = (uint16_t)min;
	if (!config->physical_block_bytes && shape->offset_bytes < physical &&
	    shape->offset_bytes % logical == 0 &&
	    shape->offset_bytes / logical <= UINT8_MAX)
		topology.offset_blocks =
			(uint8_t)(shape->offset_bytes / logical);
	return topology;
}
