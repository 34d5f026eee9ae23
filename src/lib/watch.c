/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An idle process must not wake up, and a busy one not make a system call for
 * each request only to be watched. So `look_ns` says when the log thread will
 * look by itself; having set it, the thread looks once more, at every slot. A
 * worker marks a slot busy first and reads look_ns second, so one of the two
 * always sees the other; and where that is too late for the worker it sets its
 * own time and tells. That holds for each slot by itself, as a begin and a look
 * at a slot have to do with no other slot: how many are busy, and in which order
 * they end, does not come into it.
 *
 * While a stall is open nobody looks at the other slots of that session, and
 * what is in them is not in look_ns. What makes up for it is that the end of
 * the stall tells: the worker that takes a mark off always calls watch_close()
 * and has the log thread look, and then all slots count again. So a begin need
 * not tell meanwhile, or with one request stuck each of the others would wake
 * the log thread. That a begin may see a stall which is taken back at once,
 * because the request ended just before it was marked, is the same pair again:
 * busy, then read closed_at; closed_at open again, then look at the slots.
 *
 * A mark goes on by an exchange against the very word that was read, so the
 * request that it is about was not over then, and its end sees it.
 */

#include <linux/virtio_blk.h>

#include "util.h"
#include "watch.h"

#define BUSY 1u
#define STALLED 2u
#define SEEN 4u
#define FLAGS (BUSY | STALLED | SEEN)
#define NEXT_REQUEST 8u

#define SLOTS_ALIGN 64u
#define OPEN UINT64_MAX

_Static_assert(SLOTS_ALIGN % sizeof(struct watch_slot) == 0,
	       "none across two cache lines");

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct watch *list;
static _Atomic uint64_t look_ns = UINT64_MAX; /* that: not at all */

struct watch *watch_new(const struct identity *id, uint64_t limit_ns,
			struct ports *ports, uint32_t n_slots)
{
	const size_t bytes = sizeof(struct watch) + SLOTS_ALIGN - 1 +
			     n_slots * sizeof(struct watch_slot);
	struct watch *watch = calloc(1, bytes);

	if (!watch)
		return NULL;
	watch->slots = (struct watch_slot *)(((uintptr_t)(watch + 1) +
					      SLOTS_ALIGN - 1) &
					     ~(uintptr_t)(SLOTS_ALIGN - 1));
	watch->n_slots = n_slots;
	atomic_init(&watch->refs, 1);
	pthread_mutex_init(&watch->lock, NULL);
	watch->id = *id;
	disk_id_ref(watch->id.disk);
	watch->limit_ns = limit_ns;
	watch->epoll_fd = -1;
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

/* Nobody will look in time for what is due then, but for us: see the head. */
static bool hasten_look(const struct watch *watch, uint64_t due, uint64_t look)
{
	if (atomic_load(&watch->closed_at) == OPEN)
		return false;
	while (due < look)
		if (atomic_compare_exchange_weak(&look_ns, &look, due))
			return true;
	return false;
}

bool watch_begin(struct watch *watch, uint32_t index,
		 const struct watch_request *request)
{
	struct watch_slot *slot = &watch->slots[index];
	const uint64_t due = due_ns(watch, request->since_ns);
	uint32_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
	uint64_t look;

	/* Release: who reads one of these sees the watch_end() before it. */
	atomic_store_explicit(&slot->type, request->type, memory_order_release);
	atomic_store_explicit(&slot->sector, request->sector,
			      memory_order_release);
	atomic_store_explicit(&slot->length, request->length,
			      memory_order_release);
	atomic_store_explicit(&slot->since_ns, request->since_ns,
			      memory_order_release);
	/* Release: the four stores above, to read_slot(). */
	atomic_store_explicit(&slot->word, word | BUSY, memory_order_release);
	/* Pairs with watch_scan(), which sets look_ns and then reads word. */
	atomic_thread_fence(memory_order_seq_cst);
	look = atomic_load_explicit(&look_ns, memory_order_relaxed);
	return due < look && hasten_look(watch, due, look);
}

enum watch_found watch_end(struct watch *watch, uint32_t index)
{
	struct watch_slot *slot = &watch->slots[index];
	uint32_t word =
		atomic_load_explicit(&slot->word, memory_order_relaxed) &
		~FLAGS;

	/* Either this sees who found it, or his exchange fails. */
	word = atomic_exchange(&slot->word, word + NEXT_REQUEST);
	if (word & STALLED)
		return WATCH_MARKED;
	return word & SEEN ? WATCH_SEEN : WATCH_UNFOUND;
}

void watch_close(struct watch *watch, uint64_t position)
{
	atomic_store(&watch->closed_at, position);
}

/* What is in a slot, and the word it was found with. */
static struct watch_request read_slot(const struct watch_slot *slot,
				      uint32_t *ret_word)
{
	struct watch_request request;
	uint32_t word = atomic_load(&slot->word);

	request.type = atomic_load(&slot->type);
	request.sector = atomic_load(&slot->sector);
	request.length = atomic_load(&slot->length);
	request.since_ns = atomic_load(&slot->since_ns);
	/* The same request before and after: the four belong to it. */
	request.busy = (word & BUSY) && ((atomic_load(&slot->word) ^ word) &
					 ~(STALLED | SEEN)) == 0;
	*ret_word = word;
	return request;
}

struct watch_request watch_request(const struct watch *watch, uint32_t slot)
{
	uint32_t word;

