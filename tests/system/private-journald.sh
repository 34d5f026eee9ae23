#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# private-journald.sh COMMAND...: run COMMAND with a journald of its own, in its
# own mount and pid namespaces, as root or with a user namespace. Nothing of it
# is left behind. $PRIVATE is a directory that goes away with it, $JOURNALD the
# journald's process. Exits with the command's status, or 77, with a reason, where that cannot be had here.

set -u

skip() {
	echo "skipped: $*"
	echo '0 passed, 0 failed, 1 skipped'
	exit 77
}

if [ "${PRIVATE-}" != /run/private ]; then
	[ -x /lib/systemd/systemd-journald ] || skip 'no systemd-journald here'
	[ -f /etc/machine-id ] || skip 'no /etc/machine-id to put another over'
	own='unshare --mount --pid --fork --kill-child --mount-proc --propagation private'
	$own true 2>/dev/null || own="$own --user --map-root-user"
	why=$($own true 2>&1) || skip "no namespaces of our own: $why"
	export PRIVATE=/run/private
	exec $own "$0" "$@"
fi

# Inside, as process 1: all that is started here ends with it.
mount_over() {
	mount -t tmpfs -o mode=755 tmpfs "$1" || skip "cannot mount over $1"
}
mount_over /run
mount_over /var/log
mount_over /var/lib/systemd
mount_over /usr/lib/systemd/catalog
mkdir -p "$PRIVATE" /run/systemd/journal /run/systemd/journald.conf.d \
	/var/log/journal
tr -d - </proc/sys/kernel/random/uuid >"$PRIVATE/machine-id"
mount --bind "$PRIVATE/machine-id" /etc/machine-id || skip 'cannot bind files'
cat >/run/systemd/journald.conf.d/private.conf <<-EOF
	[Journal]
	Storage=persistent
	RateLimitIntervalSec=0
	ReadKMsg=no
	Audit=no
	ForwardToSyslog=no
	SystemMaxUse=512M
EOF
/lib/systemd/systemd-journald 2>"$PRIVATE/journald.log" &
export JOURNALD=$!
# What answers these comes later than its socket.
until [ -S /run/systemd/journal/socket ] &&
	why=$({ journalctl --flush && journalctl --sync; } 2>&1); do
	if [ $SECONDS -gt 120 ] || ! kill -0 $JOURNALD 2>/dev/null; then
		skip "journald does not answer: ${why-no socket}"
	fi
	sleep 0.02
done

"$@"
