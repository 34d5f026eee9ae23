/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the messages of a front end ask for. Whatever is wrong with one ends the
 * connection: it is another program's, and what it would do next is not known.
 */

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/stat.h>

#include "util.h"
#include "vhost-user/front.h"

#define BIT(n) (UINT64_C(1) << (n))

#define PROTOCOL_FEATURES                                                      \
	(BIT(VU_P_MQ) | BIT(VU_P_LOG_SHMFD) | BIT(VU_P_REPLY_ACK) |            \
	 BIT(VU_P_BACKEND_REQ) | BIT(VU_P_CONFIG) | BIT(VU_P_INFLIGHT_SHMFD) | \
	 BIT(VU_P_RESET_DEVICE) | BIT(VU_P_INBAND_NOTIFICATIONS) |             \
	 BIT(VU_P_CONFIGURE_MEM_SLOTS) | BIT(VU_P_STATUS) |                    \
	 BIT(VU_P_GET_VRING_BASE_INFLIGHT) |                                   \
	 BIT(VU_P_GET_VRING_BASE_SKIP_DRAIN))

/*
 * A queue is reset by a message of its own here, and there is none: who took that
 * feature would reset it behind our back.
 */
static uint64_t offered(const struct vhost_user *vu)
{
	return (vu->dev->features & ~BIT(VIRTIO_F_RING_RESET)) |
	       BIT(VHOST_F_LOG_ALL) | BIT(VU_F_PROTOCOL_FEATURES);
}

static const char *get_features(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	(void)message;
	answer_u64(answer, offered(vu));
	return NULL;
}

/* Without VERSION_1 a ring's fields are the machine's, and they are ours too. */
static bool is_little_endian(void)
{
	return htole16(1) == 1;
}

static const char *set_features(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	const uint64_t features = message->payload.u64;

	(void)answer;
	if (features & ~offered(vu))
		return "features that were not offered";
	if (!(features & BIT(VIRTIO_F_VERSION_1)) && !is_little_endian())
		return "features without VERSION_1";
	vu->features = features;
	return vrings_change_log(vu);
}

static const char *get_protocol_features(struct vhost_user *vu,
					 struct message *message,
					 struct answer *answer)
{
	(void)vu;
	(void)message;
	answer_u64(answer, PROTOCOL_FEATURES);
	return NULL;
}

static const char *set_protocol_features(struct vhost_user *vu,
					 struct message *message,
					 struct answer *answer)
{
	const uint64_t features = message->payload.u64;
	const uint64_t for_in_band = BIT(VU_P_BACKEND_REQ) |
				     BIT(VU_P_REPLY_ACK);

	(void)answer;
	if (features & ~PROTOCOL_FEATURES)
		return "protocol features that were not offered";
	if ((features & BIT(VU_P_INBAND_NOTIFICATIONS)) &&
	    (features & for_in_band) != for_in_band)
		return "in-band notifications without what they need";
	vu->protocol = features;
	return NULL;
}

static const char *set_owner(struct vhost_user *vu, struct message *message,
			     struct answer *answer)
{
	(void)vu;
	(void)message;
	(void)answer;
	return NULL;
}

static const char *reset_device(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	(void)message;
	(void)answer;
	vrings_reset(vu);
	vu->status = 0;
	return NULL;
}

static const char *set_status(struct vhost_user *vu, struct message *message,
			      struct answer *answer)
{
	const uint32_t status = (uint8_t)message->payload.u64;

	(void)answer;
	/*
	 * QEMU before 8.1 says so at each stop, asks then where the queues are, and
	 * has them go on from there: nothing of that is forgotten. A driver that
	 * begins anew has SET_VRING_BASE 0.
	 */
	if (!status)
		vrings_halt(vu);
	vu->status = status;
	return NULL;
}

static const char *get_status(struct vhost_user *vu, struct message *message,
			      struct answer *answer)
{
	(void)message;
	answer_u64(answer, vu->status | (atomic_load(&vu->dev->era->status) &
					 VIRTIO_CONFIG_S_NEEDS_RESET));
	return NULL;
}

static const char *get_queue_num(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	(void)message;
	answer_u64(answer, vu->dev->n_queues);
	return NULL;
}

/* As many descriptors as regions, and the size says the same as the number. */
static const char *set_mem_table(struct vhost_user *vu, struct message *message,
				 struct answer *answer)
{
	const struct vu_table *table = &message->payload.table;
	const uint32_t n = table->n_regions;
	const char *why = NULL;

	(void)answer;
	if (n > VU_TABLE_REGIONS ||
	    message->header.size < offsetof(struct vu_table, regions) +
					   n * sizeof(table->regions[0]))
		return "a number of regions that does not fit";
	if (message->n_fds != n)
		return "not one descriptor for each region";
	table_clear(&vu->table);
	for (uint32_t i = 0; i < n && !why; i++)
		why = table_add(&vu->table, &table->regions[i],
				message->fds[i]);
	return why ? why : vrings_change_memory(vu);
}

