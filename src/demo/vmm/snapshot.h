/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_SNAPSHOT_H
#define VMM_SNAPSHOT_H

/*
 * The whole machine in a file, for a later run of this program on such a
 * processor and with the same disks.
 */

#include <stdio.h>

#include "vmm.h"

/* False, with a message: it could not be done, and the machine goes on. */
bool snapshot_save(const struct vmm *vmm, const char *path);

/* The file, and how much memory its machine has; or exit. */
FILE *snapshot_open(const char *path, uint64_t *ret_ram_size);

/* Into a machine that is on; closes the file. */
void snapshot_restore(struct vmm *vmm, FILE *file);

#endif
