/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See several.h. */

#include <string.h>

#include "device.h"
#include "several.h"

void several_hang_flush(struct storage *storage, enum storage_op op)
{
	struct stuck *stuck = (struct stuck *)storage->hook_data;

	if (op != OP_FLUSH)
		return;
	stuck->n++;
	while (!latch_wait(&stuck->go, WAIT_MS))
		;
}

void several_open_with(struct several *several,
		       const struct rig_options *options)
{
	memset(&several->stuck, 0, sizeof(several->stuck));
	latch_init(&several->stuck.go);
	wedge_record(&several->rec);
	several->before = traces_now();
	rig_open(&several->rig, options);
	several->rig.storage->hook_data = &several->stuck;
	several->rig.storage->hook = several_hang_flush;
}

void several_open(struct several *several, uint32_t n, uint32_t budget_ms)
{
	several_open_with(several,
			  &(struct rig_options){
				  .config = { .n_queues = n,
					      .reset_timeout_ms = budget_ms,
					      .destroy_timeout_ms = budget_ms },
				  .features = n > 1 ? RIG_MQ : 0,
			  });
	rig_start(&several->rig);
}

void several_be_patient(struct several *several)
{
	several->rig.dev->reset_timeout_ms = WAIT_MS;
	several->rig.dev->destroy_timeout_ms = WAIT_MS;
}

void several_close(struct several *several)
{
	latch_set(&several->stuck.go);
	if (several->rig.dev) {
		several_be_patient(several);
		ktvblk_destroy(several->rig.dev);
	}
	rig_free(&several->rig);
	traces_expect_gone(&several->before);
	recorder_stop(&several->rec);
	latch_destroy(&several->stuck.go);
}

int several_read(struct rig *rig, unsigned int queue)
{
	rig_select(rig, queue);
	return rig_request(rig, VIRTIO_BLK_T_IN, queue, 512);
}

/* A request that is made and not waited for. */
void several_ask(struct rig *rig, unsigned int queue, uint32_t type)
{
	rig_select(rig, queue);
	rig_chain(rig, 0, type, 0, type == VIRTIO_BLK_T_FLUSH ? 0 : 512);
	rig_avail(rig, 0);
	rig_kick(rig);
}

/* Wait for it. */
void several_await(struct rig *rig, unsigned int queue)
{
	rig_select(rig, queue);
	rig_wait_used(rig, rig->avail_idx);
	ck_assert_uint_eq(*rig_chain_status(rig, 0), VIRTIO_BLK_S_OK);
}

/* Hang the first n queues. */
void several_hang(struct several *several, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		several_ask(&several->rig, i, VIRTIO_BLK_T_FLUSH);
	ck_assert(eventually(several->stuck.n == n));
}

unsigned int several_workers(struct rig *rig)
{
	return ports_workers(rig->dev->ports);
}
