/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_MMIO_H
#define KTVBLK_MMIO_H

#include <linux/virtio_mmio.h>

/*
 * QueueReset (section 4.2.2), of VIRTIO_F_RING_RESET. Linux has the feature and
 * not the register, as its own driver does without.
 */
#ifndef VIRTIO_MMIO_QUEUE_RESET
#define VIRTIO_MMIO_QUEUE_RESET 0x0c0
#endif

#endif
