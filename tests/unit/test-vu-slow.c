/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Front ends that are slow, or gone in the midst of something, or that take back
 * what they gave: nobody waits for them.
 */

/* wrap: preadv2 */

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "device.h"
#include "faults.h"
#include "front-end.h"
#include "wedge.h"

WRAP(ssize_t, preadv2,
     (int fd, const struct iovec *iov, int n, off_t offset, int flags),
     (fd, iov, n, offset, flags), fd, -1)

static struct vu_table whole_table(void)
{
	return (struct vu_table){ .n_regions = 1,
				  .regions = { { .size = RIG_RAM_BYTES,
						 .user_addr = FRONT_USER } } };
}

/* One message, with a descriptor at its first byte, up to there. */
static void send_part(struct front_end *front, const void *bytes, size_t size,
		      bool with_fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct cmsghdr *cmsg = (struct cmsghdr *)(void *)control;
	struct iovec iov = { (void *)(uintptr_t)bytes, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (with_fd) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &front->rig.ram_fd, sizeof(int));
	}
	ck_assert_int_eq(sendmsg(front->fd, &msg, MSG_NOSIGNAL), (ssize_t)size);
}

#define WHOLE_BYTES (sizeof(struct vu_header) + 8 + sizeof(struct vu_region))

static void fill_whole(unsigned char bytes[WHOLE_BYTES])
{
	const struct vu_header header = { VU_SET_MEM_TABLE, VU_VERSION,
					  WHOLE_BYTES -
						  sizeof(struct vu_header) };
	const struct vu_table table = whole_table();

	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), &table, WHOLE_BYTES - sizeof(header));
}

START_TEST(a_message_may_be_cut_anywhere)
{
	const struct traces before = traces_now();
	unsigned char bytes[WHOLE_BYTES];
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	fill_whole(bytes);
	front_open(&front, &(struct rig_options){ 0 });
	/* In two pieces it is whole; and it may end behind the first. */
	for (size_t cut = 1; cut < WHOLE_BYTES; cut++) {
		send_part(&front, bytes, cut, true);
		send_part(&front, bytes + cut, WHOLE_BYTES - cut, false);
		ck_assert_uint_ne(front_ask(&front, VU_GET_FEATURES), 0);
		ck_assert_uint_eq(front_mapped(&front), RIG_RAM_BYTES);
		send_part(&front, bytes, cut, true);
		front_disconnect(&front);
		front_connect(&front);
		ck_assert_uint_ne(front_ask(&front, VU_GET_FEATURES), 0);
		ck_assert_uint_eq(front_mapped(&front), 0);
	}
	front_close(&front);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

/* It hangs in the midst of a message; so it does not hold the device. */
START_TEST(a_front_end_that_stops_in_the_midst_holds_nothing)
{
	unsigned char bytes[WHOLE_BYTES];
	struct front_end front;
	uint64_t start;

	fill_whole(bytes);
	front_open(&front, &(struct rig_options){ .config.destroy_timeout_ms =
							  WAIT_MS });
	front_start(&front);
	send_part(&front, bytes, 20, true);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	start = clock_start();
	ck_assert_int_eq(rig_destroy(&front.rig), KTVBLK_JOINED);
	ck_assert_uint_lt(ms_since(start), bound_ms(WAIT_MS / 2));
	front_free(&front);
}
END_TEST

/* Then what is mapped can be touched: there is no SIGBUS. */
START_TEST(memory_that_can_be_sealed_does_not_shrink)
{
	const int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	const struct vu_slot slot = { .region = { .size = RIG_RAM_BYTES,
						  .user_addr = FRONT_USER } };
	struct front_end front;

	ck_assert_int_eq(ftruncate(fd, RIG_RAM_BYTES), 0);
	front_open(&front, &(struct rig_options){ 0 });
	front_negotiate(&front);
	front_tell(&front, VU_ADD_MEM_REG, &slot, sizeof(slot), fd);
	front_ask(&front, VU_GET_STATUS);
	ck_assert_int_eq(ftruncate(fd, 4096), -1);
	ck_assert_int_eq(errno, EPERM);
	close(fd);
	front_close(&front);
}
END_TEST

/* One that blocks when it is full is written by nobody who would wait. */
START_TEST(a_call_that_is_full_holds_nobody)
{
	const int full = eventfd(0, EFD_CLOEXEC);
	const uint64_t most = UINT64_MAX - 1;
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	ck_assert_int_eq(write(full, &most, sizeof(most)), sizeof(most));
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	front_tell_u64(&front, VU_SET_VRING_CALL, 0, full);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	ck_assert_uint_eq(front_stop(&front, 0), 3);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
			 0);
	close(full);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

/* It blocks again, behind our back: what waits there is let go by the stop. */
START_TEST(a_call_that_is_made_to_block_again_is_let_go)
{
	const int full = eventfd(0, EFD_CLOEXEC);
	const uint64_t most = UINT64_MAX - 1;
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	ck_assert_int_eq(write(full, &most, sizeof(most)), sizeof(most));
	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	front_tell_u64(&front, VU_SET_VRING_CALL, 0, full);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	/* Its call was tried, too. */
	ck_assert(eventually(worker_sleeps(&front.rig)));
	ck_assert_int_eq(fcntl(full, F_SETFL, 0), 0);
	rig_chain(&front.rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(&front.rig, 0);
	rig_kick(&front.rig);
	rig_wait_used(&front.rig, 2);
	ck_assert_uint_eq(front_stop(&front, 0), 2);
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_RESET_TIMED_OUT),
			 0);
	close(full);
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

/* By an old kernel, or by a seccomp filter. */
START_TEST(a_kick_is_read_where_the_call_that_does_not_wait_is_refused)
{
	static const int errors[] = { EOPNOTSUPP, ENOSYS, EPERM };
	struct front_end front;
	struct recorder rec;

	wedge_record(&rec);
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		front_open(&front, &(struct rig_options){ 0 });
		front_start(&front);
		fault_set(&preadv2_fault,
			  &(struct fault_when){ .error = errors[i],
						.times = UINT32_MAX });
		while (atomic_load(&preadv2_fault.left) == UINT32_MAX)
			ck_assert_int_eq(rig_read_sector(&front.rig), 0);
		front_close(&front);
		fault_clear(&preadv2_fault);
	}
	ck_assert_int_eq(recorder_count(&rec, KTVBLK_MESSAGE_KICK_READ_FAILED),
			 0);
	recorder_stop(&rec);
}
END_TEST

START_TEST(what_the_front_end_took_back_is_still_ours)
{
	struct front_end front;
	int pair[2];

	front_open(&front, &(struct rig_options){ 0 });
	front_start(&front);
	/* A pipe nobody reads any more is as good as none. */
	ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
	front_tell_u64(&front, VU_SET_VRING_CALL, 0, pair[1]);
	close(pair[0]);
	close(pair[1]);
	ck_assert_int_eq(rig_read_sector(&front.rig), 0);
	front_close(&front);
}
END_TEST

TEST_PROGRAM("vu-slow", a_message_may_be_cut_anywhere,
	     a_front_end_that_stops_in_the_midst_holds_nothing,
	     memory_that_can_be_sealed_does_not_shrink,
	     a_call_that_is_full_holds_nobody,
	     a_call_that_is_made_to_block_again_is_let_go,
	     a_kick_is_read_where_the_call_that_does_not_wait_is_refused,
	     what_the_front_end_took_back_is_still_ours)
