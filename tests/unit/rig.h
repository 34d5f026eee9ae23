/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_RIG_H
#define TEST_RIG_H

/*
 * A device with guest memory, storage and a driver's hands: a test writes any
 * bytes into the rings and speaks through the registers as a guest would. The
 * worker is the real one.
 *
 *	struct rig rig;
 *
 *	rig_open(&rig, &(struct rig_options){ .features = RIG_EVENT_IDX });
 *	rig_start(&rig);
 *	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), OK);
 *	rig_close(&rig);
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "ktvblk.h"
#include "later.h"
#include "storage.h"

/* Guest-physical addresses of what a test usually needs. */
#define RIG_DESC 0x0u
#define RIG_AVAIL 0x2000u
#define RIG_USED 0x3000u
#define RIG_INDIRECT 0x6000u
#define RIG_HEADER 0x8000u
#define RIG_STATUS 0x9000u
#define RIG_DATA 0x10000u
#define RIG_RAM_BYTES (4u << 20)
/* The same of another queue lies so far behind those of the one before. */
#define RIG_QUEUE_BYTES (RIG_RAM_BYTES / KTVBLK_QUEUES_MAX)
#define RIG_DISK_BYTES (64u << 10)

/* What a status byte holds until the device writes it. */
#define SENTINEL 0xee

#define RIG_VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define RIG_EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define RIG_INDIRECT_DESC (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define RIG_CONFIG_WCE (UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE)
#define RIG_DISCARD (UINT64_C(1) << VIRTIO_BLK_F_DISCARD)
#define RIG_WRITE_ZEROES (UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES)
#define RIG_MQ (UINT64_C(1) << VIRTIO_BLK_F_MQ)

#define S_ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define S_DRV (S_ACK | VIRTIO_CONFIG_S_DRIVER)
#define S_FEAT (S_DRV | VIRTIO_CONFIG_S_FEATURES_OK)
#define S_OK (S_FEAT | VIRTIO_CONFIG_S_DRIVER_OK)

struct rig_options {
	struct ktvblk_config config; /* size and backend are filled in */
	/* The driver's, beside VERSION_1, and FLUSH where it is offered. */
	uint64_t features;
	bool no_flush; /* do not take it */
	uint16_t queue_size; /* 0: 16 */
	unsigned int queues_used; /* by the driver; 0: all of the config */
	uint64_t disk_bytes; /* 0: RIG_DISK_BYTES */
	uint32_t block_bytes, mem_align; /* of the storage; 0: any */
	unsigned int lacks; /* of what the storage could: NO_* */
	struct later *later; /* the disk answers there */
	int disk_fd; /* the disk is in this file; 0: in memory */
	bool own_budgets; /* those of the library, where the config has none */
	bool no_memory; /* do not bind any */
	bool shared; /* memory is in a memfd, ram_fd */
	/* Other regions than one from 0; host_addr is filled in. */
	const struct ktvblk_region *regions;
	size_t n_regions;
	bool guarded; /* nobody can touch what is before and behind each */
};

struct rig {
	struct rig_options options;
	unsigned char *ram; /* RIG_RAM_BYTES; the regions, one after another */
	int ram_fd; /* -1: not shared */
	/* In the place of QueueNotify, if any is set. */
	const int *kick_fds;
	struct ktvblk_region regions[8];
	size_t n_regions;
	unsigned int ram_released;
	struct storage *storage;
	struct ktvblk_mem *mem;
	struct ktvblk_dev *dev;
	struct ktvblk_stats *stats;
	unsigned int queue; /* the one that all below is about */
	uint16_t avail_idx; /* the driver's */
	uint16_t used_seen;
	struct {
		uint16_t avail_idx, used_seen;
	} others[KTVBLK_QUEUES_MAX];
};

/* All below is about this queue from now on; first it is queue 0. */
void rig_select(struct rig *rig, unsigned int queue);

/* Make all of it; the device is at reset. */
void rig_open(struct rig *rig, const struct rig_options *options);

/* Negotiate and set up the queues, up to DRIVER_OK; again after a reset. */
void rig_start(struct rig *rig);
/* The same without DRIVER_OK; and only one queue, of rings that are clear. */
void rig_prepare(struct rig *rig);
void rig_set_up_queue(struct rig *rig);
void rig_reset(struct rig *rig);

/*
 * Destroy the device; the storage must not be held. All must be released when
 * the outcome is JOINED; for the others wait and call rig_free().
 */
