/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device over vhost-user: what a front end that means well gets. */

#include <string.h>
#include <sys/socket.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

static uint64_t eventfd_take(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	return n;
}

static void read_and_write(struct rig *rig)
{
	unsigned char *data = (unsigned char *)rig_at(
		rig, RIG_DATA + rig->queue * RIG_QUEUE_BYTES);
	const uint64_t sector = 1 + rig->queue;

	memset(data, 0xa5, 512);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_OUT, sector, 512),
			 VIRTIO_BLK_S_OK);
	memset(data, 0, 512);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_IN, sector, 512),
			 VIRTIO_BLK_S_OK);
	for (unsigned int i = 0; i < 512; i++)
		ck_assert_uint_eq(data[i], 0xa5);
	ck_assert_int_eq(rig_request(rig, VIRTIO_BLK_T_FLUSH, 0, 0),
			 VIRTIO_BLK_S_OK);
}

START_TEST(a_front_end_reads_and_writes)
{
	const struct traces before = traces_now();
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	/* The worker has that name, too, until it gives itself its own. */
	ck_assert(eventually(count_threads("ktvblk-vu-") == 1));
	read_and_write(&front.rig);
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev), KTVBLK_STATE_RUNNING);
	ck_assert_int_eq(ktvblk_vhost_user_is_connected(front.rig.dev), 1);
	ck_assert(eventually(eventfd_take(front.calls[0]) > 0));
	/* The device's own is for MMIO. */
	ck_assert_uint_eq(rig_irqs(&front.rig), 0);
	ck_assert_uint_gt(front_mapped(&front), 0);
	front_close(&front);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

START_TEST(many_at_once_are_served)
{
	struct front_end front;
	uint16_t heads[32];

	front_open(&front, &(struct rig_options){ .queue_size = 128,
						  .features = RIG_EVENT_IDX });
	front_start(&front);
	for (unsigned int round = 0; round < 50; round++) {
		for (uint16_t i = 0; i < 32; i++) {
			heads[i] = (uint16_t)(3 * i);
			rig_chain(&front.rig, heads[i], VIRTIO_BLK_T_IN, i,
				  512);
		}
		rig_avail_all(&front.rig, heads, 32);
		rig_kick(&front.rig);
		rig_wait_used(&front.rig, (uint16_t)(32 * (round + 1)));
	}
	front_close(&front);
}
END_TEST

START_TEST(each_queue_is_served)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ .config = { .n_queues = 4 },
						  .features = RIG_MQ });
	front_start(&front);
	ck_assert_uint_eq(front_ask(&front, VU_GET_QUEUE_NUM), 4);
	for (unsigned int i = 0; i < 4; i++) {
		rig_select(&front.rig, i);
		read_and_write(&front.rig);
	}
	/* One is stopped, and the others are not. */
	ck_assert_uint_eq(front_stop(&front, 2), 3);
	rig_select(&front.rig, 1);
	read_and_write(&front.rig);
	front_close(&front);
}
END_TEST

START_TEST(config_space_is_told_in_any_piece)
{
	struct vu_config ask = { .size = 60 };
	struct front_end front;
	union vu_payload answer;
	uint64_t capacity;

	front_open(&front, &(struct rig_options){ 0 });
	front_negotiate(&front);
	front_send(&front, VU_GET_CONFIG, 0, &ask,
		   offsetof(struct vu_config, bytes) + ask.size, NULL, 0);
	ck_assert_uint_eq(front_receive(&front, VU_GET_CONFIG, &answer, NULL),
			  offsetof(struct vu_config, bytes) + ask.size);
	ck_assert_uint_eq(answer.config.size, 60);
	memcpy(&capacity, answer.config.bytes, sizeof(capacity));
	ck_assert_uint_eq(le64toh(capacity), RIG_DISK_BYTES / 512);
	ask.offset = 20;
	ask.size = 4;
	front_send(&front, VU_GET_CONFIG, 0, &ask,
		   offsetof(struct vu_config, bytes) + ask.size, NULL, 0);
	front_receive(&front, VU_GET_CONFIG, &answer, NULL);
	ck_assert_uint_eq(answer.config.bytes[1], 2); /* 512 */
	front_close(&front);
}
END_TEST

