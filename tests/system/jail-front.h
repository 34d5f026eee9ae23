/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_JAIL_FRONT_H
#define TEST_JAIL_FRONT_H

/* A front end of vhost-user, on the thread that has no filter. */

#include "hang.h"

/* The socket that a device is to listen at. */
int jail_front_open(void);
/* Requests, a stop and another start. */
void jail_front_live(void);
/* A request that hangs, and a stop. */
void jail_front_hang(struct hang *hang);
void jail_front_close(void);

#endif
