/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_EVENT_H
#define DEMO_EVENT_H

/* Something one thread waits for and another brings about: an eventfd. */

#include <stdbool.h>

#define FOR_EVER (-1)
#define A_WHILE_MS 20000 /* for what comes at once, if at all */

int event_new(void);
void event_signal(int event);

/* True if it happened, which is used up by this; false after timeout_ms. */
bool event_await(int event, int timeout_ms);

#endif
