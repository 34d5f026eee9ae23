#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh BUILD [GROUP...]: Debian's clients of vhost-user against ktvblk-serve, a
# line for each case. The groups, all of them if none is named, one at a time:
#
#   q35, microvm   Debian's kernel under QEMU with four processors, and disks of
#                  one queue and four: check-guest's suite on PCI and on
#                  virtio-mmio; what fsync means with a write cache and without
#   hang           QEMU's stop, cont, system_reset and quit while storage hangs
#   killed         the server is killed in mid-load, and another one started
#   firmware       EDK2 boots from virtio-mmio, as in check-firmware, and SeaBIOS
#                  from PCI. (That of microvm has its requests in memory of the
#                  BIOS, which QEMU shares with nobody.)
#   uml            Debian's User-mode Linux
#   hotplug        device_add and device_del; memory that comes later
#   migration      to a second QEMU, under load
#
# Consoles' logs, and what servers said, are in BUILD/vhost-user.

set -u
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin
clients=$(cd "$(dirname "$0")" && pwd)
here=$clients/../guest
build=$(cd "$1" && pwd)
shift
out=$build/vhost-user
mkdir -p "$out"

# add_up: what others say, from standard input; their sums are added to ours.
add_up() {
	local line
	while IFS= read -r line; do
		if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
			passed=$((passed + BASH_REMATCH[1]))
			failed=$((failed + BASH_REMATCH[2]))
			skipped=$((skipped + BASH_REMATCH[3]))
		else
			printf '%s\n' "$line"
		fi
	done
}

# All of them: one sum, and 77 where nothing could be run.
if [ $# -ne 1 ]; then
	[ $# -gt 0 ] || set -- q35 microvm hang killed firmware uml hotplug \
		migration
	passed=0 failed=0 skipped=0 ended=0
	for group; do
		begun=$SECONDS
		add_up < <("$0" "$build" "$group")
		wait $!
		rc=$?
		echo "     $group: $((SECONDS - begun)) s"
		[ $rc -eq 0 ] || [ $rc -eq 77 ] || {
			echo "     $group: ended with $rc"
			ended=1
		}
	done
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $ended -eq 0 ] || exit 1
	[ $passed -gt 0 ] || exit 77
	exit 0
fi

# Mounts and what is left of them are this group's own.
if [ "$(id -u)" -eq 0 ] && [ "${CLIENTS_INSIDE-}" != yes ]; then
	CLIENTS_INSIDE=yes exec unshare -m --propagation private \
		"$0" "$build" "$@"
fi

group=$1
# shellcheck source-path=SCRIPTDIR source=../guest/guest.sh
. "$here/guest.sh"
# shellcheck source-path=SCRIPTDIR source=machine.sh
. "$clients/machine.sh"
# shellcheck source-path=SCRIPTDIR source=host.sh
. "$clients/host.sh"
rm -f "$out/$group"[.-]*
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
head -c 4M /dev/urandom >"$tmp/pattern"
console=ttyS0

# image NAME MIB [OPTION...]: a disk of zeros, and its server.
image() {
	truncate -s "$2M" "$tmp/$1.img"
	server "$1" "$tmp/$1.img" "${@:3}"
}

# What a guest of these plans starts from: the kernel, and all that is its own.
kernel_of() {
	kernel=$1
	"$here/mkinitramfs" "$kernel" "$tmp/initramfs" &&
		{ own_archive && cat "$tmp/initramfs"; } >"$tmp/initrd"
}
linux_kernel() {
	need qemu-system-x86_64 busybox cpio mkfs.ext4 e2fsck
	"$here/kernels" "$build/guest" cloud-amd64 || exit
	kernel_of "$build/guest/kernel-cloud-amd64"
}

# linux PROCESSORS ARGUMENT...: with that kernel.
linux() {
	printf '%s\n' -smp "$1" -cpu qemu64 "${@:2}" \
		-kernel "$kernel"/boot/vmlinuz-* -initrd "$tmp/initrd" -append \
		"console=ttyS0 reboot=t panic=-1 quiet ask=console memhp_default_state=online $(clock_parameters)"
}

# converse: the guest's cases; it may ask.
converse() {
	exec {keys}<>"$tmp/con.in"
	listen=attend guest 600 cat "$tmp/con.out"
}

# tails: the last that anybody said, where something has failed.
tails() {
	local log
	for log in "$out/$group"[.-]*; do
		[ ! -s "$log" ] || {
			echo "     | ${log##*/}:"
			tail -n 15 "$log" | cut -c 1-300 | sed 's/^/     |   /'
		}
	done
}

# qemu ARGUMENT...: a machine, until it ends.
qemu() {
	pipes con
	machine m qemu-system-x86_64 "$@" || {
		sed 's/^/     | /' "$out/$group-m.qemu"
		report FAIL 0 'the machine does not start'
		sum
	}
	converse
}

# need_slow_disk: or the group is skipped.
need_slow_disk() {
	[ "$(id -u)" -eq 0 ] || skip 'FUSE for it needs root'
	[ -c /dev/fuse ] && slow_disk || skip "no FUSE here: $(cat "$out/$group.slowfs")"
	ln -s fuse/direct0 "$tmp/slow.img"
	server slow "$tmp/slow.img" || exit
}

# kind MACHINE QUEUE-SIZE [ARGUMENT...]: four processors, and disks of one queue and of four. The storage
# of "slow" counts what reaches it.
kind() {
	local -a args
	need_slow_disk
	image suite 8 && image queues 8 || exit
	cat >"$tmp/plan.1" <<-EOF
		suite suite suite 16384 0 $2 1 1 3
		queues queues queues 4
		cache cache queues back
		fsync synced slow
	EOF
	linux_kernel
	mapfile -t args < <(linux 4 -M "$1,accel=tcg" "${@:3}" -no-reboot
		memory 512; front suite 1; front queues 4; front slow 1)
	qemu "${args[@]}"
	check 'suite: image' same_image suite
	check 'the server ends' ends suite 0
	check '... and the other' ends queues 0
}

# beside FIRMWARE: check-firmware's cases, whose sum is part of ours.
beside() {
	local before=$((passed + failed + skipped))
	add_up < <(FIRMWARE_DISKS=vhost-user "$here/../firmware/run.sh" "$build" "$1")
	[ $((passed + failed + skipped)) -gt $before ] ||
		report FAIL 0 "$1: no answer"
}

# uml_kernel ARGUMENT...: its memory is a file of tmpfs, which servers may share.
uml_kernel() {
	TMPDIR=/dev/shm linux.uml "$@" con=null con0=fd:0,fd:1 \
		<>"$tmp/con.in" >"$tmp/con.out" 2>"$out/$group.uml" &
	echo $! >>"$tmp/pids"
}

case $group in
q35)
	kind q35 256
	;;
