/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUZZ_REACH_H
#define FUZZ_REACH_H

/*
 * What a corpus gets to: events of the library, each reason to call a chain
 * malformed, counters. A target has "wrap: log_emit" in a comment, and says
 * which events are its own.
 */

#include <stdbool.h>

#include "events.h"
#include "ktvblk.h"

struct reach {
	enum event first, last; /* of the list of events */
	const enum event *but; /* not these, to EVENT_COUNT */
	bool counters;
	bool no_chains; /* nor what is wrong with them */
};
extern const struct reach reach;

/* Add the counters of a device that goes. */
void reach_count(struct ktvblk_stats *stats);

/* Name what was not reached; how many that is. */
unsigned int reach_missing(void);

#endif
