/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who wants to know what of guest memory is written is told of each page, in
 * time, and of nothing any more once that is said. Guest memory is compared as a
 * whole, whatever the library may think that it has written.
 */

#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "ranges.h"
#include "rig.h"
#include "wedge.h"

/* A machine that is copied, and looked at, while it runs. */
__attribute__((visibility("default"))) const char *
__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	/* Who copied long ago is not known by name any more. */
	return "race:^copy_page\nrace:^snapshot\nrace:^is_changed\n"
	       "race:^mem_read\nrace:^mem_write\nrace:^mem_zero\nrace:^move\n"
	       "race:^virtqueue_push\nrace:^store_used\n";
}

#define PAGE 4096u
#define PAGES (RIG_RAM_BYTES / PAGE)
#define SEGS 3u
#define CHAIN (SEGS + 2u) /* descriptors of one, at most */
#define MOST 32u /* requests at once */
#define QUEUES 3u

static _Atomic unsigned char marks[PAGES];
static _Atomic unsigned int calls;
static unsigned char before[RIG_RAM_BYTES];

static void mark(void *userdata, uint64_t addr, uint64_t len)
{
	ck_assert_ptr_eq(userdata, marks);
	if (!len || addr >= RIG_RAM_BYTES || len > RIG_RAM_BYTES - addr)
		ck_abort_msg("%#llx, %llu bytes", (unsigned long long)addr,
			     (unsigned long long)len);
	for (uint64_t i = addr / PAGE; i <= (addr + len - 1) / PAGE; i++)
		atomic_store(&marks[i], 1);
	atomic_fetch_add(&calls, 1);
}

static void log_to(struct rig *rig,
		   void (*fn)(void *userdata, uint64_t addr, uint64_t len))
{
	ck_assert_int_eq(ktvblk_set_dirty_log(rig->dev, fn, marks, WAIT_MS), 0);
}

static bool is_marked(uint64_t addr, uint64_t len)
{
	for (uint64_t i = addr / PAGE; i <= (addr + len - 1) / PAGE; i++)
		if (!atomic_load(&marks[i]))
			return false;
	return true;
}

__attribute__((noinline)) static void snapshot(const struct rig *rig)
{
	memcpy(before, rig->ram, RIG_RAM_BYTES);
	__asm__ volatile(""); /* no tail call: the name is to be seen */
}

static void clear(void)
{
	for (size_t i = 0; i < PAGES; i++)
		atomic_store(&marks[i], 0);
	atomic_store(&calls, 0);
}

__attribute__((noinline)) static bool
is_changed(const struct rig *rig, const unsigned char *was, size_t page)
{
	return memcmp(rig->ram + page * PAGE, was + page * PAGE, PAGE);
}

/* Is each page that is not as it was marked? How many are not as they were. */
static unsigned int check_pages(const struct rig *rig)
{
	unsigned int n = 0;

	for (size_t i = 0; i < PAGES; i++) {
		if (!is_changed(rig, before, i))
			continue;
		n++;
		if (!atomic_load(&marks[i]))
			ck_abort_msg("page %#zx was not told", i * PAGE);
	}
	return n;
}

/*
 * A driver that asks for anything
 */

struct way {
	const char *name;
	uint64_t features, flags;
	unsigned int n; /* requests at once */
	unsigned int n_queues;
	bool later, file;
};

static const struct way ways[] = {
	{ "one", 0, 0, 1, 1, false, false },
	{ "event idx", RIG_EVENT_IDX, 0, 1, 1, false, false },
	{ "zero-copy", 0, KTVBLK_ZERO_COPY, 1, 1, false, false },
	{ "many", RIG_EVENT_IDX, 0, MOST, 1, true, false },
	{ "many, zero-copy", 0, KTVBLK_ZERO_COPY, MOST, 1, true, false },
	{ "file", 0, 0, MOST, 1, false, true },
	{ "file, zero-copy", RIG_EVENT_IDX, KTVBLK_ZERO_COPY, MOST, 1, false,
	  true },
	{ "queues", RIG_MQ | RIG_EVENT_IDX, 0, MOST, QUEUES, true, false },
	{ "queues, zero-copy", RIG_MQ, KTVBLK_ZERO_COPY, MOST, QUEUES, true,
	  false },
};

struct asked {
	uint32_t type;
	struct rig_part data[SEGS];
	unsigned int n;
};

static struct asked asked[QUEUES][MOST];

static unsigned int random_below(unsigned int n)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned int)(state >> 11) % n;
}

static uint64_t here(const struct rig *rig, uint64_t addr)
{
	return addr + rig->queue * RIG_QUEUE_BYTES;
}

