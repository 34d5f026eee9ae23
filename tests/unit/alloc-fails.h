/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_ALLOC_FAILS_H
#define TEST_ALLOC_FAILS_H

/*
 * Memory that runs out. For a test program, once, that has malloc and calloc
 * in its "wrap:" comment.
 */

#include <stdlib.h>

/* Which allocation of this thread from now on fails; 0: none. */
static _Thread_local unsigned int alloc_fails;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t size)
{
	return alloc_fails && --alloc_fails == 0 ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return alloc_fails && --alloc_fails == 0 ? NULL
						 : __real_calloc(n, size);
}

#endif
