#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh BUILD [GROUP...]: Debian's firmware as guests, a line for each case.
# The groups, all of them if none is named, run two at a time:
#
#   seabios        boots a sector on microvm, which copies half its disk by int 13h
#   edk2           boots an EFI program of 4 MiB from a FAT disk on arm64's virt,
#                  which copies half of another disk, in requests up to 8 MiB
#   uboot          the same, and 16 MiB by U-Boot's own commands, in one request
#   uboot-arm,     ... the commands alone, on 32-bit Arm and on RISC-V
#   uboot-riscv64
#   linux-arm64    Debian's kernel for arm64, and what check-guest does with it
#
# All but the last run on disks of QEMU's own first: what fails there is no
# fault of the library but of the set-up; or on ktvblk-serve's alone, with
# FIRMWARE_DISKS=vhost-user. Consoles' logs are in BUILD/firmware.

set -u
export LC_ALL=C.UTF-8
firmware=$(cd "$(dirname "$0")" && pwd)
here=$firmware/../guest
build=$(cd "$1" && pwd)
shift
out=$build/firmware
mkdir -p "$out"

# All of them: one sum, and 77 where nothing could be run.
if [ $# -ne 1 ]; then
	[ $# -gt 0 ] || set -- linux-arm64 edk2 uboot seabios uboot-arm uboot-riscv64
	# shellcheck disable=SC2016 # the inner shell's
	printf '%s\n' "$@" | xargs -P 2 -I '{}' sh -c \
		'"$0" "$1" "$2"; rc=$?; [ $rc -eq 77 ] || exit $rc' \
		"$0" "$build" '{}' | awk '
		/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {
			passed += $1; failed += $3; skipped += $5; next }
		{ print; fflush() }
		END {
			print passed + 0 " passed, " failed + 0 " failed, " \
				skipped + 0 " skipped"
			exit failed ? 1 : passed ? 0 : 77
		}'
	rc=("${PIPESTATUS[@]}")
	[ "${rc[2]}" -eq 0 ] && [ "${rc[1]}" -ne 0 ] && exit 1
	exit "${rc[2]}"
fi
unset KTVBLK_DISKS

name=$1 group=$1
# shellcheck source-path=SCRIPTDIR source=../guest/guest.sh
. "$here/guest.sh"
tmp=$(mktemp -d "$out/tmp.XXXXXX")
# shellcheck source-path=SCRIPTDIR source=../vhost-user/machine.sh
. "$here/../vhost-user/machine.sh"
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# cannot WHY: what is needed is not here.
cannot() {
	echo "skip: $name: $*"
	echo '0 passed, 0 failed, 1 skipped'
	exit 77
}

have() {
	local thing
	for thing; do
		command -v "$thing" >/dev/null || [ -e "$thing" ] ||
			cannot "no $thing here"
	done
}

# image NAME MIB [FIRST]: bytes by chance, after those of the file FIRST; a copy
# stays to compare with. Both halves differ.
image() {
	{
		[ $# -lt 3 ] || cat "$3"
		head -c "$2M" /dev/urandom
	} | head -c "$2M" >"$tmp/$1.img"
	cp "$tmp/$1.img" "$tmp/$1.before"
	images+=("$1")
}

# Disks for QEMU itself, in the slots the overlay would take.
own_disks() {
	local slot=$1 image
	for image in "${images[@]}"; do
		slot=$((slot - 1))
		printf '%s\n' -drive \
			"id=$image,file=$tmp/$image.img,format=raw,if=none" \
			-device "virtio-blk-device,drive=$image,bus=virtio-mmio-bus.$slot"
	done
}

our_disks() {
	local image
	for image in "${images[@]}"; do
		echo "$tmp/$image.img,name=$image,serial=$image"
	done
}

# In the same slots, and memory that their servers see.
served_disks() {
	local slot=$1 image
	memory 512
	for image in "${images[@]}"; do
		slot=$((slot - 1))
		front "$image" 1 ",bus=virtio-mmio-bus.$slot"
	done
}

# boot SLOTS COMMAND...: with QEMU's disks, then anew with ours. $copies are the
# images that have a copy then, $cases what the guest says.
boot() {
	local slots=$1 whose image
	local -a own
	shift
	printf '%s x\n' "${cases[@]}" >"$tmp/plan.1"
	for whose in ${FIRMWARE_DISKS-set-up ktvblk}; do
		group=$name-$whose
		case $whose in
		set-up) mapfile -t own < <(own_disks "$slots") ;;
		ktvblk)
			own=("${placeholder[@]}")
			export KTVBLK_CONTROL=no KTVBLK_DISKS
			KTVBLK_DISKS=$(our_disks | paste -sd ' ')
			;;
		vhost-user) bus=; mapfile -t own < <(served_disks "$slots") ;;
		esac
		[ ! "${type-}" ] || {
			mkfifo "$tmp/keys.$whose"
			keyboard=$tmp/keys.$whose listen=$type
			exec {keys}<>"$keyboard"
		}
		for image in "${images[@]}"; do
			cp "$tmp/$image.before" "$tmp/$image.img"
			[ "$whose" != vhost-user ] ||
				server "$image" "$tmp/$image.img" || exit
		done
		guest 240 env ${KTVBLK_DISKS:+LD_PRELOAD="$build/tests/guest/overlay.so"} \
			LD_LIBRARY_PATH="$build" "$@" -nodefaults -no-user-config \
			-nographic -serial stdio -no-reboot -m 512 \
			-global virtio-mmio.force-legacy=false "${own[@]}"
		for image in "${copies[@]}"; do
			check "$image: image" copied "$image"
		done
	done
}

