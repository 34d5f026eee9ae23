/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The device as the VMM holds it: what it is made from, what it refuses, what
 * it says of itself. A failed call changed nothing and left its outputs alone.
 */

/* wrap: calloc eventfd pthread_create */

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_EVENTFD
WRAP_PTHREAD_CREATE

/* Storage and a config on it. */
struct made {
	struct storage *storage;
	struct ktvblk_config config;
};

static void made_open(struct made *made)
{
	made->storage = storage_new(4096);
	made->config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	made->config.backend = storage_backend(made->storage);
}

static void made_close(struct made *made)
{
	ktvblk_backend_unref(made->config.backend);
	ck_assert_uint_eq(made->storage->released, 1);
	storage_free(made->storage);
}

/* ktvblk_new() answers this, and leaves no trace. */
static void expect_refused(const struct ktvblk_config *config,
			   struct ktvblk_backend *backend, int error)
{
	struct ktvblk_dev *const untouched = (struct ktvblk_dev *)config;
	struct ktvblk_dev *dev = untouched;
	const unsigned int fds = count_fds();

	ck_assert_int_eq(ktvblk_new(config, &dev), error);
	ck_assert_ptr_eq(dev, untouched);
	ck_assert_uint_eq(count_fds(), fds);
	ck_assert(eventually(count_threads("ktvblk") == 0));
	if (backend)
		ck_assert_uint_eq(backend->refs, 1);
}

static struct ktvblk_dev *expect_made(const struct ktvblk_config *config)
{
	struct ktvblk_dev *dev = NULL;

	ck_assert_int_eq(ktvblk_new(config, &dev), 0);
	ck_assert_ptr_nonnull(dev);
	return dev;
}

static char *repeat(char c, size_t n)
{
	char *text = malloc(n + 1);

	memset(text, c, n);
	text[n] = '\0';
	return text;
}

/*
 * Making one
 */

START_TEST(what_is_no_config_is_refused)
{
	char *long_name = repeat('n', KTVBLK_NAME_MAX + 1);
	char *long_serial = repeat('s', KTVBLK_SERIAL_MAX + 1);
	struct made made;

	made_open(&made);
#define REFUSED(error, ...)                                                    \
	do {                                                                   \
		struct ktvblk_config c = made.config;                          \
                                                                               \
		__VA_ARGS__;                                                   \
		expect_refused(&c, made.config.backend, error);                \
	} while (0)
	REFUSED(-EINVAL, c.size = 0);
	REFUSED(-EINVAL, c.size = offsetof(struct ktvblk_config, engine) - 8);
	REFUSED(-EINVAL, c.backend = NULL);
	REFUSED(-EINVAL, c.flags = 8);
	REFUSED(-EINVAL, c.flags = UINT64_C(1) << 63);
	REFUSED(-EINVAL, c.features_masked = RIG_VERSION_1);
	REFUSED(-EINVAL, c.throttle.iops_burst = 1);
	REFUSED(-EINVAL, c.throttle.iops = 10; c.throttle.iops_burst = 9);
	REFUSED(-EINVAL, c.throttle.reserved[3] = 1);
	REFUSED(-EINVAL, c.queue_size_max = 3);
	REFUSED(-EINVAL, c.queue_size_max = 2048);
	REFUSED(-EINVAL, c.reset_timeout_ms = 3600001);
	REFUSED(-EINVAL, c.destroy_timeout_ms = 3600001);
	REFUSED(-EINVAL, c.poll_us = 1001);
	REFUSED(-EINVAL, c.poll_us = 1; c.flags = KTVBLK_NO_POLL);
	REFUSED(-EINVAL, c.engine = KTVBLK_ENGINE_IO_URING); /* no file */
	REFUSED(-EINVAL, c.engine = KTVBLK_ENGINE_IO_URING + 1);
	REFUSED(-EINVAL, c.depth = KTVBLK_QUEUE_SIZE_MAX + 1);
	REFUSED(-EINVAL, c.reserved[0] = 1);
	REFUSED(-EINVAL, c.reserved[2] = 1);
	REFUSED(-EINVAL, c.discard = 2);
	REFUSED(-EINVAL, c.write_cache = 2);
	REFUSED(-EINVAL, c.n_queues = KTVBLK_QUEUES_MAX + 1);
	REFUSED(-EINVAL, c.n_queues = UINT32_MAX);
	REFUSED(-EINVAL, c.n_queues = 2; c.features_masked = RIG_MQ);
	REFUSED(-EINVAL, c.name = "a\nb");
	REFUSED(-EINVAL, c.name = "\x1f");
	REFUSED(-EINVAL, c.name = "\x7f");
	REFUSED(-EINVAL, c.serial = "\t");
	REFUSED(-EINVAL, c.name = "disk\xff");
	REFUSED(-EINVAL, c.serial = "\xc2\x9b");
	REFUSED(-ENAMETOOLONG, c.name = long_name);
	REFUSED(-ENAMETOOLONG, c.serial = long_serial);
#undef REFUSED
	expect_refused(NULL, made.config.backend, -EINVAL);
	ck_assert_int_eq(ktvblk_new(&made.config, NULL), -EINVAL);
	made_close(&made);
	free(long_name);
	free(long_serial);
}
END_TEST