START_TEST(what_is_offered_is_what_mmio_offers)
{
	struct front_end front;
	uint64_t offered;

	front_open(&front, &(struct rig_options){
				   .config = { .flags = KTVBLK_READ_ONLY } });
	offered = front_ask(&front, VU_GET_FEATURES);
	ck_assert_uint_eq(offered & ~(UINT64_C(1) << VU_F_PROTOCOL_FEATURES |
				      UINT64_C(1) << VHOST_F_LOG_ALL),
			  front.rig.dev->features &
				  ~(UINT64_C(1) << VIRTIO_F_RING_RESET));
	ck_assert(offered >> VIRTIO_BLK_F_RO & 1);
	front_close(&front);
}
END_TEST

START_TEST(one_connection_follows_another)
{
	struct recorder rec;
	struct front_end front;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	for (int i = 0; i < 5; i++) {
		front_start(&front);
		read_and_write(&front.rig);
		front_disconnect(&front);
		front_connect(&front);
	}
	front_start(&front);
	read_and_write(&front.rig);
	ck_assert_int_eq(
		recorder_count(&rec, KTVBLK_MESSAGE_VHOST_USER_CONNECTED), 6);
	ck_assert_int_eq(recorder_count(&rec,
					KTVBLK_MESSAGE_VHOST_USER_DISCONNECTED),
			 5);
	ck_assert_int_eq(
		recorder_count(&rec, KTVBLK_MESSAGE_VHOST_USER_REFUSED), 0);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_second_one_at_the_same_time_is_refused)
{
	struct front_end front;
	struct recorder rec;
	char byte;
	int other;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	other = front_dial(&front);
	ck_assert_int_eq(recv(other, &byte, 1, 0), 0);
	close(other);
	expect_number(recorder_wait(&rec, KTVBLK_MESSAGE_VHOST_USER_REFUSED),
		      "KTVBLK_PEER_PID", getpid());
	read_and_write(&front.rig);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

/* With the protocol's features, or as front ends had it before them. */
START_TEST(without_its_features_a_queue_runs_at_once)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_tell_u64(&front, VU_SET_FEATURES,
		       RIG_VERSION_1 | UINT64_C(1) << VIRTIO_BLK_F_FLUSH, -1);
	front_set_memory(&front);
	front_set_up_queue(&front, 0, 0);
	read_and_write(&front.rig);
	front_close(&front);
}
END_TEST

START_TEST(a_queue_that_is_not_enabled_is_left_alone)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_negotiate(&front);
	front_set_memory(&front);
	front_set_up_queue(&front, 0, 0);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
	front_ask(&front, VU_GET_STATUS); /* all before has been dealt with */
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev), KTVBLK_STATE_IDLE);
	front_enable(&front, 0, true);
	rig_wait_used(&front.rig, 1);
	front_enable(&front, 0, false);
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev), KTVBLK_STATE_IDLE);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
	front_enable(&front, 0, true);
	rig_wait_used(&front.rig, 2);
	front_close(&front);
}
END_TEST

START_TEST(a_queue_goes_on_where_it_was)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_uint_eq(front_stop(&front, 0), 3);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	front_start_again(&front, 3);
	rig_wait_used(&front.rig, 4);
	ck_assert_uint_eq(front_stop(&front, 0), 4);
	front_close(&front);
}
END_TEST

