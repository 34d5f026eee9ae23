/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The end of the storage and of guest memory may block, as a close on a network
 * file system does: their release never runs on the thread that destroys, and
 * where it hangs destroy comes back within its budget all the same.
 */

/* wrap: pthread_create */

#include <string.h>
#include <sys/mman.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

#define BUDGET 250

WRAP_PTHREAD_CREATE

/* A release callback: who ran it, and how often. */
struct release {
	struct latch go; /* it hangs until this is set */
	_Atomic unsigned int calls;
	_Atomic pid_t tid;
	char comm[16];
};

static void release_init(struct release *release, bool hang)
{
	memset(release, 0, sizeof(*release));
	latch_init(&release->go);
	if (!hang)
		latch_set(&release->go);
}

static void release_run(void *userdata)
{
	struct release *release = (struct release *)userdata;

	pthread_getname_np(pthread_self(), release->comm,
			   sizeof(release->comm));
	release->tid = gettid();
	latch_wait(&release->go, WAIT_MS);
	atomic_fetch_add(&release->calls, 1);
}

static ssize_t zeros(void *userdata, const struct iovec *iov, int n_iov,
		     uint64_t offset)
{
	(void)userdata, (void)n_iov, (void)offset;
	memset(iov[0].iov_base, 0, iov[0].iov_len);
	return (ssize_t)iov[0].iov_len;
}

static ssize_t swallow(void *userdata, const struct iovec *iov, int n_iov,
		       uint64_t offset)
{
	(void)userdata, (void)n_iov, (void)offset;
	return (ssize_t)iov[0].iov_len;
}

static int some_sectors(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = 1 << 20;
	return 0;
}

/* A device that holds the only references to its storage and its memory. */
struct stage {
	struct traces before;
	struct recorder rec;
	struct release storage, mem;
	void *ram;
	struct ktvblk_dev *dev;
};

static void stage_make(struct stage *stage, uint32_t budget_ms,
		       bool storage_hangs, bool mem_hangs)
{
	const struct ktvblk_backend_ops ops = { .size = sizeof(ops),
						.preadv = zeros,
						.pwritev = swallow,
						.capacity = some_sectors,
						.release = release_run };
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_region region = { .size = 4096 };
	struct ktvblk_mem *mem;

	release_init(&stage->storage, storage_hangs);
	release_init(&stage->mem, mem_hangs);
	stage->ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.host_addr = stage->ram;
	ck_assert_int_eq(
		ktvblk_mem_new(&region, 1, release_run, &stage->mem, &mem), 0);
	config.destroy_timeout_ms = budget_ms;
	ck_assert_int_eq(
		ktvblk_backend_new(&ops, &stage->storage, &config.backend), 0);
	ck_assert_int_eq(ktvblk_new(&config, &stage->dev), 0);
	ktvblk_backend_unref(config.backend);
	ck_assert_int_eq(ktvblk_set_memory(stage->dev, mem), 0);
	ktvblk_mem_unref(mem);
}

static void stage_open(struct stage *stage, uint32_t budget_ms,
		       bool storage_hangs, bool mem_hangs)
{
	stage->before = traces_now();
	wedge_record(&stage->rec);
	stage_make(stage, budget_ms, storage_hangs, mem_hangs);
}

static void write_status(struct stage *stage, uint32_t status)
{
	ktvblk_mmio_write(stage->dev, VIRTIO_MMIO_STATUS, &status, 4);
}

static void start(struct stage *stage)
{
	uint32_t value = 1;

	write_status(stage, S_ACK);
	write_status(stage, S_DRV);
	ktvblk_mmio_write(stage->dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, &value,
			  4);
	ktvblk_mmio_write(stage->dev, VIRTIO_MMIO_DRIVER_FEATURES, &value, 4);
	write_status(stage, S_FEAT);
	write_status(stage, S_OK);
}

static void expect_foreign(const struct release *release, const char *comm)
{
	ck_assert_uint_eq(release->calls, 1);
	ck_assert_int_ne(release->tid, gettid());
	ck_assert_msg(strncmp(release->comm, comm, strlen(comm)) == 0,
		      "it ran on %s", release->comm);
}

static void stage_close(struct stage *stage)
{
	latch_set(&stage->storage.go);
	latch_set(&stage->mem.go);
	ck_assert(eventually(atomic_load(&stage->storage.calls) == 1 &&
			     atomic_load(&stage->mem.calls) == 1));
	traces_expect_gone(&stage->before);
	recorder_stop(&stage->rec);
	ck_assert_uint_eq(stage->storage.calls, 1);
	ck_assert_uint_eq(stage->mem.calls, 1);
	munmap(stage->ram, 4096);
	latch_destroy(&stage->storage.go);
	latch_destroy(&stage->mem.go);
}

