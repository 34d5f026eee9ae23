/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A tour of libktvblk, and code to copy from. To write a VMM, read
 *
 *   machine.c   a device, its storage and its guest memory, put together
 *   guest.c     guest memory, and when it may be unmapped
 *   hang.c      storage of one's own
 *   wedge.c     the end of a device whose storage hangs
 *   move.c      a device saved, and another that goes on with it
 *   change.c    limits, discard, size, dirty log: what changes under way
 *   sink.c      records taken by callback
 *
 * and driver.c to see what a guest does. The rest is the tour.
 */

#include <inttypes.h>
#include <stdio.h>

#include <ktvblk.h>

#include "records.h"
#include "say.h"
#include "tour.h"

static void show_end(const struct tour *tour)
{
	const struct usage now = usage_settled(&tour->before);

	heading("The end");
	promise(now.fds == tour->before.fds &&
			now.threads == tour->before.threads,
		"descriptors %u, threads %u: as many as before anything hung",
		now.fds, now.threads);
}

static int verdict(void)
{
	const unsigned int broken = promises_broken();

	if (broken)
		printf("\n%u of the promises did not hold.\n", broken);
	else
		printf("\nAll that was promised held.\n");
	return broken ? 1 : 0;
}

int main(int argc, char **argv)
{
	unsigned int threads;
	struct tour tour;

	options_parse(&tour.options, argc, argv);
	image_open(&tour.image, tour.options.disk, tour.options.seed);
	say("library", "libktvblk %s", ktvblk_version());
	say("image", "%s", tour.image.text);
	say("seed", "%" PRIu64, tour.options.seed);
	records_open(tour.options.journal);
	threads = usage_now().threads;

	show_disk(&tour);
	if (tour.options.moves)
		show_move(&tour);
	show_change(&tour);
	usage_await_threads(threads);
	tour.before = usage_now();
	show_wedge(&tour);
	show_healing(&tour);
	show_bounds(&tour);
	show_end(&tour);

	records_close();
	image_close(&tour.image);
	return verdict();
}
