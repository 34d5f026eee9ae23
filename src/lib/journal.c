/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * sd_journal_sendv() sleeps while journald does not read, and when storage
 * hangs journald often hangs on it too: it would block the vCPU exactly when
 * the bound matters. So it is called by the log thread alone. The mutex here is
 * held for copies only, never across a sink or procfs.
 *
 * Every record that does not reach its sink is counted, and the next that does
 * is preceded by one that tells how many.
 *
 * The thread is not waited for without a bound, nor with the mutex: what the
 * VMM's handler or libsystemd keeps for each thread may hold up its end. And a
 * handler may end it: it is followed by another, see ends_early().
 */

#include <string.h>

#include "journal.h"
#include "ktvblk.h"
#include "thread.h"
#include "util.h"

struct sink {
	void (*handler)(const struct ktvblk_record *record, void *userdata);
	void (*release)(void *userdata);
	void *userdata;
	bool busy; /* a call is in progress, or about to be */
	bool retired; /* the one in progress is its last */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more; /* for the thread: there is something to do */
	pthread_cond_t done; /* for the others: an entry is out, or it ended */

	unsigned int refs;
	unsigned int waiting; /* who dropped the last one, for the end */
	pthread_t thread;
	pid_t pid; /* of the process that has the thread */
	bool running; /* up to the thread's last act */
	bool joinable;
	bool rescan; /* look for stalled requests */

	struct log_entry ring[LOG_QUEUE_ENTRIES];
	uint64_t queued; /* entries ever put in */
	uint64_t taken; /* and taken out, by the thread */
	uint64_t handled; /* and dealt with */
	uint64_t looks_asked, looks_had; /* by who waits for one */
	uint64_t dropped; /* records lost, not told yet */

	struct log_job *jobs, **last_job;
	struct sink *sink; /* NULL: the journal */
} logger = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
	.last_job = &logger.jobs,
};

/* The thread's own: what it is busy with, for when it is made to end. */
static struct {
	struct log_entry entry; /* with its references */
	bool has_entry;
	bool was_queued;
	bool delivered;
	struct sink *sink; /* that it is calling */
	uint64_t look_again_ns; /* for stalled requests; 0: not at all */
} hand;

_Atomic int log_level = LOG_INFO;

static void init_conds(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&logger.more, &attr);
	pthread_cond_init(&logger.done, &attr);
	pthread_condattr_destroy(&attr);
}

static void ensure_conds(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_conds);
}

/* With the lock held; deadline_ns 0: for ever. False: it has passed. */
static bool cond_wait(pthread_cond_t *cond, uint64_t deadline_ns)
{
	struct timespec ts = ns_to_timespec(deadline_ns);

	if (!deadline_ns)
		pthread_cond_wait(cond, &logger.lock);
	else if (pthread_cond_timedwait(cond, &logger.lock, &ts) == ETIMEDOUT)
		return false;
	return true;
}

/*
 * The thread's side
 */

/* The release comes last: it may end the thread. */
static void sink_free(struct sink *sink)
{
	void (*release)(void *) = sink->release;
	void *userdata = sink->userdata;

	free(sink);
	if (release)
		release(userdata);
}

/* The call is over. True: it was the sink's last. */
static bool leave_sink(struct sink *sink)
{
	SCOPED_LOCK(&logger.lock);
	hand.sink = NULL;
	sink->busy = false;
	return sink->retired;
}

/* Hand one entry to the sink of the moment; true if the sink took it. */
static bool deliver(const struct log_entry *entry)
{
	static struct record record; /* the thread's own, and large */

	pthread_mutex_lock(&logger.lock);
	struct sink *sink = hand.sink = logger.sink;
	if (sink)
		sink->busy = true;
	pthread_mutex_unlock(&logger.lock);

	record_format(&record, entry);
	if (!sink)
		return record_send(&record);
	record_pass(&record, sink->handler, sink->userdata);
	hand.delivered = entry == &hand.entry;
	if (leave_sink(sink))
		sink_free(sink);
	return true;
}

