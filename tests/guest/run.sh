#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh BUILD [GROUP...]: real guests against the library, a line for each
# case. The groups, all of them if none is named, run two at a time:
#
#   cloud, amd64    Debian's kernels under a stock QEMU, whose virtio-mmio slots
#                   the overlay has taken
#   queues          the first of them with four processors, and disks of 2, 4
#                   and 16 queues
#   space           the same, and disks that give space back, of larger blocks,
#                   without a write cache
#   nested,         the same kernels on ktvblk-vmm and a real KVM, that of an
#   nested-amd64    emulated AMD processor; and the ring-3 guest
#   ring3           the ring-3 guest on this machine's KVM, if there is one
#
# GUEST_MATRIX=full has each combination of queue size, EVENT_IDX, INDIRECT and
# copy; else they are few, but have each pair. Consoles' logs are in BUILD/guest.

set -u
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
shift
out=$build/guest
mkdir -p "$out"

has_kvm() { [ -c /dev/kvm ] && { : <>/dev/kvm; } 2>/dev/null; }

if [ $# -ne 1 ]; then
	[ $# -gt 0 ] || set -- nested cloud amd64 queues space nested-amd64 ring3
	for flavour in cloud-amd64 amd64; do
		"$here/kernels" "$out" $flavour || exit
	done
	printf '%s\n' "$@" | xargs -P 2 -I '{}' "$0" "$build" '{}'
	exit
fi

group=$1
# shellcheck source-path=SCRIPTDIR source=guest.sh
. "$here/guest.sh"
case $group in
ring3) ;;
*) # Its disks' records go to a journal of its own.
	[ "${PRIVATE-}" = /run/private ] || {
		"$here/kernels" "$out" cloud-amd64 amd64 || exit
		exec "$here/../system/private-journald.sh" "$0" "$build" "$group"
	} ;;
esac
tmp=$(mktemp -d "$out/tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
head -c 4M /dev/urandom >"$tmp/pattern"

# combinations [QUEUE-SIZE]: queue size, EVENT_IDX, INDIRECT, copy; all of that
# size, or few. Two entries without an indirect table carry nothing.
combinations() {
	case $# in
	0)
		echo 256:on:on:fenced 256:off:off:zero-copy 16:off:off:fenced \
			16:on:off:zero-copy 16:on:on:fenced 2:on:on:zero-copy \
			2:off:on:fenced
		;;
	*) printf '%s\n' "$1":{on,off}:{on,off}:{fenced,zero-copy} |
		grep -v '^2:.*:off:' ;;
	esac
}

# The driver of the first is bound 20 times, of the others a few.
matrix() {
	local one rebinds=20
	for one; do
		case_of "$one" $rebinds
		rebinds=3
	done
}

# A read-only disk and a throttled one.
special_disks() {
	disk readonly 4 ro
	cp "$tmp/pattern" "$tmp/readonly.img"
	echo 'readonly readonly_disk readonly 8192'
	disk throttled 4 iops=100
	echo 'throttled throttle throttled'
	disk live 8
	echo 'resize resize live'
	echo 'limit limit live'
}

# record ID [MATCH...]: there is one, and it names the disk in full.
record() {
	local line
	line=$(journalctl -q -D /var/log/journal -o json "MESSAGE_ID=$1" \
		CAPACITY_SECTORS=16384 "${@:2}" | tail -n 1)
	grep -E '"INSTANCE_ID":"[0-9]+"' <<<"$line" |
		grep -E '"STOP_FD":"[0-9]+"' | grep -qF '"KTVBLK_DISK":"'
}

records() {
	journalctl --sync
	check 'record of the reset' record 3b626030cdab4c14822861d456dd7402 \
		KTVBLK_DISK=victim KTVBLK_FENCED=yes KTVBLK_REQ_TYPE=out
	check 'record of the destroy' record 70b5dbfd5c394574889b74ed475785df \
		KTVBLK_DISK=victim2 KTVBLK_FENCED=yes KTVBLK_REQ_TYPE=out
	check 'record of the stall' record b1ccea3aa883485484755acd482c580b \
		KTVBLK_DISK=victim
	check 'record of the return' record c93c0649b3ff4e7289841bb5d2139f74 \
		KTVBLK_DISK=victim2
}

