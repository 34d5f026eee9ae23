/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See say.h. */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

#define COLUMNS 79
#define BAR 30

static unsigned int broken;

double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* 0 where the kernel does not tell, as in some containers. */
static double waited_s(void)
{
	unsigned long long waited_ns = 0;
	FILE *file = fopen("/proc/thread-self/schedstat", "re");

	if (file) {
		if (fscanf(file, "%*u %llu", &waited_ns) != 1)
			waited_ns = 0;
		fclose(file);
	}
	return (double)waited_ns / 1e9;
}

struct moment moment_now(void)
{
	struct moment moment;

	moment.waited_before_s = waited_s();
	moment.now_s = now_s();
	moment.waited_behind_s = waited_s();
	return moment;
}

/* What it waits between two looks of a moment is not to count either. */
double own_ms(struct moment from, struct moment to)
{
	return 1000 * (to.now_s - from.now_s -
		       (to.waited_behind_s - from.waited_before_s));
}

void heading(const char *title)
{
	static unsigned int number;

	printf("\n%u. %s\n\n", ++number, title);
}

static char *format_text(const char *format, va_list ap)
{
	char *text;

	if (vasprintf(&text, format, ap) < 0)
		die("no memory");
	return text;
}

char *say_text(const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = format_text(format, ap);
	va_end(ap);
	return text;
}

static void print_wrapped(int indent, const char *text)
{
	int column = indent;

	for (const char *word = text; *word; word += strspn(word, " ")) {
		const int length = (int)strcspn(word, " ");

		if (column > indent && column + 1 + length > COLUMNS) {
			printf("\n%*s", indent, "");
			column = indent;
		}
		column += printf("%s%.*s", column > indent ? " " : "", length,
				 word);
		word += length;
	}
	putchar('\n');
	fflush(stdout);
}

void say(const char *label, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = format_text(format, ap);
	va_end(ap);
	print_wrapped(label ? printf("  %-11s", label) : printf("  "), text);
	free(text);
}

bool promise(bool held, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = format_text(format, ap);
	va_end(ap);
	print_wrapped(printf("  %-11s", held ? "[holds]" : "[BROKEN]"), text);
	free(text);
	broken += !held;
	return held;
}

unsigned int promises_broken(void)
{
	return broken;
}

void progress(double part, const char *format, ...)
{
	static const char full[BAR + 1] = "##############################";
	static double next_line = 0.25;
	const bool terminal = isatty(STDOUT_FILENO);
	const int done = (int)(BAR * (part < 1 ? part : 1));
	va_list ap;

	if (!terminal && part < 1 && part < next_line)
		return;
	next_line += 0.25;
	if (terminal)
		printf("\r  [%-*.*s] ", BAR, done, full);
	else
		printf("  %3.0f %%      ", 100 * part);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	/* What is left of a longer line goes. */
	printf("%s%s", terminal ? "\033[K" : "",
	       terminal && part < 1 ? "" : "\n");
	fflush(stdout);
}

void die(const char *format, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}
