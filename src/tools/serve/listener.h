/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_LISTENER_H
#define SERVE_LISTENER_H

/* The socket that front ends come from. */

#include "options.h"

/*
 * What comes with the process: --fd, or systemd's; -1 where a path is to be made.
 * A negative exit status below that, told on stderr. Once, before there is a
 * child.
 */
#define LISTENER_PATH (-1)
int listener_inherit(const struct options *options);

/*
 * Listen at the path. A socket there that nobody listens at any more is replaced.
 * A descriptor; or a negative exit status, told on stderr.
 */
int listener_open(const char *path);

/* Remove the path, if it still is ours. */
void listener_unlink(const char *path);

#endif
