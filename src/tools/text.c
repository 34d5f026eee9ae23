/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Strings of strangers. */

#include <stdbool.h>
#include <string.h>

#include "text.h"

/* How many bytes follow the first one; -1: it is not a first one. */
static int continuation(unsigned char first, int32_t *ret_bits)
{
	if (first < 0x80) {
		*ret_bits = first;
		return 0;
	}
	if (first >= 0xc2 && first < 0xe0) {
		*ret_bits = first & 0x1f;
		return 1;
	}
	if (first >= 0xe0 && first < 0xf0) {
		*ret_bits = first & 0x0f;
		return 2;
	}
	if (first >= 0xf0 && first < 0xf5) {
		*ret_bits = first & 0x07;
		return 3;
	}
	return -1;
}

int32_t utf8_next(const char **text)
{
	static const int32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	const unsigned char *bytes = (const unsigned char *)*text;
	int32_t c;
	int n;

	if (!*bytes)
		return 0;
	n = continuation(*bytes, &c);
	for (int i = 1; i <= n; i++) {
		/* Never past the end: 0 is not one of these. */
		if ((bytes[i] & 0xc0) != 0x80) {
			n = -1;
			break;
		}
		c = c << 6 | (bytes[i] & 0x3f);
	}
	if (n < 0 || c < least[n] || c > 0x10ffff || (c & ~0x7ff) == 0xd800) {
		*text += 1;
		return -1;
	}
	*text += n + 1;
	return c;
}

static bool is_printable(int32_t c)
{
	static const struct {
		int32_t first, last;
	} no[] = {
		{ INT32_MIN, 0x1f }, /* no UTF-8, controls */
		{ 0x7f, 0x9f },
		/* What is not seen, and what changes the direction. */
		{ 0x61c, 0x61c },
		{ 0x200b, 0x200f },
		{ 0x2028, 0x202e },
		{ 0x2060, 0x206f },
		{ 0xfeff, 0xfeff },
		{ 0xe0000, 0xe0fff },
	};

	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		if (c >= no[i].first && c <= no[i].last)
			return false;
	return true;
}

void text_clean(char *to, size_t size, const char *from)
{
	char *const end = to + size - 1;

	for (;;) {
		const char *start = from;
		const int32_t c = utf8_next(&from);
		size_t n = (size_t)(from - start);

		if (c == 0)
			break;
		if (!is_printable(c)) {
			start = "?";
			n = 1;
		}
		if (n > (size_t)(end - to))
			break;
		memcpy(to, start, n);
		to += n;
	}
	*to = '\0';
}
