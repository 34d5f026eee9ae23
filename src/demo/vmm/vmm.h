/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_VMM_H
#define VMM_VMM_H

/*
 * ktvblk-vmm: one CPU, a serial console, and disks of libktvblk, on KVM. Each
 * file knows only those below it:
 *
 *   main       boots the guest, and again when it reboots
 *   snapshot   the machine in a file, with cpu for what KVM has of it
 *   options    what the user wants
 *   machine    memory, virtual machine, CPU and its exits
 *   bus        the disks: all that a VMM has to do for the library
 *   disk       from the text of --disk to a device
 *   boot, acpi, serial   what else Linux wants to find
 *   ask        what other threads and signals want of the main thread
 *   say, file  errors; bytes of a saved machine
 *
 * The main thread runs the CPU. It alone makes the [device] calls of ktvblk.h,
 * so they need no lock; the console's thread asks for one by ask_for().
 */

#include <linux/kvm.h>

#include "disk.h"
#include "layout.h"

struct vmm {
	int kvm_fd;
	uint8_t *ram;
	uint64_t ram_size;
	struct disk disks[BUS_SLOTS];
	unsigned int n_disks;
	bool unlimited; /* the disks, whatever their options say */
	bool left_behind; /* a disk's worker, which the exit status tells */
	/* Anew for each boot. */
	int vm_fd; /* -1: off */
	int vcpu_fd;
	struct kvm_run *run;
};

#endif