# What is said on the console goes through, and to each prompt goes the next of
# $commands. A key stops the countdown; one that is too late is a blank in the first
# command, as the firmware finds nothing to boot then, and has a prompt all the same.
type_commands() {
	local line= char next=0
	while IFS= read -r -N 1 char; do
		line+=$char
		case $line in
		*$'\n')
			printf '%s' "$line"
			line=
			;;
		*'stop autoboot'*[0-9]' ')
			printf ' ' >&"$keys"
			printf '%s\n' "$line"
			line=
			;;
		'=> ')
			printf '%s\n' "${commands[next++]-poweroff}" >&"$keys"
			;;
		esac
	done
	printf '%s' "$line"
}

# uboot_commands READ-TO READ-BACK-TO: what goes wrong is said by "&&".
uboot_commands() {
	# shellcheck disable=SC2016 # the $ are U-Boot's
	commands=('setenv m @@'
		"virtio dev 0 && virtio read $1 0 4000 && echo \$m ok 0 read"
		"virtio write $1 4000 4000 && echo \$m ok 0 write"
		"virtio read $2 4000 4000 && cmp.b $1 $2 800000 && echo \$m ok 0 compare")
	cases=(read write compare)
	type=type_commands
}

images=() copies=() cases=() placeholder=()
case $name in
seabios)
	bios=/usr/share/seabios/bios-microvm.bin
	have qemu-system-x86_64 $bios "$build/tests/firmware/boot.bin"
	image disk 16 "$build/tests/firmware/boot.bin"
	cases=(boot copy) copies=(disk)
	# So that its slot is in the ACPI tables.
	placeholder=(-device virtio-rng-device,bus=virtio-mmio-bus.23)
	boot 24 qemu-system-x86_64 -M microvm,accel=tcg -cpu qemu64 -bios $bios
	;;
edk2 | uboot)
	program=$build/tests/firmware/program.efi
	have qemu-system-aarch64 mformat mcopy "$program"
	case $name in
	edk2) bios=/usr/share/qemu-efi-aarch64/QEMU_EFI.fd ;;
	uboot) bios=/usr/lib/u-boot/qemu_arm64/u-boot.bin ;;
	esac
	have $bios
	file=EFI/BOOT/BOOTAA64.EFI
	[ $name = edk2 ] || file=program.efi # not to be booted by itself
	truncate -s 48M "$tmp/boot.before"
	mformat -i "$tmp/boot.before" -F :: &&
		mmd -i "$tmp/boot.before" ::/EFI ::/EFI/BOOT &&
		mcopy -i "$tmp/boot.before" "$program" ::/$file || exit
	images=(boot)
	image data 32
	cases=(EFI-program EFI-copy) copies=(data)
	[ $name = edk2 ] || {
		image raw 16
		uboot_commands 48000000 50000000
		# Nothing comes after that: it turns the machine off.
		commands+=('load virtio 2:0 44000000 program.efi && bootefi 44000000')
		cases+=(EFI-program EFI-copy) copies+=(raw)
	}
	boot 32 qemu-system-aarch64 -M virt -cpu cortex-a57 -bios $bios
	;;
uboot-arm)
	bios=/usr/lib/u-boot/qemu_arm/u-boot.bin
	have qemu-system-arm $bios
	image raw 16
	uboot_commands 48000000 50000000
	copies=(raw)
	boot 32 qemu-system-arm -M virt -bios $bios
	;;
uboot-riscv64)
	bios=/usr/lib/u-boot/qemu-riscv64/u-boot.bin
	have qemu-system-riscv64 $bios
	image raw 16
	uboot_commands 88000000 90000000
	copies=(raw)
	boot 8 qemu-system-riscv64 -M virt -bios $bios
	;;
linux-arm64)
	. "$firmware/linux.sh"
	;;
*)
	echo "run.sh: no group $name" >&2
	exit 2
	;;
esac
sum
