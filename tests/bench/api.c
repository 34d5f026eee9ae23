/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See api.h. */

#include <dlfcn.h>
#include <string.h>

#include "api.h"
#include "measure.h"

static void load(void *library, const char *name, void *ret_function)
{
	void *symbol = dlsym(library, name);

	if (!symbol)
		die("%s", dlerror());
	memcpy(ret_function, &symbol, sizeof(symbol));
}

void api_load(struct api *api, const char *path)
{
	/* LOCAL: each build calls its own functions. */
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!library)
		die("%s", dlerror());
	api->path = path;
#define API_LOAD(name) load(library, "ktvblk_" #name, &api->name);
	API_FUNCTIONS(API_LOAD)
#undef API_LOAD
}
