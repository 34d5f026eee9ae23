/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ktvblk-serve and other servers of vhost-user-blk, with one client and on one
 * file: all of them run, and take turns in each round, the server on one CPU and
 * the client on another. Ratios are of one round.
 */

/* wrap: _ck_assert_failed _mark_point */

#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../figures.h"
#include "../store.h"
#include "client.h"
#include "fio.h"

/* Longer than a stall may take before the server's watch looks at it. */
#define QUIET_MS 12000
#define IDLE_MS 1000

/* Who takes turns: the peers, and fio. */
#define FIO PEERS
#define CONTENDERS (PEERS + 1)

static const struct bench_case cases[] = {
	{ .name = "cache/4k/d64/read", .store = STORE_CACHE, .depth = 64 },
	{ .name = "cache/4k/d64/read/spin",
	  .store = STORE_CACHE,
	  .depth = 64,
	  .spin = true },
	{ .name = "direct/4k/d64/read", .store = STORE_DIRECT, .depth = 64 },
	{ .name = "cache/4k/d16/write",
	  .store = STORE_CACHE,
	  .depth = 16,
	  .mix = MIX_WRITE },
	{ .name = "cache/128k/d16/sequential",
	  .store = STORE_CACHE,
	  .bytes = 128 << 10,
	  .depth = 16,
	  .sequential = true },
	{ .name = "cache/4k/d1/read", .store = STORE_CACHE, .depth = 1 },
	{ .name = "cache/4k/d1/read/spin",
	  .store = STORE_CACHE,
	  .depth = 1,
	  .spin = true },
	{ .name = "cache/4k/d1/write-flush",
	  .store = STORE_CACHE,
	  .depth = 1,
	  .flusher = true },
};
static const struct bench_case idle = {
	.name = "idle", .store = STORE_CACHE, .bytes = 4096, .depth = 64
};

struct peers {
	unsigned int rounds;
	uint64_t round_ns;
	const char *directory;
	const char *servers; /* a pattern: beside the first */
	const char *const *patterns;
	int n_patterns;
	struct cpus cpus;
	struct store stores[STORE_KINDS];
	bool opened[STORE_KINDS];
};

static const char not_asked_for[] = "not asked for";

/* Of one case. */
struct field {
	struct client *clients[PEERS];
	const char *why[CONTENDERS]; /* it takes no part, or NULL */
	struct figures rounds[CONTENDERS][ROUNDS_MAX];
};

static const char *contender_name(unsigned int contender)
{
	return contender == FIO ? "fio io_uring"
				: peer_name((enum peer)contender);
}

static const struct store *open_store(struct peers *peers, enum store_kind kind)
{
	struct store *store = &peers->stores[kind];
	const char *why;

	if (!peers->opened[kind] &&
	    !store_open(store, kind, peers->directory, &why))
		die("%s: %s", store_name(kind), why);
	peers->opened[kind] = true;
	return store;
}

static void open_field(struct peers *peers, struct field *field,
		       const struct bench_case *what)
{
	const struct store *store = open_store(peers, what->store);

	memset(field, 0, sizeof(*field));
	for (unsigned int i = 0; i < CONTENDERS; i++) {
		if (i != PEER_SERVE &&
		    fnmatch(peers->servers, contender_name(i), 0) != 0)
			field->why[i] = not_asked_for;
		else if (i != FIO)
			field->clients[i] =
				client_open((enum peer)i, what, store->fd,
					    peers->cpus.worker, &field->why[i]);
	}
	if (!field->clients[PEER_SERVE])
		die("%s: %s", peer_name(PEER_SERVE), field->why[PEER_SERVE]);
}

static void close_field(struct field *field)
{
	for (unsigned int i = 0; i < PEERS; i++)
		if (field->clients[i])
			client_close(field->clients[i]);
}

/* It is beside the servers where storage is what they are held against. */
static bool takes_fio(const struct bench_case *what)
{
	return what->store == STORE_DIRECT;
}

static void run_one(struct peers *peers, struct field *field,
		    const struct bench_case *what, unsigned int contender,
		    struct run *run)
{
	if (contender != FIO)
		client_run(field->clients[contender], peers->round_ns, run);
	else if (!fio_run(what, peers->stores[what->store].fd,
			  peers->cpus.worker, peers->round_ns, run))
		field->why[FIO] = "not installed, or without io_uring";
}

/* Round 0 warms up, and is not kept. Nobody is always the first. */
static void run_rounds(struct peers *peers, struct field *field,
		       const struct bench_case *what)
{
	static struct run run;
	const unsigned int n = takes_fio(what) ? CONTENDERS : PEERS;

	for (unsigned int i = 0; i <= peers->rounds; i++) {
		for (unsigned int k = 0; k < n; k++) {
			const unsigned int c = (k + i) % n;

			if (field->why[c])
				continue;
			run_one(peers, field, what, c, &run);
			if (i && !field->why[c])
				field->rounds[c][i - 1] = figures_of(&run);
		}
	}
}

static void print_head(void)
{
	printf("Rates, the server's CPU time and the latency: medians of the "
	       "rounds. Kicks and irqs are\nper request. x: the first server's "
	       "figures over this one's, of the same round, the rate\nwith "
	       "quartiles.\n\n"
	       "%-26s %-28s %8s %7s %8s %8s %5s %5s  %20s %6s %6s\n",
	       "case", "server", "kreq/s", "cpu us", "p50 us", "p99 us",
	       "kicks", "irqs", "x rate", "cpu", "p50");
}

