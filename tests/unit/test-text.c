/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A disk's name is printable UTF-8: journals and terminals get it as it is. */

#include <string.h>

#include "harness.h"
#include "ktvblk.h"
#include "text.h"

#define TEXT_MAX 16

/* What is encoded so; c may be any number of up to 21 bits. */
static const char *encode(uint32_t c, unsigned int bytes)
{
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	static char text[8];

	memset(text, 0, sizeof(text));
	for (unsigned int i = bytes - 1; i > 0; i--, c >>= 6)
		text[i] = (char)(0x80 | (c & 0x3f));
	text[0] = (char)(lead[bytes] | c);
	return text;
}

static unsigned int shortest(uint32_t c)
{
	return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

static int check_c(uint32_t c)
{
	return text_check(encode(c, shortest(c)), TEXT_MAX);
}

START_TEST(what_people_write_is_taken)
{
	const char *const good[] = { "",
				     "vda",
				     "a b",
				     "q\"\\x",
				     "Plat\303\274",
				     "\347\243\201\347\233\244",
				     "\360\237\222\276",
				     "~",
				     "\302\240" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		ck_assert_int_eq(text_check(good[i], TEXT_MAX), 0);
	ck_assert_int_eq(text_check(NULL, 0), 0);
	for (uint32_t c = 0x20; c < 0x7f; c++)
		ck_assert_int_eq(check_c(c), 0);
}
END_TEST

START_TEST(controls_and_what_breaks_or_turns_a_line_are_refused)
{
	const uint32_t bad[] = { 0x061c,  0x200e, 0x200f, 0x2028, 0x2029,
				 0x202a,  0x202b, 0x202c, 0x202d, 0x202e,
				 0x2066,  0x2067, 0x2068, 0x2069, 0xfeff,
				 0xfffe,  0xffff, 0xfdd0, 0xfdef, 0x1fffe,
				 0x10ffff };
	const uint32_t beside[] = { 0xa0,   0x061b, 0x061d,  0x200d,
				    0x2010, 0x2027, 0x202f,  0x2065,
				    0x206a, 0xfefe, 0xff00,  0xfffd,
				    0xfdcf, 0xfdf0, 0x10000, 0x10fffd };

	for (uint32_t c = 1; c < 0x20; c++)
		ck_assert_int_eq(check_c(c), -EINVAL);
	for (uint32_t c = 0x7f; c < 0xa0; c++)
		ck_assert_int_eq(check_c(c), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(check_c(bad[i]) == -EINVAL, "U+%04X", bad[i]);
	for (size_t i = 0; i < ARRAY_SIZE(beside); i++)
		ck_assert_msg(check_c(beside[i]) == 0, "U+%04X", beside[i]);
}
END_TEST

START_TEST(what_is_no_utf8_is_refused)
{
	const char *const bad[] = {
		"disk\377",
		"\200",
		"\277x",
		"\303",
		"\303x",
		"\342\200",
		"\342\200x",
		"\360\237\222",
		"\360\237\222x",
		"\370\210\200\200\200", /* five bytes */
		"\376",
		"a\300\200b",
		"\364\220\200\200", /* beyond U+10FFFF */
		"\365\200\200\200",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_msg(text_check(bad[i], TEXT_MAX) == -EINVAL,
			      "the %zu.", i);
	/* Halves of pairs. */
	for (uint32_t c = 0xd800; c < 0xe000; c++)
		ck_assert_int_eq(check_c(c), -EINVAL);
	ck_assert_int_eq(check_c(0xd7ff), 0);
	ck_assert_int_eq(check_c(0xe000), 0);
	/* Longer than need be. */
	for (unsigned int bytes = 2; bytes <= 4; bytes++) {
		const uint32_t first[] = { 0, 0, 0x80, 0x800, 0x10000 };

		ck_assert_int_eq(text_check(encode(first[bytes] - 1, bytes),
					    TEXT_MAX),
				 -EINVAL);
		ck_assert_int_eq(text_check(encode('a', bytes), TEXT_MAX),
				 -EINVAL);
	}
}
END_TEST

START_TEST(the_length_is_in_bytes)
{
	ck_assert_int_eq(text_check("abcd", 4), 0);
	ck_assert_int_eq(text_check("abcde", 4), -ENAMETOOLONG);
	ck_assert_int_eq(text_check("ab\303\274", 4), 0);
	ck_assert_int_eq(text_check("abc\303\274", 4), -ENAMETOOLONG);
	ck_assert_int_eq(text_check("\360\237\222\276x", 4), -ENAMETOOLONG);
	ck_assert_int_eq(text_check("", 0), 0);
	ck_assert_int_eq(text_check("a", 0), -ENAMETOOLONG);
	/* Nothing behind the end is looked at. */
	ck_assert_int_eq(text_check("\360\0\237\222", TEXT_MAX), -EINVAL);
}
END_TEST

TEST_PROGRAM("text", what_people_write_is_taken,
	     controls_and_what_breaks_or_turns_a_line_are_refused,
	     what_is_no_utf8_is_refused, the_length_is_in_bytes)
