/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm.h"

/* How the guest came to stop. */
enum end { RUNNING, POWER_OFF, REBOOT, TRIPLE_FAULT, QUIT, SAVED };

struct ktvblk_mem *machine_memory(struct vmm *vmm, uint64_t size);
void machine_on(struct vmm *vmm);
enum end machine_run(const struct vmm *vmm);

/* Finish what the CPU is amid of, so that its state is whole. */
enum end machine_settle(const struct vmm *vmm);
void machine_off(struct vmm *vmm);

#endif
