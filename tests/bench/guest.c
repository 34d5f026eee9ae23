/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See guest.h. */

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "count.h"
#include "guest.h"

/* Guest memory: the rings come first. */
#define DESCS 0x0u
#define AVAIL 0x4000u
#define USED 0x8000u

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

static unsigned char *open_memory(const struct guest *guest,
				  const struct bench_case *what)
{
	struct ktvblk_region region = { .size = driver_ram_bytes(what,
								 DEPTH_MAX) };
	struct ktvblk_mem *mem;
	int r;

	region.host_addr = mmap(NULL, region.size, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region.host_addr == MAP_FAILED)
		die("guest memory: %s", strerror(errno));
	r = guest->api->mem_new(&region, 1, NULL, NULL, &mem);
	if (r == 0)
		r = guest->api->set_memory(guest->dev, mem);
	if (r < 0)
		die("guest memory: %s", strerror(-r));
	guest->api->mem_unref(mem);
	return (unsigned char *)region.host_addr;
}

/* An interrupt. */
static void acknowledge(struct driver *driver)
{
	const struct guest *guest = container_of(driver, struct guest, driver);

	reg_write(guest, VIRTIO_MMIO_INTERRUPT_ACK,
		  reg_read(guest, VIRTIO_MMIO_INTERRUPT_STATUS));
}

int guest_open(struct guest *guest, const struct api *api,
	       const struct bench_case *what, const struct store *store,
	       uint32_t worker_cpu)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	int r;

	*guest = (struct guest){ .api = api };
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
	driver_open(&guest->driver, what, open_memory(guest, what));
	guest->driver.kick_fd = api->kick_fd(guest->dev);
	guest->driver.irq_fd = api->irq_fd(guest->dev);
	guest->driver.acknowledge = acknowledge;
	return 0;
}

static uint64_t ram_bytes(const struct guest *guest)
{
	return driver_ram_bytes(guest->driver.what, DEPTH_MAX);
}

uint64_t guest_close(struct guest *guest)
{
	const uint64_t start = now_ns();
	const enum ktvblk_outcome outcome = guest->api->destroy(guest->dev);
	const uint64_t took = now_ns() - start;

	if (outcome != KTVBLK_JOINED)
		die("%s: destroy says %d", guest->driver.what->name, outcome);
	munmap(guest->driver.ram, ram_bytes(guest));
	*guest = (struct guest){ 0 };
	return took;
}

uint64_t guest_resident_bytes(const struct guest *guest)
{
	unsigned char pages[1024];
	const uint64_t all = ram_bytes(guest);
	uint64_t resident = 0;

	for (uint64_t at = 0; at < all; at += sizeof(pages) * 4096) {
		const uint64_t n =
			MIN(all - at, (uint64_t)sizeof(pages) * 4096);

		if (mincore(guest->driver.ram + at, n, pages) < 0)
			die("mincore: %s", strerror(errno));
		for (uint64_t i = 0; i < n / 4096; i++)
			resident += (pages[i] & 1) * UINT64_C(4096);
	}
	return resident;
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

	driver_set_up_queue(&guest->driver, DESCS, AVAIL, USED);
	reg_write(guest, VIRTIO_MMIO_QUEUE_SEL, 0);
	reg_write(guest, VIRTIO_MMIO_QUEUE_NUM, guest->driver.queue_size);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		reg_write(guest, parts[i].offset, parts[i].addr);
	reg_write(guest, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void add_status(struct guest *guest, uint32_t bit)
{
	reg_write(guest, VIRTIO_MMIO_STATUS,
		  reg_read(guest, VIRTIO_MMIO_STATUS) | bit);
	if (!(reg_read(guest, VIRTIO_MMIO_STATUS) & bit))
		die("%s: the device refused status bit %#x",
		    guest->driver.what->name, bit);
}

void guest_prepare(struct guest *guest)
{
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) |
			    FEATURE(VIRTIO_BLK_F_FLUSH);

	if (!guest->driver.what->no_event_idx)
		features |= FEATURE(VIRTIO_RING_F_EVENT_IDX);
	if (!guest->driver.what->no_indirect)
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
		die("%s: not reset", guest->driver.what->name);
}

void guest_start(struct guest *guest)
{
	pid_t before[1024], after[1024];
	const size_t n = threads_list(0, before, ARRAY_SIZE(before));
	size_t m;

	guest_go(guest);
	/* The one thread that was not there before. */
	m = threads_list(0, after, ARRAY_SIZE(after));
	guest->worker = 0;
	for (size_t i = 0; i < m && m <= ARRAY_SIZE(after); i++) {
		size_t j = 0;

		while (j < n && before[j] != after[i])
			j++;
		if (j < n)
			continue;
		if (guest->worker)
			die("%s: more than one thread",
			    guest->driver.what->name);
		guest->worker = after[i];
	}
	if (!guest->worker)
		die("%s: no worker", guest->driver.what->name);
}

/* Asleep as far as we can see: it does nothing more without an event. */
static void await_sleep(const struct guest *guest)
{
	const uint64_t deadline = now_ns() + 10 * NSEC_PER_SEC;

	while (!counts_of(guest->worker).waits) {
		if (now_ns() > deadline)
			die("%s: the worker does not sleep",
			    guest->driver.what->name);
		sched_yield();
	}
}

void guest_batch(struct guest *guest)
{
	await_sleep(guest);
	driver_batch(&guest->driver);
	await_sleep(guest);
	driver_take_late_irqs(&guest->driver);
}

/* Times others put the worker off its CPU. */
static uint64_t preemptions(const struct guest *guest)
{
	return thread_number(guest->worker, "nonvoluntary_ctxt_switches");
}

void guest_run(struct guest *guest, uint64_t for_ns, struct run *run)
{
	const struct counts counts = counts_of(guest->worker);
	const uint64_t preempted = preemptions(guest);
	const uint64_t cpu_ns = process_cpu_ns(0);
	struct counts counts_now;

	driver_run(&guest->driver, for_ns, run);
	/* All others sleep. */
	run->worker_cpu_ns = process_cpu_ns(0) - cpu_ns - run->driver_cpu_ns;
	counts_now = counts_of(guest->worker);
	run->syscalls = counts_now.syscalls - counts.syscalls;
	run->allocations = counts_now.allocations - counts.allocations;
	run->preempted = preemptions(guest) - preempted;
}
