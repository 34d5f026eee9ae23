/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A vhost-user front end that says anything: the input is a list of messages, each
 * as it should be and then changed, with descriptors of any kind, and of what is
 * done to rings between them. Whatever comes, the device ends JOINED, with no
 * descriptor more than before, and none of the front end's memory is mapped.
 *
 * The threads are real, so the same input may do something else the next time.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "ktvblk.h"
#include "null-store.h"
#include "reach.h"
#include "util.h"
#include "vhost-user/protocol.h"

/* wrap: log_emit */

#define RAM_BYTES (64u << 10)
#define USER UINT64_C(0x10000000)
#define FDS 8u

static const enum event nothing[] = { EVENT_COUNT };
const struct reach reach = { .first = EVENT_VHOST_USER_CLOSED,
			     .last = EVENT_VHOST_USER_CLOSED,
			     .but = nothing,
			     .no_chains = true };

static int ram_fd;
static unsigned char *ram;
static int kinds[FDS]; /* descriptors that can come along */
static struct ktvblk_dev *keep; /* so that the log thread stays */

static struct ktvblk_dev *make_device(uint32_t n_queues)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev = NULL;

	config.n_queues = n_queues;
	config.reset_timeout_ms = config.destroy_timeout_ms = 60000;
	config.backend = null_store();
	if (ktvblk_new(&config, &dev) < 0)
		abort();
	ktvblk_backend_unref(config.backend);
	return dev;
}

static void ignore(const struct ktvblk_record *record, void *userdata)
{
	(void)record;
	(void)userdata;
}

