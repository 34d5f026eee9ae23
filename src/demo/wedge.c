/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A disk that hangs, and the VMM wants to be rid of it. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ktvblk-messages.h>

#include "machine.h"
#include "records.h"
#include "say.h"
#include "tour.h"

static void show_stall(struct machine *machine)
{
	int state;

	records_tell("a request is stalled", KTVBLK_MESSAGE_REQUEST_STALLED,
		     machine->id.instance_id);
	state = ktvblk_get_state(machine->dev);
	promise(state == KTVBLK_STATE_STALLED,
		"before anybody resets anything, the device is \"%s\"",
		ktvblk_state_name(state));
}

static void show_destroy(struct machine *machine, uint32_t budget_ms)
{
	const struct moment start = moment_now();
	const enum ktvblk_outcome outcome = ktvblk_destroy(machine->dev);
	const double ms = own_ms(start, moment_now());

	promise(ms <= budget_ms + GRACE_MS,
		"ktvblk_destroy() came back after %.1f ms, with a budget of "
		"%" PRIu32 " ms",
		ms, budget_ms);
	promise(outcome == KTVBLK_TIMED_OUT, "and told the outcome: \"%s\"",
		ktvblk_outcome_name(outcome));
	promise(machine->guest.releases == 0,
		"guest memory is still held by the stuck worker, and mapped");
}

static void show_record(const struct machine *machine)
{
	const struct ktvblk_identity *id = &machine->id;
	char *record =
		records_wait(KTVBLK_MESSAGE_DESTROY_TIMED_OUT, id->instance_id);

	if (record)
		records_show(KTVBLK_MESSAGE_DESTROY_TIMED_OUT, id->instance_id,
			     record);
	promise(record_has(record, KTVBLK_FIELD_INSTANCE_ID, id->instance_id) &&
			record_has(record, KTVBLK_FIELD_STOP_FD,
				   (uint64_t)id->stop_fd) &&
			record_has(record, KTVBLK_FIELD_CAPACITY_SECTORS,
				   id->capacity_sectors),
		"the record names the device: INSTANCE_ID=%" PRIu64
		" STOP_FD=%d CAPACITY_SECTORS=%" PRIu64,
		id->instance_id, id->stop_fd, id->capacity_sectors);
	free(record);
}

static void show_usage(const char *when, const struct usage *usage)
{
	say(when, "descriptors %u, threads %u, resident memory %.1f MiB",
	    usage->fds, usage->threads, (double)usage->resident_kib / 1024);
}

static void show_end(struct machine *machine, struct hang *hang,
		     const struct usage *before)
{
	const struct usage peak = usage_now();
	struct usage after;
	bool closed;

	hang_let_go(hang);
	say(NULL, "The storage comes back.");
	records_tell("the worker was reclaimed", KTVBLK_MESSAGE_RECLAIMED,
		     machine->id.instance_id);
	closed = machine_end(machine);
	promise(closed && machine->guest.releases == 1,
		"the release callback of guest memory ran %u time",
		machine->guest.releases);
	promise(hang_close(hang), "and so did that of the storage");
	after = usage_settled(before);
	show_usage("before", before);
	show_usage("stuck", &peak);
	show_usage("after", &after);
	promise(usage_is_back(before, &peak, &after),
		"descriptors, threads and memory are back");
}

void show_wedge(struct tour *tour)
{
	const struct usage before = usage_now();
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct machine machine;
	struct hang hang;

	heading("A disk that hangs, and is destroyed");
	hang_open(&hang, tour->image.fd);
	config.name = "demo";
	config.flags = tour->image.read_only ? KTVBLK_READ_ONLY : 0;
	config.backend = hang_backend(&hang, tour->image.read_only);
	config.stall_warn_ms = STALL_WARN_MS;
	config.destroy_timeout_ms = tour->options.budget_ms;
	machine_start(&machine, &config);
	/* Let it cost something: the kernel gives a page when it is used. */
	memset(guest_at(&machine.guest, GUEST_FREE), 1, GUEST_FREE_BYTES);

	machine_hang(&machine, &hang);
	say(NULL, "The guest reads a sector, and the storage hangs.");
	show_stall(&machine);
	show_destroy(&machine, tour->options.budget_ms);
	show_record(&machine);
	show_end(&machine, &hang, &before);
}
