/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See driver.h. Section numbers are those of the virtio specification, 1.2. */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

/* Guest memory behind the rings: for each slot a page of its own, then data. */
#define SLOTS 0x10000u
#define SLOT_BYTES 4096u
#define SLOT_HEADER 0u
#define SLOT_STATUS 64u
#define SLOT_TABLE 128u
#define DATA (SLOTS + DEPTH_MAX * SLOT_BYTES)

/* Each slot has three descriptors; with INDIRECT one, to a table of them. */
#define SLOT_DESCS 3u
#define QUEUE_SIZE 256u

static uint64_t data_at(const struct driver *driver, unsigned int slot)
{
	const uint64_t stride =
		driver->what->bytes < 4096 ? 4096 : driver->what->bytes;

	return DATA + slot * stride;
}

unsigned char *driver_data(const struct driver *driver, unsigned int slot)
{
	return driver->ram + data_at(driver, slot);
}

/*
 * Faulted in, as a guest that runs has its memory; by the kernel too, which has
 * page tables of its own: where a hypervisor shadows both, what the storage
 * writes there is slow the first time, more than ten times the copy itself.
 */
static void fault_in(unsigned char *data, uint64_t n)
{
	const int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	memset(data, 0x5a, n);
	for (ssize_t r; n; data += r, n -= (uint64_t)r) {
		r = read(fd, data, n);
		if (r <= 0)
			die("/dev/zero: %s", strerror(errno));
	}
	close(fd);
}

/* What does not change from one use of a slot to the next. */
static void set_up_slot(struct driver *driver, unsigned int slot)
{
	const uint64_t at = SLOTS + slot * SLOT_BYTES;
	struct vring_desc *table =
		driver->what->no_indirect
			? driver->descs + slot * SLOT_DESCS
			: (struct vring_desc *)(void *)(driver->ram + at +
							SLOT_TABLE);
	const unsigned int first = driver->what->no_indirect ? slot * SLOT_DESCS
							     : 0;

	table[0] = (struct vring_desc){
		.addr = htole64(at + SLOT_HEADER),
		.len = htole32(sizeof(struct virtio_blk_outhdr)),
		.flags = htole16(VRING_DESC_F_NEXT),
		.next = htole16((uint16_t)(first + 1)),
	};
	table[1] = (struct vring_desc){
		.addr = htole64(data_at(driver, slot)),
		.len = htole32(driver->what->bytes),
		.next = htole16((uint16_t)(first + 2)),
	};
	table[2] = (struct vring_desc){
		.addr = htole64(at + SLOT_STATUS),
		.len = htole32(1),
		.flags = htole16(VRING_DESC_F_WRITE),
	};
	if (!driver->what->no_indirect)
		driver->descs[slot] = (struct vring_desc){
			.addr = htole64(at + SLOT_TABLE),
			.flags = htole16(VRING_DESC_F_INDIRECT),
		};
	driver->free[slot] = (uint16_t)slot;
}

uint64_t driver_ram_bytes(const struct bench_case *what, unsigned int n_slots)
{
	return data_at(&(struct driver){ .what = what }, n_slots);
}

uint16_t driver_queue_size(const struct bench_case *what)
{
	uint16_t size = QUEUE_SIZE;

	while (what->no_indirect && size < what->depth * SLOT_DESCS)
		size = (uint16_t)(size * 2);
	return size;
}

void driver_open(struct driver *driver, const struct bench_case *what,
		 unsigned char *ram)
{
	*driver = (struct driver){
		.what = what,
		.ram = ram,
		.queue_size = driver_queue_size(what),
	};
	fault_in(ram, driver_ram_bytes(what, what->depth));
}

void driver_set_up_queue(struct driver *driver, uint64_t desc, uint64_t avail,
			 uint64_t used)
{
	unsigned char *ram = driver->ram;

	memset(ram, 0, SLOTS);
	driver->descs = (struct vring_desc *)(void *)(ram + desc);
	driver->avail = (struct vring_avail *)(void *)(ram + avail);
	driver->used = (struct vring_used *)(void *)(ram + used);
	driver->avail_idx = driver->told_idx = driver->used_idx = 0;
	driver->n_free = (uint16_t)driver->what->depth;
	for (unsigned int slot = 0; slot < driver->what->depth; slot++)
		set_up_slot(driver, slot);
}

