/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What changes while a front end's queues run: its memory, the log of what is
 * written there, the disk's size; and what is told by messages.
 */

#include <linux/vhost_types.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

#define HALF (RIG_RAM_BYTES / 2)
#define PAGES (RIG_RAM_BYTES / 4096)

static const struct ktvblk_region halves[] = {
	{ .guest_addr = 0, .size = HALF },
	{ .guest_addr = HALF, .size = HALF },
};

static struct vu_slot second_half(void)
{
	return (struct vu_slot){ .region = { .guest_addr = HALF,
					     .size = HALF,
					     .user_addr = FRONT_USER + HALF,
					     .mmap_offset = HALF } };
}

/* A read of a sector to there: its status. */
static int read_to(struct rig *rig, uint64_t addr)
{
	const struct rig_part part = { addr, 512, WRITABLE };

	rig_data(rig, 0, VIRTIO_BLK_T_IN, 0, &part, 1);
	rig_serve(rig, 0);
	return *rig_chain_status(rig, 0);
}

START_TEST(memory_comes_and_goes_under_a_running_queue)
{
	const struct vu_slot slot = second_half();
	struct front_end front;
	struct rig *rig = &front.rig;

	front_open(&front,
		   &(struct rig_options){ .regions = halves, .n_regions = 2 });
	front_start(&front);
	ck_assert_uint_ge(front_ask(&front, VU_GET_MAX_MEM_SLOTS), 509);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(read_to(rig, HALF + 4096), VIRTIO_BLK_S_OK);
		front_tell(&front, VU_REM_MEM_REG, &slot, sizeof(slot), -1);
		ck_assert_uint_eq(front_mapped(&front), HALF);
		ck_assert_int_eq(read_to(rig, HALF + 4096), VIRTIO_BLK_S_IOERR);
		ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
		front_tell(&front, VU_ADD_MEM_REG, &slot, sizeof(slot),
			   rig->ram_fd);
		ck_assert_uint_eq(front_mapped(&front), 2 * HALF);
	}
	front_close(&front);
}
END_TEST

/* What hangs in storage has no hold on memory, nor on who changes it. */
START_TEST(memory_goes_while_a_request_hangs_that_ends_without_it)
{
	const struct vu_slot slot = second_half();
	const struct rig_part part = { HALF + 4096, 512, WRITABLE };
	struct front_end front;
	struct rig *rig = &front.rig;
	struct recorder rec;

	wedge_record(&rec);
	front_open(&front,
		   &(struct rig_options){ .regions = halves, .n_regions = 2 });
	front_start(&front);
	storage_hold(rig->storage);
	rig_data(rig, 0, VIRTIO_BLK_T_IN, 0, &part, 1);
	rig_avail(rig, 0);
	rig_kick(rig);
	storage_wait_held(rig->storage, 1);
	front_tell(&front, VU_REM_MEM_REG, &slot, sizeof(slot), -1);
	ck_assert_uint_eq(front_mapped(&front), HALF);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_RUNNING);
	storage_let_go(rig->storage);
	rig_wait_used(rig, 1);
	ck_assert_int_eq(*rig_chain_status(rig, 0), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
			 0);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

