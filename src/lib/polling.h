/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_POLLING_H
#define KTVBLK_POLLING_H

/*
 * For how long a worker that has run out of work looks for more before it
 * sleeps. It pays while the driver comes back soon, so that is what decides:
 *
 *   gap     from the end of the work to the kick that ended the sleep
 *   window  twice as long after a short gap, half as long after a long one,
 *           none once that gets too short
 *
 * An idle disk sleeps; work that comes more seldom than the bound never waits
 * for a poll that finds nothing more than a few times.
 */

#include <stdint.h>

#include "util.h"

struct polling {
	uint64_t max_ns; /* 0: never */
	uint64_t window_ns;
};

void polling_init(struct polling *polling, uint32_t max_us);

/* After a sleep of slept_ns that a kick ended. */
void polling_adapt(struct polling *polling, uint64_t slept_ns);

/* The time, where it is needed at all. */
static inline uint64_t polling_now(const struct polling *polling)
{
	return polling->max_ns ? now_ns() : 0;
}

#endif
