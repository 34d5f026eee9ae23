/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_SEVERAL_H
#define TEST_SEVERAL_H

/*
 * A device of several queues, of which some can be made to hang.
 */

#include "wedge.h"

/* For a stop that nobody has to make: on a busy machine it is not long. */
#define SEVERAL_BUDGET_MS 100

/* Flushes hang until they are let go; nothing else does. */
struct stuck {
	struct latch go;
	_Atomic unsigned int n;
};

struct several {
	struct rig rig;
	struct stuck stuck;
	struct recorder rec;
	struct traces before;
};

/* The hook of its storage. */
void several_hang_flush(struct storage *storage, enum storage_op op);

void several_open_with(struct several *several,
		       const struct rig_options *options);
/* With so many, of these budgets, started. */
void several_open(struct several *several, uint32_t n, uint32_t budget_ms);
/* Long ones from now on, for a stop that all have to make. */
void several_be_patient(struct several *several);
void several_close(struct several *several);

/* A request on that queue, which is selected by it: its status. */
int several_read(struct rig *rig, unsigned int queue);
/* One that is made and not waited for; and wait for it. */
void several_ask(struct rig *rig, unsigned int queue, uint32_t type);
void several_await(struct rig *rig, unsigned int queue);

/* Hang the first n queues. */
void several_hang(struct several *several, unsigned int n);

unsigned int several_workers(struct rig *rig);

#endif
