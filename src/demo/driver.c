/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See driver.h. Section numbers are those of the virtio specification, 1.2. */

#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "say.h"

/* Each slot has three descriptors: header, data, status. */
#define SLOT_DESCS 3
#define QUEUE_SIZE 128

/* Where in guest memory the driver keeps its things. */
#define DESC_TABLE GUEST_BASE
#define AVAIL_RING (GUEST_BASE + 0x1000)
#define USED_RING (GUEST_BASE + 0x2000)
#define HEADERS (GUEST_BASE + 0x3000)
#define STATUSES (GUEST_BASE + 0x4000)
#define DATA (GUEST_BASE + 0x10000)

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define NEEDED (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_EVENT_IDX))
#define WANTED                                                                 \
	(NEEDED | FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_RO) |     \
	 FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES))

static uint32_t reg_read(const struct driver *driver, uint64_t offset)
{
	uint32_t value;

	ktvblk_mmio_read(driver->dev, offset, &value, sizeof(value));
	return le32toh(value);
}

static void reg_write(const struct driver *driver, uint64_t offset,
		      uint32_t value)
{
	value = htole32(value);
	ktvblk_mmio_write(driver->dev, offset, &value, sizeof(value));
}

static void add_status(const struct driver *driver, uint32_t bit)
{
	reg_write(driver, VIRTIO_MMIO_STATUS,
		  reg_read(driver, VIRTIO_MMIO_STATUS) | bit);
	if (!(reg_read(driver, VIRTIO_MMIO_STATUS) & bit))
		die("the device refused status bit %#x", bit);
}

/* The rings. Their indices are shared with the worker: always atomic. */
static struct vring_desc *descs(const struct driver *driver)
{
	return (struct vring_desc *)guest_at(driver->guest, DESC_TABLE);
}

static struct vring_avail *avail(const struct driver *driver)
{
	return (struct vring_avail *)guest_at(driver->guest, AVAIL_RING);
}

static struct vring_used *used(const struct driver *driver)
{
	return (struct vring_used *)guest_at(driver->guest, USED_RING);
}

static uint8_t *status_of(const struct driver *driver, int slot)
{
	return (uint8_t *)guest_at(driver->guest, STATUSES + (uint64_t)slot);
}

/* The entry after the avail ring: which completion to interrupt for. */
static void set_used_event(const struct driver *driver, uint16_t idx)
{
	__atomic_store_n((uint16_t *)&avail(driver)->ring[QUEUE_SIZE],
			 htole16(idx), __ATOMIC_SEQ_CST);
}

/* The one after the used ring: which chain the device wants to hear of. */
static uint16_t avail_event(const struct driver *driver)
{
	return le16toh(__atomic_load_n(
		(uint16_t *)(void *)&used(driver)->ring[QUEUE_SIZE],
		__ATOMIC_SEQ_CST));
}

static bool is_done(const struct driver *driver)
{
	return le16toh(__atomic_load_n(&used(driver)->idx, __ATOMIC_SEQ_CST)) !=
	       driver->used_idx;
}

static void negotiate(struct driver *driver)
{
	driver->features = 0;
	for (uint32_t i = 0; i < 2; i++) {
		reg_write(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, i);
		driver->features |=
			(uint64_t)reg_read(driver, VIRTIO_MMIO_DEVICE_FEATURES)
			<< 32 * i;
	}
	driver->features &= WANTED;
	if ((driver->features & NEEDED) != NEEDED)
		die("the device does not offer what the driver needs");
	for (uint32_t i = 0; i < 2; i++) {
		reg_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		reg_write(driver, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(driver->features >> 32 * i));
	}
}

static void set_up_queue(struct driver *driver)
{
	const struct {
		uint64_t offset, addr;
	} parts[] = {
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, DESC_TABLE },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL_RING },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, USED_RING },
	};

	driver->avail_idx = driver->told_idx = driver->used_idx = 0;
	driver->busy = 0;
	memset(guest_at(driver->guest, DESC_TABLE), 0, HEADERS - DESC_TABLE);
	reg_write(driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	if (reg_read(driver, VIRTIO_MMIO_QUEUE_NUM_MAX) < QUEUE_SIZE)
		die("the device's queue is too small");
	reg_write(driver, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		reg_write(driver, parts[i].offset, (uint32_t)parts[i].addr);
		reg_write(driver, parts[i].offset + 4,
			  (uint32_t)(parts[i].addr >> 32));
	}
	reg_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
}

/* Section 2.5.1: again, if it changed meanwhile. */
static void read_capacity(struct driver *driver)
{
	uint32_t generation;
	uint64_t capacity;

	do {
		generation = reg_read(driver, VIRTIO_MMIO_CONFIG_GENERATION);
		ktvblk_mmio_read(driver->dev, VIRTIO_MMIO_CONFIG, &capacity,
				 sizeof(capacity));
	} while (reg_read(driver, VIRTIO_MMIO_CONFIG_GENERATION) != generation);
	driver->capacity = le64toh(capacity);
}

