/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See disk.h. */

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "disk.h"
#include "harness.h"

static void count_release(unsigned int *count)
{
	__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
}

static void ram_released(void *userdata)
{
	count_release(&((struct disk *)userdata)->rig.ram_released);
}

static void storage_released(void *userdata)
{
	count_release(&((struct disk *)userdata)->storage_released);
}

static void *map_ram(uint64_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(map, MAP_FAILED);
	return map;
}

void disk_open(struct disk *disk, const struct disk_options *options)
{
	struct ktvblk_config config = options->config;
	struct rig *rig = &disk->rig;
	int fd;

	memset(disk, 0, sizeof(*disk));
	disk->ram_bytes = options->ram_bytes ? options->ram_bytes
					     : RIG_RAM_BYTES;
	disk->seen = (unsigned char *)map_ram(disk->ram_bytes);
	disk->engine = (enum ktvblk_engine)config.engine;
	rig->options.queue_size = options->queue_size ? options->queue_size
						      : 16;
	rig->options.features = options->features;
	rig->ram = (unsigned char *)map_ram(disk->ram_bytes);
	rig->n_regions = 1;
	rig->regions[0] = (struct ktvblk_region){ .host_addr = rig->ram,
						  .size = disk->ram_bytes };
	ck_assert_int_eq(ktvblk_mem_new(rig->regions, 1, ram_released, disk,
					&rig->mem),
			 0);
	fd = open(options->path, O_RDWR | O_CLOEXEC | options->open_flags);
	ck_assert_msg(fd >= 0, "%s: %s", options->path, strerror(errno));
	if (options->lock)
		ck_assert_int_eq(ktvblk_image_lock(fd, 0, NULL), 0);
	ck_assert_int_eq(ktvblk_backend_new_fd(fd, storage_released, disk,
					       &config.backend),
			 0);
	close(fd);
	config.size = sizeof(config);
	ck_assert_int_eq(ktvblk_new(&config, &rig->dev), 0);
	ktvblk_backend_unref(config.backend);
	rig->stats = ktvblk_get_stats(rig->dev);
	ck_assert_int_eq(ktvblk_set_memory(rig->dev, rig->mem), 0);
	rig->mem = ktvblk_mem_unref(rig->mem);
}

bool disk_released(const struct disk *disk, unsigned int storage,
		   unsigned int ram)
{
	return __atomic_load_n(&disk->storage_released, __ATOMIC_SEQ_CST) ==
		       storage &&
	       __atomic_load_n(&disk->rig.ram_released, __ATOMIC_SEQ_CST) ==
		       ram;
}

enum ktvblk_outcome disk_destroy(struct disk *disk)
{
	const enum ktvblk_outcome outcome = ktvblk_destroy(disk->rig.dev);

	disk->rig.dev = NULL;
	if (outcome == KTVBLK_JOINED)
		ck_assert(disk_released(disk, 1, 1));
	return outcome;
}

void disk_free(struct disk *disk)
{
	ck_assert_msg(eventually(disk_released(disk, 1, 1)),
		      "released: storage %u times, memory %u times",
		      disk->storage_released, disk->rig.ram_released);
	ktvblk_stats_unref(disk->rig.stats);
	munmap(disk->rig.ram, disk->ram_bytes);
	munmap(disk->seen, disk->ram_bytes);
}

void disk_close(struct disk *disk)
{
	disk->rig.dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(disk_destroy(disk), KTVBLK_JOINED);
	disk_free(disk);
}

void disk_reset(struct disk *disk)
{
	const uint32_t budget_ms = disk->rig.dev->reset_timeout_ms;

	disk->rig.dev->reset_timeout_ms = WAIT_MS;
	rig_reset(&disk->rig);
	disk->rig.dev->reset_timeout_ms = budget_ms;
}

void disk_submit(struct disk *disk, uint16_t head, uint32_t type,
		 uint64_t sector, uint64_t addr, uint32_t len)
{
	const uint64_t header = RIG_HEADER + head * 16u;
	const uint16_t way = type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0;
	const uint16_t next = VRING_DESC_F_NEXT;
	struct rig *rig = &disk->rig;
	uint16_t at = head;

	rig_header(rig, header, type, sector);
	*rig_chain_status(rig, head) = SENTINEL;
	rig_desc(rig, at, header, 16, next, (uint16_t)(at + 1u));
	for (uint64_t i = 0; i < 2 && len; i++) {
		at++;
		rig_desc(rig, at, addr + i * (len / 2 + HOLE), len / 2,
			 next | way, (uint16_t)(at + 1u));
	}
	at++;
	rig_desc(rig, at, RIG_STATUS + head, 1, VRING_DESC_F_WRITE, 0);
	rig_avail(rig, head);
}

