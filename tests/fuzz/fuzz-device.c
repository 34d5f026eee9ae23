/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A hostile guest: the input is a list of things it does, register accesses,
 * bytes in its memory, descriptors, kicks, resets, in any order. Nothing may
 * crash, hang, or touch what is not guest memory.
 *
 * No worker thread: where one would be created its session is noted, a kick
 * drains it here and now, and a join finishes it. So an input always does the
 * same, and fast. tests/unit has the same guests with real threads.
 */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#include "drain.h"
#include "ending.h"
#include "fuzz.h"
#include "ktvblk.h"
#include "reach.h"
#include "util.h"
#include "worker.h"

/* wrap: pthread_create pthread_clockjoin_np log_emit */

#define DISK_BYTES (32u << 10)
#define REGION_BYTES (64u << 10)
/* Two regions that touch in guest memory, and one behind a gap. */
#define GAP_AT (4u * REGION_BYTES)
#define MOST_OPS 400u

/* What a guest can cause, but where it takes a worker, or the VMM. */
static const enum event not_here[] = {
	EVENT_CAPACITY_BELOW_SECTOR, EVENT_MEMORY_ALREADY_SET,
	EVENT_STATUS_CONTENDED,	     EVENT_STATUS_GUEST_FAILED_CONTENDED,
	EVENT_IRQ_WRITE_FAILED,	     EVENT_DATA_NOT_BLOCKS,
	EVENT_THROTTLE_REDRAINED,    EVENT_CHAIN_TOO_LONG,
	EVENT_SEGMENT_TOO_LARGE,     EVENT_COUNT
};
const struct reach reach = { .first = EVENT_CAPACITY_BELOW_SECTOR,
			     .last = EVENT_REQUEST_DONE,
			     .but = not_here,
			     .counters = true };

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg);
int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until);

/* By queue; the thread's handle is the session. */
static struct session *running[KTVBLK_QUEUES_MAX];

static unsigned int queue_of(const struct session *session)
{
	return session->id.of_queue ? session->id.of_queue - 1 : 0;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*start)(void *), void *arg)
{
	if (start != worker_main)
		return __real_pthread_create(thread, attr, start, arg);
	running[queue_of((struct session *)arg)] = (struct session *)arg;
	*thread = (pthread_t)arg;
	return 0;
}

int __wrap_pthread_clockjoin_np(pthread_t thread, void **ret, clockid_t clock,
				const struct timespec *until)
{
	struct session *session = (struct session *)thread;

	(void)ret;
	(void)clock;
	(void)until;
	running[queue_of(session)] = NULL;
	ending_last_act(session);
	return 0;
}

static void kick(uint32_t queue)
{
	struct session *session;
	uint64_t wait_ns;

	if (queue >= KTVBLK_QUEUES_MAX)
		return;
	session = running[queue];
	if (session && session->mem && session_enter(session)) {
		drain(session, &wait_ns);
		session_leave(session);
	}
}

static void kick_all(void)
{
	for (uint32_t i = 0; i < KTVBLK_QUEUES_MAX; i++)
		kick(i);
}

static struct {
	unsigned char *map; /* guard, three regions with guards, guard */
	unsigned char *region[3];
	unsigned char disk[DISK_BYTES];
	uint8_t trouble; /* what the storage answers next, and how often */
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
	memset(guest.disk, 0x5a, sizeof(guest.disk));
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

/* Storage that mostly works. */
static ssize_t answer(ssize_t n)
{
	const uint8_t trouble = guest.trouble;

	guest.trouble = trouble < 8 ? 0 : (uint8_t)(trouble - 8);
	switch (trouble & 7) {
	case 1:
		return -EINTR;
	case 2:
		return -EIO;
	case 3:
		return n / 2;
	case 4:
		return 0;
	case 5:
		return n + 1;
	default:
		return n;
	}
}

static ssize_t disk_move(const struct iovec *iov, int n_iov, uint64_t offset,
			 bool in)
{
	uint64_t moved = 0;

	for (int i = 0; i < n_iov && offset + moved < DISK_BYTES; i++) {
		unsigned char *at = guest.disk + offset + moved;
		const uint64_t n =
			MIN(iov[i].iov_len, DISK_BYTES - (offset + moved));

		if (in)
			memcpy(iov[i].iov_base, at, n);
		else
			memcpy(at, iov[i].iov_base, n);
		moved += n;
	}
	return answer((ssize_t)moved);
}

static ssize_t disk_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	(void)userdata;
	return disk_move(iov, n_iov, offset, true);
}

