/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_FILE_H
#define VMM_FILE_H

/* Bytes to and from a saved machine. */

#include <stddef.h>
#include <stdio.h>

/* An error is found at the end, by fflush(). */
void file_write(FILE *file, const void *from, size_t size);

/* Exits where there are not so many. */
void file_read(FILE *file, void *to, size_t size);

#endif