START_TEST(the_worker_releases_what_a_running_device_held)
{
	struct stage stage;

	stage_open(&stage, WAIT_MS, false, false);
	start(&stage);
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_JOINED);
	expect_foreign(&stage.storage, "ktvblk-");
	expect_foreign(&stage.mem, "ktvblk-");
	ck_assert_int_eq(recorder_count(&stage.rec, NULL), 0);
	stage_close(&stage);
}
END_TEST

START_TEST(a_thread_of_ours_releases_what_a_device_never_started_held)
{
	struct stage stage;

	stage_open(&stage, WAIT_MS, false, false);
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_JOINED);
	expect_foreign(&stage.storage, "ktvblk-drop");
	expect_foreign(&stage.mem, "ktvblk-drop");
	ck_assert_ptr_null(stage.rec.first);
	stage_close(&stage);

	/* Also at reset, where the worker went before. */
	stage_open(&stage, WAIT_MS, false, false);
	start(&stage);
	write_status(&stage, 0);
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_JOINED);
	expect_foreign(&stage.storage, "ktvblk-drop");
	expect_foreign(&stage.mem, "ktvblk-drop");
	ck_assert_ptr_null(stage.rec.first);
	stage_close(&stage);
}
END_TEST

START_TEST(a_destroy_that_drops_no_last_reference_makes_no_thread)
{
	struct ktvblk_backend *backend;
	struct ktvblk_mem *mem;
	struct stage stage;

	stage_open(&stage, WAIT_MS, false, false);
	backend = ktvblk_backend_ref(stage.dev->holdings->backend);
	mem = ktvblk_mem_ref(stage.dev->holdings->mem);
	pthread_create_fault.calls = 0;
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_JOINED);
	ck_assert_uint_eq(pthread_create_fault.calls, 0);
	ck_assert_uint_eq(stage.storage.calls, 0);
	ktvblk_backend_unref(backend);
	ktvblk_mem_unref(mem);
	stage_close(&stage);
}
END_TEST

/* The release hangs: of the storage, or of the memory; started or not. */
static void check_hanging(bool storage_hangs, bool started)
{
	/* For the thread to come there: the record says which it is. */
	const uint32_t budget_ms = 1000;
	const struct kept_record *record;
	struct stage stage;
	const struct release *hung = storage_hangs ? &stage.storage
						   : &stage.mem;
	uint64_t began;

	stage_open(&stage, budget_ms, storage_hangs, !storage_hangs);
	if (started) {
		start(&stage);
		/* Before it is there no record can say where it is. */
		ck_assert(eventually(count_threads("ktvblk-") == 2));
	}
	began = clock_start();
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_TIMED_OUT);
	ck_assert_uint_ge(ms_since(began), budget_ms);
	ck_assert_uint_lt(ms_since(began), bound_ms(budget_ms + 50));
	ck_assert_uint_eq(stage.mem.calls, 0);
	record = recorder_wait(&stage.rec, KTVBLK_MESSAGE_DESTROY_TIMED_OUT);
	expect_text(record, "KTVBLK_FENCED", "yes");
	ck_assert_ptr_null(kept_field(record, "KTVBLK_REQ_TYPE"));
	ck_assert(eventually(atomic_load(&hung->tid)));
	expect_number(record, "KTVBLK_STUCK_TID", hung->tid);
	latch_set(&stage.storage.go);
	latch_set(&stage.mem.go);
	recorder_wait(&stage.rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert_uint_eq(stage.storage.calls, 1);
	ck_assert_uint_eq(stage.mem.calls, 1);
	stage_close(&stage);
}

START_TEST(a_release_that_hangs_on_the_worker_is_left_behind)
{
	check_hanging(true, true);
	check_hanging(false, true);
}
END_TEST

START_TEST(a_release_that_hangs_without_a_worker_is_left_behind)
{
	check_hanging(true, false);
	check_hanging(false, false);
}
END_TEST

/* Told to stop before, they hang at once: the budget counts from there. */
START_TEST(releases_that_hang_share_one_budget)
{
	struct stage stages[4];
	struct recorder rec;
	uint64_t began;

	wedge_record(&rec);
	for (int i = 0; i < 4; i++) {
		stage_make(&stages[i], BUDGET, true, false);
		if (i % 2)
			start(&stages[i]);
	}
	began = clock_start();
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(ktvblk_request_stop(stages[i].dev), 0);
	ck_assert_uint_lt(ms_since(began), bound_ms(BUDGET));
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(ktvblk_destroy(stages[i].dev),
				 KTVBLK_TIMED_OUT);
	/* Those made only now may take 20 ms more. */
	ck_assert_uint_lt(ms_since(began), bound_ms(BUDGET + 50));
	for (int i = 0; i < 4; i++) {
		latch_set(&stages[i].storage.go);
		ck_assert(eventually(atomic_load(&stages[i].mem.calls) == 1));
	}
	ck_assert(eventually(count_threads("ktvblk") == 0));
	for (int i = 0; i < 4; i++) {
		ck_assert_uint_eq(stages[i].storage.calls, 1);
		ck_assert_int_ne(stages[i].storage.tid, gettid());
		munmap(stages[i].ram, 4096);
	}
	recorder_stop(&rec);
}
END_TEST

