/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * jail [FILE]: the lives of devices with all that calls system calls: the lock,
 * service, throttle, placement, pause, changes, reset, a wedge, its end, destroy.
 * Without FILE it prints which were made; with it, see crew_start().
 * jail FILE first: make a device, and with it the first thread of the process.
 *
 * Storage, driver and guest memory are the demo's. What these do by themselves
 * is done on the main thread, which has no filter; jobs are the crew's.
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "event.h"
#include "hang.h"
#include "jail-front.h"
#include "jail.h"
#include "say.h"

#define DISK_BYTES (1 << 20)
/* Of what is well, however busy the machine is. */
#define LONG_MS 60000

static struct ktvblk_config config;
static struct ktvblk_dev *dev;
static struct driver driver;
static struct guest guest;
static int fd, listen_fd, result;
static enum ktvblk_outcome outcome;

static void job_backend(void)
{
	result = ktvblk_backend_new_fd(fd, NULL, NULL, &config.backend);
}

static void job_lock(void)
{
	result = ktvblk_image_lock(fd, 0, NULL);
}

static void job_new(void)
{
	result = ktvblk_new(&config, &dev);
}

static void job_serve(void)
{
	result = ktvblk_vhost_user_start(dev, listen_fd, 0);
}

static void job_start(void)
{
	driver_start(&driver, dev, &guest);
}

static void job_kick(void)
{
	driver_kick(&driver);
}

static void job_reset(void)
{
	driver_reset(&driver);
}

static void job_pause(void)
{
	result = ktvblk_pause_begin(dev, guest.released);
	if (result == 0)
		result = ktvblk_pause(dev, LONG_MS);
	if (result == 0)
		result = ktvblk_resume(dev) - 1;
}

static void job_refresh(void)
{
	result = ktvblk_refresh_capacity(dev);
}

/* By itself: what counts is that the old reference is dropped. */
static void job_replace(void)
{
	result = ktvblk_replace_memory(dev, guest.mem, LONG_MS);
}

static void job_set(void)
{
	result = ktvblk_set_capacity(dev, DISK_BYTES / 2);
	if (result == 0)
		result = ktvblk_set_throttle(dev, &config.throttle);
}

static void job_request_stop(void)
{
	result = ktvblk_request_stop(dev);
}

static void job_destroy(void)
{
	outcome = ktvblk_destroy(dev);
}

static void must(enum caller caller, void (*job)(void))
{
	crew_do(caller, job);
	if (result)
		die("%s: %s", caller_names[caller], strerror(-result));
}

static void destroy(enum ktvblk_outcome expected)
{
	crew_do(END, job_destroy);
	if (outcome != expected)
		die("destroy: %s", ktvblk_outcome_name(outcome));
}

static void request(uint32_t type, uint32_t bytes)
{
	uint8_t status;

	driver_submit(&driver, 0, type, 0, bytes);
	crew_do(MMIO, job_kick);
	if (driver_wait(&driver, LONG_MS, &status) != 0 || status)
		die("a request of type %u failed", type);
}

/* One range, of the first page. */
static void discard(uint32_t type)
{
	const struct virtio_blk_discard_write_zeroes range = {
		.num_sectors = htole32(8),
	};

	memcpy(driver_data(&driver, 0), &range, sizeof(range));
	request(type, sizeof(range));
}

static void serve(void)
{
	request(VIRTIO_BLK_T_OUT, 4096);
	request(VIRTIO_BLK_T_FLUSH, 0);
	for (int i = 0; i < 3; i++)
		request(VIRTIO_BLK_T_IN, 4096);
}

static void serve_ranges(void)
{
	discard(VIRTIO_BLK_T_DISCARD);
	discard(VIRTIO_BLK_T_WRITE_ZEROES);
}

static void await_capacity(uint64_t bytes)
{
	struct ktvblk_identity identity;

	do {
		poll(NULL, 0, 1);
		ktvblk_get_identity(dev, &identity, sizeof(identity));
	} while (identity.capacity_sectors != bytes / KTVBLK_SECTOR_SIZE);
}

static void change(void)
{
	must(SET, job_set);
	await_capacity(DISK_BYTES / 2);
	must(CHANGE, job_refresh);
	await_capacity(DISK_BYTES);
	must(CHANGE, job_replace);
	guest_lend(&guest);
}

/* False: io_uring was asked for, and is refused. */
static bool new_device(void)
{
	const bool ring = config.engine == KTVBLK_ENGINE_IO_URING;

	crew_do(NEW, job_new);
	if (result && !(ring && result == -EPERM))
		die("new: %s", strerror(-result));
	if (!result)
		guest_open(&guest);
	config.backend = ktvblk_backend_unref(config.backend);
	if (result)
		return false;
	if (ktvblk_set_memory(dev, guest.mem) < 0)
		die("no memory for the device");
	return true;
}

