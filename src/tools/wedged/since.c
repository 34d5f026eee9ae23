/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Points in time as people write them. */

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "since.h"
#include "util.h"

/* The year 9999, and room to add. */
#define SECONDS_MAX UINT64_C(253402300799)

static int to_usec(uint64_t seconds, uint64_t *ret_us)
{
	if (seconds > SECONDS_MAX)
		return -EINVAL;
	*ret_us = seconds * USEC_PER_SEC;
	return 0;
}

/* Digits and no sign, up to what is not one. */
static bool parse_number(const char *text, uint64_t *ret, const char **ret_end)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	*ret_end = end;
	return errno == 0;
}

/* "-90s", "-30m", "-2h", "-7d" */
static int parse_ago(const char *text, uint64_t now_us, uint64_t *ret_us)
{
	static const struct {
		const char *name;
		uint64_t seconds;
	} units[] = {
		{ "s", 1 },    { "sec", 1 },   { "m", 60 },	{ "min", 60 },
		{ "h", 3600 }, { "d", 86400 }, { "w", 604800 },
	};
	const char *unit;
	uint64_t n, us;

	if (!parse_number(text, &n, &unit))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(unit, units[i].name))
			continue;
		if (n > SECONDS_MAX || to_usec(n * units[i].seconds, &us) < 0)
			return -EINVAL;
		/* Before 1970 there is nothing. */
		*ret_us = us < now_us ? now_us - us : 0;
		return 0;
	}
	return -EINVAL;
}

static int parse_date(const char *text, uint64_t *ret_us)
{
	static const char *const formats[] = {
		"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S",
		"%Y-%m-%dT%H:%M",    "%Y-%m-%d",
	};
	size_t len = strlen(text);
	char copy[32];
	bool utc;

	if (len == 0 || len >= sizeof(copy))
		return -EINVAL;
	utc = text[len - 1] == 'Z';
	memcpy(copy, text, len + 1);
	if (utc)
		copy[len - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct tm tm = { 0 }, day;
		const char *end = strptime(copy, formats[i], &tm);
		time_t seconds;

		if (!end || *end)
			continue;
		day = tm;
		tm.tm_isdst = -1;
		seconds = utc ? timegm(&tm) : mktime(&tm);
		/* 30 February would be a day in March. */
		if (seconds < 0 || tm.tm_mday != day.tm_mday)
			return -EINVAL;
		return to_usec((uint64_t)seconds, ret_us);
	}
	return -EINVAL;
}

int since_parse(const char *text, uint64_t now_us, uint64_t *ret_us)
{
	const char *end;
	uint64_t n;

	if (*text == '-')
		return parse_ago(text + 1, now_us, ret_us);
	if (*text == '@')
		return parse_number(text + 1, &n, &end) && !*end
			       ? to_usec(n, ret_us)
			       : -EINVAL;
	return parse_date(text, ret_us);
}
