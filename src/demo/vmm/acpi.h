/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "vmm.h"

void acpi_build(const struct vmm *vmm);

#endif
