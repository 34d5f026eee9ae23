/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See polling.h. */

#include "bounds.h"
#include "polling.h"

void polling_init(struct polling *polling, uint32_t max_us)
{
	*polling = (struct polling){ .max_ns = max_us * UINT64_C(1000) };
}

void polling_adapt(struct polling *polling, uint64_t slept_ns)
{
	/* Waking up took its part of the sleep, which a poll would not. */
	const uint64_t short_ns = 2 * polling->max_ns;
	uint64_t window_ns = polling->window_ns;

	if (slept_ns <= short_ns && window_ns + slept_ns <= short_ns)
		window_ns = MAX(2 * window_ns, POLL_START_NS);
	else
		window_ns = window_ns / 2 < POLL_START_NS ? 0 : window_ns / 2;
	polling->window_ns = MIN(window_ns, polling->max_ns);
}
