/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef SERVE_NUMBERS_H
#define SERVE_NUMBERS_H

/* Numbers as people write them. False: it is none, or out of range. */

#include <stdbool.h>
#include <stdint.h>

bool number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* With a K, M, G or T of 1024 behind it, or none. */
bool bytes_parse(const char *text, uint64_t *ret);

/* Milliseconds, or with ms, s or min behind it. */
bool time_parse_ms(const char *text, uint64_t max_ms, uint64_t *ret_ms);

#endif