static void kick(struct driver *driver)
{
	const uint64_t one = 1;
	const uint16_t old = driver->told_idx, new = driver->avail_idx;
	bool wanted;

	/* Section 2.7.13.4.1: the index is seen before we look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	driver->told_idx = new;
	if (driver->what->no_event_idx) {
		wanted = !(__atomic_load_n(&driver->used->flags,
					   __ATOMIC_RELAXED) &
			   htole16(VRING_USED_F_NO_NOTIFY));
	} else {
		/* avail_event, after the used ring's last entry. */
		const uint16_t *event =
			(const uint16_t *)(const void *)&driver->used
				->ring[driver->queue_size];

		wanted = vring_need_event(
			le16toh(__atomic_load_n(event, __ATOMIC_RELAXED)), new,
			old);
	}
	if (!wanted)
		return;
	driver->kicks++;
	if (write(driver->kick_fd, &one, sizeof(one)) != sizeof(one))
		die("kick: %s", strerror(errno));
}

static void fill_slot(struct driver *driver, unsigned int slot)
{
	static const uint32_t types[] = { [CASE_READ] = VIRTIO_BLK_T_IN,
					  [CASE_WRITE] = VIRTIO_BLK_T_OUT,
					  [CASE_FLUSH] = VIRTIO_BLK_T_FLUSH };
	const uint32_t n = driver->next++;
	const enum op op =
		case_slot_op(driver->what, slot, n, driver->flusher_turn);
	unsigned char *page = driver->ram + SLOTS + slot * SLOT_BYTES;
	struct virtio_blk_outhdr *header =
		(struct virtio_blk_outhdr *)(void *)(page + SLOT_HEADER);
	struct vring_desc *table =
		driver->what->no_indirect
			? driver->descs + slot * SLOT_DESCS
			: (struct vring_desc *)(void *)(page + SLOT_TABLE);
	const unsigned int first = driver->what->no_indirect ? slot * SLOT_DESCS
							     : 0;

	driver->flusher_turn += case_is_flusher(driver->what, slot);
	header->type = htole32(types[op]);
	header->sector = op == CASE_FLUSH
				 ? 0
				 : htole64(case_offset(driver->what, n) / 512);
	page[SLOT_STATUS] = 0xff;
	/* A flush has no data: its header goes on with the status. */
	table[0].next = htole16((uint16_t)(first + (op == CASE_FLUSH ? 2 : 1)));
	table[1].flags =
		htole16((uint16_t)(VRING_DESC_F_NEXT |
				   (op == CASE_READ ? VRING_DESC_F_WRITE : 0)));
	if (!driver->what->no_indirect)
		driver->descs[slot].len =
			htole32(SLOT_DESCS * sizeof(struct vring_desc));
}

void driver_submit(struct driver *driver, unsigned int n)
{
	const uint64_t now = now_ns();
	const uint16_t mask = (uint16_t)(driver->queue_size - 1);

	for (; n && driver->n_free; n--) {
		const uint16_t slot = driver->free[--driver->n_free];
		const uint16_t head = (uint16_t)(driver->what->no_indirect
							 ? slot * SLOT_DESCS
							 : slot);

		fill_slot(driver, slot);
		driver->submitted_ns[slot] = now;
		driver->avail->ring[driver->avail_idx++ & mask] = htole16(head);
	}
	/* The chains are complete before the device can see them. */
	__atomic_store_n(&driver->avail->idx, htole16(driver->avail_idx),
			 __ATOMIC_RELEASE);
	kick(driver);
}

static uint16_t n_done(const struct driver *driver)
{
	const uint16_t idx =
		le16toh(__atomic_load_n(&driver->used->idx, __ATOMIC_ACQUIRE));

	return (uint16_t)(idx - driver->used_idx);
}

