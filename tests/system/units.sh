#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The units of ktvblk-serve in $BUILD (build), by a systemd of their own: process
# 1 of namespaces and cgroups that end with the test. The server is that of
# $BUILD, the rest is as it is installed.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$here/machine.sh"
SOCKET=/run/ktvblk/vda.sock SLOWFS=/run/units/slowfs
systemd=/lib/systemd/systemd
service=ktvblk-serve@vda.service socket=ktvblk-serve@vda.socket
conf=/etc/ktvblk/vda.conf disks=/var/lib/ktvblk

# What /etc, /run, /var/lib and the system's units are for this systemd, and its
# console; of the tree there is what was put into the directory "stage".
boot_systemd() {
	local unit stage=$UNITS_WORK/stage
	mount --make-rprivate / && mount -t proc proc /proc || exit 1
	# It is not to set what is everybody's.
	mount --bind /proc/sys /proc/sys &&
		mount -o remount,bind,ro /proc/sys || exit 1
	for unit in /run /var/lib /lib/systemd/system; do
		mount -t tmpfs -o mode=755 tmpfs "$unit" || exit 1
	done
	mount --bind "$UNITS_WORK/console" /dev/console
	cp -r "$stage" /run/units
	cp -a /etc /run/units/etc && mount --bind /run/units/etc /etc || exit 1
	rm -rf /etc/systemd/system /etc/ktvblk
	mkdir -p /etc/systemd/system/ktvblk-serve@.service.d /etc/ktvblk $disks
	cd /etc/systemd/system || exit 1
	cp /run/units/ktvblk-serve@.* .
	{ echo '[Service]'
	  echo 'Environment=LD_LIBRARY_PATH=/run/units'
	  echo 'ExecStart='
	  sed -n 's|^ExecStart=.*/ktvblk-serve|ExecStart=/run/units/ktvblk-serve|p' \
		ktvblk-serve@.service
	} >ktvblk-serve@.service.d/test.conf
	getent group kvm >/dev/null || groupadd --system kvm || exit 1
	for unit in sysinit basic sockets shutdown; do
		printf '[Unit]\nDescription=%s\n' "$unit" >"$unit.target"
	done
	cat >checks.service <<-EOF
		[Unit]
		DefaultDependencies=no
		[Service]
		Type=oneshot
		Environment=UNITS=inside UNITS_WORK=$UNITS_WORK BUILD=/run/units
		Environment=UNITS_FREEZER=$UNITS_FREEZER
		ExecStart=/bin/bash /run/units/units.sh
		StandardOutput=file:$UNITS_WORK/log
		StandardError=inherit
		TimeoutStartSec=infinity
		ExecStopPost=/bin/touch $UNITS_WORK/done
	EOF
	container=other exec $systemd --system --unit=checks.service \
		--log-target=console --show-status=no
}

# shows PROPERTY: of the service.
shows() { systemctl show -P "$1" $service; }
has() { [ "$(shows "$1")" = "$2" ]; }
at_least() { [ "$(shows "$1")" -ge "$2" ]; }
says() { shows StatusText | grep -qF -- "$1"; }
refused() { ! systemctl start $service; }
configure() { printf '%s\n' "$@" >$conf; }
main() { shows MainPID; }
child() { child_of "$(main)"; }
answers() { asked 1 >/dev/null; }
stop() {
	systemctl stop $socket $service
	systemctl reset-failed $service 2>/dev/null
	systemctl start $socket
}
watched() {
	local before
	before=$(shows WatchdogTimestampMonotonic)
	eventually eval "! has WatchdogTimestampMonotonic $before"
}
# back N: it has been started again, N times in all, and is of use.
back() {
	eventually at_least NRestarts "$1" &&
		eventually has ActiveState active && answers
}

# Storage that hangs: the unit ends in its budget, and what is stuck keeps the
# image.
hang() {
	local slowfs child begun
	if ! has_qemu || [ ! -e /dev/fuse ]; then
		skip 'no qemu-system-x86_64, or no FUSE: storage that hangs'
		return
	fi
	mkdir $disks/fuse
	$SLOWFS control $disks/fuse -f -o max_threads=64 >slowfs 2>&1 &
	slowfs=$!
	check 'storage that may hang' eventually mountpoint -q $disks/fuse
	cp /run/units/boot.img $disks/fuse/direct0
	configure "blk-file=$disks/fuse/direct0" 'timeout=500ms'
	boot
	check '... is of use' reads_on
	hold 1
	check '... hangs' eventually held
	# It would come again, and start the next one.
	kill -STOP "$machine"
	child=$(child) begun=$SECONDS
	check '... is stopped' systemctl stop $service
	check '... in its budget' [ $((SECONDS - begun)) -lt 10 ]
	check '... which is said' has ExecMainStatus 3
	check 'the next one' systemctl start --no-block $service
	check '... waits for the image' eventually says 'waiting'
	kill -CONT "$machine"
	hold 0
	check '... and is ready then' eventually has ActiveState active
	check '... and of use' reads_on
	halt
	stop
	kill -KILL $slowfs
	wait
} 2>/dev/null

# A process that no signal ends, as one is that waits for a disk.
freeze() {
	local child begun group=$UNITS_FREEZER/frozen
	if [ ! "$UNITS_FREEZER" ] || ! mkdir "$group"; then
		skip 'no freezer of cgroup v1: a process that does not end'
		return
	fi
	configure "blk-file=$disks/later.img" 'timeout=500ms'
	check 'a server' systemctl start $service
	child=$(child)
	echo "$child" >"$group/cgroup.procs"
	echo FROZEN >"$group/freezer.state"
	eventually grep -qx FROZEN "$group/freezer.state"
	begun=$SECONDS
	check '... that cannot end is stopped' systemctl stop $service
	check '... in its budget' [ $((SECONDS - begun)) -lt 10 ]
	check '... which is said' has ExecMainStatus 3
	check '... and is there' kill -0 "$child"
	check 'the next one' systemctl start --no-block $service
	check '... waits for the image' eventually says 'waiting'
	check '... which it has' kill -0 "$child"
	echo THAWED >"$group/freezer.state"
	check '... and is ready then' eventually has ActiveState active
	stop
	eventually rmdir "$group"
}

