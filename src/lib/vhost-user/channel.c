/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See channel.h. */

#include <sys/socket.h>

#include "util.h"
#include "vhost-user/channel.h"
#include "vhost-user/wire.h"

void channel_init(struct channel *channel)
{
	*channel = (struct channel){ .fd = -1 };
}

void channel_close(struct channel *channel)
{
	closep(&channel->fd);
	channel_init(channel);
}

void channel_set(struct channel *channel, int fd)
{
	closep(&channel->fd);
	channel->fd = fd;
}

bool channel_waits(const struct channel *channel)
{
	return channel->fd >= 0 &&
	       (channel->config_changed || channel->calls || channel->errors);
}

/* True: it is told, or there is nobody to tell. */
static bool tell(struct channel *channel, uint32_t request, uint32_t flags,
		 const void *payload, size_t size)
{
	const int r = wire_send(channel->fd, request, flags, payload, size, -1);

	if (r == -EAGAIN)
		return false;
	if (r < 0)
		channel_close(channel);
	return true;
}

static void tell_queues(struct channel *channel, uint32_t request,
			uint32_t flags, uint32_t *queues)
{
	while (*queues) {
		const unsigned int queue = (unsigned int)__builtin_ctz(*queues);
		const struct vhost_vring_state state = { .index = queue };

		if (!tell(channel, request, flags, &state, sizeof(state)))
			return;
		*queues &= ~(1u << queue);
	}
}

void channel_flush(struct channel *channel, bool wants_reply)
{
	const uint32_t flags = wants_reply ? VU_NEED_REPLY : 0;

	if (channel->fd < 0)
		return;
	/* The answer would only say that it has been read. */
	if (channel->config_changed &&
	    tell(channel, VU_BACKEND_CONFIG_CHANGE, 0, NULL, 0))
		channel->config_changed = false;
	tell_queues(channel, VU_BACKEND_VRING_CALL, flags, &channel->calls);
	tell_queues(channel, VU_BACKEND_VRING_ERR, flags, &channel->errors);
}

void channel_read(struct channel *channel)
{
	char bytes[256];
	ssize_t n;

	do
		n = recv(channel->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	while (n > 0);
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		channel_close(channel);
}
