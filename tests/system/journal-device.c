/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Events of a device's life: its end, its worker, its set-up. Two cannot be had
 * from outside and are made by log_event() itself: STATUS_CONTENDED and
 * STATUS_GUEST_FAILED_CONTENDED. For these a status would have to change under
 * a compare-exchange several times and yet allow the same step each time.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "device.h"
#include "harness.h"
#include "journal-events.h"
#include "runner.h"
#include "watch.h"
#include "wedge.h"
#include "worker.h"

/*
 * No descriptor can be had. By the log thread neither: one record goes before,
 * so that libsystemd has its socket.
 */
static void without_fds(struct rig *rig, void (*run)(struct rig *rig))
{
	struct rlimit limit, none;

	log_event(&rig->dev->queues[0].session->id, PAUSE_NO_WORKER);
	ck_assert_int_eq(ktvblk_log_flush(WAIT_MS), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){ 0, limit.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	run(rig);
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* As if the VMM had closed it, and got the number for something else. */
static void make_unwritable(int fd)
{
	const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(null, 0);
	ck_assert_int_eq(dup2(null, fd), fd);
	close(null);
}

static struct latch kicked;

static void destroy(struct rig *rig)
{
	ktvblk_destroy(rig->dev);
	rig->dev = NULL;
}

static void start_without_fds(struct rig *rig)
{
	set_status(rig, S_OK);
}

static void worker_quits(struct storage *storage, enum storage_op op)
{
	(void)storage;
	(void)op;
	pthread_exit(NULL);
}

/* Not before the kick is through, which needs the device. */
static void worker_destroys(struct storage *storage, enum storage_op op)
{
	(void)op;
	ck_assert(latch_wait(&kicked, WAIT_MS));
	destroy((struct rig *)storage->hook_data);
}

/*
 * Teardown
 */

static void full_stop_fd(struct rig *rig)
{
	fill_eventfd(rig_identity(rig).stop_fd);
	rig_reset(rig);
}

static void foreign_stop_fd(struct rig *rig)
{
	make_unwritable(rig_identity(rig).stop_fd);
	rig_reset(rig);
}

static void panic(struct rig *rig)
{
	rig->storage->hook = worker_quits;
	start_and_submit(rig, IN, 7, 512);
	wait_needs_reset(rig);
}

/* It may still be on its way out, and the budget is short. */
static void panic_and_end(struct rig *rig)
{
	panic(rig);
	ck_assert(eventually(!worker_tid(rig)));
}

static void panic_reset(struct rig *rig)
{
	panic_and_end(rig);
	rig_reset(rig);
}

static void panic_destroy(struct rig *rig)
{
	panic_and_end(rig);
	destroy(rig);
}

static void hang_reset(struct rig *rig)
{
	hang(rig);
	rig_reset(rig);
}

static void hang_destroy(struct rig *rig)
{
	hang(rig);
	destroy(rig);
}

static void hang_reset_no_threads(struct rig *rig)
{
	hang(rig);
	faults.no_threads = true;
	rig_reset(rig);
}

static void hang_destroy_no_threads(struct rig *rig)
{
	hang(rig);
	faults.no_threads = true;
	destroy(rig);
}

static void reset_no_join(struct rig *rig)
{
	hang(rig); /* or it might be gone all the same */
	faults.no_join = true;
	rig_reset(rig);
}

static void destroy_itself(struct rig *rig)
{
	latch_init(&kicked);
	rig->storage->hook = worker_destroys;
	rig->storage->hook_data = rig;
	start_and_submit(rig, IN, 7, 512);
	latch_set(&kicked);
}

static void reclaim(struct rig *rig)
{
	hang_reset(rig);
	storage_let_go(rig->storage);
}

static void restart(struct rig *rig)
{
	hang_reset(rig);
	rig_start(rig);
}

static void destroy_behind_reset(struct rig *rig)
{
	hang_reset(rig);
	destroy(rig);
}

/*
 * A worker's life
 */

static void fail_to_start(struct rig *rig)
{
	rig_prepare(rig);
	without_fds(rig, start_without_fds);
}

static void misplace(struct rig *rig)
{
	const uint32_t cpu = 5000;

	ck_assert_int_eq(ktvblk_set_worker_cpus(rig->dev, &cpu, 1), 0);
}

/* Seen once it sleeps, however long that took. */
static void stall(struct rig *rig)
{
	case_hides_stalls = true;
	hang(rig);
	case_hides_stalls = false;
}

static void resume(struct rig *rig)
{
	const struct watch *watch;

	hang(rig);
	/* It is one before it is found: a bit of the word. */
	watch = rig->dev->queues[0].session->watch;
	ck_assert(eventually(atomic_load(&watch->slots[0].word) & 2u));
	storage_let_go(rig->storage);
}

static void fail_epoll(struct rig *rig)
{
	rig_start(rig);
	rig_sync(rig);
	faults.epoll_fails = true;
	rig_kick(rig);
	wait_needs_reset(rig);
}

static void refuse_ring(struct rig *rig)
{
	faults.no_ring = true;
	start_and_submit(rig, IN, 0, 512);
}

static void epoll_error(struct rig *rig)
{
	faults.epoll_adds = EPOLLERR;
	rig_start(rig);
	rig_kick(rig);
}

static void epoll_hangup(struct rig *rig)
{
	faults.epoll_adds = EPOLLHUP;
	rig_start(rig);
	rig_kick(rig);
}

static void epoll_stranger(struct rig *rig)
{
	faults.epoll_token = 77;
	rig_start(rig);
	rig_kick(rig);
}

static void fail_kick_read(struct rig *rig)
{
	faults.read_fails = true;
	rig_start(rig);
	rig_kick(rig);
}

static void fail_timer_read(struct rig *rig)
{
	faults.epoll_token = TOKEN_TIMER;
	fail_kick_read(rig);
}

static void throttled(struct rig *rig)
{
	const uint16_t heads[] = { 0, 4 };

	rig_start(rig);
	rig_chain(rig, 0, IN, 0, 512);
	rig_chain(rig, 4, IN, 0, 512);
	rig_avail_all(rig, heads, ARRAY_SIZE(heads));
	rig_kick(rig);
}

static void fail_timer_set(struct rig *rig)
{
	faults.timer_fails = true;
	throttled(rig);
}

static void tokens_at_once(struct rig *rig)
{
	faults.no_tokens = true;
	start_and_submit(rig, IN, 0, 512);
}

static void pause_idle(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, -1), 0);
}

