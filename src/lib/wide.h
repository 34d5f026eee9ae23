/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_WIDE_H
#define KTVBLK_WIDE_H

/*
 * Products of 64-bit numbers, on machines without 128-bit ones too. What is
 * usual fits into 64 bits and costs one division.
 */

#include <stdint.h>

struct wide {
	uint64_t high, low;
};

static inline struct wide wide_add(struct wide w, uint64_t n)
{
	w.low += n;
	w.high += w.low < n;
	return w;
}

static inline struct wide wide_sub(struct wide w, uint64_t n)
{
	w.high -= w.low < n;
	w.low -= n;
	return w;
}

static inline struct wide wide_mul(uint64_t a, uint64_t b)
{
	const uint64_t a_low = (uint32_t)a, a_high = a >> 32;
	const uint64_t b_low = (uint32_t)b, b_high = b >> 32;
	const uint64_t cross = a_low * b_high;
	struct wide w = { .high = a_high * b_high, .low = a_low * b_low };

	w = wide_add(w, cross << 32);
	w.high += cross >> 32;
	w = wide_add(w, a_high * b_low << 32);
	w.high += a_high * b_low >> 32;
	return w;
}

/* w / by, or UINT64_MAX if that is more. The remainder is of the former only. */
static inline uint64_t wide_div(struct wide w, uint64_t by, uint64_t *ret_rest)
{
	uint64_t quotient = 0;

	*ret_rest = 0;
	if (w.high >= by)
		return UINT64_MAX;
	if (!w.high) {
		*ret_rest = w.low % by;
		return w.low / by;
	}
	/* By hand: w.high is the rest so far, below by. */
	for (int i = 0; i < 64; i++) {
		const uint64_t carry = w.high >> 63;

		w.high = w.high << 1 | w.low >> 63;
		w.low <<= 1;
		quotient <<= 1;
		if (carry || w.high >= by) {
			w.high -= by;
			quotient |= 1;
		}
	}
	*ret_rest = w.high;
	return quotient;
}

#endif