static void a_good_life(enum ktvblk_engine engine)
{
	const uint32_t cpu = (uint32_t)sched_getcpu();

	config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	config.reset_timeout_ms = config.destroy_timeout_ms = LONG_MS;
	config.throttle.iops = 4;
	config.engine = engine;
	must(LOCK, job_lock);
	must(BACKEND, job_backend);
	if (!new_device())
		return;
	ktvblk_set_worker_cpus(dev, &cpu, 1);
	crew_do(MMIO, job_start);
	serve();
	serve_ranges();
	change();
	must(PAUSE, job_pause);
	crew_do(MMIO, job_reset);
	crew_do(MMIO, job_start);
	serve();
	must(END, job_request_stop);
	destroy(KTVBLK_JOINED);
	if (!guest_close(&guest))
		die("guest memory is still in use");
}

static void await_state(int state, bool is)
{
	while ((ktvblk_get_state(dev) == state) != is)
		poll(NULL, 0, 1);
}

static void hang_a_request(struct hang *hang)
{
	hang_arm(hang);
	driver_submit(&driver, 0, VIRTIO_BLK_T_IN, 0, 4096);
	crew_do(MMIO, job_kick);
	hang_await_stuck(hang);
}

static void a_bad_life(void)
{
	struct hang hang;

	config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	config.reset_timeout_ms = config.destroy_timeout_ms = 50;
	config.stall_warn_ms = 20;
	config.capacity_bytes = DISK_BYTES; /* or the callback says it */
	hang_open(&hang, fd);
	config.backend = hang_backend(&hang, false);
	new_device();
	guest_lend(&guest);
	crew_do(MMIO, job_start);
	hang_a_request(&hang);
	await_state(KTVBLK_STATE_STALLED, true);
	crew_do(MMIO, job_reset);
	await_state(KTVBLK_STATE_WEDGED, true);
	crew_do(MMIO, job_start); /* its worker waits for the one before */
	hang_let_go(&hang);
	await_state(KTVBLK_STATE_WEDGED, false);
	serve();
	hang_a_request(&hang);
	destroy(KTVBLK_TIMED_OUT);
	hang_let_go(&hang);
	if (!hang_close(&hang) || !guest_close(&guest))
		die("the device did not give back what it had");
}

/* The device is a front end's, in good days and bad. */
static void a_served_life(bool hangs)
{
	struct hang hang;

	config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	config.reset_timeout_ms = config.destroy_timeout_ms = hangs ? 50
								    : LONG_MS;
	config.capacity_bytes = DISK_BYTES;
	if (hangs) {
		hang_open(&hang, fd);
		config.backend = hang_backend(&hang, false);
	} else {
		must(BACKEND, job_backend);
	}
	must(NEW, job_new);
	config.backend = ktvblk_backend_unref(config.backend);
	listen_fd = jail_front_open();
	must(VHOST, job_serve);
	if (hangs)
		jail_front_hang(&hang);
	else
		jail_front_live();
	destroy(hangs ? KTVBLK_TIMED_OUT : KTVBLK_JOINED);
	jail_front_close();
	if (!hangs)
		return;
	hang_let_go(&hang);
	if (!hang_close(&hang))
		die("the device did not give back what it had");
}

/* No worker that could run the release callbacks. */
static void a_short_life(void)
{
	config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	config.destroy_timeout_ms = LONG_MS;
	must(BACKEND, job_backend);
	new_device();
	guest_lend(&guest);
	destroy(KTVBLK_JOINED);
	if (!guest_close(&guest))
		die("guest memory is still in use");
}

/* The C library sets itself up for threads when the first one is made. */
_Noreturn static void first(const char *allowed)
{
	config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	job_backend();
	crew_be(NEW, allowed);
	if (result == 0)
		job_new();
	_exit(result ? 1 : 0);
}

int main(int argc, char **argv)
{
	const char *allowed = argc > 1 ? argv[1] : NULL;

	fd = open(".", O_RDWR | O_CLOEXEC | O_TMPFILE, 0600);
	if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0)
		die("no disk: %s", strerror(errno));
	if (argc > 2)
		first(allowed);
	crew_start(allowed);
	a_good_life(KTVBLK_ENGINE_AUTO);
	a_good_life(KTVBLK_ENGINE_SYNC);
	a_good_life(KTVBLK_ENGINE_IO_URING);
	a_bad_life();
	a_short_life();
	a_served_life(false);
	a_served_life(true);
	if (!allowed)
		crew_print_calls();
	fflush(stdout);
	_exit(0);
}