inside() {
	work_in "$UNITS_WORK/inside"
	truncate -s 4M $disks/vda.img
	check 'no configuration, no socket' eval \
		"systemctl start $socket; [ ! -e $SOCKET ]"
	configure "blk-file=$disks/vda.img" 'timeout=8s'
	check 'the socket' systemctl start $socket
	check '... is for the group kvm' \
		[ "$(stat -c '%U %G %a' $SOCKET)" = 'root kvm 660' ]
	check 'a front end starts the service' answers
	check '... which says that it is ready' eventually has ActiveState active
	check '... and what it has' eventually says ' 8192 sectors'
	check '... lives' watched
	check '... on' watched
	truncate -s 8M $disks/vda.img
	check 'a reload' systemctl reload $service
	check '... finds another size' eventually says ' 16384 sectors'
	check '... in the same process' has NRestarts 0
	kill -KILL "$(main)"
	check 'it is killed, and comes back' back 1
	kill -KILL "$(child)"
	check 'what has the threads is, and it comes back' back 2
	kill -STOP "$(child)"
	check 'it stands still, and is replaced' back 3
	check 'an end' systemctl stop $service
	check '... is a good one' has Result success
	stop

	configure "blk-file=$disks/later.img"
	check 'no file' refused
	check '... it is tried again, and for ever' eventually at_least NRestarts 6
	truncate -s 4M $disks/later.img
	check '... until there is one' eventually has ActiveState active
	check '... which is served' answers
	stop
	configure 'nonsense=1'
	check 'options that are none' refused
	check '... are so for ever' eventually has ActiveState failed
	check '... by their status' has ExecMainStatus 2
	stop

	mkdir -p /var/lib/libvirt/images
	mv $disks/vda.img /var/lib/libvirt/images
	configure 'blk-file=/var/lib/libvirt/images/vda.img'
	check 'an image of libvirt'\''s' systemctl start $service
	stop
	mv /var/lib/libvirt/images/vda.img /var/lib
	configure 'blk-file=/var/lib/vda.img'
	check 'an image elsewhere is not to be written' refused
	stop # it is tried again, and a start would be part of that
	configure 'blk-file=/var/lib/vda.img' 'read-only'
	check '... and may be read' systemctl start $service
	stop
	if loop=$(losetup -f --show /var/lib/vda.img 2>&1); then
		configure "blk-file=$loop"
		check 'a block device' systemctl start $service
		check '... is served' answers
		stop
		losetup -d "$loop"
	else
		skip "no loop device: $loop"
	fi
	hang
	freeze
	systemctl stop $socket $service
	sums
}

case ${UNITS-} in
boot) boot_systemd ;;
inside) inside; exit ;;
esac

not_here() {
	skip "$@"
	sums
	exit 0
}
[ "$(id -u)" -eq 0 ] || not_here 'not root'
[ -x $systemd ] || not_here 'no systemd'
mapfile -t groups < <(awk -v name="ktvblk-units.$$" \
	'$3 ~ /^cgroup2?$/ { print $2 "/" name }' /proc/mounts | grep -v /cpuset/)
[ ${#groups[@]} -gt 0 ] || not_here 'no cgroups'
freezer=
for group in "${groups[@]}"; do
	[ ! -e "${group%/*}/release_agent" ] || case $group in
	*/freezer/*) freezer=$group ;;
	esac
done
work=$(mktemp -d)
chmod 755 "$work"
mkdir "$work/stage"
touch "$work/console"
cp -d "$BUILD"/{libktvblk.so*,ktvblk-serve,units/ktvblk-serve@.*} \
	"$BUILD"/tests/system/slowfs{,-hold} "$here"/{check,machine,units}.sh \
	"$work/stage"
"$top/src/demo/qemu/sector.sh" "$work/stage/boot.img"
no_groups() {
	local group left=0
	for group in "${groups[@]}"; do
		find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
		[ ! -d "$group" ] || left=1
	done
	return $left
}
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	exec 2>/dev/null # of what is killed
	kill -KILL "$namespaces"
	wait
	eventually no_groups
	rm -rf "$work"
}
namespaces=
trap clean_up EXIT
mkdir "${groups[@]}" 2>"$work/why" ||
	not_here "no cgroup of our own: $(head -n 1 "$work/why")"
(
	for group in "${groups[@]}"; do
		echo "$BASHPID" >"$group/cgroup.procs" || exit 1
	done
	UNITS=boot UNITS_WORK=$work UNITS_FREEZER=$freezer exec unshare --fork --pid --kill-child \
		--mount --uts --ipc --cgroup "$work/stage/units.sh"
) >"$work/boot" 2>&1 </dev/null &
namespaces=$!
ended() {
	[ -e "$work/done" ] || ! kill -0 "$namespaces" 2>/dev/null
}
# All of the checks may take longer than one thing does.
for _ in 1 2 3 4 5; do
	eventually ended && break
done
if [ ! -e "$work/done" ]; then
	tail -qn 20 "$work/boot" "$work/console"
	echo 'FAIL a systemd of our own'
fi
cat "$work/log"
tail -n 1 "$work/log" | grep -q ' passed, 0 failed'
