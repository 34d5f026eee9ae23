/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Puts devices of libktvblk into a stock QEMU, each in the place of a
 * virtio-mmio slot of the machine, by LD_PRELOAD. The machines are microvm of
 * qemu-system-x86_64 and virt of qemu-system-aarch64, -arm and -riscv64.
 *
 *   KTVBLK_DISKS    disks, separated by spaces; see vmm/disk.h for one. The
 *                   n-th lies over the n-th slot from the last, as microvm's
 *                   virtio-mmio-bus.(23 - n). There QEMU must have a
 *                   placeholder, so that it is in the ACPI tables.
 *   KTVBLK_GATED    how the names of those begin whose storage can be blocked
 *   KTVBLK_JOURNAL  if set, records go to the journal, else to standard error
 *
 *   KTVBLK_CONTROL  if set to "no", there is no control disk
 *
 * Behind these comes one more: the control disk, see control.c.
 *
 * Debian's QEMU exports its symbols, as it has modules. The few declared here
 * are those of QEMU 7.2.
 *
 * All of it runs under QEMU's big lock: MMIO on the vCPU's thread, the rest on
 * the main loop's. That is what "[device]" in ktvblk.h asks for. A device
 * writes guest memory behind QEMU's back, which misses code that was translated
 * from there: what is executed from these disks is only what comes to where no
 * code was before, a boot sector, or is copied there by the guest.
 */

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "control.h"
#include "gate.h"
#include "vmm/disk.h"

struct MemoryRegion;
struct Object;

struct Notifier {
	void (*notify)(struct Notifier *notifier, void *data);
	void *next;
	void **prev;
};

struct MemoryRegionOps {
	uint64_t (*read)(void *opaque, uint64_t addr, unsigned int size);
	void (*write)(void *opaque, uint64_t addr, uint64_t data,
		      unsigned int size);
	void *read_with_attrs, *write_with_attrs;
	int endianness;
	struct {
		unsigned int min_access_size, max_access_size;
		bool unaligned;
		void *accepts;
	} valid;
	struct {
		unsigned int min_access_size, max_access_size;
		bool unaligned;
	} impl;
};

#define DEVICE_LITTLE_ENDIAN 2

/* There is room for what is behind. */
struct MemoryRegionSection {
	__int128 size;
	struct MemoryRegion *mr;
	void *view;
	uint64_t offset_within_region;
	uint64_t offset_within_address_space;
	char rest[256];
};

/* More than QEMU's own. */
#define MEMORY_REGION_ROOM 4096

void qemu_add_machine_init_done_notifier(struct Notifier *notifier);
void qemu_add_exit_notifier(struct Notifier *notifier);
void qemu_register_reset(void (*func)(void *opaque), void *opaque);
void qemu_set_fd_handler(int fd, void (*readable)(void *opaque),
			 void (*writable)(void *opaque), void *opaque);
struct MemoryRegion *get_system_memory(void);
void memory_region_init_io(struct MemoryRegion *mr, struct Object *owner,
			   const struct MemoryRegionOps *ops, void *opaque,
			   const char *name, uint64_t size);
void memory_region_add_subregion_overlap(struct MemoryRegion *mr,
					 uint64_t offset,
					 struct MemoryRegion *subregion,
					 int priority);
struct MemoryRegionSection memory_region_find(struct MemoryRegion *mr,
					      uint64_t addr, uint64_t size);
uint64_t memory_region_get_ram_addr(struct MemoryRegion *mr); /* or ~0 */
void *memory_region_get_ram_ptr(struct MemoryRegion *mr);
void *qemu_ram_block_by_name(const char *name);
uint64_t qemu_ram_get_used_length(void *block);
struct Object *object_get_root(void);
int object_child_foreach_recursive(struct Object *obj,
				   int (*fn)(struct Object *child,
					     void *opaque),
				   void *opaque);
