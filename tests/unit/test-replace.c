/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guest memory that is replaced under running queues, and who is told of what is
 * written: the same gates are taken for both.
 */

#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "harness.h"
#include "recorder.h"
#include "rig.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR

/* The memory of a machine that runs is copied. */
__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^move$\n";
}

/* Guest memory beside the rig's: the same addresses at another place. */
struct other {
	unsigned char *ram;
	size_t bytes;
	struct ktvblk_mem *mem;
	_Atomic unsigned int released;
};

static void count_release(void *userdata)
{
	atomic_fetch_add(&((struct other *)userdata)->released, 1);
}

static void other_new(struct other *other, uint64_t guest_addr, size_t bytes)
{
	struct ktvblk_region region = { .guest_addr = guest_addr,
					.size = bytes };

	*other = (struct other){ .bytes = bytes };
	other->ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(other->ram, MAP_FAILED);
	region.host_addr = other->ram;
	ck_assert_int_eq(ktvblk_mem_new(&region, 1, count_release, other,
					&other->mem),
			 0);
}

static void other_drop(struct other *other)
{
	other->mem = ktvblk_mem_unref(other->mem);
	ck_assert(eventually(atomic_load(&other->released) == 1));
	munmap(other->ram, other->bytes);
}

static void replace(struct rig *rig, struct other *other)
{
	ck_assert_int_eq(ktvblk_replace_memory(rig->dev, other->mem, WAIT_MS),
			 0);
}

/* The machine goes over: from now on the rig's hands are in the other memory. */
__attribute__((noinline)) static void move(struct rig *rig, struct other *other)
{
	memcpy(other->ram, rig->ram, (size_t)rig->regions[0].size);
	rig->regions[0].host_addr = other->ram;
}

static bool rig_ram_is_released(struct rig *rig)
{
	return __atomic_load_n(&rig->ram_released, __ATOMIC_SEQ_CST) == 1;
}

/* Nobody looks there any more, or it is a signal. */
static void forbid(struct rig *rig)
{
	ck_assert_int_eq(mprotect(rig->ram, RIG_RAM_BYTES, PROT_NONE), 0);
}

static void end(struct rig *rig, struct other *other)
{
	rig->dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(ktvblk_destroy(rig->dev), KTVBLK_JOINED);
	rig_free(rig);
	other_drop(other);
}

START_TEST(bad_calls_change_nothing)
{
	struct other other;
	struct rig rig;

	rig_open(&rig, NULL);
	other_new(&other, 0, RIG_RAM_BYTES);
	rig_start(&rig);
	ck_assert_int_eq(ktvblk_replace_memory(NULL, other.mem, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, NULL, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_set_dirty_log(NULL, NULL, NULL, 0), -EINVAL);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, other.mem, 0), -EBUSY);
	end(&rig, &other);
}
END_TEST

START_TEST(a_running_device_goes_over_and_lets_the_old_memory_go)
{
	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		struct other other;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){ .config.flags = flags });
		other_new(&other, 0, RIG_RAM_BYTES);
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
		move(&rig, &other);
		replace(&rig, &other);
		ck_assert(eventually(rig_ram_is_released(&rig)));
		forbid(&rig);
		ck_assert_int_eq(rig_request(&rig, T_IN, 1, 512), OK);
		ck_assert_uint_eq(other.ram[RIG_DATA], storage_pattern(512));
		/* It is kept over a reset; to the same is no error. */
		rig_reset(&rig);
		replace(&rig, &other);
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, T_OUT, 1, 512), OK);
		ck_assert_uint_eq(atomic_load(&other.released), 0);
		end(&rig, &other);
	}
}
END_TEST

START_TEST(memory_is_bound_where_none_was_or_no_worker_runs)
{
	struct other other;
	struct rig rig;

	/* None, and a driver that waits for its disk. */
	rig_open(&rig, &(struct rig_options){ .no_memory = true });
	other_new(&other, 0, RIG_RAM_BYTES);
	rig.regions[0].host_addr = other.ram;
	rig_start(&rig);
	rig_chain(&rig, 0, T_IN, 0, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	replace(&rig, &other);
	rig_wait_used(&rig, 1);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, other.mem), -EBUSY);
	end(&rig, &other);

	/* At reset. */
	rig_open(&rig, NULL);
	other_new(&other, 0, RIG_RAM_BYTES);
	replace(&rig, &other);
	ck_assert(eventually(rig_ram_is_released(&rig)));
	rig.regions[0].host_addr = other.ram;
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	end(&rig, &other);
}
END_TEST

