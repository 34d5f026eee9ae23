/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * filtered FILE COMMAND...: a command behind the filter that systemd makes of
 * SystemCallFilter= with EPERM: FILE names the system calls there are.
 */

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	uint32_t number;
} calls[] = {
#include "calls.inc"
};

#define N_CALLS (sizeof(calls) / sizeof(*calls))

static struct sock_filter code[2 * N_CALLS + 2] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
};
static struct sock_fprog program = { .len = 1, .filter = code };

static void add(struct sock_filter statement)
{
	code[program.len++] = statement;
}

/* Names that this machine has no number for are of others. */
static void allow(const char *name)
{
	for (size_t i = 0; i < N_CALLS; i++) {
		if (strcmp(calls[i].name, name) != 0)
			continue;
		add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
						 calls[i].number, 0, 1));
		add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						 SECCOMP_RET_ALLOW));
		return;
	}
}

int main(int argc, char **argv)
{
	FILE *file = argc > 2 ? fopen(argv[1], "re") : NULL;
	char name[64];

	if (!file)
		return 2;
	while (fscanf(file, "%63s", name) == 1)
		allow(name);
	fclose(file);
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
					 SECCOMP_RET_ERRNO | EPERM));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("seccomp");
		return 1;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 1;
}
