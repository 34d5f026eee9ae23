#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# journal.sh DIRECTORY [NAME...]: run the journal tests built in DIRECTORY,
# those with NAME in their name, or all.
#
# In a mount namespace of its own, where systemd-journald may have its sockets
# and files, and a process namespace, with which it ends. As root, or where
# users may have namespaces.

if [ "$JOURNAL_INSIDE" != yes ]; then
	[ -x /lib/systemd/systemd-journald ] ||
		{ echo 'skip: no systemd-journald'; exit 77; }
	[ -e /etc/machine-id ] || { echo 'skip: no /etc/machine-id'; exit 77; }
	user=
	[ "$(id -u)" -eq 0 ] || user=-Ur
	# shellcheck disable=SC2086 # one option or none
	unshare $user -m -p -f --mount-proc --kill-child true 2>/dev/null ||
		{ echo 'skip: no namespaces for us'; exit 77; }
	# shellcheck disable=SC2086
	JOURNAL_INSIDE=yes unshare $user -m -p -f --mount-proc \
		--kill-child "$0" "$@"
	rc=$?
	# Of the case with rates; with the last process that was in it.
	rmdir /sys/fs/cgroup/*/ktvblk-crowded.service \
		/sys/fs/cgroup/ktvblk-crowded.service 2>/dev/null
	exit $rc
fi

set -e
programs=$(cd "$1" && pwd)
shift
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log /run/udev /var/log/journal
tr -d - </proc/sys/kernel/random/uuid >/run/machine-id
mount --bind /run/machine-id /etc/machine-id
[ ! -d /etc/systemd ] || mount -t tmpfs tmpfs /etc/systemd
cat >/etc/systemd/journald.conf <<END
[Journal]
Storage=persistent
RateLimitIntervalSec=0
RateLimitBurst=0
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToWall=no
SystemMaxUse=64M
END
cd /
"$programs/journal" "$@" # no exec: we reap the daemons
