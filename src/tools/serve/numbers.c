/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

/* strtoull() takes signs, blanks and what is too large. */
static bool digits(const char *text, uint64_t *ret, const char **ret_end)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	*ret_end = end;
	return errno == 0;
}

static bool times(uint64_t n, uint64_t unit, uint64_t max, uint64_t *ret)
{
	if (__builtin_mul_overflow(n, unit, &n) || n > max)
		return false;
	*ret = n;
	return true;
}

bool number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	const char *end;
	uint64_t n;

	if (!digits(text, &n, &end) || *end || n < min || n > max)
		return false;
	*ret = n;
	return true;
}

bool bytes_parse(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *end, *unit;
	uint64_t n;

	if (!digits(text, &n, &end))
		return false;
	if (!*end)
		return times(n, 1, UINT64_MAX, ret);
	unit = strchr(units, toupper((unsigned char)*end));
	if (!unit || end[1])
		return false;
	return times(n, UINT64_C(1) << (10 * (unit - units + 1)), UINT64_MAX,
		     ret);
}

bool time_parse_ms(const char *text, uint64_t max_ms, uint64_t *ret_ms)
{
	const char *end;
	uint64_t n;

	if (!digits(text, &n, &end))
		return false;
	if (!*end || !strcmp(end, "ms"))
		return times(n, 1, max_ms, ret_ms);
	if (!strcmp(end, "s"))
		return times(n, 1000, max_ms, ret_ms);
	return !strcmp(end, "min") && times(n, 60000, max_ms, ret_ms);
}
