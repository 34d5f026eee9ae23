/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CONTROL_H
#define CONTROL_H

#include "vmm-disk.h"

/*
 * Storage that can be blocked, and the disk through which the guest does so and
 * hears of it. For what carries the devices: overlay.c and ring3.c.
 */

/* To be had from those. */
uint64_t clock_ms(void);
void host_destroy(const char *name);

void control_start(void);

/* Storage in a file, with the gate before it. */
int control_gate(const char *path, struct ktvblk_backend **ret_storage);
int control_storage(struct ktvblk_backend **ret_storage);

/* control_run() on the main loop whenever control_fd() is readable. */
int control_fd(void);
void control_run(void *unused);

/* A command, see control.c. */
void control_command(const char *line);

/* Of the records so far, those of a reset that timed out, and of its end. */
void control_count(unsigned int *ret_reset_timed_out,
		   unsigned int *ret_reclaimed);

void control_note_reset(const char *name, uint64_t took_ms);
void control_note_destroy(const char *name, enum ktvblk_outcome outcome,
			  uint64_t took_ms);

#endif