START_TEST(a_pause_of_the_vmm_stays)
{
	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		struct other other;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){ .config.flags = flags });
		other_new(&other, 0, RIG_RAM_BYTES);
		rig_start(&rig);
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		move(&rig, &other);
		replace(&rig, &other);
		ck_assert_int_eq(ktvblk_is_paused(rig.dev), 1);
		rig_chain(&rig, 0, T_IN, 0, 512);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		ck_assert_uint_eq(rig_used_idx(&rig), 0);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		rig_wait_used(&rig, 1);
		/* And there is none where there was none. */
		replace(&rig, &other);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 0);
		end(&rig, &other);
	}
}
END_TEST

/* A fenced worker has no address of guest memory while it is in storage. */
START_TEST(a_request_in_storage_ends_in_the_new_memory)
{
	for (unsigned int queues = 1; queues <= 2; queues++) {
		struct other other;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){
				       .features = queues > 1 ? RIG_MQ : 0,
				       .config.n_queues = queues });
		other_new(&other, 0, RIG_RAM_BYTES);
		rig_start(&rig);
		storage_hold(rig.storage);
		for (unsigned int i = 0; i < queues; i++) {
			rig_select(&rig, i);
			rig_chain(&rig, 0, T_IN, 3, 512);
			rig_avail(&rig, 0);
			rig_kick(&rig);
		}
		storage_wait_held(rig.storage, queues);
		move(&rig, &other);
		replace(&rig, &other);
		ck_assert(eventually(rig_ram_is_released(&rig)));
		forbid(&rig);
		storage_let_go(rig.storage);
		for (unsigned int i = 0; i < queues; i++) {
			const uint64_t at = RIG_DATA + i * RIG_QUEUE_BYTES;

			rig_select(&rig, i);
			rig_wait_used(&rig, 1);
			ck_assert_uint_eq(*rig_chain_status(&rig, 0), OK);
			ck_assert_uint_eq(other.ram[at],
					  storage_pattern(3 * 512));
		}
		end(&rig, &other);
	}
}
END_TEST

START_TEST(a_request_whose_memory_is_gone_is_an_error)
{
	static const struct ktvblk_region regions[] = {
		{ .guest_addr = 0, .size = 0x100000 },
		{ .guest_addr = 0x200000, .size = 0x100000 },
	};
	const struct rig_part data = { 0x200000, 512, WRITABLE };
	struct other other;
	struct rig rig;

	rig_open(&rig,
		 &(struct rig_options){ .regions = regions, .n_regions = 2 });
	other_new(&other, 0, 0x100000);
	rig_start(&rig);
	storage_hold(rig.storage);
	rig_data(&rig, 0, T_IN, 0, &data, 1);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	move(&rig, &other);
	replace(&rig, &other);
	forbid(&rig);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(*rig_chain_status(&rig, 0), IOERR);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	end(&rig, &other);
}
END_TEST

START_TEST(zero_copy_waits_for_what_is_in_flight_and_changes_nothing_in_vain)
{
	uint64_t start_ns;
	struct other other;
	struct rig rig;

	rig_open(&rig,
		 &(struct rig_options){ .config.flags = KTVBLK_ZERO_COPY });
	other_new(&other, 0, RIG_RAM_BYTES);
	rig_start(&rig);
	storage_hold(rig.storage);
	rig_chain(&rig, 0, T_IN, 3, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	storage_wait_held(rig.storage, 1);
	start_ns = clock_start();
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, other.mem, 20),
			 -ETIMEDOUT);
	ck_assert_uint_ge(ms_since(start_ns), 20);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(1000));
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, other.mem, 0),
			 -ETIMEDOUT);
	storage_let_go(rig.storage);
	rig_wait_used(&rig, 1);
	ck_assert_uint_eq(rig.ram[RIG_DATA], storage_pattern(3 * 512));
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_uint_eq(rig.ram_released, 0);
	move(&rig, &other);
	replace(&rig, &other);
	ck_assert(eventually(rig_ram_is_released(&rig)));
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	end(&rig, &other);
}
END_TEST

