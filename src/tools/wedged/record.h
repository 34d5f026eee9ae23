/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_RECORD_H
#define WEDGED_RECORD_H

/*
 * ktvblk-wedged(1): from records in the journal to the devices that are wedged
 * or stalled now. Each file knows only those to its right, or below:
 *
 *   main ─► options ─► since         what is asked for
 *     │     files ─► journal         which journal files cannot be read
 *     └─► follow ─► view             what is printed when, and from then on
 *                    ├─► journal     records, one after the other
 *                    ├─► list        what they add up to
 *                    └─► table, json ─► process ─► record
 *
 * Of use to all: text (strings of strangers), say (what is told).
 */

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-id128.h>

/* A number that is not known. */
#define UNKNOWN UINT64_MAX

/* What a record does to the entry of its device. */
enum effect {
	EFFECT_WEDGE,
	EFFECT_STALL,
	EFFECT_RESUME, /* the stall is over, a wedge is not */
	EFFECT_RECLAIM, /* both are */
};

struct kind {
	const char *message_id;
	const char *name; /* for programs */
	enum effect effect;
};

/*
 * One life of one device. A number of an eventfd belongs to one life at a time,
 * and a worker that is stuck keeps it.
 */
struct key {
	sd_id128_t machine;
	sd_id128_t boot;
	uint64_t pid;
	uint64_t instance;
	uint64_t stop_fd;
};

/* One record. Text of the journal is not to be trusted: see utf8_next(). */
struct record {
	const struct kind *kind;
	struct key key;
	uint64_t realtime_us;
	uint64_t monotonic_us; /* of its boot */
	uint64_t queue; /* UNKNOWN: the device has but one */
	uint64_t capacity_sectors;
	uint64_t timeout_ms;
	uint64_t sector;
	uint64_t length;
	uint64_t age_ms;
	uint64_t in_flight;
	uint64_t stuck_threads;
	uint64_t stuck_tid;
	uint64_t stuck_ms;
	char disk[256];
	char command[64];
	char fenced[8];
	char req_type[16]; /* empty: no request was in service */
	char stuck_state[8];
	char stuck_syscall[40];
	char stuck_wchan[72];
};

#endif
