/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A program that was built for 1.0: its header, and none of the flags that the
 * library is built with. It says how it sees the structures, and has a disk
 * written where 32 bits of bytes and of sectors do not reach. program.sh runs it.
 */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ktvblk.h>

#define RAM_BYTES (64u << 10)
#define QUEUE_SIZE 8
#define AVAIL 0x1000
#define USED 0x2000
#define HEADER 0x3000
#define STATUS 0x3100
#define DATA 0x4000

#define SECTORS_4G (UINT64_C(1) << 32)
#define BYTES_4G_SECTOR (SECTORS_4G / KTVBLK_SECTOR_SIZE)
#define PAUSE_MS 300

#define CHECK(what)                                                            \
	do {                                                                   \
		if (!(what)) {                                                 \
			printf("FAIL %s:%d: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                               \
		}                                                              \
	} while (0)

struct guest {
	unsigned char *ram;
	struct ktvblk_dev *dev;
	uint16_t n_made, n_released;
};

static void reg(struct guest *guest, uint64_t offset, uint32_t value)
{
	const uint32_t bytes = htole32(value);

	ktvblk_mmio_write(guest->dev, offset, &bytes, sizeof(bytes));
}

static void released(void *userdata)
{
	((struct guest *)userdata)->n_released++;
}

static void start(struct guest *guest, struct ktvblk_backend *backend,
		  const char *name, uint64_t flags)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_region region = { .size = RAM_BYTES };
	struct ktvblk_mem *mem;

	memset(guest, 0, sizeof(*guest));
	guest->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(guest->ram != MAP_FAILED);
	region.host_addr = guest->ram;
	CHECK(ktvblk_mem_new(&region, 1, released, guest, &mem) == 0);
	config.backend = backend;
	config.name = name;
	config.flags = flags;
	CHECK(ktvblk_new(&config, &guest->dev) == 0);
	CHECK(ktvblk_set_memory(guest->dev, mem) == 0);
	ktvblk_mem_unref(mem);
	ktvblk_backend_unref(backend);

	reg(guest, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	reg(guest, VIRTIO_MMIO_STATUS,
	    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	reg(guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg(guest, VIRTIO_MMIO_DRIVER_FEATURES, 1); /* VERSION_1 */
	reg(guest, VIRTIO_MMIO_STATUS,
	    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		    VIRTIO_CONFIG_S_FEATURES_OK);
	reg(guest, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	reg(guest, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
	reg(guest, VIRTIO_MMIO_QUEUE_USED_LOW, USED);
	reg(guest, VIRTIO_MMIO_QUEUE_READY, 1);
	reg(guest, VIRTIO_MMIO_STATUS,
	    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
		    VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void describe(struct guest *guest, unsigned int i, uint64_t addr,
		     uint32_t len, uint16_t flags)
{
	struct vring_desc *desc = (struct vring_desc *)guest->ram + i;

	desc->addr = htole64(addr);
	desc->len = htole32(len);
	desc->flags = htole16(flags);
	desc->next = htole16((uint16_t)(i + 1));
}

static void make(struct guest *guest, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr header = { .type = htole32(type),
					    .sector = htole64(sector) };
	uint16_t *avail = (uint16_t *)(guest->ram + AVAIL);
	const bool in = type == VIRTIO_BLK_T_IN;

	memcpy(guest->ram + HEADER, &header, sizeof(header));
	guest->ram[STATUS] = 0xee;
	describe(guest, 0, HEADER, sizeof(header), VRING_DESC_F_NEXT);
	describe(guest, 1, DATA, KTVBLK_SECTOR_SIZE,
		 (uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)));
	describe(guest, 2, STATUS, 1, VRING_DESC_F_WRITE);
	avail[2 + guest->n_made % QUEUE_SIZE] = 0;
	guest->n_made++;
	__atomic_store_n(&avail[1], htole16(guest->n_made), __ATOMIC_SEQ_CST);
	reg(guest, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

static int answer(struct guest *guest)
{
	uint16_t *used = (uint16_t *)(guest->ram + USED);

	while (le16toh(__atomic_load_n(&used[1], __ATOMIC_ACQUIRE)) !=
	       guest->n_made)
		poll(NULL, 0, 1);
	return guest->ram[STATUS];
}

static int request(struct guest *guest, uint32_t type, uint64_t sector)
{
	make(guest, type, sector);
	return answer(guest);
}

static bool reads_as(struct guest *guest, uint64_t sector, unsigned char value)
{
	unsigned char all[KTVBLK_SECTOR_SIZE];

	memset(all, value, sizeof(all));
	memset(guest->ram + DATA, ~value, sizeof(all));
	return request(guest, VIRTIO_BLK_T_IN, sector) == VIRTIO_BLK_S_OK &&
	       !memcmp(guest->ram + DATA, all, sizeof(all));
}

/* A file of holes, a little larger than 2^32 sectors. */
static void beyond_32_bits(void)
{
	const uint64_t at[] = { 1, BYTES_4G_SECTOR, BYTES_4G_SECTOR + 1,
				SECTORS_4G, SECTORS_4G + 1 };
	const size_t n = sizeof(at) / sizeof(at[0]);
	const int fd = memfd_create("disk", MFD_CLOEXEC);
	struct ktvblk_identity identity;
	struct ktvblk_counters counters;
	struct ktvblk_backend *backend;
	struct ktvblk_stats *stats;
	struct guest guest;

	CHECK(fd >= 0);
	CHECK(ftruncate64(fd, (SECTORS_4G + 8) * KTVBLK_SECTOR_SIZE) == 0);
	CHECK(ktvblk_backend_new_fd(fd, NULL, NULL, &backend) == 0);
	close(fd);
	start(&guest, backend, "large", 0);
	CHECK(ktvblk_get_identity(guest.dev, &identity, sizeof(identity)) == 0);
	CHECK(identity.capacity_sectors == SECTORS_4G + 8);
	stats = ktvblk_get_stats(guest.dev);
	for (size_t i = 0; i < n; i++) {
		memset(guest.ram + DATA, (int)i + 1, KTVBLK_SECTOR_SIZE);
		CHECK(request(&guest, VIRTIO_BLK_T_OUT, at[i]) ==
		      VIRTIO_BLK_S_OK);
	}
	for (size_t i = 0; i < n; i++)
		CHECK(reads_as(&guest, at[i], (unsigned char)(i + 1)));
	CHECK(reads_as(&guest, 0, 0));
	CHECK(ktvblk_get_state(guest.dev) == KTVBLK_STATE_RUNNING);
	CHECK(ktvblk_destroy(guest.dev) == KTVBLK_JOINED);
	CHECK(guest.n_released == 1);
	CHECK(ktvblk_stats_read(stats, &counters, sizeof(counters)) == 0);
	CHECK(counters.writes_completed == n);
	CHECK(counters.bytes_read == (n + 1) * KTVBLK_SECTOR_SIZE);
	ktvblk_stats_unref(stats);
	munmap(guest.ram, RAM_BYTES);
}

static int hold[2], held[2]; /* pipes */

static ssize_t held_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	ssize_t n = 0;
	char byte = 0;

	(void)userdata, (void)offset;
	CHECK(write(held[1], &byte, 1) == 1);
	CHECK(read(hold[0], &byte, 1) == 1);
	for (int i = 0; i < n_iov; i++) {
		memset(iov[i].iov_base, 0, iov[i].iov_len);
		n += (ssize_t)iov[i].iov_len;
	}
	return n;
}

static int held_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = KTVBLK_SECTOR_SIZE;
	return 0;
}

static long cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return (long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (long)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* Whoever waits with a bound sleeps, and its time is that of the caller. */
static void wait_with_a_bound(void)
{
	const struct ktvblk_backend_ops ops = { .size = sizeof(ops),
						.preadv = held_preadv,
						.capacity = held_capacity };
	struct ktvblk_backend *backend;
	struct guest guest;
	long before;
	char byte = 0;

	CHECK(pipe(hold) == 0 && pipe(held) == 0);
	CHECK(ktvblk_backend_new(&ops, NULL, &backend) == 0);
	start(&guest, backend, "held", KTVBLK_READ_ONLY);
	make(&guest, VIRTIO_BLK_T_IN, 0);
	CHECK(read(held[0], &byte, 1) == 1);
	before = cpu_ms();
	CHECK(ktvblk_pause(guest.dev, PAUSE_MS) == -ETIMEDOUT);
	CHECK(cpu_ms() - before < PAUSE_MS / 2);
	CHECK(write(hold[1], &byte, 1) == 1);
	CHECK(answer(&guest) == VIRTIO_BLK_S_OK);
	CHECK(ktvblk_destroy(guest.dev) == KTVBLK_JOINED);
	munmap(guest.ram, RAM_BYTES);
}

#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))
#define MEMBER(type, member)                                                   \
	printf(#type "." #member " %zu\n", offsetof(struct type, member))

/* One whose place would tell of a wider or narrower one before it. */
static void layout(void)
{
	SIZE(ktvblk_region);
	MEMBER(ktvblk_region, reserved);
	SIZE(ktvblk_backend_ops);
	MEMBER(ktvblk_backend_ops, release);
	SIZE(ktvblk_throttle);
	SIZE(ktvblk_config);
	MEMBER(ktvblk_config, capacity_bytes);
	MEMBER(ktvblk_config, throttle);
	MEMBER(ktvblk_config, queue_size_max);
	SIZE(ktvblk_identity);
	SIZE(ktvblk_counters);
	SIZE(ktvblk_record);
	MEMBER(ktvblk_record, reserved);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--layout")) {
		layout();
		return 0;
	}
	/* A program of 1.0 is served by any 1.y. */
	CHECK(!strncmp(ktvblk_version(), KTVBLK_VERSION, 2));
	beyond_32_bits();
	wait_with_a_bound();
	return 0;
}
