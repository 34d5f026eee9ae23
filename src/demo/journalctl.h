/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_JOURNALCTL_H
#define DEMO_JOURNALCTL_H

/* Read this process's records with journalctl. */

/* From now on, in this directory; NULL: where journalctl looks by itself. */
void journalctl_open(const char *dir);

/*
 * Wait for a record of this process that matches; matches ends with NULL. What
 * journalctl -o verbose prints of the last such, to be freed, or NULL.
 */
char *journalctl_wait(const char *const *matches, int timeout_ms);

#endif
