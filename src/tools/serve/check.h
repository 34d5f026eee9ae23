/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_CHECK_H
#define SERVE_CHECK_H

#include "options.h"

/*
 * Do the options go together? 0, with what was not said filled in; or -EINVAL,
 * told on stderr.
 */
int options_check(struct options *options);

#endif
