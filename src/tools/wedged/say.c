/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "say.h"
#include "text.h"

void complain(const char *format, ...)
{
	static char raw[5000], text[5000];
	va_list ap;

	va_start(ap, format);
	vsnprintf(raw, sizeof(raw), format, ap);
	va_end(ap);
	/* The names of files are strings of strangers, too. */
	text_clean(text, sizeof(text), raw);
	fprintf(stderr, PROGRAM ": %s\n", text);
}

int flush(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	complain("standard output: %s", strerror(errno));
	return -EIO;
}
