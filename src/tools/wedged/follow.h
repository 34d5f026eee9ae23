/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_FOLLOW_H
#define WEDGED_FOLLOW_H

#include "view.h"

/* Print what changes, until a signal: 0 then, or -errno, told on stderr. */
int follow(struct view *view, sd_journal *journal);

#endif