static void pause_foreign_kick(struct rig *rig)
{
	make_unwritable(ktvblk_kick_fd(rig->dev));
	pause_idle(rig);
}

static void pause_foreign_fd(struct rig *rig)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(ktvblk_pause_begin(rig->dev, fd), 0);
}

static void nothing(struct rig *rig)
{
	(void)rig;
}

/*
 * The driver's set-up
 */

static void set_memory_again(struct rig *rig)
{
	struct ktvblk_mem *mem;

	ck_assert_int_eq(ktvblk_mem_new(rig->regions, 1, NULL, NULL, &mem), 0);
	ck_assert_int_eq(ktvblk_set_memory(rig->dev, mem), -EBUSY);
}

static void refresh_in_vain(struct rig *rig)
{
	rig->storage->capacity_error = -EIO;
	ck_assert_int_eq(ktvblk_refresh_capacity(rig->dev), 0);
}

static void status_after_poison(struct rig *rig)
{
	poison(rig);
	set_status(rig, S_OK | NEEDS_RESET | 0x20);
}

static void clear_status_bit(struct rig *rig)
{
	set_status(rig, S_ACK);
	set_status(rig, S_DRV);
	set_status(rig, S_ACK);
}

static void illegal_status(struct rig *rig)
{
	set_status(rig, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void guest_fails(struct rig *rig)
{
	set_status(rig, VIRTIO_CONFIG_S_FAILED);
}

static void twelve_illegal(struct rig *rig)
{
	for (int i = 0; i < 12; i++)
		illegal_status(rig);
	destroy(rig); /* now, or when the next one passes */
}

/* See the head of this file. */
static void contended(struct rig *rig)
{
	log_event(&rig->dev->queues[0].session->id, STATUS_CONTENDED, 1, 3, 4);
}

static void failed_contended(struct rig *rig)
{
	log_event(&rig->dev->queues[0].session->id,
		  STATUS_GUEST_FAILED_CONTENDED, 1, 0x81, 4);
}

static void negotiate(struct rig *rig, uint64_t features)
{
	set_status(rig, S_ACK);
	set_status(rig, S_DRV);
	for (uint32_t i = 0; i < 2; i++) {
		rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
		rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES,
			  (uint32_t)(features >> 32 * i));
	}
	set_status(rig, S_FEAT);
}

static void no_version_1(struct rig *rig)
{
	negotiate(rig, 0x200);
}

static void not_offered(struct rig *rig)
{
	negotiate(rig, RIG_VERSION_1 | 0x80000000);
}

static void queue_size(struct rig *rig)
{
	rig_prepare(rig);
	rig_write(rig, VIRTIO_MMIO_QUEUE_NUM, 3);
}

static void queue_address(struct rig *rig)
{
	rig_prepare(rig);
	rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, 8);
}

