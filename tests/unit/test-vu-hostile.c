/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Front ends that mean harm, or are broken: the connection is closed with one
 * record, nothing of theirs is left, and the next one is served.
 */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

static void send_raw(struct front_end *front, uint32_t request,
		     const void *payload, size_t size)
{
	front_send(front, request, 0, payload, size, NULL, 0);
}

static void send_fds(struct front_end *front, uint32_t request,
		     const void *payload, size_t size, unsigned int n)
{
	int fds[64];

	for (unsigned int i = 0; i < n; i++)
		fds[i] = front->rig.ram_fd;
	front_send(front, request, 0, payload, size, fds, n);
}

static void send_u64(struct front_end *front, uint32_t request, uint64_t value,
		     unsigned int n)
{
	send_fds(front, request, &value, sizeof(value), n);
}

static void send_state(struct front_end *front, uint32_t request,
		       unsigned int index, unsigned int num)
{
	const struct vhost_vring_state state = { index, num };

	send_raw(front, request, &state, sizeof(state));
}

/* One good region, and what a case makes of it. */
static struct vu_region good_region(void)
{
	return (struct vu_region){ .size = RIG_RAM_BYTES,
				   .user_addr = FRONT_USER };
}

static void send_regions(struct front_end *front,
			 const struct vu_region *regions, unsigned int n)
{
	struct vu_table table = { .n_regions = n };

	memcpy(table.regions, regions, n * sizeof(*regions));
	send_fds(front, VU_SET_MEM_TABLE, &table, 8 + n * sizeof(*regions), n);
}

static void send_region(struct front_end *front, struct vu_region region)
{
	send_regions(front, &region, 1);
}

/* As header, whatever follows. */
static void send_header(struct front_end *front, uint32_t request,
			uint32_t flags, uint32_t size)
{
	const struct vu_header header = { request, flags, size };

	ck_assert_int_eq(send(front->fd, &header, sizeof(header), MSG_NOSIGNAL),
			 sizeof(header));
}

/* Headers. */
static void version(struct front_end *front)
{
	send_header(front, VU_GET_FEATURES, 2, 0);
}
static void answer(struct front_end *front)
{
	send_header(front, VU_GET_FEATURES, VU_VERSION | VU_REPLY, 0);
}
static void endless(struct front_end *front)
{
	send_header(front, VU_SET_MEM_TABLE, VU_VERSION, UINT32_MAX);
}
static void too_long(struct front_end *front)
{
	send_header(front, VU_GET_FEATURES, VU_VERSION,
		    sizeof(union vu_payload) + 1);
}
static void unknown(struct front_end *front)
{
	send_raw(front, 100000, NULL, 0);
}
static void none(struct front_end *front)
{
	send_raw(front, 0, NULL, 0);
}
static void of_a_net_device(struct front_end *front)
{
	send_u64(front, 20, 1500, 0);
}
static void too_short(struct front_end *front)
{
	const uint32_t half = 0;

	send_raw(front, VU_SET_FEATURES, &half, sizeof(half));
}
static void with_more(struct front_end *front)
{
	const uint64_t twice[2] = { 0 };

	send_raw(front, VU_SET_FEATURES, twice, sizeof(twice));
}

/* Features. */
static void features(struct front_end *front)
{
	send_u64(front, VU_SET_FEATURES, UINT64_MAX, 0);
}
static void protocol_features(struct front_end *front)
{
	send_u64(front, VU_SET_PROTOCOL_FEATURES, UINT64_MAX, 0);
}
static void in_band_alone(struct front_end *front)
{
	send_u64(front, VU_SET_PROTOCOL_FEATURES,
		 UINT64_C(1) << VU_P_INBAND_NOTIFICATIONS, 0);
}

/* Descriptors. */
static void fd_for_nobody(struct front_end *front)
{
	send_fds(front, VU_GET_FEATURES, NULL, 0, 1);
}
static void fds_too_many(struct front_end *front)
{
	const struct vu_region region = good_region();

	struct vu_table table = { .n_regions = 8, .regions = { region } };

	send_fds(front, VU_SET_MEM_TABLE, &table, sizeof(table), 9);
}
static void fds_far_too_many(struct front_end *front)
{
	send_fds(front, VU_SET_OWNER, NULL, 0, 60);
}
static void fd_missing(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_KICK, 0, 0);
}
static void fd_denied(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_CALL, VU_VRING_NO_FD, 1);
}
static void fd_no_eventfd(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_CALL, 0, 1);
}
static void kick_none(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_KICK, VU_VRING_NO_FD, 0);
}
static void line_of_no_queue(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_ERR, 200, 1);
}
static void line_of_other_bits(struct front_end *front)
{
	send_u64(front, VU_SET_VRING_ERR, UINT64_C(1) << 40, 1);
}
static void way_back_no_socket(struct front_end *front)
{
	send_fds(front, VU_SET_BACKEND_REQ_FD, NULL, 0, 1);
}
static void way_back_missing(struct front_end *front)
{
	send_raw(front, VU_SET_BACKEND_REQ_FD, NULL, 0);
}

