/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See server.h. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../measure.h"
#include "server.h"

#define ARGS_MAX 16
#define END_MS 3000

struct command {
	const char *args[ARGS_MAX];
	size_t n;
	char path[64], socket[32], disk[256], export[128];
};

const char *peer_name(enum peer peer)
{
	static const char *const names[] = {
		[PEER_SERVE] = "ktvblk-serve",
		[PEER_SERVE_ZERO_COPY] = "ktvblk-serve --zero-copy",
		[PEER_QSD_IO_URING] = "qemu-storage-daemon io_uring",
		[PEER_QSD_THREADS] = "qemu-storage-daemon threads",
	};

	return names[peer];
}

static void add(struct command *command, const char *arg)
{
	if (command->n + 1 == ARGS_MAX)
		die("%s: too many arguments", command->args[0]);
	command->args[command->n++] = arg;
}

/* One file for all of them: nobody locks it. */
static void command_serve(struct command *command, bool zero_copy, bool direct,
			  int listen_fd)
{
	snprintf(command->disk, sizeof(command->disk), "--blk-file=%s",
		 command->path);
	snprintf(command->socket, sizeof(command->socket), "--fd=%d",
		 listen_fd);
	add(command, "ktvblk-serve");
	add(command, command->disk);
	add(command, command->socket);
	add(command, "--name=bench");
	add(command, "--num-queues=1");
	add(command, "--no-lock");
	if (direct)
		add(command, "--direct");
	if (zero_copy)
		add(command, "--zero-copy");
}

static void command_qsd(struct command *command, const char *aio, bool direct,
			int listen_fd)
{
	snprintf(command->disk, sizeof(command->disk),
		 "driver=file,node-name=disk,filename=%s,aio=%s,"
		 "cache.direct=%s,locking=off",
		 command->path, aio, direct ? "on" : "off");
	snprintf(command->export, sizeof(command->export),
		 "type=vhost-user-blk,id=export,node-name=disk,addr.type=fd,"
		 "addr.str=%d,writable=on,num-queues=1,iothread=io",
		 listen_fd);
	add(command, "qemu-storage-daemon");
	add(command, "--object");
	add(command, "iothread,id=io");
	add(command, "--blockdev");
	add(command, command->disk);
	add(command, "--export");
	add(command, command->export);
}

static void make_command(struct command *command, enum peer peer, int file_fd,
			 bool direct, int listen_fd)
{
	*command = (struct command){ 0 };
	snprintf(command->path, sizeof(command->path), "/proc/%d/fd/%d",
		 getpid(), file_fd);
	switch (peer) {
	case PEER_QSD_IO_URING:
		command_qsd(command, "io_uring", direct, listen_fd);
		break;
	case PEER_QSD_THREADS:
		command_qsd(command, "threads", direct, listen_fd);
		break;
	default:
		command_serve(command, peer == PEER_SERVE_ZERO_COPY, direct,
			      listen_fd);
	}
}

__attribute__((noreturn)) static void run(const struct command *command,
					  pid_t parent, int listen_fd,
					  uint32_t cpu, int failed_fd)
{
	int error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	cpu_pin(cpu);
	fcntl(listen_fd, F_SETFD, 0);
	execvp(command->args[0], (char *const *)(uintptr_t)command->args);
	error = errno;
	if (write(failed_fd, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

bool server_start(struct server *server, enum peer peer, int file_fd,
		  bool direct, int listen_fd, uint32_t cpu)
{
	const pid_t parent = getpid();
	struct command command;
	int failed[2], error = 0;

	make_command(&command, peer, file_fd, direct, listen_fd);
	if (pipe2(failed, O_CLOEXEC) < 0)
		die("pipe: %s", strerror(errno));
	fflush(NULL);
	server->pid = fork();
	if (server->pid < 0)
		die("fork: %s", strerror(errno));
	if (server->pid == 0)
		run(&command, parent, listen_fd, cpu, failed[1]);
	close(failed[1]);
	/* Closed without a word when the program runs. */
	if (read(failed[0], &error, sizeof(error)) > 0)
		waitpid(server->pid, NULL, 0);
	close(failed[0]);
	if (error && error != ENOENT)
		die("%s: %s", command.args[0], strerror(error));
	if (error)
		return false;
	server->pid_fd = (int)syscall(SYS_pidfd_open, server->pid, 0);
	if (server->pid_fd < 0)
		die("pidfd_open: %s", strerror(errno));
	return true;
}

void server_find_child(struct server *server)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	if (!dir)
		die("/proc: %s", strerror(errno));
	server->child = 0;
	while ((entry = readdir(dir))) {
		const pid_t pid = (pid_t)atoi(entry->d_name);

		if (pid > 0 &&
		    thread_number(pid, "PPid") == (uint64_t)server->pid)
			server->child = pid;
	}
	closedir(dir);
}

uint64_t server_cpu_ns(const struct server *server)
{
	return process_cpu_ns(server->pid) +
	       (server->child ? process_cpu_ns(server->child) : 0);
}

uint64_t server_idle_switches(const struct server *server, unsigned int for_ms)
{
	return idle_switches(server->pid, 0, for_ms) +
	       (server->child ? idle_switches(server->child, 0, for_ms) : 0);
}

/* Some do not end when they are asked to. */
void server_stop(struct server *server)
{
	struct pollfd ended = { .fd = server->pid_fd, .events = POLLIN };

	kill(server->pid, SIGTERM);
	if (poll(&ended, 1, END_MS) <= 0)
		kill(server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
	close(server->pid_fd);
}
