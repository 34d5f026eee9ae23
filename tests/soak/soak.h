/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SOAK_H
#define SOAK_H

/*
 * One device, its storage and its guest: a thread that drives it at random and
 * knows what each byte of its disk must be.
 */

#include <stdbool.h>
#include <stdint.h>

#include "bounds.h"
#include "rig.h"

#define SLOTS 32u
#define SLOT_BYTES (64u << 10)
#define SOAK_DISK_BYTES (2u << 20)
/* Behind the rings of all queues; see rig.h. */
#define QUEUES_MOST 4u
#define SOAK_DATA (RIG_RAM_BYTES / 2)

/* A request at work, or one whose end the guest did not see. */
struct slot {
	enum { SLOT_FREE, SLOT_BUSY, SLOT_UNCERTAIN } state;
	uint32_t type;
	uint64_t offset;
	uint32_t len;
	unsigned int queue;
	uint16_t head;
	unsigned char *written; /* what it was to write */
};

struct figures {
	uint64_t requests, bytes;
	uint64_t resets, pauses, wedges, devices;
	uint64_t slow_pauses; /* not within a second */
	uint64_t most_at_work; /* of one device */
	uint64_t over_ns; /* the longest reset or destroy, over its budget */
};

/* Asked for, and answered by a thread. */
struct answers {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct ktvblk_io *ios[QUEUES_MOST * DEPTH_DEFAULT];
	uint64_t dice;
	unsigned int n;
	_Atomic unsigned int n_held;
	bool ends;
};

/* How a device gets at its storage. */
enum way {
	WAY_CALLS,
	WAY_LATER,
	WAY_FILE, /* by one of the engines */
	WAY_COUNT,
};

struct guest {
	unsigned int index;
	uint64_t random;
	uint64_t end_ns;
	struct figures figures;

	/*
	 * Storage: while `hold` is set a call blocks in poll(gate_fd), and of
	 * what is answered later one is not.
	 */
	unsigned char *disk; /* of the file, shared */
	int disk_fd;
	int gate_fd;
	_Atomic bool hold;
	_Atomic unsigned int calls_held;
	_Atomic unsigned int storage_released;
	struct answers later;
	enum way way; /* this device's */

	struct rig rig;
	unsigned char *model; /* what the disk must hold */
	uint32_t budget_ms;
	bool read_only;
	unsigned int n_queues; /* these two: of this device */
	uint32_t block_bytes;
	unsigned int n_slots; /* of each queue */
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
/* Used entries of all queues. */
unsigned int device_used(struct guest *guest);

/* store.c */
void store_open(struct guest *guest);
void store_close(struct guest *guest);
struct ktvblk_backend *store_backend(struct guest *guest);
/* Hang it from now on; false: it cannot. Let it go. */
bool store_hold(struct guest *guest);
void store_let_go(struct guest *guest);
unsigned int store_held(struct guest *guest);

/* requests.c */
uint8_t *slot_status(struct guest *guest, const struct slot *slot);
/* Up to n new ones; false: no slot was free. */
bool requests_submit(struct guest *guest, unsigned int n);
/* Check what has ended; wait: until something has, if anything is at work. */
void requests_reap(struct guest *guest, bool wait);
void requests_finish(struct guest *guest);
/* Behind a reset or destroy: none is at work any more. */
void requests_abandon(struct guest *guest);
/* Once no worker is left behind: find out what the abandoned have done. */
void requests_settle(struct guest *guest);

#endif
