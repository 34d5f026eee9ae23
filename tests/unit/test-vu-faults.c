/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each call that the transport's thread makes fails once, one after another: the
 * front end may lose its connection by that, and is served the next time; and
 * nothing is left behind.
 */

/* wrap: accept4 dup3 memfd_create ftruncate readlink recv recvmsg sendmsg */
/* wrap: getsockopt calloc mmap fcntl fstat poll eventfd sched_getaffinity */
/* wrap: pthread_create epoll_ctl */

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "device.h"
#include "faults.h"
#include "front-end.h"
#include "wedge.h"

/* On the transport's thread only: the front end is this process's, too. */
static _Thread_local int is_transport; /* 1: yes, -1: no, 0: not known */

static bool on_transport(void)
{
	char name[16] = "";

	if (!is_transport) {
		pthread_getname_np(pthread_self(), name, sizeof(name));
		is_transport = strncmp(name, "ktvblk-vu-", 10) ? -1 : 1;
	}
	return is_transport > 0;
}

#define WRAP_THERE(type, name, params, args, failed)                           \
	type __real_##name params;                                             \
	type __wrap_##name params;                                             \
	static struct fault name##_fault;                                      \
                                                                               \
	type __wrap_##name params                                              \
	{                                                                      \
		return on_transport() && fault_hits(&name##_fault, 0)          \
			       ? failed                                        \
			       : __real_##name args;                           \
	}

WRAP_THERE(int, accept4,
	   (int fd, struct sockaddr *addr, socklen_t *size, int flags),
	   (fd, addr, size, flags), -1)
WRAP_THERE(int, dup3, (int fd, int to, int flags), (fd, to, flags), -1)
WRAP_THERE(int, memfd_create, (const char *name, unsigned int flags),
	   (name, flags), -1)
WRAP_THERE(int, ftruncate, (int fd, off_t size), (fd, size), -1)
WRAP_THERE(ssize_t, readlink, (const char *path, char *to, size_t n),
	   (path, to, n), -1)
WRAP_THERE(ssize_t, recv, (int fd, void *to, size_t n, int flags),
	   (fd, to, n, flags), -1)
WRAP_THERE(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags),
	   (fd, msg, flags), -1)
WRAP_THERE(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags),
	   (fd, msg, flags), -1)
WRAP_THERE(int, getsockopt,
	   (int fd, int level, int name, void *to, socklen_t *size),
	   (fd, level, name, to, size), -1)
WRAP_THERE(void *, calloc, (size_t n, size_t size), (n, size), NULL)
WRAP_THERE(void *, mmap,
	   (void *at, size_t n, int prot, int flags, int fd, off_t offset),
	   (at, n, prot, flags, fd, offset), MAP_FAILED)
WRAP_THERE(int, fstat, (int fd, struct stat *st), (fd, st), -1)
WRAP_THERE(int, poll, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms), -1)
WRAP_THERE(int, eventfd, (unsigned int n, int flags), (n, flags), -1)

WRAP_THERE(int, epoll_ctl,
	   (int epfd, int op, int fd, struct epoll_event *event),
	   (epfd, op, fd, event), -1)
WRAP_THERE(int, pthread_create,
	   (pthread_t * thread, const pthread_attr_t *attr,
	    void *(*main)(void *), void *arg),
	   (thread, attr, main, arg), EAGAIN)

WRAP_THERE(int, sched_getaffinity, (pid_t tid, size_t size, cpu_set_t *cpus),
	   (tid, size, cpus), -1)

