#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What ktvblk-vmm makes of its arguments. With a guest it is seen in
# tests/guest. $BUILD (build) has the program, on x86-64.

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
check 'a kernel is needed' ends 2 'no --kernel'
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
if [ ! -c /dev/kvm ]; then
	check 'no KVM' ends 1 '/dev/kvm: ' --kernel kernel --disk disk
fi
sums