# boot FLAVOUR PROCESSORS: microvm with the disks and plans that are there.
boot() {
	local kernel=$out/kernel-$1 slot=23 name
	local -a slots=()
	for name in "${disks[@]}" control; do
		slots+=(-device "virtio-rng-device,bus=virtio-mmio-bus.$slot")
		slot=$((slot - 1))
	done
	"$here/mkinitramfs" "$kernel" "$tmp/initramfs" &&
		{ own_archive && cat "$tmp/initramfs"; } >"$tmp/initrd"
	guest 600 env LD_PRELOAD="$build/tests/guest/overlay.so" \
		LD_LIBRARY_PATH="$build" KTVBLK_DISKS="${disks[*]}" \
		KTVBLK_GATED=victim KTVBLK_JOURNAL=1 qemu-system-x86_64 \
		-nodefaults -no-user-config -nographic -serial stdio \
		-M microvm,accel=tcg -cpu qemu64 -m 512 -smp "$2" \
		-kernel "$kernel"/boot/vmlinuz-* -initrd "$tmp/initrd" \
		-append "console=ttyS0 reboot=t panic=-1 quiet iomem=relaxed \
			$(clock_parameters)" \
		"${slots[@]}"
	for name in "${suites[@]}"; do
		check "$name: image" same_image "$name"
	done
}

# Linux takes no more queues than it has processors.
queues() {
	local n
	disks=() suites=()
	need qemu-system-x86_64 busybox cpio mkfs.ext4 e2fsck
	for n in 2 4 16; do
		disk "queues-$n" 8 "queues=$n"
		suites+=("queues-$n")
		echo "queues-$n queues queues-$n $((n < 4 ? n : 4))"
		echo "suite-$n suite queues-$n 16384 0 256 1 1 3"
	done >"$tmp/plan.1"
	disk victim 8 queues=4 budget=500 stall=250
	disk other 8 queues=2
	cat >>"$tmp/plan.1" <<-EOF
		unbind wedge_unbind victim other
		stall wedge_stall victim other
	EOF
	boot "$1" 4
}

# blocks_of NAME at-most|at-least MIB: of the host that its image has.
blocks_of() {
	local have=$(($(stat -c %b "$tmp/$1.img") * 512))
	echo "$1 has $have bytes of the host"
	case $2 in
	at-most) [ $have -le $(($3 << 20)) ] ;;
	at-least) [ $have -ge $(($3 << 20)) ] ;;
	esac
}

# What a guest gives back is gone from the host, and what it keeps is not.
space() {
	disks=() suites=()
	need qemu-system-x86_64 busybox cpio mkfs.ext4 e2fsck blkdiscard fstrim
	disk trim 24
	disk discard 8
	disk zeroes 8 zero-copy
	disk kept 8 no-discard
	disk blocks 24 block=4096 physical=16384 opt-io=65536
	disk uncached 8 no-cache
	cat >"$tmp/plan.1" <<-EOF
		fstrim trimmed trim
		blkdiscard discarded discard
		blkdiscard-z zeroed zeroes
		no-discard undiscardable kept
		4-KiB-sectors blocks blocks 4096 16384 65536
		cache cache discard back
		no-cache cache uncached through
	EOF
	boot "$1" 1
	check 'fstrim: the host has it back' blocks_of trim at-most 2
	check 'blkdiscard: the host has it back' blocks_of discard at-most 2
	check 'no-discard: all is kept' blocks_of kept at-least 8
}

# microvm FLAVOUR COMBINATION...
microvm() {
	local flavour=$1
	shift
	disks=() suites=()
	need qemu-system-x86_64 busybox cpio mkfs.ext4 e2fsck
	special_disks >"$tmp/plan.1"
	matrix "$@" >>"$tmp/plan.1"
	disk victim 8 budget=500 stall=250
	disk victim2 8 budget=500 stall=250
	disk other 8
	cat >>"$tmp/plan.1" <<-EOF
		unbind wedge_unbind victim other
		stall wedge_stall victim other
		reboot wedge_reboot victim other
	EOF
	cat >"$tmp/plan.2" <<-EOF
		rebooted wedge_rebooted victim other
		again rebind victim 2
		destroy wedge_destroy victim2 other
		reset wedge_reset victim other $(printf '0x%x' \
			$((0xfeb00000 + 0x200 * (24 - (${#disks[@]} - 2)))))
	EOF
	boot "$flavour" 1
	check 'readonly: image' cmp "$tmp/pattern" "$tmp/readonly.img"
	records
}

case $group in
queues)
	queues cloud-amd64
	;;
space)
	space cloud-amd64
	;;
cloud | amd64)
	flavour=${group/#cloud/cloud-amd64}
	if [ "${GUEST_MATRIX-}" = full ]; then
		for size in 256 16 2; do
			group=$flavour-$size
			# shellcheck disable=SC2046 # words
			microvm "$flavour" $(combinations $size)
		done
	else
		# shellcheck disable=SC2046 # words
		microvm "$flavour" $(combinations)
	fi
	;;
nested | nested-amd64)
	. "$here/nested.sh"
	;;
ring3)
	has_kvm || {
		echo 'ring3: no /dev/kvm that may be opened: only nested'
		exit 0
	}
	disk victim 1 budget=100
	disk other 1
	LD_LIBRARY_PATH=$build guest 60 "$build/tests/guest/ring3" \
		"$build/tests/guest/ring3-guest" "${disks[@]}"
	;;
*)
	echo "run.sh: no group $group" >&2
	exit 2
	;;
esac
sum
