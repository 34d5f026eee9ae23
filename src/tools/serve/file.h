/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_FILE_H
#define SERVE_FILE_H

#include "options.h"

/*
 * Options in a file: "name" or "name = value" on each line, and what begins
 * with # is a comment. The values stay. 0, or -EINVAL, told on stderr.
 */
int file_read(const char *path, struct options *options);

#endif
