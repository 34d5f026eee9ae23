/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

void give_up(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("ktvblk-vmm: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

void fail(const char *what)
{
	give_up("%s: %s", what, strerror(errno));
}
