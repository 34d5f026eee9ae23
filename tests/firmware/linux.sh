# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# For run.sh: Debian's kernel for arm64 as a guest of virt, with the cases that
# check-guest has for disks that work.

have qemu-system-aarch64 busybox cpio readelf
"$here/foreign" "$out" arm64 linux-image-cloud-arm64 busybox-static coreutils \
	e2fsprogs libc6 libext2fs2 libcom-err2 libblkid1 libuuid1 || exit
root=$out/root-arm64 disks=() suites=()
cp /dev/null "$tmp/plan.1"
head -c 4M /dev/urandom >"$tmp/pattern"
disk readonly 4 ro
cp "$tmp/pattern" "$tmp/readonly.img"
echo 'readonly readonly_disk readonly 8192' >"$tmp/plan.1"
for one in 256:on:on:fenced 16:off:off:zero-copy; do
	case_of $one 3 >>"$tmp/plan.1"
done
"$here/mkinitramfs" "$root" "$tmp/initramfs" "$root" &&
	{ own_archive && cat "$tmp/initramfs"; } >"$tmp/initrd" || exit
guest 600 env LD_PRELOAD="$build/tests/guest/overlay.so" \
	LD_LIBRARY_PATH="$build" KTVBLK_DISKS="${disks[*]}" \
	qemu-system-aarch64 -nodefaults -no-user-config -nographic \
	-serial stdio -M virt,accel=tcg -cpu cortex-a57 -m 512 \
	-kernel "$root"/boot/vmlinuz-* -initrd "$tmp/initrd" \
	-append "console=ttyAMA0 panic=-1 quiet $patient_parameters"
for one in "${suites[@]}"; do
	check "$one: image" same_image "$one"
done
check 'readonly: image' cmp "$tmp/pattern" "$tmp/readonly.img"
