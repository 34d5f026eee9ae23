/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the server of slowfs and the tests say to each other. Futexes and no
 * locks: either side may be killed at any moment.
 */

#include <fcntl.h>
#include <sys/mman.h>

#include "slowfs.h"
#include "util.h"

#define HELD_WAIT_NS (10 * NSEC_PER_SEC)

struct slowfs *slowfs_map(const char *path)
{
	const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *map = MAP_FAILED;

	if (fd < 0)
		return NULL;
	if (ftruncate(fd, sizeof(struct slowfs)) == 0)
		map = mmap(NULL, sizeof(struct slowfs), PROT_READ | PROT_WRITE,
			   MAP_SHARED, fd, 0);
	close(fd);
	return map == MAP_FAILED ? NULL : (struct slowfs *)map;
}

/* Between processes, so not those of util.h. */
static void wait_shared(_Atomic uint32_t *word, uint32_t seen,
			uint64_t deadline_ns)
{
	struct timespec ts = ns_to_timespec(deadline_ns);

	syscall(FUTEX_NR, word, FUTEX_WAIT_BITSET, seen,
		deadline_ns ? &ts : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void wake_shared(_Atomic uint32_t *word)
{
	syscall(FUTEX_NR, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void slowfs_hold(struct slowfs *slow, uint32_t calls)
{
	atomic_store(&slow->hold, calls);
	wake_shared(&slow->hold);
}

void slowfs_let_go(struct slowfs *slow)
{
	slowfs_hold(slow, 0);
}

bool slowfs_wait_held(struct slowfs *slow, uint32_t n)
{
	const uint64_t deadline_ns = now_ns() + HELD_WAIT_NS;
	uint32_t held;

	while ((held = atomic_load(&slow->held)) < n) {
		if (now_ns() >= deadline_ns)
			return false;
		wait_shared(&slow->held, held, deadline_ns);
	}
	return true;
}

void slowfs_hang(struct slowfs *slow, enum slow_call call)
{
	uint32_t hold = atomic_load(&slow->hold);

	if (!(hold & call))
		return;
	atomic_fetch_add(&slow->held, 1);
	wake_shared(&slow->held);
	for (; hold & call; hold = atomic_load(&slow->hold))
		wait_shared(&slow->hold, hold, 0);
	atomic_fetch_sub(&slow->held, 1);
}
