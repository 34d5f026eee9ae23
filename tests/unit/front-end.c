/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See front-end.h. */

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

#define PROTOCOL                                                               \
	(UINT64_C(1) << VU_P_MQ | UINT64_C(1) << VU_P_REPLY_ACK |              \
	 UINT64_C(1) << VU_P_CONFIG | UINT64_C(1) << VU_P_INFLIGHT_SHMFD |     \
	 UINT64_C(1) << VU_P_RESET_DEVICE | UINT64_C(1) << VU_P_STATUS |       \
	 UINT64_C(1) << VU_P_CONFIGURE_MEM_SLOTS |                             \
	 UINT64_C(1) << VU_P_BACKEND_REQ)

static unsigned int n_queues(const struct front_end *front)
{
	return front->rig.dev ? front->rig.dev->n_queues : 1;
}

/* A name that only this process has: the kernel's choice. */
static void listen_anywhere(struct front_end *front)
{
	const struct sockaddr_un any = { .sun_family = AF_UNIX };

	front->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(front->listen_fd, 0);
	ck_assert_int_eq(bind(front->listen_fd, (const struct sockaddr *)&any,
			      sizeof(any.sun_family)),
			 0);
	ck_assert_int_eq(listen(front->listen_fd, 8), 0);
}

void front_dial_by(struct front_end *front, int fd)
{
	struct sockaddr_un addr;
	socklen_t size = sizeof(addr);

	ck_assert_int_eq(getsockname(front->listen_fd, (struct sockaddr *)&addr,
				     &size),
			 0);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&addr, size), 0);
}

int front_dial(struct front_end *front)
{
	const struct timeval bound = { .tv_sec = WAIT_MS / 1000 };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	front_dial_by(front, fd);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	return fd;
}

void front_connect(struct front_end *front)
{
	front->acks = false;
	front->fd = front_dial(front);
}