/* Its third argument is a number, or not there. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, long arg);
static struct fault fcntl_fault;

int __wrap_fcntl(int fd, int command, long arg)
{
	return on_transport() && fault_hits(&fcntl_fault, 0)
		       ? -1
		       : __real_fcntl(fd, command, arg);
}

static const struct call {
	struct fault *fault;
	int error;
} calls[] = {
	{ &accept4_fault, EMFILE },
	{ &accept4_fault, ECONNABORTED },
	{ &dup3_fault, EBUSY },
	{ &memfd_create_fault, EMFILE },
	{ &ftruncate_fault, ENOSPC },
	{ &readlink_fault, ENOENT },
	{ &recv_fault, ECONNRESET },
	{ &recvmsg_fault, ECONNRESET },
	{ &recvmsg_fault, EINTR },
	{ &sendmsg_fault, EPIPE },
	{ &sendmsg_fault, EAGAIN },
	{ &getsockopt_fault, ENOPROTOOPT },
	{ &calloc_fault, ENOMEM },
	{ &mmap_fault, ENOMEM },
	{ &fstat_fault, EIO },
	{ &poll_fault, EINTR },
	{ &eventfd_fault, EMFILE },
	{ &fcntl_fault, EMFILE },
	{ &sched_getaffinity_fault, ESRCH },
	{ &epoll_ctl_fault, ENOSPC },
	{ &pthread_create_fault, EAGAIN },
};

/* One message, and what comes back, if anything is to. False: it is closed. */
static bool say(struct front_end *front, uint32_t request, const void *payload,
		size_t size, int fd, union vu_payload *ret_answer, int *ret_fd)
{
	const struct vu_header header = { request, VU_VERSION | VU_NEED_REPLY,
					  (uint32_t)size };
	struct vu_header answer;
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec out[] = { { (void *)(uintptr_t)&header, sizeof(header) },
			       { (void *)(uintptr_t)payload, size } };
	struct iovec in = { &answer, sizeof(answer) };
	struct msghdr msg = { .msg_iov = out, .msg_iovlen = 2 };
	struct cmsghdr *cmsg = (struct cmsghdr *)(void *)control;

	if (fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	if (sendmsg(front->fd, &msg, MSG_NOSIGNAL) < 0)
		return false;
	memset(control, 0, sizeof(control));
	msg = (struct msghdr){ .msg_iov = &in,
			       .msg_iovlen = 1,
			       .msg_control = control,
			       .msg_controllen = sizeof(control) };
	if (recvmsg(front->fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) !=
	    sizeof(answer))
		return false;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && ret_fd)
		memcpy(ret_fd, CMSG_DATA(cmsg), sizeof(*ret_fd));
	ck_assert_uint_le(answer.size, sizeof(*ret_answer));
	return recv(front->fd, ret_answer, answer.size, MSG_WAITALL) ==
	       (ssize_t)answer.size;
}

static bool say_u64(struct front_end *front, uint32_t request, uint64_t value,
		    int fd)
{
	union vu_payload answer;

	return say(front, request, &value, sizeof(value), fd, &answer, NULL);
}

static bool say_queue(struct front_end *front, uint32_t request, uint32_t num)
{
	const struct vhost_vring_state state = { 0, num };
	union vu_payload answer;

	return say(front, request, &state, sizeof(state), -1, &answer, NULL);
}

static bool get_inflight(struct front_end *front)
{
	const struct vu_inflight asked = { .n_queues = 1, .queue_size = 16 };
	union vu_payload about, answer;
	int fd = -1;
	bool ok;

	ok = say(front, VU_GET_INFLIGHT_FD, &asked, VU_INFLIGHT_BYTES, -1,
		 &about, &fd) &&
	     fd >= 0 &&
	     say(front, VU_SET_INFLIGHT_FD, &about.inflight, VU_INFLIGHT_BYTES,
		 fd, &answer, NULL);
	closep(&fd);
	return ok;
}

static bool set_log(struct front_end *front)
{
	const struct vu_log about = { .size = RIG_RAM_BYTES / 4096 / 8 };
	union vu_payload answer;

	return say(front, VU_SET_LOG_BASE, &about, sizeof(about),
		   front->rig.ram_fd, &answer, NULL);
}

