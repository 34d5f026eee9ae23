/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 *   timed out, helper ... ─► wedged ─── reclaimed ─► (nothing)
 *   stalled ─► stalled ─┬─ resumed, panicked ─► (nothing)
 *                       └─ timed out ─► wedged
 *
 * A second wedge with the same key means that the number of its eventfd was
 * free again: the first is over, or of a process that had the same pid before.
 */

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "list.h"

/* The key comes first in what the tree compares. */
static int compare(const void *a, const void *b)
{
	const struct key *x = (const struct key *)a;
	const struct key *y = (const struct key *)b;
	int r = memcmp(&x->machine, &y->machine, sizeof(x->machine));

	if (r == 0)
		r = memcmp(&x->boot, &y->boot, sizeof(x->boot));
	if (r == 0)
		r = (x->pid > y->pid) - (x->pid < y->pid);
	if (r == 0)
		r = (x->instance > y->instance) - (x->instance < y->instance);
	if (r == 0)
		r = (x->stop_fd > y->stop_fd) - (x->stop_fd < y->stop_fd);
	return r;
}

static struct device *find(const struct list *list, const struct key *key)
{
	const struct key **node =
		(const struct key **)tfind(key, &list->tree, compare);
	struct record *record;

	if (!node)
		return NULL;
	record = (struct record *)((char *)(uintptr_t)*node -
				   offsetof(struct record, key));
	return (struct device *)((char *)record -
				 offsetof(struct device, record));
}

void list_init(struct list *list)
{
	TAILQ_INIT(&list->devices);
	list->tree = NULL;
}

static void forget(struct list *list, struct device *device)
{
	tdelete(&device->record.key, &list->tree, compare);
}

void device_unwatch(struct device *device)
{
	if (device->pidfd >= 0)
		close(device->pidfd);
	device->pidfd = -1;
}

static void drop(struct list *list, struct device *device)
{
	if (!device->replaced)
		forget(list, device);
	TAILQ_REMOVE(&list->devices, device, link);
	device_unwatch(device);
	free(device);
}

void list_free(struct list *list)
{
	while (!TAILQ_EMPTY(&list->devices))
		drop(list, TAILQ_FIRST(&list->devices));
}

static struct device *add(struct list *list, const struct record *record)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	device->record = *record;
	device->pidfd = -1;
	if (!tsearch(&device->record.key, &list->tree, compare)) {
		free(device);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&list->devices, device, link);
	return device;
}

static struct device *replace(struct list *list, struct device *old,
			      const struct record *record)
{
	if (old) {
		forget(list, old);
		device_unwatch(old);
		old->replaced = true;
	}
	return add(list, record);
}

static int wedge(struct list *list, struct device *device,
		 const struct record *record)
{
	if (device && !device->wedged) {
		/* It was stalled; what the tree compares stays. */
		device->record = *record;
		/* Its place is that of the record it shows. */
		TAILQ_REMOVE(&list->devices, device, link);
		TAILQ_INSERT_TAIL(&list->devices, device, link);
	} else {
		device = replace(list, device, record);
		if (!device)
			return -ENOMEM;
	}
	device->wedged = true;
	return 1;
}

static int stall(struct list *list, struct device *device,
		 const struct record *record)
{
	if (!device || (device->stalled && !device->wedged)) {
		device = replace(list, device, record);
		if (!device)
			return -ENOMEM;
	}
	device->stalled = true;
	/* Nothing new about one that is known to be wedged. */
	return !device->wedged;
}

static int resume(struct list *list, struct device *device)
{
	if (!device || !device->stalled)
		return 0;
	device->stalled = false;
	if (device->wedged)
		return 0;
	drop(list, device);
	return 1;
}

int list_add(struct list *list, const struct record *record,
	     const char **ret_what)
{
	struct device *device = find(list, &record->key);

	switch (record->kind->effect) {
	case EFFECT_WEDGE:
		*ret_what = "wedged";
		return wedge(list, device, record);
	case EFFECT_STALL:
		*ret_what = "stalled";
		return stall(list, device, record);
	case EFFECT_RESUME:
		*ret_what = "resumed";
		return resume(list, device);
	case EFFECT_RECLAIM:
		*ret_what = "reclaimed";
		if (!device)
			return 0;
		drop(list, device);
		return 1;
	}
	return 0;
}
