/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The transport's first moment and its last: a start that fails leaves the device
 * to who may try again, and a destroy waits for the transport's thread no longer
 * than it has time; then that thread ends the device.
 */

/* wrap: calloc eventfd fcntl pthread_create */

#include <sys/socket.h>
#include <sys/un.h>

#include "device.h"
#include "faults.h"
#include "front-end.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_EVENTFD
WRAP_PTHREAD_CREATE

/* Its third argument is a number, or not there. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, long arg);
static struct fault fcntl_fault;

int __wrap_fcntl(int fd, int command, long arg)
{
	return fault_hits(&fcntl_fault, 0) ? -1
					   : __real_fcntl(fd, command, arg);
}

/* By a socket that listens, or one that is connected. */
static int try(struct ktvblk_dev *dev, bool listens)
{
	const struct sockaddr_un any = { .sun_family = AF_UNIX };
	int pair[2], r;

	if (!listens) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, pair),
				 0);
	} else {
		pair[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		pair[1] = -1;
		ck_assert_int_eq(bind(pair[0], (const struct sockaddr *)&any,
				      sizeof(any.sun_family)),
				 0);
		ck_assert_int_eq(listen(pair[0], 1), 0);
	}
	r = ktvblk_vhost_user_start(dev, pair[0], 0);
	close(pair[0]);
	closep(&pair[1]);
	return r;
}

static const struct {
	struct fault *fault;
	int error;
} calls[] = {
	{ &calloc_fault, ENOMEM },
	{ &fcntl_fault, EMFILE },
	{ &eventfd_fault, EMFILE },
	{ &pthread_create_fault, EAGAIN },
};

/* The transport's own calls come after it. */
static unsigned int walk(struct rig *rig, unsigned int call, bool listens)
{
	struct fault *fault = calls[call].fault;
	unsigned int points = 0;

	for (;; points++) {
		const unsigned int fds = count_fds();
		int r;

		fault_set(fault,
			  &(struct fault_when){ .error = calls[call].error,
						.skip = points,
						.here = true });
		r = try(rig->dev, listens);
		fault_clear(fault);
		if (r == 0)
			return points;
		ck_assert_int_eq(r, -calls[call].error);
		ck_assert_uint_eq(count_fds(), fds);
		ck_assert_int_eq(ktvblk_vhost_user_ended_fd(rig->dev), -EINVAL);
	}
}

START_TEST(a_start_that_fails_leaves_all_as_it_was)
{
	struct recorder rec;

	/* The journal would keep a descriptor of its own. */
	wedge_record(&rec);
	for (unsigned int call = 0; call < ARRAY_SIZE(calls); call++)
		for (int listens = 0; listens < 2; listens++) {
			struct rig rig;

			rig_open(&rig,
				 &(struct rig_options){ .no_memory = true });
			ck_assert_uint_ge(walk(&rig, call, listens), 1);
			rig_close(&rig);
		}
	recorder_stop(&rec);
}
END_TEST

START_TEST(a_destroy_has_its_own_time_beside_a_stop_under_way)
{
	const struct vhost_vring_state state = { 0 };
	struct front_end front;
	struct traces before = traces_now();
	struct recorder rec;
	uint64_t start_ns;

	wedge_record(&rec);
	front_open(&front, &(struct rig_options){
				   .config = { .reset_timeout_ms = 2000,
					       .destroy_timeout_ms = 10 } });
	front_start(&front);
	wedge(&front.rig, VIRTIO_BLK_T_IN, 1);
	front_send(&front, VU_GET_VRING_BASE, 0, &state, sizeof(state), NULL,
		   0);
	/* Its thread is in there, and has no ear for anything else. */
	ck_assert(eventually(
		atomic_load(&front.rig.dev->queues[0].session->stop)));
	start_ns = front_clock_start(&front);
	ck_assert_int_eq(rig_destroy(&front.rig), KTVBLK_TIMED_OUT);
	ck_assert_uint_lt(ms_since(start_ns), front_bound_ms(&front, 500));
	storage_let_go(front.rig.storage);
	/* By that thread, once it is through. */
	ck_assert(eventually(front_mapped(&front) == 0));
	front_free(&front);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}
END_TEST

TEST_PROGRAM("vu-start", a_start_that_fails_leaves_all_as_it_was,
	     a_destroy_has_its_own_time_beside_a_stop_under_way)
