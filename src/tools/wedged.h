/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef WEDGED_H
#define WEDGED_H

/*
 * ktvblk-wedged(1): from records in the journal to the devices that are wedged
 * or stalled now.
 *
 *   wedged-options.c  what is asked for
 *   wedged-files.c    which journal files cannot be read
 *   wedged-journal.c  records, one after the other
 *   wedged-list.c     what they add up to
 *   wedged-process.c  is the process still there?
 *   wedged-since.c    points in time
 *   wedged-text.c     strings of strangers
 *   wedged-table.c, wedged-json.c   the answer
 *   wedged-follow.c   what happens from then on
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-journal.h>

#define PROGRAM "ktvblk-wedged"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define USEC_PER_SEC UINT64_C(1000000)

/* A number that is not known. */
#define UNKNOWN UINT64_MAX

/* What a record does to the entry of its device. */
enum effect {
	EFFECT_WEDGE,
	EFFECT_STALL,
	EFFECT_RESUME, /* the stall is over, a wedge is not */
	EFFECT_RECLAIM, /* both are */
};

struct kind {
	const char *message_id;
	const char *name; /* for programs */
	enum effect effect;
};

/* The kinds of records that are looked at; ends with a message_id of NULL. */
extern const struct kind kinds[];

/*
 * One life of one device. A number of an eventfd belongs to one life at a time,
 * and a worker that is stuck keeps it.
 */
struct key {
	sd_id128_t machine;
	sd_id128_t boot;
	uint64_t pid;
	uint64_t instance;
	uint64_t stop_fd;
};

/* One record. Text of the journal is not to be trusted: see utf8_next(). */
struct record {
	const struct kind *kind;
	struct key key;
	uint64_t realtime_us;
	uint64_t monotonic_us; /* of its boot */
	uint64_t capacity_sectors;
	uint64_t timeout_ms;
	uint64_t sector;
	uint64_t length;
	uint64_t age_ms;
	uint64_t stuck_tid;
	uint64_t stuck_ms;
	char disk[256];
	char command[64];
	char fenced[8];
	char req_type[16]; /* empty: no request was in service */
	char stuck_state[8];
	char stuck_syscall[40];
	char stuck_wchan[72];
};

struct device {
	TAILQ_ENTRY(device) link;
	struct record record; /* that says most */
	bool wedged;
	bool stalled;
	/* Another life has its number: its end was not recorded. */
	bool replaced;
	bool told_gone; /* that its process is */
	int pidfd; /* to see that; -1: none */
};

struct list {
	TAILQ_HEAD(, device) devices; /* in the order of their records */
	void *tree; /* by key, without those replaced */
};

void list_init(struct list *list);
void list_free(struct list *list);

/*
 * What the record adds: 1 with a change, 0 without one, -ENOMEM. A change is
 * told in *ret_what: "wedged", "stalled", "resumed", "reclaimed".
 */
int list_add(struct list *list, const struct record *record,
	     const char **ret_what);

/* Wait for its process no more. */
void device_unwatch(struct device *device);

enum presence {
	PROCESS_UNKNOWN, /* of another machine or container */
	PROCESS_RUNNING,
	PROCESS_GONE, /* its number may be another's by now */
};

/* Is the process that made the record still there? */
enum presence process_look(const struct record *record);
/* A descriptor that can be read once it has ended; -1: none, or not to be had. */
int process_open(const struct record *record);
const char *presence_name(enum presence presence);

/* What to read, as the options say. */
struct query {
	const char *directory; /* NULL: this machine's */
	uint64_t since_us; /* 0: from the beginning */
	bool has_boot;
	sd_id128_t boot;
	bool json;
	bool follow;
	bool running; /* only processes that are not gone */
};

/* 0; or 1 to end well; or -errno, told on stderr. */
int options_parse(int argc, char **argv, struct query *query);

/* "2026-01-31 12:00", "-2h", "@1700000000" ...; 0 or -EINVAL. */
int since_parse(const char *text, uint64_t now_us, uint64_t *ret_us);

/* Restrict a journal to the records that are looked at. 0 or -errno. */
int journal_restrict(sd_journal *journal, const struct query *query);

/*
 * Open the journal, with every trouble told on stderr. 0, or -errno.
 */
int journal_open(const struct query *query, sd_journal **ret_journal);

/*
 * Go on to the next record: 1 with one, 0 at the end, or -errno. What cannot be
 * understood is told on stderr, and makes *trouble true.
 */
int journal_next(sd_journal *journal, struct record *ret_record, bool *trouble);

/*
 * See that the journal's files can be read; trouble is told on stderr. 0, or
 * -errno of the last trouble; -ENOTDIR: there is nothing that could be opened.
 */
int files_check(const struct query *query);

/*
 * The next character of a string, past it; -1 for a byte that is not UTF-8, 0
 * at the end, where it stays.
 */
int32_t utf8_next(const char **text);

/* Text for a terminal, cut to size: what is not to be shown there is a '?'. */
void text_clean(char *to, size_t size, const char *from);

/*
 * Print a device, or what has happened to it: `what` is a state, or what
 * list_add() said.
 */
struct printer {
	void (*head)(void); /* before the first; may be NULL */
	void (*row)(const struct record *record, const char *what,
		    enum presence presence);
};

extern const struct printer table_printer;
extern const struct printer json_printer;

struct view {
	const struct query *query;
	const struct printer *printer;
	struct list list;
	bool trouble; /* a record was left out, told once */
	bool headed;
};

void view_print(struct view *view, const struct record *record,
		const char *what, enum presence presence);

/* Take in all records up to the end; with `tell`, print what changes. */
int view_take(struct view *view, sd_journal *journal, bool tell);

/* Print what changes, until a signal: 0 then, or -errno, told on stderr. */
int follow(struct view *view, sd_journal *journal);

/* What is on its way to stdout must get there: 0, or -EIO, told on stderr. */
int flush(void);

/* One line on stderr, as "ktvblk-wedged: ...". */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

#endif