microvm)
	bus=
	# The driver takes as many entries as virtio-mmio has.
	kind microvm 1024 -global virtio-mmio.force-legacy=false
	;;
hang)
	budget_ms=500
	need_slow_disk
	echo 'stop-cont meanwhile slow 4 stop_cont
reset reset_under slow' >"$tmp/plan.1"
	echo 'goes-on goes_on slow
quit quit_under slow' >"$tmp/plan.2"
	linux_kernel
	mapfile -t args < <(linux 2 -M q35,accel=tcg; memory 512; front slow 2)
	qemu "${args[@]}"
	check 'system_reset, while storage hangs' went reset
	check 'quit, while storage hangs' went quit
	check 'the server ends, while storage hangs' ends slow 3
	check '... which it does' still_hangs
	hold 0
	;;
killed)
	image slow 4 || exit
	echo 'killed meanwhile slow 6 kill slow
image image slow' >"$tmp/plan.1"
	linux_kernel
	mapfile -t args < <(linux 2 -M q35,accel=tcg -no-reboot
		memory 512; front slow 2)
	qemu "${args[@]}"
	check 'slow: image' same_image slow
	;;
firmware)
	beside edk2
	need qemu-system-x86_64
	{ cat "$build/tests/firmware/boot.bin"; head -c 16M /dev/urandom; } |
		head -c 16M >"$tmp/disk.before"
	cp "$tmp/disk.before" "$tmp/disk.img"
	server disk "$tmp/disk.img" || exit
	printf '%s x\n' boot copy >"$tmp/plan.1"
	group=seabios-q35
	mapfile -t args < <(memory 128; front disk 1 ,bootindex=0)
	qemu -M q35,accel=tcg -no-reboot "${args[@]}"
	check 'disk: image' copied disk
	;;
uml)
	need linux.uml busybox cpio mkfs.ext4 e2fsck
	[ -d /usr/lib/uml/modules ] || skip 'no modules of User-mode Linux'
	image suite 8 && image files 64 || exit
	cat >"$tmp/plan.1" <<-EOF
		identity identity suite 16384 0 256 1 1
		data data suite
		files files files
		image image suite
	EOF
	mkdir -p "$tmp/kernel/lib"
	ln -s /usr/lib/uml/modules "$tmp/kernel/lib/modules"
	kernel_of "$tmp/kernel"
	pipes con
	uml_kernel mem=256M "uml_dir=$tmp/uml/" "initrd=$tmp/initrd" root=/dev/ram0 ask=console \
		"virtio_uml.device=$tmp/suite.sock:2" \
		"virtio_uml.device=$tmp/files.sock:2"
	converse
	check 'suite: image' same_image suite
	check 'files: fsck' e2fsck -fn "$tmp/files.img"
	check 'the server ends' ends suite 0
	;;
hotplug)
	image slow 4 && image late 4 || exit
	cat >"$tmp/plan.1" <<-EOF
		device plugged late 3
		memory more_memory slow 256
	EOF
	linux_kernel
	mapfile -t args < <(linux 2 -M q35,accel=tcg -no-reboot
		memory 256 ,slots=2,maxmem=1G; front slow 2
		printf '%s\n' -device pcie-root-port,id=root1,chassis=1,slot=1)
	qemu "${args[@]}"
	;;
migration)
	image slow 4 || exit
	# The lock is the first one's, until it ends.
	cp "$tmp/slow.options" "$tmp/slow-to.options"
	serve slow-to --incoming || exit
	cat >"$tmp/plan.1" <<-EOF
		migration meanwhile slow 1 migrate
		image image slow
	EOF
	linux_kernel
	mapfile -t args < <(linux 2 -M q35,accel=tcg -no-reboot
		memory 256; front slow 2)
	pipes con
	mkfifo "$tmp/to-con.in"
	ln -s con.out "$tmp/to-con.out"
	input=to-con machine to qemu-system-x86_64 "${args[@]/slow.sock/slow-to.sock}" \
		-incoming "unix:$tmp/migrate" &&
		machine m qemu-system-x86_64 "${args[@]}" || {
		report FAIL 0 'the machines do not start'
		sum
	}
	converse
	check 'slow: image' same_image slow
	;;
*)
	echo "run.sh: no group $group" >&2
	exit 2
	;;
esac
[ $failed -eq 0 ] || tails
sum
