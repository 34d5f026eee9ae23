/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The disks of a virtual machine, each behind a window of guest-physical
 * addresses. This is what an embedder of libktvblk writes:
 *
 *   open       make a device over its storage and the guest's memory
 *   connect    tell KVM of its two eventfds
 *   access     pass on the guest's reads and writes of its registers
 *   reset      when the machine is reset, so are its devices
 *   sizes      a disk has the size that its storage has now
 *   limits     those of the options, or none
 *   unplug     end one device under the running guest
 *   close      end them all
 *   pause, save, restore, resume   have them go on in another process
 *
 * None of these waits for storage longer than the disk's budget.
 */

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <ktvblk-kvm.h>

#include "bus.h"
#include "file.h"
#include "say.h"

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void bus_open(struct vmm *vmm, struct ktvblk_mem *mem)
{
	for (unsigned int i = 0; i < vmm->n_disks; i++) {
		struct disk *disk = &vmm->disks[i];
		struct ktvblk_backend *storage = NULL;
		int r = disk_open(disk, &storage);

		if (r == 0)
			r = disk_start(disk, storage, mem);
		if (r < 0)
			give_up("%s: %s", disk->path, strerror(-r));
		ktvblk_backend_unref(storage); /* the device has its own */
	}
}

static uint64_t window_of(unsigned int slot)
{
	return BUS_ADDR + KTVBLK_MMIO_SIZE * slot;
}

/*
 * The guest's kicks and the disk's interrupts go through the kernel, without an
 * exit to us. The eventfds are the same for the device's life, so this is all
 * that a new virtual machine needs.
 */
static void connect_disk(const struct vmm *vmm, unsigned int slot)
{
	const struct disk *disk = &vmm->disks[slot];
	const int r = ktvblk_kvm_bind(disk->dev, vmm->vm_fd, window_of(slot),
				      BUS_GSI + slot);

	if (r < 0)
		give_up("%s: KVM: %s", disk->path, strerror(-r));
}

/* KVM knows them by eventfds that are gone once the device is destroyed. */
static void disconnect_disk(const struct vmm *vmm, unsigned int slot)
{
	const struct disk *disk = &vmm->disks[slot];
	const int r = ktvblk_kvm_unbind(disk->dev, vmm->vm_fd, window_of(slot),
					BUS_GSI + slot);

	if (r < 0)
		give_up("%s: KVM: %s", disk->path, strerror(-r));
}

void bus_connect(const struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			connect_disk(vmm, i);
}

/* Where no disk is, the library answers for NULL: all ones. */
void bus_access(const struct vmm *vmm, uint64_t addr, bool is_write, void *data,
		size_t len)
{
	const uint64_t slot = (addr - BUS_ADDR) / KTVBLK_MMIO_SIZE;
	const uint64_t offset = addr % KTVBLK_MMIO_SIZE;
	struct ktvblk_dev *dev = slot < BUS_SLOTS ? vmm->disks[slot].dev : NULL;

	if (is_write)
		ktvblk_mmio_write(dev, offset, data, len);
	else
		ktvblk_mmio_read(dev, offset, data, len);
}

/*
 * From here on the guest's memory is the next boot's: what a stuck worker still
 * does reaches it no more. Its disk serves again once the worker has come back.
 * All are told before the first is waited for: they share a budget.
 */
void bus_reset(const struct vmm *vmm)
{
	const uint32_t reset = 0;

	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			ktvblk_request_reset(vmm->disks[i].dev);
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		ktvblk_mmio_write(vmm->disks[i].dev, VIRTIO_MMIO_STATUS, &reset,
				  sizeof(reset));
}

/* The guest hears of it when the storage has answered. */
void bus_look_at_sizes(const struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->n_disks; i++) {
		const struct disk *disk = &vmm->disks[i];
		int r = disk->dev ? ktvblk_refresh_capacity(disk->dev) : 0;

		if (r < 0)
			fprintf(stderr, "ktvblk-vmm: %s: size: %s\n",
				disk->path, strerror(-r));
	}
}

