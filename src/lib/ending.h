/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_ENDING_H
#define KTVBLK_ENDING_H

/*
 * Where a worker's end and its device's patience meet: each exchanges the
 * session's `fate` when it is through with the other, and who comes second
 * cleans up.
 */

#include "session.h"

/*
 * On the worker, or whoever has its part: the last act, which lets go what the
 * session holds. It may block, or end the thread, and is done all the same.
 */
void ending_last_act(struct session *session);

/* One left behind has ended: the next worker may begin. */
void ending_reclaimed(struct session *session);

/* The same for one that nobody joins, with all that ktvblk-drop would do. */
void ending_detached(struct session *session);

#endif
