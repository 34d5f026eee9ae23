/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a request costs, case by case: see case.h and rounds.h.
 */

#include <getopt.h>
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "beside.h"
#include "check.h"
#include "guest.h"
#include "limit.h"
#include "report.h"
#include "rounds.h"
#include "store.h"

struct bench {
	struct api api, against;
	bool has_against;
	unsigned int rounds;
	uint64_t round_ns;
	bool full;
	bool once;
	bool is_check;
	bool has_ring;
	struct check check;
	const char *directory;
	const char *prefix;
	struct cpus cpus;
	struct report report;
	struct store stores[STORE_KINDS];
	bool opened[STORE_KINDS];
	const char *missing[STORE_KINDS]; /* why it is not there */
};

static void null_log(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	fprintf(stderr, "bench: %s\n", record->message);
}

static struct store *open_store(struct bench *bench, enum store_kind kind)
{
	if (!bench->opened[kind])
		store_open(&bench->stores[kind], kind, bench->directory,
			   &bench->missing[kind]);
	bench->opened[kind] = true;
	return bench->missing[kind] ? NULL : &bench->stores[kind];
}

static int start_guest(struct bench *bench, struct guest *guest,
		       const struct api *api, const struct bench_case *what,
		       const struct store *store)
{
	int r = guest_open(guest, api, what, store, bench->cpus.worker);

	if (r < 0)
		return r;
	guest_prepare(guest);
	guest_start(guest);
	return 0;
}

static void run_guests(struct bench *bench, const struct bench_case *what,
		       struct guest *device, struct guest *against,
		       const struct store *store)
{
	const struct rounds rounds = {
		.what = what,
		.device = device,
		.against = against,
		.store = store,
		.cpu = bench->cpus.worker,
		.n = bench->rounds,
		.round_ns = bench->round_ns,
		.has_ring = bench->has_ring,
		.only_limit = bench->is_check,
	};
	struct result result;

	rounds_run(&rounds, &result);
	report_case(&bench->report, &result);
	if (bench->is_check)
		check_result(&bench->check, &result);
}

static void run_case(const struct bench_case *what, void *userdata)
{
	struct bench *bench = (struct bench *)userdata;
	const struct store *store = open_store(bench, what->store);
	struct guest device, against;
	bool has_against;
	int r;

	if (!store) {
		report_skip(&bench->report, what->name,
			    bench->missing[what->store]);
		return;
	}
	r = start_guest(bench, &device, &bench->api, what, store);
	if (r < 0) {
		report_skip(&bench->report, what->name, strerror(-r));
		return;
	}
	has_against =
		bench->has_against &&
		start_guest(bench, &against, &bench->against, what, store) == 0;
	run_guests(bench, what, &device, has_against ? &against : NULL, store);
	guest_close(&device);
	if (has_against)
		guest_close(&against);
}

/*
 * All requests wait in the ring when the worker starts, so that it serves them
 * in one drain: the same instructions each time, for valgrind to count.
 */
static void run_once(const struct bench_case *what, void *userdata)
{
	struct bench *bench = (struct bench *)userdata;
	const struct store *store = open_store(bench, what->store);
	struct guest guest;

	if (!store)
		die("%s: %s", what->name, bench->missing[what->store]);
	if (guest_open(&guest, &bench->api, what, store, bench->cpus.worker) <
	    0)
		die("%s: not to be had", what->name);
	guest_prepare(&guest);
	driver_submit(&guest.driver, what->depth);
	guest_start(&guest);
	while (guest.driver.n_free < what->depth)
		if (!driver_reap(&guest.driver, NULL))
			driver_await(&guest.driver);
	guest_close(&guest);
}

static void load(struct api *api, const char *path)
{
	int r;

	api_load(api, path);
	/* A record is a sign that something is wrong: show it. */
	r = api->set_log_handler(null_log, NULL, NULL);
	if (r < 0)
		die("log handler: %s", strerror(-r));
}

__attribute__((noreturn)) static void usage(void)
{
	puts("bench [OPTION...] [PATTERN...]\n"
	     "  -l, --library PATH    the library to measure\n"
	     "  -a, --against PATH    another build, measured in turn with it\n"
	     "  -r, --rounds N        5\n"
	     "  -t, --ms N            length of a round (100)\n"
	     "  -f, --full            all cases instead of a choice\n"
	     "  -d, --dir DIR         a real file system for the files\n"
	     "  -o, --out PREFIX      PREFIX.json, .txt and .dat are written\n"
	     "  -1, --once            one drain of all requests, measure nothing\n"
	     "  -c, --check           see that what must hold does: check.h\n"
	     "  -n, --list            name the cases and measure nothing\n"
	     "PATTERN: the cases that match, as 'cache/4k/d*/read/*'; a * stands\n"
	     "         for what has no / in it; or: beside, life, scale");
	exit(0);
}

static void list_case(const struct bench_case *what, void *userdata)
{
	(void)userdata;
	puts(what->name);
}

