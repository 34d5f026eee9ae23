/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_WEDGE_H
#define TEST_WEDGE_H

/*
 * Storage that hangs, and what is looked at then: how long it took, whether
 * guest memory changes, what is left behind in the process.
 */

#include "harness.h"
#include "recorder.h"
#include "rig.h"

#define WEDGE_RAM_BYTES 0x20000u

/* A device named "vda" with these budgets and little memory, at DRIVER_OK. */
void wedge_open(struct rig *rig, uint32_t budget_ms, uint64_t flags);

/* The same at reset. */
void wedge_open_idle(struct rig *rig, uint32_t budget_ms, uint64_t flags);

/*
 * A request of one sector, or a flush, at head 0 that hangs in storage; it is
 * made available and kicked.
 */
void wedge(struct rig *rig, uint32_t type, uint64_t sector);

/* Start a recorder, behind the last record of devices that were here before. */
void wedge_record(struct recorder *rec);

/* Let the storage go, destroy if that was not done yet, and free the rig. */
void wedge_close(struct rig *rig);

/* The device's worker, 0 if there is none; does it wait for events? */
pid_t worker_tid(struct rig *rig);
bool worker_sleeps(struct rig *rig);

/* A sum over all of guest memory. */
uint64_t wedge_ram_sum(const struct rig *rig);

/*
 * The time, from which a call that is made here is measured; and milliseconds
 * since, rounded down.
 */
uint64_t clock_start(void);
uint64_t ms_since(uint64_t start_ns);

/*
 * What all threads of this process have run, ever: for what others than the
 * caller have to do, as nobody knows how long they wait for a processor.
 */
uint64_t process_ns(void);

/* Under valgrind or a sanitizer: times mean little, and rounds are dear. */
bool runs_slowly(void);

/*
 * A bound in milliseconds, made wide where that is so, and by what this thread
 * spent since clock_start() ready to run while others had the processor.
 */
uint64_t bound_ms(uint64_t ms);

/* A number from the environment, or `usual`, or `slow` where that is so. */
unsigned int rounds(const char *env, unsigned int usual, unsigned int slow);

/* A number or a string of a record, which must be there. */
void expect_number(const struct kept_record *record, const char *key,
		   int64_t value);
void expect_text(const struct kept_record *record, const char *key,
		 const char *value);

/* Of a test that has started none; the thread sanitizer has its own. */
#ifdef __SANITIZE_THREAD__
#define OWN_THREADS 2u
#else
#define OWN_THREADS 1u
#endif

struct traces {
	unsigned int fds;
	unsigned int threads; /* all of the process */
	unsigned int maps;
};

/* While there is no device. */
struct traces traces_now(void);

/* No thread of the library's is left, and no more descriptors than before. */
void traces_expect_gone(const struct traces *before);

#endif