/* Memory. */
static void regions_nine(struct front_end *front)
{
	struct vu_table table = { .n_regions = 9 };

	send_fds(front, VU_SET_MEM_TABLE, &table, sizeof(table), 8);
}
static void regions_cut(struct front_end *front)
{
	struct vu_table table = { .n_regions = 8 };

	send_fds(front, VU_SET_MEM_TABLE, &table, 8 + 32, 8);
}
static void region_without_fd(struct front_end *front)
{
	struct vu_table table = { .n_regions = 1,
				  .regions = { good_region() } };

	send_raw(front, VU_SET_MEM_TABLE, &table, 8 + 32);
}
static void region_empty(struct front_end *front)
{
	send_region(front, (struct vu_region){ .user_addr = FRONT_USER });
}
static void region_unaligned(struct front_end *front)
{
	struct vu_region region = good_region();

	region.guest_addr = 512;
	send_region(front, region);
}
static void region_offset_unaligned(struct front_end *front)
{
	struct vu_region region = good_region();

	region.mmap_offset = 1;
	send_region(front, region);
}
static void region_wraps(struct front_end *front)
{
	struct vu_region region = good_region();

	region.guest_addr = UINT64_MAX - 4095;
	send_region(front, region);
}
static void region_user_wraps(struct front_end *front)
{
	struct vu_region region = good_region();

	region.user_addr = UINT64_MAX - 4095;
	send_region(front, region);
}
static void region_offset_wraps(struct front_end *front)
{
	struct vu_region region = good_region();

	region.mmap_offset = UINT64_MAX - 4095;
	send_region(front, region);
}
static void region_huge(struct front_end *front)
{
	struct vu_region region = good_region();

	region.size = UINT64_C(1) << 62;
	region.user_addr = 0;
	send_region(front, region);
}
static void region_behind_its_end(struct front_end *front)
{
	struct vu_region region = good_region();

	region.mmap_offset = RIG_RAM_BYTES - 4096;
	send_region(front, region);
}
static void regions_overlap(struct front_end *front)
{
	struct vu_region regions[2] = { good_region(), good_region() };

	regions[1].user_addr += RIG_RAM_BYTES;
	regions[1].guest_addr = 4096;
	send_regions(front, regions, 2);
}
static void regions_user_overlap(struct front_end *front)
{
	struct vu_region regions[2] = { good_region(), good_region() };

	regions[1].guest_addr = RIG_RAM_BYTES;
	send_regions(front, regions, 2);
}
static void send_slot(struct front_end *front, uint32_t request, int fd)
{
	const struct vu_slot slot = { .region = good_region() };

	front_send(front, request, 0, &slot, sizeof(slot), &fd, fd >= 0);
}
static void slot_without_fd(struct front_end *front)
{
	send_slot(front, VU_ADD_MEM_REG, -1);
}
static void slot_not_there(struct front_end *front)
{
	send_slot(front, VU_REM_MEM_REG, front->rig.ram_fd);
}
static void slot_in_a_pipe(struct front_end *front)
{
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	send_slot(front, VU_ADD_MEM_REG, fds[0]);
	close(fds[0]);
	close(fds[1]);
}
static void slot_in_a_device(struct front_end *front)
{
	const int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);

	send_slot(front, VU_ADD_MEM_REG, fd);
	close(fd);
}
static void slot_read_only(struct front_end *front)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", front->rig.ram_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	send_slot(front, VU_ADD_MEM_REG, fd);
	close(fd);
}

