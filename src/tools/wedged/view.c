/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "say.h"
#include "view.h"

void view_print(struct view *view, const struct record *record,
		const char *what, enum presence presence)
{
	if (!view->headed && view->printer->head)
		view->printer->head();
	view->headed = true;
	view->printer->row(record, what, presence);
}

size_t view_print_all(struct view *view, bool silent)
{
	struct device *device;
	size_t n = 0;

	TAILQ_FOREACH(device, &view->list.devices, link)
	{
		enum presence presence = process_look(&device->record);

		if (device->replaced) {
			/* The same process: only the record of its end is lost. */
			if (presence == PROCESS_RUNNING)
				continue;
			presence = PROCESS_GONE;
		}
		device->told_gone = presence == PROCESS_GONE;
		if (view->query->running && presence == PROCESS_GONE)
			continue;
		n++;
		if (!silent)
			view_print(view, &device->record,
				   device->wedged ? "wedged" : "stalled",
				   presence);
	}
	return n;
}

int view_take(struct view *view, sd_journal *journal, bool tell)
{
	struct record record;
	const char *what;
	int r;

	while ((r = journal_next(journal, &record, &view->trouble)) > 0) {
		r = list_add(&view->list, &record, &what);
		if (r < 0) {
			complain("%s", strerror(-r));
			return r;
		}
		if (r > 0 && tell)
			view_print(view, &record, what, process_look(&record));
	}
	return r;
}
