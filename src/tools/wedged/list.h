/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_LIST_H
#define WEDGED_LIST_H

/* What records add up to. */

#include <stdbool.h>
#include <sys/queue.h>

#include "record.h"

struct device {
	TAILQ_ENTRY(device) link;
	struct record record; /* that says most */
	bool wedged;
	bool stalled;
	/* Another life has its number: its end was not recorded. */
	bool replaced;
	bool told_gone; /* that its process is */
	int pidfd; /* to see that; -1: none */
};

struct list {
	TAILQ_HEAD(, device) devices; /* in the order of their records */
	void *tree; /* by key, without those replaced */
};

void list_init(struct list *list);
void list_free(struct list *list);

/*
 * What the record adds: 1 with a change, 0 without one, -ENOMEM. A change is
 * told in *ret_what: "wedged", "stalled", "resumed", "reclaimed".
 */
int list_add(struct list *list, const struct record *record,
	     const char **ret_what);

/* Wait for its process no more. */
void device_unwatch(struct device *device);

#endif
