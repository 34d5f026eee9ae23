/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

/*
 * A device and the guest before it: memory, and a driver whose interrupt is
 * acknowledged by registers.
 */

#include "api.h"
#include "driver.h"
#include "store.h"

struct guest {
	const struct api *api;
	struct ktvblk_dev *dev;
	pid_t worker; /* its thread, once started; 0 before */
	struct driver driver;
};

/*
 * Make the device, up to its reset state. -errno: the engine that is named is
 * not to be had.
 */
int guest_open(struct guest *guest, const struct api *api,
	       const struct bench_case *what, const struct store *store,
	       uint32_t worker_cpu);
/* How long ktvblk_destroy() took. */
uint64_t guest_close(struct guest *guest);

/* Negotiate and set up the queue; then DRIVER_OK, which starts the worker. */
void guest_prepare(struct guest *guest);
void guest_go(struct guest *guest);
/* That, and find the worker's thread. */
void guest_start(struct guest *guest);
void guest_reset(struct guest *guest);

/* Of its memory. */
uint64_t guest_resident_bytes(const struct guest *guest);

/* driver_batch(), with the worker asleep before and after. */
void guest_batch(struct guest *guest);

/* driver_run(), and what of it is the worker's. */
void guest_run(struct guest *guest, uint64_t for_ns, struct run *run);

#endif
