/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See life.h. A request waits in the ring before DRIVER_OK. Another device is
 * there all the time, as in a VMM with two disks: without, the first and the
 * last one start and end the thread that logs. The limit is a bare thread that
 * is started and answers, and is told to end and joined, in turn with a life.
 */

#include <unistd.h>

#include "count.h"
#include "guest.h"
#include "life.h"
#include "limit.h"

#define LIVES 1000

enum limit { LIMIT_START, LIMIT_END, LIMITS };

static double steps[STEPS][LIVES], limits[LIMITS][LIVES];

static const struct bench_case what = {
	.name = "life",
	.store = STORE_NULL,
	.bytes = 4096,
	.depth = 1,
};

/* Of one more session; since from, or from DRIVER_OK on. */
static double first_completion(struct guest *guest, uint64_t from)
{
	guest_prepare(guest);
	driver_submit(&guest->driver, 1);
	if (!from)
		from = now_ns();
	guest_go(guest);
	driver_await(&guest->driver);
	driver_reap(&guest->driver, NULL);
	return (double)(now_ns() - from);
}

static void live(const struct api *api, const struct store *store, uint32_t cpu,
		 unsigned int i)
{
	struct guest guest;
	uint64_t from;

	guest_open(&guest, api, &what, store, cpu);
	steps[STEP_START][i] = first_completion(&guest, 0);
	from = now_ns();
	guest_reset(&guest);
	steps[STEP_RESET][i] = (double)(now_ns() - from);
	steps[STEP_RESTART][i] = first_completion(&guest, from);
	steps[STEP_DESTROY][i] = (double)guest_close(&guest);
}

void life_measure(const struct api *api, const struct cpus *cpus,
		  struct life *life)
{
	static const char *const names[] = {
		[STEP_START] = "DRIVER_OK to the first completion",
		[STEP_RESET] = "reset",
		[STEP_RESTART] = "reset to the first completion after it",
		[STEP_DESTROY] = "destroy",
	};
	double limit_ns[STEPS] = { 0 };
	struct store store;
	struct guest other;
	uint64_t threads, start, end;
	const char *why;

	store_open(&store, STORE_NULL, NULL, &why);
	guest_open(&other, api, &what, &store, cpus->worker);
	live(api, &store, cpus->worker, 0); /* warms up */
	*life = (struct life){ .n = LIVES };
	threads = threads_started();
	for (unsigned int i = 0; i < LIVES; i++) {
		live(api, &store, cpus->worker, i);
		limit_thread(cpus->worker, &start, &end);
		limits[LIMIT_START][i] = (double)start;
		limits[LIMIT_END][i] = (double)end;
	}
	/* Two sessions have a worker each; the limit is a thread as well. */
	life->threads = (double)(threads_started() - threads) / LIVES - 3;
	guest_close(&other);
	limit_ns[STEP_START] = quantile(limits[LIMIT_START], LIVES, 0.5);
	limit_ns[STEP_RESET] = quantile(limits[LIMIT_END], LIVES, 0.5);
	limit_ns[STEP_RESTART] = limit_ns[STEP_RESET] + limit_ns[STEP_START];
	limit_ns[STEP_DESTROY] = limit_ns[STEP_RESET];
	for (unsigned int s = 0; s < STEPS; s++) {
		life->steps[s].name = names[s];
		life->steps[s].p50_ns = quantile(steps[s], LIVES, 0.5);
		life->steps[s].p99_ns = quantile(steps[s], LIVES, 0.99);
		life->steps[s].limit_ns = limit_ns[s];
	}
}
