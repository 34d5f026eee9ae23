/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_VIEW_H
#define WEDGED_VIEW_H

/* What is printed when. */

#include "journal.h"
#include "list.h"
#include "printer.h"

struct view {
	const struct query *query;
	const struct printer *printer;
	struct list list;
	bool trouble; /* a record was left out, told once */
	bool headed;
};

void view_print(struct view *view, const struct record *record,
		const char *what, enum presence presence);

/* Print all there is now, unless silent; how many that are. */
size_t view_print_all(struct view *view, bool silent);

/* Take in all records up to the end; with `tell`, print what changes. */
int view_take(struct view *view, sd_journal *journal, bool tell);

#endif