static void tell_dropped(void)
{
	struct log_entry entry = { .event = EVENT_LOG_OVERFLOW,
				   .site = LOG_SITE };
	uint64_t dropped;

	pthread_mutex_lock(&logger.lock);
	dropped = logger.dropped;
	pthread_mutex_unlock(&logger.lock);
	fill_LOG_OVERFLOW(&entry.args, dropped);
	if (!dropped || !log_wants(entry.event) || !deliver(&entry))
		return;
	pthread_mutex_lock(&logger.lock);
	logger.dropped -= dropped;
	pthread_mutex_unlock(&logger.lock);
}

/* Done with the entry in hand, and if it went nowhere that counts. */
static void put_down(void)
{
	if (!hand.was_queued)
		watch_told(hand.entry.watch);
	disk_id_unref(hand.entry.id.disk);
	watch_unref(hand.entry.watch);
	hand.has_entry = false;
	SCOPED_LOCK(&logger.lock);
	if (!hand.delivered)
		logger.dropped++;
	if (hand.was_queued) {
		logger.handled++;
		pthread_cond_broadcast(&logger.done);
	}
}

/* Take over an entry and its references, and deliver it. */
static void handle(const struct log_entry *entry, bool was_queued)
{
	hand.entry = *entry;
	hand.was_queued = was_queued;
	hand.delivered = false;
	hand.has_entry = true;
	tell_dropped();
	if (deliver(&hand.entry))
		hand.delivered = true;
	put_down();
}

/* Report what has been in service for too long; when to look again. */
static uint64_t report_stalled(void)
{
	struct watch_snapshot seen;
	struct watch *watch;
	uint64_t again_ns;

	/* The thread alone writes `taken`. */
	while ((watch = watch_scan(now_ns(), logger.taken, &again_ns, &seen))) {
		struct log_entry entry = {
			.event = EVENT_REQUEST_STALLED,
			.id = watch->id,
			.capacity_sectors = disk_id_sectors(watch->id.disk),
			.watch = watch,
			.site = LOG_SITE,
		};

		fill_REQUEST_STALLED(&entry.args, seen.oldest.type,
				     seen.oldest.sector, seen.oldest.length,
				     (now_ns() - seen.oldest.since_ns) /
					     NSEC_PER_MSEC,
				     seen.n_in_flight);
		if (watch->ports)
			ports_state_changed(watch->ports);
		if (log_wants(entry.event)) {
			disk_id_ref(entry.id.disk);
			handle(&entry, false);
		} else {
			watch_told(watch);
			watch_unref(watch);
		}
	}
	return again_ns;
}

static void handle_entry(void)
{
	const struct log_entry entry =
		logger.ring[logger.taken % LOG_QUEUE_ENTRIES];

	logger.taken++;
	pthread_mutex_unlock(&logger.lock);
	handle(&entry, true);
	pthread_mutex_lock(&logger.lock);
}

static void run_job(void)
{
	struct log_job *job = logger.jobs;

	logger.jobs = job->next;
	if (!logger.jobs)
		logger.last_job = &logger.jobs;
	pthread_mutex_unlock(&logger.lock);
	job->run(job);
	pthread_mutex_lock(&logger.lock);
}

/* With the lock: is it time to? Not only when there is nothing else to do. */
static bool must_look(void)
{
	return logger.rescan ||
	       (hand.look_again_ns && now_ns() >= hand.look_again_ns);
}

static void look(void)
{
	const uint64_t asked = logger.looks_asked;

	logger.rescan = false;
	pthread_mutex_unlock(&logger.lock);
	hand.look_again_ns = report_stalled();
	pthread_mutex_lock(&logger.lock);
	logger.looks_had = asked;
	pthread_cond_broadcast(&logger.done);
}

static int start_thread(void);

/* Volatile as in worker.c. */
struct ending {
	volatile bool begun;
};

/* A handler, a release or a job has called pthread_exit(): others go on. */
static void ends_early(void *arg)
{
	struct sink *sink = hand.sink;
	struct ending *ending = (struct ending *)arg;
	bool last;

	/* The release below did so too; what is in hand is the next one's. */
	if (ending->begun)
		return;
	ending->begun = true;
	last = sink && leave_sink(sink);
	if (hand.has_entry)
		put_down();
	pthread_mutex_lock(&logger.lock);
	start_thread();
	pthread_cond_broadcast(&logger.done);
	pthread_mutex_unlock(&logger.lock);
	if (last)
		sink_free(sink);
}