static bool has_ranges(const struct asked *ask)
{
	return ask->type == T_DISCARD || ask->type == T_ZEROES;
}

/* What the driver does is the VMM's to know; ours is to write the status only. */
static void put_ranges(struct rig *rig, const struct asked *ask)
{
	for (unsigned int i = 0; i < ask->n; i++) {
		const struct test_range range = { random_below(130), 1, 0 };

		ranges_put(rig, ask->data[i].addr, &range, 1);
		mark(marks, ask->data[i].addr, RANGE_BYTES);
	}
}

static void add_request(struct rig *rig, struct asked *ask, uint16_t head)
{
	static const uint32_t types[] = { T_IN,
					  T_IN,
					  T_IN,
					  T_OUT,
					  VIRTIO_BLK_T_FLUSH,
					  VIRTIO_BLK_T_GET_ID,
					  T_DISCARD,
					  T_ZEROES,
					  99 };

	ask->type = types[random_below(ARRAY_SIZE(types))];
	ask->n = ask->type == VIRTIO_BLK_T_FLUSH ? 0 : 1 + random_below(SEGS);
	for (unsigned int i = 0; i < ask->n; i++) {
		const uint32_t len = has_ranges(ask)
					     ? (uint32_t)RANGE_BYTES
					     : 512 * (1 + random_below(8));

		ask->data[i] = (struct rig_part){
			here(rig, RIG_DATA) + random_below(0x2f000 - len), len,
			ask->type == T_OUT || has_ranges(ask) ? READABLE
							      : WRITABLE
		};
	}
	if (has_ranges(ask))
		put_ranges(rig, ask);
	/* Sometimes behind the end of the disk. */
	rig_data(rig, head, ask->type, random_below(130), ask->data, ask->n);
}

/* Once the driver can know of it, it must have been told. */
static void check_used(struct rig *rig, uint16_t idx)
{
	const struct vring_used_elem elem = rig_used(rig, idx);
	const struct asked *ask = &asked[rig->queue][elem.id / CHAIN];
	const unsigned int slot = idx & (rig->options.queue_size - 1u);

	if (!is_marked(here(rig, RIG_USED) + 4 + 8 * slot, 8) ||
	    !is_marked(here(rig, RIG_USED) + 2, 2) ||
	    !is_marked(here(rig, RIG_STATUS) + elem.id, 1))
		ck_abort_msg("used entry %u came untold", idx);
	if (*rig_chain_status(rig, (uint16_t)elem.id) != OK ||
	    ask->type != T_IN)
		return;
	for (unsigned int i = 0; i < ask->n; i++)
		if (!is_marked(ask->data[i].addr, ask->data[i].len))
			ck_abort_msg("data of %u came untold", elem.id);
}

static void await_used(struct rig *rig, uint16_t from, unsigned int n)
{
	const uint64_t until_ns = now_ns() + WAIT_MS * NSEC_PER_MSEC;
	uint16_t seen = from;

	while ((uint16_t)(seen - from) < n) {
		if (rig_used_idx(rig) != seen)
			check_used(rig, seen++);
		else if (rig->options.later)
			later_complete_all(rig->options.later);
		else
			poll(NULL, 0, 0);
		if (now_ns() > until_ns)
			ck_abort_msg("not served");
	}
}

static void open_way(struct rig *rig, const struct way *way,
		     struct later *later)
{
	struct rig_options options = {
		.config = { .flags = way->flags | KTVBLK_NO_POLL,
			    .n_queues = way->n_queues },
		.features = way->features | RIG_RANGES,
		.queue_size = 256,
	};

	if (way->later) {
		later_init(later);
		options.later = later;
	}
	if (way->file) {
		options.disk_fd = memfd_create("disk", MFD_CLOEXEC);
		ck_assert_int_eq(ftruncate(options.disk_fd, RIG_DISK_BYTES), 0);
	}
	rig_open(rig, &options);
	rig_start(rig);
}

static void settle(struct rig *rig)
{
	ck_assert_int_eq(ktvblk_pause(rig->dev, WAIT_MS), 0);
	ck_assert_int_eq(ktvblk_resume(rig->dev), 1);
}

/* Requests of all queues at once; what the driver writes is written before. */
static void make_available(struct rig *rig, const struct way *way)
{
	for (unsigned int queue = 0; queue < way->n_queues; queue++) {
		uint16_t heads[MOST];

		rig_select(rig, queue);
		for (unsigned int i = 0; i < way->n; i++) {
			heads[i] = (uint16_t)(i * CHAIN);
			add_request(rig, &asked[queue][i], heads[i]);
		}
		rig_avail_all(rig, heads, way->n);
		rig_set_used_event(rig, (uint16_t)(rig->avail_idx - 1u));
	}
}