enum ktvblk_outcome rig_destroy(struct rig *rig);
void rig_free(struct rig *rig);
void rig_close(struct rig *rig); /* destroy, JOINED, free */

/* Registers. */
uint32_t rig_read(struct rig *rig, uint32_t offset);
void rig_write(struct rig *rig, uint32_t offset, uint32_t value);
uint32_t rig_status(struct rig *rig);

/* Guest memory: the host's address of a guest's one. */
void *rig_at(struct rig *rig, uint64_t addr);

/* Rings, for chains of any shape. */
void rig_desc(struct rig *rig, uint16_t i, uint64_t addr, uint32_t len,
	      uint16_t flags, uint16_t next);
void rig_indirect(struct rig *rig, uint16_t i, uint64_t addr, uint32_t len,
		  uint16_t flags, uint16_t next);
void rig_header(struct rig *rig, uint64_t addr, uint32_t type, uint64_t sector);
void rig_avail(struct rig *rig, uint16_t head); /* make a head available */
void rig_set_avail_idx(struct rig *rig, uint16_t idx);
void rig_set_used_event(struct rig *rig, uint16_t idx);
uint16_t rig_avail_event(struct rig *rig);
uint16_t rig_used_flags(struct rig *rig);
uint16_t rig_used_idx(struct rig *rig);
struct vring_used_elem rig_used(struct rig *rig, uint16_t i); /* ring entry */
void rig_kick(struct rig *rig);

/* Make several available at once: one drain takes them all. */
void rig_avail_all(struct rig *rig, const uint16_t *heads, size_t n);

/* Chains of any shape, in descriptors that follow one another. */
struct rig_part {
	uint64_t addr;
	uint32_t len;
	uint16_t flags; /* READABLE or WRITABLE; more bits as they are */
};
#define READABLE 0
#define WRITABLE VRING_DESC_F_WRITE
void rig_parts(struct rig *rig, uint16_t head, const struct rig_part *parts,
	       size_t n);
/* The same in a table at RIG_INDIRECT, and the descriptor head points to it. */
void rig_parts_indirect(struct rig *rig, uint16_t head,
			const struct rig_part *parts, size_t n);

/* Header, this data, status, in descriptors from head on; see rig_chain(). */
void rig_data(struct rig *rig, uint16_t head, uint32_t type, uint64_t sector,
	      const struct rig_part *data, size_t n);

/* Make a head available, kick, wait for its used entry: the length there. */
uint32_t rig_serve(struct rig *rig, uint16_t head);
/*
 * The same for a chain that must not be completed: a flush behind it, in
 * descriptors 14 and 15, is.
 */
void rig_drop(struct rig *rig, uint16_t head);

/*
 * The usual chain at descriptors head, head+1, head+2: header, one data
 * segment of len bytes at RIG_DATA (none if len is 0), status. Header and
 * status lie at RIG_HEADER + head * 16 and RIG_STATUS + head.
 */
void rig_chain(struct rig *rig, uint16_t head, uint32_t type, uint64_t sector,
	       uint32_t len);
uint8_t *rig_chain_status(struct rig *rig, uint16_t head);

/* Wait until used idx is this; the test fails if it does not come. */
void rig_wait_used(struct rig *rig, uint16_t idx);

/* The usual chain at head 0: make it available, kick, wait; its status. */
int rig_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t len);
int rig_read_sector(struct rig *rig); /* the first */

/*
 * Wait until all that was made available before is dealt with, whether it was
 * answered or not: a flush behind it is served. Uses descriptors 14 and 15.
 */
void rig_sync(struct rig *rig);

/* No tokens at this time. While no worker runs. */
void rig_drain_throttle(struct rig *rig, uint64_t at_ns);
/* This many, and no more with time. While no worker runs. */
void rig_set_tokens(struct rig *rig, int64_t ops, int64_t bytes);
/* The same under one, which looks at its ring again. */
void rig_grant(struct rig *rig, int64_t ops, int64_t bytes);
/* There are none just now, and they come with time. */
void rig_go_on_throttle(struct rig *rig);

/* Interrupts since the last look; takes them. */
uint64_t rig_irqs(struct rig *rig);

/* ... when no more can come of what was served. */
uint64_t rig_irqs_settled(struct rig *rig);

struct ktvblk_counters rig_counters(struct rig *rig);
struct ktvblk_identity rig_identity(struct rig *rig);

#endif
