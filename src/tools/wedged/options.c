/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ktvblk-wedged(1): what is asked for. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ktvblk.h"
#include "options.h"
#include "say.h"
#include "since.h"
#include "util.h"

static const char usage[] =
	"Usage: " PROGRAM " [OPTION]...\n"
	"List virtio-blk devices that are wedged or stalled, from the journal.\n"
	"\n"
	"  -D, --directory=DIR  read the journal in DIR, not this machine's\n"
	"  -S, --since=TIME     only records from TIME on: \"2026-01-31 12:00\",\n"
	"                       -90s, -30m, -2h, -7d, @SECONDS\n"
	"  -b, --boot[=ID]      only of this boot, or of the one with that ID\n"
	"  -r, --running        leave out processes that are gone\n"
	"  -j, --json           a JSON object on each line\n"
	"  -f, --follow         go on, a line for each change\n"
	"  -h, --help           this text\n"
	"  -V, --version        the version\n"
	"\n"
	"Exit status: 0 there is none, 1 there are some, 2 trouble.\n"
	"The manual: man " PROGRAM "\n";

static int parse_boot(const char *text, struct query *query)
{
	int r = text ? sd_id128_from_string(text, &query->boot)
		     : sd_id128_get_boot(&query->boot);

	query->has_boot = true;
	if (r < 0 && text)
		complain("'%s' is no boot ID: 32 hexadecimal digits, as "
			 "journalctl --list-boots shows them",
			 text);
	else if (r < 0)
		complain("which boot this is: %s", strerror(-r));
	return r < 0 ? r : 0;
}

static int parse_since(const char *text, struct query *query)
{
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	r = since_parse(text, (uint64_t)now.tv_sec * USEC_PER_SEC,
			&query->since_us);
	if (r < 0)
		complain("'%s' is no time: give YYYY-MM-DD, YYYY-MM-DD HH:MM "
			 "or YYYY-MM-DD HH:MM:SS, with a Z for UTC, or -90s, "
			 "-30m, -2h, -7d, -1w, or @SECONDS",
			 text);
	return r;
}

int options_parse(int argc, char **argv, struct query *query)
{
	static const struct option options[] = {
		{ "directory", required_argument, NULL, 'D' },
		{ "since", required_argument, NULL, 'S' },
		{ "boot", optional_argument, NULL, 'b' },
		{ "running", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "follow", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	static char name[] = PROGRAM;
	int c, r = 0;

	if (argc > 0)
		argv[0] = name; /* for getopt_long() */
	while (r == 0 && (c = getopt_long(argc, argv, "D:S:b::rjfhV", options,
					  NULL)) >= 0) {
		switch (c) {
		case 'D':
			query->directory = optarg;
			break;
		case 'S':
			r = parse_since(optarg, query);
			break;
		case 'b':
			r = parse_boot(optarg, query);
			break;
		case 'r':
			query->running = true;
			break;
		case 'j':
			query->json = true;
			break;
		case 'f':
			query->follow = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'V':
			puts(PROGRAM " " KTVBLK_VERSION);
			return 1;
		default: /* getopt_long() has told */
			r = -EINVAL;
		}
	}
	if (r == 0 && optind < argc) {
		complain("unexpected argument '%s'", argv[optind]);
		r = -EINVAL;
	}
	if (r < 0)
		fputs("Try '" PROGRAM " --help'.\n", stderr);
	return r;
}