START_TEST(each_page_that_changes_is_told_before_the_driver_can_know)
{
	const struct way *way = &ways[_i];
	const unsigned int n = rounds("DIRTY_ROUNDS", 30, 6);
	static struct later later;
	unsigned int changed = 0;
	struct rig rig;

	open_way(&rig, way, &later);
	log_to(&rig, mark);
	for (unsigned int round = 0; round < n; round++) {
		/* Nobody looks into the rings before there is a snapshot. */
		ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
		clear();
		make_available(&rig, way);
		snapshot(&rig);
		ck_assert_int_eq(ktvblk_resume(rig.dev), 1);
		for (unsigned int i = 0; i < way->n_queues; i++) {
			rig_select(&rig, i);
			rig_kick(&rig);
		}
		for (unsigned int i = 0; i < way->n_queues; i++) {
			rig_select(&rig, i);
			await_used(&rig, (uint16_t)(round * way->n), way->n);
		}
		settle(&rig);
		changed += check_pages(&rig);
	}
	ck_assert_uint_ge(changed, n);
	rig_close(&rig);
}
END_TEST

/*
 * A machine that is copied while it runs
 */

static unsigned char copy[RIG_RAM_BYTES];

struct copier {
	const struct rig *rig;
	_Atomic bool end;
};

__attribute__((noinline)) static void copy_page(const struct rig *rig, size_t i)
{
	memcpy(copy + i * PAGE, rig->ram + i * PAGE, PAGE);
	__asm__ volatile(""); /* no tail call: the name is to be seen */
}

static void copy_marked(const struct rig *rig)
{
	for (size_t i = 0; i < PAGES; i++)
		if (atomic_exchange(&marks[i], 0))
			copy_page(rig, i);
}

static void *copy_on_and_on(void *arg)
{
	struct copier *copier = (struct copier *)arg;

	while (!atomic_load(&copier->end))
		copy_marked(copier->rig);
	return NULL;
}

/* The marks come under way, and the copier takes them away at any time. */
START_TEST(a_copy_made_under_way_is_the_machine_in_the_end)
{
	const struct way *way = &ways[_i];
	const unsigned int n = rounds("DIRTY_ROUNDS", 60, 6);
	struct copier copier = { 0 };
	static struct later later;
	pthread_t thread;
	struct rig rig;

	open_way(&rig, way, &later);
	copier.rig = &rig;
	ck_assert_int_eq(pthread_create(&thread, NULL, copy_on_and_on, &copier),
			 0);
	for (unsigned int round = 0; round < n; round++) {
		make_available(&rig, way);
		for (unsigned int i = 0; i < way->n_queues; i++) {
			rig_select(&rig, i);
			rig_kick(&rig);
		}
		/* It begins to count in the midst of requests. */
		if (round == n / 2) {
			log_to(&rig, mark);
			mark(marks, 0, RIG_RAM_BYTES);
		}
		for (unsigned int i = 0; i < way->n_queues; i++) {
			const uint16_t want = (uint16_t)((round + 1) * way->n);

			rig_select(&rig, i);
			while (rig_used_idx(&rig) != want)
				if (way->later)
					later_complete_all(&later);
				else
					poll(NULL, 0, 0);
		}
		/* What the driver does is the VMM's to know. */
		for (unsigned int i = 0; round > n / 2 && i < way->n_queues;
		     i++)
			mark(marks, i * RIG_QUEUE_BYTES, RIG_DATA);
	}
	ck_assert_int_eq(ktvblk_pause(rig.dev, WAIT_MS), 0);
	for (unsigned int i = 0; i < way->n_queues; i++)
		mark(marks, i * RIG_QUEUE_BYTES, RIG_AVAIL + PAGE);
	atomic_store(&copier.end, true);
	pthread_join(thread, NULL);
	copy_marked(&rig);
	for (size_t i = 0; i < PAGES; i++)
		if (is_changed(&rig, copy, i))
			ck_abort_msg("%s: page %#zx is another", way->name,
				     i * PAGE);
	rig_close(&rig);
}
END_TEST

static int run_ways(const char *name, const TTest *const *tests, size_t n)
{
	return run_loops(name, (int)ARRAY_SIZE(ways), tests, n);
}

int main(void)
{
	const TTest *const tests[] = {
		each_page_that_changes_is_told_before_the_driver_can_know,
		a_copy_made_under_way_is_the_machine_in_the_end,
	};

	return run_ways("dirty", tests, ARRAY_SIZE(tests));
}
