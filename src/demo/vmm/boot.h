/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "vmm.h"

void boot_load(const struct vmm *vmm, const char *kernel, const char *initrd,
	       const char *cmdline);
void boot_cpu(const struct vmm *vmm);

/* Which processor it is: for boot_cpu(), or before a saved one is put back. */
void boot_cpuid(const struct vmm *vmm);

#endif