#define READ_7 "KTVBLK_REQ_TYPE=in|KTVBLK_SECTOR=7|KTVBLK_LENGTH=512"
#define STUCK                                                                  \
	"|KTVBLK_STUCK_THREADS=1|KTVBLK_STUCK_TID=*|KTVBLK_STUCK_STATE=S"      \
	"|KTVBLK_STUCK_SYSCALL=futex|KTVBLK_STUCK_WCHAN=*"
#define LEFT                                                                   \
	"KTVBLK_TIMEOUT_MS=50|KTVBLK_FENCED=yes|" READ_7                       \
	"|KTVBLK_AGE_MS=*|KTVBLK_IN_FLIGHT=1"
#define PANIC "KTVBLK_PANIC=<no reason given>"
#define STATUSES(now, asked)                                                   \
	"KTVBLK_DEVICE_STATUS=" now "|KTVBLK_REQUESTED=" asked

/* clang-format off */
#define EV(name, how, says, ...)                                               \
	{ .event = EVENT_##name, .provoke = how, .values = says, __VA_ARGS__ }
const struct provoked device_events[] = {
	EV(STOP_RETRIED, full_stop_fd, "KTVBLK_ATTEMPT=0"),
	EV(STOP_WRITE_FAILED, foreign_stop_fd, "KTVBLK_ATTEMPT=0|ERRNO=9"),
	EV(STOP_GAVE_UP, full_stop_fd, "KTVBLK_RETRIES=4"),
	EV(DESTROY_PANICKED, panic_destroy, PANIC),
	EV(DESTROY_TIMED_OUT, hang_destroy, LEFT STUCK),
	EV(DESTROY_HELPER_SPAWN_FAILED, hang_destroy_no_threads,
	  LEFT "|ERRNO=11" STUCK),
	EV(DESTROY_HELPER_DISCONNECTED, destroy_itself,
	  LEFT "|ERRNO=35"),
	EV(DESTROY_STILL_WEDGED, destroy_behind_reset, ""),
	EV(RESET_PANICKED, panic_reset, PANIC),
	EV(RESET_TIMED_OUT, hang_reset, LEFT STUCK),
	EV(RESET_HELPER_SPAWN_FAILED, hang_reset_no_threads,
	  LEFT "|ERRNO=11" STUCK),
	EV(RESET_HELPER_DISCONNECTED, reset_no_join, LEFT "|ERRNO=22"),
	EV(RECLAIMED, reclaim, "KTVBLK_STUCK_MS=*"),
	EV(START_FAILED, fail_to_start, "KTVBLK_STEP=epoll|ERRNO=24"),
	EV(PLACEMENT_FAILED, misplace, "KTVBLK_CPU=5000|ERRNO=22"),
	EV(WAITING_FOR_ORPHAN, restart, ""),
	EV(WORKER_PANICKED, panic, PANIC),
	EV(REQUEST_STALLED, stall,
	  READ_7 "|KTVBLK_AGE_MS=*|KTVBLK_IN_FLIGHT=1" STUCK,
	   .options = { .config = { .stall_warn_ms = 20 } }),
	EV(REQUEST_RESUMED, resume, READ_7 "|KTVBLK_AGE_MS=*",
	   .options = { .config = { .stall_warn_ms = 20 } }),
	EV(MEMORY_UNSET, rig_start, "",
	   .options = { .no_memory = true }),
	EV(EPOLL_WAIT_FAILED, fail_epoll, "ERRNO=5"),
	EV(ENGINE_REFUSED, refuse_ring, "ERRNO=1"),
	EV(EPOLL_ERROR, epoll_error, "KTVBLK_EVENT_SET=0x9|KTVBLK_TOKEN=1"),
	EV(EPOLL_HANGUP, epoll_hangup,
	  "KTVBLK_EVENT_SET=0x11|KTVBLK_TOKEN=1"),
	EV(EPOLL_UNKNOWN_TOKEN, epoll_stranger, "KTVBLK_TOKEN=77"),
	EV(KICK_READ_FAILED, fail_kick_read, "ERRNO=5"),
	EV(TIMER_READ_FAILED, fail_timer_read, "ERRNO=5"),
	EV(TIMER_SET_FAILED, fail_timer_set, "ERRNO=22",
	   .options = { .config = { .throttle = { .iops = 1 } } }),
	EV(THROTTLE_STALLED, throttled,
	  "KTVBLK_HEAD=4|KTVBLK_OPS_OK=0|KTVBLK_BYTES_OK=1|KTVBLK_WAIT_NS=*",
	   .options = { .config = { .throttle = { .iops = 1 } } }),
	EV(THROTTLE_REDRAINED, tokens_at_once, "",
	   .options = { .config = { .throttle = { .iops = 1000000 } } }),
	EV(PAUSE_NO_WORKER, pause_idle, ""),
	EV(PAUSE_KICK_FAILED, pause_foreign_kick, "ERRNO=9"),
	EV(PARKED_FD_FAILED, pause_foreign_fd, "ERRNO=9"),
	EV(CAPACITY_BELOW_SECTOR, nothing,
	  "KTVBLK_CAPACITY_BYTES=100|KTVBLK_SECTOR_SIZE=512",
	   .options = { .config = { .capacity_bytes = 100 } }),
	EV(MEMORY_ALREADY_SET, set_memory_again, ""),
	EV(CAPACITY_UNKNOWN, refresh_in_vain, "ERRNO=5"),
	EV(STATUS_NEEDS_RESET, status_after_poison,
	  STATUSES("0x4f", "0x6f") "|KTVBLK_NEW_BITS=0x20"),
	EV(STATUS_BIT_CLEARED, clear_status_bit, STATUSES("0x3", "0x1")),
	EV(STATUS_ILLEGAL, illegal_status,
	  STATUSES("0", "0x4") "|KTVBLK_NEW_BITS=0x4"),
	EV(STATUS_CONTENDED, contended,
	  STATUSES("0x1", "0x3") "|KTVBLK_RETRIES=4"),
	EV(STATUS_GUEST_FAILED, guest_fails, STATUSES("0", "0x80")),
	EV(STATUS_GUEST_FAILED_CONTENDED, failed_contended,
	  STATUSES("0x1", "0x81") "|KTVBLK_RETRIES=4"),
	EV(FEATURES_NO_VERSION_1, no_version_1,
	  "KTVBLK_DRIVER_FEATURES=0x200"),
	EV(FEATURES_NOT_OFFERED, not_offered,
	  "KTVBLK_DRIVER_FEATURES=0x180000000"
	  "|KTVBLK_DEVICE_FEATURES=0x10130006e44"
	  "|KTVBLK_NOT_OFFERED=0x80000000"),
	EV(QUEUE_SIZE_INVALID, queue_size, "KTVBLK_VALUE=3"),
	EV(QUEUE_ADDRESS_MISALIGNED, queue_address, "KTVBLK_VALUE=0x8"),
	EV(LOG_SUPPRESSED, twelve_illegal,
	  "KTVBLK_SUPPRESSED=2|KTVBLK_SUPPRESSED_ID="
	  KTVBLK_MESSAGE_STATUS_ILLEGAL),
	{ .provoke = NULL },
};
