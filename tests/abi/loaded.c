/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See loaded.h: each function that is used is a call of what dlsym() found. */

#include <check.h>
#include <dlfcn.h>
#include <string.h>

#include "ktvblk.h"
#include "loaded.h"
#include "util.h"

#define FORWARD(result, name, parameters, arguments)                           \
	static result(*found_##name) parameters;                               \
	result name parameters                                                 \
	{                                                                      \
		return found_##name arguments;                                 \
	}

FORWARD(int, ktvblk_backend_new,
	(const struct ktvblk_backend_ops *ops, void *userdata,
	 struct ktvblk_backend **ret_backend),
	(ops, userdata, ret_backend))
FORWARD(struct ktvblk_backend *, ktvblk_backend_unref,
	(struct ktvblk_backend * backend), (backend))
FORWARD(enum ktvblk_outcome, ktvblk_destroy, (struct ktvblk_dev * dev), (dev))
FORWARD(int, ktvblk_get_identity,
	(const struct ktvblk_dev *dev, struct ktvblk_identity *ret_identity,
	 size_t size),
	(dev, ret_identity, size))
FORWARD(struct ktvblk_stats *, ktvblk_get_stats, (const struct ktvblk_dev *dev),
	(dev))
FORWARD(int, ktvblk_irq_fd, (const struct ktvblk_dev *dev), (dev))
FORWARD(int, ktvblk_mem_new,
	(const struct ktvblk_region *regions, size_t n_regions,
	 void (*release)(void *userdata), void *userdata,
	 struct ktvblk_mem **ret_mem),
	(regions, n_regions, release, userdata, ret_mem))
FORWARD(struct ktvblk_mem *, ktvblk_mem_unref, (struct ktvblk_mem * mem), (mem))
FORWARD(void, ktvblk_mmio_read,
	(struct ktvblk_dev * dev, uint64_t offset, void *data, size_t len),
	(dev, offset, data, len))
FORWARD(void, ktvblk_mmio_write,
	(struct ktvblk_dev * dev, uint64_t offset, const void *data,
	 size_t len),
	(dev, offset, data, len))
FORWARD(int, ktvblk_new,
	(const struct ktvblk_config *config, struct ktvblk_dev **ret_dev),
	(config, ret_dev))
FORWARD(int, ktvblk_set_memory,
	(struct ktvblk_dev * dev, struct ktvblk_mem *mem), (dev, mem))
FORWARD(struct ktvblk_stats *, ktvblk_stats_unref,
	(struct ktvblk_stats * stats), (stats))

#define FOUND(name)                                                            \
	{                                                                      \
#name, (void **)&found_##name                                  \
	}

static const struct {
	const char *name;
	void **found;
} functions[] = {
	FOUND(ktvblk_backend_new), FOUND(ktvblk_backend_unref),
	FOUND(ktvblk_destroy),	   FOUND(ktvblk_get_identity),
	FOUND(ktvblk_get_stats),   FOUND(ktvblk_irq_fd),
	FOUND(ktvblk_mem_new),	   FOUND(ktvblk_mem_unref),
	FOUND(ktvblk_mmio_read),   FOUND(ktvblk_mmio_write),
	FOUND(ktvblk_new),	   FOUND(ktvblk_set_memory),
	FOUND(ktvblk_stats_unref),
};

static void *library;

/* By its whole path: sanitizers do not let a program's own run path count. */
void library_load(void)
{
	char path[PATH_MAX];
	const ssize_t len = readlink("/proc/self/exe", path, sizeof(path));
	char *dir;

	ck_assert(len > 0 && (size_t)len < sizeof(path));
	path[len] = '\0';
	dir = strstr(path, "/tests/abi/");
	ck_assert_ptr_nonnull(dir);
	strcpy(dir, "/libktvblk.so.1");
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	ck_assert_msg(library, "%s", dlerror());
	for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
		*functions[i].found = dlsym(library, functions[i].name);
		ck_assert_msg(*functions[i].found, "%s", functions[i].name);
	}
}

void library_unload(void)
{
	ck_assert_int_eq(dlclose(library), 0);
	library = NULL;
}