	return read_slot(&watch->slots[slot], &word);
}

/* A look at all slots of a session. */
struct survey {
	struct watch_snapshot seen;
	struct watch_slot *oldest; /* NULL: none is busy */
	uint32_t word; /* of the oldest */
	bool changed; /* one of them, meanwhile */
};

static struct survey survey_slots(const struct watch *watch)
{
	struct survey survey = { 0 };

	for (uint32_t i = 0; i < watch->n_slots; i++) {
		struct watch_slot *slot = &watch->slots[i];
		struct watch_request request;
		uint32_t word;

		if (!(atomic_load(&slot->word) & BUSY))
			continue;
		request = read_slot(slot, &word);
		survey.seen.n_in_flight++;
		/* Of one that changed it is not known what it is now. */
		if (!request.busy || request.type == VIRTIO_BLK_T_IN ||
		    request.type == VIRTIO_BLK_T_OUT)
			survey.seen.any_data = true;
		if (!request.busy) {
			survey.changed = true;
		} else if (!survey.oldest ||
			   request.since_ns < survey.seen.oldest.since_ns) {
			survey.oldest = slot;
			survey.word = word;
			survey.seen.oldest = request;
		}
	}
	return survey;
}

struct watch_snapshot watch_snapshot(const struct watch *watch)
{
	return survey_slots(watch).seen;
}

static bool is_over(const struct watch *watch, const struct survey *survey,
		    uint64_t now)
{
	return survey->oldest &&
	       due_ns(watch, survey->seen.oldest.since_ns) <= now;
}

/* Leave a note with the oldest. False: it is another one by now. */
static bool flag_oldest(struct survey *survey, uint32_t flag)
{
	return (survey->word & flag) ||
	       atomic_compare_exchange_strong(&survey->oldest->word,
					      &survey->word,
					      survey->word | flag);
}

/* Each turn one more that was over at that time has ended, or has a note. */
bool watch_is_stalled(struct watch *watch, uint64_t now)
{
	struct survey survey;

	do {
		survey = survey_slots(watch);
		if (!is_over(watch, &survey, now))
			return false;
	} while (!flag_oldest(&survey, SEEN));
	return true;
}

static void look_by(uint64_t *again_ns, uint64_t due)
{
	if (*again_ns == 0 || due < *again_ns)
		*again_ns = due;
}

/* Mark the oldest if it is over its limit; turns as above. */
static bool mark_oldest(struct watch *watch, uint64_t now, uint64_t *again_ns,
			struct watch_snapshot *ret_seen)
{
	const uint64_t closed_at = atomic_load(&watch->closed_at);
	struct survey survey;

	for (;;) {
		survey = survey_slots(watch);
		if (!is_over(watch, &survey, now))
			break;
		/* First, as with the mark it is for the worker to set. */
		atomic_store(&watch->untold, true);
		atomic_store(&watch->closed_at, OPEN);
		if (flag_oldest(&survey, STALLED)) {
			*ret_seen = survey.seen;
			return true;
		}
		/* seq_cst, pairs with hasten_look(): see the head. */
		atomic_store(&watch->closed_at, closed_at);
		atomic_store(&watch->untold, false);
	}
	if (survey.oldest)
		look_by(again_ns, due_ns(watch, survey.seen.oldest.since_ns));
	/* One that changed while we looked is a young one. */
	if (survey.changed)
		look_by(again_ns, due_ns(watch, now));
	return false;
}

static struct watch *scan_list(uint64_t now, uint64_t position,
			       uint64_t *again_ns,
			       struct watch_snapshot *ret_seen)
{
	SCOPED_LOCK(&list_lock);

	*again_ns = 0;
	for (struct watch *watch = list; watch; watch = watch->next) {
		const uint64_t closed_at = atomic_load(&watch->closed_at);

		if (closed_at == OPEN)
			continue;
		/* A stall has ended, and that is to be told before the next. */
		if (closed_at > position)
			look_by(again_ns, now);
		else if (mark_oldest(watch, now, again_ns, ret_seen))
			return watch_ref(watch);
	}
	return NULL;
}

struct watch *watch_scan(uint64_t now, uint64_t position,
			 uint64_t *ret_again_ns,
			 struct watch_snapshot *ret_seen)
{
	struct watch *watch = scan_list(now, position, ret_again_ns, ret_seen);
	uint64_t first, second;

	if (watch)
		return watch;
	first = *ret_again_ns ? *ret_again_ns : UINT64_MAX;
	/* seq_cst, pairs with watch_begin(): see the head of the file. */
	atomic_store(&look_ns, first);
	watch = scan_list(now, position, ret_again_ns, ret_seen);
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

void watch_told(struct watch *watch)
{
	atomic_store(&watch->untold, false);
}

static bool is_untold(const struct watch *watch, uint64_t now)
{
	struct survey survey;

	/* In this order: see mark_oldest(). */
	if (atomic_load(&watch->closed_at) == OPEN)
		return atomic_load(&watch->untold);
	survey = survey_slots(watch);
	return is_over(watch, &survey, now);
}

bool watch_any_untold(uint64_t now)
{
	SCOPED_LOCK(&list_lock);
	for (struct watch *watch = list; watch; watch = watch->next)
		if (is_untold(watch, now))
			return true;
	return false;
}