/* QEMU 7.2 and 8.0 say so at each stop, and only then ask. */
START_TEST(a_status_of_0_keeps_where_a_queue_is)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_tell_u64(&front, VU_SET_STATUS, 0, -1);
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev), KTVBLK_STATE_IDLE);
	ck_assert_uint_eq(front_stop(&front, 0), 3);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	front_start_again(&front, 3);
	rig_wait_used(&front.rig, 4);
	ck_assert_uint_eq(front_stop(&front, 0), 4);
	front_close(&front);
}
END_TEST

START_TEST(eventfds_may_be_others_while_it_runs)
{
	struct front_end front;
	int kick, call;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	call = front.calls[1];
	kick = front.kicks[1];
	front_tell_u64(&front, VU_SET_VRING_CALL, 0, call);
	front_tell_u64(&front, VU_SET_VRING_KICK, 0, kick);
	eventfd_take(front.calls[0]);
	front.kicks[1] = front.kicks[0];
	front.kicks[0] = kick;
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert(eventually(eventfd_take(call) > 0));
	ck_assert_uint_eq(eventfd_take(front.calls[0]), 0);
	/* What the one before was told may be unheard. */
	front_tell_u64(&front, VU_SET_VRING_CALL, 0, front.calls[2]);
	ck_assert(eventually(eventfd_take(front.calls[2]) > 0));
	/* By the two reasons there were it may have been called twice. */
	eventfd_take(call);
	/* And none: the driver polls. */
	front_tell_u64(&front, VU_SET_VRING_CALL, VU_VRING_NO_FD, -1);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_uint_eq(eventfd_take(call), 0);
	front_close(&front);
}
END_TEST

START_TEST(mmio_is_ignored_and_memory_refused)
{
	struct front_end front;
	struct ktvblk_mem *mem;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_uint_eq(rig_read(&front.rig, VIRTIO_MMIO_MAGIC_VALUE), 0);
	rig_reset(&front.rig);
	ck_assert_int_eq(ktvblk_request_reset(front.rig.dev), 0);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_int_eq(ktvblk_mem_new(front.rig.regions, 1, NULL, NULL, &mem),
			 0);
	ck_assert_int_eq(ktvblk_set_memory(front.rig.dev, mem), -EBUSY);
	ktvblk_mem_unref(mem);
	ck_assert_int_eq(ktvblk_vhost_user_start(front.rig.dev, front.listen_fd,
						 0),
			 -EBUSY);
	front_close(&front);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	struct rig rig;
	int pair[2];

	rig_open(&rig, &(struct rig_options){ .no_memory = true });
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	ck_assert_int_eq(ktvblk_vhost_user_start(NULL, pair[0], 0), -EINVAL);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, pair[0], 0), -EINVAL);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, -1, 0), -EINVAL);
	ck_assert_int_eq(ktvblk_vhost_user_ended_fd(rig.dev), -EINVAL);
	ck_assert_int_eq(ktvblk_vhost_user_is_connected(rig.dev), -EINVAL);
	close(pair[0]);
	close(pair[1]);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, pair[0], 2), -EINVAL);
	rig_write(&rig, VIRTIO_MMIO_STATUS, S_ACK);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, pair[0], 0), -EBUSY);
	rig_reset(&rig);
	ck_assert_int_eq(ktvblk_request_stop(rig.dev), 0);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, pair[0], 0),
			 -ESHUTDOWN);
	close(pair[0]);
	close(pair[1]);
	rig_close(&rig);
}
END_TEST

static bool is_readable(int fd)
{
	struct pollfd pollfd = { fd, POLLIN, 0 };

	return poll(&pollfd, 1, 0) == 1;
}

