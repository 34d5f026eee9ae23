/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A session is had whole or not at all, and is started whole or not at all;
 * revoked, it lets nobody in; what it holds it gives back once, the storage
 * before the memory.
 */

/* wrap: calloc eventfd epoll_create1 epoll_ctl timerfd_create */
/* wrap: mmap pthread_create */

#include <fcntl.h>
#include <sys/epoll.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "faults.h"
#include "wedge.h"

WRAP_CALLOC
WRAP_EVENTFD
WRAP_PTHREAD_CREATE
WRAP(int, epoll_create1, (int flags), (flags), 0, -1)
WRAP(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),
     (epfd, op, fd, event), 0, -1)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), 0, -1)
WRAP(void *, mmap,
     (void *addr, size_t len, int prot, int flags, int fd, off_t at),
     (addr, len, prot, flags, fd, at), 0, MAP_FAILED)

/* A session by itself, without a device or a worker. */
struct parts {
	struct disk_id *disk_id;
	struct disk_config disk;
	struct ports *ports;
	struct ktvblk_stats *stats;
	struct disk_throttle *throttle;
	struct era *era;
	struct session *session;
};

static void parts_open(struct parts *parts)
{
	*parts = (struct parts){ .disk_id = disk_id_new("vda", 128) };
	parts->disk.stall_warn_ms = 5000;
	ck_assert_int_eq(ports_new(1, &parts->ports), 0);
	parts->stats = stats_new();
	parts->throttle =
		disk_throttle_new(&(struct ktvblk_throttle){ 0 }, now_ns());
	parts->era = era_new();
}

static int make(struct parts *parts)
{
	const struct session_disk disk = {
		.id = parts->disk_id,
		.config = &parts->disk,
		.ports = parts->ports,
		.stats = parts->stats,
		.throttle = parts->throttle,
	};
	int r = session_new(&disk, 0, &parts->session);

	if (r == 0)
		session_set_era(parts->session, parts->era);
	return r;
}

static void parts_close(struct parts *parts)
{
	session_unref(parts->session);
	era_unref(parts->era);
	disk_throttle_unref(parts->throttle);
	ports_unref(parts->ports);
	ktvblk_stats_unref(parts->stats);
	disk_id_unref(parts->disk_id);
}

START_TEST(a_new_session_is_at_reset_and_has_a_stop_eventfd)
{
	const unsigned int fds = count_fds();
	struct session *session;
	struct parts parts;

	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	session = parts.session;
	ck_assert_uint_eq(session->era->status, 0);
	ck_assert_uint_eq(session->era->interrupt_status, 0);
	ck_assert(!session->stop && !session->revoked && !session->throttled);
	ck_assert_int_eq(session->id.stop_fd, session->stop_fd);
	ck_assert_ptr_eq(session->id.disk, parts.disk_id);
	ck_assert(fcntl(session->stop_fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(session->stop_fd, F_GETFD) & FD_CLOEXEC);
	ck_assert_int_eq(session->epoll_fd, -1);
	ck_assert_int_eq(session->timer_fd, -1);
	ck_assert(!session->has_thread);
	/* It, and the ports' three. */
	ck_assert_uint_eq(count_fds(), fds + 4);
	parts_close(&parts);
	ck_assert_uint_eq(count_fds(), fds);
	ck_assert(eventually(count_threads("ktvblk") == 0));
}
END_TEST

START_TEST(what_a_session_lacks_is_said_and_nothing_is_left)
{
	static const struct {
		struct fault *fault;
		int error;
	} rows[] = { { &calloc_fault, ENOMEM },
		     { &eventfd_fault, EMFILE },
		     { &pthread_create_fault, EAGAIN } };
	struct parts parts;
	unsigned int fds;

	parts_open(&parts);
	fds = count_fds();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fault_set(rows[i].fault,
			  &(struct fault_when){ .error = rows[i].error,
						.here = true });
		ck_assert_int_eq(make(&parts), -rows[i].error);
		ck_assert(fault_over(rows[i].fault));
		ck_assert_ptr_null(parts.session);
		ck_assert_uint_eq(count_fds(), fds);
		ck_assert_uint_eq(parts.disk_id->refs, 1);
		ck_assert_uint_eq(parts.ports->refs, 1);
		ck_assert_uint_eq(parts.stats->refs, 1);
	}
	ck_assert(eventually(count_threads("ktvblk") == 0));
	parts_close(&parts);
}
END_TEST

