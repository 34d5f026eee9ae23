/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_H
#define VMM_H

/*
 * ktvblk-vmm: one CPU, a serial console, and disks of libktvblk, on KVM.
 *
 *   vmm.c          options; boots the guest, and again when it reboots
 *   vmm-bus.c      the disks: all that a VMM has to do for the library
 *   vmm-disk.c     from the text of --disk to a device
 *   vmm-machine.c  memory, virtual machine, CPU and its exits
 *   vmm-boot.c, vmm-acpi.c, vmm-serial.c   what else Linux wants to find
 *
 * The main thread runs the CPU. It alone makes the [device] calls of ktvblk.h,
 * so they need no lock; the console's thread asks for one by vmm_ask().
 */

#include <linux/kvm.h>

#include "vmm-disk.h"

/* Where things are in the guest's memory, and above it. */
#define GDT_ADDR 0x500u
#define BOOT_PARAMS_ADDR 0x7000u
#define PAGE_TABLES_ADDR 0x9000u
#define CMDLINE_ADDR 0x20000u
#define CMDLINE_MAX 2048
#define ACPI_ADDR 0xe0000u
#define ACPI_END 0x100000u
#define MEMORY_MIN_MIB 64
#define MEMORY_MAX_MIB 3072
#define BUS_ADDR UINT64_C(0xd0000000) /* each disk has a window of its own */
#define BUS_GSI 16 /* the first disk's interrupt */
#define BUS_SLOTS 8

/* Ports. */
#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_GSI 4
#define RESET_PORT 0x64
#define RESET_VALUE 0xfe
#define SLEEP_PORT 0x600
#define SLEEP_ENABLE 0x20

struct vmm {
	int kvm_fd;
	uint8_t *ram;
	uint64_t ram_size;
	struct disk disks[BUS_SLOTS];
	unsigned int n_disks;
	/* Anew for each boot. */
	int vm_fd;
	int vcpu_fd;
	struct kvm_run *run;
};

/* How the guest came to stop. */
enum end { RUNNING, POWER_OFF, REBOOT, TRIPLE_FAULT, QUIT };

/* Print "ktvblk-vmm: ...", with errno's text for fail(), and exit. */
_Noreturn void fail(const char *what);
_Noreturn void give_up(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

/* Ask the main thread to pull out a disk, or to end. From any thread. */
#define ASK_UNPLUG(slot) (1u << (slot))
#define ASK_QUIT (1u << BUS_SLOTS)
void vmm_ask(unsigned int what);

void bus_open(struct vmm *vmm, struct ktvblk_mem *mem);
void bus_connect(const struct vmm *vmm);
void bus_access(const struct vmm *vmm, uint64_t addr, bool is_write, void *data,
		size_t len);
void bus_reset(const struct vmm *vmm);
bool bus_unplug(struct vmm *vmm, unsigned int slot);
bool bus_close(struct vmm *vmm);

struct ktvblk_mem *machine_memory(struct vmm *vmm, uint64_t size);
void machine_on(struct vmm *vmm);
enum end machine_run(const struct vmm *vmm);
void machine_off(struct vmm *vmm);

void boot_load(const struct vmm *vmm, const char *kernel, const char *initrd,
	       const char *cmdline);
void boot_cpu(const struct vmm *vmm);

void acpi_build(const struct vmm *vmm);

/* The console is standard input and output. */
void serial_start(void);
void serial_connect(int vm_fd); /* -1: to none */
uint8_t serial_read(unsigned int reg);
void serial_write(unsigned int reg, uint8_t value);

#endif
