/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See rig.h. */

#include <endian.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "device.h"
#include "harness.h"
#include "rig.h"

static void ram_release(void *userdata)
{
	struct rig *rig = (struct rig *)userdata;

	__atomic_add_fetch(&rig->ram_released, 1, __ATOMIC_SEQ_CST);
}

static void open_memory(struct rig *rig)
{
	const struct ktvblk_region whole = { .size = RIG_RAM_BYTES };
	const struct rig_options *options = &rig->options;
	const size_t guard = options->guarded ? (size_t)sysconf(_SC_PAGESIZE)
					      : 0;
	uint64_t at = guard;

	rig->ram_fd = -1;
	if (options->shared) {
		rig->ram_fd = memfd_create("ram", MFD_CLOEXEC);
		ck_assert_int_eq(ftruncate(rig->ram_fd, RIG_RAM_BYTES), 0);
	}
	rig->ram =
		mmap(NULL, RIG_RAM_BYTES, PROT_READ | PROT_WRITE,
		     options->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
		     rig->ram_fd, 0);
	ck_assert_ptr_ne(rig->ram, MAP_FAILED);
	rig->n_regions = options->n_regions ? options->n_regions : 1;
	ck_assert_uint_le(rig->n_regions, ARRAY_SIZE(rig->regions));
	for (size_t i = 0; i < rig->n_regions; i++) {
		rig->regions[i] = options->n_regions ? options->regions[i]
						     : whole;
		rig->regions[i].host_addr = rig->ram + at;
		at += rig->regions[i].size;
		ck_assert_uint_le(at + guard, RIG_RAM_BYTES);
		mprotect(rig->ram + at, guard, PROT_NONE);
		at += guard;
	}
	mprotect(rig->ram, guard, PROT_NONE);
	ck_assert_int_eq(ktvblk_mem_new(rig->regions, rig->n_regions,
					ram_release, rig, &rig->mem),
			 0);
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
	struct ktvblk_config *config = &rig->options.config;

	memset(rig, 0, sizeof(*rig));
	if (options)
		rig->options = *options;
	if (!rig->options.queue_size)
		rig->options.queue_size = 16;
	if (!rig->options.disk_bytes)
		rig->options.disk_bytes = RIG_DISK_BYTES;
	open_memory(rig);
	rig->storage = storage_new(rig->options.disk_bytes);
	config->size = sizeof(*config);
	if (!rig->options.own_budgets) {
		/* A thread takes its time, and what it does is the question. */
		if (!config->reset_timeout_ms)
			config->reset_timeout_ms = WAIT_MS;
		if (!config->destroy_timeout_ms)
			config->destroy_timeout_ms = WAIT_MS;
	}
	if (rig->options.later)
		config->backend =
			later_backend(rig->options.later, rig->storage);
	else if (rig->options.disk_fd)
		config->backend = storage_file_backend(rig->storage,
						       rig->options.disk_fd);
	else
		config->backend =
			storage_less_backend(rig->storage, rig->options.lacks);
	if (rig->options.block_bytes) {
		rig->storage->block_bytes = config->backend->block_bytes =
			rig->options.block_bytes;
		rig->storage->mem_align = config->backend->mem_align =
			rig->options.mem_align;
	}
	ck_assert_int_eq(ktvblk_new(config, &rig->dev), 0);
	config->backend = ktvblk_backend_unref(config->backend);
	rig->stats = ktvblk_get_stats(rig->dev);
	if (!rig->options.no_memory)
		ck_assert_int_eq(ktvblk_set_memory(rig->dev, rig->mem), 0);
	rig->mem = ktvblk_mem_unref(rig->mem);
}

static uint64_t features_to_take(struct rig *rig)
{
	uint64_t features = RIG_VERSION_1 | rig->options.features;

	rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	if (!rig->options.no_flush)
		features |= rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES) &
			    1u << VIRTIO_BLK_F_FLUSH;
	return features;
}

void rig_select(struct rig *rig, unsigned int queue)
{
	rig->others[rig->queue].avail_idx = rig->avail_idx;
	rig->others[rig->queue].used_seen = rig->used_seen;
	rig->queue = queue;
	rig->avail_idx = rig->others[queue].avail_idx;
	rig->used_seen = rig->others[queue].used_seen;
}

/* Of this queue. */
static uint64_t here(const struct rig *rig, uint64_t addr)
{
	return addr + rig->queue * RIG_QUEUE_BYTES;
}

