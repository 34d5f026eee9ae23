/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See guest.h. Section numbers are those of the virtio specification, 1.2. */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "count.h"
#include "guest.h"

/* Guest memory: the rings, then for each slot a page of its own, then data. */
#define DESCS 0x0u
#define AVAIL 0x4000u
#define USED 0x8000u
#define SLOTS 0x10000u
#define SLOT_BYTES 4096u
#define SLOT_HEADER 0u
#define SLOT_STATUS 64u
#define SLOT_TABLE 128u
#define DATA (SLOTS + DEPTH_MAX * SLOT_BYTES)

/* Each slot has three descriptors; with INDIRECT one, to a table of them. */
#define SLOT_DESCS 3u
#define QUEUE_SIZE 256u
#define QUEUE_SIZE_MAX 1024u

#define FEATURE(bit) (UINT64_C(1) << (bit))

static uint32_t reg_read(const struct guest *guest, uint64_t offset)
{
	uint32_t value;

	guest->api->mmio_read(guest->dev, offset, &value, sizeof(value));
	return le32toh(value);
}

static void reg_write(const struct guest *guest, uint64_t offset,
		      uint32_t value)
{
	value = htole32(value);
	guest->api->mmio_write(guest->dev, offset, &value, sizeof(value));
}

static uint64_t data_at(const struct guest *guest, unsigned int slot)
{
	const uint64_t stride = guest->what->bytes < 4096 ? 4096
							  : guest->what->bytes;

	return DATA + slot * stride;
}

unsigned char *guest_data(const struct guest *guest, unsigned int slot)
{
	return guest->ram + data_at(guest, slot);
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

static void open_memory(struct guest *guest)
{
	struct ktvblk_region region = { 0 };
	struct ktvblk_mem *mem;
	int r;

	guest->ram_bytes = data_at(guest, DEPTH_MAX);
	guest->ram = (unsigned char *)mmap(NULL, guest->ram_bytes,
					   PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guest->ram == MAP_FAILED)
		die("guest memory: %s", strerror(errno));
	fault_in(guest->ram, data_at(guest, guest->what->depth));
	region.host_addr = guest->ram;
	region.size = guest->ram_bytes;
	r = guest->api->mem_new(&region, 1, NULL, NULL, &mem);
	if (r == 0)
		r = guest->api->set_memory(guest->dev, mem);
	if (r < 0)
		die("guest memory: %s", strerror(-r));
	guest->api->mem_unref(mem);
}

int guest_open(struct guest *guest, const struct api *api,
	       const struct bench_case *what, const struct store *store,
	       uint32_t worker_cpu)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	int r;

	*guest = (struct guest){ .api = api, .what = what };
	config.backend = store_backend(store, api);
	config.capacity_bytes = DISK_BYTES;
	config.flags = (what->zero_copy ? KTVBLK_ZERO_COPY : 0) |
		       (what->no_poll ? KTVBLK_NO_POLL : 0);
	config.stall_warn_ms = what->stall_warn_ms;
	config.queue_size_max = QUEUE_SIZE_MAX;
	config.engine = what->engine;
	r = api->new (&config, &guest->dev);
	api->backend_unref(config.backend);
	if (r < 0 && what->engine)
		return r;
	if (r < 0)
		die("%s: %s", what->name, strerror(-r));
	r = api->set_worker_cpus(guest->dev, &worker_cpu, 1);
	if (r < 0)
		die("%s: worker on CPU %u: %s", what->name, worker_cpu,
		    strerror(-r));
	guest->kick_fd = api->kick_fd(guest->dev);
	guest->irq_fd = api->irq_fd(guest->dev);
	guest->queue_size = QUEUE_SIZE;
	while (what->no_indirect &&
	       guest->queue_size < what->depth * SLOT_DESCS)
		guest->queue_size = (uint16_t)(guest->queue_size * 2);
	open_memory(guest);
	return 0;
}

uint64_t guest_close(struct guest *guest)
{
	const uint64_t start = now_ns();
	const enum ktvblk_outcome outcome = guest->api->destroy(guest->dev);
	const uint64_t took = now_ns() - start;

	if (outcome != KTVBLK_JOINED)
		die("%s: destroy says %d", guest->what->name, outcome);
	munmap(guest->ram, guest->ram_bytes);
	*guest = (struct guest){ 0 };
	return took;
}

