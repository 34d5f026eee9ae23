/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See pace.h. */

#include "bounds.h"
#include "pace.h"
#include "util.h"

void pace_init(struct pace *pace)
{
	*pace = (struct pace){ .plain = false };
}

static void start_over(struct pace *pace)
{
	pace->plain = false;
	pace->n_quick = 0;
	pace->mark_ns = 0;
}

static void lose_trust(struct pace *pace)
{
	start_over(pace);
	if (pace->backoff < PACE_BACKOFF_MAX)
		pace->backoff++;
}

bool pace_is_plain(struct pace *pace, uint64_t now_ns)
{
	/* All that is out is at least as old as the last of it. */
	if (pace->plain && pace->n_out &&
	    now_ns > pace->begun_ns + PACE_RING_QUICK_NS)
		lose_trust(pace);
	return pace->plain;
}

void pace_called(struct pace *pace, uint64_t took_ns, uint64_t n_bytes)
{
	if (took_ns > PACE_PLAIN_QUICK_NS + n_bytes * PACE_BYTE_NS) {
		lose_trust(pace);
	} else if (++pace->n_quick >= PACE_FORGIVE) {
		pace->n_quick = 0;
		if (pace->backoff)
			pace->backoff--;
	}
}

void pace_begun(struct pace *pace, uint64_t now_ns, uint64_t *ret_begun_ns)
{
	/* No two the same, as it says which came before the mark. */
	pace->begun_ns = MAX(now_ns, pace->begun_ns + 1);
	pace->n_out++;
	*ret_begun_ns = pace->begun_ns;
}

/* Enough were quick: it is for those that are out to be so too. */
static void set_mark(struct pace *pace)
{
	pace->mark_ns = pace->begun_ns;
	pace->n_before = pace->n_out;
}

void pace_ended(struct pace *pace, uint64_t begun_ns, uint64_t now_ns,
		uint64_t n_bytes)
{
	pace->n_out--;
	if (now_ns > begun_ns + PACE_RING_QUICK_NS + n_bytes * PACE_BYTE_NS) {
		if (pace->plain)
			lose_trust(pace);
		else
			start_over(pace);
		return;
	}
	if (pace->plain)
		return;
	pace->n_quick++;
	if (pace->mark_ns && begun_ns <= pace->mark_ns)
		pace->n_before--;
	else if (!pace->mark_ns && pace->n_quick >= PACE_TRUST << pace->backoff)
		set_mark(pace);
	if (pace->mark_ns && !pace->n_before) {
		pace->plain = true;
		pace->n_quick = 0;
	}
}
