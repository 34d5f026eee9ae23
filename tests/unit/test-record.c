/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each event becomes a record with exactly its fields, a fixed MESSAGE_ID of
 * its own, the device's identity where there is a device, and no address.
 */

#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "journal.h"
#include "ktvblk.h"

#define INSTANCE_FIELD KTVBLK_FIELD_INSTANCE_ID
#define STOP_FIELD KTVBLK_FIELD_STOP_FD
#define CAPACITY_FIELD KTVBLK_FIELD_CAPACITY_SECTORS

static struct record record; /* large */

static struct identity new_identity(const char *name)
{
	return (struct identity){ disk_id_new(name, 4096), 23, 0 };
}

/* The value of a field; NULL: not there. It must not be there twice. */
static const char *field(const char *key)
{
	const size_t len = strlen(key);
	const char *value = NULL;

	for (size_t i = 0; i < record.n_fields; i++) {
		if (strncmp(record.fields[i], key, len) != 0 ||
		    record.fields[i][len] != '=')
			continue;
		ck_assert_ptr_null(value);
		value = record.fields[i] + len + 1;
	}
	return value;
}

#define ck_assert_field(key, value)                                            \
	do {                                                                   \
		const char *have_ = field(key);                                \
                                                                               \
		ck_assert_msg(have_, "no %s in: %s", key, record.message);     \
		ck_assert_str_eq(have_, value);                                \
	} while (0)

static size_t field_count(const struct event_info *info)
{
	size_t n = 0;

	while (info->fields[n].format != FMT_END)
		n++;
	return n;
}

/* An argument that can be told from the others. */
static struct log_arg argument(const struct event_info *info, size_t i)
{
	struct log_arg arg = { .has = true };

	switch (info->fields[i].format) {
	case FMT_TEXT:
		arg.text = "some text";
		break;
	case FMT_REQ:
		arg.number = VIRTIO_BLK_T_FLUSH;
		break;
	default:
		arg.number = 1000 + i;
	}
	return arg;
}

static const char *argument_text(const struct event_info *info, size_t i,
				 char *buf, size_t size)
{
	switch (info->fields[i].format) {
	case FMT_TEXT:
		return "some text";
	case FMT_REQ:
		return "flush";
	case FMT_HEX:
		snprintf(buf, size, "0x%zx", 1000 + i);
		return buf;
	default:
		snprintf(buf, size, "%zu", 1000 + i);
		return buf;
	}
}

static struct log_entry entry_of(int event, const struct identity *id)
{
	struct log_entry entry = {
		.event = (enum event)event,
		.id = *id,
		.capacity_sectors = id->disk ? disk_id_sectors(id->disk) : 0,
		.site = { "src/lib/some.c", "some_function", 321 },
	};

	for (size_t i = 0; i < field_count(&event_table[event]); i++)
		entry.args.of[i] = argument(&event_table[event], i);
	return entry;
}

static void format(int event, const struct identity *id)
{
	const struct log_entry entry = entry_of(event, id);

	record_format(&record, &entry);
}

/*
 * Records
 */

START_TEST(the_table_is_sane)
{
	for (int i = 0; i < EVENT_COUNT; i++) {
		const struct event_info *info = &event_table[i];
		const size_t n = field_count(info);

		ck_assert_msg(*info->text && !strchr(info->text, '\n'), "%s",
			      info->message_id);
		ck_assert_int_ge(info->priority, LOG_CRIT);
		ck_assert_int_le(info->priority, LOG_DEBUG);
		ck_assert_msg(n <= LOG_ARGS_MAX, "%s", info->message_id);
		for (size_t j = 0; j < n; j++) {
			const char *key = info->fields[j].key;

			/* What journald takes, and nothing of others. */
			ck_assert_msg(strcmp(key, "ERRNO") == 0 ||
					      strncmp(key, "KTVBLK_", 7) == 0,
				      "%s", key);
			ck_assert_uint_le(strlen(key), 64);
			ck_assert_uint_eq(strspn(key,
						 "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
						 "0123456789_"),
					  strlen(key));
			for (size_t k = 0; k < j; k++)
				ck_assert_str_ne(key, info->fields[k].key);
		}
	}
}
END_TEST