static void print_ratios(const struct field *field, unsigned int contender,
			 size_t n)
{
	const struct figures *ours = field->rounds[PEER_SERVE];
	const struct figures *its = field->rounds[contender];
	const struct ratio rate = FIGURES_RATIO(ours, its, n, requests_per_s);

	const double p50 = FIGURES_RATIO(ours, its, n, p50_ns).median;

	printf("  %5.2f (%5.2f - %5.2f) %6.2f", rate.median, rate.low,
	       rate.high, FIGURES_RATIO(ours, its, n, worker_cpu_ns).median);
	if (p50 > 0)
		printf(" %6.2f", p50);
}

static void print_row(const struct peers *peers, const struct field *field,
		      const struct bench_case *what, unsigned int contender)
{
	const struct figures all =
		figures_medians(field->rounds[contender], peers->rounds);

	if (field->why[contender] == not_asked_for)
		return;
	printf("%-26s %-28s ", contender == PEER_SERVE ? what->name : "",
	       contender_name(contender));
	if (field->why[contender]) {
		printf("skipped: %s\n", field->why[contender]);
		return;
	}
	printf("%8.1f %7.2f %8.1f %8.1f %5.2f %5.2f", all.requests_per_s / 1000,
	       all.worker_cpu_ns / 1000, all.p50_ns / 1000, all.p99_ns / 1000,
	       all.kicks, all.irqs);
	if (contender != PEER_SERVE)
		print_ratios(field, contender, peers->rounds);
	putchar('\n');
	fflush(stdout);
}

static void run_case(struct peers *peers, const struct bench_case *what)
{
	static struct field field;
	const unsigned int n = takes_fio(what) ? CONTENDERS : PEERS;

	open_field(peers, &field, what);
	run_rounds(peers, &field, what);
	for (unsigned int c = 0; c < n; c++)
		print_row(peers, &field, what, c);
	close_field(&field);
}

/* A guest that was at work, and does nothing now. */
static void run_idle(struct peers *peers)
{
	static struct field field;
	static struct run run;

	open_field(peers, &field, &idle);
	for (unsigned int c = 0; c < PEERS; c++)
		if (!field.why[c])
			run_one(peers, &field, &idle, c, &run);
	poll(NULL, 0, QUIET_MS);
	printf("\n%-26s %-28s %s\n", "", "", "context switches in a second");
	for (unsigned int c = 0; c < PEERS; c++) {
		if (field.why[c] == not_asked_for)
			continue;
		printf("%-26s %-28s ", c ? "" : idle.name, contender_name(c));
		if (field.why[c])
			printf("skipped: %s\n", field.why[c]);
		else
			printf("%8llu\n",
			       (unsigned long long)server_idle_switches(
				       client_server(field.clients[c]),
				       IDLE_MS));
	}
	close_field(&field);
}

static bool wanted(const struct peers *peers, const char *name)
{
	for (int i = 0; i < peers->n_patterns; i++)
		if (fnmatch(peers->patterns[i], name, 0) == 0)
			return true;
	return peers->n_patterns == 0;
}

__attribute__((noreturn)) static void usage(void)
{
	puts("peers [OPTION...] [PATTERN...]\n"
	     "  -r, --rounds N        5\n"
	     "  -t, --ms N            length of a round (300)\n"
	     "  -d, --dir DIR         a real file system for the files\n"
	     "  -s, --servers PATTERN those beside ktvblk-serve, as 'qemu*'\n"
	     "PATTERN: the cases that match, as 'cache/*', direct/4k/d64/read "
	     "or idle");
	exit(0);
}

static void parse(struct peers *peers, int argc, char **argv)
{
	static const struct option options[] = {
		{ "rounds", required_argument, NULL, 'r' },
		{ "ms", required_argument, NULL, 't' },
		{ "servers", required_argument, NULL, 's' },
		{ "dir", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "r:t:d:s:h", options, NULL)) !=
	       -1) {
		switch (option) {
		case 'r':
			peers->rounds = (unsigned int)atoi(optarg);
			break;
		case 't':
			peers->round_ns =
				(uint64_t)atoi(optarg) * NSEC_PER_MSEC;
			break;
		case 's':
			peers->servers = optarg;
			break;
		case 'd':
			peers->directory = optarg;
			break;
		case 'h':
			usage();
		default:
			exit(2);
		}
	}
	if (peers->rounds < 1 || peers->rounds > ROUNDS_MAX || !peers->round_ns)
		die("rounds: 1 to %d, ms: from 1 on", ROUNDS_MAX);
	peers->patterns = (const char *const *)argv + optind;
	peers->n_patterns = argc - optind;
}

int main(int argc, char **argv)
{
	struct peers peers = { .rounds = 5,
			       .round_ns = 300 * NSEC_PER_MSEC,
			       .directory = ".",
			       .servers = "*" };

	parse(&peers, argc, argv);
	peers.cpus = cpus_choose();
	cpu_pin(peers.cpus.driver);
	print_head();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bench_case what = cases[i];

		if (!what.bytes)
			what.bytes = 4096;
		if (wanted(&peers, what.name))
			run_case(&peers, &what);
	}
	if (wanted(&peers, idle.name))
		run_idle(&peers);
	for (unsigned int i = 0; i < STORE_KINDS; i++)
		if (peers.opened[i])
			store_close(&peers.stores[i]);
	return 0;
}
