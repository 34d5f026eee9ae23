/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The bounds, a few tries each. Reset and destroy with the storage hung and the
 * sink of the records hung as well: where the disk hangs, the journal often
 * hangs on it too. And destroy where nothing is wrong, which is to cost nothing.
 */

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "event.h"
#include "machine.h"
#include "records.h"
#include "say.h"
#include "tour.h"

#define TRIES 5
#define CLEAN_TRIES 51
#define CLEAN_TRIES_MAX 2000
#define STALL_AT_ONCE_MS 1

/* A sink that takes one record and does not return. */
struct stuck_sink {
	_Atomic bool hanging;
	int stuck; /* event: it does not return */
	int let_go; /* event: it may */
	int released; /* event: it is not called any more */
};

static void stuck_take(const struct ktvblk_record *record, void *userdata)
{
	struct stuck_sink *sink = (struct stuck_sink *)userdata;

	(void)record;
	if (!sink->hanging)
		return;
	event_signal(sink->stuck);
	event_await(sink->let_go, FOR_EVER);
}

static void stuck_release(void *userdata)
{
	struct stuck_sink *sink = (struct stuck_sink *)userdata;

	event_signal(sink->released);
}

static void stuck_open(struct stuck_sink *sink)
{
	*sink = (struct stuck_sink){
		.hanging = true,
		.stuck = event_new(),
		.let_go = event_new(),
		.released = event_new(),
	};
	ktvblk_set_log_handler(stuck_take, stuck_release, sink);
}

static void stuck_close(struct stuck_sink *sink, const struct usage *before)
{
	sink->hanging = false;
	event_signal(sink->let_go);
	/* These records are for nobody: let all come before we go on. */
	usage_settled(before);
	records_resume();
	promise(event_await(sink->released, A_WHILE_MS),
		"the sink's release callback ran");
	close(sink->stuck);
	close(sink->let_go);
	close(sink->released);
}

/* One try: how long the call took, in ms. */
static double try_hung(struct tour *tour, bool reset)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	enum ktvblk_outcome outcome = KTVBLK_TIMED_OUT;
	struct machine machine;
	struct hang hang;
	struct moment start, end;

	hang_open(&hang, tour->image.fd);
	config.flags = tour->image.read_only ? KTVBLK_READ_ONLY : 0;
	config.backend = hang_backend(&hang, tour->image.read_only);
	config.reset_timeout_ms = config.destroy_timeout_ms =
		tour->options.budget_ms;
	config.stall_warn_ms = STALL_AT_ONCE_MS;
	machine_start(&machine, &config);
	machine_hang(&machine, &hang);

	start = moment_now();
	if (reset)
		driver_reset(&machine.driver);
	else
		outcome = ktvblk_destroy(machine.dev);
	end = moment_now();

	if (reset && ktvblk_get_state(machine.dev) != KTVBLK_STATE_WEDGED)
		die("the reset did not time out");
	hang_let_go(&hang);
	if (reset)
		ktvblk_destroy(machine.dev);
	if (outcome != KTVBLK_TIMED_OUT || !machine_end(&machine) ||
	    !hang_close(&hang))
		die("the device did not end as it should");
	return own_ms(start, end);
}

static void show_hung(struct tour *tour, const char *what, bool reset)
{
	const uint32_t bound_ms = tour->options.budget_ms + GRACE_MS;
	double slowest = 0;

	for (int i = 0; i < TRIES; i++) {
		const double ms = try_hung(tour, reset);

		slowest = ms > slowest ? ms : slowest;
	}
	promise(slowest <= bound_ms,
		"%s: %d tries, the slowest %.1f ms; the bound is %" PRIu32
		" + %d ms",
		what, TRIES, slowest, tour->options.budget_ms, GRACE_MS);
}

#define FLUSH_MS 5000u

struct clean {
	double us[CLEAN_TRIES]; /* of the last ones */
	int tries;
	int without_thread; /* tries in which nobody made one, we neither */
	_Atomic unsigned int records;
};

static void count_record(const struct ktvblk_record *record, void *userdata)
{
	struct clean *clean = (struct clean *)userdata;

	(void)record;
	clean->records++;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void try_clean(struct tour *tour, struct clean *clean)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	enum ktvblk_outcome outcome;
	struct machine machine;
	double start;
	int id, r;

	config.flags = tour->image.read_only ? KTVBLK_READ_ONLY : 0;
	r = ktvblk_backend_new_fd(tour->image.fd, NULL, NULL, &config.backend);
	if (r < 0)
		die("ktvblk_backend_new_fd: %s", strerror(-r));
	machine_start(&machine, &config);
	driver_request(&machine.driver, 0, VIRTIO_BLK_T_IN, 0,
		       KTVBLK_SECTOR_SIZE);
	if (clean->tries == 0) { /* what came late of what hung before */
		ktvblk_log_flush(FLUSH_MS);
		clean->records = 0;
	}
	id = next_thread_id();
	start = now_s();
	outcome = ktvblk_destroy(machine.dev);
	clean->us[clean->tries++ % CLEAN_TRIES] = 1e6 * (now_s() - start);
	clean->without_thread += next_thread_id() == id + 1;
	if (outcome != KTVBLK_JOINED || !machine_end(&machine))
		die("a clean destroy said \"%s\"",
		    ktvblk_outcome_name(outcome));
}

static void show_clean(struct tour *tour)
{
	static struct clean clean;

	ktvblk_set_log_handler(count_record, NULL, &clean);
	/* Others make threads too: if need be, wait for a quiet moment. */
	while (clean.tries < CLEAN_TRIES ||
	       (!clean.without_thread && clean.tries < CLEAN_TRIES_MAX))
		try_clean(tour, &clean);
	records_resume();
	qsort(clean.us, CLEAN_TRIES, sizeof(*clean.us), compare);
	say(NULL, "A clean destroy, %d tries: median %.0f us, slowest %.0f us",
	    clean.tries, clean.us[CLEAN_TRIES / 2], clean.us[CLEAN_TRIES - 1]);
	promise(clean.without_thread > 0,
		"no thread is created for it: the next thread's id followed "
		"on the last one's in %d of %d tries",
		clean.without_thread, clean.tries);
	promise(clean.records == 0, "and no record is made: %u", clean.records);
}

void show_bounds(struct tour *tour)
{
	struct stuck_sink sink;
	struct usage before;

	heading("The bounds, with the sink of the records hung as well");
	stuck_open(&sink);
	before = usage_now();
	show_hung(tour, "reset", true);
	show_hung(tour, "destroy", false);
	promise(event_await(sink.stuck, A_WHILE_MS),
		"the sink was hung in a record");
	stuck_close(&sink, &before);
	show_clean(tour);
}
