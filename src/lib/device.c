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
#include "vhost-user/vhost-user.h"

#define BIT(n) (UINT64_C(1) << (n))

#define FEATURES                                                               \
	(BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |              \
	 BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |              \
	 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |       \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1) |              \
	 BIT(VIRTIO_F_RING_RESET))

#define CONFIG_FLAGS (KTVBLK_READ_ONLY | KTVBLK_ZERO_COPY | KTVBLK_NO_POLL)

#define SERIAL_DEFAULT "libktvblk"

/* The end of struct ktvblk_config in version 1.0. */
#define CONFIG_SIZE_1_0                                                        \
	(offsetof(struct ktvblk_config, reserved) + 3 * sizeof(uint16_t))
_Static_assert(CONFIG_SIZE_1_0 == (sizeof(void *) == 8 ? 144 : 128), "ABI");
_Static_assert(sizeof(struct ktvblk_config) == CONFIG_SIZE_1_0 + 32, "ABI");
/* In the midst of it, so it cannot grow. */
_Static_assert(sizeof(struct ktvblk_throttle) == 64, "ABI");

const char *ktvblk_version(void)
{
	return KTVBLK_VERSION;
}

static bool engine_ok(const struct ktvblk_config *config)
{
	const struct ktvblk_backend *backend = config->backend;

	switch (config->engine) {
	case KTVBLK_ENGINE_AUTO:
		return true;
	case KTVBLK_ENGINE_SYNC:
		return backend->ops.preadv;
	case KTVBLK_ENGINE_IO_URING:
		return backend->fd >= 0;
	default:
		return false;
	}
}

