/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A program that loads the library with dlopen(), and gives it back while a
 * device's threads are in it. The machine is that of the demo.
 */

#include <dlfcn.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <sys/wait.h>

#include "harness.h"
#include "loaded.h"
#include "machine.h"

#define DISK_BYTES (UINT64_C(1) << 20)

struct fixture {
	FILE *file;
	struct hang storage;
	struct machine machine;
};

static void open_machine(struct fixture *f)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;

	f->file = tmpfile();
	ck_assert_ptr_nonnull(f->file);
	ck_assert_int_eq(ftruncate(fileno(f->file), DISK_BYTES), 0);
	hang_open(&f->storage, fileno(f->file));
	config.backend = hang_backend(&f->storage, false);
	config.destroy_timeout_ms = 50;
	machine_start(&f->machine, &config);
}

static int read_sector(struct fixture *f)
{
	struct driver *driver = &f->machine.driver;

	return driver_request(driver, driver_free_slot(driver), VIRTIO_BLK_T_IN,
			      0, KTVBLK_SECTOR_SIZE);
}

static void close_machine(struct fixture *f, enum ktvblk_outcome expected)
{
	ck_assert_int_eq(ktvblk_destroy(f->machine.dev), expected);
	if (expected == KTVBLK_TIMED_OUT) {
		library_unload();
		hang_let_go(&f->storage);
	}
	ck_assert(machine_end(&f->machine));
	ck_assert(hang_close(&f->storage));
	fclose(f->file);
	ck_assert(eventually(count_threads("ktvblk-") == 0));
}

START_TEST(a_device_outlives_dlclose)
{
	struct fixture f;

	library_load();
	open_machine(&f);
	ck_assert_int_eq(read_sector(&f), VIRTIO_BLK_S_OK);
	library_unload();
	ck_assert_int_eq(read_sector(&f), VIRTIO_BLK_S_OK);
	close_machine(&f, KTVBLK_JOINED);
}
END_TEST

START_TEST(a_wedged_worker_outlives_dlclose)
{
	struct fixture f;

	library_load();
	open_machine(&f);
	machine_hang(&f.machine, &f.storage);
	close_machine(&f, KTVBLK_TIMED_OUT);
}
END_TEST

START_TEST(what_is_loaded_again_is_the_same_library)
{
	struct fixture f, g;

	library_load();
	open_machine(&f);
	machine_hang(&f.machine, &f.storage);
	library_unload();
	library_load();
	open_machine(&g);
	ck_assert_uint_eq(g.machine.id.instance_id,
			  f.machine.id.instance_id + 1);
	ck_assert_int_eq(read_sector(&g), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(ktvblk_destroy(g.machine.dev), KTVBLK_JOINED);
	ck_assert(machine_end(&g.machine));
	ck_assert(hang_close(&g.storage));
	fclose(g.file);
	close_machine(&f, KTVBLK_TIMED_OUT);
}
END_TEST

/* Its atexit() function is run where dlclose() has nothing left to run. */
START_TEST(a_process_ends_with_its_library_closed_and_a_worker_stuck)
{
	const pid_t child = fork();
	int status;

	if (child == 0) {
		struct fixture f;

		library_load();
		open_machine(&f);
		machine_hang(&f.machine, &f.storage);
		library_unload();
		exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

TEST_PROGRAM("dlopen", a_device_outlives_dlclose,
	     a_wedged_worker_outlives_dlclose,
	     what_is_loaded_again_is_the_same_library,
	     a_process_ends_with_its_library_closed_and_a_worker_stuck)
