/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_PRINTER_H
#define WEDGED_PRINTER_H

#include "process.h"

/*
 * Print a device, or what has happened to it: `what` is a state, or what
 * list_add() said.
 */
struct printer {
	void (*head)(void); /* before the first; may be NULL */
	void (*row)(const struct record *record, const char *what,
		    enum presence presence);
};

extern const struct printer table_printer;
extern const struct printer json_printer;

#endif
