/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the unit tests' front end asserts, in a program that is no test and is
 * linked with these in the place of libcheck's.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void __wrap__ck_assert_failed(const char *file, int line, const char *expr,
			      const char *msg, ...);
void __wrap__mark_point(const char *file, int line);

__attribute__((format(printf, 4, 5))) void
__wrap__ck_assert_failed(const char *file, int line, const char *expr,
			 const char *msg, ...)
{
	va_list args;

	fprintf(stderr, "%s:%d: ", file, line);
	if (msg) {
		va_start(args, msg);
		vfprintf(stderr, msg, args);
		va_end(args);
	} else {
		fputs(expr, stderr);
	}
	fputc('\n', stderr);
	exit(1);
}

void __wrap__mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}