static bool set_up(struct front_end *front, uint16_t base, bool region)
{
	const struct vu_slot slot = { .region = { .size = RIG_RAM_BYTES,
						  .user_addr = FRONT_USER } };
	const struct vhost_vring_addr addr = {
		.desc_user_addr = FRONT_USER + RIG_DESC,
		.avail_user_addr = FRONT_USER + RIG_AVAIL,
		.used_user_addr = FRONT_USER + RIG_USED,
	};
	union vu_payload answer;

	return say_u64(front, VU_SET_PROTOCOL_FEATURES,
		       UINT64_C(1) << VU_P_REPLY_ACK |
			       UINT64_C(1) << VU_P_INFLIGHT_SHMFD |
			       UINT64_C(1) << VU_P_BACKEND_REQ,
		       -1) &&
	       say_u64(front, VU_SET_FEATURES,
		       RIG_VERSION_1 | UINT64_C(1) << VU_F_PROTOCOL_FEATURES,
		       -1) &&
	       say(front, VU_ADD_MEM_REG, &slot, sizeof(slot),
		   front->rig.ram_fd, &answer, NULL) &&
	       (region ? get_inflight(front) : set_log(front)) &&
	       say_queue(front, VU_SET_VRING_NUM, 16) &&
	       say_queue(front, VU_SET_VRING_BASE, base) &&
	       say(front, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1, &answer,
		   NULL) &&
	       say_u64(front, VU_SET_VRING_ERR, 0, front->errors[0]) &&
	       say_u64(front, VU_SET_VRING_KICK, 0, front->kicks[0]) &&
	       say_queue(front, VU_SET_VRING_ENABLE, 1) &&
	       say_u64(front, VU_SET_VRING_CALL, 0, front->calls[0]) &&
	       say_u64(front, VU_SET_VRING_KICK, 0, front->kicks[0]);
}

/* The way back, and something that is told on it. */
static bool resize(struct front_end *front)
{
	union vu_payload answer;
	int pair[2];
	bool ok;

	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ok = say(front, VU_SET_BACKEND_REQ_FD, NULL, 0, pair[1], &answer, NULL);
	close(pair[1]);
	if (ok)
		ok = send(pair[0], &ok, sizeof(ok), MSG_NOSIGNAL) > 0;
	ktvblk_set_capacity(front->rig.dev, RIG_DISK_BYTES);
	close(pair[0]);
	return ok;
}

static bool needs_reset(struct front_end *front)
{
	union vu_payload answer;

	return !say(front, VU_GET_STATUS, NULL, 0, -1, &answer, NULL) ||
	       answer.u64 & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* All that was asked for is done, unless the connection has ended. */
static bool read_sector(struct front_end *front)
{
	struct rig *rig = &front->rig;

	rig_chain(rig, 0, VIRTIO_BLK_T_IN, 0, 512);
	rig_avail(rig, 0);
	rig_kick(rig);
	ck_assert(eventually(rig_used_idx(rig) == rig->avail_idx ||
			     !ktvblk_vhost_user_is_connected(rig->dev)));
	return rig_used_idx(rig) == rig->avail_idx;
}

static bool live_once(struct front_end *front, bool region)
{
	struct rig *rig = &front->rig;
	bool ok;

	front_connect(front);
	ok = set_up(front, rig_used_idx(rig), region) && resize(front) &&
	     say_u64(front, VU_SET_STATUS, 1, -1);
	if (ok)
		ok = !needs_reset(front) && read_sector(front) &&
		     say_queue(front, VU_GET_VRING_BASE, 0);
	front_disconnect(front);
	return ok;
}

/* All that a front end does; how far it gets is up to the fault. */
static bool live(struct front_end *front)
{
	const bool first = live_once(front, true);

	return live_once(front, false) && first;
}

START_TEST(a_transport_whose_calls_fail_serves_again_and_leaves_nothing)
{
	const struct call *call = &calls[_i];
	struct front_end front;
	struct recorder rec;
	unsigned int fds, points = 0;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){ 0 });
	front_disconnect(&front);
	ck_assert(live(&front));
	ck_assert(eventually(!ktvblk_vhost_user_is_connected(front.rig.dev)));
	fds = count_fds();
	for (unsigned int skip = 0;; skip++) {
		bool over;

		fault_set(call->fault,
			  &(struct fault_when){ .error = call->error,
						.skip = skip });
		live(&front);
		over = fault_over(call->fault);
		fault_clear(call->fault);
		if (!over)
			break;
		points++;
		ck_assert_msg(live(&front), "not served behind point %u", skip);
		ck_assert(eventually(
			!ktvblk_vhost_user_is_connected(front.rig.dev)));
		ck_assert(eventually(count_fds() == fds));
		ck_assert_uint_eq(front_mapped(&front), 0);
	}
	ck_assert_msg(points > 0, "it was not called");
	front_close(&front);
	recorder_stop(&rec);
}
END_TEST

LOOP_PROGRAM("vu-faults", ARRAY_SIZE(calls),
	     a_transport_whose_calls_fail_serves_again_and_leaves_nothing)
