/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUZZ_WORKERS_H
#define FUZZ_WORKERS_H

/*
 * Workers without threads: where one would be created its session is noted, a
 * kick drains it here and now, and a join finishes it. So an input always does
 * the same, and fast. A target has to wrap what workers.c has wraps of.
 */

#include <stdbool.h>

#include "session.h"

/* The session that runs on this queue, or NULL. */
const struct session *workers_session(unsigned int queue);

/* As if its kick had come, or an answer. */
void workers_kick(uint32_t queue);
void workers_kick_all(void);

/*
 * Does a stop find the storage hung? Then a worker with something out is left
 * behind; else all that it has out is answered.
 */
void workers_hang(bool hangs);

/* Those left behind; is this the engine of one? */
unsigned int workers_n_left(void);
bool workers_are_left(const struct engine *engine);

/* End those that have had all their answers; who waited for them is to be kicked. */
void workers_end_left(void);

#endif