static const struct option options[] = {
	{ "library", required_argument, NULL, 'l' },
	{ "against", required_argument, NULL, 'a' },
	{ "rounds", required_argument, NULL, 'r' },
	{ "ms", required_argument, NULL, 't' },
	{ "full", no_argument, NULL, 'f' },
	{ "dir", required_argument, NULL, 'd' },
	{ "out", required_argument, NULL, 'o' },
	{ "once", no_argument, NULL, '1' },
	{ "check", no_argument, NULL, 'c' },
	{ "list", no_argument, NULL, 'n' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static void parse(struct bench *bench, int argc, char **argv, bool *ret_list)
{
	int option;

	while ((option = getopt_long(argc, argv, "l:a:r:t:fd:o:1cnh", options,
				     NULL)) != -1) {
		switch (option) {
		case 'l':
			bench->api.path = optarg;
			break;
		case 'a':
			bench->against.path = optarg;
			bench->has_against = true;
			break;
		case 'r':
			bench->rounds = (unsigned int)atoi(optarg);
			break;
		case 't':
			bench->round_ns = (uint64_t)atoi(optarg) * 1000000;
			break;
		case 'f':
			bench->full = true;
			break;
		case 'd':
			bench->directory = optarg;
			break;
		case 'o':
			bench->prefix = optarg;
			break;
		case '1':
			bench->once = true;
			break;
		case 'c':
			bench->is_check = true;
			break;
		case 'n':
			*ret_list = true;
			break;
		case 'h':
			usage();
		default:
			exit(2);
		}
	}
	if (bench->rounds < 1 || bench->rounds > ROUNDS_MAX)
		die("rounds: 1 to %d", ROUNDS_MAX);
}

static const char *about(const struct bench *bench)
{
	static char text[512];
	struct utsname host;

	uname(&host);
	snprintf(text, sizeof(text),
		 "libktvblk %s, Linux %s, driver on CPU %u, worker on CPU %u, "
		 "%u rounds of %llu ms",
		 bench->api.version(), host.release, bench->cpus.driver,
		 bench->cpus.worker, bench->rounds,
		 (unsigned long long)bench->round_ns / 1000000);
	return text;
}

static bool is_named(const char *name, const char *const *patterns, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(patterns[i], name) == 0)
			return true;
	return n == 0;
}

static void run_beside(struct bench *bench)
{
	static const enum store_kind kinds[] = { STORE_CACHE, STORE_DIRECT };
	struct beside beside;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct store *store = open_store(bench, kinds[i]);

		if (!store) {
			report_skip(&bench->report, "beside",
				    bench->missing[kinds[i]]);
			continue;
		}
		beside_measure(&bench->api, store, bench->cpus.worker,
			       bench->rounds, bench->round_ns, bench->has_ring,
			       &beside);
		report_beside(&bench->report, &beside);
	}
}

static void run_others(struct bench *bench, const char *const *patterns, int n)
{
	struct scale scales[SCALES];
	struct life life;

	if (is_named("beside", patterns, n))
		run_beside(bench);
	if (is_named("life", patterns, n)) {
		life_measure(&bench->api, &bench->cpus, &life);
		report_life(&bench->report, &life);
	}
	if (is_named("scale", patterns, n)) {
		scale_measure(&bench->api, &bench->cpus, scales);
		report_scale(&bench->report, scales);
	}
}

static void measure(struct bench *bench, const char *const *patterns, int n)
{
	struct noise noise;

	report_open(&bench->report, bench->prefix, about(bench),
		    bench->has_against, bench->is_check);
	noise_begin(&noise);
	cases_visit(patterns, n, bench->full, run_case, bench);
	run_others(bench, patterns, n);
	noise_end(&noise);
	if (!bench->report.n)
		die("no such case");
	report_close(&bench->report, &noise);
	for (size_t i = 0; i < STORE_KINDS; i++)
		if (bench->opened[i])
			store_close(&bench->stores[i]);
}

static bool run_check(struct bench *bench)
{
	struct check *check = &bench->check;
	int n;

	check->api = &bench->api;
	check->cpus = &bench->cpus;
	check_counts(check);
	if (bench->cpus.driver == bench->cpus.worker) {
		puts("skipped: times, on one CPU");
		check->skipped++;
	} else {
		const char *const *patterns = check_patterns(&n);

		measure(bench, patterns, n);
	}
	return check_end(check);
}

int main(int argc, char **argv)
{
	static struct bench bench = {
		.api.path = "libktvblk.so",
		.rounds = 5,
		.round_ns = 100000000,
		.directory = ".",
		.prefix = "bench",
	};
	const char *const *patterns;
	bool list = false;

	parse(&bench, argc, argv, &list);
	patterns = (const char *const *)argv + optind;
	argc -= optind;
	if (list) {
		cases_visit(patterns, argc, bench.full, list_case, NULL);
		return 0;
	}
	load(&bench.api, bench.api.path);
	if (bench.has_against)
		load(&bench.against, bench.against.path);
	bench.cpus = cpus_choose();
	cpu_pin(bench.cpus.driver);
	if (bench.once) {
		cases_visit(patterns, argc, bench.full, run_once, &bench);
		return 0;
	}
	bench.has_ring = limit_has_ring();
	if (bench.is_check)
		return run_check(&bench) ? 0 : 1;
	measure(&bench, patterns, argc);
	return 0;
}
