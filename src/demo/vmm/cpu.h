/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_CPU_H
#define VMM_CPU_H

/* The CPU, the interrupt chips and the timers, as KVM has them, in a file. */

#include <stdio.h>

#include "vmm.h"

void cpu_save(const struct vmm *vmm, FILE *file);
void cpu_restore(const struct vmm *vmm, FILE *file);

#endif
