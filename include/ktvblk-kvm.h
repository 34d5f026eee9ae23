/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_KVM_H
#define KTVBLK_KVM_H

/*
 * libktvblk on KVM: the guest's kicks and the device's interrupts go through
 * the kernel, without an exit to user space. Inline, so that the library itself
 * knows nothing of KVM. For machines whose kernel headers have linux/kvm.h.
 *
 * A binding must be taken off before ktvblk_destroy(): KVM keeps the eventfd,
 * and names it by its descriptor, which destroy closes. Later nobody can take
 * it off: until the virtual machine ends the guest's kicks at that address end
 * in an eventfd that nobody reads, no other device can be bound there, and what
 * is taken off by the old number may be somebody else's. Where the virtual
 * machine is closed first, its bindings have gone with it.
 *
 * After a reset they stay: both eventfds are the same for the device's life.
 */

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include <ktvblk.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Not for the VMM: what both do, each with KVM's flag for on or off. */

static inline int ktvblk_kvm_set_kick_(int vm_fd, uint64_t base, uint32_t queue,
				       int fd, uint32_t flags)
{
	struct kvm_ioeventfd kick;

	memset(&kick, 0, sizeof(kick));
	kick.datamatch = queue;
	kick.addr = base + KTVBLK_MMIO_QUEUE_NOTIFY;
	kick.len = 4;
	kick.fd = fd;
	kick.flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags;
	return ioctl(vm_fd, KVM_IOEVENTFD, &kick) < 0 ? -errno : 0;
}

/* Those of the first n queues, or of all: the first error, and go on. */
static inline int ktvblk_kvm_unset_kicks_(const struct ktvblk_dev *dev,
					  int vm_fd, uint64_t base, uint32_t n)
{
	uint32_t i;
	int r = 0;

	for (i = 0; i < n; i++) {
		const int fd = ktvblk_queue_kick_fd(dev, i);
		int error;

		if (fd < 0)
			return i ? r : fd;
		error = ktvblk_kvm_set_kick_(vm_fd, base, i, fd,
					     KVM_IOEVENTFD_FLAG_DEASSIGN);
		if (error < 0 && r == 0)
			r = error;
	}
	return r;
}

/* One for each queue, which the value written tells; all or none. */
static inline int ktvblk_kvm_set_kicks_(const struct ktvblk_dev *dev, int vm_fd,
					uint64_t base)
{
	uint32_t i;

	for (i = 0;; i++) {
		const int fd = ktvblk_queue_kick_fd(dev, i);
		int r;

		if (fd < 0)
			return i ? 0 : fd;
		r = ktvblk_kvm_set_kick_(vm_fd, base, i, fd, 0);
		if (r < 0) {
			(void)ktvblk_kvm_unset_kicks_(dev, vm_fd, base, i);
			return r;
		}
	}
}

static inline int ktvblk_kvm_set_irq_(const struct ktvblk_dev *dev, int vm_fd,
				      uint32_t gsi, uint32_t flags)
{
	struct kvm_irqfd irq;
	const int fd = ktvblk_irq_fd(dev);

	if (fd < 0)
		return fd;
	memset(&irq, 0, sizeof(irq));
	irq.fd = (uint32_t)fd;
	irq.gsi = gsi;
	irq.flags = flags;
	return ioctl(vm_fd, KVM_IRQFD, &irq) < 0 ? -errno : 0;
}

/*
 * Bind a device whose window is at the guest-physical address base, and whose
 * interrupt is gsi, edge-triggered, to the virtual machine: an ioeventfd for
 * each queue, and an irqfd. All or none: what was bound when another one fails
 * is taken off again. [any]
 *   -EINVAL  dev NULL
 *   -EEXIST  something is bound at this address
 *   -EBUSY   the device's interrupt is bound already
 *   -EBADF, -ENOTTY  vm_fd is no virtual machine
 *   and what else KVM answers
 */
static inline int ktvblk_kvm_bind(const struct ktvblk_dev *dev, int vm_fd,
				  uint64_t base, uint32_t gsi)
{
	int r = ktvblk_kvm_set_kicks_(dev, vm_fd, base);

	if (r < 0)
		return r;
	r = ktvblk_kvm_set_irq_(dev, vm_fd, gsi, 0);
	if (r < 0)
		(void)ktvblk_kvm_unset_kicks_(dev, vm_fd, base, UINT32_MAX);
	return r;
}

/*
 * Take off what ktvblk_kvm_bind() bound, with the same arguments, before the
 * device is destroyed: see above. From then on kicks come as accesses to
 * ktvblk_mmio_write(), and interrupts stay in ktvblk_irq_fd(). Where one fails,
 * the others are taken off all the same. [any]
 *   -EINVAL  dev NULL
 *   -ENOENT  nothing of this device is bound at this address
 *   -EBADF, -ENOTTY  vm_fd is no virtual machine
 *   and what else KVM answers
 */
static inline int ktvblk_kvm_unbind(const struct ktvblk_dev *dev, int vm_fd,
				    uint64_t base, uint32_t gsi)
{
	const int kick = ktvblk_kvm_unset_kicks_(dev, vm_fd, base, UINT32_MAX);
	const int irq =
		ktvblk_kvm_set_irq_(dev, vm_fd, gsi, KVM_IRQFD_FLAG_DEASSIGN);

	return kick < 0 ? kick : irq;
}

#ifdef __cplusplus
}
#endif

#endif
