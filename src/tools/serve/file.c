/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "say.h"

#define BLANKS " \t\r\n"

/* Without blanks at either end. */
static char *strip(char *text)
{
	size_t n;

	text += strspn(text, BLANKS);
	n = strlen(text);
	while (n && strchr(BLANKS, text[n - 1]))
		n--;
	text[n] = '\0';
	return text;
}

static int take_line(const char *path, unsigned int number, char *line,
		     struct options *options)
{
	char *name = strip(line), *equals, *value = NULL;
	char where[4096];

	if (!*name || *name == '#')
		return 0;
	equals = strchr(name, '=');
	if (equals) {
		*equals = '\0';
		value = strdup(strip(equals + 1)); /* it stays */
		if (!value) {
			complain("%s: %s", path, strerror(ENOMEM));
			return -EINVAL;
		}
	}
	name = strip(name);
	snprintf(where, sizeof(where), "%s:%u: %s", path, number, name);
	return options_set(options, name, value, where);
}

int file_read(const char *path, struct options *options)
{
	FILE *file = fopen(path, "re");
	char *line = NULL;
	size_t size = 0;
	unsigned int number = 0;
	ssize_t n = 0;
	int r = 0;

	if (!file) {
		complain("--config=%s: %s", path, strerror(errno));
		return -EINVAL;
	}
	while (r == 0 && (errno = 0, n = getline(&line, &size, file)) >= 0) {
		number++;
		if (strlen(line) == (size_t)n) {
			r = take_line(path, number, line, options);
			continue;
		}
		complain("%s:%u: a line of text has no NUL", path, number);
		r = -EINVAL;
	}
	if (r == 0 && ferror(file)) {
		complain("--config=%s: %s", path, strerror(errno));
		r = -EINVAL;
	}
	free(line);
	fclose(file);
	return r;
}
