/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_SAY_H
#define WEDGED_SAY_H

/* What is told, and to whom. */

#include "../complain.h"

#define PROGRAM "ktvblk-wedged"

/* What is on its way to stdout must get there: 0, or -EIO, told on stderr. */
int flush(void);

#endif