static int check_config(const struct ktvblk_config *config)
{
	const uint16_t queue_size = config->queue_size_max;
	const uint16_t *reserved = config->reserved;
	int r;

	if (!config->backend || reserved[0] || reserved[1] || reserved[2] ||
	    (config->flags & ~CONFIG_FLAGS) ||
	    config->n_queues > KTVBLK_QUEUES_MAX ||
	    config->discard > KTVBLK_DISCARD_OFF ||
	    config->write_cache > KTVBLK_WRITE_CACHE_OFF ||
	    (config->features_masked & BIT(VIRTIO_F_VERSION_1)) ||
	    queue_size > KTVBLK_QUEUE_SIZE_MAX ||
	    (queue_size & (queue_size - 1)) ||
	    config->reset_timeout_ms > BUDGET_MS_MAX ||
	    config->destroy_timeout_ms > BUDGET_MS_MAX ||
	    config->poll_us > POLL_US_MAX || !engine_ok(config) ||
	    config->depth > KTVBLK_QUEUE_SIZE_MAX ||
	    (config->poll_us && (config->flags & KTVBLK_NO_POLL)))
		return -EINVAL;
	r = ktvblk_throttle_check(&config->throttle, NULL);
	if (r == 0)
		r = text_check(config->name, KTVBLK_NAME_MAX);
	if (r == 0)
		r = text_check(config->serial, KTVBLK_SERIAL_MAX);
	if (r < 0)
		return r;
	/* The guest is to be told that there are several. */
	if (config->n_queues > 1 &&
	    (config->features_masked & BIT(VIRTIO_BLK_F_MQ)))
		return -EINVAL;
	if (!topology_ok(config))
		return -EINVAL;
	if (backend_is_read_only(config->backend) &&
	    !(config->flags & KTVBLK_READ_ONLY))
		return -EROFS;
	return config->engine == KTVBLK_ENGINE_IO_URING ? engine_uring_probe()
							: 0;
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

/* Does an engine have more than one transfer out for this? */
static bool is_async(const struct ktvblk_config *config)
{
	return config->engine != KTVBLK_ENGINE_SYNC &&
	       (config->backend->fd >= 0 || config->backend->ops.submit);
}

/* How much of the buffers' pool each request has: a power of two. */
static size_t bounce_bytes(unsigned int n, uint32_t block_bytes)
{
	size_t bytes = BOUNCE_BYTES;

	while (bytes * n > BOUNCE_POOL_BYTES && bytes > MEM_ALIGN_MAX)
		bytes /= 2;
	return MAX(bytes, (size_t)block_bytes);
}

static void apply_engine(struct disk_config *disk,
			 const struct ktvblk_config *config,
			 unsigned int queue_size_max)
{
	const unsigned int depth = config->depth ? config->depth
						 : DEPTH_DEFAULT;
	struct pages_shape *shape = &disk->shape;

	disk->engine = (enum ktvblk_engine)config->engine;
	shape->n_ios = is_async(config) ? MIN(depth, queue_size_max) : 1;
	shape->iovs = disk->zero_copy;
	/* Storage that takes any memory has no need of it but for zeros. */
	if (!disk->zero_copy || disk->mem_align > 1 || !disk->read_only)
		shape->bounce_bytes =
			bounce_bytes(shape->n_ios, disk->block_bytes);
}

/* What the guest may ask for to have less, or zeros, on the disk. */
static uint64_t apply_discard(struct disk_config *disk,
			      const struct ktvblk_config *config)
{
	const struct ktvblk_backend *backend = config->backend;

	if (disk->read_only)
		return 0;
	disk->discard_align_sectors =
		MAX(backend->ops.discard_granularity_bytes,
		    disk->block_bytes) >>
		SECTOR_SHIFT;
	if (config->discard == KTVBLK_DISCARD_OFF)
		return BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	disk->discard = backend_can_discard(backend);
	disk->unmap = backend_can_write_zeroes(backend);
	return BIT(VIRTIO_BLK_F_WRITE_ZEROES) |
	       (disk->discard ? BIT(VIRTIO_BLK_F_DISCARD) : 0);
}

static void apply_config(struct ktvblk_dev *dev,
			 const struct ktvblk_config *config, uint64_t capacity)
{
	const char *serial = config->serial ? config->serial : SERIAL_DEFAULT;

	const uint32_t block_bytes = topology_logical(config);

	dev->shown_sectors = (capacity - capacity % block_bytes) >>
			     SECTOR_SHIFT;
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
	dev->features |= apply_discard(&dev->disk, config);
	if (dev->n_queues > 1)
		dev->features |= BIT(VIRTIO_BLK_F_MQ);
	dev->features &= ~config->features_masked;
	/* Section 5.2.5.2: not without the means to flush. */
	if (!(dev->features & BIT(VIRTIO_BLK_F_FLUSH)))
		dev->features &= ~BIT(VIRTIO_BLK_F_CONFIG_WCE);
	dev->topology = topology_of(config);
	dev->write_cache = config->write_cache == KTVBLK_WRITE_CACHE_ON;
	dev->queue_size_max = (uint16_t)or_default(config->queue_size_max,
						   QUEUE_SIZE_DEFAULT);
	apply_engine(&dev->disk, config, dev->queue_size_max);
	dev->reset_timeout_ms =
		or_default(config->reset_timeout_ms, BUDGET_MS_DEFAULT);
	dev->destroy_timeout_ms =
		or_default(config->destroy_timeout_ms, BUDGET_MS_DEFAULT);
	queues_reset(dev);
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

int device_make_session(struct ktvblk_dev *dev,
			const struct device_queue *queue,
			struct session **ret_session)
{
	const struct session_disk disk = {
		.id = dev->disk_id,
		.config = &dev->disk,
		.ports = dev->ports,
		.stats = dev->stats,
		.throttle = dev->throttle,
	};

	return session_new(&disk, (unsigned int)(queue - dev->queues),
			   ret_session);
}

void device_free(struct ktvblk_dev *dev)
{
	device_drop_asking(dev);
	transport_free(dev->transport);
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		session_unmap(&dev->queues[i].pages);
		session_unref(dev->queues[i].spare);
		session_unref(dev->queues[i].session);
	}
	era_unref(dev->spare_era);
	era_unref(dev->era);
	ports_unref(dev->ports);
	ktvblk_stats_unref(dev->stats);
	disk_throttle_unref(dev->throttle);
	disk_id_unref(dev->disk_id);
	holdings_unref_quick(dev->holdings);
	pthread_mutex_destroy(&dev->session_lock);
	free(dev);
}

/* Two sessions for each queue, the first and one to spare. */
static int make_queues(struct ktvblk_dev *dev)
{
	int r = 0;

	for (unsigned int i = 0; i < dev->n_queues && r == 0; i++) {
		struct device_queue *queue = &dev->queues[i];

		r = device_make_session(dev, queue, &queue->session);
		if (r == 0)
			r = device_make_session(dev, queue, &queue->spare);
		if (r == 0)
			session_set_era(queue->session, dev->era);
	}
	if (r == 0)
		dev->id = dev->queues[0].session->id;
	dev->id.of_queue = 0;
	return r;
}

int ktvblk_new(const struct ktvblk_config *config, struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config ours;
	struct ktvblk_dev *dev;
	uint64_t capacity = 0, told = 0;
	uint32_t n_queues;
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
	n_queues = or_default(ours.n_queues, 1);
	dev = calloc(1, sizeof(*dev) + n_queues * sizeof(dev->queues[0]));
	if (!dev)
		return -ENOMEM;
	dev->n_queues = n_queues;
	apply_config(dev, &ours, capacity);
	pthread_mutex_init(&dev->session_lock, NULL);
	r = -ENOMEM;
	dev->disk_id = disk_id_new(ours.name, dev->shown_sectors);
	dev->stats = stats_new();
	dev->throttle = disk_throttle_new(&ours.throttle, now_ns());
	dev->era = era_new();
	dev->spare_era = era_new();
	dev->holdings = holdings_new(ours.backend);
	if (!dev->disk_id || !dev->stats || !dev->throttle || !dev->era ||
	    !dev->spare_era || !dev->holdings)
		goto fail;
	atomic_store(&dev->disk_id->told_bytes, told);
	backend_may_be_dirty(ours.backend);
	config_reset(dev);
	r = ports_new(n_queues, &dev->ports);
	if (r == 0)
		r = make_queues(dev);
	if (r < 0)
		goto fail;
	if (capacity && capacity < dev->disk.block_bytes)
		log_event(&dev->id, CAPACITY_BELOW_SECTOR, capacity,
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
	if (dev->transport)
		return -EBUSY;
	if (!dev->holdings || dev->holdings->mem) {
		log_event(&dev->id, MEMORY_ALREADY_SET);
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
			log_event(&dev->id, PLACEMENT_FAILED,
				  only_if(true, cpus[i]), EINVAL);

	SCOPED_LOCK(&dev->session_lock);
	dev->cpus = set;
	dev->has_cpus = CPU_COUNT(&set) > 0;
	return 0;
}

int ktvblk_set_worker_init(struct ktvblk_dev *dev, void (*init)(void *userdata),
			   void *userdata)
{
	if (!dev)
		return -EINVAL;

	SCOPED_LOCK(&dev->session_lock);
	dev->init = init;
	dev->init_data = userdata;
	return 0;
}

int ktvblk_kick_fd(const struct ktvblk_dev *dev)
{
	return ktvblk_queue_kick_fd(dev, 0);
}

int ktvblk_queue_kick_fd(const struct ktvblk_dev *dev, uint32_t queue)
{
	return dev && queue < dev->n_queues ? dev->ports->kick_fds[queue]
					    : -EINVAL;
}

int ktvblk_irq_fd(const struct ktvblk_dev *dev)
{
	return dev ? dev->ports->irq_fd : -EINVAL;
}

struct ktvblk_stats *ktvblk_get_stats(const struct ktvblk_dev *dev)
{
	return dev ? ktvblk_stats_ref(dev->stats) : NULL;
}
