#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh BUILD [GROUP...]: real guests against the library, one line for each
# case. Groups: ring3, cloud, wedge, amd64, nested; all of them if none is
# named. Kernels are downloaded to BUILD/guest, where the consoles' logs are
# too. A group that cannot run here is skipped, and says why.

set -u
shopt -s nullglob
export LC_ALL=C.UTF-8 PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
shift
groups=${*:-ring3 cloud wedge amd64 nested}
out=$build/guest
mkdir -p "$out"
tmp=$(mktemp -d "$out/tmp.XXXXXX")
passed=0 failed=0 skipped=0
vm=

cleanup() {
	[ -z "$vm" ] || kill "$vm" 2>/dev/null
	wait
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# report ok|FAIL|skip HUNDREDTHS NAME
report() {
	case $1 in
	ok) passed=$((passed + 1)) ;;
	FAIL) failed=$((failed + 1)) ;;
	skip) skipped=$((skipped + 1)) ;;
	esac
	printf '%-4s %4d.%02ds  %s\n' "$1" $(($2 / 100)) $(($2 % 100)) "$3"
}

# check NAME COMMAND...: a case of the host's.
check() {
	local name=$1 begin=${EPOCHREALTIME/./} verdict=ok
	shift
	"$@" >"$tmp/check.log" 2>&1 || verdict=FAIL
	report $verdict $(((${EPOCHREALTIME/./} - begin) / 10000)) "$name"
	[ $verdict = ok ] || sed 's/^/     | /' "$tmp/check.log"
}

#
# Kernels
#

# kernel FLAVOUR: Debian's, unpacked; its directory in $kernel. False, and why
# in $why, where there is none.
kernel() {
	local package deb
	kernel=$out/kernel-$1
	[ ! -e "$kernel/complete" ] || return 0
	why="no Debian archive for linux-image-$1"
	package=$(apt-cache depends "linux-image-$1" 2>/dev/null |
		awk '$1 == "Depends:" { print $2; exit }')
	[ "$package" ] || return
	(cd "$tmp" && timeout 300 apt-get -q download "$package") \
		>"$out/download.log" 2>&1 || return
	deb=$(echo "$tmp/$package"_*.deb)
	rm -rf "$kernel"
	why="cannot unpack $package"
	dpkg -x "$deb" "$kernel" && rm "$deb" && touch "$kernel/complete"
}

# need PROGRAM...
need() {
	local program
	for program; do
		why="no $program"
		command -v "$program" >/dev/null || return
	done
}

need_qemu() {
	need qemu-system-x86_64 busybox cpio apt-get mkfs.ext4 e2fsck &&
		kernel "$1" && why='no initramfs' &&
		"$here/mkinitramfs" "$kernel" "$tmp/initramfs-$1"
}