START_TEST(the_most_of_everything_is_taken)
{
	char *name = repeat('n', KTVBLK_NAME_MAX);
	char *serial = repeat('s', KTVBLK_SERIAL_MAX);
	struct made made;

	made_open(&made);
	made.config.name = name;
	made.config.serial = serial;
	made.config.flags = KTVBLK_READ_ONLY | KTVBLK_ZERO_COPY;
	made.config.features_masked = ~RIG_VERSION_1;
	made.config.queue_size_max = KTVBLK_QUEUE_SIZE_MAX;
	made.config.reset_timeout_ms = 3600000;
	made.config.destroy_timeout_ms = 3600000;
	made.config.stall_warn_ms = UINT32_MAX;
	made.config.poll_us = 1000;
	ck_assert_int_eq(ktvblk_destroy(expect_made(&made.config)),
			 KTVBLK_JOINED);
	/* And text of another alphabet. */
	made.config.name = "Fesť \xc3\xa9";
	made.config.serial = "";
	ck_assert_int_eq(ktvblk_destroy(expect_made(&made.config)),
			 KTVBLK_JOINED);
	made_close(&made);
	free(name);
	free(serial);
}
END_TEST

START_TEST(a_larger_config_is_taken_where_its_tail_is_zero)
{
	struct {
		struct ktvblk_config config;
		unsigned char tail[16];
	} larger = { .tail = { 0 } };
	struct made made;

	made_open(&made);
	larger.config = made.config;
	larger.config.size = sizeof(larger);
	ck_assert_int_eq(ktvblk_destroy(expect_made(&larger.config)),
			 KTVBLK_JOINED);
	larger.tail[15] = 1;
	expect_refused(&larger.config, made.config.backend, -E2BIG);
	made_close(&made);
}
END_TEST

static ssize_t read_nothing(void *userdata, const struct iovec *iov, int n_iov,
			    uint64_t offset)
{
	(void)userdata, (void)iov, (void)n_iov, (void)offset;
	return 0;
}

static int capacity_answer;
static unsigned int capacity_calls;
static pid_t capacity_tid;

static int tell_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	capacity_calls++;
	capacity_tid = gettid();
	*ret_bytes = 8192;
	return capacity_answer;
}

static struct ktvblk_backend *read_only_backend(void)
{
	const struct ktvblk_backend_ops ops = { .size = sizeof(ops),
						.preadv = read_nothing,
						.capacity = tell_capacity };
	struct ktvblk_backend *backend;

	capacity_answer = 0;
	capacity_calls = 0;
	ck_assert_int_eq(ktvblk_backend_new(&ops, NULL, &backend), 0);
	return backend;
}

START_TEST(storage_that_can_only_be_read_needs_the_flag)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;

	config.backend = read_only_backend();
	expect_refused(&config, config.backend, -EROFS);
	config.flags = KTVBLK_READ_ONLY;
	ck_assert_int_eq(ktvblk_destroy(expect_made(&config)), KTVBLK_JOINED);
	ktvblk_backend_unref(config.backend);
}
END_TEST

START_TEST(the_storage_is_asked_for_its_capacity_once_and_here)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_identity identity;
	struct ktvblk_dev *dev;

	config.backend = read_only_backend();
	config.flags = KTVBLK_READ_ONLY;
	dev = expect_made(&config);
	ck_assert_uint_eq(capacity_calls, 1);
	ck_assert_int_eq(capacity_tid, gettid());
	ck_assert_int_eq(ktvblk_get_identity(dev, &identity, sizeof(identity)),
			 0);
	ck_assert_uint_eq(identity.capacity_sectors, 16);
	ktvblk_destroy(dev);

	/* What it cannot answer is passed on. */
	capacity_answer = -EIO;
	expect_refused(&config, config.backend, -EIO);
	/* With a capacity of the VMM's it is not asked. */
	config.capacity_bytes = 4096;
	ktvblk_destroy(expect_made(&config));
	ck_assert_uint_eq(capacity_calls, 2);
	ktvblk_backend_unref(config.backend);
}
END_TEST

