/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See fleet.h. */

#include <linux/virtio_blk.h>
#include <string.h>

#include "fleet.h"
#include "harness.h"

struct rig_options fleet_options(void)
{
	return (struct rig_options){ .queue_size = FLEET_QUEUE };
}

uint64_t fleet_data(unsigned int i)
{
	return RIG_DATA + i * KTVBLK_SECTOR_SIZE;
}

static uint16_t head_of(unsigned int i)
{
	return (uint16_t)(i * 3);
}

static bool has_data(uint32_t type)
{
	return type != VIRTIO_BLK_T_FLUSH;
}

void fleet_chain(struct rig *rig, unsigned int i, uint32_t type)
{
	const struct rig_part data = { fleet_data(i), KTVBLK_SECTOR_SIZE,
				       type == VIRTIO_BLK_T_IN ? WRITABLE
							       : READABLE };

	ck_assert_uint_lt(i, FLEET_MAX);
	if (has_data(type))
		memset(rig_at(rig, data.addr), (int)i, data.len);
	rig_data(rig, head_of(i), type, i, &data, has_data(type));
}

void fleet_send(struct rig *rig, unsigned int first, unsigned int n,
		uint32_t type)
{
	uint16_t heads[FLEET_MAX];

	for (unsigned int i = 0; i < n; i++) {
		fleet_chain(rig, first + i, type);
		heads[i] = head_of(first + i);
	}
	rig_avail_all(rig, heads, n);
	rig_kick(rig);
}

unsigned int fleet_used(struct rig *rig, unsigned int n)
{
	return rig_used(rig, (uint16_t)n).id / 3;
}

int fleet_status(struct rig *rig, unsigned int i)
{
	return *rig_chain_status(rig, head_of(i));
}

void fleet_expect(struct rig *rig, unsigned int i, uint8_t status)
{
	const unsigned char *data =
		(const unsigned char *)rig_at(rig, fleet_data(i));

	ck_assert_int_eq(fleet_status(rig, i), status);
	if (status != VIRTIO_BLK_S_OK)
		return;
	for (unsigned int at = 0; at < KTVBLK_SECTOR_SIZE; at++)
		ck_assert_uint_eq(
			data[at],
			rig->storage->bytes[i * KTVBLK_SECTOR_SIZE + at]);
}

bool fleet_untouched(struct rig *rig, unsigned int i)
{
	const unsigned char *data =
		(const unsigned char *)rig_at(rig, fleet_data(i));
	bool same = fleet_status(rig, i) == SENTINEL;

	for (unsigned int at = 0; at < KTVBLK_SECTOR_SIZE; at++)
		same &= data[at] == i;
	return same;
}