static void log_loop(void)
{
	pthread_mutex_lock(&logger.lock);
	for (;;) {
		if (must_look())
			look();
		/* Whoever asks for looks without end does not keep us there. */
		if (logger.jobs && logger.jobs->after <= logger.taken)
			run_job();
		else if (logger.taken != logger.queued)
			handle_entry();
		else if (logger.rescan)
			continue;
		else if (!logger.refs)
			break;
		else
			cond_wait(&logger.more, hand.look_again_ns);
	}
	logger.running = false;
	/* Nobody to join us: who dropped the last reference gave up. */
	if (logger.joinable && !logger.waiting) {
		logger.joinable = false;
		pthread_detach(pthread_self());
	}
	pthread_cond_broadcast(&logger.done);
	pthread_mutex_unlock(&logger.lock);
}

static void *log_main(void *arg)
{
	struct ending ending = { 0 };

	(void)arg;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	pthread_setname_np(pthread_self(), "ktvblk-log");
	pthread_cleanup_push(ends_early, &ending);
	log_loop();
	pthread_cleanup_pop(0);
	return NULL;
}

/* With the lock. */
static int start_thread(void)
{
	int r;

	/* The one before did its last act; when it ends is not for us to say. */
	if (logger.joinable)
		pthread_detach(logger.thread);
	r = thread_start(&logger.thread, log_main, NULL);
	logger.running = logger.joinable = r == 0;
	/* The one before may have ended while it was to look again. */
	logger.rescan = true;
	logger.pid = getpid();
	return r;
}

/*
 * The others' side
 */

int log_ref(void)
{
	int r = 0;

	ensure_conds();
	SCOPED_LOCK(&logger.lock);
	/* One that was stopping, but is not gone yet, goes on; tell who waits. */
	if (!logger.running)
		r = start_thread();
	else if (!logger.refs)
		pthread_cond_broadcast(&logger.done);
	if (r == 0)
		logger.refs++;
	return r;
}

/* Wait for the thread's last act; true: to join or detach it is for us. */
static bool take_thread(uint64_t deadline_ns, pthread_t *ret_thread)
{
	SCOPED_LOCK(&logger.lock);
	/* A last reference dropped by a job or a handler: do not wait for us. */
	if (!pthread_equal(logger.thread, pthread_self()))
		while (logger.running && !logger.refs)
			if (!cond_wait(&logger.done, deadline_ns))
				break;
	logger.waiting--;
	if (logger.refs || !logger.joinable)
		return false;
	logger.joinable = false;
	*ret_thread = logger.thread;
	return true;
}

void log_unref(uint64_t deadline_ns)
{
	const struct timespec until = ns_to_timespec(deadline_ns);
	pthread_t thread;
	bool last;

	SCOPED_NO_CANCEL();
	pthread_mutex_lock(&logger.lock);
	last = --logger.refs == 0;
	logger.waiting += last;
	pthread_mutex_unlock(&logger.lock);
	if (!last)
		return;
	/* Without the lock, or the thread would wake only to wait for it. */
	pthread_cond_signal(&logger.more);
	if (!take_thread(deadline_ns, &thread))
		return;
	/*
	 * Its sink hangs: it ends when that comes back, or serves again. Or
	 * what others do at a thread's end does.
	 */
	if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until))
		pthread_detach(thread);
}

void log_run_later(struct log_job *job)
{
	SCOPED_LOCK(&logger.lock);
	job->next = NULL;
	job->after = logger.queued;
	*logger.last_job = job;
	logger.last_job = &job->next;
	pthread_cond_signal(&logger.more);
}

uint64_t log_position(void)
{
	SCOPED_LOCK(&logger.lock);
	return logger.queued;
}

void log_watch_requests(void)
{
	SCOPED_LOCK(&logger.lock);
	logger.rescan = true;
	pthread_cond_signal(&logger.more);
}