void rig_set_up_queue(struct rig *rig)
{
	rig->avail_idx = rig->used_seen = 0;
	memset(rig_at(rig, here(rig, RIG_AVAIL)), 0, 0x1000);
	memset(rig_at(rig, here(rig, RIG_USED)), 0, 0x1000);
	rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, rig->queue);
	rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, rig->options.queue_size);
	rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW,
		  (uint32_t)here(rig, RIG_DESC));
	rig_write(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
		  (uint32_t)here(rig, RIG_AVAIL));
	rig_write(rig, VIRTIO_MMIO_QUEUE_USED_LOW,
		  (uint32_t)here(rig, RIG_USED));
	rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
}

void rig_prepare(struct rig *rig)
{
	const uint64_t features = features_to_take(rig);
	unsigned int n = rig->options.queues_used;

	if (!n)
		n = rig->options.config.n_queues;
	rig_write(rig, VIRTIO_MMIO_STATUS, S_ACK);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_DRV);
	for (uint32_t i = 0; i < 2; i++) {
		rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(features >> 32 * i));
	}
	rig_write(rig, VIRTIO_MMIO_STATUS, S_FEAT);
	ck_assert_uint_eq(rig_status(rig), S_FEAT);
	for (unsigned int i = n ? n : 1; i-- > 0;) {
		rig_select(rig, i);
		rig_set_up_queue(rig);
	}
}

void rig_start(struct rig *rig)
{
	rig_prepare(rig);
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_uint_eq(rig_status(rig) & S_OK, S_OK);
}

void rig_reset(struct rig *rig)
{
	rig_write(rig, VIRTIO_MMIO_STATUS, 0);
}

enum ktvblk_outcome rig_destroy(struct rig *rig)
{
	const enum ktvblk_outcome outcome = ktvblk_destroy(rig->dev);

	rig->dev = NULL;
	if (outcome == KTVBLK_JOINED) {
		ck_assert_uint_eq(rig->storage->released, 1);
		ck_assert_uint_eq(rig->ram_released, 1);
	}
	return outcome;
}

void rig_free(struct rig *rig)
{
	storage_wait_released(rig->storage);
	ck_assert(eventually(
		__atomic_load_n(&rig->ram_released, __ATOMIC_SEQ_CST) == 1));
	ktvblk_stats_unref(rig->stats);
	storage_free(rig->storage);
	munmap(rig->ram, RIG_RAM_BYTES);
	closep(&rig->ram_fd);
}

void rig_close(struct rig *rig)
{
	/* Nothing hangs, so how long it takes is the machine's. */
	rig->dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(rig_destroy(rig), KTVBLK_JOINED);
	rig_free(rig);
}

uint32_t rig_read(struct rig *rig, uint32_t offset)
{
	uint32_t value = 0;

	ktvblk_mmio_read(rig->dev, offset, &value, sizeof(value));
	return le32toh(value);
}

void rig_write(struct rig *rig, uint32_t offset, uint32_t value)
{
	value = htole32(value);
	ktvblk_mmio_write(rig->dev, offset, &value, sizeof(value));
}

uint32_t rig_status(struct rig *rig)
{
	return rig_read(rig, VIRTIO_MMIO_STATUS);
}

void *rig_at(struct rig *rig, uint64_t addr)
{
	for (size_t i = 0; i < rig->n_regions; i++) {
		const struct ktvblk_region *region = &rig->regions[i];

		if (addr >= region->guest_addr &&
		    addr - region->guest_addr < region->size)
			return (unsigned char *)region->host_addr +
			       (addr - region->guest_addr);
	}
	ck_abort_msg("%#llx is not in guest memory", (unsigned long long)addr);
	return NULL;
}

/* Ring fields as a driver's CPU writes and reads them. */
static void put16(struct rig *rig, uint64_t addr, uint16_t value)
{
	__atomic_store_n((uint16_t *)rig_at(rig, addr), htole16(value),
			 __ATOMIC_SEQ_CST);
}

static uint16_t get16(struct rig *rig, uint64_t addr)
{
	return le16toh(__atomic_load_n((uint16_t *)rig_at(rig, addr),
				       __ATOMIC_SEQ_CST));
}

static void put_desc(struct rig *rig, uint64_t table, uint16_t i, uint64_t addr,
		     uint32_t len, uint16_t flags, uint16_t next)
{
	const struct vring_desc desc = {
		.addr = htole64(addr),
		.len = htole32(len),
		.flags = htole16(flags),
		.next = htole16(next),
	};

	memcpy(rig_at(rig, table + i * sizeof(desc)), &desc, sizeof(desc));
}

void rig_desc(struct rig *rig, uint16_t i, uint64_t addr, uint32_t len,
	      uint16_t flags, uint16_t next)
{
	put_desc(rig, here(rig, RIG_DESC), i, addr, len, flags, next);
}