static const char *get_max_mem_slots(struct vhost_user *vu,
				     struct message *message,
				     struct answer *answer)
{
	(void)vu;
	(void)message;
	answer_u64(answer, TABLE_SLOTS_MAX);
	return NULL;
}

static const char *add_mem_reg(struct vhost_user *vu, struct message *message,
			       struct answer *answer)
{
	const char *why;

	(void)answer;
	if (message->n_fds != 1)
		return "a region without its descriptor";
	why = table_add(&vu->table, &message->payload.slot.region,
			message->fds[0]);
	return why ? why : vrings_change_memory(vu);
}

static const char *rem_mem_reg(struct vhost_user *vu, struct message *message,
			       struct answer *answer)
{
	const char *why =
		table_remove(&vu->table, &message->payload.slot.region);

	(void)answer;
	return why ? why : vrings_change_memory(vu);
}

static const char *set_log_base(struct vhost_user *vu, struct message *message,
				struct answer *answer)
{
	struct page_log *before = vu->log;
	const char *why;

	if (message->n_fds != 1)
		return "a log without its descriptor";
	vu->log = page_log_new(message->fds[0], &message->payload.log, &why);
	if (vu->log)
		why = vrings_change_log(vu);
	else
		vu->log = before, before = NULL;
	if (before)
		lease_unref(page_log_lease(before));
	answer_u64(answer, 0);
	return why;
}

/* That something was logged: who copies memory looks there anyway. */
static const char *set_log_fd(struct vhost_user *vu, struct message *message,
			      struct answer *answer)
{
	(void)vu;
	(void)message;
	(void)answer;
	return NULL;
}

static const char *set_backend_req_fd(struct vhost_user *vu,
				      struct message *message,
				      struct answer *answer)
{
	struct stat st;

	(void)answer;
	if (message->n_fds != 1 || fcntl(message->fds[0], F_GETFL) < 0)
		return "no descriptor for the way back";
	/* A socket knows that it is one without asking anybody. */
	if (fstat(message->fds[0], &st) < 0 || !S_ISSOCK(st.st_mode))
		return "a way back that is no socket";
	channel_set(&vu->channel, message_take_fd(message, 0));
	return NULL;
}

/* offset, size and flags come before the bytes. */
#define CONFIG_HEAD offsetof(struct vu_config, bytes)

static const char *get_config(struct vhost_user *vu, struct message *message,
			      struct answer *answer)
{
	const struct vu_config *asked = &message->payload.config;
	struct vu_config *config = &answer->payload.config;

	if (asked->size > VU_CONFIG_BYTES || asked->offset > VU_CONFIG_BYTES ||
	    message->header.size < CONFIG_HEAD)
		return "more of config space than there is";
	*config = *asked;
	config_read(vu->dev, asked->offset, config->bytes, asked->size);
	if (config_has_cache(asked->offset, asked->size))
		cache_shown(vu);
	answer->is_due = true;
	answer->size = CONFIG_HEAD + asked->size;
	return NULL;
}

static const char *set_config(struct vhost_user *vu, struct message *message,
			      struct answer *answer)
{
	const struct vu_config *config = &message->payload.config;

	(void)answer;
	if (config->size > VU_CONFIG_BYTES ||
	    message->header.size < CONFIG_HEAD + config->size)
		return "more of config space than there is";
	if (config_has_cache(config->offset, config->size) &&
	    vu->dev->features >> VIRTIO_BLK_F_CONFIG_WCE & 1)
		cache_say(vu, config->bytes[CONFIG_CACHE_AT - config->offset]);
	return NULL;
}

static const char *get_inflight_fd(struct vhost_user *vu,
				   struct message *message,
				   struct answer *answer)
{
	const struct vu_inflight *asked = &message->payload.inflight;

	(void)vu;
	if (!asked->n_queues || asked->n_queues > KTVBLK_QUEUES_MAX ||
	    !asked->queue_size || asked->queue_size > KTVBLK_QUEUE_SIZE_MAX)
		return "an inflight region of a bad size";
	if (inflight_make(asked->n_queues, asked->queue_size,
			  &answer->payload.inflight, &answer->fd) < 0)
		return "no memory";
	answer->is_due = true;
	/* With the padding at its end, or without: as it was asked. */
	answer->size = message->header.size;
	return NULL;
}

static const char *set_inflight_fd(struct vhost_user *vu,
				   struct message *message,
				   struct answer *answer)
{
	(void)answer;
	if (message->n_fds != 1)
		return "an inflight region without its descriptor";
	for (unsigned int i = 0; i < vu->dev->n_queues; i++)
		if (front_vring_runs(vu, i))
			return "an inflight region for a queue that runs";
	return inflight_set(&vu->inflight, &message->payload.inflight,
			    message->fds[0]);
}

