/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TOOLS_COMPLAIN_H
#define TOOLS_COMPLAIN_H

/* The program's own. */
extern const char program_name[];

/* One line on stderr, as "ktvblk-...: ...". */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

#endif