unsigned int driver_reap(struct driver *driver, struct histogram *latency)
{
	const uint16_t mask = (uint16_t)(driver->queue_size - 1);
	const uint16_t n = n_done(driver);
	const uint16_t idx = (uint16_t)(driver->used_idx + n);
	uint64_t now;

	if (!n)
		return 0;
	now = now_ns();
	for (; driver->used_idx != idx; driver->used_idx++) {
		const struct vring_used_elem *elem =
			&driver->used->ring[driver->used_idx & mask];
		const uint32_t id = le32toh(elem->id);
		const uint32_t slot =
			driver->what->no_indirect ? id / SLOT_DESCS : id;

		if (slot >= driver->what->depth ||
		    driver->ram[SLOTS + slot * SLOT_BYTES + SLOT_STATUS] !=
			    VIRTIO_BLK_S_OK)
			die("%s: a request failed", driver->what->name);
		if (latency && !case_is_flusher(driver->what, slot))
			histogram_add(latency,
				      now - driver->submitted_ns[slot]);
		driver->free[driver->n_free++] = (uint16_t)slot;
	}
	return n;
}

static void ask_for_irq(struct driver *driver, bool on, uint16_t behind)
{
	if (driver->what->no_event_idx)
		__atomic_store_n(&driver->avail->flags,
				 htole16(on ? 0 : VRING_AVAIL_F_NO_INTERRUPT),
				 __ATOMIC_RELAXED);
	else if (on) /* used_event, after the avail ring's last entry */
		__atomic_store_n(&driver->avail->ring[driver->queue_size],
				 htole16((uint16_t)(driver->used_idx + behind)),
				 __ATOMIC_RELAXED);
}

static void take_irq(struct driver *driver)
{
	struct pollfd irq = { .fd = driver->irq_fd, .events = POLLIN };
	uint64_t count;

	if (poll(&irq, 1, 10000) != 1 ||
	    read(irq.fd, &count, sizeof(count)) != sizeof(count))
		die("%s: no interrupt in 10 s", driver->what->name);
	driver->irqs += count;
	if (driver->acknowledge)
		driver->acknowledge(driver);
}

void driver_await(struct driver *driver)
{
	const unsigned int in_flight = driver->what->depth - driver->n_free;
	const uint16_t behind =
		driver->what->late_irq ? (uint16_t)(in_flight * 3 / 4) : 0;

	ask_for_irq(driver, true, behind);
	/* Section 2.7.14: then look again. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (n_done(driver) <= behind)
		take_irq(driver);
	ask_for_irq(driver, false, 0);
}

void driver_take_late_irqs(struct driver *driver)
{
	uint64_t count;

	if (read(driver->irq_fd, &count, sizeof(count)) == sizeof(count))
		driver->irqs += count;
}

void driver_batch(struct driver *driver)
{
	const unsigned int depth = driver->what->depth;

	ask_for_irq(driver, true, (uint16_t)(depth - 1));
	driver_submit(driver, depth);
	do
		take_irq(driver);
	while (n_done(driver) < depth);
	driver_reap(driver, NULL);
}

void driver_run(struct driver *driver, uint64_t for_ns, struct run *run)
{
	const uint64_t kicks = driver->kicks, irqs = driver->irqs;
	const uint64_t cpu_ns = thread_cpu_ns(gettid());
	const uint64_t start = now_ns();

	*run = (struct run){ 0 };
	driver->next = 0;
	driver_submit(driver, driver->what->depth);
	while (driver->n_free < driver->what->depth) {
		const unsigned int n = driver_reap(driver, &run->latency);

		run->requests += n;
		if (n && now_ns() - start < for_ns)
			driver_submit(driver, n);
		else if (!n && !driver->what->spin)
			driver_await(driver);
	}
	run->elapsed_ns = now_ns() - start;
	driver_take_late_irqs(driver);
	run->driver_cpu_ns = thread_cpu_ns(gettid()) - cpu_ns;
	run->kicks = driver->kicks - kicks;
	run->irqs = driver->irqs - irqs;
}
