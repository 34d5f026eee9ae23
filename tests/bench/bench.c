/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a request costs, case by case (see case.h). Device, limit and, with
 * --against, another build of the library take turns in each round, so that
 * what the machine does meanwhile hits all of them; ratios are of one round.
 */

#include <getopt.h>
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "check.h"
#include "guest.h"
#include "limit.h"
#include "report.h"
#include "store.h"

enum contender { DEVICE, AGAINST, BARE, PING_PONG, CONTENDERS };

struct bench {
	struct api api, against;
	bool has_against;
	unsigned int rounds;
	uint64_t round_ns;
	bool full;
	bool once;
	bool is_check;
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

/* Driver and worker wake each other for each request. */
static bool takes_turns(const struct bench_case *what)
{
	return what->depth == 1 && !what->spin;
}

static bool takes_part(const struct bench *bench, const struct bench_case *what,
		       enum contender contender)
{
	switch (contender) {
	case AGAINST:
		return bench->has_against;
	case BARE:
		return what->store != STORE_NULL && !takes_turns(what);
	case PING_PONG:
		return takes_turns(what);
	default:
		return true;
	}
}

static void run_one(struct bench *bench, struct guest *guests,
		    const struct store *store, enum contender contender,
		    struct run *run)
{
	const uint64_t ns = bench->round_ns;
	const uint32_t cpu = bench->cpus.worker;

	switch (contender) {
	case BARE:
		limit_bare(&guests[DEVICE], store, cpu, ns, run);
		break;
	case PING_PONG:
		limit_ping_pong(&guests[DEVICE], store, cpu, ns, run);
		break;
	default:
		guest_run(&guests[contender], ns, run);
	}
}

static struct figures one_round(const struct run *run)
{
	const double n = (double)run->requests;

	return (struct figures){
		.requests_per_s = n * 1e9 / (double)run->elapsed_ns,
		.elapsed_ns = (double)run->elapsed_ns / n,
		.worker_cpu_ns = (double)run->worker_cpu_ns / n,
		.driver_cpu_ns = (double)run->driver_cpu_ns / n,
		.syscalls = (double)run->syscalls / n,
		.allocations = (double)run->allocations / n,
		.kicks = (double)run->kicks / n,
		.irqs = (double)run->irqs / n,
		.preempted = (double)run->preempted,
		.p50_ns = histogram_at(&run->latency, 0.5),
		.p99_ns = histogram_at(&run->latency, 0.99),
		.p999_ns = histogram_at(&run->latency, 0.999),
	};
}

/* Figures are doubles and nothing else, so they can be taken one by one. */
#define FIGURES (sizeof(struct figures) / sizeof(double))

static struct figures medians(const struct figures *rounds, size_t n)
{
	double values[ROUNDS_MAX], one[FIGURES], medians[FIGURES];
	struct figures result;

	for (size_t f = 0; f < FIGURES; f++) {
		for (size_t i = 0; i < n; i++) {
			memcpy(one, &rounds[i], sizeof(one));
			values[i] = one[f];
		}
		medians[f] = quantile(values, n, 0.5);
	}
	memcpy(&result, medians, sizeof(result));
	return result;
}

static struct ratio ratio_of(const struct figures *over,
			     const struct figures *under, size_t n,
			     size_t member)
{
	double values[ROUNDS_MAX], a, b;
	struct ratio ratio;

	for (size_t i = 0; i < n; i++) {
		memcpy(&a, (const char *)&over[i] + member, sizeof(a));
		memcpy(&b, (const char *)&under[i] + member, sizeof(b));
		values[i] = b > 0 ? a / b : 0;
	}
	ratio.median = quantile(values, n, 0.5);
	ratio.best = values[0];
	ratio.low = quantile(values, n, 0.25);
	ratio.high = quantile(values, n, 0.75);
	return ratio;
}

#define RATIO(over, under, member)                                             \
	ratio_of(rounds[over], rounds[under], n,                               \
		 offsetof(struct figures, member))

static struct result conclude(const struct bench *bench,
			      const struct bench_case *what,
			      struct figures rounds[][ROUNDS_MAX])
{
	const size_t n = bench->rounds;
	const enum contender limit = takes_turns(what) ? PING_PONG : BARE;
	struct result result = {
		.what = what,
		.device = medians(rounds[DEVICE], n),
		.has_against = takes_part(bench, what, AGAINST),
		.has_limit = takes_part(bench, what, limit),
		.has_latency = limit == PING_PONG,
	};

	if (result.has_against) {
		result.against = medians(rounds[AGAINST], n);
		result.against_cpu = RATIO(DEVICE, AGAINST, worker_cpu_ns);
		result.against_elapsed = RATIO(DEVICE, AGAINST, elapsed_ns);
		result.against_latency = RATIO(DEVICE, AGAINST, p50_ns);
	}
	if (result.has_limit) {
		result.limit = medians(rounds[limit], n);
		result.cpu = RATIO(DEVICE, limit, worker_cpu_ns);
		result.elapsed = RATIO(DEVICE, limit, elapsed_ns);
		result.latency = RATIO(DEVICE, limit, p50_ns);
	}
	return result;
}

static void run_rounds(struct bench *bench, const struct bench_case *what,
		       struct guest *guests, const struct store *store)
{
	static struct figures rounds[CONTENDERS][ROUNDS_MAX];
	struct result result;
	struct run run;

	/* Round -1 warms up, and is not kept. */
	for (unsigned int i = 0; i <= bench->rounds; i++) {
		for (unsigned int k = 0; k < CONTENDERS; k++) {
			/* Nobody is always the first. */
			const enum contender c =
				(enum contender)((k + i) % CONTENDERS);

			if (!takes_part(bench, what, c))
				continue;
			run_one(bench, guests, store, c, &run);
			if (i)
				rounds[c][i - 1] = one_round(&run);
		}
	}
	result = conclude(bench, what, rounds);
	report_case(&bench->report, &result);
	if (bench->is_check)
		check_result(&bench->check, &result);
}

static void run_case(const struct bench_case *what, void *userdata)
{
	struct bench *bench = (struct bench *)userdata;
	const struct api *apis[] = { &bench->api, &bench->against };
	const struct store *store = open_store(bench, what->store);
	struct guest guests[ARRAY_SIZE(apis)];

	if (!store) {
		report_skip(&bench->report, what->name,
			    bench->missing[what->store]);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(apis); i++) {
		if (!takes_part(bench, what, (enum contender)i))
			continue;
		guest_open(&guests[i], apis[i], what, store,
			   bench->cpus.worker);
		guest_prepare(&guests[i]);
		guest_start(&guests[i]);
	}
	run_rounds(bench, what, guests, store);
	for (size_t i = 0; i < ARRAY_SIZE(apis); i++)
		if (takes_part(bench, what, (enum contender)i))
			guest_close(&guests[i]);
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
	guest_open(&guest, &bench->api, what, store, bench->cpus.worker);
	guest_prepare(&guest);
	guest_submit(&guest, what->depth);
	guest_start(&guest);
	while (guest.n_free < what->depth)
		if (!guest_reap(&guest, NULL))
			guest_await(&guest);
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
	     "         for what has no / in it; or: life, scale");
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

static void run_others(struct bench *bench, const char *const *patterns, int n)
{
	struct scale scales[SCALES];
	struct life life;

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
	if (bench.is_check)
		return run_check(&bench) ? 0 : 1;
	measure(&bench, patterns, argc);
	return 0;
}