void bus_switch_limits(struct vmm *vmm)
{
	static const struct ktvblk_throttle none;

	vmm->unlimited = !vmm->unlimited;
	for (unsigned int i = 0; i < vmm->n_disks; i++) {
		const struct disk *disk = &vmm->disks[i];

		if (disk->dev)
			ktvblk_set_throttle(disk->dev,
					    vmm->unlimited
						    ? &none
						    : &disk->config.throttle);
	}
}

/* What is not joined is told, and remembered for the exit status. */
void bus_unplug(struct vmm *vmm, unsigned int slot)
{
	struct disk *disk = &vmm->disks[slot];
	struct ktvblk_dev *dev = disk->dev;
	const uint64_t start = now_ms();
	enum ktvblk_outcome outcome;

	if (dev && vmm->vm_fd >= 0)
		disconnect_disk(vmm, slot);
	disk->dev = NULL;
	outcome = ktvblk_destroy(dev);
	if (outcome == KTVBLK_JOINED)
		return;
	vmm->left_behind = true;
	fprintf(stderr, "ktvblk-vmm: %s: %s after %llu ms\n", disk->path,
		ktvblk_outcome_name(outcome),
		(unsigned long long)(now_ms() - start));
}

/* All are told to stop before the first is waited for: they share a budget. */
void bus_close(struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			ktvblk_request_stop(vmm->disks[i].dev);
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		bus_unplug(vmm, i);
}

#define PAUSE_MS 5000
#define STATE_BYTES 4096u

/* All are asked before the first is waited for. */
bool bus_pause(const struct vmm *vmm)
{
	int r = 0;

	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			ktvblk_pause_begin(vmm->disks[i].dev, -1);
	for (unsigned int i = 0; i < vmm->n_disks && r == 0; i++) {
		if (vmm->disks[i].dev)
			r = ktvblk_pause(vmm->disks[i].dev, PAUSE_MS);
		if (r < 0)
			fprintf(stderr, "ktvblk-vmm: not saved: %s: %s\n",
				vmm->disks[i].path, strerror(-r));
	}
	if (r < 0)
		bus_resume(vmm);
	return r == 0;
}

void bus_resume(const struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->n_disks; i++)
		if (vmm->disks[i].dev)
			ktvblk_resume(vmm->disks[i].dev);
}

/* Each with its length; one that was pulled out has none. */
bool bus_save(const struct vmm *vmm, FILE *file)
{
	unsigned char state[STATE_BYTES];

	for (unsigned int i = 0; i < vmm->n_disks; i++) {
		uint32_t bytes = 0;
		int r = 0;

		if (vmm->disks[i].dev)
			r = ktvblk_save(vmm->disks[i].dev, state,
					sizeof(state));
		if (r < 0) {
			errno = -r;
			return false;
		}
		bytes = (uint32_t)r;
		file_write(file, &bytes, sizeof(bytes));
		if (bytes)
			file_write(file, state, bytes);
	}
	return true;
}

void bus_restore(struct vmm *vmm, FILE *file)
{
	unsigned char state[STATE_BYTES];

	for (unsigned int i = 0; i < vmm->n_disks; i++) {
		struct disk *disk = &vmm->disks[i];
		uint32_t bytes;
		int r;

		file_read(file, &bytes, sizeof(bytes));
		if (!bytes) {
			bus_unplug(vmm, i);
			continue;
		}
		if (bytes > sizeof(state))
			give_up("%s: no state of a disk", disk->path);
		file_read(file, state, bytes);
		r = ktvblk_restore(disk->dev, state, bytes);
		if (r < 0)
			give_up("%s: %s", disk->path,
				r == -EINVAL ? "not as it was saved"
					     : strerror(-r));
	}
}