const char *object_get_typename(const struct Object *obj);
struct MemoryRegion *sysbus_mmio_get_region(struct Object *dev, int n);
void *sysbus_get_connected_irq(const struct Object *dev, int n);
void qemu_set_irq(void *irq, int level);

/* By the name of its RAM. */
struct machine {
	const char *ram;
	uint64_t ram_base;
	uint64_t slot_base, slot_size;
	unsigned int n_slots;
};

static const struct machine machines[] = {
	{ "microvm.ram", 0, 0xfeb00000, 0x200, 24 },
	{ "mach-virt.ram", 0x40000000, 0x0a000000, 0x200, 32 },
	{ "riscv_virt_board.ram", 0x80000000, 0x10001000, 0x1000, 8 },
};
static const struct machine *machine;

#define SLOTS_MAX 32

struct slot {
	struct disk disk; /* dev is NULL once destroyed */
	enum ktvblk_outcome outcome; /* of that */
	struct MemoryRegion *placeholder;
	void *irq;
};

static struct slot slots[SLOTS_MAX];
static unsigned int n_slots;
static struct ktvblk_mem *mem;

/* A disk that was given no name goes by its path, as its device does. */
static const char *slot_name(const struct slot *slot)
{
	const struct disk *disk = &slot->disk;

	return disk->config.name ? disk->config.name : disk->path;
}

static void die(const char *what, const char *which, int r)
{
	fprintf(stderr, "overlay: %s %s: %s\n", what, which, strerror(-r));
	_exit(1);
}

/*
 * The line is up while InterruptStatus has bits, and looked at after all that
 * changes it. microvm's is level-triggered; virt's is by its edges, so it goes
 * down at each acknowledge, though the device may have raised a bit again.
 */
static void update_irq(const struct slot *slot)
{
	uint32_t pending = 0;

	if (slot->disk.dev)
		ktvblk_mmio_read(slot->disk.dev, VIRTIO_MMIO_INTERRUPT_STATUS,
				 &pending, sizeof(pending));
	qemu_set_irq(slot->irq, pending != 0);
}

static void on_irq_fd(void *opaque)
{
	const struct slot *slot = (const struct slot *)opaque;
	eventfd_t count;

	eventfd_read(ktvblk_irq_fd(slot->disk.dev), &count);
	update_irq(slot);
}

static uint64_t mmio_read(void *opaque, uint64_t addr, unsigned int size)
{
	const struct slot *slot = (const struct slot *)opaque;
	uint64_t data = 0;

	ktvblk_mmio_read(slot->disk.dev, addr, &data, size);
	return data;
}

static void mmio_write(void *opaque, uint64_t addr, uint64_t data,
		       unsigned int size)
{
	const struct slot *slot = (const struct slot *)opaque;
	const uint64_t start = clock_ms();

	ktvblk_mmio_write(slot->disk.dev, addr, &data, size);
	if (addr == VIRTIO_MMIO_INTERRUPT_ACK)
		qemu_set_irq(slot->irq, 0);
	if (addr == VIRTIO_MMIO_INTERRUPT_ACK || addr == VIRTIO_MMIO_STATUS)
		update_irq(slot);
	if (addr == VIRTIO_MMIO_STATUS && data == 0)
		control_note_reset(slot_name(slot), clock_ms() - start);
}

static const struct MemoryRegionOps mmio_ops = {
	.read = mmio_read,
	.write = mmio_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = { .min_access_size = 1, .max_access_size = 8 },
	.impl = { .min_access_size = 1, .max_access_size = 8 },
};

static void on_machine_reset(void *opaque)
{
	mmio_write(opaque, VIRTIO_MMIO_STATUS, 0, sizeof(uint32_t));
}

