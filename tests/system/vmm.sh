#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What ktvblk-vmm makes of its arguments and of disks that hang. With a guest it
# is seen in tests/guest. $BUILD (build) has the program, on x86-64.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
show=(out err)
export LD_LIBRARY_PATH=$BUILD
[ -x "$BUILD/ktvblk-vmm" ] || {
	skip "no ktvblk-vmm in $BUILD"
	sums
	exit
}
truncate -s 1M disk kernel

# ends STATUS WORDS ARGUMENT...: it says these words, if any, on standard error.
ends() {
	local want=$1 words=$2 rc
	shift 2
	"$BUILD/ktvblk-vmm" "$@" </dev/null >out 2>err
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
	[ ! "$words" ] || grep -qF -- "$words" err || { echo "not on stderr: $words"; return 1; }
}

check 'help' ends 0 '' --help
check 'help has the syntax of a disk' grep -q 'FILE\[,name=NAME\]' out
check 'version' ends 0 '' --version
check 'a kernel is needed' ends 2 'neither --kernel nor --restore'
check 'a word too many' ends 2 'what is more?' --kernel kernel more
check 'an unknown option' ends 2 'unrecognized option' --nonsense
check 'too little memory' ends 2 '--memory is from 64' --memory 63
check 'memory is a number' ends 2 '--memory is from' --memory 64x
for disk in ,ro disk,nonsense disk,ro=1 disk,iops disk,iops= disk,iops=-1 \
	disk,iops=1x disk,queue=65536 disk,budget=4294967296 \
	disk,stall=4294967296 disk,bps=18446744073709551616; do
	check "refused: --disk $disk" ends 2 'ktvblk-vmm: --disk: ' --disk $disk
done
nine=()
for _ in {1..9}; do nine+=(--disk disk); done
check 'more than eight disks' ends 2 'too many' --kernel kernel "${nine[@]}"
check 'a long command line' ends 2 '--append is too long' \
	--append "$(printf '%3000s' x)"
check 'no saved machine' ends 1 'nowhere: ' --restore nowhere
check 'a saved machine that is none' ends 1 'disk is no saved machine' \
	--restore disk
check 'a saved machine cut short' ends 1 'cut short' --restore /dev/null
if [ ! -c /dev/kvm ]; then
	check 'no KVM' ends 1 '/dev/kvm: ' --kernel kernel --disk disk
fi

# Its disks, without a KVM.
build vmm-bus "$here/vmm-bus.c" "$top"/src/demo/vmm/{bus,disk,file,say}.c \
	"$top"/src/demo/{driver,event,guest,hang,image,say}.c

# bus STATUS WORDS ARGUMENT...: see vmm-bus.c; WORDS are on its standard error.
bus() {
	local want=$1 words=$2 rc
	shift 2
	timeout 300 ./vmm-bus "$@" >out 2>err
	rc=$?
	[ $rc -eq "$want" ] || { echo "exit status $rc, not $want"; return 1; }
	[ ! "$words" ] || grep -q -- "$words" err || { echo "not on stderr: $words"; return 1; }
}

# named PATH NAME DISK: a disk in that file starts, with this name in records.
named() {
	mkdir -p "$(dirname "$1")" && cp disk "$1" || return
	bus 0 '' name "$3" || return
	[ "$(<out)" = "$2" ] || { echo "called $(<out)"; return 1; }
}
check 'a path' named some.img some.img some.img
check 'a name' named some.img vda some.img,name=vda
check 'a path with a comma' named a,b.img a,b.img a,,b.img
check '... and options behind it' named a,b.img vda a,,b.img,ro,name=vda
check 'only commas' named ,, ,, ,,,,,ro
check 'a name with a comma' named some.img a,b some.img,name=a,,b
printf -v deep '%0200d/' 1 2 3
check 'a path that is longer than a name' named "${deep}x.img" \
	"$(printf '%s' "${deep}x.img" | tail -c 255)" "${deep}x.img"
check 'a path that no name can be' named $'tab\tx.img' 'tab?x.img' $'tab\tx.img'
check 'a name that no name can be' bus 1 'Invalid argument' name $'disk,name=a\tb'
check 'a path that is not there' bus 1 'No such file' name nothing,,here

check 'healthy disks: 0' bus 0 '' healthy
check 'the end of disks that hang: 1' bus 1 'victim: timed out after [0-9]* ms' close
check '... each of them is told' [ "$(grep -c 'timed out' err)" -eq 2 ]
check 'a reset of disks that hang: they share a budget' bus 0 '' reset
check 'a worker left behind by a reset is told at the end: 1' \
	bus 1 'victim: timed out after [0-9]* ms' after-reset
check 'a disk pulled out while it hangs: 1' bus 1 'victim: timed out after' unplug
check '... and only that one is told' [ "$(grep -c 'timed out' err)" -eq 1 ]
sums