#define U64 sizeof(uint64_t)
#define STATE sizeof(struct vhost_vring_state)

/* The least a message has; more is its own affair, where size says so. */
static const struct {
	handler *handle;
	uint16_t bytes;
	uint16_t more; /* of its payload may follow */
	uint8_t fds; /* at most */
} messages[VU_REQUEST_COUNT] = {
	[VU_GET_FEATURES] = { get_features, 0, 0, 0 },
	[VU_SET_FEATURES] = { set_features, U64, 0, 0 },
	[VU_SET_OWNER] = { set_owner, 0, 0, 0 },
	[VU_RESET_OWNER] = { reset_device, 0, 0, 0 },
	[VU_SET_MEM_TABLE] = { set_mem_table, U64,
			       VU_TABLE_REGIONS * sizeof(struct vu_region),
			       VU_FDS_MAX },
	[VU_SET_LOG_BASE] = { set_log_base, sizeof(struct vu_log), 0, 1 },
	[VU_SET_LOG_FD] = { set_log_fd, 0, U64, 1 },
	[VU_SET_VRING_NUM] = { front_set_vring_num, STATE, 0, 0 },
	[VU_SET_VRING_ADDR] = { front_set_vring_addr,
				sizeof(struct vhost_vring_addr), 0, 0 },
	[VU_SET_VRING_BASE] = { front_set_vring_base, STATE, 0, 0 },
	[VU_GET_VRING_BASE] = { front_get_vring_base, STATE, 0, 0 },
	[VU_SET_VRING_KICK] = { front_set_vring_kick, U64, 0, 1 },
	[VU_SET_VRING_CALL] = { front_set_vring_call, U64, 0, 1 },
	[VU_SET_VRING_ERR] = { front_set_vring_err, U64, 0, 1 },
	[VU_GET_PROTOCOL_FEATURES] = { get_protocol_features, 0, 0, 0 },
	[VU_SET_PROTOCOL_FEATURES] = { set_protocol_features, U64, 0, 0 },
	[VU_GET_QUEUE_NUM] = { get_queue_num, 0, 0, 0 },
	[VU_SET_VRING_ENABLE] = { front_set_vring_enable, STATE, 0, 0 },
	[VU_SET_BACKEND_REQ_FD] = { set_backend_req_fd, 0, U64, 1 },
	[VU_GET_CONFIG] = { get_config, CONFIG_HEAD, VU_CONFIG_BYTES, 0 },
	[VU_SET_CONFIG] = { set_config, CONFIG_HEAD, VU_CONFIG_BYTES, 0 },
	[VU_GET_INFLIGHT_FD] = { get_inflight_fd, VU_INFLIGHT_BYTES, 4, 0 },
	[VU_SET_INFLIGHT_FD] = { set_inflight_fd, VU_INFLIGHT_BYTES, 4, 1 },
	[VU_RESET_DEVICE] = { reset_device, 0, 0, 0 },
	[VU_VRING_KICK] = { front_vring_kick, STATE, 0, 0 },
	[VU_GET_MAX_MEM_SLOTS] = { get_max_mem_slots, 0, U64, 0 },
	[VU_ADD_MEM_REG] = { add_mem_reg, sizeof(struct vu_slot), 0, 1 },
	/* Older front ends pass the descriptor here, too. */
	[VU_REM_MEM_REG] = { rem_mem_reg, sizeof(struct vu_slot), 0, 1 },
	[VU_SET_STATUS] = { set_status, U64, 0, 0 },
	[VU_GET_STATUS] = { get_status, 0, U64, 0 },
	[VU_GET_VRING_BASE_SKIP_DRAIN] = { front_get_vring_base, STATE, 0, 0 },
};

static const char *check(const struct message *message)
{
	const uint32_t request = message->header.request;
	const uint32_t size = message->header.size;

	if (request >= VU_REQUEST_COUNT || !messages[request].handle)
		return "a message that is not known";
	if (size < messages[request].bytes ||
	    size > (uint32_t)messages[request].bytes + messages[request].more)
		return "not the size of this message";
	if (message->n_fds > messages[request].fds)
		return "descriptors that nobody asked for";
	return NULL;
}

const char *front_handle(struct vhost_user *vu, struct message *message)
{
	const uint32_t request = message->header.request;
	struct answer answer = { .fd = -1 };
	const char *why = check(message);
	int r = 0;

	if (!why)
		why = messages[request].handle(vu, message, &answer);
	if (why)
		return why;
	if (!answer.is_due && (message->header.flags & VU_NEED_REPLY) &&
	    vu_has(vu, VU_P_REPLY_ACK))
		answer_u64(&answer, 0);
	if (answer.is_due)
		r = wire_send(vu->fd, request, VU_REPLY, &answer.payload,
			      answer.size, answer.fd);
	closep(&answer.fd);
	return r < 0 ? "a front end that takes no answer" : NULL;
}
