/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a device says of itself: who it is, what it does, what it has done; the
 * words are the same in every release.
 */

#include <fcntl.h>
#include <string.h>

#include "device.h"
#include "wedge.h"

START_TEST(an_identity_counts_devices_and_fits_any_struct)
{
	struct {
		struct ktvblk_identity identity;
		unsigned char tail[8];
	} larger;
	struct ktvblk_identity a, b;
	struct rig one, two;

	rig_open(&one, NULL);
	rig_open(&two, NULL);
	a = rig_identity(&one);
	b = rig_identity(&two);
	ck_assert_uint_eq(b.instance_id, a.instance_id + 1);
	ck_assert_int_ne(a.stop_fd, b.stop_fd);
	ck_assert_int_ge(fcntl(a.stop_fd, F_GETFD), 0);
	ck_assert_uint_eq(a.capacity_sectors, RIG_DISK_BYTES / 512);
	ck_assert_uint_eq(a.reserved, 0);
	memset(&larger, 0x55, sizeof(larger));
	ck_assert_int_eq(ktvblk_get_identity(one.dev, &larger.identity,
					     sizeof(larger)),
			 0);
	ck_assert_mem_eq(&larger.identity, &a, sizeof(a));
	for (size_t i = 0; i < sizeof(larger.tail); i++)
		ck_assert_uint_eq(larger.tail[i], 0);
	rig_close(&one);
	rig_close(&two);
}
END_TEST

START_TEST(the_eventfds_stay_the_same_for_life)
{
	struct rig rig;
	int kick, irq;

	rig_open(&rig, NULL);
	kick = ktvblk_kick_fd(rig.dev);
	irq = ktvblk_irq_fd(rig.dev);
	ck_assert(fcntl(kick, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(irq, F_GETFL) & O_NONBLOCK);
	for (int i = 0; i < 3; i++) {
		rig_start(&rig);
		ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
		rig_reset(&rig);
		ck_assert_int_eq(ktvblk_kick_fd(rig.dev), kick);
		ck_assert_int_eq(ktvblk_irq_fd(rig.dev), irq);
	}
	rig_close(&rig);
}
END_TEST

static void expect_state(struct rig *rig, enum ktvblk_state state,
			 const char *name)
{
	ck_assert_msg(eventually(ktvblk_get_state(rig->dev) == (int)state),
		      "the state is %s, not %s",
		      ktvblk_state_name(ktvblk_get_state(rig->dev)), name);
	ck_assert_str_eq(ktvblk_state_name((int)state), name);
}

START_TEST(each_state_is_told)
{
	const struct rig_options options = {
		.config = { .reset_timeout_ms = 20,
			    .destroy_timeout_ms = 20,
			    .stall_warn_ms = 10 },
	};
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	expect_state(&rig, KTVBLK_STATE_IDLE, "idle");
	rig_start(&rig);
	expect_state(&rig, KTVBLK_STATE_RUNNING, "running");
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	expect_state(&rig, KTVBLK_STATE_PAUSED, "paused");
	ktvblk_resume(rig.dev);
	expect_state(&rig, KTVBLK_STATE_RUNNING, "running");
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	expect_state(&rig, KTVBLK_STATE_STALLED, "stalled");
	storage_let_go(rig.storage);
	expect_state(&rig, KTVBLK_STATE_RUNNING, "running");
	rig_wait_used(&rig, 1);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	rig_reset(&rig);
	expect_state(&rig, KTVBLK_STATE_WEDGED, "wedged");
	storage_let_go(rig.storage);
	expect_state(&rig, KTVBLK_STATE_IDLE, "idle");
	rig_start(&rig);
	rig_set_avail_idx(&rig, 1000);
	rig_kick(&rig);
	expect_state(&rig, KTVBLK_STATE_NEEDS_RESET, "needs reset");
	rig_reset(&rig);
	expect_state(&rig, KTVBLK_STATE_IDLE, "idle");
	ktvblk_request_stop(rig.dev);
	expect_state(&rig, KTVBLK_STATE_STOPPING, "stopping");
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

/* As journald may, on the same storage: the log thread finds nothing then. */
START_TEST(a_stall_is_a_state_also_where_the_log_hangs)
{
	const struct rig_options options = { .config = { .stall_warn_ms =
								 10 } };
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	rig_open(&rig, &options);
	rig_start(&rig);
	recorder_hold(&rec);
	ck_assert_int_eq(ktvblk_set_memory(rig.dev, rig.dev->holdings->mem),
			 -EBUSY);
	recorder_wait_held(&rec);
	wedge(&rig, VIRTIO_BLK_T_IN, 0);
	expect_state(&rig, KTVBLK_STATE_STALLED, "stalled");
	storage_let_go(rig.storage);
	expect_state(&rig, KTVBLK_STATE_RUNNING, "running");
	recorder_go_on(&rec);
	/* Nobody was told of the stall, so nobody is of its end. */
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_STALLED),
			 0);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_REQUEST_RESUMED),
			 0);
	wedge_close(&rig);
	recorder_stop(&rec);
}
END_TEST

