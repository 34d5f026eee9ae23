/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "listener.h"
#include "say.h"

#define BACKLOG 8
/* Who has just been killed may take so long to be gone. */
#define GRACE_MS 500
#define TRY_MS 50

static struct stat made; /* the path, when we made it */

static int refuse(enum status status, const char *where, const char *why)
{
	complain("%s: %s", where, why);
	/* Below LISTENER_PATH. */
	return -1 - (int)status;
}

static int check_inherited(int fd, const char *where)
{
	if (sd_is_socket_unix(fd, SOCK_STREAM, -1, NULL, 0) <= 0)
		return refuse(STATUS_USAGE, where, "no UNIX stream socket");
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return refuse(STATUS_FAILED, where, strerror(errno));
	return fd;
}

int listener_inherit(const struct options *options)
{
	int n;

	if (options->fd >= 0)
		return check_inherited(options->fd, "--fd");
	if (options->socket_path)
		return LISTENER_PATH;
	n = sd_listen_fds(1);
	if (n == 1)
		return check_inherited(SD_LISTEN_FDS_START, "systemd's socket");
	if (n > 1)
		return refuse(STATUS_USAGE, "systemd's sockets",
			      "one is wanted");
	return refuse(STATUS_USAGE, "no socket",
		      "give --socket-path or --fd, or have systemd pass one");
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	/* Its length was looked at. */
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	return address;
}

static int new_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Of a socket that nobody listens at; not of another file, nor of who is busy. */
static bool is_stale(const char *path)
{
	const struct sockaddr_un address = address_of(path);
	const int fd = new_socket();
	struct stat st;
	bool stale;

	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)&address,
			sizeof(address)) < 0 &&
		errno == ECONNREFUSED && lstat(path, &st) == 0 &&
		S_ISSOCK(st.st_mode);
	close(fd);
	return stale;
}

static int bind_to(int fd, const char *path)
{
	const struct sockaddr_un address = address_of(path);

	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0
		       ? -errno
		       : 0;
}

static const char *reason(const char *path, int error)
{
	struct stat st;

	if (error != -EADDRINUSE)
		return strerror(-error);
	return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)
		       ? "another server listens there"
		       : "there is a file that is no socket";
}

int listener_open(const char *path)
{
	const int fd = new_socket();
	int r;

	if (fd < 0)
		return refuse(STATUS_FAILED, path, strerror(errno));
	r = bind_to(fd, path);
	for (int ms = GRACE_MS; r == -EADDRINUSE && ms > 0; ms -= TRY_MS) {
		if (is_stale(path))
			unlink(path);
		else
			poll(NULL, 0, TRY_MS);
		r = bind_to(fd, path);
	}
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r == 0 && lstat(path, &made) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	close(fd);
	return refuse(STATUS_FAILED, path, reason(path, r));
}

void listener_unlink(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == made.st_dev &&
	    st.st_ino == made.st_ino)
		unlink(path);
}