void disk_put_range(struct disk *disk, uint64_t addr, uint64_t sector,
		    uint32_t bytes)
{
	const struct virtio_blk_discard_write_zeroes range = {
		.sector = htole64(sector),
		.num_sectors = htole32(bytes / KTVBLK_SECTOR_SIZE),
	};
	const uint32_t half = sizeof(range) / 2;

	memcpy(disk->rig.ram + addr, &range, half);
	memcpy(disk->rig.ram + addr + half + HOLE,
	       (const unsigned char *)&range + half, half);
}

unsigned char disk_pattern(unsigned int n, uint64_t i)
{
	return (unsigned char)(i * 7 + (i >> 9) + n * 89 + 3);
}

static unsigned char *segment_byte(struct disk *disk, uint64_t addr,
				   uint32_t len, uint64_t i)
{
	return disk->rig.ram + addr + i + (i >= len / 2 ? HOLE : 0);
}

void disk_fill(struct disk *disk, uint64_t addr, uint32_t len, unsigned int n)
{
	for (uint64_t i = 0; i < len; i++)
		*segment_byte(disk, addr, len, i) = disk_pattern(n, i);
}

bool disk_is_filled(struct disk *disk, uint64_t addr, uint32_t len,
		    unsigned int n)
{
	for (uint64_t i = 0; i < len; i++)
		if (*segment_byte(disk, addr, len, i) != disk_pattern(n, i))
			return false;
	return true;
}

bool disk_holds(struct disk *disk, uint64_t addr, uint32_t len,
		const unsigned char *bytes)
{
	for (uint64_t i = 0; i < len; i++)
		if (*segment_byte(disk, addr, len, i) != bytes[i])
			return false;
	return true;
}

static void request(struct disk *disk, uint32_t type, uint64_t sector,
		    uint64_t addr, uint32_t len)
{
	const uint16_t used = rig_used_idx(&disk->rig);

	disk_submit(disk, 0, type, sector, addr, len);
	rig_kick(&disk->rig);
	rig_wait_used(&disk->rig, (uint16_t)(used + 1u));
	ck_assert_uint_eq(*rig_chain_status(&disk->rig, 0), VIRTIO_BLK_S_OK);
}

void disk_check_works(struct disk *disk, uint64_t sector)
{
	static unsigned int n;
	const uint64_t out = 0x14000, in = 0x18000;
	const uint32_t len = 4096;

	n++;
	disk_fill(disk, out, len, n);
	disk_fill(disk, in, len, n + 1);
	request(disk, VIRTIO_BLK_T_OUT, sector, out, len);
	request(disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
	request(disk, VIRTIO_BLK_T_IN, sector, in, len);
	ck_assert(disk_is_filled(disk, in, len, n));
}

void disk_write(struct disk *disk, uint64_t sector)
{
	const uint32_t len = 4096;

	disk_fill(disk, 0x14000, len, 99);
	request(disk, VIRTIO_BLK_T_OUT, sector, 0x14000, len);
}

bool in_span(struct span span, uint64_t at)
{
	return at >= span.start && at - span.start < span.len;
}

void disk_look(struct disk *disk, struct span but)
{
	const uint64_t end = but.start + but.len;

	memcpy(disk->seen, disk->rig.ram, but.start);
	memcpy(disk->seen + end, disk->rig.ram + end, disk->ram_bytes - end);
}

void disk_check_untouched(const struct disk *disk, struct span a, struct span b)
{
	for (uint64_t i = 0; i < disk->ram_bytes; i++) {
		if (in_span(a, i) || in_span(b, i))
			continue;
		ck_assert_msg(disk->rig.ram[i] == disk->seen[i],
			      "guest memory was touched at %#lx: %#x, now %#x",
			      (unsigned long)i, disk->seen[i],
			      disk->rig.ram[i]);
	}
}

uint64_t checksum(const void *bytes, uint64_t len)
{
	const unsigned char *at = (const unsigned char *)bytes;
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (uint64_t i = 0; i < len; i++)
		sum = (sum ^ at[i]) * UINT64_C(0x100000001b3);
	return sum;
}
