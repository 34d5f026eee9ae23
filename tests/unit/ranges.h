/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_RANGES_H
#define TEST_RANGES_H

/* Requests about ranges, to discard or to have zeros there, as a driver's. */

#include <linux/virtio_blk.h>

#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define T_FLUSH VIRTIO_BLK_T_FLUSH
#define T_DISCARD VIRTIO_BLK_T_DISCARD
#define T_ZEROES VIRTIO_BLK_T_WRITE_ZEROES
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP
#define UNMAP VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

#define RANGE_BYTES sizeof(struct virtio_blk_discard_write_zeroes)
#define RIG_RANGES (RIG_DISCARD | RIG_WRITE_ZEROES)

struct test_range {
	uint64_t sector;
	uint32_t n_sectors;
	uint32_t flags;
};

/* Write them to guest memory; the i-th there is. */
void ranges_put(struct rig *rig, uint64_t addr, const struct test_range *ranges,
		unsigned int n);

/* A chain at head 0 about these, at RIG_DATA. */
void ranges_chain(struct rig *rig, uint32_t type,
		  const struct test_range *ranges, unsigned int n);

/* The same, served; its status. */
int ranges_request(struct rig *rig, uint32_t type,
		   const struct test_range *ranges, unsigned int n);

#define request(rig, type, ...)                                                \
	({                                                                     \
		const struct test_range ranges_[] = { __VA_ARGS__ };           \
                                                                               \
		ranges_request(rig, type, ranges_, ARRAY_SIZE(ranges_));       \
	})

/* The disk has this there, or, -1, what it was made with. */
void disk_expect(const struct rig *rig, uint64_t sector, uint64_t n_sectors,
		 int byte);

#endif
