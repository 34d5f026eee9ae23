/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef DEMO_SAY_H
#define DEMO_SAY_H

/* What the tour prints, and the promises it keeps count of. */

#include <stdbool.h>

#define PRINTF(n) __attribute__((format(printf, n, n + 1)))

/* Seconds on a clock that only goes forward. */
double now_s(void);

/*
 * From one moment to another, but for what the calling thread, which could run,
 * had to wait for a processor: how busy the machine is, is no property of a device.
 */
struct moment {
	double now_s;
	double waited_before_s, waited_behind_s; /* ever, around that */
};

struct moment moment_now(void);
double own_ms(struct moment from, struct moment to);

void heading(const char *title);

/* Text in memory, to be freed. */
char *say_text(const char *format, ...) PRINTF(1);

/* Text, wrapped, to the right of what label says; NULL: the story goes on. */
void say(const char *label, const char *format, ...) PRINTF(2);

/* Print what was promised and if it held; remember if not. */
bool promise(bool held, const char *format, ...) PRINTF(2);
unsigned int promises_broken(void);

/* A bar on a terminal, drawn again and again; else a line at times. */
void progress(double part, const char *format, ...) PRINTF(2);

/* The tour cannot go on: say why and exit with 1. */
void die(const char *format, ...) PRINTF(1) __attribute__((noreturn));

#endif
