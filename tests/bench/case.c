/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See case.h. */

#include <fnmatch.h>
#include <stdio.h>

#include "case.h"
#include "ktvblk.h"
#include "measure.h"

static const char *const stores[] = { "null", "tmpfs", "cache", "direct" };
static const char *const mixes[] = { "read", "write", "mixed", "flush", "all" };
static const struct {
	uint32_t bytes;
	const char *name;
} sizes[] = {
	{ 512, "512" }, { 4096, "4k" }, { 65536, "64k" }, { 1048576, "1m" }
};
static const unsigned int depths[] = { 1, 4, 32, 128 };
static const char *const engines[] = {
	[KTVBLK_ENGINE_AUTO] = "",
	[KTVBLK_ENGINE_SYNC] = "/sync",
	[KTVBLK_ENGINE_IO_URING] = "/io_uring",
};

/* What a run of a few minutes takes. */
static const char *const quick[] = {
	"null/4k/d*/read/fenced",
	"null/4k/d32/read/zerocopy",
	"null/4k/d32/read/*/spin",
	"null/512/d32/read/*/spin",
	"tmpfs/4k/d*/read/fenced",
	"tmpfs/4k/d32/read/*/spin",
	"tmpfs/4k/d32/all/fenced",
	"cache/512/d32/read/fenced/spin",
	"cache/4k/d1/read/*/no-poll",
	"cache/4k/d*/read/*",
	"cache/4k/d32/read/*/spin",
	"cache/4k/d32/read/*/late-irq",
	"cache/4k/d32/read/fenced/no-event-idx",
	"cache/4k/d32/read/fenced/no-indirect",
	"cache/4k/d32/read/fenced/sync",
	"cache/4k/d32/read/fenced/io_uring",
	"cache/4k/d32/write/*/spin",
	"cache/4k/d32/mixed/fenced/spin",
	"cache/4k/d32/all/fenced",
	"cache/64k/d32/read/*",
	"cache/1m/d4/read/*",
	"direct/4k/d*/read/*",
	"direct/4k/d*/write/*",
	"direct/4k/d32/read/fenced/sync",
	"direct/4k/d32/read/fenced/io_uring",
	"direct/4k/d32/mixed/fenced",
	"direct/4k/d32/flush/fenced",
	"direct/4k/d32/all/fenced",
};

const char *store_name(enum store_kind store)
{
	return stores[store];
}

static bool is_quick(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(quick); i++)
		if (fnmatch(quick[i], name, FNM_PATHNAME) == 0)
			return true;
	return false;
}

/*
 * All storage, sizes, depths, mixes and ways of copying; what the driver
 * negotiates and who waits how for 4 KiB reads only, one at a time, as neither
 * changes what a request moves; and each engine for 4 KiB.
 */
static bool is_full(const struct bench_case *c)
{
	const int negotiated = c->no_event_idx + c->no_indirect;
	const int waits = c->no_poll + c->spin + c->late_irq;

	if (c->engine)
		return c->store != STORE_NULL && c->bytes == 4096 &&
		       !c->zero_copy && !(negotiated + waits);
	return !(negotiated + waits) ||
	       (c->bytes == 4096 && c->mix == MIX_READ &&
		(!negotiated || !waits) && waits < 2);
}

static bool is_selected(const struct bench_case *c, const char *const *patterns,
			int n, bool full)
{
	for (int i = 0; i < n; i++)
		if (fnmatch(patterns[i], c->name, FNM_PATHNAME) == 0)
			return true;
	return n == 0 && (full ? is_full(c) : is_quick(c->name));
}

/* The bits of the last dimension, in the order of their names. */
static void set_options(struct bench_case *c, unsigned int bits)
{
	c->zero_copy = bits & 1;
	c->no_event_idx = bits & 2;
	c->no_indirect = bits & 4;
	c->no_poll = bits & 8;
	c->spin = bits & 16;
	c->late_irq = bits & 32;
}

static void set_name(struct bench_case *c, const char *size)
{
	snprintf(c->name, sizeof(c->name), "%s/%s/d%u/%s/%s%s%s%s%s%s%s",
		 stores[c->store], size, c->depth, mixes[c->mix],
		 c->zero_copy ? "zerocopy" : "fenced",
		 c->no_event_idx ? "/no-event-idx" : "",
		 c->no_indirect ? "/no-indirect" : "",
		 c->no_poll ? "/no-poll" : "", c->spin ? "/spin" : "",
		 c->late_irq ? "/late-irq" : "", engines[c->engine]);
}

void cases_visit(const char *const *patterns, int n_patterns, bool full,
		 void (*visit)(const struct bench_case *c, void *userdata),
		 void *userdata)
{
	const size_t options = 1 << 6;
	const size_t n = STORE_KINDS * ARRAY_SIZE(sizes) * ARRAY_SIZE(depths) *
			 MIXES * ARRAY_SIZE(engines) * options;

	for (size_t i = 0; i < n; i++) {
		struct bench_case c = { 0 };
		size_t rest = i, size;

		set_options(&c, (unsigned int)(rest % options));
		rest /= options;
		c.engine = (uint32_t)(rest % ARRAY_SIZE(engines));
		rest /= ARRAY_SIZE(engines);
		c.mix = (enum mix)(rest % MIXES);
		rest /= MIXES;
		c.depth = depths[rest % ARRAY_SIZE(depths)];
		rest /= ARRAY_SIZE(depths);
		size = rest % ARRAY_SIZE(sizes);
		c.bytes = sizes[size].bytes;
		c.store = (enum store_kind)(rest / ARRAY_SIZE(sizes));
		set_name(&c, sizes[size].name);
		if (is_selected(&c, patterns, n_patterns, full))
			visit(&c, userdata);
	}
}
