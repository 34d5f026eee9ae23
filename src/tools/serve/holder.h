/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_HOLDER_H
#define SERVE_HOLDER_H

/*
 * Who has a lock on the image that fd is open on, for people: "process 123
 * (qemu-img)", or "another process, or what one has left behind" where that cannot
 * be found out: a call that is with the kernel alone has no process any more. pid: what
 * ktvblk_image_lock() said.
 */

#include <sys/types.h>

#define HOLDER_TEXT_MAX 80

void holder_describe(int fd, pid_t pid, char text[HOLDER_TEXT_MAX]);

#endif