uint64_t guest_resident_bytes(const struct guest *guest)
{
	unsigned char pages[1024];
	uint64_t resident = 0;

	for (uint64_t at = 0; at < guest->ram_bytes;
	     at += sizeof(pages) * 4096) {
		const uint64_t n = MIN(guest->ram_bytes - at,
				       (uint64_t)sizeof(pages) * 4096);

		if (mincore(guest->ram + at, n, pages) < 0)
			die("mincore: %s", strerror(errno));
		for (uint64_t i = 0; i < n / 4096; i++)
			resident += (pages[i] & 1) * UINT64_C(4096);
	}
	return resident;
}

/* What does not change from one use of a slot to the next. */
static void set_up_slot(struct guest *guest, unsigned int slot)
{
	const uint64_t at = SLOTS + slot * SLOT_BYTES;
	struct vring_desc *table =
		guest->what->no_indirect
			? guest->descs + slot * SLOT_DESCS
			: (struct vring_desc *)(void *)(guest->ram + at +
							SLOT_TABLE);
	const unsigned int first = guest->what->no_indirect ? slot * SLOT_DESCS
							    : 0;

	table[0] = (struct vring_desc){
		.addr = htole64(at + SLOT_HEADER),
		.len = htole32(sizeof(struct virtio_blk_outhdr)),
		.flags = htole16(VRING_DESC_F_NEXT),
		.next = htole16((uint16_t)(first + 1)),
	};
	table[1] = (struct vring_desc){
		.addr = htole64(data_at(guest, slot)),
		.len = htole32(guest->what->bytes),
		.next = htole16((uint16_t)(first + 2)),
	};
	table[2] = (struct vring_desc){
		.addr = htole64(at + SLOT_STATUS),
		.len = htole32(1),
		.flags = htole16(VRING_DESC_F_WRITE),
	};
	if (!guest->what->no_indirect)
		guest->descs[slot] = (struct vring_desc){
			.addr = htole64(at + SLOT_TABLE),
			.flags = htole16(VRING_DESC_F_INDIRECT),
		};
	guest->free[slot] = (uint16_t)slot;
}

