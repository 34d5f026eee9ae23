/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Run a fuzz target on the files and directories given, once each; on its
 * corpus if none is, which must then have reached all there is.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "reach.h"

static unsigned int n_inputs;

static void run_file(const char *path)
{
	static uint8_t bytes[1 << 16];
	FILE *file = fopen(path, "re");

	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof(bytes), file));
	fclose(file);
	n_inputs++;
}

static void run(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	char name[4096];

	if (!dir) {
		run_file(path);
		return;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		run_file(name);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	unsigned int missing = 0;
	char corpus[4096];

	for (int i = 1; i < argc; i++)
		run(argv[i]);
	if (argc == 1) {
		snprintf(corpus, sizeof(corpus), "tests/fuzz/corpus/%s",
			 basename(argv[0]));
		run(corpus);
		missing = reach_missing();
	}
	/* In the form of the unit tests. */
	printf("%u%%: Checks: %u, Failures: %u, Errors: 0\n",
	       n_inputs && !missing ? 100u : 0u, n_inputs + (missing > 0),
	       missing > 0);
	return !n_inputs || missing;
}