/* Section 3.1.1, step by step. */
void driver_start(struct driver *driver, struct ktvblk_dev *dev,
		  struct guest *guest)
{
	driver->dev = dev;
	driver->guest = guest;
	if (reg_read(driver, VIRTIO_MMIO_MAGIC_VALUE) != 0x74726976 ||
	    reg_read(driver, VIRTIO_MMIO_VERSION) != 2 ||
	    reg_read(driver, VIRTIO_MMIO_DEVICE_ID) != VIRTIO_ID_BLOCK)
		die("this is no virtio-blk device");
	driver_reset(driver);
	add_status(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(driver, VIRTIO_CONFIG_S_DRIVER);
	negotiate(driver);
	add_status(driver, VIRTIO_CONFIG_S_FEATURES_OK);
	read_capacity(driver);
	set_up_queue(driver);
	add_status(driver, VIRTIO_CONFIG_S_DRIVER_OK);
}

bool driver_break_a_rule(struct driver *driver)
{
	const uint32_t status = reg_read(driver, VIRTIO_MMIO_STATUS);

	reg_write(driver, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	return reg_read(driver, VIRTIO_MMIO_STATUS) == status;
}

void driver_reset(struct driver *driver)
{
	reg_write(driver, VIRTIO_MMIO_STATUS, 0);
}

/* Round about, so that one just used is left alone for a while. */
int driver_free_slot(struct driver *driver)
{
	for (int i = 1; i <= DRIVER_SLOTS; i++) {
		const int slot = (driver->last_slot + i) % DRIVER_SLOTS;

		if (!(driver->busy >> slot & 1)) {
			driver->last_slot = slot;
			return slot;
		}
	}
	return -1;
}

void *driver_data(const struct driver *driver, int slot)
{
	return guest_at(driver->guest,
			DATA + (uint64_t)slot * DRIVER_DATA_BYTES);
}

static void put_desc(struct driver *driver, int *i, uint64_t addr,
		     uint32_t bytes, uint16_t flags)
{
	descs(driver)[*i] = (struct vring_desc){
		.addr = htole64(addr),
		.len = htole32(bytes),
		.flags = htole16(flags),
		.next = htole16((uint16_t)(*i + 1)),
	};
	++*i;
}

void driver_submit(struct driver *driver, int slot, uint32_t type,
		   uint64_t sector, uint32_t bytes)
{
	const uint64_t header = HEADERS + (uint64_t)slot * 16;
	const int head = slot * SLOT_DESCS;
	int i = head;

	*(struct virtio_blk_outhdr *)guest_at(driver->guest, header) =
		(struct virtio_blk_outhdr){
			.type = htole32(type),
			.sector = htole64(sector),
		};
	*status_of(driver, slot) = 0xff;
	put_desc(driver, &i, header, sizeof(struct virtio_blk_outhdr),
		 VRING_DESC_F_NEXT);
	if (bytes)
		put_desc(driver, &i, DATA + (uint64_t)slot * DRIVER_DATA_BYTES,
			 bytes,
			 VRING_DESC_F_NEXT |
				 (type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE
							  : 0));
	put_desc(driver, &i, STATUSES + (uint64_t)slot, 1, VRING_DESC_F_WRITE);
	driver->busy |= 1u << slot;
	avail(driver)->ring[driver->avail_idx % QUEUE_SIZE] =
		htole16((uint16_t)head);
	driver->avail_idx++;
	/* The chain is complete before the device can see it. */
	__atomic_store_n(&avail(driver)->idx, htole16(driver->avail_idx),
			 __ATOMIC_SEQ_CST);
}

/* A real VMM binds ktvblk_kick_fd() as ioeventfd: this write never exits. */
void driver_kick(struct driver *driver)
{
	if (vring_need_event(avail_event(driver), driver->avail_idx,
			     driver->told_idx)) {
		driver->kicks++;
		reg_write(driver, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	}
	driver->told_idx = driver->avail_idx;
}

/* A real VMM binds an irqfd. */
static bool take_interrupt(struct driver *driver, int timeout_ms)
{
	struct pollfd irq = { .fd = ktvblk_irq_fd(driver->dev),
			      .events = POLLIN };
	uint64_t count;
	uint32_t why;

	if (poll(&irq, 1, timeout_ms) != 1 ||
	    read(irq.fd, &count, sizeof(count)) < 0)
		return false;
	driver->interrupts++;
	why = reg_read(driver, VIRTIO_MMIO_INTERRUPT_STATUS);
	reg_write(driver, VIRTIO_MMIO_INTERRUPT_ACK, why);
	if (why & VIRTIO_MMIO_INT_CONFIG)
		read_capacity(driver);
	return true;
}

/* Ask for an interrupt, look again, sleep. */
static bool await_interrupt(struct driver *driver, int timeout_ms)
{
	set_used_event(driver, driver->used_idx);
	return is_done(driver) || take_interrupt(driver, timeout_ms);
}

bool driver_await_change(struct driver *driver, int timeout_ms)
{
	const uint64_t before = driver->capacity;

	while (driver->capacity == before)
		if (!take_interrupt(driver, timeout_ms))
			return false;
	return true;
}

int driver_wait(struct driver *driver, int timeout_ms, uint8_t *ret_status)
{
	const struct vring_used_elem *elem;
	int slot;

	while (!is_done(driver))
		if (!await_interrupt(driver, timeout_ms))
			return -1;
	elem = &used(driver)->ring[driver->used_idx++ % QUEUE_SIZE];
	slot = (int)le32toh(elem->id) / SLOT_DESCS;
	driver->busy &= ~(1u << slot);
	*ret_status = *status_of(driver, slot);
	return slot;
}

int driver_request(struct driver *driver, int slot, uint32_t type,
		   uint64_t sector, uint32_t bytes)
{
	uint8_t status;

	driver_submit(driver, slot, type, sector, bytes);
	driver_kick(driver);
	return driver_wait(driver, 5000, &status) == slot ? status : -1;
}
