/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * readme DISK DISK: what README.md has an embedder write (readme.inc), with two
 * disks of one guest, one of which ends first; and its errors.
 */

#include <ktvblk.h>

/* Its disks may take longer for their end than a second: the machine is busy. */
static int new_patient(const struct ktvblk_config *config,
		       struct ktvblk_dev **ret_dev)
{
	struct ktvblk_config patient = *config;

	patient.destroy_timeout_ms = 60000;
	return ktvblk_new(&patient, ret_dev);
}

#define ktvblk_new new_patient
#include "readme.inc"
#undef ktvblk_new

#include <dirent.h>
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "driver.h"
#include "event.h"
#include "say.h"

static _Atomic unsigned int unmaps;
static int unmapped;

static void unmap(void *vm)
{
	const struct guest *guest = (const struct guest *)vm;

	unmaps++;
	munmap(guest->ram, GUEST_BYTES);
	event_signal(unmapped);
}

static void expect(int got, int wanted, const char *what)
{
	if (got != wanted)
		die("%s: %d, not %d", what, got, wanted);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void serve(struct driver *driver, const char *what)
{
	expect(driver_request(driver, 0, VIRTIO_BLK_T_OUT, 0, 4096), 0, what);
	expect(driver_request(driver, 0, VIRTIO_BLK_T_IN, 0, 4096), 0, what);
}

static void two_disks(const char *one, const char *two, struct ktvblk_mem *mem,
		      struct guest *guest)
{
	struct ktvblk_dev *vda, *vdb;
	struct driver driver;

	expect(disk_open(one, "vda", mem, &vda), 0, "vda");
	expect(disk_open(two, "vdb", mem, &vdb), 0, "vdb");
	/* Their drivers take turns with the guest's memory. */
	driver_start(&driver, vdb, guest);
	serve(&driver, "vdb");
	expect((int)ktvblk_destroy(vdb), KTVBLK_JOINED, "vdb is pulled out");
	expect((int)unmaps, 0, "unmapped under vda");
	driver_start(&driver, vda, guest);
	serve(&driver, "vda after that");
	expect((int)ktvblk_destroy(vda), KTVBLK_JOINED, "the end of vda");
	expect((int)unmaps, 0, "unmapped under the VMM");
}

static void errors(const char *path, struct ktvblk_mem *mem)
{
	struct ktvblk_dev *const none = (struct ktvblk_dev *)-1, *dev = none;
	const int fds = count_fds();
	struct rlimit few, old;

	expect(disk_open("nothing", "vda", mem, &dev), -ENOENT, "no file");
	expect(disk_open(".", "vda", mem, &dev), -EISDIR, "a directory");
	expect(disk_open("/dev/null", "vda", mem, &dev), -EINVAL, "no disk");
	expect(disk_open(path, "a\tb", mem, &dev), -EINVAL, "no name");
	expect(disk_open(path, "vda", NULL, &dev), -EINVAL, "no memory");
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	/* From none at all to enough, which takes no more than ten. */
	for (few.rlim_cur = 3; dev == none; few.rlim_cur++) {
		setrlimit(RLIMIT_NOFILE, &few);
		if (disk_open(path, "vda", mem, &dev) == 0)
			break;
		expect(disk_open(path, "vda", mem, &dev), -EMFILE, "few files");
		expect(dev == none, 1, "no device was told of");
		expect(few.rlim_cur < (rlim_t)fds + 20, 1, "enough files");
	}
	setrlimit(RLIMIT_NOFILE, &old);
	expect((int)ktvblk_destroy(dev), KTVBLK_JOINED, "the last");
	expect(count_fds(), fds, "descriptors that are left");
	expect((int)unmaps, 0, "unmapped by an error");
}

int main(int argc, char **argv)
{
	struct guest guest = { .released = event_new() };
	struct ktvblk_region ram = { GUEST_BASE, NULL, GUEST_BYTES, 0 };
	struct ktvblk_mem *mem;

	if (argc != 3)
		return 2;
	unmapped = event_new();
	guest.ram = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ram.host_addr = guest.ram;
	expect(ram_lend(&ram, unmap, &guest, &mem), 0, "the guest's memory");
	two_disks(argv[1], argv[2], mem, &guest);
	errors(argv[1], mem);
	ktvblk_mem_unref(mem);
	expect(event_await(unmapped, A_WHILE_MS), true, "unmapped at the end");
	expect((int)unmaps, 1, "unmapped once");
	return 0;
}