START_TEST(a_capacity_below_a_sector_is_recorded_and_none_is_not)
{
	static const uint64_t sizes[] = { 511, 1, 512, 0 };
	struct recorder rec;
	struct made made;

	wedge_record(&rec);
	made_open(&made);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const struct kept_record *record;
		struct ktvblk_dev *dev;

		recorder_clear(&rec);
		made.storage->capacity = sizes[i];
		dev = expect_made(&made.config);
		record = recorder_find(&rec,
				       KTVBLK_MESSAGE_CAPACITY_BELOW_SECTOR);
		ck_assert((record != NULL) == (sizes[i] % 512 != 0));
		if (record) {
			expect_number(record, "KTVBLK_CAPACITY_BYTES",
				      (int64_t)sizes[i]);
			expect_number(record, "KTVBLK_SECTOR_SIZE", 512);
			expect_number(record, "CAPACITY_SECTORS", 0);
			ck_assert_int_eq(record->priority, LOG_WARNING);
		}
		ktvblk_destroy(dev);
	}
	made_close(&made);
	recorder_stop(&rec);
}
END_TEST

START_TEST(the_config_and_its_strings_are_copied)
{
	char name[] = "vdx", serial[] = "12345678901234567890";
	struct recorder rec;
	struct rig rig;
	const struct rig_options options = {
		.config = { .name = name, .serial = serial },
	};

	wedge_record(&rec);
	rig_open(&rig, &options);
	memset(name, 'Z', 3);
	memset(serial, 'Z', 20);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 20), 0);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), "12345678901234567890", 20);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, rig.dev->holdings->mem),
			 -EBUSY);
	expect_text(recorder_wait(&rec, KTVBLK_MESSAGE_MEMORY_ALREADY_SET),
		    "KTVBLK_DISK", "vdx");
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(the_serial_changed_is_the_librarys_name_padded_with_zeros)
{
	static const char expected[20] = "libktvblk";
	struct rig rig;

	rig_open(&rig, NULL);
	rig_start(&rig);
	memset(rig_at(&rig, RIG_DATA), 0xff, 21);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 20), 0);
	ck_assert_mem_eq(rig_at(&rig, RIG_DATA), expected, 20);
	ck_assert_uint_eq(((unsigned char *)rig_at(&rig, RIG_DATA))[20], 0xff);
	rig_close(&rig);
}
END_TEST

START_TEST(what_cannot_be_had_is_said_and_nothing_is_left)
{
	struct ktvblk_dev *dev = NULL;
	struct made made;
	unsigned int skip;

	made_open(&made);
	for (unsigned int i = 0; i < 3; i++) {
		fault_set(&eventfd_fault,
			  &(struct fault_when){ .error = ENFILE + (int)i % 2,
						.skip = i });
		expect_refused(&made.config, made.config.backend,
			       -eventfd_fault.when.error);
		ck_assert(fault_over(&eventfd_fault));
	}
	fault_set(&pthread_create_fault,
		  &(struct fault_when){ .error = EAGAIN });
	expect_refused(&made.config, made.config.backend, -EAGAIN);
	/* Each allocation, until there is none left to fail. */
	for (skip = 0;; skip++) {
		fault_set(&calloc_fault, &(struct fault_when){ .error = ENOMEM,
							       .skip = skip,
							       .here = true });
		if (ktvblk_new(&made.config, &dev) == 0)
			break;
		fault_set(&calloc_fault, &(struct fault_when){ .error = ENOMEM,
							       .skip = skip,
							       .here = true });
		expect_refused(&made.config, made.config.backend, -ENOMEM);
	}
	fault_clear(&calloc_fault);
	ck_assert_uint_ge(skip,
			  5); /* device, identity, stats, ports, session */
	ktvblk_destroy(dev);
	made_close(&made);
}
END_TEST

/*
 * Guest memory and placement
 */

