/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A hostile guest: the input is a list of things it does, register accesses,
 * bytes in its memory, descriptors, kicks, resets, in any order; and of what its
 * storage does, which may answer later, in any order, or not before a reset has
 * given up. Nothing may crash, hang, or touch what is not guest memory, nor, of
 * a life that is over, what is.
 *
 * There are no worker threads: see workers.h. tests/unit has the same guests
 * with real ones.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#include "fuzz.h"
#include "ktvblk.h"
#include "reach.h"
#include "store.h"
#include "util.h"
#include "workers.h"

/* wrap: pthread_create pthread_clockjoin_np pthread_detach log_emit */

#define REGION_BYTES (64u << 10)
/* Two regions that touch in guest memory, and one behind a gap. */
#define GAP_AT (4u * REGION_BYTES)
#define MOST_OPS 400u

/* What a guest can cause, but where it takes a worker, or the VMM. */
static const enum event not_here[] = { EVENT_CAPACITY_BELOW_SECTOR,
				       EVENT_MEMORY_ALREADY_SET,
				       EVENT_CAPACITY_UNKNOWN,
				       EVENT_QUEUE_POISONED_MEMORY,
				       EVENT_STATUS_CONTENDED,
				       EVENT_STATUS_GUEST_FAILED_CONTENDED,
				       EVENT_IRQ_WRITE_FAILED,
				       EVENT_DATA_NOT_BLOCKS,
				       EVENT_THROTTLE_REDRAINED,
				       EVENT_CHAIN_TOO_LONG,
				       EVENT_SEGMENT_TOO_LARGE,
				       EVENT_QUEUE_POISONED_HEAD,
				       EVENT_COUNT };
const struct reach reach = { .first = EVENT_CAPACITY_BELOW_SECTOR,
			     .last = EVENT_REQUEST_DONE,
			     .but = not_here,
			     .counters = true };

static struct {
	unsigned char *map; /* guard, three regions with guards, guard */
	unsigned char *region[3];
	bool zero_copy;
} guest;

static void make_guest(void)
{
	const size_t page = 4096, step = REGION_BYTES + page;

	if (!guest.map) {
		guest.map = mmap(NULL, 3 * step + page, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (guest.map == MAP_FAILED)
			abort();
	}
	for (size_t i = 0; i < 3; i++) {
		guest.region[i] = guest.map + page + i * step;
		mprotect(guest.region[i], REGION_BYTES, PROT_READ | PROT_WRITE);
		memset(guest.region[i], 0, REGION_BYTES);
	}
}

static unsigned char *guest_at(uint64_t addr)
{
	if (addr >= GAP_AT && addr - GAP_AT < REGION_BYTES)
		return guest.region[2] + (addr - GAP_AT);
	if (addr < 2 * REGION_BYTES)
		return guest.region[addr / REGION_BYTES] + addr % REGION_BYTES;
	return NULL;
}

static void guest_put(uint64_t addr, const void *from, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char *at = guest_at(addr + i);

		if (at)
			*at = ((const unsigned char *)from)[i];
	}
}

/* What a device is, from one byte. */
enum {
	HAS_IOPS = 4,
	NO_MEMORY = 8,
	SEVERAL_QUEUES = 16,
	ANSWERS_LATER = 32,
};

static struct ktvblk_dev *make_device(uint8_t kind, uint8_t depth)
{
	const struct ktvblk_region regions[] = {
		{ .host_addr = guest.region[0], .size = REGION_BYTES },
		{ .guest_addr = REGION_BYTES,
		  .host_addr = guest.region[1],
		  .size = REGION_BYTES },
		{ .guest_addr = GAP_AT,
		  .host_addr = guest.region[2],
		  .size = REGION_BYTES },
	};
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;
	struct ktvblk_mem *mem = NULL;

	config.flags = kind & (KTVBLK_READ_ONLY | KTVBLK_ZERO_COPY);
	config.depth = depth % (DEPTH_DEFAULT + 1);
	config.backend = store_backend(kind & ANSWERS_LATER);
	if (kind & HAS_IOPS)
		config.throttle.iops = 3;
	if (kind & SEVERAL_QUEUES)
		config.n_queues = 2 + (kind >> 6);
	if (ktvblk_new(&config, &dev) < 0 ||
	    ktvblk_mem_new(regions, 3, NULL, NULL, &mem) < 0)
		abort();
	ktvblk_backend_unref(config.backend);
	if (!(kind & NO_MEMORY))
		ktvblk_set_memory(dev, mem);
	ktvblk_mem_unref(mem);
	return dev;
}

