/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See guest.h. */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "event.h"
#include "guest.h"
#include "say.h"

/* On a thread of the library, when no worker has the memory any more. */
static void release(void *userdata)
{
	struct guest *guest = (struct guest *)userdata;

	munmap(guest->ram, GUEST_BYTES);
	guest->releases++;
	event_signal(guest->released);
}

void guest_open(struct guest *guest)
{
	struct ktvblk_region region = {
		.guest_addr = GUEST_BASE,
		.size = GUEST_BYTES,
	};
	int r;

	*guest = (struct guest){ .released = event_new() };
	guest->ram = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guest->ram == MAP_FAILED)
		die("no guest memory: %s", strerror(errno));
	region.host_addr = guest->ram;
	r = ktvblk_mem_new(&region, 1, release, guest, &guest->mem);
	if (r < 0)
		die("ktvblk_mem_new: %s", strerror(-r));
}

void guest_lend(struct guest *guest)
{
	guest->mem = ktvblk_mem_unref(guest->mem);
}

bool guest_close(struct guest *guest)
{
	if (!event_await(guest->released, A_WHILE_MS))
		return false;
	close(guest->released);
	return true;
}

void *guest_at(const struct guest *guest, uint64_t addr)
{
	return guest->ram + (addr - GUEST_BASE);
}
