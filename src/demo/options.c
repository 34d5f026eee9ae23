/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See options.h. */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include <ktvblk.h>

#include "options.h"

#define SECONDS_MAX 3600
#define MOVES_MAX 100000
#define IOPS_MAX 1000
#define GROW_MAX_MIB 1024
#define DIRTY_MAX 10000
#define BUDGET_MIN_MS 10
#define BUDGET_MAX_MS 60000

static const char help[] =
	"Usage: ktvblk-demo [OPTION]...\n"
	"A tour of libktvblk: a disk that works, and one that hangs.\n"
	"\n"
	"  --disk FILE   read this disk image instead of one made for the "
	"tour;\n"
	"                it is not written\n"
	"  --seconds N   length of the part that reads and writes (2)\n"
	"  --moves N     save and restore a disk so often (3)\n"
	"  --iops N      limit a running disk to so many requests/s (200)\n"
	"  --discard N   discard so many MiB, and look at the file (1)\n"
	"  --grow N      make the disk larger by so many MiB (1)\n"
	"  --dirty N     have the dirty log told of so many reads (64)\n"
	"  --budget MS   what a reset or a destroy may take (250)\n"
	"  --seed N      repeat the random choices of an earlier run\n"
	"  --no-journal  take the records by callback\n"
	"  --help        show this\n"
	"  --version     show the version\n"
	"\n"
	"Exit status: 0 if all that was promised held, 1 if not, 2 if the\n"
	"arguments are wrong.\n";

static void usage_error(void)
{
	fputs("Try 'ktvblk-demo --help'.\n", stderr);
	exit(2);
}

static uint64_t parse_number(const char *option, const char *text, uint64_t min,
			     uint64_t max)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && value >= min &&
	    value <= max)
		return value;
	fprintf(stderr,
		"ktvblk-demo: %s: '%s' is not a number from %" PRIu64
		" to %" PRIu64 "\n",
		option, text, min, max);
	usage_error();
	return 0;
}

static void print_version(void)
{
	printf("ktvblk-demo %s, libktvblk %s\n", KTVBLK_VERSION,
	       ktvblk_version());
	exit(0);
}

static void parse_option(struct options *options, int c)
{
	switch (c) {
	case 'd':
		options->disk = optarg;
		break;
	case 's':
		options->seconds = (uint32_t)parse_number("--seconds", optarg,
							  1, SECONDS_MAX);
		break;
	case 'm':
		options->moves =
			(uint32_t)parse_number("--moves", optarg, 0, MOVES_MAX);
		break;
	case 'i':
		options->iops =
			(uint32_t)parse_number("--iops", optarg, 0, IOPS_MAX);
		break;
	case 'c':
		options->discard_mib = (uint32_t)parse_number(
			"--discard", optarg, 0, CHANGE_MIB);
		break;
	case 'g':
		options->grow_mib = (uint32_t)parse_number("--grow", optarg, 0,
							   GROW_MAX_MIB);
		break;
	case 'y':
		options->dirty_reads =
			(uint32_t)parse_number("--dirty", optarg, 0, DIRTY_MAX);
		break;
	case 'b':
		options->budget_ms = (uint32_t)parse_number(
			"--budget", optarg, BUDGET_MIN_MS, BUDGET_MAX_MS);
		break;
	case 'r':
		options->seed = parse_number("--seed", optarg, 0, UINT64_MAX);
		break;
	case 'j':
		options->journal = false;
		break;
	case 'h':
		fputs(help, stdout);
		exit(0);
	case 'v':
		print_version();
		break;
	default:
		usage_error(); /* getopt_long() has said what is wrong */
	}
}

void options_parse(struct options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "disk", required_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 's' },
		{ "moves", required_argument, NULL, 'm' },
		{ "iops", required_argument, NULL, 'i' },
		{ "discard", required_argument, NULL, 'c' },
		{ "grow", required_argument, NULL, 'g' },
		{ "dirty", required_argument, NULL, 'y' },
		{ "budget", required_argument, NULL, 'b' },
		{ "seed", required_argument, NULL, 'r' },
		{ "no-journal", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	static char name[] = "ktvblk-demo";
	uint32_t seed = 1;
	int c;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = (uint32_t)errno;
	*options = (struct options){
		.seconds = 2,
		.moves = 3,
		.iops = 200,
		.discard_mib = 1,
		.grow_mib = 1,
		.dirty_reads = 64,
		.budget_ms = 250,
		.seed = seed,
		.journal = true,
	};
	argv[0] = name; /* for getopt_long() to speak of */
	while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0)
		parse_option(options, c);
	if (optind < argc) {
		fprintf(stderr, "ktvblk-demo: what is '%s' for?\n",
			argv[optind]);
		usage_error();
	}
}
