/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUZZ_STORE_H
#define FUZZ_STORE_H

/*
 * The storage of a fuzz target: a small disk that answers at once, or later,
 * when the input says so.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "ktvblk.h"

/* A disk as new, with nothing out. */
void store_reset(void);

struct ktvblk_backend *store_backend(bool later);

/* What it answers next, and how often. */
void store_set_trouble(uint8_t trouble);

/*
 * The i-th of what is out, in a circle, is done and answered: whose that was, or
 * NULL: nothing is out.
 */
const struct engine *store_complete(unsigned int i);
const struct engine *store_look(unsigned int i); /* ... and would be */

/* All that is out, of this engine or (NULL) of any. */
void store_complete_all(const struct engine *engine);
unsigned int store_count(const struct engine *engine);

#endif
