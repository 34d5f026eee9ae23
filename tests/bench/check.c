/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See check.h. Batches of requests that the driver makes available while the
 * worker sleeps, tells of by one kick, and wants one interrupt for. It sleeps
 * again before the next, so that nothing depends on who is faster.
 */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "count.h"
#include "guest.h"
#include "store.h"

#define BATCHES 100

/*
 * Polling saves what is counted here, as luck will have it: without. And by calls:
 * what else an engine may choose is a matter of time.
 */
static const char *const batched[] = {
	"null/4k/d1/read/fenced/no-poll",
	"null/4k/d32/read/*/no-poll",
	"tmpfs/512/d128/read/fenced/no-poll/sync",
	"tmpfs/4k/d1/*/fenced/no-poll/sync",
	"tmpfs/4k/d32/*/*/no-poll/sync",
	/* Served in less than the time an interrupt is held back. */
	"null/4k/d4/read/*/no-event-idx/no-poll",
	"tmpfs/4k/d32/read/*/no-indirect/no-poll/sync",
	"tmpfs/1m/d4/*/*/no-poll/sync",
};

/*
 * Times of the limit, and system calls of the worker for each request: what is
 * far outside fails, twice that, of a ratio in the best of the rounds. Irqs for
 * each request: a driver with 32 in flight that asks for one after 25 can have
 * no more. Kicks that polling saves are left to the unit tests: on a busy machine
 * it saves none.
 */
static const struct expected {
	const char *name;
	double cpu, latency, irqs, syscalls; /* 0: whatever */
} expected[] = {
	{ .name = "tmpfs/4k/d32/read/fenced/spin", .cpu = 1.35 },
	{ .name = "tmpfs/4k/d32/read/zerocopy/spin", .cpu = 1.15 },
	{ .name = "tmpfs/4k/d1/read/fenced/no-poll", .latency = 1.1 },
	{ .name = "tmpfs/4k/d32/read/fenced/late-irq", .irqs = 0.1 },
	{ .name = "direct/4k/d32/read/fenced", .syscalls = 0.3 },
};
#define FAR 2

/* Of one batch; or of several, the fewest. */
struct batch {
	uint64_t kicks, irqs, syscalls, allocations, threads;
};

