/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_SAY_H
#define SERVE_SAY_H

#include "../complain.h"

#define PROGRAM "ktvblk-serve"

enum status {
	STATUS_GOOD = 0,
	STATUS_FAILED = 1, /* what is asked for cannot be had */
	STATUS_USAGE = 2, /* or is nonsense */
	STATUS_LEFT_BEHIND = 3, /* the storage has not come back */
};

#endif