START_TEST(each_event_has_exactly_its_fields)
{
	const struct identity id = new_identity("root");
	char number[32];

	for (int i = 0; i < EVENT_COUNT; i++) {
		const struct event_info *info = &event_table[i];
		const size_t n = field_count(info);

		format(i, &id);
		snprintf(number, sizeof(number), "%d", info->priority);
		ck_assert_ptr_eq(field("MESSAGE"), record.message);
		ck_assert_field("MESSAGE_ID", info->message_id);
		ck_assert_str_eq(record.message_id, info->message_id);
		ck_assert_field("PRIORITY", number);
		ck_assert_int_eq(record.priority, info->priority);
		ck_assert_field("CODE_FILE", "src/lib/some.c");
		ck_assert_field("CODE_LINE", "321");
		ck_assert_field("CODE_FUNC", "some_function");
		for (size_t j = 0; j < n; j++)
			ck_assert_field(info->fields[j].key,
					argument_text(info, j, number,
						      sizeof(number)));
		/* Those six, the identity's four, its own. */
		ck_assert_uint_eq(record.n_fields, 10 + n);
	}
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(each_message_says_who_what_and_with_what)
{
	const struct identity id = new_identity("root");
	char want[1024], number[32], who[64];

	snprintf(who, sizeof(who),
		 "virtio-blk %" PRIu64 " (root): ", id.disk->instance_id);
	for (int i = 0; i < EVENT_COUNT; i++) {
		const struct event_info *info = &event_table[i];
		const size_t n = field_count(info);
		size_t used;

		/* Also for who gets the text alone. */
		used = (size_t)snprintf(want, sizeof(want),
					"%s%s [instance_id=%" PRIu64
					" stop_fd=23 capacity_sectors=4096",
					who, info->text, id.disk->instance_id);
		for (size_t j = 0; j < n; j++) {
			const char *key = info->fields[j].key;

			key += strncmp(key, "KTVBLK_", 7) == 0 ? 7 : 0;
			used += (size_t)snprintf(
				want + used, sizeof(want) - used, " %s=%s", key,
				argument_text(info, j, number, sizeof(number)));
		}
		snprintf(want + used, sizeof(want) - used, "]");
		format(i, &id);
		/* Only the keys are in another case. */
		ck_assert_msg(strcasecmp(record.message, want) == 0,
			      "%s\nis not\n%s", record.message, want);
		ck_assert_uint_eq(strlen(record.message), strlen(want));
		ck_assert_ptr_null(strchr(record.message, '\n'));
		ck_assert_ptr_null(strstr(record.message, "KTVBLK"));
	}
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(records_of_a_device_carry_its_identity)
{
	const struct identity id = new_identity(NULL);
	char number[32];

	snprintf(number, sizeof(number), "%" PRIu64, id.disk->instance_id);
	for (int i = 0; i < EVENT_COUNT; i++) {
		format(i, &id);
		ck_assert_field(STOP_FIELD, "23");
		ck_assert_field(INSTANCE_FIELD, number);
		ck_assert_field(CAPACITY_FIELD, "4096");
		ck_assert_ptr_null(field(KTVBLK_FIELD_DISK));
	}
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(records_of_no_device_carry_none)
{
	const struct identity nobody = { NULL, 23, 0 };

	for (int i = 0; i < EVENT_COUNT; i++) {
		format(i, &nobody);
		ck_assert_ptr_null(field(STOP_FIELD));
		ck_assert_ptr_null(field(INSTANCE_FIELD));
		ck_assert_ptr_null(field(CAPACITY_FIELD));
		ck_assert_ptr_null(field(KTVBLK_FIELD_DISK));
		ck_assert_int_eq(strncmp(record.message, "virtio-blk: ", 12),
				 0);
	}
}
END_TEST

START_TEST(the_identity_is_called_as_promised)
{
	ck_assert_str_eq(STOP_FIELD, "STOP_FD");
	ck_assert_str_eq(INSTANCE_FIELD, "INSTANCE_ID");
	ck_assert_str_eq(CAPACITY_FIELD, "CAPACITY_SECTORS");
}
END_TEST

START_TEST(the_disk_is_named_where_the_vmm_named_it)
{
	struct identity id = new_identity("cache disk");
	char want[64];

	format(EVENT_PAUSE_NO_WORKER, &id);
	ck_assert_field(KTVBLK_FIELD_DISK, "cache disk");
	snprintf(want, sizeof(want),
		 "virtio-blk %" PRIu64 " (cache disk): ", id.disk->instance_id);
	ck_assert_int_eq(strncmp(record.message, want, strlen(want)), 0);
	disk_id_unref(id.disk);

	id = new_identity(NULL);
	format(EVENT_PAUSE_NO_WORKER, &id);
	snprintf(want, sizeof(want), "virtio-blk %" PRIu64 ": paused",
		 id.disk->instance_id);
	ck_assert_int_eq(strncmp(record.message, want, strlen(want)), 0);
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(what_has_no_value_is_left_out)
{
	const struct identity id = new_identity("root");
	struct log_entry entry = entry_of(EVENT_RESET_TIMED_OUT, &id);

	fill_RESET_TIMED_OUT(&entry.args, 1000, "yes", NOTHING, NOTHING,
			     NOTHING, NOTHING, 0);
	record_format(&record, &entry);
	ck_assert_field(KTVBLK_FIELD_TIMEOUT_MS, "1000");
	ck_assert_field(KTVBLK_FIELD_FENCED, "yes");
	ck_assert_field(KTVBLK_FIELD_IN_FLIGHT, "0");
	ck_assert_uint_eq(record.n_fields, 13);
	ck_assert_ptr_nonnull(strstr(
		record.message, " timeout_ms=1000 fenced=yes in_flight=0]"));

	fill_RESET_TIMED_OUT(&entry.args, 1000, "yes", only_if(false, 1),
			     only_if(true, 0), NOTHING, NOTHING, 1);
	record_format(&record, &entry);
	ck_assert_ptr_null(field(KTVBLK_FIELD_REQ_TYPE));
	ck_assert_field(KTVBLK_FIELD_SECTOR, "0");
	disk_id_unref(id.disk);
}
END_TEST

/* Absent is no number: whatever a guest has written, it is told. */
START_TEST(every_number_is_told)
{
	/* What 1.0 left out, ends, and one bit in each place. */
	uint64_t numbers[3 + 64] = { UINT64_C(0x9d3be85f1a6c7247), 0,
				     UINT64_MAX };
	const struct identity id = new_identity(NULL);
	char text[32];

	for (size_t i = 0; i < 64; i++)
		numbers[3 + i] = UINT64_C(1) << i;
	for (int event = 0; event < EVENT_COUNT; event++) {
		const struct event_info *info = &event_table[event];
		struct log_entry entry = entry_of(event, &id);

		for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
			snprintf(text, sizeof(text), "%" PRIu64, numbers[i]);
			for (size_t j = 0; j < field_count(info); j++)
				if (info->fields[j].format != FMT_TEXT)
					entry.args.of[j].number = numbers[i];
			record_format(&record, &entry);
			for (size_t j = 0; j < field_count(info); j++)
				if (info->fields[j].format == FMT_DEC)
					ck_assert_field(info->fields[j].key,
							text);
			ck_assert_uint_eq(record.n_fields,
					  9 + field_count(info));
		}
	}
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(numbers_are_whole_and_zero_is_a_number)
{
	const struct identity id = new_identity(NULL);
	struct log_entry entry = entry_of(EVENT_FEATURES_NOT_OFFERED, &id);

	fill_FEATURES_NOT_OFFERED(&entry.args, UINT64_MAX, 0, 0xabcdef);
	record_format(&record, &entry);
	ck_assert_field(KTVBLK_FIELD_DRIVER_FEATURES, "0xffffffffffffffff");
	ck_assert_field(KTVBLK_FIELD_DEVICE_FEATURES, "0");
	ck_assert_field(KTVBLK_FIELD_NOT_OFFERED, "0xabcdef");

	entry = entry_of(EVENT_READ_FAILED, &id);
	fill_READ_FAILED(&entry.args, UINT64_MAX, EIO);
	record_format(&record, &entry);
	ck_assert_field(KTVBLK_FIELD_SECTOR, "18446744073709551615");
	ck_assert_field("ERRNO", "5");
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(request_types_have_names)
{
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_IN), "in");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_OUT), "out");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_FLUSH), "flush");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_GET_ID), "get_id");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_DISCARD), "discard");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_WRITE_ZEROES),
			 "write_zeroes");
	ck_assert_str_eq(request_type_name(VIRTIO_BLK_T_SECURE_ERASE),
			 "unsupported");
	ck_assert_str_eq(request_type_name(UINT32_MAX), "unsupported");
}
END_TEST

