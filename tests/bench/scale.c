/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See scale.h. One driver serves all devices in turn and never sleeps; where
 * there are more workers than other CPUs they share them.
 */

#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "guest.h"
#include "scale.h"

#define DEVICES_MAX (1u << (SCALES - 1))
#define ROUNDS 5
#define ROUND_NS (100 * NSEC_PER_MSEC)
#define STALL_WARN_MS 500

static const struct bench_case what = {
	.name = "scale",
	.store = STORE_TMPFS,
	.bytes = 4096,
	.depth = 4,
	.spin = true,
	.stall_warn_ms = STALL_WARN_MS,
};

struct use {
	double rss, anonymous, heap, threads;
};

static double kib_of(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	unsigned long long kib;

	if (!at || sscanf(at + strlen(key), " %llu", &kib) != 1)
		die("/proc/self/smaps_rollup: no %s", key);
	return (double)kib;
}

static struct use use_now(const struct guest *guests, unsigned int n)
{
	const struct mallinfo2 heap = mallinfo2();
	struct use use = { .heap = (double)(heap.uordblks + heap.hblkhd),
			   .threads = (double)threads_list(0, NULL, 0) };
	char text[4096];
	size_t read = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "re");

	if (file) {
		read = fread(text, 1, sizeof(text) - 1, file);
		fclose(file);
	}
	text[read] = '\0';
	use.rss = kib_of(text, "\nRss:") * 1024;
	use.anonymous = kib_of(text, "\nAnonymous:") * 1024;
	for (unsigned int i = 0; i < n; i++) {
		const double ram = (double)guest_resident_bytes(&guests[i]);

		use.rss -= ram;
		use.anonymous -= ram;
	}
	return use;
}

static unsigned int reap_all(struct guest *guests, unsigned int n, bool again)
{
	unsigned int all = 0;

	for (unsigned int i = 0; i < n; i++) {
		const unsigned int done = driver_reap(&guests[i].driver, NULL);

		all += done;
		if (done && again)
			driver_submit(&guests[i].driver, done);
	}
	return all;
}

/* Requests per second of n devices. */
static double rate(struct guest *guests, unsigned int n)
{
	unsigned int in_flight = n * what.depth;
	const uint64_t start = now_ns();
	uint64_t requests = 0, end;

	for (unsigned int i = 0; i < n; i++)
		driver_submit(&guests[i].driver, what.depth);
	do {
		requests += reap_all(guests, n, true);
		end = now_ns();
	} while (end - start < ROUND_NS);
	while (in_flight)
		in_flight -= reap_all(guests, n, false);
	return (double)requests * 1e9 / (double)(end - start);
}

static void open_one(struct guest *guest, const struct api *api,
		     const struct store *store, uint32_t cpu)
{
	guest_open(guest, api, &what, store, cpu);
	guest_prepare(guest);
	guest_start(guest);
}

/* Of the n devices after the first, which is as idle as them meanwhile. */
static void measure_scale(struct guest *first, unsigned int n,
			  const struct use *before, struct scale *scale)
{
	double all[ROUNDS], ratios[ROUNDS];
	const double d = n;
	struct use use;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		all[i] = rate(first + 1, n);
		ratios[i] = all[i] / rate(first + 1, 1);
	}
	*scale = (struct scale){
		.n = n,
		.requests_per_s = quantile(all, ROUNDS, 0.5),
		.ratio = quantile(ratios, ROUNDS, 0.5),
		/* The log thread looks once more after the last request. */
		.switches_per_s =
			(double)idle_switches(0, 2 * STALL_WARN_MS, 1000),
	};
	use = use_now(first, n + 1);
	scale->rss_bytes = (use.rss - before->rss) / d;
	scale->anonymous_bytes = (use.anonymous - before->anonymous) / d;
	scale->heap_bytes = (use.heap - before->heap) / d;
	scale->threads = (use.threads - before->threads) / d;
}

void scale_measure(const struct api *api, const struct cpus *cpus,
		   struct scale scales[SCALES])
{
	static struct guest guests[1 + DEVICES_MAX];
	unsigned int n = 0;
	struct store store;
	struct use before;
	const char *why;

	if (!store_open(&store, what.store, NULL, &why))
		die("tmpfs: %s", why);
	/* What the first device of a process brings is no part of it. */
	open_one(&guests[0], api, &store, cpus->worker);
	rate(&guests[0], 1);
	idle_switches(0, 2 * STALL_WARN_MS, 0);
	before = use_now(guests, 1);
	for (unsigned int s = 0; s < SCALES; s++) {
		for (; n < 1u << s; n++)
			open_one(&guests[1 + n], api, &store,
				 cpus->others[n % cpus->n_others]);
		measure_scale(guests, n, &before, &scales[s]);
	}
	for (unsigned int i = 0; i <= n; i++)
		guest_close(&guests[i]);
	store_close(&store);
}
