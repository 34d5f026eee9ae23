/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See text.h. */

#include <stdint.h>

#include "text.h"
#include "util.h"

/*
 * The character at text, which ends with a 0; its bytes, or 0: it is none. Not
 * the shortest form, half of a pair, and beyond U+10FFFF are none.
 */
static size_t decode(const unsigned char *text, uint32_t *ret_c)
{
	static const uint32_t shortest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len;
	uint32_t c;

	if (text[0] < 0x80)
		len = 1, c = text[0];
	else if (text[0] >> 5 == 0x6)
		len = 2, c = text[0] & 0x1f;
	else if (text[0] >> 4 == 0xe)
		len = 3, c = text[0] & 0xf;
	else if (text[0] >> 3 == 0x1e)
		len = 4, c = text[0] & 0x7;
	else
		return 0;
	/* The end is no such byte, so nothing behind it is read. */
	for (size_t i = 1; i < len; i++) {
		if (text[i] >> 6 != 0x2)
			return 0;
		c = c << 6 | (text[i] & 0x3f);
	}
	*ret_c = c;
	return c < shortest[len] || c > 0x10ffff || c >> 11 == 0x1b ? 0 : len;
}

static bool is_printable(uint32_t c)
{
	/* Inclusive. */
	static const struct {
		uint32_t first, last;
	} not [] = {
		{ 0x00, 0x1f },	    { 0x7f, 0x9f }, /* controls */
		{ 0x061c, 0x061c }, { 0x200e, 0x200f }, /* direction marks */
		{ 0x2028, 0x2029 }, /* a line's and a paragraph's end */
		{ 0x202a, 0x202e }, { 0x2066, 0x2069 }, /* direction */
		{ 0xfeff, 0xfeff }, /* a byte order mark */
		{ 0xfdd0, 0xfdef }, /* no characters */
	};

	for (size_t i = 0; i < ARRAY_SIZE(not ); i++)
		if (c >= not [i].first && c <= not [i].last)
			return false;
	return (c & 0xfffe) != 0xfffe; /* no characters, in each plane */
}

int text_check(const char *text, size_t max)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t used = 0, len;
	uint32_t c;

	if (!text)
		return 0;
	for (; at[used]; used += len) {
		if (used >= max)
			return -ENAMETOOLONG;
		len = decode(at + used, &c);
		if (!len || !is_printable(c))
			return -EINVAL;
	}
	return used > max ? -ENAMETOOLONG : 0;
}
