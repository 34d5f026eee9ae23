/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SOAK_H
#define SOAK_H

/*
 * One device, its storage and its guest: a thread that drives it at random and
 * knows what each byte of its disk must be.
 */

#include <stdbool.h>
#include <stdint.h>

#include "rig.h"

#define SLOTS 16u
#define SLOT_BYTES (64u << 10)
#define SOAK_DISK_BYTES (2u << 20)

/* A request at work, or one whose end the guest did not see. */
struct slot {
	enum { SLOT_FREE, SLOT_BUSY, SLOT_UNCERTAIN } state;
	uint32_t type;
	uint64_t offset;
	uint32_t len;
	uint16_t head;
	unsigned char *written; /* what it was to write */
};

struct figures {
	uint64_t requests, bytes;
	uint64_t resets, pauses, wedges, devices;
	uint64_t slow_pauses; /* not within a second */
	uint64_t over_ns; /* the longest reset or destroy, over its budget */
};

struct guest {
	unsigned int index;
	uint64_t random;
	uint64_t end_ns;
	struct figures figures;

	/* Storage: a call blocks in read(gate_fd) while `hold` is set. */
	unsigned char *disk;
	int gate_fd;
	_Atomic bool hold;
	_Atomic unsigned int held;
	_Atomic unsigned int storage_released;

	struct rig rig;
	unsigned char *model; /* what the disk must hold */
	uint32_t budget_ms;
	bool read_only;
	unsigned int n_slots; /* of this session */
	struct slot slots[SLOTS];
	uint64_t seen_reads, seen_writes; /* of this device */
};

/* A failure ends the program, with the seed. */
_Noreturn void soak_fail(struct guest *guest, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define must(guest, condition)                                                 \
	do {                                                                   \
		if (!(condition))                                              \
			soak_fail(guest, "%s:%d: %s", __FILE__, __LINE__,      \
				  #condition);                                 \
	} while (0)

/* Below n. */
uint64_t soak_random(struct guest *guest, uint64_t n);

/* guest.c: all of a guest's life up to end_ns; then no device is left. */
void guest_open(struct guest *guest, unsigned int index, uint64_t seed,
		uint64_t end_ns);
void *guest_main(void *guest);
void guest_close(struct guest *guest);

/* device.c */
void device_make(struct guest *guest);
void device_begin(struct guest *guest); /* to DRIVER_OK */
void device_stop(struct guest *guest); /* reset */
enum ktvblk_outcome device_end(struct guest *guest);
/* Hang the storage, which a request is on its way to; let it go. */
void device_hold(struct guest *guest);
void device_let_go(struct guest *guest);

/* requests.c: up to n new ones; false: no slot was free. */
bool requests_submit(struct guest *guest, unsigned int n);
/* Check what has ended; wait: until something has, if anything is at work. */
void requests_reap(struct guest *guest, bool wait);
void requests_finish(struct guest *guest);
/* Behind a reset or destroy: none is at work any more. */
void requests_abandon(struct guest *guest);
/* Once no worker is left behind: find out what the abandoned have done. */
void requests_settle(struct guest *guest);

#endif
