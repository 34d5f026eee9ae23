/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See wedge.h. */

#include <stdio.h>
#include <string.h>

#include "device.h"
#include "wedge.h"

/* The last devices that were here have gone, with all they left behind. */
static void wait_for_quiet(void)
{
	ck_assert_msg(eventually(count_threads("ktvblk") == 0),
		      "threads of another test are left");
}

void wedge_record(struct recorder *rec)
{
	wait_for_quiet();
	recorder_start(rec);
}

void wedge_open_idle(struct rig *rig, uint32_t budget_ms, uint64_t flags)
{
	static const struct ktvblk_region small = { .size = WEDGE_RAM_BYTES };
	const struct rig_options options = {
		.config = { .name = "vda",
			    .flags = flags,
			    .reset_timeout_ms = budget_ms,
			    .destroy_timeout_ms = budget_ms },
		.regions = &small,
		.n_regions = 1,
	};

	rig_open(rig, &options);
}

void wedge_open(struct rig *rig, uint32_t budget_ms, uint64_t flags)
{
	wedge_open_idle(rig, budget_ms, flags);
	rig_start(rig);
}

void wedge(struct rig *rig, uint32_t type, uint64_t sector)
{
	storage_hold(rig->storage);
	rig_chain(rig, 0, type, sector,
		  type == VIRTIO_BLK_T_FLUSH ? 0 : KTVBLK_SECTOR_SIZE);
	rig_avail(rig, 0);
	rig_kick(rig);
	storage_wait_held(rig->storage, 1);
	/* However long that takes, a record will find it asleep. */
	ck_assert(eventually(thread_state(worker_tid(rig)) == 'S'));
}

void wedge_close(struct rig *rig)
{
	storage_let_go(rig->storage);
	/* What a late worker's end has recorded must not come behind this. */
	if (rig->dev)
		rig->dev->destroy_timeout_ms = WAIT_MS;
	ktvblk_destroy(rig->dev);
	rig->dev = NULL;
	rig_free(rig);
}

pid_t worker_tid(struct rig *rig)
{
	char name[16];

	snprintf(name, sizeof(name), "ktvblk-%u",
		 (unsigned int)rig_identity(rig).instance_id);
	return find_thread(name);
}

bool worker_sleeps(struct rig *rig)
{
	const pid_t tid = worker_tid(rig);
	char path[64], text[64] = "";
	FILE *file;

	if (!tid || thread_state(tid) != 'S')
		return false;
	/* qemu-user passes procfs on, with the host's system call numbers. */
	if (getenv("TESTS_EMULATED"))
		return true;
	/* Where procfs tells, in epoll_wait() and not in a lock. */
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)tid);
	file = fopen(path, "re");
	if (!file)
		return true;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
#ifdef SYS_epoll_wait
	if (strtol(text, NULL, 10) == SYS_epoll_wait)
		return true;
#endif
	return strtol(text, NULL, 10) == SYS_epoll_pwait;
}

uint64_t wedge_ram_sum(const struct rig *rig)
{
	const uint64_t *word = (const uint64_t *)(const void *)rig->ram;
	uint64_t sum = 0;

	/* Its worker may be there and look at its ring. */
	for (size_t i = 0; i < WEDGE_RAM_BYTES / sizeof(*word); i++)
		sum = sum * 0x100000001b3u +
		      __atomic_load_n(&word[i], __ATOMIC_RELAXED);
	return sum;
}

/* What this thread has waited for a processor, ever; 0 if nobody counts. */
static uint64_t waited_ns(void)
{
	FILE *file = fopen("/proc/thread-self/schedstat", "re");
	unsigned long long ran, waited = 0;

	if (file && fscanf(file, "%llu %llu", &ran, &waited) != 2)
		waited = 0;
	if (file)
		fclose(file);
	return waited;
}

static _Thread_local uint64_t waited_at_start_ns;

uint64_t clock_start(void)
{
	waited_at_start_ns = waited_ns();
	return now_ns();
}

uint64_t ms_since(uint64_t since_ns)
{
	return (now_ns() - since_ns) / NSEC_PER_MSEC;
}

uint64_t process_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

bool runs_slowly(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return true;
#endif
#endif
	return getenv("TESTS_RUN_SLOWLY");
}

uint64_t bound_ms(uint64_t ms)
{
	const uint64_t waited = waited_ns() - waited_at_start_ns;

	return (runs_slowly() ? ms * 10 + 500 : ms) + waited / NSEC_PER_MSEC;
}

unsigned int rounds(const char *env, unsigned int usual, unsigned int slow)
{
	const char *value = getenv(env);

	if (value && *value)
		return (unsigned int)strtoul(value, NULL, 10);
	return runs_slowly() ? slow : usual;
}

void expect_number(const struct kept_record *record, const char *key,
		   int64_t value)
{
	const int64_t number = (int64_t)kept_number(record, key);

	ck_assert_msg(number == value, "%s is %lld, not %lld in: %s", key,
		      (long long)number, (long long)value, record->message);
}

void expect_text(const struct kept_record *record, const char *key,
		 const char *value)
{
	const char *text = kept_field(record, key);

	ck_assert_msg(text && strcmp(text, value) == 0,
		      "%s is %s, not %s in: %s", key, text ? text : "missing",
		      value, record->message);
}

static unsigned int count_maps(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned int n = 0;
	int c;

	ck_assert_ptr_nonnull(file);
	while ((c = getc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

struct traces traces_now(void)
{
	wait_for_quiet();
	/* One that has not come to run yet has no name; an emulator has some. */
	if (!getenv("TESTS_EMULATED") &&
	    !eventually(count_threads("") <= OWN_THREADS))
		fprintf(stderr, "threads of others are here\n");
	return (struct traces){ .fds = count_fds(),
				.threads = count_threads(""),
				.maps = count_maps() };
}

void traces_expect_gone(const struct traces *before)
{
	ck_assert_msg(eventually(count_threads("ktvblk") == 0),
		      "%u threads are left", count_threads("ktvblk"));
	ck_assert_msg(eventually(count_fds() == before->fds),
		      "%u descriptors were %u", count_fds(), before->fds);
}