START_TEST(states_and_outcomes_have_names)
{
	static const char *const outcomes[] = { "joined", "panicked",
						"timed out",
						"helper spawn failed",
						"helper disconnected" };

	for (int i = 0; i < 5; i++)
		ck_assert_str_eq(ktvblk_outcome_name((enum ktvblk_outcome)i),
				 outcomes[i]);
	ck_assert_str_eq(ktvblk_outcome_name((enum ktvblk_outcome)5),
			 "unknown");
	ck_assert_str_eq(ktvblk_outcome_name((enum ktvblk_outcome) - 1),
			 "unknown");
	ck_assert_str_eq(ktvblk_state_name(7), "unknown");
	ck_assert_str_eq(ktvblk_state_name(-1), "unknown");
	ck_assert_str_eq(ktvblk_state_name(INT_MAX), "unknown");
	ck_assert_str_eq(ktvblk_version(), KTVBLK_VERSION);
}
END_TEST

/* 12.1.28, 12.1.29 */
START_TEST(counters_are_zero_at_first_and_shared_and_outlive_the_device)
{
	const struct ktvblk_counters zero = { 0 };
	struct ktvblk_counters counters;
	struct ktvblk_stats *stats;
	struct rig rig;

	rig_open(&rig, NULL);
	counters = rig_counters(&rig);
	ck_assert_mem_eq(&counters, &zero, sizeof(zero));
	stats = ktvblk_get_stats(rig.dev);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 1024), 0);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 0, 512), 0);
	rig_close(&rig);
	ck_assert_int_eq(ktvblk_stats_read(stats, &counters, sizeof(counters)),
			 0);
	ck_assert_uint_eq(counters.reads_completed, 1);
	ck_assert_uint_eq(counters.bytes_read, 1024);
	ck_assert_uint_eq(counters.writes_completed, 1);
	ck_assert_uint_eq(counters.bytes_written, 512);
	ck_assert_ptr_null(ktvblk_stats_unref(stats));
}
END_TEST

/* 12.1.30 */
START_TEST(counters_accessors_match_atomic_state)
{
	const struct ktvblk_counters expected = { 1, 2, 3, 4,  5, 6,
						  7, 8, 9, 10, 11 };
	struct ktvblk_counters counters;
	struct ktvblk_stats *stats;
	struct rig rig;

	rig_open(&rig, NULL);
	stats = rig.dev->stats;
	stats->reads_completed = 1;
	stats->writes_completed = 2;
	stats->flushes_completed = 3;
	stats->bytes_read = 4;
	stats->bytes_written = 5;
	stats->throttled_count = 6;
	stats->io_errors = 7;
	stats->currently_throttled = 8;
	stats->invalid_avail_idx_count = 9;
	stats->discards_completed = 10;
	stats->write_zeroes_completed = 11;
	counters = rig_counters(&rig);
	ck_assert_mem_eq(&counters, &expected, sizeof(counters));
	rig_close(&rig);
}
END_TEST

/* 12.1.33, 12.1.34, 12.1.35 */
START_TEST(handle_flush_ok_and_err_map_to_their_status)
{
	static const int64_t error = -EIO;
	struct rig rig;

	ck_assert_int_eq(VIRTIO_BLK_S_OK, 0);
	ck_assert_int_eq(VIRTIO_BLK_S_IOERR, 1);
	ck_assert_int_eq(VIRTIO_BLK_S_UNSUPP, 2);
	rig_open(&rig, NULL);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(rig_used(&rig, 0).len, 1);
	ck_assert_uint_eq(rig_counters(&rig).flushes_completed, 1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 0);
	/* Without it there would be nothing to flush. */
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 0, 512),
			 VIRTIO_BLK_S_OK);
	storage_script(rig.storage, &error, 1);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(rig_used(&rig, 2).len, 1);
	ck_assert_uint_eq(rig_counters(&rig).flushes_completed, 1);
	ck_assert_uint_eq(rig_counters(&rig).io_errors, 1);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("state", an_identity_counts_devices_and_fits_any_struct,
	     the_eventfds_stay_the_same_for_life, each_state_is_told,
	     states_and_outcomes_have_names,
	     a_stall_is_a_state_also_where_the_log_hangs,
	     counters_are_zero_at_first_and_shared_and_outlive_the_device,
	     counters_accessors_match_atomic_state,
	     handle_flush_ok_and_err_map_to_their_status)