START_TEST(the_longest_name_is_not_cut)
{
	char name[KTVBLK_NAME_MAX + 1];
	struct identity id;

	memset(name, 'n', KTVBLK_NAME_MAX);
	name[KTVBLK_NAME_MAX] = '\0';
	id = new_identity(name);
	for (int i = 0; i < EVENT_COUNT; i++) {
		format(i, &id);
		ck_assert_field(KTVBLK_FIELD_DISK, name);
		ck_assert_uint_eq(record.n_fields,
				  10 + field_count(&event_table[i]));
	}
	disk_id_unref(id.disk);
}
END_TEST

START_TEST(what_does_not_fit_is_cut)
{
	static char text[2 * LOG_TEXT_BYTES];
	const struct identity id = new_identity("root");
	struct log_entry entry = entry_of(EVENT_WORKER_PANICKED, &id);

	memset(text, 'p', sizeof(text) - 1);
	fill_WORKER_PANICKED(&entry.args, text);
	record_format(&record, &entry);
	ck_assert_uint_lt(record.used, sizeof(record.text));
	ck_assert_uint_le(record.n_fields, LOG_FIELDS_MAX);
	for (size_t i = 0; i < record.n_fields; i++)
		ck_assert(record.fields[i] >= record.text &&
			  record.fields[i] + strlen(record.fields[i]) <
				  record.text + sizeof(record.text));
	ck_assert_ptr_eq(field("MESSAGE"), record.message);
	disk_id_unref(id.disk);
}
END_TEST

