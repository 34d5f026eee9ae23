/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A saved device from anybody: the first byte of the input says which device is to
 * take it, and whether length and crc are put right; the rest is the bytes. What
 * is refused leaves the device as it was; what is taken can be saved again, which
 * gives bytes that are taken as well and come to the same, and serves its queues.
 *
 * There are no worker threads: see workers.h.
 */

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "drain.h"
#include "fuzz.h"
#include "ktvblk.h"
#include "null-store.h"
#include "reach.h"
#include "save.h"
#include "util.h"

/* wrap: pthread_create pthread_clockjoin_np pthread_detach log_emit */

#define RAM_BYTES (64u << 10)
#define IMAGE_MAX 4096u

enum mode {
	MODE_SEAL = 1, /* put length and crc right */
	MODE_QUEUES = 2,
	MODE_READ_ONLY = 4,
	MODE_THROTTLE = 8,
};

/* Only who takes one gets there. */
static const enum event nothing[] = { EVENT_COUNT };
const struct reach reach = { .first = EVENT_QUEUE_POISONED_INDEX,
			     .last = EVENT_QUEUE_POISONED_INDEX,
			     .but = nothing,
			     .no_chains = true };

static unsigned char *ram;

static struct ktvblk_dev *make_device(uint8_t mode)
{
	const struct ktvblk_region region = { .host_addr = ram,
					      .size = RAM_BYTES };
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;
	struct ktvblk_mem *mem = NULL;

	config.n_queues = mode & MODE_QUEUES ? 3 : 1;
	if (mode & MODE_READ_ONLY)
		config.flags = KTVBLK_READ_ONLY;
	if (mode & MODE_THROTTLE)
		config.throttle.iops = config.throttle.bytes_per_sec = 3000;
	config.backend = null_store();
	if (ktvblk_new(&config, &dev) < 0 ||
	    ktvblk_mem_new(&region, 1, NULL, NULL, &mem) < 0 ||
	    ktvblk_set_memory(dev, mem) < 0)
		abort();
	ktvblk_backend_unref(config.backend);
	ktvblk_mem_unref(mem);
	return dev;
}

static void destroy(struct ktvblk_dev *dev)
{
	if (ktvblk_destroy(dev) != KTVBLK_JOINED)
		abort();
}

static size_t save(struct ktvblk_dev *dev, unsigned char *to)
{
	const int n = ktvblk_save(dev, to, IMAGE_MAX);

	if (n < 0)
		abort();
	return (size_t)n;
}

static void seal(unsigned char *bytes, size_t size)
{
	const uint32_t length = htole32((uint32_t)size);
	uint32_t crc = UINT32_MAX;

	if (size < 20)
		return;
	memcpy(bytes + 12, &length, sizeof(length));
	for (size_t i = 0; i < size - 4; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	crc = htole32(~crc);
	memcpy(bytes + size - 4, &crc, sizeof(crc));
}

/* It is one that can be saved, and restored, and is the same then. */
static void again(struct ktvblk_dev *dev, uint8_t mode)
{
	unsigned char first[IMAGE_MAX], second[IMAGE_MAX];
	struct ktvblk_dev *other = make_device(mode);
	const size_t size = save(dev, first);

	if (ktvblk_restore(other, first, size) < 0 ||
	    save(other, second) != size || memcmp(first, second, size))
		abort();
	destroy(other);
}

static void serve(struct ktvblk_dev *dev)
{
	uint64_t wait_ns;

	if (ktvblk_resume(dev) != 1)
		abort();
	for (unsigned int i = 0; i < dev->n_queues; i++) {
		struct session *session = dev->queues[i].session;

		if (!session->has_thread || !session_enter(session))
			continue;
		drain(session, &wait_ns);
		session_leave(session);
	}
}

static void ignore(const struct ktvblk_record *record, void *userdata)
{
	(void)record;
	(void)userdata;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char image[IMAGE_MAX], before[IMAGE_MAX], after[IMAGE_MAX];
	const uint8_t mode = size ? data[0] : 0;
	static struct ktvblk_dev *keep; /* so that the log thread stays */
	struct ktvblk_dev *dev;
	size_t n;

	if (size)
		size--;
	if (size > sizeof(image))
		return 0;
	if (!ram) {
		ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (ram == MAP_FAILED)
			abort();
	}
	/* Indices are ahead of most, so that there is something to serve. */
	memset(ram, 1, RAM_BYTES);
	if (!keep) {
		ktvblk_set_log_handler(ignore, NULL, NULL);
		keep = make_device(0);
	}
	if (size)
		memcpy(image, data + 1, size);
	if (mode & MODE_SEAL)
		seal(image, size);
	dev = make_device(mode);
	n = save(dev, before);
	if (ktvblk_restore(dev, image, size) == 0) {
		again(dev, mode);
		serve(dev);
	} else if (save(dev, after) != n || memcmp(before, after, n) ||
		   dev->started || ports_pause_wanted(dev->ports)) {
		abort();
	}
	destroy(dev);
	return 0;
}
