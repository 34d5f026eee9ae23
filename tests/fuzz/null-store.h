/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_NULL_STORE_H
#define KTVBLK_NULL_STORE_H

/* Storage that keeps nothing and has done all at once. */

#include "ktvblk.h"

/* The caller's own, or the end. */
struct ktvblk_backend *null_store(void);

#endif
