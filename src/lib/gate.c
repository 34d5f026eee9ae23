/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See gate.h. Acquire on entering pairs with release on leaving. */

#include "gate.h"
#include "util.h"

static bool enter(struct gate *gate, uint64_t deadline_ns)
{
	uint32_t word = 0;

	if (atomic_compare_exchange_strong_explicit(&gate->word, &word, 1,
						    memory_order_acquire,
						    memory_order_relaxed))
		return true;
	while (atomic_exchange_explicit(&gate->word, 2, memory_order_acquire)) {
		if (deadline_ns && now_ns() >= deadline_ns)
			return false;
		futex_wait(&gate->word, 2, deadline_ns);
	}
	return true;
}

void gate_enter(struct gate *gate)
{
	enter(gate, 0);
}

bool gate_enter_until(struct gate *gate, uint64_t deadline_ns)
{
	return enter(gate, deadline_ns);
}

void gate_leave(struct gate *gate)
{
	if (atomic_exchange_explicit(&gate->word, 0, memory_order_release) == 2)
		futex_wake(&gate->word, 1);
}