static void destroy(struct slot *slot)
{
	const uint64_t start = clock_ms();
	struct ktvblk_dev *dev = slot->disk.dev;

	if (!dev)
		return;
	qemu_set_fd_handler(ktvblk_irq_fd(dev), NULL, NULL, NULL);
	slot->disk.dev = NULL;
	slot->outcome = ktvblk_destroy(dev);
	update_irq(slot);
	control_note_destroy(slot_name(slot), slot->outcome,
			     clock_ms() - start);
}

void host_destroy(const char *name)
{
	for (unsigned int i = 0; i < n_slots; i++)
		if (!strcmp(slot_name(&slots[i]), name))
			destroy(&slots[i]);
}

void host_resize(const char *name, uint64_t bytes)
{
	for (unsigned int i = 0; i < n_slots; i++) {
		const struct disk *disk = &slots[i].disk;

		if (!strcmp(slot_name(&slots[i]), name) && disk->dev &&
		    truncate(disk->path, (off_t)bytes) == 0)
			ktvblk_refresh_capacity(disk->dev);
	}
}

void host_limit(const char *name, uint64_t iops)
{
	const struct ktvblk_throttle limits = { .iops = iops };

	for (unsigned int i = 0; i < n_slots; i++)
		if (!strcmp(slot_name(&slots[i]), name) && slots[i].disk.dev)
			ktvblk_set_throttle(slots[i].disk.dev, &limits);
}

/* A disk that was left behind at its destroy is so until its storage is free. */
static const char *slot_state(const struct slot *slot)
{
	if (slot->disk.dev)
		return ktvblk_state_name(ktvblk_get_state(slot->disk.dev));
	return slot->outcome == KTVBLK_TIMED_OUT && !gate_look().released
		       ? "wedged"
		       : "gone";
}

void host_states(char *text, size_t size)
{
	size_t len = 0;

	*text = '\0';
	for (unsigned int i = 0; i < n_slots && len < size; i++)
		len += (size_t)snprintf(text + len, size - len, "%s=%s ",
					slot_name(&slots[i]),
					slot_state(&slots[i]));
}

static void on_exit_of_qemu(struct Notifier *notifier, void *data)
{
	(void)notifier;
	(void)data;
	gate_shut(false); /* or the process could not end */
	for (unsigned int i = 0; i < n_slots; i++)
		if (slots[i].disk.dev)
			ktvblk_request_stop(slots[i].disk.dev);
	for (unsigned int i = 0; i < n_slots; i++)
		destroy(&slots[i]);
	ktvblk_log_flush(1000);
}

static int find_irq(struct Object *obj, void *opaque)
{
	struct slot *slot = (struct slot *)opaque;

	if (!strcmp(object_get_typename(obj), "virtio-mmio") &&
	    sysbus_mmio_get_region(obj, 0) == slot->placeholder)
		slot->irq = sysbus_get_connected_irq(obj, 0);
	return 0;
}

static void plug(struct slot *slot, struct ktvblk_backend *storage,
		 unsigned int bus)
{
	const uint64_t addr = machine->slot_base + machine->slot_size * bus;
	struct MemoryRegion *mr = calloc(1, MEMORY_REGION_ROOM);
	int r = mr ? 0 : -ENOMEM;

	slot->placeholder = memory_region_find(get_system_memory(), addr, 4).mr;
	object_child_foreach_recursive(object_get_root(), find_irq, slot);
	if (!slot->irq)
		die("no slot for", slot_name(slot), -ENODEV);
	if (r == 0)
		r = disk_start(&slot->disk, storage, mem);
	ktvblk_backend_unref(storage);
	if (r < 0)
		die("device", slot_name(slot), r);
	memory_region_init_io(mr, NULL, &mmio_ops, slot, "ktvblk",
			      machine->slot_size);
	memory_region_add_subregion_overlap(get_system_memory(), addr, mr,
					    1000);
	qemu_set_fd_handler(ktvblk_irq_fd(slot->disk.dev), on_irq_fd, NULL,
			    slot);
	qemu_register_reset(on_machine_reset, slot);
}