void rig_indirect(struct rig *rig, uint16_t i, uint64_t addr, uint32_t len,
		  uint16_t flags, uint16_t next)
{
	put_desc(rig, here(rig, RIG_INDIRECT), i, addr, len, flags, next);
}

void rig_header(struct rig *rig, uint64_t addr, uint32_t type, uint64_t sector)
{
	const struct virtio_blk_outhdr header = {
		.type = htole32(type),
		.sector = htole64(sector),
	};

	memcpy(rig_at(rig, addr), &header, sizeof(header));
}

void rig_avail(struct rig *rig, uint16_t head)
{
	const unsigned int slot = rig->avail_idx &
				  (rig->options.queue_size - 1u);

	put16(rig, here(rig, RIG_AVAIL) + 4 + 2u * slot, head);
	rig_set_avail_idx(rig, ++rig->avail_idx);
}

void rig_avail_all(struct rig *rig, const uint16_t *heads, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const unsigned int slot = rig->avail_idx++ &
					  (rig->options.queue_size - 1u);

		put16(rig, here(rig, RIG_AVAIL) + 4 + 2u * slot, heads[i]);
	}
	rig_set_avail_idx(rig, rig->avail_idx);
}

void rig_set_avail_idx(struct rig *rig, uint16_t idx)
{
	put16(rig, here(rig, RIG_AVAIL) + 2, idx);
}

void rig_set_used_event(struct rig *rig, uint16_t idx)
{
	put16(rig, here(rig, RIG_AVAIL) + 4 + 2u * rig->options.queue_size,
	      idx);
}

uint16_t rig_avail_event(struct rig *rig)
{
	return get16(rig,
		     here(rig, RIG_USED) + 4 + 8u * rig->options.queue_size);
}

uint16_t rig_used_flags(struct rig *rig)
{
	return get16(rig, here(rig, RIG_USED));
}

uint16_t rig_used_idx(struct rig *rig)
{
	return get16(rig, here(rig, RIG_USED) + 2);
}

struct vring_used_elem rig_used(struct rig *rig, uint16_t i)
{
	const unsigned int slot = i & (rig->options.queue_size - 1u);
	struct vring_used_elem elem;

	memcpy(&elem, rig_at(rig, here(rig, RIG_USED) + 4 + 8u * slot),
	       sizeof(elem));
	elem.id = le32toh(elem.id);
	elem.len = le32toh(elem.len);
	return elem;
}

void rig_kick(struct rig *rig)
{
	if (rig->kick_fds) {
		ck_assert_int_eq(eventfd_signal(rig->kick_fds[rig->queue]), 0);
		return;
	}
	rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, rig->queue);
}

uint8_t *rig_chain_status(struct rig *rig, uint16_t head)
{
	return (uint8_t *)rig_at(rig, here(rig, RIG_STATUS) + head);
}

void rig_chain(struct rig *rig, uint16_t head, uint32_t type, uint64_t sector,
	       uint32_t len)
{
	const uint64_t header = here(rig, RIG_HEADER) + head * 16u;
	const uint16_t direction =
		type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE;
	uint16_t at = head;

	rig_header(rig, header, type, sector);
	*rig_chain_status(rig, head) = SENTINEL;
	rig_desc(rig, at, header, 16, VRING_DESC_F_NEXT, (uint16_t)(at + 1u));
	if (len) {
		at++;
		rig_desc(rig, at, here(rig, RIG_DATA), len,
			 VRING_DESC_F_NEXT | direction, (uint16_t)(at + 1u));
	}
	at++;
	rig_desc(rig, at, here(rig, RIG_STATUS) + head, 1, VRING_DESC_F_WRITE,
		 0);
}