static void reg(struct ktvblk_dev *dev, uint32_t offset, uint32_t value)
{
	value = htole32(value);
	ktvblk_mmio_write(dev, offset, &value, sizeof(value));
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY)
		workers_kick(le32toh(value));
}

/* In this order; that of a call's arguments is the compiler's. */
static void put_reg(struct ktvblk_dev *dev, struct fuzz_input *input)
{
	const uint32_t offset = fuzz_u8(input) * 4u;

	reg(dev, offset, fuzz_u32(input));
}

/* Where set_up() puts the rings. */
#define DESC_AT 0x0u
#define AVAIL_AT 0x4000u
#define USED_AT 0x6000u
#define DATA_AT 0x8000u

/* A feature, if the input wants it and the device has it. */
static uint32_t take(struct ktvblk_dev *dev, unsigned int wants,
		     unsigned int feature)
{
	uint32_t offered;

	reg(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	ktvblk_mmio_read(dev, VIRTIO_MMIO_DEVICE_FEATURES, &offered,
			 sizeof(offered));
	return wants & 1u ? le32toh(offered) & 1u << feature : 0;
}

/* A driver's whole set-up, so that an input gets behind it cheaply. */
static void set_up(struct ktvblk_dev *dev, struct fuzz_input *input)
{
	const uint8_t features = fuzz_u8(input);
	const uint32_t size = 1u << (fuzz_u8(input) % 9);

	for (uint32_t s = 0; s <= VIRTIO_CONFIG_S_DRIVER; s++)
		reg(dev, VIRTIO_MMIO_STATUS, s);
	reg(dev, VIRTIO_MMIO_STATUS, 3);
	reg(dev, VIRTIO_MMIO_DRIVER_FEATURES,
	    (features & 1u) << VIRTIO_RING_F_EVENT_IDX |
		    (features >> 1 & 1u) << VIRTIO_RING_F_INDIRECT_DESC |
		    take(dev, features >> 6, VIRTIO_BLK_F_CONFIG_WCE) |
		    take(dev, features >> 4, VIRTIO_BLK_F_DISCARD) |
		    take(dev, features >> 5, VIRTIO_BLK_F_WRITE_ZEROES));
	reg(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg(dev, VIRTIO_MMIO_DRIVER_FEATURES,
	    1 | (features >> 7 & 1u) << (VIRTIO_F_RING_RESET - 32));
	reg(dev, VIRTIO_MMIO_STATUS, 0xb);
	/* All queues in the same memory, as only a hostile driver has them. */
	for (uint32_t i = 0; i <= (features >> 2 & 3u); i++) {
		reg(dev, VIRTIO_MMIO_QUEUE_SEL, (features >> 2 & 3u) - i);
		reg(dev, VIRTIO_MMIO_QUEUE_NUM, size);
		reg(dev, VIRTIO_MMIO_QUEUE_DESC_LOW, DESC_AT);
		reg(dev, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL_AT);
		reg(dev, VIRTIO_MMIO_QUEUE_USED_LOW, USED_AT);
		reg(dev, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	reg(dev, VIRTIO_MMIO_STATUS, 0xf);
}

static void put_desc(struct fuzz_input *input)
{
	const uint8_t table = fuzz_u8(input);
	const uint8_t at = fuzz_u8(input);
	struct vring_desc desc;

	desc.addr = htole64(fuzz_addr(input, DATA_AT));
	desc.len = htole32(fuzz_len(input));
	desc.flags = htole16(fuzz_u8(input) & 7);
	desc.next = htole16(fuzz_u8(input));
	guest_put((table & 1 ? DATA_AT + 0x1000 : DESC_AT) + at * 16u, &desc,
		  sizeof(desc));
}

static void put_header(struct fuzz_input *input)
{
	const uint64_t at = DATA_AT + fuzz_u8(input) * 16u;
	struct virtio_blk_outhdr header = { 0 };

	header.type = htole32(fuzz_u8(input) % 16);
	header.sector = htole64(fuzz_u8(input));
	guest_put(at, &header, sizeof(header));
}

static void put_head(uint16_t head)
{
	const uint16_t entry = htole16(head);
	const struct session *session = workers_session(0);
	uint16_t idx;

	memcpy(&idx, guest_at(AVAIL_AT + 2), sizeof(idx));
	idx = le16toh(idx);
	if (session)
		guest_put(AVAIL_AT + 4 +
				  2u * (idx & (session->vq.ring.size - 1u)),
			  &entry, sizeof(entry));
	idx = htole16((uint16_t)(idx + 1));
	guest_put(AVAIL_AT + 2, &idx, sizeof(idx));
}

static void make_available(struct fuzz_input *input)
{
	const uint16_t jump = htole16(0x4000);

	put_head(fuzz_u8(input));
	switch (fuzz_u8(input)) {
	case 0:
		break;
	case 0xff:
		guest_put(AVAIL_AT + 2, &jump, sizeof(jump));
		break;
	default:
		workers_kick_all();
	}
}

/* A request as a good driver makes it; what it is about is the input's. */
static void make_request(struct fuzz_input *input)
{
	const uint8_t type = fuzz_u8(input) % 9, where = fuzz_u8(input);
	const uint8_t n = fuzz_u8(input) % 4, head = fuzz_u8(input) % 8;
	const struct virtio_blk_outhdr header = {
		.type = htole32(type),
		.sector = htole64(where % 80),
	};
	const uint16_t direction =
		type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE;
	struct vring_desc descs[6] = {
		{ .addr = htole64(DATA_AT),
		  .len = htole32(sizeof(header)),
		  .flags = htole16(VRING_DESC_F_NEXT) },
	};

	for (uint16_t i = 0; i <= n; i++) {
		struct vring_desc *desc = &descs[i + 1];

		descs[i].next = htole16((uint16_t)(head + i + 1));
		desc->addr = htole64(fuzz_addr(input, DATA_AT + 0x2000));
		desc->len = htole32(512u << fuzz_u8(input) % 8);
		desc->flags = htole16(VRING_DESC_F_NEXT | direction);
	}
	descs[n + 1].addr = htole64(DATA_AT + 0x100);
	descs[n + 1].len = htole32(1);
	descs[n + 1].flags = htole16(VRING_DESC_F_WRITE);
	guest_put(DATA_AT, &header, sizeof(header));
	guest_put(DESC_AT + head * 16u, descs, sizeof(descs));
	put_head(head);
	if (!(where & 0x80))
		workers_kick_all();
}

/* The same about ranges of the disk, in two pieces. */
static void make_ranges(struct fuzz_input *input)
{
	const uint8_t how = fuzz_u8(input), n = fuzz_u8(input) % 8;
	const uint8_t head = fuzz_u8(input) % 8;
	const uint32_t bytes = n * 16u + (how & 2u);
	const uint32_t first = fuzz_u8(input) % (bytes + 1);
	const struct virtio_blk_outhdr header = {
		.type = htole32(how & 1 ? VIRTIO_BLK_T_DISCARD
					: VIRTIO_BLK_T_WRITE_ZEROES),
	};
	struct vring_desc descs[4] = {
		{ .addr = htole64(DATA_AT),
		  .len = htole32(sizeof(header)),
		  .flags = htole16(VRING_DESC_F_NEXT) },
		{ .addr = htole64(DATA_AT + 0x200),
		  .len = htole32(first),
		  .flags = htole16(VRING_DESC_F_NEXT) },
		{ .addr = htole64(DATA_AT + 0x200 + first),
		  .len = htole32(bytes - first),
		  .flags = htole16(VRING_DESC_F_NEXT) },
		{ .addr = htole64(DATA_AT + 0x100),
		  .len = htole32(1),
		  .flags = htole16(VRING_DESC_F_WRITE) },
	};

	for (uint16_t i = 0; i < 4; i++)
		descs[i].next = htole16((uint16_t)(head + i + 1));
	for (uint16_t i = 0; i < n; i++) {
		struct virtio_blk_discard_write_zeroes range;

		range.sector = htole64(fuzz_u8(input) % 80);
		range.num_sectors = htole32(fuzz_u8(input) % 80);
		range.flags = htole32(fuzz_u8(input) % 4);
		guest_put(DATA_AT + 0x200 + i * sizeof(range), &range,
			  sizeof(range));
	}
	guest_put(DATA_AT, &header, sizeof(header));
	guest_put(DESC_AT + head * 16u, descs, sizeof(descs));
	put_head(head);
	if (!(how & 0x80))
		workers_kick_all();
}

static void put_bytes(struct fuzz_input *input)
{
	const uint64_t at = fuzz_u16(input) * 4u;
	unsigned char bytes[32];
	const size_t n = fuzz_u8(input) % sizeof(bytes);

	for (size_t i = 0; i < n; i++)
		bytes[i] = fuzz_u8(input);
	guest_put(at, bytes, n);
}

static void access_odd(struct ktvblk_dev *dev, struct fuzz_input *input)
{
	uint64_t offset = fuzz_u16(input);
	unsigned char bytes[300] = { 0 };
	const size_t len = fuzz_u8(input);

	if (offset & 0x8000)
		offset = UINT64_MAX - (offset & 0xff);
	ktvblk_mmio_read(dev, offset, bytes, len);
	for (size_t i = len; i < sizeof(bytes); i++)
		if (bytes[i])
			abort(); /* wrote behind what it was given */
	bytes[0] = fuzz_u8(input);
	if (len != 4)
		ktvblk_mmio_write(dev, offset, bytes, len);
}

static void save_memory(unsigned char *to)
{
	for (size_t i = 0; i < 3; i++)
		memcpy(to + i * REGION_BYTES, guest.region[i], REGION_BYTES);
}

static void check_memory(const unsigned char *was)
{
	for (size_t i = 0; i < 3; i++)
		if (memcmp(was + i * REGION_BYTES, guest.region[i],
			   REGION_BYTES) != 0)
			abort(); /* behind the fence */
}

/* An answer to one of a life that is over; and the end of that, if it was all. */
static void answer_left(unsigned int i)
{
	static unsigned char was[3 * REGION_BYTES];

	if (!guest.zero_copy)
		save_memory(was);
	store_complete(i);
	/* A transfer may have been on guest memory; nothing else is. */
	if (guest.zero_copy)
		save_memory(was);
	workers_end_left();
	check_memory(was);
}

static void answer_one(unsigned int i)
{
	if (workers_are_left(store_look(i)))
		answer_left(i);
	else
		store_complete(i);
}

static void answer_all(void)
{
	while (store_look(0))
		answer_one(0);
}

/* From here on an op is the storage's, and from there on about ranges. */
#define STORAGE_OPS 0xf0u
#define RANGES_OPS 0xfcu

static void storage_op(uint8_t op, struct fuzz_input *input)
{
	switch (op >> 1 & 7) {
	case 0:
		workers_hang(true);
		break;
	case 1:
		workers_hang(false);
		break;
	case 2:
		answer_all();
		break;
	default:
		answer_one(fuzz_u8(input));
	}
	/* Or the workers have not come to run yet. */
	if (op & 1)
		workers_kick_all();
}

static void one_op(struct ktvblk_dev *dev, struct fuzz_input *input)
{
	const uint8_t op = fuzz_u8(input);

	if (op >= RANGES_OPS) {
		make_ranges(input);
		return;
	}
	if (op >= STORAGE_OPS) {
		storage_op(op, input);
		return;
	}
	switch (op % 14) {
	case 0:
		set_up(dev, input);
		break;
	case 1:
		put_reg(dev, input);
		break;
	case 2:
		access_odd(dev, input);
		break;
	case 3:
		put_bytes(input);
		break;
	case 4:
	case 5:
		put_desc(input);
		break;
	case 6:
		put_header(input);
		break;
	case 7:
	case 8:
		make_available(input);
		break;
	case 9:
		workers_kick_all();
		break;
	case 10:
		store_set_trouble(fuzz_u8(input));
		break;
	case 11:
	case 12:
		make_request(input);
		break;
	case 13:
		reg(dev, VIRTIO_MMIO_STATUS, 0);
		break;
	}
}

static void ignore(const struct ktvblk_record *record, void *userdata)
{
	(void)record;
	(void)userdata;
}

static void destroy(struct ktvblk_dev *dev)
{
	const unsigned int n_before = workers_n_left();
	enum ktvblk_outcome expected = n_before ? KTVBLK_TIMED_OUT
						: KTVBLK_JOINED;
	const enum ktvblk_outcome outcome = ktvblk_destroy(dev);

	if (workers_n_left() > n_before)
		expected = KTVBLK_HELPER_SPAWN_FAILED;
	if (outcome != expected)
		abort();
	answer_all();
	if (workers_n_left())
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	static struct ktvblk_dev *keep; /* so that the log thread stays */
	struct ktvblk_stats *stats;
	struct ktvblk_dev *dev;
	uint8_t kind;

	make_guest();
	store_reset();
	workers_hang(false);
	if (!keep) {
		ktvblk_set_log_handler(ignore, NULL, NULL);
		ktvblk_set_log_level(LOG_DEBUG);
		keep = make_device(0, 0);
	}
	kind = fuzz_u8(&input);
	guest.zero_copy = kind & KTVBLK_ZERO_COPY;
	dev = make_device(kind, kind & ANSWERS_LATER ? fuzz_u8(&input) : 0);
	stats = ktvblk_get_stats(dev);
	for (unsigned int i = 0; i < MOST_OPS && input.left; i++)
		one_op(dev, &input);
	destroy(dev);
	reach_count(stats);
	ktvblk_stats_unref(stats);
	return 0;
}
