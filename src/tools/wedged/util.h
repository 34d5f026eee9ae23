/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_UTIL_H
#define WEDGED_UTIL_H

#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define USEC_PER_SEC UINT64_C(1000000)

#endif
