/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a program has compiled into it when it includes ktvblk.h, and so may
 * never change under libktvblk.so.1. A struct that begins with its size, or
 * goes with one, may grow at its end: then this test grows with it.
 */

#include <stdio.h>

#include "harness.h"
#include "ktvblk.h"

/* The layout where long and pointers have 64 bits. */
#ifdef __LP64__
#define LAYOUT_TESTS(...) __VA_ARGS__
#else
#define LAYOUT_TESTS(...)
#endif

#define PIN_STRUCT(type, size, align)                                          \
	do {                                                                   \
		ck_assert_uint_eq(sizeof(struct type), size);                  \
		ck_assert_uint_eq(_Alignof(struct type), align);               \
	} while (0)

#define PIN(type, member, offset, size)                                        \
	do {                                                                   \
		ck_assert_uint_eq(offsetof(struct type, member), offset);      \
		ck_assert_uint_eq(sizeof(((struct type *)NULL)->member),       \
				  size);                                       \
	} while (0)

#ifdef __LP64__

START_TEST(layout_of_a_region)
{
	PIN_STRUCT(ktvblk_region, 32, 8);
	PIN(ktvblk_region, guest_addr, 0, 8);
	PIN(ktvblk_region, host_addr, 8, 8);
	PIN(ktvblk_region, size, 16, 8);
	PIN(ktvblk_region, reserved, 24, 8);
	PIN(ktvblk_region, flags, 24, 8);
}
END_TEST

START_TEST(layout_of_the_backend_ops)
{
	PIN_STRUCT(ktvblk_backend_ops, 80, 8);
	PIN(ktvblk_backend_ops, size, 0, 8);
	PIN(ktvblk_backend_ops, preadv, 8, 8);
	PIN(ktvblk_backend_ops, pwritev, 16, 8);
	PIN(ktvblk_backend_ops, flush, 24, 8);
	PIN(ktvblk_backend_ops, capacity, 32, 8);
	PIN(ktvblk_backend_ops, release, 40, 8);
	PIN(ktvblk_backend_ops, submit, 48, 8);
	PIN(ktvblk_backend_ops, discard, 56, 8);
	PIN(ktvblk_backend_ops, write_zeroes, 64, 8);
	PIN(ktvblk_backend_ops, submit_flags, 72, 4);
	PIN(ktvblk_backend_ops, discard_granularity_bytes, 76, 4);
}
END_TEST

START_TEST(layout_of_an_io)
{
	PIN_STRUCT(ktvblk_io, 48, 8);
	PIN(ktvblk_io, op, 0, 4);
	PIN(ktvblk_io, n_iov, 4, 4);
	PIN(ktvblk_io, iov, 8, 8);
	PIN(ktvblk_io, offset, 16, 8);
	PIN(ktvblk_io, length, 24, 8);
	PIN(ktvblk_io, userdata, 32, 8);
	PIN(ktvblk_io, flags, 40, 4);
}
END_TEST

START_TEST(layout_of_a_throttle)
{
	PIN_STRUCT(ktvblk_throttle, 64, 8);
	PIN(ktvblk_throttle, iops, 0, 8);
	PIN(ktvblk_throttle, bytes_per_sec, 8, 8);
	PIN(ktvblk_throttle, iops_burst, 16, 8);
	PIN(ktvblk_throttle, bytes_burst, 24, 8);
	PIN(ktvblk_throttle, reserved, 32, 32);
}
END_TEST

START_TEST(layout_of_a_config)
{
	PIN_STRUCT(ktvblk_config, 176, 8);
	PIN(ktvblk_config, size, 0, 8);
	PIN(ktvblk_config, backend, 8, 8);
	PIN(ktvblk_config, name, 16, 8);
	PIN(ktvblk_config, serial, 24, 8);
	PIN(ktvblk_config, capacity_bytes, 32, 8);
	PIN(ktvblk_config, flags, 40, 8);
	PIN(ktvblk_config, features_masked, 48, 8);
	PIN(ktvblk_config, throttle, 56, 64);
	PIN(ktvblk_config, reset_timeout_ms, 120, 4);
	PIN(ktvblk_config, destroy_timeout_ms, 124, 4);
	PIN(ktvblk_config, stall_warn_ms, 128, 4);
	PIN(ktvblk_config, poll_us, 132, 4);
	PIN(ktvblk_config, queue_size_max, 136, 2);
	PIN(ktvblk_config, reserved, 138, 6);
	PIN(ktvblk_config, engine, 144, 4);
	PIN(ktvblk_config, depth, 148, 4);
	PIN(ktvblk_config, n_queues, 152, 4);
	PIN(ktvblk_config, discard, 156, 4);
	PIN(ktvblk_config, write_cache, 160, 4);
	PIN(ktvblk_config, logical_block_bytes, 164, 4);
	PIN(ktvblk_config, physical_block_bytes, 168, 4);
	PIN(ktvblk_config, opt_io_bytes, 172, 4);
}
END_TEST

START_TEST(layout_of_an_identity)
{
	PIN_STRUCT(ktvblk_identity, 24, 8);
	PIN(ktvblk_identity, instance_id, 0, 8);
	PIN(ktvblk_identity, capacity_sectors, 8, 8);
	PIN(ktvblk_identity, stop_fd, 16, 4);
	PIN(ktvblk_identity, reserved, 20, 4);
}
END_TEST

