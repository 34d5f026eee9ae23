/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_OPTIONS_H
#define WEDGED_OPTIONS_H

#include "query.h"

/* 0; or 1 to end well; or -errno, told on stderr. */
int options_parse(int argc, char **argv, struct query *query);

#endif