static ssize_t disk_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	(void)userdata;
	return disk_move(iov, n_iov, offset, false);
}

static int disk_flush(void *userdata)
{
	(void)userdata;
	return answer(0) < 0 ? -EIO : 0;
}

static int disk_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = DISK_BYTES + 4096; /* its end is thin */
	return 0;
}

static int disk_change(uint64_t offset, uint64_t length, int value)
{
	const ssize_t r = guest.trouble % 8 > 5 ? -EOPNOTSUPP : answer(1);

	guest.trouble = guest.trouble < 8 ? 0 : guest.trouble;
	if (offset + length > DISK_BYTES + 4096)
		abort();
	if (offset < DISK_BYTES && r >= 0)
		memset(guest.disk + offset, value,
		       MIN(length, DISK_BYTES - offset));
	return (int)MIN(r, 0);
}

static int disk_discard(void *userdata, uint64_t offset, uint64_t length)
{
	(void)userdata;
	return disk_change(offset, length, 0xdd);
}

static int disk_write_zeroes(void *userdata, uint64_t offset, uint64_t length,
			     uint32_t flags)
{
	(void)userdata;
	if (flags & ~KTVBLK_IO_MAY_UNMAP)
		abort();
	return disk_change(offset, length, 0);
}

static struct ktvblk_dev *make_device(uint8_t kind)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = disk_preadv,
		.pwritev = disk_pwritev,
		.flush = disk_flush,
		.capacity = disk_capacity,
		.discard = disk_discard,
		.write_zeroes = disk_write_zeroes,
	};
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
	if (kind & 4)
		config.throttle.iops = 3;
	if (kind & 16)
		config.n_queues = 2 + (kind >> 5);
	if (ktvblk_backend_new(&ops, NULL, &config.backend) < 0 ||
	    ktvblk_new(&config, &dev) < 0 ||
	    ktvblk_mem_new(regions, 3, NULL, NULL, &mem) < 0)
		abort();
	ktvblk_backend_unref(config.backend);
	if (!(kind & 8))
		ktvblk_set_memory(dev, mem);
	ktvblk_mem_unref(mem);
	return dev;
}

static void reg(struct ktvblk_dev *dev, uint32_t offset, uint32_t value)
{
	value = htole32(value);
	ktvblk_mmio_write(dev, offset, &value, sizeof(value));
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY)
		kick(le32toh(value));
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
	reg(dev, VIRTIO_MMIO_DRIVER_FEATURES, 1);
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
	uint16_t idx;

	memcpy(&idx, guest_at(AVAIL_AT + 2), sizeof(idx));
	idx = le16toh(idx);
	if (running[0])
		guest_put(AVAIL_AT + 4 +
				  2u * (idx & (running[0]->vq.ring.size - 1u)),
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
		kick_all();
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
		kick_all();
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
		kick_all();
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

static void one_op(struct ktvblk_dev *dev, struct fuzz_input *input)
{
	const uint8_t op = fuzz_u8(input);

	/* So that what the others are stays in the corpus. */
	if (op >= 14 * 18) {
		make_ranges(input);
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
		kick_all();
		break;
	case 10:
		guest.trouble = fuzz_u8(input);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	static struct ktvblk_dev *keep; /* so that the log thread stays */
	struct ktvblk_stats *stats;
	struct ktvblk_dev *dev;

	make_guest();
	if (!keep) {
		ktvblk_set_log_handler(ignore, NULL, NULL);
		ktvblk_set_log_level(LOG_DEBUG);
		keep = make_device(0);
	}
	guest.trouble = 0;
	dev = make_device(fuzz_u8(&input));
	stats = ktvblk_get_stats(dev);
	for (unsigned int i = 0; i < MOST_OPS && input.left; i++)
		one_op(dev, &input);
	if (ktvblk_destroy(dev) != KTVBLK_JOINED)
		abort();
	reach_count(stats);
	ktvblk_stats_unref(stats);
	return 0;
}
