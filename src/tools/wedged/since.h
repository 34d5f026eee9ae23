/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_SINCE_H
#define WEDGED_SINCE_H

#include <stdint.h>

/* "2026-01-31 12:00", "-2h", "@1700000000" ...; 0 or -EINVAL. */
int since_parse(const char *text, uint64_t now_us, uint64_t *ret_us);

#endif