/* Queues. */
static void queue_of_none(struct front_end *front)
{
	send_state(front, VU_SET_VRING_NUM, 1, 16);
}
static void queue_of_none_stopped(struct front_end *front)
{
	send_state(front, VU_GET_VRING_BASE, UINT32_MAX, 0);
}
static void queue_of_none_enabled(struct front_end *front)
{
	send_state(front, VU_SET_VRING_ENABLE, 7, 1);
}
static void queue_of_none_rung(struct front_end *front)
{
	send_state(front, VU_VRING_KICK, 1u << 31, 1);
}
static void queue_of_no_size(struct front_end *front)
{
	send_state(front, VU_SET_VRING_NUM, 0, 0);
}
static void queue_of_odd_size(struct front_end *front)
{
	send_state(front, VU_SET_VRING_NUM, 0, 48);
}
static void queue_too_large(struct front_end *front)
{
	send_state(front, VU_SET_VRING_NUM, 0, 65536 + 16);
}
static void queue_half_enabled(struct front_end *front)
{
	send_state(front, VU_SET_VRING_ENABLE, 0, 2);
}
static void send_addr(struct front_end *front, struct vhost_vring_addr addr)
{
	send_raw(front, VU_SET_VRING_ADDR, &addr, sizeof(addr));
}
static void rings_unaligned(struct front_end *front)
{
	send_addr(front, (struct vhost_vring_addr){ .used_user_addr =
							    FRONT_USER + 2 });
}
static void rings_of_none(struct front_end *front)
{
	send_addr(front, (struct vhost_vring_addr){ .index = 3 });
}
static void rings_not_in_memory(struct front_end *front)
{
	front_negotiate(front);
	front_set_memory(front);
	front_tell_queue(front, VU_SET_VRING_NUM, 0, 16);
	send_addr(front, (struct vhost_vring_addr){
				 .desc_user_addr = FRONT_USER - 4096 });
	front_ask(front, VU_GET_STATUS);
	front_send(front, VU_SET_VRING_ENABLE, 0,
		   &(struct vhost_vring_state){ 0, 1 }, 8, NULL, 0);
	front_send(front, VU_SET_VRING_KICK, 0, &(uint64_t){ 0 }, 8,
		   front->kicks, 1);
}
static void size_of_one_that_runs(struct front_end *front)
{
	front_start(front);
	send_state(front, VU_SET_VRING_NUM, 0, 8);
}
static void base_of_one_that_runs(struct front_end *front)
{
	front_start(front);
	send_state(front, VU_SET_VRING_BASE, 0, 8);
}
static void rings_of_one_that_runs(struct front_end *front)
{
	front_start(front);
	send_addr(front,
		  (struct vhost_vring_addr){ .desc_user_addr = FRONT_USER });
}

static void used_ring_of_one_that_runs(struct front_end *front)
{
	front_start(front);
	send_addr(front, (struct vhost_vring_addr){
				 .desc_user_addr = FRONT_USER + RIG_DESC,
				 .avail_user_addr = FRONT_USER + RIG_AVAIL,
				 .used_user_addr = FRONT_USER + RIG_DATA });
}
static void inflight_of_one_that_runs(struct front_end *front)
{
	const struct vu_inflight about = { .mmap_size = RIG_RAM_BYTES,
					   .n_queues = 1,
					   .queue_size = 16 };

	front_start(front);
	send_fds(front, VU_SET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES, 1);
}
static void base_of_none(struct front_end *front)
{
	send_state(front, VU_SET_VRING_BASE, 1, 0);
}
static void inflight_at_an_odd_place(struct front_end *front)
{
	const struct vu_inflight about = { .mmap_size = 4096,
					   .mmap_offset = 4,
					   .n_queues = 1,
					   .queue_size = 16 };

	send_fds(front, VU_SET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES, 1);
}
static void inflight_too_small(struct front_end *front)
{
	const struct vu_inflight about = { .mmap_size = 64,
					   .n_queues = 1,
					   .queue_size = 16 };

	send_fds(front, VU_SET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES, 1);
}