static void open_lines(struct front_end *front)
{
	front->rig.kick_fds = front->kicks;
	front->inflight_fd = -1;
	for (unsigned int i = 0; i < KTVBLK_QUEUES_MAX; i++) {
		front->kicks[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		front->calls[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		front->errors[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	listen_anywhere(front);
}

void front_attach(struct front_end *front, const struct rig *rig)
{
	memset(front, 0, sizeof(*front));
	front->rig = *rig;
	open_lines(front);
	ck_assert_int_eq(ktvblk_vhost_user_start(front->rig.dev,
						 front->listen_fd, 0),
			 0);
	front_connect(front);
}

void front_open(struct front_end *front, const struct rig_options *options)
{
	struct rig_options shared = *options;
	struct rig rig;

	shared.shared = shared.no_memory = true;
	rig_open(&rig, &shared);
	front_attach(front, &rig);
}

void front_disconnect(struct front_end *front)
{
	close(front->fd);
	front->fd = -1;
}

void front_open_alone(struct front_end *front, uint16_t queue_size)
{
	struct rig *rig = &front->rig;

	memset(front, 0, sizeof(*front));
	front->fd = -1;
	rig->options.queue_size = queue_size;
	rig->ram_fd = memfd_create("ram", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(rig->ram_fd, RIG_RAM_BYTES), 0);
	rig->ram = mmap(NULL, RIG_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			rig->ram_fd, 0);
	ck_assert_ptr_ne(rig->ram, MAP_FAILED);
	rig->n_regions = 1;
	rig->regions[0] = (struct ktvblk_region){ .host_addr = rig->ram,
						  .size = RIG_RAM_BYTES };
	open_lines(front);
}

static void close_lines(struct front_end *front)
{
	closep(&front->fd);
	closep(&front->listen_fd);
	closep(&front->inflight_fd);
	for (unsigned int i = 0; i < KTVBLK_QUEUES_MAX; i++) {
		close(front->kicks[i]);
		close(front->calls[i]);
		close(front->errors[i]);
	}
}

void front_free(struct front_end *front)
{
	close_lines(front);
	rig_free(&front->rig);
}

void front_free_alone(struct front_end *front)
{
	close_lines(front);
	munmap(front->rig.ram, RIG_RAM_BYTES);
	close(front->rig.ram_fd);
}

void front_close(struct front_end *front)
{
	front->rig.dev->destroy_timeout_ms = WAIT_MS;
	ck_assert_int_eq(rig_destroy(&front->rig), KTVBLK_JOINED);
	front_free(front);
}

void front_send(struct front_end *front, uint32_t request, uint32_t flags,
		const void *payload, size_t size, const int *fds, size_t n_fds)
{
	struct vu_header header = { request, flags | VU_VERSION,
				    (uint32_t)size };
	struct iovec iov[] = { { &header, sizeof(header) },
			       { (void *)(uintptr_t)payload, size } };
	char control[CMSG_SPACE(64 * sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (n_fds) {
		struct cmsghdr *cmsg = (struct cmsghdr *)(void *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	ck_assert_int_eq(sendmsg(front->fd, &msg, MSG_NOSIGNAL),
			 (ssize_t)(sizeof(header) + size));
}

size_t front_receive(struct front_end *front, uint32_t request,
		     union vu_payload *ret_payload, int *ret_fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct vu_header header;
	struct iovec iov = { &header, sizeof(header) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;

	ck_assert_int_eq(recvmsg(front->fd, &msg,
				 MSG_WAITALL | MSG_CMSG_CLOEXEC),
			 sizeof(header));
	ck_assert_uint_eq(header.request, request);
	ck_assert_uint_eq(header.flags, VU_VERSION | VU_REPLY);
	ck_assert_uint_le(header.size, sizeof(*ret_payload));
	cmsg = CMSG_FIRSTHDR(&msg);
	if (ret_fd) {
		ck_assert_ptr_nonnull(cmsg);
		memcpy(ret_fd, CMSG_DATA(cmsg), sizeof(*ret_fd));
	} else {
		ck_assert_ptr_null(cmsg);
	}
	ck_assert_int_eq(recv(front->fd, ret_payload, header.size, MSG_WAITALL),
			 header.size);
	return header.size;
}

void front_expect_closed(struct front_end *front)
{
	char bytes[256];
	ssize_t n;

	do
		n = recv(front->fd, bytes, sizeof(bytes), 0);
	while (n > 0);
	ck_assert_msg(n == 0 || errno == ECONNRESET, "it is not closed: %s",
		      strerror(errno));
	front_disconnect(front);
}

void front_tell(struct front_end *front, uint32_t request, const void *payload,
		size_t size, int fd)
{
	union vu_payload answer;

	front_send(front, request, front->acks ? VU_NEED_REPLY : 0, payload,
		   size, &fd, fd >= 0);
	if (!front->acks)
		return;
	ck_assert_uint_eq(front_receive(front, request, &answer, NULL),
			  sizeof(answer.u64));
	ck_assert_uint_eq(answer.u64, 0);
}

void front_tell_u64(struct front_end *front, uint32_t request, uint64_t value,
		    int fd)
{
	front_tell(front, request, &value, sizeof(value), fd);
}

void front_tell_queue(struct front_end *front, uint32_t request,
		      unsigned int queue, uint32_t num)
{
	const struct vhost_vring_state state = { queue, num };

	front_tell(front, request, &state, sizeof(state), -1);
}

uint64_t front_ask(struct front_end *front, uint32_t request)
{
	union vu_payload answer;

	front_send(front, request, 0, NULL, 0, NULL, 0);
	ck_assert_uint_eq(front_receive(front, request, &answer, NULL),
			  sizeof(answer.u64));
	return answer.u64;
}

void front_negotiate(struct front_end *front)
{
	const uint64_t offered = front_ask(front, VU_GET_FEATURES);
	const uint64_t protocol = front->protocol ? front->protocol : PROTOCOL;
	uint64_t features = UINT64_C(1) << VU_F_PROTOCOL_FEATURES |
			    RIG_VERSION_1 | front->rig.options.features |
			    front->features;

	ck_assert(offered >> VU_F_PROTOCOL_FEATURES & 1);
	if (!front->rig.options.no_flush)
		features |= offered & UINT64_C(1) << VIRTIO_BLK_F_FLUSH;
	ck_assert_uint_eq(front_ask(front, VU_GET_PROTOCOL_FEATURES) & protocol,
			  protocol);
	front_tell_u64(front, VU_SET_PROTOCOL_FEATURES, protocol, -1);
	front->acks = protocol >> VU_P_REPLY_ACK & 1;
	front_tell(front, VU_SET_OWNER, NULL, 0, -1);
	front_tell_u64(front, VU_SET_FEATURES, features, -1);
}

void front_set_memory(struct front_end *front)
{
	const struct rig *rig = &front->rig;
	int fds[VU_TABLE_REGIONS];
	struct vu_table table = { .n_regions = (uint32_t)rig->n_regions };
	union vu_payload answer;

	for (size_t i = 0; i < rig->n_regions; i++) {
		const struct ktvblk_region *region = &rig->regions[i];

		fds[i] = rig->ram_fd;
		table.regions[i] = (struct vu_region){
			.guest_addr = region->guest_addr,
			.size = region->size,
			.user_addr = FRONT_USER + region->guest_addr,
			.mmap_offset =
				(uint64_t)((unsigned char *)region->host_addr -
					   rig->ram),
		};
	}
	front_send(front, VU_SET_MEM_TABLE, front->acks ? VU_NEED_REPLY : 0,
		   &table, 8 + rig->n_regions * sizeof(struct vu_region), fds,
		   rig->n_regions);
	if (!front->acks)
		return;
	front_receive(front, VU_SET_MEM_TABLE, &answer, NULL);
	ck_assert_uint_eq(answer.u64, 0);
}

void front_set_up_queue(struct front_end *front, unsigned int queue,
			uint16_t base)
{
	const uint64_t at = FRONT_USER + queue * RIG_QUEUE_BYTES;
	const struct vhost_vring_addr addr = {
		.index = queue,
		.desc_user_addr = at + RIG_DESC,
		.avail_user_addr = at + RIG_AVAIL,
		.used_user_addr = at + RIG_USED,
	};

	front_tell_queue(front, VU_SET_VRING_NUM, queue,
			 front->rig.options.queue_size);
	front_tell_queue(front, VU_SET_VRING_BASE, queue, base);
	front_tell(front, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	front_tell_u64(front, VU_SET_VRING_ERR, queue, front->errors[queue]);
	front_tell_u64(front, VU_SET_VRING_CALL, queue, front->calls[queue]);
	front_tell_u64(front, VU_SET_VRING_KICK, queue, front->kicks[queue]);
}

void front_enable(struct front_end *front, unsigned int queue, bool enable)
{
	front_tell_queue(front, VU_SET_VRING_ENABLE, queue, enable);
}

/* Of rings that are clear. */
void front_start(struct front_end *front)
{
	struct rig *rig = &front->rig;

	front_negotiate(front);
	front_set_memory(front);
	if (front->inflight_fd >= 0)
		front_set_inflight(front);
	for (unsigned int i = n_queues(front); i-- > 0;) {
		rig_select(rig, i);
		rig->avail_idx = rig->used_seen = 0;
		memset(rig_at(rig, RIG_AVAIL + i * RIG_QUEUE_BYTES), 0, 0x1000);
		memset(rig_at(rig, RIG_USED + i * RIG_QUEUE_BYTES), 0, 0x1000);
		front_set_up_queue(front, i, 0);
		front_enable(front, i, true);
	}
}

void front_start_again(struct front_end *front, uint16_t base)
{
	if (front->inflight_fd >= 0)
		front_set_inflight(front);
	front_set_up_queue(front, front->rig.queue, base);
	front_enable(front, front->rig.queue, true);
}

uint16_t front_stop(struct front_end *front, unsigned int queue)
{
	const struct vhost_vring_state state = { queue, 0 };
	union vu_payload answer;

	front_send(front, VU_GET_VRING_BASE, 0, &state, sizeof(state), NULL, 0);
	ck_assert_uint_eq(front_receive(front, VU_GET_VRING_BASE, &answer,
					NULL),
			  sizeof(answer.state));
	ck_assert_uint_eq(answer.state.index, queue);
	ck_assert_uint_le(answer.state.num, UINT16_MAX);
	return (uint16_t)answer.state.num;
}

void front_get_inflight(struct front_end *front)
{
	const struct vu_inflight asked = {
		.n_queues = (uint16_t)n_queues(front),
		.queue_size = front->rig.options.queue_size,
	};
	union vu_payload answer;

	closep(&front->inflight_fd);
	front_send(front, VU_GET_INFLIGHT_FD, 0, &asked, VU_INFLIGHT_BYTES,
		   NULL, 0);
	ck_assert_uint_eq(front_receive(front, VU_GET_INFLIGHT_FD, &answer,
					&front->inflight_fd),
			  VU_INFLIGHT_BYTES);
	front->inflight = answer.inflight;
}

void front_set_inflight(struct front_end *front)
{
	front_tell(front, VU_SET_INFLIGHT_FD, &front->inflight,
		   VU_INFLIGHT_BYTES, front->inflight_fd);
}

/* What the transport's thread has waited for a processor, ever. */
static uint64_t thread_waited_ns(void)
{
	const pid_t tid = find_thread("ktvblk-vu-");
	unsigned long long ran, waited = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)tid);
	file = fopen(path, "re");
	if (file && fscanf(file, "%llu %llu", &ran, &waited) != 2)
		waited = 0;
	if (file)
		fclose(file);
	return waited;
}

uint64_t front_clock_start(struct front_end *front)
{
	front->waited_ns = thread_waited_ns();
	return clock_start();
}

uint64_t front_bound_ms(const struct front_end *front, uint64_t ms)
{
	return bound_ms(ms) +
	       (thread_waited_ns() - front->waited_ns) / NSEC_PER_MSEC;
}

uint64_t front_take_calls(struct front_end *front, unsigned int queue)
{
	uint64_t n = 0;

	if (read(front->calls[queue], &n, sizeof(n)) < 0)
		ck_assert_int_eq(errno, EAGAIN);
	return n;
}

uint64_t front_ram_sum(const struct front_end *front)
{
	const uint64_t *word = (const uint64_t *)(const void *)front->rig.ram;
	uint64_t sum = 0;

	for (size_t i = 0; i < RIG_RAM_BYTES / sizeof(*word); i++)
		sum = sum * 0x100000001b3u +
		      __atomic_load_n(&word[i], __ATOMIC_RELAXED);
	return sum;
}

/* By the inode, which other memory has not. */
uint64_t front_mapped(const struct front_end *front)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long long start, end;
	unsigned long inode;
	uint64_t bytes = 0;
	char line[512];
	struct stat st;

	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fstat(front->rig.ram_fd, &st), 0);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%llx-%llx %*s %*s %*s %lu", &start, &end,
			   &inode) == 3 &&
		    inode == st.st_ino && strstr(line, "memfd:ram"))
			bytes += end - start;
	fclose(file);
	return bytes - RIG_RAM_BYTES;
}