# Files of the guest that differ from boot to boot: its plan, and the pattern.
# Not compressed, so it comes first: the kernel wants it aligned.
own_archive() {
	mkdir -p "$tmp/root/etc"
	rm -f "$tmp"/root/etc/*
	cp "$tmp"/plan* "$tmp/root/etc/"
	cp "$tmp/pattern" "$tmp/root/pattern"
	(cd "$tmp/root" && find . | cpio -o -H newc --quiet)
}

#
# Guests
#

# follow NAME: what a guest says of its cases, from standard input.
follow() {
	local line verdict time name
	: >"$tmp/seen"
	while IFS= read -r line; do
		line=${line//$'\r'/}
		printf '%s\n' "$line" >>"$out/$1.log"
		case $line in
		'@@ ok '* | '@@ FAIL '*)
			read -r _ verdict time name <<<"$line"
			report "$verdict" "$time" "$1: $name"
			echo "$name" >>"$tmp/seen"
			;;
		'@@ |'*) echo "     ${line#@@ }" ;;
		esac
	done
}

# What the plan had and the guest did not come to.
unseen() {
	local name
	while read -r name _; do
		grep -qxF "$name" "$tmp/seen" && continue
		report FAIL 0 "$1: $name: no answer, see $out/$1.log"
	done < <(cat "$tmp"/plan* | sort -u -k 1,1)
	rm "$tmp"/plan*
}

# An emulated kernel that measures the TSC on a busy machine sometimes hangs;
# one whose CPU waited for a reset finds it unreliable, and counts ticks.
clock_parameters() {
	echo "tsc=reliable tsc_early_khz=$("$build/tests/guest/tsc-khz")"
}

# guest NAME SECONDS COMMAND...: its cases; its exit status in $status.
guest() {
	local name=$1 seconds=$2
	shift 2
	: >"$out/$name.log"
	exec {console}< <(exec timeout --foreground -k 10 "$seconds" "$@" \
		</dev/null 2>"$out/$name.records")
	vm=$!
	follow "$name" <&"$console"
	exec {console}<&-
	wait "$vm"
	status=$?
	vm=
	[ $status -eq 0 ] || echo "     | ended with $status, see $out/$name.*"
}

# microvm NAME FLAVOUR SECONDS DISK...: a Debian kernel in a stock QEMU whose
# virtio-mmio slots the overlay has taken.
microvm() {
	local name=$1 flavour=$2 seconds=$3 slot=23 no_reboot=-no-reboot
	local -a slots=()
	shift 3
	for _ in "$@" control; do
		slots+=(-device "virtio-rng-device,bus=virtio-mmio-bus.$slot")
		slot=$((slot - 1))
	done
	[ ! -f "$tmp/plan.again" ] || no_reboot=
	{ own_archive && cat "$tmp/initramfs-$flavour"; } >"$tmp/initrd"
	guest "$name" "$seconds" env \
		LD_PRELOAD="$build/tests/guest/overlay.so" \
		LD_LIBRARY_PATH="$build" KTVBLK_DISKS="$*" KTVBLK_CONTROL=1 \
		KTVBLK_GATED=victim qemu-system-x86_64 -nodefaults \
		-no-user-config -nographic $no_reboot -serial file:/dev/stdout \
		-M microvm,accel=tcg -cpu qemu64 -m 512 \
		-kernel "$kernel"/boot/vmlinuz-* -initrd "$tmp/initrd" \
		-append "console=ttyS0 reboot=t panic=-1 quiet iomem=relaxed \
			$(clock_parameters)" \
		"${slots[@]}"
	unseen "$name"
}

# disk NAME MIB [OPTION...]: make an image; its description is in $disk.
disk() {
	local image=$tmp/$1.img options=
	truncate -s "$2M" "$image"
	printf -v options ',%s' "name=$1" "serial=$1" "${@:3}"
	disk=$image$options
}

# The image of a disk that the guest's "image" wrote, byte for byte.
same_image() {
	local sectors=$(($(stat -c %s "$tmp/$1.img") / 512))
	rm -f "$tmp/expected"
	sh "$here/scribble" "$tmp/pattern" "$tmp/expected" $sectors &&
		cmp "$tmp/expected" "$tmp/$1.img"
}

same_images() {
	local name
	for name; do
		same_image "$name" || return
	done
}

# matrix ROUNDS [QUEUE:MASK:COPY...]: a disk for each; adds to the plan and to
# the arrays disks and names.
matrix() {
	local rounds=$1 one queue mask copy event_idx indirect name
	shift
	for one; do
		IFS=: read -r queue mask copy <<<"$one"
		event_idx=1 indirect=1
		case $mask in *ei*) event_idx=0 ;; esac
		case $mask in *in*) indirect=0 ;; esac
		name=q$queue-$mask-$copy
		disk "$name" 8 "queue=$queue" $([ "$copy" = fenced ] ||
			echo zero-copy) \
			"mask=$(((1 - event_idx) << 29 | (1 - indirect) << 28))"
		disks+=("$disk") names+=("$name")
		echo "$name suite $name 16384 0 $queue $event_idx $indirect" \
			"$rounds" >>"$tmp/plan"
	done
}

# A read-only disk and a throttled one.
special_disks() {
	disk readonly 4 ro
	cp "$tmp/pattern" "$tmp/readonly.img"
	disks+=("$disk")
	echo 'readonly readonly_disk readonly 8192' >>"$tmp/plan"
	disk throttled 4 iops=100
	disks+=("$disk")
	echo 'throttled throttle throttled 100' >>"$tmp/plan"
}

# suites NAME SECONDS FLAVOUR: run what is in the plan, then look at the images.
suites() {
	microvm "$1" "$3" "$2" "${disks[@]}"
	check "$1: images on the host" same_images "${names[@]}"
	check "$1: read-only image" cmp "$tmp/pattern" "$tmp/readonly.img"
}

group_cloud() {
	local queue mask copy
	local -a all=() disks=() names=()
	need_qemu cloud-amd64 || return
	for queue in 256 16 2; do
		for mask in all no-ei no-in no-ei-in; do
			# Two entries without an indirect table carry nothing.
			case $queue:$mask in 2:*in) continue ;; esac
			for copy in fenced zero; do
				all+=("$queue:$mask:$copy")
			done
		done
	done
	special_disks
	matrix 20 "${all[@]:0:1}"
	matrix 4 "${all[@]:1}"
	suites cloud 300 cloud-amd64
}

group_amd64() {
	local -a disks=() names=()
	need_qemu amd64 || return
	special_disks
	matrix 20 256:all:fenced
	matrix 4 16:no-ei:zero 2:all:fenced
	suites amd64 120 amd64
}

# named ID NAME: a record of that kind has all that names the disk.
named() {
	local line
	line=$(grep -F "[MESSAGE_ID=$1]" "$out/wedge.records") &&
		grep -F "[KTVBLK_DISK=$2]" <<<"$line" |
		grep -E '\[INSTANCE_ID=[0-9]+\]' |
		grep -E '\[STOP_FD=[0-9]+\]' |
		grep -F '[CAPACITY_SECTORS=16384]' | grep -F '[KTVBLK_FENCED=yes]'
}

group_wedge() {
	local one
	local -a disks=()
	need_qemu cloud-amd64 || return
	for one in victim-a victim-b; do
		disk $one 8 budget=500 stall=250
		disks+=("$disk")
	done
	disk other 8
	disks+=("$disk")
	cat >"$tmp/plan" <<-EOF
		unbind wedge_unbind victim-a other
		reboot wedge_reboot victim-a other
	EOF
	cat >"$tmp/plan.again" <<-EOF
		reboot wedge_rebooted victim-a other
		suite suite victim-a 16384 0 256 1 1 5
		stall wedge_stall victim-a other
		destroy wedge_destroy victim-b other
		reset wedge_reset victim-a other 0xfeb02e00
	EOF
	microvm wedge cloud-amd64 90 "${disks[@]}"
	check 'wedge: record of the reset' named \
		3b626030cdab4c14822861d456dd7402 victim-a
	check 'wedge: record of the destroy' named \
		70b5dbfd5c394574889b74ed475785df victim-b
	check 'wedge: record of the stall' grep -F \
		'[MESSAGE_ID=b1ccea3aa883485484755acd482c580b]' \
		"$out/wedge.records"
	check 'wedge: record of the reclaim' grep -F \
		'[MESSAGE_ID=c93c0649b3ff4e7289841bb5d2139f74]' \
		"$out/wedge.records"
}

group_ring3() {
	local program=$build/tests/guest/ring3
	why='no /dev/kvm that may be opened'
	[ -c /dev/kvm ] && { : <>/dev/kvm; } 2>/dev/null || return
	disk victim 1
	disk other 1
	LD_LIBRARY_PATH=$build guest ring3 30 "$program" "$program-guest" \
		"$tmp/victim.img" "$tmp/other.img"
	[ $status -eq 0 ] || report FAIL 0 'ring3: did not end well'
}

# What the machine between needs, in $tmp/root.
nested_files() {
	local modules lib
	modules=$(echo "$kernel"/lib/modules/*/kernel)
	mkdir -p "$tmp/root/nested/lib"
	cp "$here/init-nested" "$build"/ktvblk-vmm "$build"/tests/guest/ring3 \
		"$build"/tests/guest/ring3-guest "$modules/virt/lib/irqbypass.ko" \
		"$modules"/arch/x86/kvm/kvm{,-amd}.ko \
		"$modules/drivers/block/loop.ko" "$tmp/root/nested" &&
	cp "$kernel"/boot/vmlinuz-* "$tmp/root/nested/vmlinuz" &&
	mv "$tmp/initrd" "$tmp/root/nested/initrd" || return
	LD_LIBRARY_PATH=$build ldd "$build/ktvblk-vmm" | grep -o '/[^ ]*' |
	while read -r lib; do
		case $lib in
		*/ld-linux*) mkdir -p "$tmp/root${lib%/*}"
			cp -L "$lib" "$tmp/root$lib" ;;
		*) cp -L "$lib" "$tmp/root/nested/lib" ;;
		esac
	done
}

