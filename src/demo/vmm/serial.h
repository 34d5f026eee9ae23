/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <stdint.h>
#include <stdio.h>

/* The console is standard input and output. */
void serial_start(void);
void serial_connect(int vm_fd); /* -1: to none */
uint8_t serial_read(unsigned int reg);
void serial_write(unsigned int reg, uint8_t value);

/* In a saved machine. Restored when it is connected. */
void serial_save(FILE *file);
void serial_restore(FILE *file);

#endif
