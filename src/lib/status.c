/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The status register. Drivers write its bits one by one, several at once, or
 * without the first ones, so what is judged is what has a meaning here:
 *
 *   FEATURES_OK   the features are ours, with VERSION_1; shuts their registers
 *   DRIVER_OK     after FEATURES_OK, or with it; starts the worker
 *   FAILED        at any time; from then on, as after NEEDS_RESET, nothing
 *                 more is taken but a reset
 *
 * A bit is cleared by a write of 0 only. A write is taken or refused as a whole.
 *
 * The worker is the only other writer and only ever adds NEEDS_RESET. A plain
 * store here could erase that, hence compare-exchange; what it finds instead
 * is judged anew from the start.
 */

#include <linux/virtio_config.h>

#include "device.h"
#include "util.h"

#define S_FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define S_DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define S_FAILED VIRTIO_CONFIG_S_FAILED
#define S_NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

/* What a driver that goes on may set. */
#define S_STEPS                                                                \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	 S_FEATURES_OK | S_DRIVER_OK)

static uint32_t status_read(const struct ktvblk_dev *dev)
{
	return atomic_load_explicit(&dev->era->status, memory_order_acquire);
}

bool status_takes_features(const struct ktvblk_dev *dev)
{
	return !(status_read(dev) & S_FEATURES_OK);
}

bool status_takes_queue(const struct ktvblk_dev *dev)
{
	return !(status_read(dev) & S_DRIVER_OK) ||
	       dev->queues[dev->queue_sel].stopped;
}

bool status_has_feature(const struct ktvblk_dev *dev, unsigned int bit)
{
	return !status_takes_features(dev) && (dev->driver_features >> bit & 1);
}

static bool has_version_1(const struct ktvblk_dev *dev)
{
	return dev->driver_features >> VIRTIO_F_VERSION_1 & 1;
}

static uint64_t not_offered(const struct ktvblk_dev *dev)
{
	return dev->driver_features & ~dev->features;
}

static bool features_ok(const struct ktvblk_dev *dev)
{
	return has_version_1(dev) && !not_offered(dev);
}

/* Apart from what its features are. */
static bool step_is_legal(uint32_t status, uint32_t value)
{
	const uint32_t new_bits = value & ~status;

	if (new_bits & ~(uint32_t)(S_STEPS | S_FAILED))
		return false;
	if (new_bits & S_FAILED)
		return true;
	return !(status & (S_NEEDS_RESET | S_FAILED)) &&
	       (!(new_bits & S_DRIVER_OK) || (value & S_FEATURES_OK));
}

static void refuse_features(const struct ktvblk_dev *dev)
{
	const struct identity *id = &dev->id;

	if (!has_version_1(dev))
		log_event(id, FEATURES_NO_VERSION_1, dev->driver_features);
	else
		log_event(id, FEATURES_NOT_OFFERED, dev->driver_features,
			  dev->features, not_offered(dev));
}

/* False, with a record: not this. */
static bool judge(const struct ktvblk_dev *dev, uint32_t status, uint32_t value)
{
	const struct identity *id = &dev->id;
	const uint32_t new_bits = value & ~status;

	if ((value & status) != status) {
		if (status & S_NEEDS_RESET)
			log_event(id, STATUS_NEEDS_RESET, status, value,
				  NOTHING);
		else
			log_event(id, STATUS_BIT_CLEARED, status, value);
		return false;
	}
	if (!step_is_legal(status, value)) {
		if (status & S_NEEDS_RESET)
			log_event(id, STATUS_NEEDS_RESET, status, value,
				  only_if(true, new_bits));
		else
			log_event(id, STATUS_ILLEGAL, status, value, new_bits);
		return false;
	}
	if ((new_bits & S_FEATURES_OK) && !(new_bits & S_FAILED) &&
	    !features_ok(dev)) {
		refuse_features(dev);
		return false;
	}
	return true;
}

static bool exchange(struct ktvblk_dev *dev, uint32_t *status, uint32_t value)
{
	/* Release: who sees the bit sees what was set up before it. */
	return atomic_compare_exchange_strong_explicit(&dev->era->status,
						       status, value,
						       memory_order_release,
						       memory_order_acquire);
}

void status_write(struct ktvblk_dev *dev, uint32_t value)
{
	const struct identity *id = &dev->id;
	uint32_t status = status_read(dev);
	unsigned int failed = 0;
	uint32_t new_bits, next;

	for (;;) {
		new_bits = value & ~status;
		if (value == status || !judge(dev, status, value))
			return;
		/* Who gives up may still name the step it failed at. */
		next = value;
		if (new_bits & S_FAILED)
			next &= ~(new_bits & (S_FEATURES_OK | S_DRIVER_OK));
		if (exchange(dev, &status, next))
			break;
		if (++failed < STATUS_CAS_ATTEMPTS)
			continue;
		if (new_bits & S_FAILED)
			log_event(id, STATUS_GUEST_FAILED_CONTENDED, status,
				  value, failed);
		else
			log_event(id, STATUS_CONTENDED, status, value, failed);
		return;
	}
	if (new_bits & next & S_FEATURES_OK)
		config_agree(dev);
	if (new_bits & S_FAILED)
		log_event(id, STATUS_GUEST_FAILED, status, value);
	else if (new_bits & S_DRIVER_OK)
		device_start(dev);
}
