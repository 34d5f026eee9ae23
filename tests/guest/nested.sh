# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2154
#
# For run.sh: a guest of ktvblk-vmm on a real KVM, that of a Debian kernel which
# is itself a guest, on an AMD processor emulated by QEMU. What runs in between
# is init-nested.

need qemu-system-x86_64 busybox cpio mkfs.ext4 e2fsck journalctl
outer=$out/kernel-cloud-amd64
inner=$outer
[ "$group" = nested ] || inner=$out/kernel-amd64

# needs PROGRAM...: the libraries they are linked with, below $root.
needs() {
	local lib
	LD_LIBRARY_PATH=$build ldd "$@" | grep -o '/[^ ]*\.so[^ ]*' | sort -u |
	while read -r lib; do
		case $lib in
		*/ld-linux*) install -D "$lib" "$root$lib" ;;
		*) install -D "$lib" "$root/nested/lib/${lib##*/}" ;;
		esac
	done
}

# What the machine in between has.
outer_files() {
	local modules file root=$tmp/root
	local -a programs=(/lib/systemd/systemd-journald "$(command -v journalctl)"
		"$build"/ktvblk-{vmm,wedged} "$build/tests/guest/ring3")
	modules=$(echo "$outer"/lib/modules/*/kernel)
	mkdir -p "$root/nested"
	cp "${programs[@]}" "$here/init-nested" \
		"$build/tests/guest/ring3-guest" "$modules/virt/lib/irqbypass.ko" \
		"$modules"/arch/x86/kvm/kvm{,-amd}.ko \
		"$modules/drivers/block/loop.ko" "$root/nested" || return
	needs "${programs[@]}"
	cp "$inner"/boot/vmlinuz-* "$root/nested/vmlinuz" &&
		mv "$tmp/initrd" "$root/nested/initrd"
}

cat >"$tmp/plan.1" <<-EOF
	readonly readonly_disk readonly 8192
	moved move plain 2
	throttled throttle throttled
	resize resize other
	q256-ei-in-fenced suite plain 16384 0 256 1 1 20
	q16-in-zero-copy suite sixteen 16384 0 16 0 1 3
	unbind wedge_unbind victim other
	stall wedge_stall victim other
EOF
if [ "$group" = nested ]; then
	echo 'reboot wedge_reboot victim other' >>"$tmp/plan.1"
	cat >"$tmp/plan.2" <<-EOF
		rebooted wedge_rebooted victim other
		again rebind victim 2
		destroy wedge_destroy victim2 other
		reset wedge_reset victim other 0xd0005000
		quit wedge_quit victim3
	EOF
else
	cat >>"$tmp/plan.1" <<-EOF
		destroy wedge_destroy victim2 other
		reset wedge_reset victim other 0xd0005000
		off wedge_off victim3 other 0xd0007000
	EOF
fi
"$here/mkinitramfs" "$inner" "$tmp/initramfs"
own_archive | cat - "$tmp/initramfs" >"$tmp/initrd"
outer_files || exit
# The cases of the machine in between.
printf '%s\n' ring3 end images records >"$tmp/plan.0"
"$here/mkinitramfs" "$outer" "$tmp/initramfs"
own_archive | cat - "$tmp/initramfs" >"$tmp/initrd"
guest 1800 qemu-system-x86_64 -nodefaults -no-user-config -nographic -no-reboot \
	-serial stdio -M q35,accel=tcg -cpu max,+svm,+npt -m 1500 \
	-kernel "$outer"/boot/vmlinuz-* -initrd "$tmp/initrd" \
	-append "console=ttyS0 reboot=t panic=-1 quiet \
		rdinit=/nested/init-nested $(clock_parameters)"