START_TEST(a_revoked_session_lets_nobody_in)
{
	struct parts parts;

	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	ck_assert(session_enter(parts.session));
	ck_assert(parts.session->gate_held);
	session_leave(parts.session);
	ck_assert(!parts.session->gate_held);
	parts.session->revoked = true;
	ck_assert(!session_enter(parts.session));
	ck_assert(!parts.session->gate_held);
	ck_assert_uint_eq(parts.session->gate.word, 0);
	parts_close(&parts);
}
END_TEST

START_TEST(an_interrupt_sets_its_bits_and_writes_the_irq_eventfd)
{
	uint64_t n = 0;
	struct parts parts;

	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	session_raise(parts.session, VIRTIO_MMIO_INT_VRING);
	session_raise(parts.session, VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(parts.session->era->interrupt_status, 3);
	ck_assert_int_eq(read(parts.ports->irq_fd, &n, sizeof(n)), sizeof(n));
	ck_assert_uint_eq(n, 2);

	/* NEEDS_RESET is added to what is there. */
	parts.session->era->status = S_OK;
	session_needs_reset(parts.session);
	ck_assert_uint_eq(parts.session->era->status,
			  S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_int_eq(read(parts.ports->irq_fd, &n, sizeof(n)), sizeof(n));
	ck_assert_uint_eq(n, 1);
	parts_close(&parts);
}
END_TEST

/* 12.3.6, 12.3.7: many threads at the interrupt status. */

struct raiser {
	struct session *session;
	uint32_t bit;
};

static void *raise_bit(void *arg)
{
	const struct raiser *raiser = (const struct raiser *)arg;

	session_raise(raiser->session, raiser->bit);
	return NULL;
}

/* 12.3.6 */
START_TEST(interrupt_status_concurrent_fetch_or_load)
{
	struct raiser raisers[16];
	pthread_t threads[16];
	struct parts parts;

	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	for (unsigned int i = 0; i < 16; i++) {
		raisers[i] = (struct raiser){ parts.session, 1u << i };
		ck_assert_int_eq(pthread_create(&threads[i], NULL, raise_bit,
						&raisers[i]),
				 0);
	}
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(parts.session->era->interrupt_status, 0xffff);
	parts_close(&parts);
}
END_TEST

static void *raise_config_often(void *arg)
{
	for (int i = 0; i < 2000; i++)
		session_raise((struct session *)arg, VIRTIO_MMIO_INT_CONFIG);
	return NULL;
}

/* 12.3.7 and 12.3.10, the latter being interrupt_status_is_arc_shareable */
START_TEST(interrupt_status_concurrent_set_and_ack)
{
	pthread_t thread;
	struct rig rig;

	rig_open(&rig, NULL);
	session_raise(rig.dev->queues[0].session, VIRTIO_MMIO_INT_VRING);
	ck_assert_int_eq(pthread_create(&thread, NULL, raise_config_often,
					rig.dev->queues[0].session),
			 0);
	for (int i = 0; i < 2000; i++)
		rig_write(&rig, VIRTIO_MMIO_INTERRUPT_ACK,
			  VIRTIO_MMIO_INT_VRING);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(rig_read(&rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG);
	rig_close(&rig);
}
END_TEST

START_TEST(a_throttled_session_is_counted_out_once)
{
	struct parts parts;

	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	session_unthrottle(parts.session);
	ck_assert_uint_eq(parts.stats->currently_throttled, 0);
	parts.stats->currently_throttled = 1;
	parts.session->throttled = true;
	session_unthrottle(parts.session);
	session_unthrottle(parts.session);
	ck_assert_uint_eq(parts.stats->currently_throttled, 0);
	parts_close(&parts);
}
END_TEST

/* Which release callback ran, in their order. */
static char released[8];

static void note(void *userdata)
{
	const size_t n = strlen(released);

	released[n] = *(const char *)userdata;
}

static ssize_t no_preadv(void *userdata, const struct iovec *iov, int n_iov,
			 uint64_t offset)
{
	(void)userdata, (void)iov, (void)n_iov, (void)offset;
	return 0;
}

static int no_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = 0;
	return 0;
}

static struct ktvblk_backend *noting_backend(void)
{
	const struct ktvblk_backend_ops ops = { .size = sizeof(ops),
						.preadv = no_preadv,
						.capacity = no_capacity,
						.release = note };
	struct ktvblk_backend *backend;

	ck_assert_int_eq(
		ktvblk_backend_new(&ops, (void *)(uintptr_t) "s", &backend), 0);
	return backend;
}

static struct ktvblk_mem *noting_mem(void)
{
	static _Alignas(4096) unsigned char page[4096];
	const struct ktvblk_region region = { .host_addr = page,
					      .size = sizeof(page) };
	struct ktvblk_mem *mem;

	ck_assert_int_eq(ktvblk_mem_new(&region, 1, note,
					(void *)(uintptr_t) "m", &mem),
			 0);
	return mem;
}

START_TEST(storage_is_released_before_memory_and_each_once)
{
	struct ktvblk_backend *backend;
	struct parts parts;

	memset(released, 0, sizeof(released));
	parts_open(&parts);
	ck_assert_int_eq(make(&parts), 0);
	backend = noting_backend();
	parts.session->holdings = holdings_new(backend);
	ktvblk_backend_unref(backend);
	parts.session->holdings->mem = noting_mem();
	session_release(parts.session);
	ck_assert_str_eq(released, "sm");
	session_release(parts.session);
	ck_assert_str_eq(released, "sm");
	ck_assert_ptr_null(parts.session->backend);
	ck_assert_ptr_null(parts.session->mem);
	parts_close(&parts);
}
END_TEST

/*
 * Starting, at a device
 */

static const struct start_row {
	struct fault *fault;
	unsigned int skip;
	int error;
	const char *step;
} start_rows[] = {
	{ &epoll_create1_fault, 0, EMFILE, "epoll" },
	{ &timerfd_create_fault, 0, ENFILE, "timer" },
	{ &epoll_ctl_fault, 0, ENOSPC, "epoll: kick" },
	{ &epoll_ctl_fault, 1, ENOMEM, "epoll: stop" },
	{ &epoll_ctl_fault, 2, ENOSPC, "epoll: timer" },
	{ &calloc_fault, 0, ENOMEM, "watch" },
	{ &mmap_fault, 0, ENOMEM, "memory" },
	{ &calloc_fault, 1, ENOMEM, "engine" },
	{ &pthread_create_fault, 0, EAGAIN, "thread" },
};

static void expect_start_failure(struct rig *rig, struct recorder *rec,
				 const struct start_row *row)
{
	const struct kept_record *record;
	const unsigned int fds = count_fds();

	rig_prepare(rig);
	fault_set(row->fault, &(struct fault_when){ .error = row->error,
						    .skip = row->skip,
						    .here = true });
	rig_write(rig, VIRTIO_MMIO_STATUS, S_OK);
	ck_assert_msg(fault_over(row->fault), "%s was not tried", row->step);
	ck_assert_uint_eq(rig_status(rig), S_OK | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS),
			  VIRTIO_MMIO_INT_CONFIG);
	ck_assert_uint_eq(rig_irqs(rig), 1);
	ck_assert_int_eq(ktvblk_get_state(rig->dev), KTVBLK_STATE_NEEDS_RESET);
	ck_assert_int_eq(ktvblk_is_paused(rig->dev), 1);

	record = recorder_find(rec, KTVBLK_MESSAGE_START_FAILED);
	ck_assert_ptr_nonnull(record);
	ck_assert_str_eq(kept_field(record, "KTVBLK_STEP"), row->step);
	expect_number(record, "ERRNO", row->error);
	ck_assert_int_eq(record->priority, LOG_WARNING);
	expect_number(record, "STOP_FD", rig_identity(rig).stop_fd);

	/* Nothing was kept, and nobody works. */
	ck_assert_uint_eq(count_fds(), fds);
	ck_assert_ptr_null(rig->dev->queues[0].session->holdings);
	ck_assert_ptr_null(rig->dev->queues[0].session->backend);
	ck_assert_ptr_null(rig->dev->queues[0].session->mem);
	ck_assert_uint_eq(rig->dev->ports->account, 0);
}

static void check_start_failure(const struct start_row *row, uint64_t flags)
{
	const struct traces before = traces_now();
	struct recorder rec;
	struct rig rig;

	wedge_record(&rec);
	wedge_open_idle(&rig, WAIT_MS, flags);
	expect_start_failure(&rig, &rec, row);
	recorder_clear(&rec);

	/* The guest resets and starts again. */
	rig_reset(&rig);
	ck_assert_uint_eq(rig_status(&rig), 0);
	rig_start(&rig);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_int_eq(recorder_count(&rec, NULL), 0);
	rig_close(&rig);

	/* And once more, to be destroyed in that state. */
	wedge_open_idle(&rig, WAIT_MS, flags);
	expect_start_failure(&rig, &rec, row);
	rig_close(&rig);
	traces_expect_gone(&before);
	recorder_stop(&rec);
}

START_TEST(a_start_that_fails_says_where_and_the_next_one_works)
{
	for (size_t i = 0; i < ARRAY_SIZE(start_rows); i++) {
		check_start_failure(&start_rows[i], 0);
		check_start_failure(&start_rows[i], KTVBLK_ZERO_COPY);
	}
}
END_TEST

/* Of storage that answers later. */
START_TEST(an_engine_that_fails_leaves_nothing)
{
	const struct ktvblk_backend backend = { .fd = -1 };
	const unsigned int fds = count_fds();

	fault_set(&eventfd_fault, &(struct fault_when){ .error = EMFILE });
	ck_assert_ptr_null(engine_submit_new(&backend));
	ck_assert_int_eq(errno, EMFILE);
	fault_set(&calloc_fault,
		  &(struct fault_when){ .error = ENOMEM, .here = true });
	ck_assert_ptr_null(engine_submit_new(&backend));
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_uint_eq(count_fds(), fds);
}
END_TEST

/* One of a disk that can be written has it for zeros. */
START_TEST(a_zero_copy_session_has_no_buffer)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, KTVBLK_ZERO_COPY | KTVBLK_READ_ONLY);
	ck_assert_ptr_null(rig.dev->queues[0].session->pages.bounce);
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	rig_close(&rig);
}
END_TEST

/* What is written to the queue's registers later is for the next session. */
START_TEST(a_start_latches_the_ring)
{
	struct rig rig;

	wedge_open(&rig, WAIT_MS, 0);
	rig.dev->queues[0].config.size = 4;
	rig.dev->queues[0].config.avail_addr = 0x7000;
	rig.dev->queues[0].config.ready = false;
	ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 512), 0);
	ck_assert_uint_eq(rig.dev->queues[0].session->vq.ring.size, 16);
	rig_close(&rig);
}
END_TEST

TEST_PROGRAM("session", a_new_session_is_at_reset_and_has_a_stop_eventfd,
	     what_a_session_lacks_is_said_and_nothing_is_left,
	     a_revoked_session_lets_nobody_in,
	     an_interrupt_sets_its_bits_and_writes_the_irq_eventfd,
	     interrupt_status_concurrent_fetch_or_load,
	     interrupt_status_concurrent_set_and_ack,
	     a_throttled_session_is_counted_out_once,
	     storage_is_released_before_memory_and_each_once,
	     a_start_that_fails_says_where_and_the_next_one_works,
	     an_engine_that_fails_leaves_nothing,
	     a_zero_copy_session_has_no_buffer, a_start_latches_the_ring)
