/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An idle process must not wake up, and a busy one not make a system call for
 * each request only to be watched. So `look_ns` says when the log thread will
 * look by itself; having set it, the thread looks once more. A worker marks
 * itself busy first and reads look_ns second, so one of the two always sees the
 * other; and where that is too late for the worker it sets its own time and
 * tells.
 */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "util.h"
#include "watch.h"

#define BUSY 1u
#define STALLED 2u
#define NEXT_REQUEST 4u

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct watch *list;
static _Atomic uint64_t look_ns = UINT64_MAX; /* that: not at all */

struct watch *watch_new(const struct identity *id, uint64_t limit_ns,
			struct ports *ports)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	atomic_init(&watch->refs, 1);
	pthread_mutex_init(&watch->lock, NULL);
	watch->id = *id;
	disk_id_ref(watch->id.disk);
	watch->limit_ns = limit_ns;
	watch->ports = ports ? ports_ref(ports) : NULL;
	return watch;
}

struct watch *watch_ref(struct watch *watch)
{
	if (watch)
		refs_get(&watch->refs);
	return watch;
}

void watch_unref(struct watch *watch)
{
	if (!watch || !refs_put(&watch->refs))
		return;
	pthread_mutex_destroy(&watch->lock);
	disk_id_unref(watch->id.disk);
	ports_unref(watch->ports);
	free(watch);
}

void watch_enter(struct watch *watch)
{
	pthread_mutex_lock(&watch->lock);
	watch->tid = gettid();
	watch->left_name[0] = '\0';
	pthread_mutex_unlock(&watch->lock);

	SCOPED_LOCK(&list_lock);
	watch->next = list;
	watch->link = &list;
	if (list)
		list->link = &watch->next;
	list = watch;
}

void watch_leave(struct watch *watch)
{
	pthread_mutex_lock(&list_lock);
	if (watch->link) {
		*watch->link = watch->next;
		if (watch->next)
			watch->next->link = watch->link;
		watch->link = NULL;
	}
	pthread_mutex_unlock(&list_lock);

	SCOPED_LOCK(&watch->lock);
	/* Without a name it cannot be told from another. */
	if (pthread_getname_np(pthread_self(), watch->left_name,
			       sizeof(watch->left_name)) ||
	    !*watch->left_name)
		watch->tid = 0;
}

void watch_gone(struct watch *watch)
{
	SCOPED_LOCK(&watch->lock);
	watch->tid = 0;
}

static uint64_t due_ns(const struct watch *watch, uint64_t since_ns)
{
	uint64_t due;

	/* Below UINT64_MAX, which stands for never. */
	return __builtin_add_overflow(since_ns, watch->limit_ns, &due)
		       ? UINT64_MAX - 1
		       : MIN(due, UINT64_MAX - 1);
}

bool watch_begin(struct watch *watch, const struct watch_request *request)
{
	const uint64_t due = due_ns(watch, request->since_ns);
	uint32_t word =
		atomic_load_explicit(&watch->word, memory_order_relaxed);
	uint64_t look;

	/* Release: who reads one of these sees the watch_end() before it. */
	atomic_store_explicit(&watch->type, request->type,
			      memory_order_release);
	atomic_store_explicit(&watch->sector, request->sector,
			      memory_order_release);
	atomic_store_explicit(&watch->length, request->length,
			      memory_order_release);
	atomic_store_explicit(&watch->since_ns, request->since_ns,
			      memory_order_release);
	/* Release: the four stores above, to watch_snapshot(). */
	atomic_store_explicit(&watch->word, word | BUSY, memory_order_release);
	/* Pairs with watch_scan(), which sets look_ns and then reads word. */
	atomic_thread_fence(memory_order_seq_cst);
	look = atomic_load_explicit(&look_ns, memory_order_relaxed);
	while (due < look)
		if (atomic_compare_exchange_weak(&look_ns, &look, due))
			return true;
	return false;
}

bool watch_end(struct watch *watch)
{
	uint32_t word =
		atomic_load_explicit(&watch->word, memory_order_relaxed) &
		~(BUSY | STALLED);

	/* Either this sees STALLED or watch_scan()'s exchange fails. */
	return atomic_exchange(&watch->word, word + NEXT_REQUEST) & STALLED;
}

struct watch_request watch_snapshot(const struct watch *watch)
{
	struct watch_request request;
	uint32_t word = atomic_load(&watch->word);

	request.type = atomic_load(&watch->type);
	request.sector = atomic_load(&watch->sector);
	request.length = atomic_load(&watch->length);
	request.since_ns = atomic_load(&watch->since_ns);
	/* The same request before and after: the four belong to it. */
	request.busy = (word & BUSY) &&
		       ((atomic_load(&watch->word) ^ word) & ~STALLED) == 0;
	return request;
}

bool watch_is_stalled(const struct watch *watch, uint64_t now)
{
	const struct watch_request request = watch_snapshot(watch);

	return request.busy && due_ns(watch, request.since_ns) <= now;
}

static struct watch *scan_list(uint64_t now, uint64_t *again_ns,
			       struct watch_request *ret_request)
{
	SCOPED_LOCK(&list_lock);

