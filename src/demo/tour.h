/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_TOUR_H
#define DEMO_TOUR_H

/* The parts of the tour, each in a file of its own. */

#include "image.h"
#include "options.h"
#include "usage.h"

struct tour {
	struct options options;
	struct image image;
	struct usage before; /* anything hung */
};

#define STALL_WARN_MS 100

/* What reset and destroy may take beyond their budget. */
#define GRACE_MS 50

/* disk.c: a disk that works. */
void show_disk(struct tour *tour);
/* move.c: one that goes on in another device. */
void show_move(struct tour *tour);
/* change.c: one that has other limits, another size, less in its file. */
void show_change(struct tour *tour);
/* wedge.c: one that hangs, destroyed. */
void show_wedge(struct tour *tour);
/* heal.c: one that hangs, reset by the guest, and comes back. */
void show_healing(struct tour *tour);
/* bounds.c: both again, a few times and in worse conditions. */
void show_bounds(struct tour *tour);

#endif