/* The rest. */
static void config_too_large(struct front_end *front)
{
	const struct vu_config config = { .size = 257 };

	send_raw(front, VU_GET_CONFIG, &config, 12);
}
static void config_too_far(struct front_end *front)
{
	const struct vu_config config = { .offset = UINT32_MAX, .size = 8 };

	send_raw(front, VU_GET_CONFIG, &config, 20);
}
static void config_without_bytes(struct front_end *front)
{
	const struct vu_config config = { .size = 200 };

	send_raw(front, VU_SET_CONFIG, &config, 20);
}
static void inflight_of_none(struct front_end *front)
{
	const struct vu_inflight about = { 0 };

	send_raw(front, VU_GET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES);
}
static void inflight_too_large(struct front_end *front)
{
	const struct vu_inflight about = { .n_queues = UINT16_MAX,
					   .queue_size = UINT16_MAX };

	send_raw(front, VU_GET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES);
}
static void inflight_behind_its_end(struct front_end *front)
{
	const struct vu_inflight about = { .mmap_size = 2 * RIG_RAM_BYTES,
					   .n_queues = 1,
					   .queue_size = 16 };

	send_fds(front, VU_SET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES, 1);
}
static void inflight_without_fd(struct front_end *front)
{
	const struct vu_inflight about = { .mmap_size = 4096,
					   .n_queues = 1,
					   .queue_size = 16 };

	send_raw(front, VU_SET_INFLIGHT_FD, &about, VU_INFLIGHT_BYTES);
}
static void log_behind_its_end(struct front_end *front)
{
	const struct vu_log about = { .size = 4096, .offset = RIG_RAM_BYTES };

	send_fds(front, VU_SET_LOG_BASE, &about, sizeof(about), 1);
}
static void log_without_fd(struct front_end *front)
{
	const struct vu_log about = { .size = 4096 };

	send_raw(front, VU_SET_LOG_BASE, &about, sizeof(about));
}
static void never_reads(struct front_end *front)
{
	struct vu_header header = { VU_GET_FEATURES, VU_VERSION, 0 };

	/* Until it is closed, or our own way is full: then it does not read. */
	while (send(front->fd, &header, sizeof(header), MSG_NOSIGNAL) ==
	       sizeof(header))
		;
}

static void (*const cases[])(struct front_end *front) = {
	version,
	answer,
	endless,
	too_long,
	unknown,
	none,
	of_a_net_device,
	too_short,
	with_more,
	features,
	protocol_features,
	in_band_alone,
	fd_for_nobody,
	fds_too_many,
	fds_far_too_many,
	fd_missing,
	fd_denied,
	fd_no_eventfd,
	kick_none,
	line_of_no_queue,
	line_of_other_bits,
	way_back_no_socket,
	way_back_missing,
	regions_nine,
	regions_cut,
	region_without_fd,
	region_empty,
	region_unaligned,
	region_offset_unaligned,
	region_wraps,
	region_user_wraps,
	region_offset_wraps,
	region_huge,
	region_behind_its_end,
	regions_overlap,
	regions_user_overlap,
	slot_without_fd,
	slot_not_there,
	slot_in_a_pipe,
	slot_in_a_device,
	slot_read_only,
	queue_of_none,
	queue_of_none_stopped,
	queue_of_none_enabled,
	queue_of_none_rung,
	queue_of_no_size,
	queue_of_odd_size,
	queue_too_large,
	queue_half_enabled,
	rings_unaligned,
	rings_of_none,
	rings_not_in_memory,
	size_of_one_that_runs,
	base_of_one_that_runs,
	rings_of_one_that_runs,
	used_ring_of_one_that_runs,
	inflight_of_one_that_runs,
	base_of_none,
	inflight_at_an_odd_place,
	inflight_too_small,
	config_too_large,
	config_too_far,
	config_without_bytes,
	inflight_of_none,
	inflight_too_large,
	inflight_behind_its_end,
	inflight_without_fd,
	log_behind_its_end,
	log_without_fd,
	never_reads,
};

START_TEST(what_is_wrong_ends_the_connection_and_nothing_else)
{
	struct front_end front;
	struct recorder rec;
	unsigned int fds;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_disconnect(&front);
	ck_assert(eventually(!ktvblk_vhost_user_is_connected(front.rig.dev)));
	fds = count_fds();
	recorder_clear(&rec);
	front_connect(&front);
	cases[_i](&front);
	front_expect_closed(&front);
	ck_assert(eventually(!ktvblk_vhost_user_is_connected(front.rig.dev)));
	ck_assert(eventually(count_fds() == fds));
	ck_assert_uint_eq(front_mapped(&front), 0);
	ck_assert_ptr_nonnull(kept_field(
		recorder_wait(&rec, KTVBLK_MESSAGE_VHOST_USER_CLOSED),
		"KTVBLK_REASON"));
	/* Beside the one of its coming. */
	ck_assert_int_eq(recorder_count(&rec, NULL), 2);
	front_connect(&front);
	front_start(&front);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

LOOP_PROGRAM("vu-hostile", ARRAY_SIZE(cases),
	     what_is_wrong_ends_the_connection_and_nothing_else)
