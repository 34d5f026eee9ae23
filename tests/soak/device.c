/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device over storage in memory that can be made to hang. */

#include <string.h>
#include <sys/uio.h>

#include "harness.h"
#include "soak.h"

/* A system call that nothing ends but us. */
static void pass_gate(struct guest *guest)
{
	uint64_t n;

	if (!guest->hold)
		return;
	guest->held++;
	must(guest, read(guest->gate_fd, &n, sizeof(n)) == sizeof(n));
	guest->held--;
}

static ssize_t move(struct guest *guest, const struct iovec *iov, int n_iov,
		    uint64_t offset, bool in)
{
	ssize_t moved = 0;

	pass_gate(guest);
	for (int i = 0; i < n_iov; i++) {
		unsigned char *at = guest->disk + offset + moved;

		must(guest, offset + (uint64_t)moved + iov[i].iov_len <=
				    SOAK_DISK_BYTES);
		if (in)
			memcpy(iov[i].iov_base, at, iov[i].iov_len);
		else
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		moved += (ssize_t)iov[i].iov_len;
	}
	return moved;
}

static ssize_t soak_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	return move((struct guest *)userdata, iov, n_iov, offset, true);
}

static ssize_t soak_pwritev(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	return move((struct guest *)userdata, iov, n_iov, offset, false);
}

static int soak_flush(void *userdata)
{
	pass_gate((struct guest *)userdata);
	return 0;
}

static int soak_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = SOAK_DISK_BYTES;
	return 0;
}

static void soak_release(void *userdata)
{
	((struct guest *)userdata)->storage_released++;
}

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

void device_make(struct guest *guest)
{
	static const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = soak_preadv,
		.pwritev = soak_pwritev,
		.flush = soak_flush,
		.capacity = soak_capacity,
		.release = soak_release,
	};
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct rig *rig = &guest->rig;

	guest->read_only = soak_random(guest, 12) == 0;
	guest->budget_ms = 5 + (uint32_t)soak_random(guest, 30);
	guest->storage_released = rig->ram_released = 0;
	guest->seen_reads = guest->seen_writes = 0;
	guest->figures.devices++;
	config.name = "soak";
	config.flags = some_flags(guest);
	config.throttle = some_throttle(guest);
	config.reset_timeout_ms = config.destroy_timeout_ms = guest->budget_ms;
	must(guest, ktvblk_backend_new(&ops, guest, &config.backend) == 0);
	must(guest, ktvblk_mem_new(rig->regions, 1, ram_release, guest,
				   &rig->mem) == 0);
	must(guest, ktvblk_new(&config, &rig->dev) == 0);
	must(guest, ktvblk_set_memory(rig->dev, rig->mem) == 0);
	ktvblk_backend_unref(config.backend);
	rig->mem = ktvblk_mem_unref(rig->mem);
	rig->stats = ktvblk_get_stats(rig->dev);
}

void device_begin(struct guest *guest)
{
	struct rig *rig = &guest->rig;
	uint64_t features = 0;

	if (soak_random(guest, 2))
		features |= RIG_EVENT_IDX;
	if (soak_random(guest, 2))
		features |= RIG_INDIRECT_DESC;
	rig->options.features = features;
	if (features & RIG_INDIRECT_DESC) {
		rig->options.queue_size =
			(uint16_t)(2u << soak_random(guest, 8));
		guest->n_slots = MIN(rig->options.queue_size, SLOTS);
	} else { /* chains of up to four */
		rig->options.queue_size =
			(uint16_t)(4u << soak_random(guest, 7));
		guest->n_slots = MIN(rig->options.queue_size / 4u, SLOTS);
	}
	rig_start(rig);
	must(guest, rig_status(rig) == S_OK);
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
	if (outcome != KTVBLK_JOINED && guest->held)
		device_let_go(guest);
	must(guest, eventually(guest->storage_released == 1 &&
			       __atomic_load_n(&guest->rig.ram_released,
					       __ATOMIC_SEQ_CST) == 1));
	check_counters(guest);
	requests_settle(guest);
	return outcome;
}

void device_hold(struct guest *guest)
{
	guest->hold = true;
	guest->figures.wedges++;
	/* It may have to wait for its tokens. */
	must(guest, eventually(guest->held == 1));
}

void device_let_go(struct guest *guest)
{
	const uint64_t one = 1;

	guest->hold = false;
	must(guest, write(guest->gate_fd, &one, sizeof(one)) == sizeof(one));
}
