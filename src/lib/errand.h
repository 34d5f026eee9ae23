/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_ERRAND_H
#define KTVBLK_ERRAND_H

/*
 * Somebody else's code that may block for as long as it likes, or end its thread,
 * and is not to be waited for: it has a thread to itself. What is out counts as
 * what a device has left behind: its destroy waits for it up to its budget, and
 * KTVBLK_JOINED says that it is over.
 *
 *   errand_start() ─► ktvblk-drop ─► thread: run()
 *                         │ joins it
 *                         └─► log thread: joins that, over()
 */

#include <pthread.h>

#include "journal.h"
#include "ports.h"

struct errand {
	const char *name; /* of its thread */
	void (*run)(struct errand *errand);
	/* Nothing of it is left but this, to be freed; never blocks, unless ... */
	void (*over)(struct errand *errand);
	/* ... this: no thread could be had, and run() was not called; or 0. */
	int error;
	/* Its own: */
	struct ports *ports;
	pthread_t thread, joiner;
	bool has_joiner;
	struct log_job job;
};

/* All that a start needs and can fail at. 0 or -errno. */
int errand_prepare(struct errand *errand, struct ports *ports);
/* It is not started after all; it is still the caller's. */
void errand_forget(struct errand *errand);

/* From here on it is its own. Never waits. */
void errand_start(struct errand *errand);

#endif