	*again_ns = 0;
	for (struct watch *watch = list; watch; watch = watch->next) {
		uint32_t word = atomic_load(&watch->word);
		struct watch_request request = watch_snapshot(watch);
		uint64_t due = due_ns(watch, request.since_ns);

		if (!(word & BUSY) || (word & STALLED))
			continue;
		if (request.busy && due <= now &&
		    atomic_compare_exchange_strong(&watch->word, &word,
						   word | STALLED)) {
			*ret_request = request;
			return watch_ref(watch);
		}
		/* One that changed while we looked is a young one. */
		if (!request.busy || due <= now)
			due = due_ns(watch, now);
		if (*again_ns == 0 || due < *again_ns)
			*again_ns = due;
	}
	return NULL;
}

struct watch *watch_scan(uint64_t now, uint64_t *ret_again_ns,
			 struct watch_request *ret_request)
{
	struct watch *watch = scan_list(now, ret_again_ns, ret_request);
	uint64_t first, second;

	if (watch)
		return watch;
	first = *ret_again_ns ? *ret_again_ns : UINT64_MAX;
	/* seq_cst, pairs with watch_begin(): see the head of the file. */
	atomic_store(&look_ns, first);
	watch = scan_list(now, ret_again_ns, ret_request);
	if (watch)
		return watch;
	second = *ret_again_ns ? *ret_again_ns : UINT64_MAX;
	/* Who began in between relied on the first: it stands, or an earlier. */
	if (second < first)
		atomic_store(&look_ns, second);
	second = MIN(first, second);
	*ret_again_ns = second == UINT64_MAX ? 0 : second;
	return NULL;
}

/* Read a file of the thread's; false and an empty string if that fails. */
static bool read_task_file(pid_t tid, const char *file, char *buf, size_t size)
{
	char path[64];
	ssize_t n = -1;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)tid, file);
	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, buf, size - 1);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The calls storage can hang in; others are told by number. */
static void name_syscall(const char *text, char *buf, size_t size)
{
	static const struct {
		long nr;
		const char *name;
	} known[] = {
		{ SYS_pread64, "pread64" },
		{ SYS_pwrite64, "pwrite64" },
		{ SYS_preadv, "preadv" },
		{ SYS_pwritev, "pwritev" },
		{ SYS_preadv2, "preadv2" },
		{ SYS_pwritev2, "pwritev2" },
		{ SYS_read, "read" },
		{ SYS_write, "write" },
		{ SYS_fdatasync, "fdatasync" },
		{ SYS_fsync, "fsync" },
		{ SYS_close, "close" },
		{ SYS_munmap, "munmap" },
		{ SYS_futex, "futex" },
		{ SYS_ppoll, "ppoll" },
		{ SYS_epoll_pwait, "epoll_pwait" },
		{ SYS_sendmsg, "sendmsg" },
		{ SYS_recvmsg, "recvmsg" },
		{ SYS_ioctl, "ioctl" },
		{ SYS_io_uring_enter, "io_uring_enter" },
#ifdef SYS_poll
		{ SYS_poll, "poll" },
#endif
#ifdef SYS_epoll_wait
		{ SYS_epoll_wait, "epoll_wait" },
#endif
	};
	char *end;
	long nr = strtol(text, &end, 10);

	if (end == text) { /* "running" */
		snprintf(buf, size, "%.*s", (int)strcspn(text, "\n"), text);
		return;
	}
	if (nr == -1) {
		snprintf(buf, size, "none"); /* a page fault, for one */
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].nr == nr) {
			snprintf(buf, size, "%s", known[i].name);
			return;
		}
	snprintf(buf, size, "%ld", nr);
}

/* Is this, of /proc/.../stat, a thread of that name? */
static bool has_name(const char *stat, const char *paren, const char *name)
{
	const char *begin = strchr(stat, '(');
	const size_t len = strlen(name);

	return begin && begin + 1 + len == paren &&
	       strncmp(begin + 1, name, len) == 0;
}

void watch_locate(struct watch *watch, struct watch_stuck *ret_stuck)
{
	char text[512], *paren = NULL;

	*ret_stuck = (struct watch_stuck){ 0 };
	/* While we hold this a thread that is at work cannot end. */
	SCOPED_LOCK(&watch->lock);
	if (!watch->tid)
		return;
	if (read_task_file(watch->tid, "stat", text, sizeof(text)))
		paren = strrchr(text, ')');
	if (*watch->left_name &&
	    !(paren && has_name(text, paren, watch->left_name)))
		return;
	ret_stuck->tid = watch->tid;
	if (paren && paren[1] == ' ')
		ret_stuck->state[0] = paren[2];
	if (read_task_file(watch->tid, "syscall", text, sizeof(text)))
		name_syscall(text, ret_stuck->syscall,
			     sizeof(ret_stuck->syscall));
	if (read_task_file(watch->tid, "wchan", text, sizeof(text)))
		snprintf(ret_stuck->wchan, sizeof(ret_stuck->wchan), "%.*s",
			 (int)strcspn(text, "\n"), text);
}