/* 12.1.32, 12.3.23 */
START_TEST(set_mem_twice_keeps_first_instance_and_emits_warn)
{
	struct ktvblk_mem *other;
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, NULL);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	ck_assert_int_eq(ktvblk_mem_new(rig.regions, 1, NULL, NULL, &other), 0);
	for (int i = 1; i <= 2; i++) {
		struct ktvblk_mem *const first = rig.dev->holdings->mem;
		const struct kept_record *record;

		ck_assert_int_eq(ktvblk_set_memory(rig.dev, other), -EBUSY);
		ck_assert_ptr_eq(rig.dev->holdings->mem, first);
		ck_assert_uint_eq(other->refs, 1);
		record = recorder_wait_n(&rec,
					 KTVBLK_MESSAGE_MEMORY_ALREADY_SET, i);
		ck_assert_int_eq(record->priority, LOG_WARNING);
		ck_assert_ptr_nonnull(strstr(record->message, "unchanged"));
		rig_reset(&rig); /* the binding survives it */
	}
	ktvblk_mem_unref(other);
	rig_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	const uint32_t cpu = 0;
	struct ktvblk_identity identity;
	struct rig rig;

	rig_open(&rig, &(struct rig_options){ .no_memory = true });
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, NULL), -EINVAL);
	ck_assert_ptr_null(rig.dev->holdings->mem);
	ck_assert_int_eq(ktvblk_set_worker_cpus(NULL, &cpu, 1), -EINVAL);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, NULL, 1), -EINVAL);
	ck_assert_int_eq(ktvblk_set_worker_cpus(rig.dev, &cpu, 0), 0);
	ck_assert(!rig.dev->has_cpus);
	ck_assert_int_eq(ktvblk_kick_fd(NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_irq_fd(NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_get_state(NULL), -EINVAL);
	ck_assert_int_eq(ktvblk_request_stop(NULL), -EINVAL);

	memset(&identity, 0x55, sizeof(identity));
	ck_assert_int_eq(ktvblk_get_identity(NULL, &identity, 24), -EINVAL);
	ck_assert_int_eq(ktvblk_get_identity(rig.dev, NULL, 24), -EINVAL);
	ck_assert_int_eq(ktvblk_get_identity(rig.dev, &identity, 23), -EINVAL);
	ck_assert_int_eq(ktvblk_get_identity(rig.dev, &identity, 0), -EINVAL);
	ck_assert_uint_eq(identity.instance_id, 0x5555555555555555);
	ck_assert_int_eq(ktvblk_destroy(rig.dev), KTVBLK_JOINED);
	rig_free(&rig);
}
END_TEST

/* One of these is called from a cleanup attribute, on whatever is there. */
START_TEST(null_is_taken_where_the_header_says_so)
{
	struct ktvblk_mem *mem = NULL;
	struct ktvblk_backend *backend = NULL;
	struct ktvblk_stats *stats = NULL;
	struct ktvblk_dev *dev = NULL;

	ck_assert_ptr_null(ktvblk_mem_ref(NULL));
	ck_assert_ptr_null(ktvblk_mem_unref(NULL));
	ck_assert_ptr_null(ktvblk_backend_ref(NULL));
	ck_assert_ptr_null(ktvblk_backend_unref(NULL));
	ck_assert_ptr_null(ktvblk_stats_ref(NULL));
	ck_assert_ptr_null(ktvblk_stats_unref(NULL));
	ck_assert_ptr_null(ktvblk_get_stats(NULL));
	ck_assert_int_eq(ktvblk_destroy(NULL), KTVBLK_JOINED);
	ktvblk_mem_unrefp(&mem);
	ktvblk_backend_unrefp(&backend);
	ktvblk_stats_unrefp(&stats);
	ktvblk_destroyp(&dev);
}
END_TEST

TEST_PROGRAM("device", what_is_no_config_is_refused,
	     the_most_of_everything_is_taken,
	     a_larger_config_is_taken_where_its_tail_is_zero,
	     storage_that_can_only_be_read_needs_the_flag,
	     the_storage_is_asked_for_its_capacity_once_and_here,
	     a_capacity_below_a_sector_is_recorded_and_none_is_not,
	     the_config_and_its_strings_are_copied,
	     the_serial_changed_is_the_librarys_name_padded_with_zeros,
	     what_cannot_be_had_is_said_and_nothing_is_left,
	     set_mem_twice_keeps_first_instance_and_emits_warn,
	     bad_arguments_are_refused, null_is_taken_where_the_header_says_so)