/* No worker is stuck and no helper is missed, so neither is said. */
static void check_no_thread(bool hangs)
{
	const uint32_t budget_ms = hangs ? BUDGET : WAIT_MS;
	const struct kept_record *record;
	struct stage stage;
	uint64_t began;

	stage_open(&stage, budget_ms, hangs, false);
	fault_set(&pthread_create_fault,
		  &(struct fault_when){ .error = EAGAIN, .here = true });
	began = clock_start();
	ck_assert_int_eq(ktvblk_destroy(stage.dev),
			 hangs ? KTVBLK_TIMED_OUT : KTVBLK_JOINED);
	ck_assert_uint_lt(ms_since(began), bound_ms(budget_ms + 50));
	ck_assert_uint_eq(stage.storage.calls, !hangs);
	if (hangs) {
		/* The one thread there is has it in its hands. */
		latch_set(&stage.storage.go);
		record = recorder_wait(&stage.rec,
				       KTVBLK_MESSAGE_DESTROY_TIMED_OUT);
		expect_text(record, "KTVBLK_FENCED", "yes");
		ck_assert_ptr_null(kept_field(record, "ERRNO"));
		recorder_wait(&stage.rec, KTVBLK_MESSAGE_RECLAIMED);
	}
	ck_assert(eventually(atomic_load(&stage.mem.calls) == 1));
	expect_foreign(&stage.storage, "ktvblk-log");
	expect_foreign(&stage.mem, "ktvblk-log");
	ck_assert_int_eq(recorder_count(&stage.rec, NULL), hangs ? 2 : 0);
	stage_close(&stage);
}

START_TEST(without_a_thread_the_log_thread_releases)
{
	check_no_thread(true);
	check_no_thread(false);
}
END_TEST

/* What the VMM itself drops last is released where it does so. */
START_TEST(the_last_reference_of_the_vmm_releases_on_its_thread)
{
	struct ktvblk_backend *backend;
	struct stage stage;

	stage_open(&stage, WAIT_MS, false, false);
	backend = ktvblk_backend_ref(stage.dev->holdings->backend);
	start(&stage);
	ck_assert_int_eq(ktvblk_destroy(stage.dev), KTVBLK_JOINED);
	ck_assert_uint_eq(stage.storage.calls, 0);
	ck_assert_uint_eq(stage.mem.calls, 1);
	ck_assert_ptr_null(ktvblk_backend_unref(backend));
	ck_assert_uint_eq(stage.storage.calls, 1);
	ck_assert_int_eq(stage.storage.tid, gettid());
	stage_close(&stage);
}
END_TEST

static struct ktvblk_stats *stats_from_release;

static void release_reads_stats(void *userdata)
{
	struct ktvblk_counters counters;

	ktvblk_stats_read(stats_from_release, &counters, sizeof(counters));
	ktvblk_set_log_level(LOG_INFO);
	ktvblk_log_flush(10);
	atomic_fetch_add((_Atomic unsigned int *)userdata, 1);
}

START_TEST(a_release_may_call_what_is_for_any_thread)
{
	_Atomic unsigned int calls = 0;
	struct ktvblk_mem *mem;
	struct rig rig;
	const struct rig_options options = {
		.config.destroy_timeout_ms = WAIT_MS, .no_memory = true
	};

	rig_open(&rig, &options);
	ck_assert_int_eq(ktvblk_mem_new(rig.regions, 1, release_reads_stats,
					&calls, &mem),
			 0);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, mem), 0);
	ktvblk_mem_unref(mem);
	stats_from_release = rig.stats;
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
	ck_assert_uint_eq(calls, 1);
	rig_free(&rig);
}
END_TEST

TEST_PROGRAM("release", the_worker_releases_what_a_running_device_held,
	     a_thread_of_ours_releases_what_a_device_never_started_held,
	     a_destroy_that_drops_no_last_reference_makes_no_thread,
	     a_release_that_hangs_on_the_worker_is_left_behind,
	     a_release_that_hangs_without_a_worker_is_left_behind,
	     releases_that_hang_share_one_budget,
	     without_a_thread_the_log_thread_releases,
	     the_last_reference_of_the_vmm_releases_on_its_thread,
	     a_release_may_call_what_is_for_any_thread)