START_TEST(a_ring_that_is_not_there_any_more_breaks_its_queue_alone)
{
	static const struct ktvblk_region regions[] = {
		{ .guest_addr = 0, .size = RIG_QUEUE_BYTES },
		{ .guest_addr = RIG_QUEUE_BYTES, .size = RIG_QUEUE_BYTES },
	};
	struct recorder rec;
	struct other other;
	struct rig rig;

	recorder_start(&rec);
	rig_open(&rig, &(struct rig_options){ .features = RIG_MQ,
					      .config.n_queues = 2,
					      .regions = regions,
					      .n_regions = 2 });
	other_new(&other, 0, RIG_QUEUE_BYTES);
	rig_start(&rig);
	rig_irqs(&rig);
	rig_select(&rig, 0);
	move(&rig, &other);
	replace(&rig, &other);
	forbid(&rig);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_QUEUE_POISONED_MEMORY),
		      "KTVBLK_QUEUE", 1);
	ck_assert_uint_eq(rig_status(&rig) & VIRTIO_CONFIG_S_NEEDS_RESET,
			  VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(rig_irqs(&rig), 1);
	/* Nobody looks at that one. */
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_int_eq(
		recorder_count(&rec, KTVBLK_MESSAGE_QUEUE_POISONED_MEMORY), 1);
	end(&rig, &other);
	recorder_stop(&rec);
}
END_TEST

/* What lies behind the entries is the ring's only with EVENT_IDX. */
static void ring_ends_memory(uint64_t features, uint32_t reg, uint32_t bytes)
{
	const uint64_t end = 0x5000, next = 0x6000; /* a hole between them */
	struct other other = { .bytes = RIG_RAM_BYTES };
	struct ktvblk_region regions[2];
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .features = features,
					      .queue_size = 16 });
	rig_prepare(&rig);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 0);
	rig_write(&rig, reg, (uint32_t)end - bytes);
	rig_write(&rig, VIRTIO_MMIO_QUEUE_READY, 1);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_OK);
	regions[0] =
		(struct ktvblk_region){ .size = end, .host_addr = rig.ram };
	regions[1] = (struct ktvblk_region){ .guest_addr = next,
					     .size = RIG_RAM_BYTES - next,
					     .host_addr = rig.ram + next };
	ck_assert_int_eq(ktvblk_mem_new(regions, 2, count_release, &other,
					&other.mem),
			 0);
	replace(&rig, &other);
	ck_assert_uint_eq(rig_status(&rig),
			  S_OK | (features ? VIRTIO_CONFIG_S_NEEDS_RESET : 0));
	rig_close(&rig);
	other.mem = ktvblk_mem_unref(other.mem);
	ck_assert(eventually(atomic_load(&other.released) == 1));
}

START_TEST(a_ring_may_end_where_memory_does)
{
	const uint64_t features[] = { 0, RIG_EVENT_IDX };

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		ring_ends_memory(features[i], VIRTIO_MMIO_QUEUE_AVAIL_LOW,
				 4 + 16 * sizeof(uint16_t));
		ring_ends_memory(features[i], VIRTIO_MMIO_QUEUE_USED_LOW,
				 4 + 16 * sizeof(struct vring_used_elem));
	}
}
END_TEST

START_TEST(memory_is_replaced_beside_a_worker_that_was_left_behind)
{
	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		struct other other;
		uint64_t start_ns;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){
				       .config = { .flags = flags,
						   .reset_timeout_ms = 20 } });
		other_new(&other, 0, RIG_RAM_BYTES);
		rig_start(&rig);
		wedge(&rig, T_IN, 0);
		rig_reset(&rig);
		ck_assert_int_eq(ktvblk_get_state(rig.dev),
				 KTVBLK_STATE_WEDGED);
		rig_start(&rig);
		start_ns = clock_start();
		move(&rig, &other);
		replace(&rig, &other);
		ck_assert_uint_lt(ms_since(start_ns), bound_ms(500));
		/* It has what it had, and no more. */
		ck_assert_uint_eq(rig.ram_released, 0);
		rig_chain(&rig, 0, T_IN, 1, 512);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		storage_let_go(rig.storage);
		rig_wait_used(&rig, 1);
		ck_assert_uint_eq(other.ram[RIG_DATA], storage_pattern(512));
		ck_assert(eventually(rig_ram_is_released(&rig)));
		end(&rig, &other);
	}
}
END_TEST

/*
 * A worker that is held up with its gate: the VMM's own function is called there
 */

static struct latch entered, leave;

