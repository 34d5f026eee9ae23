/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_JOURNALD_H
#define DEMO_JOURNALD_H

/*
 * The real systemd-journald, for this process alone: in a mount namespace of
 * its own with an empty /run, where its socket and its journal are. Nothing of
 * it is on the host, and all of it is gone with this process, however it ends.
 */

#define JOURNALD_DIR "/run/log/journal"

/* Before there are threads: NULL, or why it cannot be had. */
const char *journald_start(void);
void journald_stop(void);

#endif
