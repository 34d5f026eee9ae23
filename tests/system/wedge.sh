#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# wedge.sh DIRECTORY [NAME...]: run the wedge tests built in DIRECTORY, those
# with NAME in their name, or all. As root.
#
# Makes what they block in, below a temporary directory in a mount namespace of
# its own: a FUSE file system, an ext4 on a loop device, and a loop device over
# a file in each; loop devices over a file that is larger than its tmpfs, one to
# be truncated, and one with blocks of 4 KiB. What cannot be had here is left
# empty; the cases that need it are skipped.

if [ "$WEDGE_INSIDE" != yes ]; then
	[ "$(id -u)" -eq 0 ] || { echo 'skip: not root'; exit 77; }
	WEDGE_INSIDE=yes exec unshare -m --propagation private "$0" "$@"
fi

programs=$(cd "$1" && pwd) || exit 1
shift
WEDGE_DIR=$(mktemp -d /tmp/ktvblk-wedge.XXXXXX) || exit 1
export WEDGE_DIR WEDGE_FUSE='' WEDGE_LOOP_ON_FUSE=''
export WEDGE_EXT4='' WEDGE_LOOP_ON_EXT4=''
export WEDGE_LOOP_FULL='' WEDGE_LOOP_SHRINK='' WEDGE_LOOP_4K=''
server='' tests=''

# A process that is stuck in one of these cannot end: first let it go.
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	trap '' EXIT INT TERM HUP
	[ -z "$WEDGE_EXT4" ] || fsfreeze -u "$WEDGE_EXT4" 2>/dev/null
	[ -z "$server" ] || kill -KILL "$server" 2>/dev/null
	[ -z "$tests" ] || wait "$tests"
	exec 5<&- 6<&- 7<&- 8<&- 9<&- # the loop devices go with their last user
	cd /
	umount -R "$WEDGE_DIR" 2>/dev/null || umount -R -l "$WEDGE_DIR"
	rmdir "$WEDGE_DIR"
}
trap clean_up EXIT
# Background commands ignore SIGINT: pass it on as another.
trap '[ "$tests" ] || exit 1; kill -TERM "$tests" 2>/dev/null' INT TERM HUP

# loop FILE [OPTION...]: a loop device over it, to be opened before it is
# forgotten.
loop() {
	losetup -f --show "$@" 2>/dev/null
}

mount -t tmpfs -o mode=700 tmpfs "$WEDGE_DIR" || exit 1
cd "$WEDGE_DIR" || exit 1
mkdir fuse ext4
truncate -s 4M plain

# setpriv: should this script be killed, all ends by itself but the directory.
setpriv --pdeathsig KILL \
	"$programs/slowfs" control fuse -f -o max_threads=64,max_idle_threads=8 &
server=$!
for _ in $(seq 2400); do
	mountpoint -q fuse && WEDGE_FUSE=$WEDGE_DIR/fuse && break
	kill -0 $server 2>/dev/null || break
	sleep 0.05
done
if [ "$WEDGE_FUSE" ] && dev=$(loop fuse/direct7); then
	WEDGE_LOOP_ON_FUSE=$dev
	exec 8<"$dev" && losetup -d "$dev"
fi

truncate -s 64M ext4.img
if mkfs.ext4 -q ext4.img && mount -o loop ext4.img ext4 2>/dev/null; then
	WEDGE_EXT4=$WEDGE_DIR/ext4
	head -c 4M /dev/zero | tee ext4/disk ext4/inner >ext4/ram
	sync -f ext4
	if dev=$(loop ext4/inner); then
		WEDGE_LOOP_ON_EXT4=$dev
		exec 9<"$dev" && losetup -d "$dev"
	fi
fi

mkdir full
mount -t tmpfs -o size=2M tmpfs full && truncate -s 16M full/disk
if dev=$(loop full/disk); then
	WEDGE_LOOP_FULL=$dev
	exec 5<"$dev" && losetup -d "$dev"
fi
export WEDGE_SHRINK="$WEDGE_DIR/shrink"
truncate -s 4M shrink
if dev=$(loop shrink); then
	WEDGE_LOOP_SHRINK=$dev
	exec 6<"$dev" && losetup -d "$dev"
fi
truncate -s 4M blocks
if dev=$(loop blocks --sector-size 4096); then
	WEDGE_LOOP_4K=$dev
	exec 7<"$dev" && losetup -d "$dev"
fi

setpriv --pdeathsig TERM "$programs/wedge" "$@" &
tests=$!
# A signal ends the first wait, not the tests.
wait $tests
status=$?
while kill -0 $tests 2>/dev/null; do
	wait $tests
	status=$?
done
exit $status
