/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_SIZED_H
#define KTVBLK_SIZED_H

/*
 * Structs that grow: program and library may each know more of one than the
 * other. What the program sets beyond our knowledge must be zero.
 */

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * Copy the caller's struct of its_size bytes into ours, the rest zeros.
 * 0, -EINVAL below min_size, -E2BIG with something set that we do not know.
 */
static inline int sized_copy_in(void *ours, size_t our_size, const void *its,
				size_t its_size, size_t min_size)
{
	const unsigned char *bytes = (const unsigned char *)its;

	if (its_size < min_size)
		return -EINVAL;
	for (size_t i = our_size; i < its_size; i++)
		if (bytes[i])
			return -E2BIG;
	memset(ours, 0, our_size);
	memcpy(ours, its, its_size < our_size ? its_size : our_size);
	return 0;
}

/* The way back: cut, or filled up with zeros. */
static inline void sized_copy_out(void *its, size_t its_size, const void *ours,
				  size_t our_size)
{
	memset(its, 0, its_size);
	memcpy(its, ours, its_size < our_size ? its_size : our_size);
}

#endif
