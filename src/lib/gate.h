/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_GATE_H
#define KTVBLK_GATE_H

/*
 * The fence. A worker holds its session's gate at all times but around calls
 * into storage and while it waits for events; on taking it again it looks at
 * `revoked` before anything else. Who revokes takes the same gate, so between
 * the worker's look and what it then does nobody can come in between. A flag
 * alone would not do: the worker could be overtaken right after the look.
 *
 * A futex of our own because the taking must be bounded and the free case one
 * instruction: 0 free, 1 held, 2 held and somebody waits.
 */

#include <stdbool.h>
#include <stdint.h>

struct gate {
	_Atomic uint32_t word;
};

void gate_enter(struct gate *gate);

/* False: it was held until deadline_ns. */
bool gate_enter_until(struct gate *gate, uint64_t deadline_ns);

void gate_leave(struct gate *gate);

#endif