static void set_up(void)
{
	int pipe_fds[2];

	ktvblk_set_log_handler(ignore, NULL, NULL);
	keep = make_device(1);
	ram_fd = memfd_create("ram", MFD_CLOEXEC);
	if (ram_fd < 0 || ftruncate(ram_fd, RAM_BYTES) < 0 ||
	    pipe(pipe_fds) < 0)
		abort();
	ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd,
		   0);
	kinds[0] = kinds[1] = ram_fd;
	kinds[2] = kinds[3] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kinds[4] = pipe_fds[0];
	kinds[5] = pipe_fds[1];
	kinds[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	kinds[7] = open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* A message as it should be: its size. */
static uint32_t good(uint32_t request, union vu_payload *payload,
		     struct fuzz_input *input)
{
	const uint8_t index = fuzz_u8(input);

	memset(payload, 0, sizeof(*payload));
	switch (request) {
	case VU_SET_FEATURES:
		payload->u64 = UINT64_C(1) << 32 | UINT64_C(1) << 30 |
			       (uint64_t)(index & 1) << 26;
		return 8;
	case VU_SET_PROTOCOL_FEATURES:
		payload->u64 = 0x1d20b;
		return 8;
	case VU_SET_MEM_TABLE:
		payload->table.n_regions = 1;
		payload->table.regions[0] =
			(struct vu_region){ .size = RAM_BYTES,
					    .user_addr = USER };
		return 8 + 32;
	case VU_ADD_MEM_REG:
	case VU_REM_MEM_REG:
		payload->slot.region = (struct vu_region){
			.guest_addr = (uint64_t)index * 4096,
			.size = RAM_BYTES,
			.user_addr = USER + (uint64_t)index * 4096,
		};
		return sizeof(payload->slot);
	case VU_SET_VRING_ADDR:
		payload->addr = (struct vhost_vring_addr){
			.index = index & 3,
			.desc_user_addr = USER,
			.avail_user_addr = USER + 0x1000,
			.used_user_addr = USER + 0x2000,
		};
		return sizeof(payload->addr);
	case VU_SET_VRING_NUM:
		payload->state = (struct vhost_vring_state){ index & 3, 16 };
		return 8;
	case VU_SET_VRING_BASE:
	case VU_GET_VRING_BASE:
	case VU_GET_VRING_BASE_SKIP_DRAIN:
	case VU_VRING_KICK:
		payload->state = (struct vhost_vring_state){ index & 3, 0 };
		return 8;
	case VU_SET_VRING_ENABLE:
		payload->state =
			(struct vhost_vring_state){ index & 3, !(index & 8) };
		return 8;
	case VU_SET_VRING_KICK:
	case VU_SET_VRING_CALL:
	case VU_SET_VRING_ERR:
		payload->u64 = index & 3;
		return 8;
	case VU_SET_LOG_BASE:
		payload->log = (struct vu_log){ .size = index };
		return sizeof(payload->log);
	case VU_GET_CONFIG:
	case VU_SET_CONFIG:
		payload->config.size = index;
		return 12u + index;
	case VU_GET_INFLIGHT_FD:
	case VU_SET_INFLIGHT_FD:
		payload->inflight = (struct vu_inflight){
			.mmap_size = RAM_BYTES, .n_queues = 4, .queue_size = 16
		};
		return 24;
	case VU_SET_STATUS:
		payload->u64 = index;
		return 8;
	default:
		return 0;
	}
}

/* What of all that is else. */
enum change {
	CHANGE_NEED_REPLY = 1,
	CHANGE_BYTES = 2,
	CHANGE_SIZE = 4,
	CHANGE_FLAGS = 8,
	CHANGE_CUT = 16,
	CHANGE_FDS = 32,
};

static unsigned int usual_fds(uint32_t request, int *fd)
{
	switch (request) {
	case VU_SET_MEM_TABLE:
	case VU_ADD_MEM_REG:
	case VU_SET_INFLIGHT_FD:
	case VU_SET_LOG_BASE:
		*fd = kinds[0];
		return 1;
	case VU_SET_VRING_KICK:
	case VU_SET_VRING_CALL:
	case VU_SET_VRING_ERR:
		*fd = kinds[2];
		return 1;
	case VU_SET_BACKEND_REQ_FD:
		*fd = kinds[6];
		return 1;
	default:
		return 0;
	}
}

static void send_bytes(int fd, const void *bytes, size_t size, const int *fds,
		       unsigned int n_fds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct cmsghdr *cmsg = (struct cmsghdr *)(void *)control;
	struct iovec iov = { (void *)(uintptr_t)bytes, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void message(int fd, struct fuzz_input *input)
{
	unsigned char bytes[sizeof(struct vu_header) + sizeof(union vu_payload)];
	union vu_payload payload;
	struct vu_header header;
	int fds[16];
	unsigned int n_fds;
	uint8_t change;
	size_t size;

	header.request = fuzz_u8(input) % (VU_REQUEST_COUNT + 1u);
	change = fuzz_u8(input);
	header.flags = VU_VERSION;
	header.size = good(header.request, &payload, input);
	n_fds = usual_fds(header.request, fds);
	if (change & CHANGE_NEED_REPLY)
		header.flags |= VU_NEED_REPLY;
	if (change & CHANGE_FLAGS)
		header.flags ^= fuzz_u8(input);
	if (change & CHANGE_SIZE)
		header.size = fuzz_u16(input);
	if (change & CHANGE_BYTES)
		for (uint8_t n = fuzz_u8(input) & 7; n-- > 0;)
			((unsigned char *)&payload)[fuzz_u16(input) %
						    sizeof(payload)] =
				fuzz_u8(input);
	if (change & CHANGE_FDS) {
		n_fds = fuzz_u8(input) & 15;
		for (unsigned int i = 0; i < n_fds; i++)
			fds[i] = kinds[fuzz_u8(input) % FDS];
	}
	size = sizeof(header) + MIN(header.size, (uint32_t)sizeof(payload));
	if (change & CHANGE_CUT)
		size = MIN(size, fuzz_u16(input) % size + 1);
	/* One behind the other, without what the compiler puts between. */
	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), &payload, sizeof(payload));
	send_bytes(fd, bytes, size, fds, n_fds);
}

/* Bytes of guest memory, and a kick. */
static void touch(struct fuzz_input *input)
{
	const uint64_t one = 1;

	for (uint8_t n = fuzz_u8(input) & 31; n-- > 0;) {
		const uint16_t at = fuzz_u16(input);

		__atomic_store_n(&ram[at], fuzz_u8(input), __ATOMIC_RELAXED);
	}
	if (write(kinds[2], &one, sizeof(one)) < 0)
		return;
}

static void read_answers(int fd)
{
	char bytes[512];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct msghdr msg;
	struct cmsghdr *cmsg;
	int got;

	do {
		msg = (struct msghdr){ .msg_iov = &iov,
				       .msg_iovlen = 1,
				       .msg_control = control,
				       .msg_controllen = sizeof(control) };
		if (recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return;
		cmsg = CMSG_FIRSTHDR(&msg);
		if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
			memcpy(&got, CMSG_DATA(cmsg), sizeof(got));
			close(got);
		}
	} while (true);
}

static unsigned int n_fds_now(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	if (!dir)
		abort();
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* Some are closed by the log thread, behind the device. */
static void expect_fds(unsigned int before)
{
	const uint64_t until = now_ns() + 10 * NSEC_PER_SEC;

	while (n_fds_now() != before)
		if (now_ns() >= until)
			abort();
		else
			usleep(100);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	struct ktvblk_dev *dev;
	unsigned int before;
	int pair[2];

	if (!keep)
		set_up();
	memset(ram, 0, RAM_BYTES);
	before = n_fds_now();
	dev = make_device(1 + (fuzz_u8(&input) & 3));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
	    ktvblk_vhost_user_start(dev, pair[0], 0) < 0)
		abort();
	close(pair[0]);
	while (input.left)
		switch (fuzz_u8(&input) & 7) {
		case 0:
			touch(&input);
			break;
		case 1:
			read_answers(pair[1]);
			break;
		default:
			message(pair[1], &input);
		}
	/* It is to get through all of that before it is over. */
	shutdown(pair[1], SHUT_WR);
	for (char byte; recv(pair[1], &byte, 1, 0) > 0;)
		;
	read_answers(pair[1]);
	close(pair[1]);
	if (ktvblk_destroy(dev) != KTVBLK_JOINED)
		abort();
	expect_fds(before);
	return 0;
}
