/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Guest memory that holds up who touches it, while many requests are in flight:
 * a stop is bounded all the same, and what is held up does nothing behind it but
 * to end its copy.
 */

#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "fleet.h"
#include "page.h"
#include "wedge.h"

#define T_IN VIRTIO_BLK_T_IN
#define T_OUT VIRTIO_BLK_T_OUT
#define OK VIRTIO_BLK_S_OK
#define BUDGET_MS 60u
#define GRACE_MS 20u
#define OVER_MS 50u
#define MANY 32u
/* Of the sectors of the first page, and of the page that a later one is in. */
#define PER_PAGE (4096u / KTVBLK_SECTOR_SIZE)
#define NEW (MANY + PER_PAGE)
#define ALL_OF_IT 0x55

struct scene {
	struct later later;
	struct rig rig;
	struct recorder rec;
	struct page page;
	unsigned char before[4096]; /* what was in the page */
};

/* disk_fd: the disk is there, by io_uring; 0: it answers later. */
static void scene_open(struct scene *scene, int disk_fd)
{
	struct rig_options options = fleet_options();

	wedge_record(&scene->rec);
	later_init(&scene->later);
	options.later = disk_fd ? NULL : &scene->later;
	options.disk_fd = disk_fd;
	options.config = (struct ktvblk_config){
		.reset_timeout_ms = BUDGET_MS,
		.depth = MANY + 1,
		.engine = disk_fd ? KTVBLK_ENGINE_IO_URING : KTVBLK_ENGINE_AUTO,
		.flags = disk_fd ? KTVBLK_ZERO_COPY : 0,
	};
	rig_open(&scene->rig, &options);
	rig_start(&scene->rig);
}

static void scene_close(struct scene *scene)
{
	rig_close(&scene->rig);
	recorder_stop(&scene->rec);
}

/* The page that number i has its data in. */
static bool block(struct scene *scene, unsigned int i)
{
	void *at = rig_at(&scene->rig, fleet_data(i));

	memcpy(scene->before, at, sizeof(scene->before));
	return page_block(&scene->page, at);
}

/* Somebody is held up: the reset gives up in time, with so many in flight. */
static void reset_in_time(struct scene *scene, unsigned int n_in_flight)
{
	const struct kept_record *record;
	uint64_t start_ns;

	page_wait(&scene->page);
	start_ns = clock_start();
	rig_reset(&scene->rig);
	ck_assert_uint_le(ms_since(start_ns),
			  bound_ms(BUDGET_MS + GRACE_MS + OVER_MS));
	ck_assert_int_eq(ktvblk_get_state(scene->rig.dev), KTVBLK_STATE_WEDGED);
	record = recorder_wait(&scene->rec, KTVBLK_MESSAGE_RESET_TIMED_OUT);
	expect_text(record, KTVBLK_FIELD_FENCED, "no");
	expect_number(record, KTVBLK_FIELD_IN_FLIGHT, n_in_flight);
	/* The driver of the next life has the rings for itself. */
	memset(rig_at(&scene->rig, RIG_USED), ALL_OF_IT, 4096);
	rig_irqs(&scene->rig);
}

/* The page comes, and the rest is answered: that is the end, and no more. */
static void end_late(struct scene *scene)
{
	const unsigned char *used =
		(const unsigned char *)rig_at(&scene->rig, RIG_USED);

	page_bring(&scene->page, scene->before);
	while (later_count(&scene->later)) {
		ck_assert_int_eq(recorder_count(&scene->rec,
						KTVBLK_MESSAGE_RECLAIMED),
				 0);
		later_complete(&scene->later, 0);
	}
	recorder_wait(&scene->rec, KTVBLK_MESSAGE_RECLAIMED);
	for (unsigned int i = 0; i < 4096; i++)
		ck_assert_uint_eq(used[i], ALL_OF_IT);
	ck_assert_uint_eq(rig_irqs(&scene->rig), 0);
	ck_assert_int_eq(recorder_count(&scene->rec, NULL), 2);
}

/* And the next life is as any other. */
static void serve_again(struct scene *scene)
{
	rig_start(&scene->rig);
	scene->later.at_once = true;
	fleet_send(&scene->rig, 0, MANY, T_IN);
	rig_wait_used(&scene->rig, MANY);
	for (unsigned int i = 0; i < MANY; i++)
		fleet_expect(&scene->rig, i, OK);
}

