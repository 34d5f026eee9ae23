/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The device: made, started, reset, looked at, destroyed. */

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "device.h"
#include "sized.h"
#include "teardown.h"
#include "util.h"

#define BIT(n) (UINT64_C(1) << (n))

#define FEATURES                                                               \
	(BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) |              \
	 BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) |                \
	 BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |     \
	 BIT(VIRTIO_F_VERSION_1))

#define CONFIG_FLAGS (KTVBLK_READ_ONLY | KTVBLK_ZERO_COPY | KTVBLK_NO_POLL)

#define SERIAL_DEFAULT "libktvblk"

/* The ends of struct ktvblk_config and ktvblk_identity in version 1.0. */
#define CONFIG_SIZE_1_0                                                        \
	(offsetof(struct ktvblk_config, reserved) + 3 * sizeof(uint16_t))
#define IDENTITY_SIZE_1_0 24

const char *ktvblk_version(void)
{
	return KTVBLK_VERSION;
}

static int check_text(const char *text, size_t max)
{
	size_t len = 0;

	if (!text)
		return 0;
	for (; text[len]; len++) {
		if (len == max)
			return -ENAMETOOLONG;
		if ((unsigned char)text[len] < ' ' || text[len] == 0x7f)
			return -EINVAL;
	}
	return 0;
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
		r = check_text(config->name, KTVBLK_NAME_MAX);
	if (r == 0)
		r = check_text(config->serial, KTVBLK_SERIAL_MAX);
	if (r < 0)
		return r;
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

	dev->disk.capacity_bytes = capacity >> SECTOR_SHIFT << SECTOR_SHIFT;
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

static int get_capacity(const struct ktvblk_config *config, uint64_t *ret_bytes)
{
	const struct ktvblk_backend *backend = config->backend;

	*ret_bytes = config->capacity_bytes;
	if (*ret_bytes)
		return 0;
	return backend->ops.capacity(backend->userdata, ret_bytes);
}

static void device_free(struct ktvblk_dev *dev)
{
	session_unref(dev->session);
	ports_unref(dev->ports);
	ktvblk_stats_unref(dev->stats);
	disk_id_unref(dev->disk_id);
	free(dev);
}

int ktvblk_new(const struct ktvblk_config *config, struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config ours;
	struct ktvblk_dev *dev;
	uint64_t capacity;
	int r;

	if (!config || !ret_dev)
		return -EINVAL;
	r = sized_copy_in(&ours, sizeof(ours), config, config->size,
			  CONFIG_SIZE_1_0);
	if (r == 0)
		r = check_config(&ours);
	if (r == 0)
		r = get_capacity(&ours, &capacity);
	if (r < 0)
		return r;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	apply_config(dev, &ours, capacity);
	r = -ENOMEM;
	dev->disk_id = disk_id_new(ours.name, capacity >> SECTOR_SHIFT);
	dev->stats = stats_new();
	if (!dev->disk_id || !dev->stats)
		goto fail;
	r = ports_new(&dev->ports);
	if (r < 0)
		goto fail;
	r = session_new(dev->disk_id, &dev->disk, dev->ports, dev->stats,
			&dev->session);
	if (r < 0)
		goto fail;
	throttle_init(&dev->session->throttle, &ours.throttle, now_ns());
	dev->backend = ktvblk_backend_ref(ours.backend);
	if (capacity && capacity < SECTOR_BYTES)
		log_event(&dev->session->id, CAPACITY_BELOW_SECTOR, capacity,
			  SECTOR_BYTES);
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
	if (dev->mem || dev->handed_over) {
		log_event(&dev->session->id, MEMORY_ALREADY_SET);
		return -EBUSY;
	}
	dev->mem = ktvblk_mem_ref(mem);
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

int ktvblk_get_identity(const struct ktvblk_dev *dev,
			struct ktvblk_identity *ret_identity, size_t size)
{
	if (!dev || !ret_identity || size < IDENTITY_SIZE_1_0)
		return -EINVAL;

	const struct ktvblk_identity identity = {
		.instance_id = dev->disk_id->instance_id,
		.capacity_sectors = dev->disk_id->capacity_sectors,
		.stop_fd = dev->session->stop_fd,
	};

	sized_copy_out(ret_identity, size, &identity, sizeof(identity));
	return 0;
}

int ktvblk_get_state(const struct ktvblk_dev *dev)
{
	const struct session *session;

	if (!dev)
		return -EINVAL;
	session = dev->session;
	if (dev->stop_requested_ns)
		return KTVBLK_STATE_STOPPING;
	if (atomic_load(&dev->ports->orphans))
		return KTVBLK_STATE_WEDGED;
	if (atomic_load(&session->status) & VIRTIO_CONFIG_S_NEEDS_RESET)
		return KTVBLK_STATE_NEEDS_RESET;
	if (!session->has_thread)
		return KTVBLK_STATE_IDLE;
	if (watch_is_stalled(session->watch))
		return KTVBLK_STATE_STALLED;
	return ports_are_paused(dev->ports) ? KTVBLK_STATE_PAUSED
					    : KTVBLK_STATE_RUNNING;
}

const char *ktvblk_state_name(int state)
{
	static const char *const names[] = {
		[KTVBLK_STATE_IDLE] = "idle",
		[KTVBLK_STATE_RUNNING] = "running",
		[KTVBLK_STATE_PAUSED] = "paused",
		[KTVBLK_STATE_STALLED] = "stalled",
		[KTVBLK_STATE_WEDGED] = "wedged",
		[KTVBLK_STATE_NEEDS_RESET] = "needs reset",
		[KTVBLK_STATE_STOPPING] = "stopping",
	};

	return state >= 0 && (size_t)state < ARRAY_SIZE(names) ? names[state]
							       : "unknown";
}

const char *ktvblk_outcome_name(enum ktvblk_outcome outcome)
{
	static const char *const names[] = {
		[KTVBLK_JOINED] = "joined",
		[KTVBLK_PANICKED] = "panicked",
		[KTVBLK_TIMED_OUT] = "timed out",
		[KTVBLK_HELPER_SPAWN_FAILED] = "helper spawn failed",
		[KTVBLK_HELPER_DISCONNECTED] = "helper disconnected",
	};

	return (size_t)outcome < ARRAY_SIZE(names) ? names[outcome] : "unknown";
}

void device_kick(struct ktvblk_dev *dev)
{
	/* Full means readable: nothing is lost, and it must not block. */
	eventfd_signal(dev->ports->kick_fd);
}

void device_start(struct ktvblk_dev *dev)
{
	const struct session_start start = {
		.mem = dev->mem,
		.backend = dev->backend,
		.ring = dev->queue,
		.features = dev->driver_features,
		.cpus = dev->has_cpus ? &dev->cpus : NULL,
	};

	if (dev->stop_requested_ns)
		return;
	if (session_start(dev->session, &start) < 0)
		session_needs_reset(dev->session);
}

/* The balance goes on: a reset is no way to free tokens. */
static void inherit_throttle(struct session *to, const struct session *from)
{
	to->throttle = from->throttle;
	if (from->throttle_lost)
		throttle_drain(&to->throttle, now_ns());
}

void device_reset(struct ktvblk_dev *dev)
{
	struct session *old = dev->session, *next = NULL;
	const struct stop_how how = {
		.deadline_ns = now_ns() + dev->reset_timeout_ms * NSEC_PER_MSEC,
		.timeout_ms = dev->reset_timeout_ms,
	};
	int r;

	SCOPED_NO_CANCEL();
	dev->queue_sel = 0;
	dev->device_features_sel = dev->driver_features_sel = 0;
	dev->driver_features = 0;
	dev->config_generation++;
	queue_reset(dev);
	/* The new one before the old is let go: without it there is no reset. */
	r = session_new(dev->disk_id, &dev->disk, dev->ports, dev->stats,
			&next);
	if (r < 0)
		log_event(&old->id, RESET_FAILED, "session", -r);
	session_stop(old, &how);
	/* An interrupt the old session raised is nobody's any more. */
	eventfd_drain(dev->ports->irq_fd);
	if (r < 0) {
		atomic_store(&old->interrupt_status, 0);
		atomic_store(&old->status, VIRTIO_CONFIG_S_NEEDS_RESET);
		return;
	}
	inherit_throttle(next, old);
	dev->session = next;
	session_unref(old);
}

/* The worker drops the last references: that may block, we must not. */
static void hand_over(struct ktvblk_dev *dev)
{
	if (dev->handed_over)
		return;
	dev->handed_over = true;
	atomic_store(&dev->session->handover_mem, dev->mem);
	atomic_store(&dev->session->handover_backend, dev->backend);
}

int ktvblk_request_stop(struct ktvblk_dev *dev)
{
	if (!dev)
		return -EINVAL;
	if (dev->stop_requested_ns)
		return 0;
	dev->stop_requested_ns = now_ns();
	hand_over(dev);
	session_signal_stop(dev->session);
	/* Where there is no worker; if this fails destroy tries again. */
	session_start_release(dev->session);
	return 0;
}

enum ktvblk_outcome ktvblk_destroy(struct ktvblk_dev *dev)
{
	enum ktvblk_outcome outcome;
	struct stop_how how = { .destroying = true };
	struct session *session;

	if (!dev)
		return KTVBLK_JOINED;
	SCOPED_NO_CANCEL();
	session = dev->session;
	how.timeout_ms = dev->destroy_timeout_ms;
	how.deadline_ns = dev->stop_requested_ns ? dev->stop_requested_ns
						 : now_ns();
	how.deadline_ns += dev->destroy_timeout_ms * NSEC_PER_MSEC;
	hand_over(dev);
	outcome = session_stop(session, &how);
	if (outcome == KTVBLK_JOINED || outcome == KTVBLK_PANICKED) {
		const enum ktvblk_outcome drop =
			session_drop_handover(session, &how);

		if (drop != KTVBLK_JOINED)
			outcome = drop;
	}
	log_suppressed(&session->id);
	device_free(dev);
	return outcome;
}
