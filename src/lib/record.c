/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From an entry to "KEY=value" strings, cut to fit, and to who gets them. */

#define SD_JOURNAL_SUPPRESS_LOCATION

#include <ctype.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-journal.h>

#include "record.h"
#include "util.h"

/* The end of struct ktvblk_record in version 1.0: a handler's may know no more. */
_Static_assert(offsetof(struct ktvblk_record, reserved) + sizeof(int) ==
		       (sizeof(void *) == 8 ? 48 : 28),
	       "ABI");

const char *request_type_name(uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return "in";
	case VIRTIO_BLK_T_OUT:
		return "out";
	case VIRTIO_BLK_T_FLUSH:
		return "flush";
	case VIRTIO_BLK_T_GET_ID:
		return "get_id";
	case VIRTIO_BLK_T_DISCARD:
		return "discard";
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return "write_zeroes";
	default:
		return "unsupported";
	}
}

__attribute__((format(printf, 2, 3))) static void
append(struct record *record, const char *format, ...)
{
	size_t room = sizeof(record->text) - record->used;
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(record->text + record->used, room, format, ap);
	va_end(ap);
	record->used += MIN((size_t)MAX(n, 0), room - 1);
}

/* Begin a field; what append() adds until the next one belongs to it. */
static void begin_field(struct record *record)
{
	if (record->used && record->used < sizeof(record->text) - 1)
		record->used++;
	record->fields[record->n_fields] = record->text + record->used;
	record->n_fields += record->n_fields < LOG_FIELDS_MAX - 1;
}

#define field(record, ...) (begin_field(record), append(record, __VA_ARGS__))

static void append_value(struct record *record, enum field_format format,
			 const struct log_arg *arg)
{
	switch (format) {
	case FMT_END:
		break;
	case FMT_DEC:
	case FMT_ERRNO:
		append(record, "%" PRIu64, arg->number);
		break;
	case FMT_HEX:
		append(record, "%#" PRIx64, arg->number);
		break;
	case FMT_TEXT:
		append(record, "%s", arg->text);
		break;
	case FMT_REQ:
		append(record, "%s", request_type_name((uint32_t)arg->number));
		break;
	}
}

/* "KTVBLK_TIMEOUT_MS" reads "timeout_ms" in the message. */
static void append_key(struct record *record, const char *key)
{
	if (strncmp(key, "KTVBLK_", 7) == 0)
		key += 7;
	for (; *key; key++)
		append(record, "%c", tolower(*key));
}

static void format_message(struct record *record, const struct log_entry *entry)
{
	const struct event_info *info = &event_table[entry->event];
	const struct disk_id *disk = entry->id.disk;
	const char *before = " [";

	begin_field(record);
	append(record, "MESSAGE=");
	record->message = record->text + record->used;
	if (!disk)
		append(record, "virtio-blk: ");
	else if (*disk->name)
		append(record,
		       "virtio-blk %" PRIu64 " (%s): ", disk->instance_id,
		       disk->name);
	else
		append(record, "virtio-blk %" PRIu64 ": ", disk->instance_id);
	append(record, "%s", info->text);
	/* For who gets the text alone, as from syslog. */
	if (disk) {
		append(record,
		       " [instance_id=%" PRIu64
		       " stop_fd=%d capacity_sectors=%" PRIu64,
		       disk->instance_id, entry->id.stop_fd,
		       entry->capacity_sectors);
		if (entry->id.of_queue)
			append(record, " queue=%u", entry->id.of_queue - 1);
		before = " ";
	}
	for (size_t i = 0; info->fields[i].format != FMT_END; i++) {
		if (!entry->args.of[i].has)
			continue;
		append(record, "%s", before);
		append_key(record, info->fields[i].key);
		append(record, "=");
		append_value(record, info->fields[i].format,
			     &entry->args.of[i]);
		before = " ";
	}
	if (before[1] == '\0')
		append(record, "]");
}

static void format_stuck(struct record *record, struct watch *watch)
{
	struct watch_stuck stuck;

	watch_locate(watch, &stuck);
	if (stuck.counted)
		field(record, KTVBLK_FIELD_STUCK_THREADS "=%u",
		      stuck.n_threads);
	if (!stuck.tid)
		return;
	field(record, KTVBLK_FIELD_STUCK_TID "=%d", (int)stuck.tid);
	if (*stuck.state)
		field(record, KTVBLK_FIELD_STUCK_STATE "=%s", stuck.state);
	if (*stuck.syscall)
		field(record, KTVBLK_FIELD_STUCK_SYSCALL "=%s", stuck.syscall);
	if (*stuck.wchan)
		field(record, KTVBLK_FIELD_STUCK_WCHAN "=%s", stuck.wchan);
}

void record_format(struct record *record, const struct log_entry *entry)
{
	const struct event_info *info = &event_table[entry->event];
	const struct disk_id *disk = entry->id.disk;

	record->n_fields = 0;
	record->used = 0;
	record->message_id = info->message_id;
	record->priority = info->priority;
	format_message(record, entry);
	field(record, "MESSAGE_ID=%s", info->message_id);
	field(record, "PRIORITY=%d", info->priority);
	field(record, "CODE_FILE=%s", entry->site.file);
	field(record, "CODE_LINE=%u", entry->site.line);
	field(record, "CODE_FUNC=%s", entry->site.func);
	if (disk) {
		field(record, KTVBLK_FIELD_INSTANCE_ID "=%" PRIu64,
		      disk->instance_id);
		field(record, KTVBLK_FIELD_STOP_FD "=%d", entry->id.stop_fd);
		field(record, KTVBLK_FIELD_CAPACITY_SECTORS "=%" PRIu64,
		      entry->capacity_sectors);
		if (*disk->name)
			field(record, KTVBLK_FIELD_DISK "=%s", disk->name);
		if (entry->id.of_queue)
			field(record, KTVBLK_FIELD_QUEUE "=%u",
			      entry->id.of_queue - 1);
	}
	for (size_t i = 0; info->fields[i].format != FMT_END; i++) {
		if (!entry->args.of[i].has)
			continue;
		begin_field(record);
		append(record, "%s=", info->fields[i].key);
		append_value(record, info->fields[i].format,
			     &entry->args.of[i]);
	}
	if (entry->watch)
		format_stuck(record, entry->watch);
}

bool record_send(const struct record *record)
{
	struct iovec iov[LOG_FIELDS_MAX];

	for (size_t i = 0; i < record->n_fields; i++)
		iov[i] = (struct iovec){
			.iov_base = (void *)(uintptr_t)record->fields[i],
			.iov_len = strlen(record->fields[i]),
		};
	return sd_journal_sendv(iov, (int)record->n_fields) == 0;
}

void record_pass(const struct record *record,
		 void (*handler)(const struct ktvblk_record *record,
				 void *userdata),
		 void *userdata)
{
	const struct ktvblk_record public = {
		.size = sizeof(public),
		.message_id = record->message_id,
		.message = record->message,
		.fields = record->fields,
		.n_fields = record->n_fields,
		.priority = record->priority,
	};

	handler(&public, userdata);
}
