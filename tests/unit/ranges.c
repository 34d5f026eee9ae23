/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See ranges.h. */

#include <string.h>

#include "ranges.h"

void ranges_put(struct rig *rig, uint64_t addr, const struct test_range *ranges,
		unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const struct virtio_blk_discard_write_zeroes raw = {
			.sector = htole64(ranges[i].sector),
			.num_sectors = htole32(ranges[i].n_sectors),
			.flags = htole32(ranges[i].flags),
		};

		memcpy(rig_at(rig, addr + i * sizeof(raw)), &raw, sizeof(raw));
	}
}

void ranges_chain(struct rig *rig, uint32_t type,
		  const struct test_range *ranges, unsigned int n)
{
	const struct rig_part data = { RIG_DATA, (uint32_t)(n * RANGE_BYTES),
				       READABLE };

	ranges_put(rig, RIG_DATA, ranges, n);
	rig_data(rig, 0, type, 0, &data, 1);
}

int ranges_request(struct rig *rig, uint32_t type,
		   const struct test_range *ranges, unsigned int n)
{
	ranges_chain(rig, type, ranges, n);
	ck_assert_uint_eq(rig_serve(rig, 0), 1);
	return *rig_chain_status(rig, 0);
}

void disk_expect(const struct rig *rig, uint64_t sector, uint64_t n_sectors,
		 int byte)
{
	for (uint64_t i = sector * 512; i < (sector + n_sectors) * 512; i++) {
		const int want = byte < 0 ? storage_pattern(i) : byte;

		if (rig->storage->bytes[i] != want)
			ck_abort_msg("byte %llu of the disk is %#x, not %#x",
				     (unsigned long long)i,
				     rig->storage->bytes[i], want);
	}
}