START_TEST(layout_of_the_counters)
{
	PIN_STRUCT(ktvblk_counters, 88, 8);
	PIN(ktvblk_counters, reads_completed, 0, 8);
	PIN(ktvblk_counters, writes_completed, 8, 8);
	PIN(ktvblk_counters, flushes_completed, 16, 8);
	PIN(ktvblk_counters, bytes_read, 24, 8);
	PIN(ktvblk_counters, bytes_written, 32, 8);
	PIN(ktvblk_counters, throttled_count, 40, 8);
	PIN(ktvblk_counters, io_errors, 48, 8);
	PIN(ktvblk_counters, currently_throttled, 56, 8);
	PIN(ktvblk_counters, invalid_avail_idx_count, 64, 8);
	PIN(ktvblk_counters, discards_completed, 72, 8);
	PIN(ktvblk_counters, write_zeroes_completed, 80, 8);
}
END_TEST

START_TEST(layout_of_a_record)
{
	PIN_STRUCT(ktvblk_record, 48, 8);
	PIN(ktvblk_record, size, 0, 8);
	PIN(ktvblk_record, message_id, 8, 8);
	PIN(ktvblk_record, message, 16, 8);
	PIN(ktvblk_record, fields, 24, 8);
	PIN(ktvblk_record, n_fields, 32, 8);
	PIN(ktvblk_record, priority, 40, 4);
	PIN(ktvblk_record, reserved, 44, 4);
}
END_TEST

#endif

START_TEST(values_of_the_states)
{
	ck_assert_uint_eq(sizeof(enum ktvblk_state), 4);
	ck_assert_int_eq(KTVBLK_STATE_IDLE, 0);
	ck_assert_int_eq(KTVBLK_STATE_RUNNING, 1);
	ck_assert_int_eq(KTVBLK_STATE_PAUSED, 2);
	ck_assert_int_eq(KTVBLK_STATE_STALLED, 3);
	ck_assert_int_eq(KTVBLK_STATE_WEDGED, 4);
	ck_assert_int_eq(KTVBLK_STATE_NEEDS_RESET, 5);
	ck_assert_int_eq(KTVBLK_STATE_STOPPING, 6);
}
END_TEST

START_TEST(values_of_the_outcomes)
{
	ck_assert_uint_eq(sizeof(enum ktvblk_outcome), 4);
	ck_assert_int_eq(KTVBLK_JOINED, 0);
	ck_assert_int_eq(KTVBLK_PANICKED, 1);
	ck_assert_int_eq(KTVBLK_TIMED_OUT, 2);
	ck_assert_int_eq(KTVBLK_HELPER_SPAWN_FAILED, 3);
	ck_assert_int_eq(KTVBLK_HELPER_DISCONNECTED, 4);
}
END_TEST

START_TEST(values_of_the_constants)
{
	ck_assert_uint_eq(KTVBLK_IO_READ, 0);
	ck_assert_uint_eq(KTVBLK_IO_WRITE, 1);
	ck_assert_uint_eq(KTVBLK_IO_FLUSH, 2);
	ck_assert_uint_eq(KTVBLK_IO_DISCARD, 3);
	ck_assert_uint_eq(KTVBLK_IO_WRITE_ZEROES, 4);
	ck_assert_uint_eq(KTVBLK_IO_MAY_UNMAP, 1);
	ck_assert_uint_eq(KTVBLK_SUBMIT_DISCARD, 1);
	ck_assert_uint_eq(KTVBLK_SUBMIT_WRITE_ZEROES, 2);
	ck_assert_uint_eq(KTVBLK_DISCARD_AUTO, 0);
	ck_assert_uint_eq(KTVBLK_DISCARD_OFF, 1);
	ck_assert_uint_eq(KTVBLK_WRITE_CACHE_ON, 0);
	ck_assert_uint_eq(KTVBLK_WRITE_CACHE_OFF, 1);
	ck_assert_uint_eq(KTVBLK_MMIO_SIZE, 4096);
	ck_assert_uint_eq(KTVBLK_MMIO_QUEUE_NOTIFY, 0x50);
	ck_assert_uint_eq(KTVBLK_SECTOR_SIZE, 512);
	ck_assert_uint_eq(KTVBLK_SERIAL_MAX, 20);
	ck_assert_uint_eq(KTVBLK_NAME_MAX, 255);
	ck_assert_uint_eq(KTVBLK_QUEUE_SIZE_MAX, 1024);
	ck_assert_uint_eq(KTVBLK_READ_ONLY, 1);
	ck_assert_uint_eq(KTVBLK_ZERO_COPY, 2);
	ck_assert_uint_eq(KTVBLK_NO_POLL, 4);
}
END_TEST

START_TEST(the_version_is_one_for_people_and_for_the_preprocessor)
{
	int major = -1, minor = -1, patch = -1, end = 0;

	ck_assert_int_eq(sscanf(KTVBLK_VERSION, "%d.%d.%d%n", &major, &minor,
				&patch, &end),
			 3);
	ck_assert_int_eq(KTVBLK_VERSION[end], '\0');
	ck_assert_int_eq(major, KTVBLK_VERSION_MAJOR);
	ck_assert_int_eq(minor, KTVBLK_VERSION_MINOR);
#if KTVBLK_VERSION_MAJOR != 1 || KTVBLK_VERSION_MINOR < 1
#error "the header of another release"
#endif
}
END_TEST

TEST_PROGRAM("abi", values_of_the_states, values_of_the_outcomes,
	     values_of_the_constants,
	     the_version_is_one_for_people_and_for_the_preprocessor,
	     LAYOUT_TESTS(layout_of_a_region, layout_of_the_backend_ops,
			  layout_of_an_io, layout_of_a_throttle,
			  layout_of_a_config, layout_of_an_identity,
			  layout_of_the_counters, layout_of_a_record))