group_nested() {
	need_qemu cloud-amd64 || return
	cat >"$tmp/plan" <<-EOF
		readonly readonly_disk readonly 8192
		throttled throttle throttled 100
		q256-all-fenced suite plain 16384 0 256 1 1 20
		q16-no-ei-zero suite sixteen 16384 0 16 0 1 4
		unbind wedge_unbind victim other
		reset wedge_reset_here victim other 0xd0005000
		off stuck victim2
	EOF
	echo 'quit wedge_quit victim2' >"$tmp/plan.quit"
	own_archive | cat - "$tmp/initramfs-cloud-amd64" >"$tmp/initrd"
	why='no files for the machine between'
	nested_files || return
	# The cases of the machine between.
	printf '%s\n' images power-off destroyed >>"$tmp/plan"
	own_archive | cat - "$tmp/initramfs-cloud-amd64" >"$tmp/initrd"
	guest nested 240 qemu-system-x86_64 -nodefaults -no-user-config \
		-nographic -no-reboot -serial file:/dev/stdout \
		-M q35,accel=tcg -cpu max,+svm,+npt -m 1500 \
		-kernel "$kernel"/boot/vmlinuz-* -initrd "$tmp/initrd" \
		-append "console=ttyS0 reboot=t panic=-1 quiet \
			rdinit=/nested/init-nested $(clock_parameters)"
	unseen nested
	rm -r "$tmp/root/nested"
}

head -c 4M /dev/urandom >"$tmp/pattern"
for group in $groups; do
	why=
	"group_$group" || report skip 0 "$group: $why"
	rm -f "$tmp"/*.img
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
