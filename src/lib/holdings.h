/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_HOLDINGS_H
#define KTVBLK_HOLDINGS_H

/*
 * What a stuck worker may still use: guest memory and the storage, as one
 * object that the device and its sessions each hold a reference to. Other memory
 * is another object, see replace.c. The last one to let go runs the release callbacks, which may block, so whoever must
 * not block looks first.
 */

#include <stdbool.h>
#include <stdint.h>

#include "ktvblk.h"

struct holdings {
	_Atomic unsigned int refs;
	struct ktvblk_mem *mem; /* the device sets it once; NULL: not yet */
	struct ktvblk_backend *backend;
};

/* Takes a reference of its own to the backend; NULL: no memory. */
struct holdings *holdings_new(struct ktvblk_backend *backend);
struct holdings *holdings_ref(struct holdings *holdings);

/*
 * Takes and returns NULL. May block; and a release callback may end the thread:
 * then the rest is let go on its way out.
 */
struct holdings *holdings_unref(struct holdings *holdings);

/*
 * The same where it runs no callback: NULL. Otherwise the argument, which still
 * holds what the callbacks are about.
 */
struct holdings *holdings_unref_quick(struct holdings *holdings);

#endif
