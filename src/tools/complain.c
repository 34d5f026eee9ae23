/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>

#include "complain.h"
#include "text.h"

void complain(const char *format, ...)
{
	char raw[5000], text[5000];
	va_list ap;

	va_start(ap, format);
	vsnprintf(raw, sizeof(raw), format, ap);
	va_end(ap);
	/* The names of files and the like are strings of strangers. */
	text_clean(text, sizeof(text), raw);
	fprintf(stderr, "%s: %s\n", program_name, text);
}
