/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The disks of ktvblk-vmm without a KVM; what the demo's guest and storage do
 * stands for the guest. The exit status is that of the VMM.
 *
 *   vmm-bus name DISK    start it, and print what its records call it
 *   vmm-bus close        two disks hang, and the machine ends
 *   vmm-bus unplug       one of two hangs, is pulled out, and comes back
 *   vmm-bus healthy      nothing hangs
 *   vmm-bus reset        four disks hang, and the machine is reset
 *   vmm-bus after-reset  a disk hangs, the machine is reset, and ends
 */

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"
#include "event.h"
#include "hang.h"
#include "say.h"
#include "vmm/bus.h"

#define DISK_BYTES (1 << 20)
#define BUDGET_MS 1000u
/* Of a disk that is well, however busy the machine is. */
#define LONG_MS 60000u

static struct vmm vmm = { .vm_fd = -1 };
static struct guest guests[BUS_SLOTS];
static struct hang hangs[BUS_SLOTS];
static struct driver drivers[BUS_SLOTS];

static void add_disk(int fd, uint32_t budget_ms)
{
	const unsigned int i = vmm.n_disks++;
	struct disk *disk = &vmm.disks[i];
	struct ktvblk_backend *storage;

	disk->path = "victim";
	disk->config = (struct ktvblk_config)KTVBLK_CONFIG_INIT;
	disk->config.capacity_bytes = DISK_BYTES;
	disk->config.reset_timeout_ms = budget_ms;
	disk->config.destroy_timeout_ms = budget_ms;
	hang_open(&hangs[i], fd);
	storage = hang_backend(&hangs[i], false);
	guest_open(&guests[i]);
	if (disk_start(disk, storage, guests[i].mem) < 0)
		die("no disk");
	guest_lend(&guests[i]);
	ktvblk_backend_unref(storage);
	driver_start(&drivers[i], disk->dev, &guests[i]);
}

/* Of which the first n_bad are to hang. */
static void add_disks(unsigned int n, unsigned int n_bad, uint32_t budget_ms)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, DISK_BYTES) < 0)
		die("no disk");
	while (vmm.n_disks < n)
		add_disk(fd, vmm.n_disks < n_bad ? budget_ms : LONG_MS);
}

static void hang_disks(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		hang_arm(&hangs[i]);
		driver_submit(&drivers[i], 0, VIRTIO_BLK_T_IN, 0, 4096);
		driver_kick(&drivers[i]);
		hang_await_stuck(&hangs[i]);
	}
}

static void let_go(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		hang_let_go(&hangs[i]);
		if (!hang_close(&hangs[i]) || !guest_close(&guests[i]))
			die("the disk did not give back what it had");
	}
}

static void close_them(void)
{
	add_disks(2, 2, BUDGET_MS);
	hang_disks(2);
	bus_close(&vmm);
	let_go(2);
}

static void unplug(void)
{
	add_disks(2, 1, BUDGET_MS);
	hang_disks(1);
	bus_unplug(&vmm, 0);
	let_go(1);
	bus_close(&vmm);
}

static void healthy(void)
{
	add_disks(2, 0, 0);
	bus_unplug(&vmm, 0);
	bus_close(&vmm);
}

/* One after the other would take three budgets more; long ones, to tell that. */
static void reset(void)
{
	const uint32_t budget_ms = 5 * BUDGET_MS;
	double begin_s, took_s;

	add_disks(4, 4, budget_ms);
	hang_disks(4);
	begin_s = now_s();
	bus_reset(&vmm);
	took_s = now_s() - begin_s;
	printf("%.0f ms\n", took_s * 1000);
	if (took_s * 1000 > 3 * budget_ms)
		die("the disks did not share a budget");
	for (unsigned int i = 0; i < 4; i++)
		if (ktvblk_get_state(vmm.disks[i].dev) != KTVBLK_STATE_WEDGED)
			die("a disk is not wedged");
	for (unsigned int i = 0; i < 4; i++)
		hang_let_go(&hangs[i]);
}

static void after_reset(void)
{
	add_disks(1, 1, BUDGET_MS);
	hang_disks(1);
	bus_reset(&vmm);
	bus_close(&vmm);
	let_go(1);
}

static void print_disk(const struct ktvblk_record *record, void *userdata)
{
	(void)userdata;
	for (size_t i = 0; i < record->n_fields; i++)
		if (!strncmp(record->fields[i], "KTVBLK_DISK=", 12))
			puts(record->fields[i] + 12);
}

static void name(char *text)
{
	const uint32_t failed = VIRTIO_CONFIG_S_FAILED;
	struct disk *disk = &vmm.disks[vmm.n_disks++];
	const char *what;

	if (disk_parse(text, disk, &what) < 0)
		die("%s", what);
	disk->config.destroy_timeout_ms = LONG_MS;
	ktvblk_set_log_handler(print_disk, NULL, NULL);
	guest_open(&guests[0]);
	bus_open(&vmm, guests[0].mem);
	guest_lend(&guests[0]);
	ktvblk_mmio_write(disk->dev, VIRTIO_MMIO_STATUS, &failed,
			  sizeof(failed)); /* makes a record */
	ktvblk_log_flush(LONG_MS);
	bus_close(&vmm);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} runs[] = {
		{ "close", close_them },	{ "unplug", unplug },
		{ "healthy", healthy },		{ "reset", reset },
		{ "after-reset", after_reset },
	};

	for (size_t i = 0; i < sizeof(runs) / sizeof(*runs); i++)
		if (argc == 2 && !strcmp(argv[1], runs[i].name)) {
			runs[i].run();
			return vmm.left_behind;
		}
	if (argc != 3 || strcmp(argv[1], "name"))
		return 2;
	name(argv[2]);
	return vmm.left_behind;
}
