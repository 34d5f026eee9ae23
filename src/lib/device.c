/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The device: made, and given what it works with. */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "device.h"
#include "sized.h"
#include "teardown.h"
#include "text.h"
#include "util.h"

#define BIT(n) (UINT64_C(1) << (n))

#define FEATURES                                                               \
	(BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |              \
	 BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |          \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1))

#define CONFIG_FLAGS (KTVBLK_READ_ONLY | KTVBLK_ZERO_COPY | KTVBLK_NO_POLL)

#define SERIAL_DEFAULT "libktvblk"

/* The end of struct ktvblk_config in version 1.0. */
#define CONFIG_SIZE_1_0                                                        \
	(offsetof(struct ktvblk_config, reserved) + 3 * sizeof(uint16_t))
_Static_assert(CONFIG_SIZE_1_0 == (sizeof(void *) == 8 ? 144 : 128), "ABI");
/* In the midst of it, so it cannot grow. */
_Static_assert(sizeof(struct ktvblk_throttle) == 64, "ABI");

const char *ktvblk_version(void)
{
	return KTVBLK_VERSION;
}

static int check_config(const struct ktvblk_config *config)
{
	const uint16_t queue_size = config->queue_size_max;
	const uint16_t *reserved = config->reserved;
	int r;

	if (!config->backend || reserved[0] || reserved[1] || reserved[2] ||
	    (config->flags & ~CONFIG_FLAGS) ||
	    (config->features_masked & BIT(VIRTIO_F_VERSION_1)) ||
	    queue_size > KTVBLK_QUEUE_SIZE_MAX ||
	    (queue_size & (queue_size - 1)) ||
	    config->reset_timeout_ms > BUDGET_MS_MAX ||
	    config->destroy_timeout_ms > BUDGET_MS_MAX ||
	    config->poll_us > POLL_US_MAX ||
	    (config->poll_us && (config->flags & KTVBLK_NO_POLL)))
		return -EINVAL;
	r = ktvblk_throttle_check(&config->throttle, NULL);
	if (r == 0)
		r = text_check(config->name, KTVBLK_NAME_MAX);
	if (r == 0)
		r = text_check(config->serial, KTVBLK_SERIAL_MAX);
	if (r < 0)
		return r;
	/* The guest must be told of blocks that are larger than sectors. */
	if (config->backend->block_bytes > SECTOR_BYTES &&
	    (config->features_masked & BIT(VIRTIO_BLK_F_BLK_SIZE)))
		return -EINVAL;
	if (backend_is_read_only(config->backend) &&
	    !(config->flags & KTVBLK_READ_ONLY))
		return -EROFS;
	return 0;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

static void apply_config(struct ktvblk_dev *dev,
			 const struct ktvblk_config *config, uint64_t capacity)
{
	const char *serial = config->serial ? config->serial : SERIAL_DEFAULT;

	const uint32_t block_bytes = config->backend->block_bytes;

	dev->disk.capacity_bytes = capacity - capacity % block_bytes;
	dev->disk.block_bytes = block_bytes;
	dev->disk.mem_align = config->backend->mem_align;
	dev->disk.read_only = config->flags & KTVBLK_READ_ONLY;
	dev->disk.zero_copy = config->flags & KTVBLK_ZERO_COPY;
	dev->disk.stall_warn_ms =
		or_default(config->stall_warn_ms, STALL_WARN_MS_DEFAULT);
	if (!(config->flags & KTVBLK_NO_POLL))
		dev->disk.poll_us =
			or_default(config->poll_us, POLL_US_DEFAULT);
	dev->disk.poll_by_default = !config->poll_us;
	memcpy(dev->disk.serial, serial, strlen(serial));
	dev->features = FEATURES;
	if (dev->disk.read_only)
		dev->features |= BIT(VIRTIO_BLK_F_RO);
	dev->features &= ~config->features_masked;
	dev->queue_size_max = (uint16_t)or_default(config->queue_size_max,
						   QUEUE_SIZE_DEFAULT);
	dev->reset_timeout_ms =
		or_default(config->reset_timeout_ms, BUDGET_MS_DEFAULT);
	dev->destroy_timeout_ms =
		or_default(config->destroy_timeout_ms, BUDGET_MS_DEFAULT);
	queue_reset(dev);
}

/* The disk's size, and how much of it the storage itself says it has. */
static int get_capacity(const struct ktvblk_config *config, uint64_t *ret_bytes,
			uint64_t *ret_told)
{
	const struct ktvblk_backend *backend = config->backend;
	int r;

	*ret_told = backend->told_bytes;
	*ret_bytes = config->capacity_bytes;
	if (*ret_bytes)
		return 0;
	r = backend->ops.capacity(backend->userdata, ret_bytes);
	*ret_told = *ret_bytes;
	return r;
}

int device_make_session(struct ktvblk_dev *dev, struct session **ret_session)
{
	return session_new(dev->disk_id, &dev->disk, dev->ports, dev->stats,
			   ret_session);
}

void device_free(struct ktvblk_dev *dev)
{
	session_unmap(&dev->pages);
	session_unref(dev->spare);
	session_unref(dev->session);
	ports_unref(dev->ports);
	ktvblk_stats_unref(dev->stats);
	disk_id_unref(dev->disk_id);
	holdings_unref_quick(dev->holdings);
	pthread_mutex_destroy(&dev->session_lock);
	free(dev);
}

int ktvblk_new(const struct ktvblk_config *config, struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config ours;
	struct ktvblk_dev *dev;
	uint64_t capacity, told;
	int r;

	if (!config || !ret_dev)
		return -EINVAL;
	r = sized_copy_in(&ours, sizeof(ours), config, config->size,
			  CONFIG_SIZE_1_0);
	if (r == 0)
		r = check_config(&ours);
	if (r == 0)
		r = get_capacity(&ours, &capacity, &told);
	if (r < 0)
		return r;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	apply_config(dev, &ours, capacity);
	pthread_mutex_init(&dev->session_lock, NULL);
	dev->disk.told_bytes = told;
	r = -ENOMEM;
	dev->disk_id = disk_id_new(ours.name,
				   dev->disk.capacity_bytes >> SECTOR_SHIFT);
	dev->stats = stats_new();
	dev->holdings = holdings_new(ours.backend);
	if (!dev->disk_id || !dev->stats || !dev->holdings)
		goto fail;
	r = ports_new(&dev->ports);
	if (r == 0)
		r = device_make_session(dev, &dev->session);
	if (r == 0)
		r = device_make_session(dev, &dev->spare);
	if (r < 0)
		goto fail;
	throttle_init(&dev->session->throttle, &ours.throttle, now_ns());
	if (capacity && capacity < dev->disk.block_bytes)
		log_event(&dev->session->id, CAPACITY_BELOW_SECTOR, capacity,
			  dev->disk.block_bytes);
	*ret_dev = dev;
	return 0;

fail:
	device_free(dev);
	return r;
}

int ktvblk_set_memory(struct ktvblk_dev *dev, struct ktvblk_mem *mem)
{
	if (!dev || !mem)
		return -EINVAL;
	if (!dev->holdings || dev->holdings->mem) {
		log_event(&dev->session->id, MEMORY_ALREADY_SET);
		return -EBUSY;
	}
	dev->holdings->mem = ktvblk_mem_ref(mem);
	return 0;
}

int ktvblk_set_worker_cpus(struct ktvblk_dev *dev, const uint32_t *cpus,
			   size_t n_cpus)
{
	cpu_set_t set;

	if (!dev || (!cpus && n_cpus))
		return -EINVAL;
	CPU_ZERO(&set);
	for (size_t i = 0; i < n_cpus; i++)
		if (cpus[i] < CPU_SETSIZE)
			CPU_SET(cpus[i], &set);
		else
			log_event(&dev->session->id, PLACEMENT_FAILED,
				  only_if(true, cpus[i]), EINVAL);
	dev->cpus = set;
	dev->has_cpus = CPU_COUNT(&set) > 0;
	return 0;
}

int ktvblk_set_worker_init(struct ktvblk_dev *dev, void (*init)(void *userdata),
			   void *userdata)
{
	if (!dev)
		return -EINVAL;
	dev->init = init;
	dev->init_data = userdata;
	return 0;
}

int ktvblk_kick_fd(const struct ktvblk_dev *dev)
{
	return dev ? dev->ports->kick_fd : -EINVAL;
}

int ktvblk_irq_fd(const struct ktvblk_dev *dev)
{
	return dev ? dev->ports->irq_fd : -EINVAL;
}

struct ktvblk_stats *ktvblk_get_stats(const struct ktvblk_dev *dev)
{
	return dev ? ktvblk_stats_ref(dev->stats) : NULL;
}
