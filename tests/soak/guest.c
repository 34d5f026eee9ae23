/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a guest and its VMM do, at random. */

#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "soak.h"

uint64_t soak_random(struct guest *guest, uint64_t n)
{
	/* xorshift64* */
	guest->random ^= guest->random >> 12;
	guest->random ^= guest->random << 25;
	guest->random ^= guest->random >> 27;
	return guest->random * UINT64_C(2685821657736338717) % n;
}

static void nap(struct guest *guest, uint64_t most_us)
{
	const struct timespec ts =
		ns_to_timespec(soak_random(guest, most_us) * 1000);

	nanosleep(&ts, NULL);
}

static void restart(struct guest *guest)
{
	device_stop(guest);
	requests_settle(guest);
	device_begin(guest);
}

static void make_anew(struct guest *guest)
{
	device_end(guest);
	device_make(guest);
	device_begin(guest);
}

/* A parked worker touches nothing; a pause outlives a reset. */
static void pause_device(struct guest *guest)
{
	struct rig *rig = &guest->rig;
	unsigned int used;

	guest->figures.pauses++;
	if (ktvblk_pause(rig->dev, 1000) < 0) {
		guest->figures.slow_pauses++;
		return;
	}
	used = device_used(guest);
	must(guest, ktvblk_is_paused(rig->dev) == 1);
	nap(guest, 1000);
	must(guest, device_used(guest) == used);
	if (soak_random(guest, 4) == 0) {
		restart(guest);
		requests_submit(guest, 2);
		nap(guest, 500);
		must(guest, device_used(guest) == 0);
	}
	must(guest, ktvblk_resume(rig->dev) == 1);
}

static void await_unwedged(struct guest *guest)
{
	must(guest, eventually(ktvblk_get_state(guest->rig.dev) !=
			       KTVBLK_STATE_WEDGED));
	requests_settle(guest);
}

/* Some need no storage, and some may have to wait for their tokens. */
static bool is_hung(struct guest *guest)
{
	if (store_held(guest))
		return true;
	requests_reap(guest, false);
	requests_submit(guest, 1);
	return false;
}

/* Requests are on their way into storage that hangs. */
static void hang(struct guest *guest)
{
	must(guest, requests_submit(guest, 4));
	guest->figures.wedges++;
	must(guest, eventually(is_hung(guest)));
}

static void wedge(struct guest *guest)
{
	struct rig *rig = &guest->rig;

	requests_finish(guest);
	await_unwedged(guest);
	if (!store_hold(guest))
		return;
	hang(guest);
	if (soak_random(guest, 3) == 0) {
		must(guest, device_end(guest) == KTVBLK_TIMED_OUT);
		device_make(guest);
		device_begin(guest);
		return;
	}
	device_stop(guest);
	must(guest, ktvblk_get_state(rig->dev) == KTVBLK_STATE_WEDGED);
	/* What is submitted now waits for the one left behind. */
	device_begin(guest);
	requests_submit(guest, 4);
	nap(guest, 5000);
	must(guest, device_used(guest) == 0);
	if (soak_random(guest, 3) == 0) {
		device_stop(guest);
		device_begin(guest);
	}
	store_let_go(guest);
	await_unwedged(guest);
}

static void work(struct guest *guest)
{
	if (!requests_submit(guest,
			     1 + (unsigned int)soak_random(guest, SLOTS / 2)))
		requests_reap(guest, true);
	else
		requests_reap(guest, soak_random(guest, 4) == 0);
}

void *guest_main(void *arg)
{
	struct guest *guest = (struct guest *)arg;

	device_make(guest);
	device_begin(guest);
	while (now_ns() < guest->end_ns) {
		const uint64_t what = soak_random(guest, 2000);

		if (what < 20)
			restart(guest);
		else if (what < 30)
			pause_device(guest);
		else if (what < 34)
			wedge(guest);
		else if (what < 40)
			make_anew(guest);
		else
			work(guest);
		/* A worker that was too slow for its budget has gone by now. */
		requests_settle(guest);
	}
	requests_finish(guest);
	device_end(guest);
	must(guest, memcmp(guest->disk, guest->model, SOAK_DISK_BYTES) == 0);
	return NULL;
}

static unsigned char *map(struct guest *guest, size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(guest, pages != MAP_FAILED);
	return (unsigned char *)pages;
}

void guest_open(struct guest *guest, unsigned int index, uint64_t seed,
		uint64_t end_ns)
{
	struct rig *rig = &guest->rig;

	*guest = (struct guest){ .index = index, .end_ns = end_ns };
	guest->random = (seed + index) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	store_open(guest);
	guest->model = map(guest, SOAK_DISK_BYTES);
	for (unsigned int i = 0; i < SLOTS; i++)
		guest->slots[i].written = map(guest, SLOT_BYTES);
	rig->ram = map(guest, RIG_RAM_BYTES);
	rig->regions[0] = (struct ktvblk_region){ .host_addr = rig->ram,
						  .size = RIG_RAM_BYTES };
	rig->n_regions = 1;
}

void guest_close(struct guest *guest)
{
	store_close(guest);
	munmap(guest->rig.ram, RIG_RAM_BYTES);
	for (unsigned int i = 0; i < SLOTS; i++)
		munmap(guest->slots[i].written, SLOT_BYTES);
	munmap(guest->model, SOAK_DISK_BYTES);
}
