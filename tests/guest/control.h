/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CONTROL_H
#define CONTROL_H

#include <ktvblk.h>

/*
 * The disk through which a guest tells the host what to do, and hears how its
 * disks are: for overlay.c, which has the last two of these.
 */

uint64_t clock_ms(void);

int control_storage(struct ktvblk_backend **ret_storage);

/* control_run() on the main loop whenever control_fd() is readable. */
void control_start(void);
int control_fd(void);
void control_run(void *unused);

void control_note_reset(const char *name, uint64_t took_ms);
void control_note_destroy(const char *name, enum ktvblk_outcome outcome,
			  uint64_t took_ms);

void host_destroy(const char *name);
void host_resize(const char *name, uint64_t bytes);
void host_limit(const char *name, uint64_t iops);
void host_states(char *text, size_t size); /* NAME=STATE for each disk */

#endif
