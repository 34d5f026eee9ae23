/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_VU_PROTOCOL_H
#define KTVBLK_VU_PROTOCOL_H

/*
 * The numbers and layouts of the vhost-user protocol, in the byte order of the
 * machine. What the kernel's vhost has too comes from its header.
 */

#include <linux/vhost_types.h>
#include <stdint.h>

#include "bounds.h"

#define VU_VERSION 1u
#define VU_VERSION_MASK 3u
#define VU_REPLY 4u
#define VU_NEED_REPLY 8u

/* In place of a virtio feature. */
#define VU_F_PROTOCOL_FEATURES 30

enum vu_protocol_feature {
	VU_P_MQ = 0,
	VU_P_LOG_SHMFD = 1,
	VU_P_REPLY_ACK = 3,
	VU_P_BACKEND_REQ = 5,
	VU_P_CONFIG = 9,
	VU_P_INFLIGHT_SHMFD = 12,
	VU_P_RESET_DEVICE = 13,
	VU_P_INBAND_NOTIFICATIONS = 14,
	VU_P_CONFIGURE_MEM_SLOTS = 15,
	VU_P_STATUS = 16,
	VU_P_GET_VRING_BASE_INFLIGHT = 20,
	VU_P_GET_VRING_BASE_SKIP_DRAIN = 23,
};

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_VRING_KICK = 35,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
	VU_GET_VRING_BASE_SKIP_DRAIN = 45,
	VU_REQUEST_COUNT,
};

enum vu_backend_request {
	VU_BACKEND_CONFIG_CHANGE = 2,
	VU_BACKEND_VRING_CALL = 4,
	VU_BACKEND_VRING_ERR = 5,
};

/* Of SET_VRING_KICK, _CALL and _ERR. */
#define VU_VRING_INDEX 0xffu
#define VU_VRING_NO_FD 0x100u

struct vu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of what follows */
};

struct vu_region {
	uint64_t guest_addr;
	uint64_t size;
	uint64_t user_addr; /* where the front end has it */
	uint64_t mmap_offset; /* in its descriptor */
};

#define VU_TABLE_REGIONS 8u

struct vu_table {
	uint32_t n_regions;
	uint32_t padding;
	struct vu_region regions[VU_TABLE_REGIONS];
};

struct vu_slot {
	uint64_t padding;
	struct vu_region region;
};

struct vu_log {
	uint64_t size;
	uint64_t offset;
};

#define VU_CONFIG_BYTES 256u

struct vu_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t bytes[VU_CONFIG_BYTES];
};

struct vu_inflight {
	uint64_t mmap_size;
	uint64_t mmap_offset;
	uint16_t n_queues;
	uint16_t queue_size;
};

/* Some front ends leave the padding at its end away. */
#define VU_INFLIGHT_BYTES                                                      \
	(offsetof(struct vu_inflight, queue_size) + sizeof(uint16_t))

union vu_payload {
	uint64_t u64;
	struct vhost_vring_state state;
	struct vhost_vring_addr addr;
	struct vu_table table;
	struct vu_slot slot;
	struct vu_log log;
	struct vu_config config;
	struct vu_inflight inflight;
};

#endif
