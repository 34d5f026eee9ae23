/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_PROCESS_H
#define WEDGED_PROCESS_H

/* Is the process that made a record still there? */

#include "record.h"

enum presence {
	PROCESS_UNKNOWN, /* of another machine or container */
	PROCESS_RUNNING,
	PROCESS_GONE, /* its number may be another's by now */
};

enum presence process_look(const struct record *record);
/* A descriptor that can be read once it has ended; -1: none, or not to be had. */
int process_open(const struct record *record);
const char *presence_name(enum presence presence);

#endif
