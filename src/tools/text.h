/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

/* Strings of strangers. */

#include <stddef.h>
#include <stdint.h>

/*
 * The next character of a string, past it; -1 for a byte that is not UTF-8, 0
 * at the end, where it stays.
 */
int32_t utf8_next(const char **text);

/* Text for a terminal, cut to size: what is not to be shown there is a '?'. */
void text_clean(char *to, size_t size, const char *from);

#endif
