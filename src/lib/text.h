/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_TEXT_H
#define KTVBLK_TEXT_H

/* What the VMM calls its disk, which goes to the journal and to terminals. */

#include <stddef.h>

/*
 * Printable UTF-8 of at most max bytes, or NULL? 0, -ENAMETOOLONG or -EINVAL.
 * Not printable: control characters, and what breaks a line or turns the
 * direction of what follows.
 */
int text_check(const char *text, size_t max);

#endif