/*
 * Where the worker is stuck
 */

START_TEST(who_is_stuck_is_told_where)
{
	const struct identity id = new_identity("root");
	struct log_entry entry = entry_of(EVENT_REQUEST_STALLED, &id);
	char number[32];

	entry.watch = watch_new(&id, 1, NULL, 1);
	watch_enter(entry.watch);
	record_format(&record, &entry);
	snprintf(number, sizeof(number), "%d", (int)gettid());
	ck_assert_field(KTVBLK_FIELD_STUCK_TID, number);
	ck_assert_field(KTVBLK_FIELD_STUCK_THREADS, "1");
	/* It runs: it reads its own state. */
	ck_assert_field(KTVBLK_FIELD_STUCK_STATE, "R");
	for (size_t i = 0; i < record.n_fields; i++)
		ck_assert_msg(record.fields[i][strlen(record.fields[i]) - 1] !=
				      '=',
			      "%s is empty", record.fields[i]);

	watch_leave(entry.watch);
	watch_gone(entry.watch);
	record_format(&record, &entry);
	ck_assert_ptr_null(field(KTVBLK_FIELD_STUCK_THREADS));
	ck_assert_ptr_null(field(KTVBLK_FIELD_STUCK_TID));
	ck_assert_ptr_null(field(KTVBLK_FIELD_STUCK_STATE));
	ck_assert_ptr_null(field(KTVBLK_FIELD_STUCK_SYSCALL));
	ck_assert_ptr_null(field(KTVBLK_FIELD_STUCK_WCHAN));
	watch_unref(entry.watch);
	disk_id_unref(id.disk);
}
END_TEST

/*
 * Addresses are nobody's business: they tell a reader of the journal where
 * things are.
 */

static void check_tells_no_address(const void *address)
{
	char forms[4][32];

	snprintf(forms[0], 32, "%p", address);
	snprintf(forms[1], 32, "%" PRIxPTR, (uintptr_t)address);
	snprintf(forms[2], 32, "%" PRIXPTR, (uintptr_t)address);
	snprintf(forms[3], 32, "%" PRIuPTR, (uintptr_t)address);
	for (size_t i = 0; i < record.n_fields; i++)
		for (size_t j = 0; j < ARRAY_SIZE(forms); j++)
			ck_assert_msg(!strstr(record.fields[i], forms[j]), "%s",
				      record.fields[i]);
}

START_TEST(no_record_tells_an_address)
{
	const struct identity id = new_identity("root");
	struct watch *watch = watch_new(&id, 1, NULL, 1);

	watch_enter(watch);
	for (int i = 0; i < EVENT_COUNT; i++) {
		struct log_entry entry = entry_of(i, &id);

		entry.watch = watch;
		record_format(&record, &entry);
		for (size_t j = 0; j < record.n_fields; j++) {
			ck_assert_ptr_null(strstr(record.fields[j], "0x7f"));
			ck_assert_ptr_null(strstr(record.fields[j], "0x55"));
		}
		check_tells_no_address(id.disk);
		check_tells_no_address(id.disk->name);
		check_tells_no_address(watch);
		check_tells_no_address(&entry);
		check_tells_no_address(entry.site.file);
		check_tells_no_address(entry.site.func);
		check_tells_no_address("some text");
		check_tells_no_address(&record);
	}
	watch_leave(watch);
	watch_unref(watch);
	disk_id_unref(id.disk);
}
END_TEST

TEST_PROGRAM("record", the_table_is_sane, each_event_has_exactly_its_fields,
	     each_message_says_who_what_and_with_what,
	     records_of_a_device_carry_its_identity,
	     records_of_no_device_carry_none,
	     the_identity_is_called_as_promised,
	     the_disk_is_named_where_the_vmm_named_it,
	     what_has_no_value_is_left_out, every_number_is_told,
	     numbers_are_whole_and_zero_is_a_number, request_types_have_names,
	     the_longest_name_is_not_cut, what_does_not_fit_is_cut,
	     who_is_stuck_is_told_where, no_record_tells_an_address)