/* With zero-copy it does have: the queue is stopped for it, in its budget. */
START_TEST(memory_that_zero_copy_is_in_goes_with_its_queue)
{
	const struct vu_slot slot = second_half();
	struct front_end front;
	struct rig *rig = &front.rig;
	struct recorder rec;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){
				   .regions = halves,
				   .n_regions = 2,
				   .config = { .flags = KTVBLK_ZERO_COPY,
					       .reset_timeout_ms = 50 } });
	front_start(&front);
	wedge(rig, VIRTIO_BLK_T_IN, 1);
	front_tell(&front, VU_REM_MEM_REG, &slot, sizeof(slot), -1);
	recorder_wait(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	storage_let_go(rig->storage);
	recorder_wait(&rec, KTVBLK_MESSAGE_RECLAIMED);
	ck_assert(eventually(front_mapped(&front) == HALF));
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

START_TEST(rings_that_go_break_the_queue)
{
	struct vu_slot slot = second_half();
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	front_open(&front,
		   &(struct rig_options){ .regions = halves, .n_regions = 2 });
	front_start(&front);
	front_tell_u64(&front, VU_SET_VRING_ERR, 0, front.errors[0]);
	slot.region.guest_addr = slot.region.mmap_offset = 0;
	slot.region.user_addr = FRONT_USER;
	front_tell(&front, VU_REM_MEM_REG, &slot, sizeof(slot), -1);
	recorder_wait(&rec, KTVBLK_MESSAGE_QUEUE_POISONED_MEMORY);
	ck_assert_uint_eq(front_ask(&front, VU_GET_STATUS) &
				  VIRTIO_CONFIG_S_NEEDS_RESET,
			  VIRTIO_CONFIG_S_NEEDS_RESET);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

/* Of several queues some may be stopped when all are. */
START_TEST(a_device_is_reset_whose_queues_do_not_all_run)
{
	struct front_end front;

	front_open(&front, &(struct rig_options){ .features = RIG_MQ,
						  .config.n_queues = 2 });
	for (int i = 0; i < 2; i++) {
		front_start(&front);
		rig_select(&front.rig, 0);
		ck_assert_int_eq(rig_read_sector(&front.rig), 0);
		front_stop(&front, (unsigned int)i);
		front_tell(&front, VU_RESET_DEVICE, NULL, 0, -1);
	}
	front_close(&front);
}
END_TEST

/* Of 509 regions each is found. */
START_TEST(many_regions_are_memory)
{
	struct front_end front;
	struct vu_slot slot = { 0 };
	const uint64_t none = 0;
	const unsigned int n = 509;

	front_open(&front, &(struct rig_options){ 0 });
	front_negotiate(&front);
	front_tell(&front, VU_SET_MEM_TABLE, &none, sizeof(none), -1);
	for (unsigned int i = 0; i < n; i++) {
		slot.region = (struct vu_region){
			.guest_addr = i * 4096,
			.size = 4096,
			.user_addr = FRONT_USER + i * 4096,
			.mmap_offset = i * 4096,
		};
		front_tell(&front, VU_ADD_MEM_REG, &slot, sizeof(slot),
			   front.rig.ram_fd);
	}
	front_start_again(&front, 0);
	for (unsigned int i = RIG_DATA / 4096; i < n; i += 7)
		ck_assert_int_eq(read_to(&front.rig, i * 4096),
				 VIRTIO_BLK_S_OK);
	slot.region.guest_addr = slot.region.user_addr =
		slot.region.mmap_offset = n * 4096;
	front_send(&front, VU_ADD_MEM_REG, 0, &slot, sizeof(slot),
		   &front.rig.ram_fd, 1);
	front_expect_closed(&front);
	front_close(&front);
}
END_TEST

static unsigned char *set_log(struct front_end *front, size_t bytes)
{
	const struct vu_log about = { .size = bytes };
	const int fd = memfd_create("log", MFD_CLOEXEC);
	union vu_payload answer;
	unsigned char *log;

	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	log = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(log, MAP_FAILED);
	front_send(front, VU_SET_LOG_BASE, 0, &about, sizeof(about), &fd, 1);
	front_receive(front, VU_SET_LOG_BASE, &answer, NULL);
	close(fd);
	return log;
}

static void set_log_features(struct front_end *front, bool log)
{
	front_tell_u64(front, VU_SET_FEATURES,
		       UINT64_C(1) << VU_F_PROTOCOL_FEATURES | RIG_VERSION_1 |
			       (uint64_t)log << VHOST_F_LOG_ALL,
		       -1);
}

static bool is_logged(const unsigned char *log, uint64_t addr)
{
	const uint64_t page = addr / 4096;

	return __atomic_load_n(&log[page / 8], __ATOMIC_SEQ_CST) >> page % 8 &
	       1;
}

START_TEST(what_is_written_is_logged_as_long_as_that_is_wanted)
{
	struct front_end front;
	struct rig *rig = &front.rig;
	unsigned char *log;

	front_open(&front, &(struct rig_options){ .no_flush = true });
	front.protocol = UINT64_C(1) << VU_P_LOG_SHMFD |
			 UINT64_C(1) << VU_P_REPLY_ACK;
	front_start(&front);
	ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
	log = set_log(&front, PAGES / 8);
	ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
	for (uint64_t i = 0; i < PAGES; i++)
		ck_assert(!is_logged(log, i * 4096));
	set_log_features(&front, true);
	ck_assert_int_eq(read_to(rig, RIG_DATA + 3 * 4096), VIRTIO_BLK_S_OK);
	ck_assert(is_logged(log, RIG_DATA + 3 * 4096));
	ck_assert(is_logged(log, RIG_USED));
	ck_assert(is_logged(log, RIG_STATUS));
	ck_assert(!is_logged(log, RIG_DATA));
	ck_assert(!is_logged(log, RIG_DESC));
	/* Another in its place, and an eventfd for it that nobody needs. */
	munmap(log, PAGES / 8);
	log = set_log(&front, PAGES / 8);
	front_tell(&front, VU_SET_LOG_FD, NULL, 0, front.errors[0]);
	ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
	ck_assert(is_logged(log, RIG_DATA));
	set_log_features(&front, false);
	memset(log, 0, PAGES / 8);
	ck_assert_int_eq(read_to(rig, RIG_DATA), VIRTIO_BLK_S_OK);
	for (uint64_t i = 0; i < PAGES; i++)
		ck_assert(!is_logged(log, i * 4096));
	munmap(log, PAGES / 8);
	front_close(&front);
}
END_TEST

/* Pages that have no bit are left out; the bytes behind it are another's. */
START_TEST(a_log_that_is_too_small_is_not_left)
{
	const size_t bytes = RIG_DATA / 4096 / 8;
	struct front_end front;
	unsigned char *log;

	front_open(&front, &(struct rig_options){ .no_flush = true });
	front.protocol = UINT64_C(1) << VU_P_LOG_SHMFD |
			 UINT64_C(1) << VU_P_REPLY_ACK;
	front_start(&front);
	log = set_log(&front, bytes);
	set_log_features(&front, true);
	ck_assert_int_eq(read_to(&front.rig, RIG_DATA), VIRTIO_BLK_S_OK);
	ck_assert(is_logged(log, RIG_USED));
	for (size_t i = bytes; i < 4096; i++)
		ck_assert_uint_eq(log[i], 0);
	munmap(log, bytes);
	front_close(&front);
}
END_TEST

/* The back end's request on its own socket. */
static struct vu_header take_request(int fd, union vu_payload *ret_payload)
{
	struct vu_header header;

	ck_assert_int_eq(recv(fd, &header, sizeof(header), MSG_WAITALL),
			 sizeof(header));
	ck_assert_uint_le(header.size, sizeof(*ret_payload));
	if (header.size)
		ck_assert_int_eq(recv(fd, ret_payload, header.size,
				      MSG_WAITALL),
				 header.size);
	return header;
}

static int open_channel(struct front_end *front)
{
	const struct timeval bound = { .tv_sec = WAIT_MS / 1000 };
	int pair[2];

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	front_tell(front, VU_SET_BACKEND_REQ_FD, NULL, 0, pair[1]);
	close(pair[1]);
	return pair[0];
}

static uint64_t capacity(struct front_end *front)
{
	struct vu_config ask = { .size = 8 };
	union vu_payload answer;
	uint64_t sectors;

	front_send(front, VU_GET_CONFIG, 0, &ask,
		   offsetof(struct vu_config, bytes) + 8, NULL, 0);
	front_receive(front, VU_GET_CONFIG, &answer, NULL);
	memcpy(&sectors, answer.config.bytes, sizeof(sectors));
	return le64toh(sectors);
}

START_TEST(a_resize_is_told_on_the_way_back)
{
	struct front_end front;
	union vu_payload payload;
	int channel;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	channel = open_channel(&front);
	ck_assert_uint_eq(capacity(&front), RIG_DISK_BYTES / 512);
	ck_assert_int_eq(ktvblk_set_capacity(front.rig.dev, RIG_DISK_BYTES / 2),
			 0);
	ck_assert_uint_eq(take_request(channel, &payload).request,
			  VU_BACKEND_CONFIG_CHANGE);
	ck_assert_uint_eq(capacity(&front), RIG_DISK_BYTES / 1024);
	/* With nobody at its other end it is no way any more, and no matter. */
	close(channel);
	for (uint64_t n = 1; n < 3; n++) {
		ktvblk_set_capacity(front.rig.dev, 512 * n);
		ck_assert(eventually(capacity(&front) == n));
		ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	}
	front_close(&front);
}
END_TEST

/* Nobody reads what is told: the disk is served, and told it is later. */
START_TEST(a_way_back_that_nobody_reads_holds_nothing)
{
	struct front_end front;
	union vu_payload payload;
	int channel, small = 1, n = 0;

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	channel = open_channel(&front);
	setsockopt(channel, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (unsigned int i = 1; i <= 4000; i++) {
		ktvblk_set_capacity(front.rig.dev, 512 * (1 + i % 2));
		if (i % 100 == 0)
			ck_assert_uint_eq(capacity(&front), 1 + i % 2);
	}
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	while (recv(channel, &payload, 1, MSG_DONTWAIT | MSG_PEEK) == 1) {
		take_request(channel, &payload);
		n++;
		front_ask(&front, VU_GET_STATUS);
	}
	ck_assert_int_gt(n, 0);
	close(channel);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
}
END_TEST

START_TEST(without_eventfds_all_is_said_by_messages)
{
	const uint64_t at = FRONT_USER;
	const struct vhost_vring_addr addr = {
		.desc_user_addr = at + RIG_DESC,
		.avail_user_addr = at + RIG_AVAIL,
		.used_user_addr = at + RIG_USED,
	};
	struct front_end front;
	union vu_payload payload;
	struct vu_header header;
	int channel;

	front_open(&front, &(struct rig_options){ 0 });
	front.protocol = UINT64_C(1) << VU_P_INBAND_NOTIFICATIONS |
			 UINT64_C(1) << VU_P_REPLY_ACK |
			 UINT64_C(1) << VU_P_BACKEND_REQ;
	front_negotiate(&front);
	front_set_memory(&front);
	channel = open_channel(&front);
	front_tell_queue(&front, VU_SET_VRING_NUM, 0, 16);
	front_tell_queue(&front, VU_SET_VRING_BASE, 0, 0);
	front_tell(&front, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	front_enable(&front, 0, true);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	front_tell_queue(&front, VU_VRING_KICK, 0, 0);
	rig_wait_used(&front.rig, 1);
	header = take_request(channel, &payload);
	ck_assert_uint_eq(header.request, VU_BACKEND_VRING_CALL);
	ck_assert(header.flags & VU_NEED_REPLY);
	ck_assert_uint_eq(payload.state.index, 0);
	close(channel);
	front_close(&front);
}
END_TEST

START_TEST(a_stop_that_need_not_wait_is_one)
{
	const struct vhost_vring_state state = { 0 };
	struct front_end front;
	union vu_payload answer;

	front_open(&front, &(struct rig_options){ 0 });
	front.protocol = UINT64_C(1) << VU_P_REPLY_ACK |
			 UINT64_C(1) << VU_P_INFLIGHT_SHMFD |
			 UINT64_C(1) << VU_P_GET_VRING_BASE_INFLIGHT |
			 UINT64_C(1) << VU_P_GET_VRING_BASE_SKIP_DRAIN;
	front_get_inflight(&front);
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_send(&front, VU_GET_VRING_BASE_SKIP_DRAIN, 0, &state,
		   sizeof(state), NULL, 0);
	front_receive(&front, VU_GET_VRING_BASE_SKIP_DRAIN, &answer, NULL);
	ck_assert_uint_eq(answer.state.num, 1);
	ck_assert_int_eq(ktvblk_get_state(front.rig.dev), KTVBLK_STATE_IDLE);
	front_close(&front);
}
END_TEST

/* Before VERSION_1 rings are in the machine's byte order, as ours are then. */
START_TEST(a_driver_of_before_version_1_is_served)
{
	struct front_end front;

	if (htole16(1) != 1)
		return;
	front_open(&front, &(struct rig_options){ 0 });
	front_negotiate(&front);
	front_tell_u64(&front, VU_SET_FEATURES,
		       UINT64_C(1) << VU_F_PROTOCOL_FEATURES, -1);
	front_set_memory(&front);
	front_set_up_queue(&front, 0, 0);
	front_enable(&front, 0, true);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
}
END_TEST

/* These are the VMM's, and here that is the front end. */
START_TEST(calls_of_a_vmm_are_refused)
{
	struct front_end front;
	struct ktvblk_mem *mem;
	char bytes[4096];

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_int_eq(ktvblk_mem_new(front.rig.regions, 1, NULL, NULL, &mem),
			 0);
	ck_assert_int_eq(ktvblk_replace_memory(front.rig.dev, mem, 1), -EBUSY);
	ck_assert_int_eq(ktvblk_set_dirty_log(front.rig.dev, NULL, NULL, 1),
			 -EBUSY);
	ck_assert_int_eq(ktvblk_save(front.rig.dev, bytes, sizeof(bytes)),
			 -EBUSY);
	ck_assert_int_eq(ktvblk_restore(front.rig.dev, bytes, sizeof(bytes)),
			 -EBUSY);
	ktvblk_mem_unref(mem);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
}
END_TEST

TEST_PROGRAM("vu-live", memory_comes_and_goes_under_a_running_queue,
	     memory_goes_while_a_request_hangs_that_ends_without_it,
	     memory_that_zero_copy_is_in_goes_with_its_queue,
	     rings_that_go_break_the_queue,
	     a_device_is_reset_whose_queues_do_not_all_run,
	     many_regions_are_memory, a_driver_of_before_version_1_is_served,
	     what_is_written_is_logged_as_long_as_that_is_wanted,
	     a_log_that_is_too_small_is_not_left,
	     a_resize_is_told_on_the_way_back,
	     a_way_back_that_nobody_reads_holds_nothing,
	     without_eventfds_all_is_said_by_messages,
	     a_stop_that_need_not_wait_is_one, calls_of_a_vmm_are_refused)