static void hang(void *userdata, uint64_t addr, uint64_t len)
{
	(void)userdata;
	(void)addr;
	(void)len;
	latch_set(&entered);
	latch_wait(&leave, WAIT_MS);
}

static _Atomic unsigned int told;

static void count_told(void *userdata, uint64_t addr, uint64_t len)
{
	(void)userdata;
	(void)addr;
	(void)len;
	atomic_fetch_add(&told, 1);
}

START_TEST(a_worker_in_guest_memory_is_waited_for_up_to_the_timeout)
{
	uint64_t start_ns;
	struct other other;
	struct rig rig;

	latch_init(&entered);
	latch_init(&leave);
	rig_open(&rig, &(struct rig_options){ .features = RIG_MQ,
					      .config.n_queues = 2 });
	other_new(&other, 0, RIG_RAM_BYTES);
	rig_start(&rig);
	rig_select(&rig, 1);
	ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, hang, NULL, WAIT_MS), 0);
	rig_chain(&rig, 0, T_IN, 1, 512);
	rig_avail(&rig, 0);
	rig_kick(&rig);
	ck_assert(latch_wait(&entered, WAIT_MS));
	start_ns = clock_start();
	ck_assert_int_eq(ktvblk_replace_memory(rig.dev, other.mem, 10),
			 -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, count_told, NULL, 10),
			 -ETIMEDOUT);
	ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, NULL, NULL, 0),
			 -ETIMEDOUT);
	ck_assert_uint_ge(ms_since(start_ns), 20);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(1000));
	/* The gates of the others are free again. */
	rig_select(&rig, 0);
	latch_set(&leave);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, NULL, NULL, WAIT_MS), 0);
	ck_assert_uint_eq(atomic_load(&told), 0);
	end(&rig, &other);
}
END_TEST

START_TEST(who_is_told_no_more_is_in_no_call)
{
	const unsigned int n = rounds("DIRTY_ROUNDS", 300, 30);
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	for (unsigned int i = 0; i < n; i++) {
		unsigned int then;

		ck_assert_int_eq(ktvblk_set_dirty_log(rig.dev, count_told, NULL,
						      WAIT_MS),
				 0);
		rig_chain(&rig, 0, T_IN, 1, 512);
		rig_avail(&rig, 0);
		rig_kick(&rig);
		if (i % 2)
			rig_wait_used(&rig, (uint16_t)(i + 1));
		ck_assert_int_eq(
			ktvblk_set_dirty_log(rig.dev, NULL, NULL, WAIT_MS), 0);
		then = atomic_load(&told);
		rig_wait_used(&rig, (uint16_t)(i + 1));
		ck_assert_uint_eq(atomic_load(&told), then);
	}
	ck_assert_uint_ge(atomic_load(&told), n / 2);
	/* It is kept over a reset. */
	ck_assert_int_eq(
		ktvblk_set_dirty_log(rig.dev, count_told, NULL, WAIT_MS), 0);
	rig_reset(&rig);
	rig_start(&rig);
	atomic_store(&told, 0);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_uint_ge(atomic_load(&told), 3);
	rig_close(&rig);
}
END_TEST

static struct rig *own_rig;
static int own_answers[2];

static void call_own(struct storage *storage, enum storage_op op)
{
	(void)storage;
	(void)op;
	own_answers[0] = ktvblk_replace_memory(
		own_rig->dev, own_rig->storage->hook_data, WAIT_MS);
	own_answers[1] =
		ktvblk_set_dirty_log(own_rig->dev, NULL, NULL, WAIT_MS);
}

START_TEST(a_worker_of_the_device_is_refused)
{
	struct other other;
	struct rig rig;

	rig_open(&rig, NULL);
	other_new(&other, 0, RIG_RAM_BYTES);
	own_rig = &rig;
	rig.storage->hook = call_own;
	rig.storage->hook_data = other.mem;
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	ck_assert_int_eq(own_answers[0], -EDEADLK);
	ck_assert_int_eq(own_answers[1], -EDEADLK);
	rig.storage->hook = NULL;
	end(&rig, &other);
}
END_TEST

/*
 * A release that hangs
 */

static void release_hanging(void *userdata)
{
	latch_set(&entered);
	latch_wait(&leave, WAIT_MS);
	count_release(userdata);
}