static void put_parts(struct rig *rig, uint64_t table, uint16_t at,
		      const struct rig_part *parts, size_t n)
{
	for (size_t i = 0; i < n; i++, at++)
		put_desc(rig, table, at, parts[i].addr, parts[i].len,
			 (uint16_t)(parts[i].flags |
				    (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			 (uint16_t)(at + 1u));
}

void rig_parts(struct rig *rig, uint16_t head, const struct rig_part *parts,
	       size_t n)
{
	put_parts(rig, here(rig, RIG_DESC), head, parts, n);
}

void rig_parts_indirect(struct rig *rig, uint16_t head,
			const struct rig_part *parts, size_t n)
{
	put_parts(rig, here(rig, RIG_INDIRECT), 0, parts, n);
	rig_desc(rig, head, here(rig, RIG_INDIRECT),
		 (uint32_t)(n * sizeof(struct vring_desc)),
		 VRING_DESC_F_INDIRECT, 0);
}

void rig_data(struct rig *rig, uint16_t head, uint32_t type, uint64_t sector,
	      const struct rig_part *data, size_t n)
{
	const struct rig_part header = { here(rig, RIG_HEADER) + head * 16u, 16,
					 READABLE };
	const struct rig_part status = { here(rig, RIG_STATUS) + head, 1,
					 WRITABLE };
	struct rig_part parts[256];

	ck_assert_uint_le(n + 2, ARRAY_SIZE(parts));
	rig_header(rig, header.addr, type, sector);
	*rig_chain_status(rig, head) = SENTINEL;
	parts[0] = header;
	for (unsigned int i = 0; i < n; i++)
		parts[1 + i] = data[i];
	parts[n + 1] = status;
	rig_parts(rig, head, parts, n + 2);
}

uint32_t rig_serve(struct rig *rig, uint16_t head)
{
	const uint16_t used = rig_used_idx(rig);

	rig_avail(rig, head);
	rig_kick(rig);
	rig_wait_used(rig, (uint16_t)(used + 1u));
	ck_assert_uint_eq(rig_used(rig, used).id, head);
	return rig_used(rig, used).len;
}

void rig_drop(struct rig *rig, uint16_t head)
{
	rig_avail(rig, head);
	rig_chain(rig, 14, VIRTIO_BLK_T_FLUSH, 0, 0);
	ck_assert_uint_eq(rig_serve(rig, 14), 1);
}

void rig_wait_used(struct rig *rig, uint16_t idx)
{
	ck_assert_msg(eventually(rig_used_idx(rig) == idx),
		      "used idx is %u, not %u", rig_used_idx(rig), idx);
	rig->used_seen = idx;
}

int rig_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t len)
{
	const uint16_t used = rig_used_idx(rig);

	rig_chain(rig, 0, type, sector, len);
	rig_avail(rig, 0);
	rig_kick(rig);
	rig_wait_used(rig, (uint16_t)(used + 1u));
	return *rig_chain_status(rig, 0);
}

int rig_read_sector(struct rig *rig)
{
	return rig_request(rig, VIRTIO_BLK_T_IN, 0, KTVBLK_SECTOR_SIZE);
}

void rig_sync(struct rig *rig)
{
	volatile uint8_t *status = rig_chain_status(rig, 14);

	rig_chain(rig, 14, VIRTIO_BLK_T_FLUSH, 0, 0);
	rig_avail(rig, 14);
	rig_kick(rig);
	ck_assert(eventually(__atomic_load_n(status, __ATOMIC_ACQUIRE) !=
			     SENTINEL));
	/* The used entry follows the status byte. */
	ck_assert(eventually(rig_used_idx(rig) != rig->used_seen));
	rig->used_seen = rig_used_idx(rig);
}

static void set_buckets(struct rig *rig, int64_t ops, int64_t bytes,
			uint64_t at_ns)
{
	struct throttle *throttle = &rig->dev->throttle->throttle;

	throttle->ops.available = ops;
	throttle->bytes.available = bytes;
	throttle->ops.remainder = throttle->bytes.remainder = 0;
	throttle->ops.refilled_ns = throttle->bytes.refilled_ns = at_ns;
}

void rig_drain_throttle(struct rig *rig, uint64_t at_ns)
{
	set_buckets(rig, 0, 0, at_ns);
}

void rig_set_tokens(struct rig *rig, int64_t ops, int64_t bytes)
{
	set_buckets(rig, ops, bytes, now_ns() + 3600 * NSEC_PER_SEC);
}

void rig_grant(struct rig *rig, int64_t ops, int64_t bytes)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	rig_set_tokens(rig, ops, bytes);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

void rig_go_on_throttle(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	rig_drain_throttle(rig, now_ns());
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

uint64_t rig_irqs(struct rig *rig)
{
	uint64_t n = 0;

	if (read(ktvblk_irq_fd(rig->dev), &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	return n;
}

uint64_t rig_irqs_settled(struct rig *rig)
{
	uint64_t n;

	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	n = rig_irqs(rig);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
	return n;
}

struct ktvblk_counters rig_counters(struct rig *rig)
{
	struct ktvblk_counters counters;

	ck_assert_int_eq(
		ktvblk_stats_read(rig->stats, &counters, sizeof(counters)), 0);
	return counters;
}

struct ktvblk_identity rig_identity(struct rig *rig)
{
	struct ktvblk_identity identity;

	ck_assert_int_eq(
		ktvblk_get_identity(rig->dev, &identity, sizeof(identity)), 0);
	return identity;
}
