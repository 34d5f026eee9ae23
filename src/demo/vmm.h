/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_H
#define VMM_H

/*
 * ktvblk-vmm: one CPU, a serial console, and disks of libktvblk, on KVM.
 *
 *   vmm.c         options, the virtual machine, its run loop and its end
 *   vmm-boot.c    the kernel into memory, the CPU at its entry
 *   vmm-acpi.c    the tables that tell the kernel of the devices
 *   vmm-serial.c  the console
 *   vmm-disk.c    from the text of --disk to a device
 *
 * The run loop's thread makes all [device] calls of ktvblk.h.
 */

#include <linux/kvm.h>

#include "vmm-disk.h"

#define DISKS_MAX 8

/* Guest-physical addresses and interrupts of the devices. */
#define DISK_MMIO UINT64_C(0xd0000000) /* each has a window of its own */
#define DISK_GSI 16
#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_GSI 4
#define SLEEP_PORT 0x600 /* SLP_EN ends the machine */
#define KEYBOARD_PORT 0x64 /* 0xfe resets it */

/* Guest memory, below 3 GiB; what else is at fixed addresses: */
#define MEMORY_MAX (UINT64_C(3) << 30)
#define GDT_ADDR 0x500u
#define BOOT_PARAMS_ADDR 0x7000u
#define PAGE_TABLES_ADDR 0x9000u
#define CMDLINE_ADDR 0x20000u
#define ACPI_ADDR 0xe0000u
#define ACPI_END 0x100000u

struct vmm_disk {
	struct disk_options options;
	struct ktvblk_dev *dev;
};

struct vmm {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd;
	struct kvm_run *run;
	uint8_t *ram;
	uint64_t ram_size;
	struct vmm_disk disks[DISKS_MAX];
	unsigned int n_disks;
};

/* Print "ktvblk-vmm: ...", with errno's text for fail(), and exit. */
_Noreturn void fail(const char *what);
_Noreturn void give_up(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

void boot_load(const struct vmm *vmm, const char *kernel, const char *initrd,
	       const char *cmdline);
void boot_cpu(const struct vmm *vmm);

void acpi_build(const struct vmm *vmm);

/* Standard input and output become the console. */
void serial_start(const struct vmm *vmm, void (*quit)(void));
uint8_t serial_read(unsigned int reg);
void serial_write(unsigned int reg, uint8_t value);

#endif