START_TEST(a_release_that_hangs_holds_up_nobody)
{
	struct ktvblk_region region = { .size = RIG_RAM_BYTES };
	struct other old, other;
	struct recorder rec;
	struct traces traces;
	uint64_t start_ns;
	struct rig rig;

	latch_init(&entered);
	latch_init(&leave);
	traces = traces_now();
	recorder_start(&rec);
	rig_open(&rig,
		 &(struct rig_options){ .no_memory = true,
					.config.destroy_timeout_ms = 1000 });
	other_new(&old, 0, RIG_RAM_BYTES);
	region.host_addr = old.ram;
	old.mem = ktvblk_mem_unref(old.mem);
	ck_assert_int_eq(
		ktvblk_mem_new(&region, 1, release_hanging, &old, &old.mem), 0);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, old.mem), 0);
	old.mem = ktvblk_mem_unref(old.mem);
	other_new(&other, 0, RIG_RAM_BYTES);
	rig.regions[0].host_addr = other.ram;
	rig_start(&rig);
	replace(&rig, &other);
	ck_assert(latch_wait(&entered, WAIT_MS));
	start_ns = clock_start();
	ck_assert_int_eq(rig_request(&rig, T_IN, 0, 512), OK);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_get_state(rig.dev), KTVBLK_STATE_IDLE);
	/* Something is left, which is said. */
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_lt(ms_since(start_ns), bound_ms(3000));
	recorder_wait(&rec, KTVBLK_MESSAGE_DESTROY_STILL_WEDGED);
	latch_set(&leave);
	ck_assert(eventually(atomic_load(&old.released) == 2));
	munmap(old.ram, old.bytes);
	rig_free(&rig);
	other_drop(&other);
	traces_expect_gone(&traces);
	recorder_stop(&rec);
}
END_TEST

/* On another thread nobody knows of. */
static void *serve_on_and_on(void *arg)
{
	struct rig *rig = (struct rig *)arg;

	for (unsigned int i = 0; i < rounds("REPLACE_ROUNDS", 500, 50); i++)
		ck_assert_int_eq(
			rig_request(rig, i % 2 ? T_IN : T_OUT, 0, 16384), OK);
	return NULL;
}

/* Two objects with the same memory: the requests go on meanwhile. */
START_TEST(memory_is_replaced_under_requests_any_number_of_times)
{
	for (uint64_t flags = 0; flags <= KTVBLK_ZERO_COPY;
	     flags += KTVBLK_ZERO_COPY) {
		struct ktvblk_region region = { .size = RIG_RAM_BYTES };
		const unsigned int n = rounds("REPLACE_ROUNDS", 500, 50);
		struct other other = { 0 };
		unsigned int done = 0;
		pthread_t thread;
		struct rig rig;

		rig_open(&rig, &(struct rig_options){ .config.flags = flags });
		region.host_addr = rig.ram;
		rig_start(&rig);
		ck_assert_int_eq(pthread_create(&thread, NULL, serve_on_and_on,
						&rig),
				 0);
		for (; done < n; done++) {
			ck_assert_int_eq(ktvblk_mem_new(&region, 1,
							count_release, &other,
							&other.mem),
					 0);
			replace(&rig, &other);
			ktvblk_mem_unref(other.mem);
		}
		pthread_join(thread, NULL);
		/* All but the last. */
		ck_assert(eventually(atomic_load(&other.released) == n - 1));
		rig.dev->destroy_timeout_ms = WAIT_MS;
		ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
		ck_assert_uint_eq(atomic_load(&other.released), n);
		rig_free(&rig);
	}
}
END_TEST

TEST_PROGRAM("replace", bad_calls_change_nothing,
	     a_running_device_goes_over_and_lets_the_old_memory_go,
	     memory_is_bound_where_none_was_or_no_worker_runs,
	     a_pause_of_the_vmm_stays,
	     a_request_in_storage_ends_in_the_new_memory,
	     a_request_whose_memory_is_gone_is_an_error,
	     zero_copy_waits_for_what_is_in_flight_and_changes_nothing_in_vain,
	     a_ring_that_is_not_there_any_more_breaks_its_queue_alone,
	     a_ring_may_end_where_memory_does,
	     memory_is_replaced_beside_a_worker_that_was_left_behind,
	     a_worker_in_guest_memory_is_waited_for_up_to_the_timeout,
	     who_is_told_no_more_is_in_no_call,
	     a_worker_of_the_device_is_refused,
	     a_release_that_hangs_holds_up_nobody,
	     memory_is_replaced_under_requests_any_number_of_times)
