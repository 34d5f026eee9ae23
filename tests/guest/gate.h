/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef GATE_H
#define GATE_H

#include <ktvblk.h>
#include <stdbool.h>

/*
 * Storage that can be blocked: all storage from gate_open() is behind one gate,
 * and who comes while it is shut waits there.
 */

int gate_open(const char *path, struct ktvblk_backend **ret_storage);
void gate_shut(bool shut);

struct gate {
	bool shut;
	unsigned int waiting; /* calls in front of it */
	unsigned int released; /* storages that nobody uses any more */
};

struct gate gate_look(void);

#endif