static void enqueue(const struct log_entry *entry)
{
	const struct event_info *info = &event_table[entry->event];
	uint64_t room = LOG_QUEUE_ENTRIES;
	struct log_entry *next;

	/* What a guest can cause must not crowd out what it cannot. */
	if ((info->flags & EV_LIMITED) || info->priority >= LOG_DEBUG)
		room -= LOG_QUEUE_RESERVED;
	SCOPED_LOCK(&logger.lock);
	if (logger.queued - logger.taken >= room) {
		logger.dropped++;
		return;
	}
	disk_id_ref(entry->id.disk);
	watch_ref(entry->watch);
	next = &logger.ring[logger.queued++ % LOG_QUEUE_ENTRIES];
	*next = *entry;
	if (entry->id.disk)
		next->capacity_sectors = disk_id_sectors(entry->id.disk);
	pthread_cond_signal(&logger.more);
}

static void tell_suppressed(const struct identity *id, enum event event,
			    uint32_t n)
{
	struct log_entry entry = {
		.event = EVENT_LOG_SUPPRESSED,
		.id = *id,
		.site = LOG_SITE,
	};

	if (!n || !log_wants(entry.event))
		return;
	fill_LOG_SUPPRESSED(&entry.args, n, event_table[event].message_id);
	enqueue(&entry);
}

void log_suppressed(const struct identity *id)
{
	for (int i = 0; i < EVENT_COUNT; i++)
		tell_suppressed(id, (enum event)i,
				atomic_exchange(&id->disk->limits[i].suppressed,
						0));
}

void log_emit(enum event event, const struct identity *id, struct watch *watch,
	      struct log_site site, const struct log_args *args)
{
	struct log_entry entry = { .event = event,
				   .site = site,
				   .args = *args };
	uint32_t suppressed;

	if (id)
		entry.id = *id;
	if (event_table[event].flags & EV_STUCK)
		entry.watch = watch;
	if (id) {
		if (!disk_id_may_log(id->disk, event, now_ns(), &suppressed))
			return;
		tell_suppressed(id, event, suppressed);
	}
	enqueue(&entry);
}

int ktvblk_set_log_handler(void (*handler)(const struct ktvblk_record *record,
					   void *userdata),
			   void (*release)(void *userdata), void *userdata)
{
	struct sink *sink = NULL, *old;

	if (!handler && release)
		return -EINVAL;
	if (handler) {
		sink = calloc(1, sizeof(*sink));
		if (!sink)
			return -ENOMEM;
		sink->handler = handler;
		sink->release = release;
		sink->userdata = userdata;
	}
	pthread_mutex_lock(&logger.lock);
	old = logger.sink;
	logger.sink = sink;
	if (old && old->busy) {
		old->retired = true;
		old = NULL;
	}
	pthread_mutex_unlock(&logger.lock);
	if (old)
		sink_free(old);
	return 0;
}

int ktvblk_set_log_level(int priority)
{
	if (priority < LOG_EMERG || priority > LOG_DEBUG)
		return -EINVAL;
	atomic_store_explicit(&log_level, priority, memory_order_relaxed);
	return 0;
}

/* With the lock: wait until *n is at least that much. */
static int wait_until(const uint64_t *n, uint64_t least, uint64_t deadline_ns)
{
	while (*n < least)
		if (!logger.running || !cond_wait(&logger.done, deadline_ns))
			return -ETIMEDOUT;
	return 0;
}

int ktvblk_log_flush(uint32_t timeout_ms)
{
	uint64_t deadline_ns = now_ns() + timeout_ms * NSEC_PER_MSEC;
	bool here;
	int r;

	ensure_conds();
	SCOPED_NO_CANCEL();
	pthread_mutex_lock(&logger.lock);
	here = logger.running && logger.pid == getpid();
	if (logger.running && pthread_equal(logger.thread, pthread_self()))
		r = -EDEADLK;
	else
		r = wait_until(&logger.handled, logger.queued, deadline_ns);
	pthread_mutex_unlock(&logger.lock);
	/* What counts as stalled may be told by no record yet. */
	if (r < 0 || !here || !watch_any_untold(now_ns()))
		return r;

	SCOPED_LOCK(&logger.lock);
	logger.rescan = true;
	pthread_cond_signal(&logger.more);
	return wait_until(&logger.looks_had, ++logger.looks_asked, deadline_ns);
}

/* What was recorded just before exit() must be found. Not in a forked child. */
__attribute__((destructor)) static void flush_at_exit(void)
{
	if (logger.pid == getpid())
		ktvblk_log_flush(LOG_EXIT_FLUSH_MS);
}
