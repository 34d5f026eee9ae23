/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_CAPABILITIES_H
#define SERVE_CAPABILITIES_H

/* What management software asks for first, on stdout; the exit status. */
int capabilities_print(void);

#endif