START_TEST(an_answer_is_held_up_on_its_way_to_the_guest)
{
	struct ktvblk_counters counters;
	struct scene scene;

	scene_open(&scene, 0);
	fleet_send(&scene.rig, 0, MANY, T_IN);
	later_wait(&scene.later, MANY);
	if (!block(&scene, 0))
		goto end;
	/* The last one of all is not in its way. */
	later_complete(&scene.later, MANY - 1);
	rig_wait_used(&scene.rig, 1);
	later_complete(&scene.later, 0);
	page_wait(&scene.page);
	/* What is answered behind it has to wait for it, too. */
	later_complete(&scene.later, MANY - 3);
	reset_in_time(&scene, MANY - 1);
	end_late(&scene);
	fleet_expect(&scene.rig, MANY - 1, OK);
	for (unsigned int i = 1; i < MANY - 1; i++)
		ck_assert(fleet_untouched(&scene.rig, i));
	counters = rig_counters(&scene.rig);
	ck_assert_uint_eq(counters.reads_completed, 1);
	ck_assert_uint_eq(counters.io_errors, 0);
	serve_again(&scene);
end:
	later_complete_all(&scene.later);
	scene_close(&scene);
}
END_TEST

START_TEST(a_write_is_held_up_on_its_way_to_the_storage)
{
	struct scene scene;

	scene_open(&scene, 0);
	fleet_send(&scene.rig, 0, MANY, T_IN);
	later_wait(&scene.later, MANY);
	fleet_chain(&scene.rig, NEW, T_OUT);
	if (!block(&scene, NEW))
		goto end;
	rig_avail(&scene.rig, 3 * NEW);
	rig_kick(&scene.rig);
	page_wait(&scene.page);
	/* Nobody comes to look at this. */
	later_complete(&scene.later, MANY / 2);
	reset_in_time(&scene, MANY + 1);
	end_late(&scene);
	for (unsigned int i = 0; i < MANY; i++)
		ck_assert(fleet_untouched(&scene.rig, i));
	/* The storage never hears of it. */
	ck_assert_uint_eq(later_ever(&scene.later, OP_WRITE), 0);
	serve_again(&scene);
end:
	later_complete_all(&scene.later);
	scene_close(&scene);
}
END_TEST

/* By io_uring, on guest memory: it is the kernel's thread that is held up. */
START_TEST(one_is_held_up_in_the_kernel_and_the_others_are_served)
{
	const int fd = memfd_create("disk", MFD_CLOEXEC);
	struct scene scene;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, RIG_DISK_BYTES), 0);
	scene_open(&scene, fd);
	if (!block(&scene, 0))
		goto end;
	/* One of that page, and all others but of that page. */
	rig_data(&scene.rig, 0, T_IN, 0,
		 &(struct rig_part){ fleet_data(0), KTVBLK_SECTOR_SIZE,
				     WRITABLE },
		 1);
	rig_avail(&scene.rig, 0);
	rig_kick(&scene.rig);
	page_wait(&scene.page);
	fleet_send(&scene.rig, PER_PAGE, MANY, T_IN);
	rig_wait_used(&scene.rig, MANY);
	for (unsigned int i = PER_PAGE; i < PER_PAGE + MANY; i++)
		ck_assert_int_eq(fleet_status(&scene.rig, i), OK);
	ck_assert_int_eq(fleet_status(&scene.rig, 0), SENTINEL);
	reset_in_time(&scene, 1);
	end_late(&scene);
	ck_assert_int_eq(fleet_status(&scene.rig, 0), SENTINEL);
	rig_start(&scene.rig);
	ck_assert_int_eq(rig_read_sector(&scene.rig), OK);
end:
	scene_close(&scene);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		an_answer_is_held_up_on_its_way_to_the_guest,
		a_write_is_held_up_on_its_way_to_the_storage,
	};
	const TTest *const others[] = {
		one_is_held_up_in_the_kernel_and_the_others_are_served,
	};
	int r = run_tests("depth-page", tests, ARRAY_SIZE(tests));

	if (engine_uring_probe() == 0)
		r |= run_tests("kernel", others, ARRAY_SIZE(others));
	return r;
}