static void set_up_queue(struct guest *guest)
{
	const struct {
		uint64_t offset;
		uint32_t addr;
	} parts[] = {
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, DESCS },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, USED },
	};

	memset(guest->ram, 0, SLOTS);
	guest->descs = (struct vring_desc *)(void *)(guest->ram + DESCS);
	guest->avail = (struct vring_avail *)(void *)(guest->ram + AVAIL);
	guest->used = (struct vring_used *)(void *)(guest->ram + USED);
	guest->avail_idx = guest->told_idx = guest->used_idx = 0;
	guest->n_free = (uint16_t)guest->what->depth;
	for (unsigned int slot = 0; slot < guest->what->depth; slot++)
		set_up_slot(guest, slot);
	reg_write(guest, VIRTIO_MMIO_QUEUE_SEL, 0);
	reg_write(guest, VIRTIO_MMIO_QUEUE_NUM, guest->queue_size);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		reg_write(guest, parts[i].offset, parts[i].addr);
	reg_write(guest, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void add_status(struct guest *guest, uint32_t bit)
{
	reg_write(guest, VIRTIO_MMIO_STATUS,
		  reg_read(guest, VIRTIO_MMIO_STATUS) | bit);
	if (!(reg_read(guest, VIRTIO_MMIO_STATUS) & bit))
		die("%s: the device refused status bit %#x", guest->what->name,
		    bit);
}

void guest_prepare(struct guest *guest)
{
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) |
			    FEATURE(VIRTIO_BLK_F_FLUSH);

	if (!guest->what->no_event_idx)
		features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
	if (!guest->what->no_indirect)
		features |= FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
	add_status(guest, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(guest, VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t i = 0; i < 2; i++) {
		reg_write(guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		reg_write(guest, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(features >> 32 * i));
	}
	add_status(guest, VIRTIO_CONFIG_S_FEATURES_OK);
	set_up_queue(guest);
}

void guest_go(struct guest *guest)
{
	add_status(guest, VIRTIO_CONFIG_S_DRIVER_OK);
}

void guest_reset(struct guest *guest)
{
	reg_write(guest, VIRTIO_MMIO_STATUS, 0);
	if (reg_read(guest, VIRTIO_MMIO_STATUS))
		die("%s: not reset", guest->what->name);
}

void guest_start(struct guest *guest)
{
	pid_t before[1024], after[1024];
	const size_t n = threads_list(before, ARRAY_SIZE(before));
	size_t m;

	guest_go(guest);
	/* The one thread that was not there before. */
	m = threads_list(after, ARRAY_SIZE(after));
	guest->worker = 0;
	for (size_t i = 0; i < m && m <= ARRAY_SIZE(after); i++) {
		size_t j = 0;

		while (j < n && before[j] != after[i])
			j++;
		if (j < n)
			continue;
		if (guest->worker)
			die("%s: more than one thread", guest->what->name);
		guest->worker = after[i];
	}
	if (!guest->worker)
		die("%s: no worker", guest->what->name);
}

static void kick(struct guest *guest)
{
	const uint64_t one = 1;
	const uint16_t old = guest->told_idx, new = guest->avail_idx;
	bool wanted;

	/* Section 2.7.13.4.1: the index is seen before we look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	guest->told_idx = new;
	if (guest->what->no_event_idx) {
		wanted = !(
			__atomic_load_n(&guest->used->flags, __ATOMIC_RELAXED) &
			htole16(VRING_USED_F_NO_NOTIFY));
	} else {
		/* avail_event, after the used ring's last entry. */
		const uint16_t *event = (const uint16_t *)(const void *)&guest
						->used->ring[guest->queue_size];

		wanted = vring_need_event(
			le16toh(__atomic_load_n(event, __ATOMIC_RELAXED)), new,
			old);
	}
	if (!wanted)
		return;
	guest->kicks++;
	if (write(guest->kick_fd, &one, sizeof(one)) != sizeof(one))
		die("kick: %s", strerror(errno));
}

static void fill_slot(struct guest *guest, unsigned int slot)
{
	static const uint32_t types[] = { [OP_READ] = VIRTIO_BLK_T_IN,
					  [OP_WRITE] = VIRTIO_BLK_T_OUT,
					  [OP_FLUSH] = VIRTIO_BLK_T_FLUSH };
	const uint32_t n = guest->next++;
	const enum op op =
		case_slot_op(guest->what, slot, n, guest->flusher_turn);
	unsigned char *page = guest->ram + SLOTS + slot * SLOT_BYTES;
	struct virtio_blk_outhdr *header =
		(struct virtio_blk_outhdr *)(void *)(page + SLOT_HEADER);
	struct vring_desc *table =
		guest->what->no_indirect
			? guest->descs + slot * SLOT_DESCS
			: (struct vring_desc *)(void *)(page + SLOT_TABLE);
	const unsigned int first = guest->what->no_indirect ? slot * SLOT_DESCS
							    : 0;

	guest->flusher_turn += case_is_flusher(guest->what, slot);
	header->type = htole32(types[op]);
	header->sector =
		op == OP_FLUSH ? 0 : htole64(case_offset(guest->what, n) / 512);
	page[SLOT_STATUS] = 0xff;
	/* A flush has no data: its header goes on with the status. */
	table[0].next = htole16((uint16_t)(first + (op == OP_FLUSH ? 2 : 1)));
	table[1].flags =
		htole16((uint16_t)(VRING_DESC_F_NEXT |
				   (op == OP_READ ? VRING_DESC_F_WRITE : 0)));
	if (!guest->what->no_indirect)
		guest->descs[slot].len =
			htole32(SLOT_DESCS * sizeof(struct vring_desc));
}

void guest_submit(struct guest *guest, unsigned int n)
{
	const uint64_t now = now_ns();
	const uint16_t mask = (uint16_t)(guest->queue_size - 1);

	for (; n && guest->n_free; n--) {
		const uint16_t slot = guest->free[--guest->n_free];
		const uint16_t head = (uint16_t)(guest->what->no_indirect
							 ? slot * SLOT_DESCS
							 : slot);

		fill_slot(guest, slot);
		guest->submitted_ns[slot] = now;
		guest->avail->ring[guest->avail_idx++ & mask] = htole16(head);
	}
	/* The chains are complete before the device can see them. */
	__atomic_store_n(&guest->avail->idx, htole16(guest->avail_idx),
			 __ATOMIC_RELEASE);
	kick(guest);
}

static uint16_t n_done(const struct guest *guest)
{
	const uint16_t idx =
		le16toh(__atomic_load_n(&guest->used->idx, __ATOMIC_ACQUIRE));

	return (uint16_t)(idx - guest->used_idx);
}

unsigned int guest_reap(struct guest *guest, struct histogram *latency)
{
	const uint16_t mask = (uint16_t)(guest->queue_size - 1);
	const uint16_t n = n_done(guest);
	const uint16_t idx = (uint16_t)(guest->used_idx + n);
	uint64_t now;

	if (!n)
		return 0;
	now = now_ns();
	for (; guest->used_idx != idx; guest->used_idx++) {
		const struct vring_used_elem *elem =
			&guest->used->ring[guest->used_idx & mask];
		const uint32_t id = le32toh(elem->id);
		const uint32_t slot = guest->what->no_indirect ? id / SLOT_DESCS
							       : id;

		if (slot >= guest->what->depth ||
		    guest->ram[SLOTS + slot * SLOT_BYTES + SLOT_STATUS] !=
			    VIRTIO_BLK_S_OK)
			die("%s: a request failed", guest->what->name);
		if (latency && !case_is_flusher(guest->what, slot))
			histogram_add(latency, now - guest->submitted_ns[slot]);
		guest->free[guest->n_free++] = (uint16_t)slot;
	}
	return n;
}

static void ask_for_irq(struct guest *guest, bool on, uint16_t behind)
{
	if (guest->what->no_event_idx)
		__atomic_store_n(&guest->avail->flags,
				 htole16(on ? 0 : VRING_AVAIL_F_NO_INTERRUPT),
				 __ATOMIC_RELAXED);
	else if (on) /* used_event, after the avail ring's last entry */
		__atomic_store_n(&guest->avail->ring[guest->queue_size],
				 htole16((uint16_t)(guest->used_idx + behind)),
				 __ATOMIC_RELAXED);
}

static void take_irq(struct guest *guest)
{
	struct pollfd irq = { .fd = guest->irq_fd, .events = POLLIN };
	uint64_t count;

	if (poll(&irq, 1, 10000) != 1 ||
	    read(irq.fd, &count, sizeof(count)) != sizeof(count))
		die("%s: no interrupt in 10 s", guest->what->name);
	guest->irqs += count;
	reg_write(guest, VIRTIO_MMIO_INTERRUPT_ACK,
		  reg_read(guest, VIRTIO_MMIO_INTERRUPT_STATUS));
}

void guest_await(struct guest *guest)
{
	const unsigned int in_flight = guest->what->depth - guest->n_free;
	const uint16_t behind =
		guest->what->late_irq ? (uint16_t)(in_flight * 3 / 4) : 0;

	ask_for_irq(guest, true, behind);
	/* Section 2.7.14: then look again. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (n_done(guest) <= behind)
		take_irq(guest);
	ask_for_irq(guest, false, 0);
}

/* Raised for what had been taken by then. */
static void take_late_irqs(struct guest *guest)
{
	uint64_t count;

	if (read(guest->irq_fd, &count, sizeof(count)) == sizeof(count))
		guest->irqs += count;
}

/* Asleep as far as we can see: it does nothing more without an event. */
static void await_sleep(const struct guest *guest)
{
	const uint64_t deadline = now_ns() + 10 * NSEC_PER_SEC;

	while (!counts_of(guest->worker).waits) {
		if (now_ns() > deadline)
			die("%s: the worker does not sleep", guest->what->name);
		sched_yield();
	}
}

void guest_batch(struct guest *guest)
{
	const unsigned int depth = guest->what->depth;

	await_sleep(guest);
	ask_for_irq(guest, true, (uint16_t)(depth - 1));
	guest_submit(guest, depth);
	do
		take_irq(guest);
	while (n_done(guest) < depth);
	guest_reap(guest, NULL);
	await_sleep(guest);
	take_late_irqs(guest);
}

/* Times others put the worker off its CPU. */
static uint64_t preemptions(const struct guest *guest)
{
	return thread_status(guest->worker, "nonvoluntary_ctxt_switches");
}

void guest_run(struct guest *guest, uint64_t for_ns, struct run *run)
{
	const pid_t self = gettid();
	const struct counts counts = counts_of(guest->worker);
	const uint64_t preempted = preemptions(guest);
	const uint64_t kicks = guest->kicks, irqs = guest->irqs;
	const uint64_t all_ns = process_cpu_ns();
	const uint64_t driver_ns = thread_cpu_ns(self);
	const uint64_t start = now_ns();
	struct counts counts_now;

	*run = (struct run){ 0 };
	guest->next = 0;
	guest_submit(guest, guest->what->depth);
	while (guest->n_free < guest->what->depth) {
		const unsigned int n = guest_reap(guest, &run->latency);

		run->requests += n;
		if (n && now_ns() - start < for_ns)
			guest_submit(guest, n);
		else if (!n && !guest->what->spin)
			guest_await(guest);
	}
	run->elapsed_ns = now_ns() - start;
	take_late_irqs(guest);
	run->driver_cpu_ns = thread_cpu_ns(self) - driver_ns;
	/* All others sleep. */
	run->worker_cpu_ns = process_cpu_ns() - all_ns - run->driver_cpu_ns;
	counts_now = counts_of(guest->worker);
	run->syscalls = counts_now.syscalls - counts.syscalls;
	run->allocations = counts_now.allocations - counts.allocations;
	run->preempted = preemptions(guest) - preempted;
	run->kicks = guest->kicks - kicks;
	run->irqs = guest->irqs - irqs;
}
