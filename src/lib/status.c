/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The status machine: one legal bit at a time, each from exactly one state.
 *
 *   0 ─ACKNOWLEDGE─► 1 ─DRIVER─► 3 ─FEATURES_OK─► 0xb ─DRIVER_OK─► 0xf
 *   any ─FAILED─► any | FAILED
 *
 * The worker is the only other writer and only ever adds NEEDS_RESET. A plain
 * store here could erase that, hence compare-exchange; what it finds instead
 * is judged anew from the start.
 */

#include <linux/virtio_config.h>

#include "device.h"
#include "util.h"

#define S_ACKNOWLEDGED VIRTIO_CONFIG_S_ACKNOWLEDGE
#define S_DRIVER (S_ACKNOWLEDGED | VIRTIO_CONFIG_S_DRIVER)
#define S_FEATURES (S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

static uint32_t status_read(const struct ktvblk_dev *dev)
{
	return atomic_load_explicit(&dev->session->status,
				    memory_order_acquire);
}

bool status_takes_features(const struct ktvblk_dev *dev)
{
	const uint32_t status = status_read(dev);

	return (status & S_DRIVER) == S_DRIVER &&
	       !(status & VIRTIO_CONFIG_S_FEATURES_OK);
}

bool status_takes_queue(const struct ktvblk_dev *dev)
{
	const uint32_t status = status_read(dev);

	return (status & S_FEATURES) == S_FEATURES &&
	       !(status & VIRTIO_CONFIG_S_DRIVER_OK);
}

static bool has_version_1(const struct ktvblk_dev *dev)
{
	return dev->driver_features >> VIRTIO_F_VERSION_1 & 1;
}

static uint64_t not_offered(const struct ktvblk_dev *dev)
{
	return dev->driver_features & ~dev->features;
}

static bool step_is_legal(const struct ktvblk_dev *dev, uint32_t status,
			  uint32_t new_bits)
{
	switch (new_bits) {
	case VIRTIO_CONFIG_S_ACKNOWLEDGE:
		return status == 0;
	case VIRTIO_CONFIG_S_DRIVER:
		return status == S_ACKNOWLEDGED;
	case VIRTIO_CONFIG_S_FEATURES_OK:
		return status == S_DRIVER && has_version_1(dev) &&
		       !not_offered(dev);
	case VIRTIO_CONFIG_S_DRIVER_OK:
		return status == S_FEATURES;
	default:
		return false;
	}
}

static void refuse(const struct ktvblk_dev *dev, uint32_t status,
		   uint32_t value)
{
	const struct identity *id = &dev->session->id;
	const uint32_t new_bits = value & ~status;

	if (new_bits == VIRTIO_CONFIG_S_FEATURES_OK && status == S_DRIVER) {
		if (!has_version_1(dev))
			log_event(id, FEATURES_NO_VERSION_1,
				  dev->driver_features);
		else
			log_event(id, FEATURES_NOT_OFFERED,
				  dev->driver_features, dev->features,
				  not_offered(dev));
	} else if (status & VIRTIO_CONFIG_S_NEEDS_RESET) {
		log_event(id, STATUS_NEEDS_RESET, status, value,
			  only_if(true, new_bits));
	} else {
		log_event(id, STATUS_ILLEGAL, status, value, new_bits);
	}
}

static bool exchange(struct ktvblk_dev *dev, uint32_t *status, uint32_t value)
{
	/* Release: who sees the bit sees what was set up before it. */
	return atomic_compare_exchange_strong_explicit(&dev->session->status,
						       status, value,
						       memory_order_release,
						       memory_order_acquire);
}

void status_write(struct ktvblk_dev *dev, uint32_t value)
{
	const struct identity *id = &dev->session->id;
	uint32_t status = status_read(dev);
	unsigned int failed = 0;
	uint32_t new_bits;

	for (;;) {
		new_bits = value & ~status;
		if ((value & status) != status) {
			if (status & VIRTIO_CONFIG_S_NEEDS_RESET)
				log_event(id, STATUS_NEEDS_RESET, status, value,
					  NOTHING);
			else
				log_event(id, STATUS_BIT_CLEARED, status,
					  value);
			return;
		}
		if (!new_bits)
			return;
		if (new_bits != VIRTIO_CONFIG_S_FAILED &&
		    !step_is_legal(dev, status, new_bits)) {
			refuse(dev, status, value);
			return;
		}
		if (exchange(dev, &status, value))
			break;
		if (++failed < STATUS_CAS_ATTEMPTS)
			continue;
		if (new_bits == VIRTIO_CONFIG_S_FAILED)
			log_event(id, STATUS_GUEST_FAILED_CONTENDED, status,
				  value, failed);
		else
			log_event(id, STATUS_CONTENDED, status, value, failed);
		return;
	}
	if (new_bits == VIRTIO_CONFIG_S_FAILED)
		log_event(id, STATUS_GUEST_FAILED, status, value);
	else if (new_bits == VIRTIO_CONFIG_S_DRIVER_OK)
		device_start(dev);
}
