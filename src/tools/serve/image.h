/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_IMAGE_H
#define SERVE_IMAGE_H

#include "options.h"

/*
 * Open the file, and lock it, having waited for that if it is asked for, or
 * later. A descriptor; or a negative exit status, told on stderr.
 */
int image_open(const struct options *options);

#endif
