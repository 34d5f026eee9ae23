/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * soak SECONDS [SEED]: many devices in one process, each with a guest that
 * reads, writes, resets, pauses, wedges and makes anew at random, and checks
 * every byte. The seed says what is done, not when.
 */

/* wrap: _mark_point _ck_assert_failed */

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>

#include "harness.h"
#include "soak.h"
#include "wedge.h"

#define GUESTS 16u

/* Far outside of any budget; the machine may be busy. */
#define OVER_MS_MOST 20000u

static uint64_t seed;

/* Where the driver and the device are. */
static void print_state(struct guest *guest)
{
	struct rig *rig = &guest->rig;
	struct ktvblk_counters counters = { 0 };

	ktvblk_stats_read(rig->stats, &counters, sizeof(counters));
	printf("%s, status %#x, features %#llx, queue size %u, way %u, "
	       "engine %u, depth %u\n",
	       ktvblk_state_name(ktvblk_get_state(rig->dev)), rig_status(rig),
	       (unsigned long long)rig->options.features,
	       rig->options.queue_size, guest->way, rig->options.config.engine,
	       rig->options.config.depth);
	for (unsigned int i = 0; i < guest->n_queues; i++) {
		rig_select(rig, i);
		printf("queue %u: avail %u (event %u), used %u, seen %u, "
		       "flags %u\n",
		       i, rig->avail_idx, rig_avail_event(rig),
		       rig_used_idx(rig), rig->used_seen, rig_used_flags(rig));
	}
	for (unsigned int i = 0; i < SLOTS; i++)
		if (guest->slots[i].state != SLOT_FREE)
			printf("slot %u of queue %u: %s, type %u, %u bytes at %#llx, "
			       "status %#x\n",
			       i, guest->slots[i].queue,
			       guest->slots[i].state == SLOT_BUSY ? "busy"
								  : "?",
			       guest->slots[i].type, guest->slots[i].len,
			       (unsigned long long)guest->slots[i].offset,
			       *slot_status(guest, &guest->slots[i]));
	printf("%llu reads, %llu writes, %llu flushes, %llu errors\n",
	       (unsigned long long)counters.reads_completed,
	       (unsigned long long)counters.writes_completed,
	       (unsigned long long)counters.flushes_completed,
	       (unsigned long long)counters.io_errors);
	printf("held %u, %llu waits for tokens, %llu now, paused %d\n",
	       store_held(guest), (unsigned long long)counters.throttled_count,
	       (unsigned long long)counters.currently_throttled,
	       ktvblk_is_paused(rig->dev));
}

void soak_fail(struct guest *guest, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("device %u: ", guest ? guest->index : 0);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	if (guest && guest->rig.dev)
		print_state(guest);
	printf("seed %llu\n0 passed, 1 failed, 0 skipped\n",
	       (unsigned long long)seed);
	fflush(stdout);
	_exit(EXIT_FAILURE);
}

/* What the helpers assert, outside of the test framework. */
void __wrap__mark_point(const char *file, int line);
_Noreturn void __wrap__ck_assert_failed(const char *file, int line,
					const char *expr, const char *msg, ...);

void __wrap__mark_point(const char *file, int line)
{
	(void)file, (void)line;
}

void __wrap__ck_assert_failed(const char *file, int line, const char *expr,
			      const char *msg, ...)
{
	(void)msg;
	soak_fail(NULL, "%s:%d: %s", file, line, expr);
}

static _Atomic uint64_t records;

static void count_record(const struct ktvblk_record *record, void *userdata)
{
	(void)record, (void)userdata;
	records++;
}

static void run(struct guest *guests, uint64_t seconds)
{
	const uint64_t end_ns = now_ns() + seconds * NSEC_PER_SEC;
	pthread_t threads[GUESTS];

	for (unsigned int i = 0; i < GUESTS; i++) {
		guest_open(&guests[i], i, seed, end_ns);
		must(&guests[i], pthread_create(&threads[i], NULL, guest_main,
						&guests[i]) == 0);
	}
	for (unsigned int i = 0; i < GUESTS; i++) {
		pthread_join(threads[i], NULL);
		guest_close(&guests[i]);
	}
}

static void print_figures(const struct guest *guests)
{
	struct figures sum = { 0 };

	for (unsigned int i = 0; i < GUESTS; i++) {
		const struct figures *one = &guests[i].figures;

		sum.requests += one->requests;
		sum.bytes += one->bytes;
		sum.resets += one->resets;
		sum.pauses += one->pauses;
		sum.wedges += one->wedges;
		sum.devices += one->devices;
		sum.slow_pauses += one->slow_pauses;
		sum.over_ns = MAX(sum.over_ns, one->over_ns);
		sum.most_at_work = MAX(sum.most_at_work, one->most_at_work);
	}
	printf("%llu requests, %llu MiB, every byte checked, up to %llu at "
	       "work at once\n",
	       (unsigned long long)sum.requests,
	       (unsigned long long)(sum.bytes >> 20),
	       (unsigned long long)sum.most_at_work);
	printf("%llu devices, %llu resets, %llu wedges, %llu pauses "
	       "(%llu took over a second), %llu records\n",
	       (unsigned long long)sum.devices, (unsigned long long)sum.resets,
	       (unsigned long long)sum.wedges, (unsigned long long)sum.pauses,
	       (unsigned long long)sum.slow_pauses,
	       (unsigned long long)records);
	printf("longest reset or destroy: %.1f ms over its budget\n",
	       (double)sum.over_ns / 1e6);
	must(NULL, sum.over_ns < OVER_MS_MOST * NSEC_PER_MSEC);
	must(NULL, sum.requests);
}

static void check_traces(const struct traces *before)
{
	const struct mallinfo2 heap = mallinfo2();
	struct traces now;

	must(NULL, eventually(count_threads("") <= before->threads));
	must(NULL, eventually(count_fds() == before->fds));
	now = traces_now();
	printf("left: %u descriptors (%u), %u threads (%u), %u maps (%u), "
	       "%zu KiB of heap\n",
	       now.fds, before->fds, now.threads, before->threads, now.maps,
	       before->maps, heap.uordblks >> 10);
	/* The C library keeps stacks and heaps of threads, a few for each. */
	if (!runs_slowly())
		must(NULL, now.maps < before->maps + 16 * GUESTS);
}

int main(int argc, char **argv)
{
	static struct guest guests[GUESTS];
	const uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 60;
	struct traces before;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : now_ns() % 1000000;
	printf("seed %llu, %llu s\n", (unsigned long long)seed,
	       (unsigned long long)seconds);
	fflush(stdout);
	ktvblk_set_log_handler(count_record, NULL, NULL);
	run(guests, 0); /* what a sanitizer starts for itself, and caches */
	before = traces_now();
	run(guests, seconds);
	print_figures(guests);
	check_traces(&before);
	ktvblk_set_log_handler(NULL, NULL, NULL);
	/* The devices, and what is left of them. */
	printf("%u passed, 0 failed, 0 skipped\n", GUESTS + 1);
	return EXIT_SUCCESS;
}