START_TEST(a_connected_socket_is_served_once)
{
	struct front_end front;
	struct rig rig;
	int pair[2], ended;

	front_open(&front, &(struct rig_options){ 0 });
	rig_open(&rig, &(struct rig_options){ .no_memory = true });
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ck_assert_int_eq(ktvblk_vhost_user_start(rig.dev, pair[0], 0), 0);
	close(pair[0]);
	ended = ktvblk_vhost_user_ended_fd(rig.dev);
	ck_assert_int_ge(ended, 0);
	close(front.fd);
	front.fd = pair[1];
	ck_assert_uint_ne(front_ask(&front, VU_GET_FEATURES), 0);
	ck_assert(!is_readable(ended));
	ck_assert_int_eq(ktvblk_vhost_user_is_connected(rig.dev), 1);
	front_disconnect(&front);
	ck_assert(eventually(is_readable(ended)));
	ck_assert_int_eq(ktvblk_vhost_user_is_connected(rig.dev), 0);
	rig_close(&rig);
	front_close(&front);
}
END_TEST

/* It is over, and told; who is connected is served. */
START_TEST(a_listening_socket_that_is_shut_down_is_told)
{
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	shutdown(front.listen_fd, SHUT_RDWR);
	recorder_wait(&rec, KTVBLK_MESSAGE_VHOST_USER_ACCEPT_FAILED);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert(!is_readable(ktvblk_vhost_user_ended_fd(front.rig.dev)));
	front_disconnect(&front);
	ck_assert(eventually(
		is_readable(ktvblk_vhost_user_ended_fd(front.rig.dev))));
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_device_that_is_told_to_stop_serves_no_more)
{
	struct front_end front;
	uint16_t used;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_int_eq(ktvblk_request_stop(front.rig.dev), 0);
	ck_assert(eventually(
		is_readable(ktvblk_vhost_user_ended_fd(front.rig.dev))));
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev),
			 KTVBLK_STATE_STOPPING);
	ck_assert(eventually(count_threads("ktvblk-") == 1)); /* the log's */
	used = rig_used_idx(&front.rig);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
	ck_assert_uint_eq(rig_used_idx(&front.rig), used);
	front_close(&front);
}
END_TEST

START_TEST(a_pause_holds_a_queue_of_a_front_ends)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_int_eq(ktvblk_pause(front.rig.dev, WAIT_MS), 0);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
	ck_assert_int_eq(ktvblk_is_paused(front.rig.dev), 1);
	ck_assert_uint_eq(rig_used_idx(&front.rig), 1);
	ck_assert_int_eq(ktvblk_resume(front.rig.dev), 1);
	rig_wait_used(&front.rig, 2);
	front_close(&front);
}
END_TEST

START_TEST(a_broken_ring_is_told_by_the_error_eventfd)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	rig_set_avail_idx(&front.rig, 100);
	rig_kick(&front.rig);
	ck_assert(eventually(eventfd_take(front.errors[0]) > 0));
	ck_assert_uint_eq(front_ask(&front, VU_GET_STATUS),
			  VIRTIO_CONFIG_S_NEEDS_RESET);
	/* And a reset helps. */
	front_tell(&front, VU_RESET_DEVICE, NULL, 0, -1);
	rig_set_avail_idx(&front.rig, front.rig.avail_idx = 0);
	front_start_again(&front, 0);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
}
END_TEST

TEST_PROGRAM("vhost-user", a_front_end_reads_and_writes,
	     many_at_once_are_served, each_queue_is_served,
	     config_space_is_told_in_any_piece,
	     what_is_offered_is_what_mmio_offers,
	     one_connection_follows_another,
	     a_second_one_at_the_same_time_is_refused,
	     without_its_features_a_queue_runs_at_once,
	     a_queue_that_is_not_enabled_is_left_alone,
	     a_queue_goes_on_where_it_was, a_status_of_0_keeps_where_a_queue_is,
	     eventfds_may_be_others_while_it_runs,
	     mmio_is_ignored_and_memory_refused, bad_arguments_are_refused,
	     a_connected_socket_is_served_once,
	     a_listening_socket_that_is_shut_down_is_told,
	     a_device_that_is_told_to_stop_serves_no_more,
	     a_pause_holds_a_queue_of_a_front_ends,
	     a_broken_ring_is_told_by_the_error_eventfd)
