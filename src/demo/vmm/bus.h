/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdio.h>

#include "vmm.h"

void bus_open(struct vmm *vmm, struct ktvblk_mem *mem);
void bus_connect(const struct vmm *vmm);
void bus_access(const struct vmm *vmm, uint64_t addr, bool is_write, void *data,
		size_t len);
void bus_reset(const struct vmm *vmm);
void bus_look_at_sizes(const struct vmm *vmm);
void bus_switch_limits(struct vmm *vmm);
void bus_unplug(struct vmm *vmm, unsigned int slot);
void bus_close(struct vmm *vmm);

/* Disks in a saved machine: see snapshot.c. False: with a message, or errno. */
bool bus_pause(const struct vmm *vmm);
void bus_resume(const struct vmm *vmm);
bool bus_save(const struct vmm *vmm, FILE *file);
void bus_restore(struct vmm *vmm, FILE *file);

#endif