#define REGIONS_MAX 8

/* All RAM there is from the base on: a BIOS lies over some of it, in its own. */
static size_t find_regions(struct ktvblk_region *regions, uint64_t size)
{
	const uint64_t end = machine->ram_base + size;
	uint64_t addr = machine->ram_base;
	size_t n = 0;

	while (addr < end && n < REGIONS_MAX) {
		const struct MemoryRegionSection section = memory_region_find(
			get_system_memory(), addr, end - addr);

		if (!section.mr)
			break;
		addr = section.offset_within_address_space;
		if (memory_region_get_ram_addr(section.mr) != UINT64_MAX)
			regions[n++] = (struct ktvblk_region){
				.guest_addr = addr,
				.host_addr = (char *)memory_region_get_ram_ptr(
						     section.mr) +
					     section.offset_within_region,
				.size = (uint64_t)section.size,
			};
		addr += (uint64_t)section.size;
	}
	return n;
}

static void find_memory(void)
{
	struct ktvblk_region regions[REGIONS_MAX] = { 0 };
	void *block = NULL;
	size_t n;
	int r;

	for (size_t i = 0; i < sizeof(machines) / sizeof(*machines); i++) {
		machine = &machines[i];
		block = qemu_ram_block_by_name(machine->ram);
		if (block)
			break;
	}
	if (!block)
		die("memory", "of this machine", -ENODEV);
	n = find_regions(regions, qemu_ram_get_used_length(block));
	/* QEMU's memory outlives the devices. */
	r = ktvblk_mem_new(regions, n, NULL, NULL, &mem);
	if (r < 0)
		die("memory", machine->ram, r);
}

static void plug_disk(char *text)
{
	const char *gated = getenv("KTVBLK_GATED"), *what;
	struct slot *slot = &slots[n_slots];
	struct ktvblk_backend *storage;
	int r;

	if (n_slots == machine->n_slots ||
	    disk_parse(text, &slot->disk, &what) < 0)
		die("disk", text, -EINVAL);
	if (gated && !strncmp(gated, slot_name(slot), strlen(gated)))
		r = gate_open(slot->disk.path, &storage);
	else
		r = disk_open(&slot->disk, &storage);
	if (r < 0)
		die("storage", slot->disk.path, r);
	plug(slot, storage, machine->n_slots - ++n_slots);
}

static void plug_control(void)
{
	static char text[] = "control,serial=control";
	struct slot *slot = &slots[n_slots];
	struct ktvblk_backend *storage;
	const char *what;
	int r;

	if (n_slots == machine->n_slots ||
	    disk_parse(text, &slot->disk, &what) < 0)
		die("disk", "control", -EINVAL);
	r = control_storage(&storage);
	if (r < 0)
		die("storage", "control", r);
	plug(slot, storage, machine->n_slots - ++n_slots);
}

static void on_machine_done(struct Notifier *notifier, void *data)
{
	const char *control = getenv("KTVBLK_CONTROL");
	char *rest = getenv("KTVBLK_DISKS"), *text;

	(void)notifier;
	(void)data;
	if (!getenv("KTVBLK_JOURNAL"))
		ktvblk_set_log_handler(disk_print_record, NULL, NULL);
	find_memory();
	while ((text = strsep(&rest, " ")))
		if (*text)
			plug_disk(text);
	if (control && !strcmp(control, "no"))
		return;
	plug_control();
	control_start();
	qemu_set_fd_handler(control_fd(), control_run, NULL, NULL);
}

__attribute__((constructor)) static void overlay(void)
{
	static struct Notifier machine_done = { .notify = on_machine_done };
	static struct Notifier exit_notifier = { .notify = on_exit_of_qemu };

	if (!getenv("KTVBLK_DISKS"))
		return;
	qemu_add_machine_init_done_notifier(&machine_done);
	qemu_add_exit_notifier(&exit_notifier);
}
