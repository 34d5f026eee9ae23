/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See era.h. */

#include "era.h"
#include "util.h"

struct era *era_new(void)
{
	struct era *era = calloc(1, sizeof(*era));

	if (era)
		atomic_init(&era->refs, 1);
	return era;
}

struct era *era_ref(struct era *era)
{
	refs_get(&era->refs);
	return era;
}

void era_unref(struct era *era)
{
	if (era && refs_put(&era->refs))
		free(era);
}

void era_renew(struct era *era)
{
	atomic_store(&era->status, 0);
	atomic_store(&era->interrupt_status, 0);
	atomic_store(&era->flush_failed, false);
}