__attribute__((format(printf, 4, 5))) static void
verdict(struct check *check, bool good, const char *name, const char *format,
	...)
{
	va_list args;

	if (good)
		check->passed++;
	else
		check->failed++;
	printf("%-4s %-44s ", good ? "ok" : "FAIL", name);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

struct counting {
	struct check *check;
	struct store stores[STORE_KINDS];
};

static struct batch run_batch(struct guest *guest)
{
	const struct counts before = counts_of(guest->worker);
	const uint64_t kicks = guest->driver.kicks, irqs = guest->driver.irqs;
	struct counts after;

	guest_batch(guest);
	after = counts_of(guest->worker);
	return (struct batch){
		.kicks = guest->driver.kicks - kicks,
		.irqs = guest->driver.irqs - irqs,
		.syscalls = after.syscalls - before.syscalls,
		.allocations = after.allocations - before.allocations,
		.threads = after.threads - before.threads,
	};
}

/*
 * One kick, and for it one wait that ended and one read; a call of the storage
 * for each request; for each interrupt a write. One interrupt, but a worker put
 * off its CPU without EVENT_IDX gives one more, as somebody waits for it.
 */
static bool as_it_must(const struct bench_case *what, const struct batch *batch)
{
	const uint64_t storage = what->store == STORE_NULL ? 0 : what->depth;

	return batch->kicks == 1 &&
	       (batch->irqs == 1 || (batch->irqs && what->no_event_idx)) &&
	       batch->syscalls == 2 + storage + batch->irqs &&
	       !batch->allocations && !batch->threads;
}

static void check_case(const struct bench_case *what, void *userdata)
{
	const struct counting *counting = (struct counting *)userdata;
	struct check *check = counting->check;
	struct batch batch;
	uint64_t fewest_irqs = UINT64_MAX;
	struct guest guest;
	bool good = true;

	guest_open(&guest, check->api, what, &counting->stores[what->store],
		   check->cpus->worker);
	guest_prepare(&guest);
	guest_start(&guest);
	guest_batch(&guest); /* the first request starts the watch for stalls */
	for (unsigned int i = 0; good && i < BATCHES; i++) {
		batch = run_batch(&guest);
		fewest_irqs = MIN(fewest_irqs, batch.irqs);
		good = as_it_must(what, &batch);
	}
	verdict(check, good && fewest_irqs == 1, what->name,
		"%3u requests: %llu kicks, %llu irqs, %llu system calls, "
		"%llu allocations, %llu threads",
		what->depth, (unsigned long long)batch.kicks,
		(unsigned long long)batch.irqs,
		(unsigned long long)batch.syscalls,
		(unsigned long long)batch.allocations,
		(unsigned long long)batch.threads);
	guest_close(&guest);
}

/* Devices that have worked, and polled, and now have nothing to do. */
static void check_idle(const struct counting *counting)
{
	struct check *check = counting->check;
	static const struct bench_case what = { .name = "idle",
						.store = STORE_NULL,
						.bytes = 4096,
						.depth = 32,
						.stall_warn_ms = 500 };
	struct guest guests[4];
	uint64_t switches, syscalls = 0;
	static struct run run;

	for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
		guest_open(&guests[i], check->api, &what,
			   &counting->stores[STORE_NULL], check->cpus->worker);
		guest_prepare(&guests[i]);
		guest_start(&guests[i]);
		guest_run(&guests[i], 10 * NSEC_PER_MSEC, &run);
	}
	/* The log thread looks once more, stall_warn_ms after a request. */
	switches = idle_switches(0, 2 * what.stall_warn_ms, 0);
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
		syscalls -= counts_of(guests[i].worker).syscalls;
	switches += idle_switches(0, 0, 2000);
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
		syscalls += counts_of(guests[i].worker).syscalls;
		guest_close(&guests[i]);
	}
	verdict(check, !switches && !syscalls, what.name,
		"4 devices, 2 s: %llu context switches, %llu system calls",
		(unsigned long long)switches, (unsigned long long)syscalls);
}

void check_counts(struct check *check)
{
	struct counting counting = { .check = check };
	const char *why;

	store_open(&counting.stores[STORE_NULL], STORE_NULL, NULL, &why);
	if (!store_open(&counting.stores[STORE_TMPFS], STORE_TMPFS, NULL, &why))
		die("tmpfs: %s", why);
	cases_visit(batched, ARRAY_SIZE(batched), true, check_case, &counting);
	check_idle(&counting);
	store_close(&counting.stores[STORE_TMPFS]);
}

const char *const *check_patterns(int *ret_n)
{
	static const char *patterns[ARRAY_SIZE(expected)];

	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		patterns[i] = expected[i].name;
	*ret_n = ARRAY_SIZE(expected);
	return patterns;
}

void check_result(struct check *check, const struct result *result)
{
	const char *name = result->what->name;
	const struct expected *e = expected;

	while (strcmp(e->name, name))
		e++;
	if (e->cpu > 0)
		verdict(check, result->cpu.best <= FAR * e->cpu, name,
			"worker CPU %.2f of the limit, best %.2f, expected %.2f",
			result->cpu.median, result->cpu.best, e->cpu);
	if (e->latency > 0)
		verdict(check, result->latency.best <= FAR * e->latency, name,
			"latency %.2f of the limit, best %.2f, expected %.2f",
			result->latency.median, result->latency.best,
			e->latency);
	if (e->syscalls > 0)
		verdict(check, result->device.syscalls <= FAR * e->syscalls,
			name, "%.3f system calls for a request, expected %.2f",
			result->device.syscalls, e->syscalls);
	if (e->irqs > 0)
		verdict(check, result->device.irqs <= e->irqs, name,
			"%.3f irqs for a request, at most %.2f",
			result->device.irqs, e->irqs);
}

bool check_end(const struct check *check)
{
	printf("%u passed, %u failed, %u skipped\n", check->passed,
	       check->failed, check->skipped);
	return !check->failed;
}
