/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device, of any kind there is. */

#include "harness.h"
#include "soak.h"

static void ram_release(void *userdata)
{
	struct guest *guest = (struct guest *)userdata;

	__atomic_add_fetch(&guest->rig.ram_released, 1, __ATOMIC_SEQ_CST);
}

static struct ktvblk_throttle some_throttle(struct guest *guest)
{
	switch (soak_random(guest, 6)) {
	case 0:
		return (struct ktvblk_throttle){ .iops = 2000 };
	case 1:
		return (struct ktvblk_throttle){ .bytes_per_sec = 32u << 20 };
	case 2:
		return (struct ktvblk_throttle){ .iops = 1000,
						 .iops_burst = 1100,
						 .bytes_per_sec = 1u << 20,
						 .bytes_burst = 2u << 20 };
	default:
		return (struct ktvblk_throttle){ 0 };
	}
}

static uint64_t some_flags(struct guest *guest)
{
	uint64_t flags = guest->read_only ? KTVBLK_READ_ONLY : 0;

	if (soak_random(guest, 2))
		flags |= KTVBLK_ZERO_COPY;
	if (soak_random(guest, 2))
		flags |= KTVBLK_NO_POLL;
	return flags;
}

/* By io_uring, if this kernel lets us. */
static void make_with_engine(struct guest *guest, struct ktvblk_config *config)
{
	struct rig *rig = &guest->rig;
	int r;

	if (guest->way == WAY_FILE)
		config->engine = (uint32_t)soak_random(guest, 3);
	r = ktvblk_new(config, &rig->dev);
	if (r < 0 && config->engine == KTVBLK_ENGINE_IO_URING) {
		config->engine = KTVBLK_ENGINE_AUTO;
		r = ktvblk_new(config, &rig->dev);
	}
	must(guest, r == 0);
}

void device_make(struct guest *guest)
{
	static const uint32_t depths[] = { 1, 2, 7, 0, 0 };
	struct rig *rig = &guest->rig;
	struct ktvblk_config *config = &rig->options.config;

	*config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	guest->read_only = soak_random(guest, 12) == 0;
	guest->budget_ms = 5 + (uint32_t)soak_random(guest, 30);
	guest->way = (enum way)soak_random(guest, WAY_COUNT);
	guest->n_queues =
		soak_random(guest, 2)
			? 1
			: 1 + (unsigned int)soak_random(guest, QUEUES_MOST);
	guest->storage_released = rig->ram_released = 0;
	guest->seen_reads = guest->seen_writes = 0;
	guest->figures.devices++;
	config->name = "soak";
	config->flags = some_flags(guest);
	config->throttle = some_throttle(guest);
	config->n_queues = guest->n_queues;
	config->depth = depths[soak_random(guest, ARRAY_SIZE(depths))];
	config->reset_timeout_ms = config->destroy_timeout_ms =
		guest->budget_ms;
	config->backend = store_backend(guest);
	must(guest, ktvblk_mem_new(rig->regions, 1, ram_release, guest,
				   &rig->mem) == 0);
	make_with_engine(guest, config);
	must(guest, ktvblk_set_memory(rig->dev, rig->mem) == 0);
	config->backend = ktvblk_backend_unref(config->backend);
	rig->mem = ktvblk_mem_unref(rig->mem);
	rig->stats = ktvblk_get_stats(rig->dev);
	guest->block_bytes = rig_read(
		rig, VIRTIO_MMIO_CONFIG +
			     offsetof(struct virtio_blk_config, blk_size));
}

void device_begin(struct guest *guest)
{
	struct rig *rig = &guest->rig;
	const unsigned int most = SLOTS / guest->n_queues;
	uint64_t features = 0;

	if (soak_random(guest, 2))
		features |= RIG_EVENT_IDX;
	if (soak_random(guest, 2))
		features |= RIG_INDIRECT_DESC;
	if (guest->n_queues > 1)
		features |= RIG_MQ;
	rig->options.features = features;
	if (features & RIG_INDIRECT_DESC) {
		rig->options.queue_size =
			(uint16_t)(2u << soak_random(guest, 8));
		guest->n_slots = MIN(rig->options.queue_size, most);
	} else { /* chains of up to four */
		rig->options.queue_size =
			(uint16_t)(4u << soak_random(guest, 7));
		guest->n_slots = MIN(rig->options.queue_size / 4u, most);
	}
	rig_start(rig);
	must(guest, rig_status(rig) == S_OK);
}

unsigned int device_used(struct guest *guest)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < guest->n_queues; i++) {
		rig_select(&guest->rig, i);
		n += rig_used_idx(&guest->rig);
	}
	return n;
}

static void took(struct guest *guest, uint64_t since_ns)
{
	const uint64_t ns = now_ns() - since_ns;
	const uint64_t budget_ns = guest->budget_ms * NSEC_PER_MSEC;

	if (ns > budget_ns)
		guest->figures.over_ns =
			MAX(guest->figures.over_ns, ns - budget_ns);
}

void device_stop(struct guest *guest)
{
	const uint64_t start = now_ns();

	rig_reset(&guest->rig);
	took(guest, start);
	guest->figures.resets++;
	must(guest, rig_status(&guest->rig) == 0);
	requests_abandon(guest);
}

/* What the counters must say in the end. */
static void check_counters(struct guest *guest)
{
	struct ktvblk_counters counters;

	must(guest, ktvblk_stats_read(guest->rig.stats, &counters,
				      sizeof(counters)) == 0);
	must(guest, counters.currently_throttled == 0);
	must(guest, counters.io_errors == 0);
	must(guest, counters.reads_completed >= guest->seen_reads);
	must(guest, counters.writes_completed >= guest->seen_writes);
	guest->rig.stats = ktvblk_stats_unref(guest->rig.stats);
}

enum ktvblk_outcome device_end(struct guest *guest)
{
	const uint64_t start = now_ns();
	const enum ktvblk_outcome outcome = ktvblk_destroy(guest->rig.dev);

	took(guest, start);
	guest->rig.dev = NULL;
	must(guest, outcome == KTVBLK_JOINED || outcome == KTVBLK_TIMED_OUT);
	requests_abandon(guest);
	if (guest->hold)
		store_let_go(guest);
	must(guest, eventually(guest->storage_released == 1 &&
			       __atomic_load_n(&guest->rig.ram_released,
					       __ATOMIC_SEQ_CST) == 1));
	check_counters(guest);
	requests_settle(guest);
	return outcome;
}
