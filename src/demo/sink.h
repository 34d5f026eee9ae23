/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_SINK_H
#define DEMO_SINK_H

/* Records taken by callback and kept, where no journal is to be had. */

#include <ktvblk.h>

void sink_open(void);

/* The handler for ktvblk_set_log_handler(). */
void sink_take(const struct ktvblk_record *record, void *userdata);

/* The last record with these two fields, a line for each; NULL: none came. */
char *sink_wait(const char *field, const char *other, int timeout_ms);

#endif
