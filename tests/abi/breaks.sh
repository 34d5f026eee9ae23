#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Does "make abi-check" see what it is there for? A copy of the sources is
# changed in one way after another.

set -u
top=$(realpath "$(dirname "$0")/../..")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

# The sizes that are kept by hand are not asserted: abi-check has to see it.
abi_check() {
	make -s -C "$tmp/tree" abi-check LDFLAGS= SANITIZE= BUILD=build \
		CFLAGS='-O0 -g -include no-asserts.h' >"$tmp/log" 2>&1
}

# Times are kept, so that only what an edit touches is compiled again.
fresh() {
	rm -rf "$tmp/tree"
	cp -a "$tmp/built" "$tmp/tree"
}

# try breaks|fits NAME SED FILE...: what abi-check says after that edit.
try() {
	local want=$1 name=$2 edit=$3 before verdict
	shift 3
	fresh
	cd "$tmp/tree" || exit
	before=$(cat "$@" | cksum)
	sed -i "$edit" "$@"
	if [ "$(cat "$@" | cksum)" = "$before" ]; then
		verdict='an edit that changes nothing'
	elif abi_check; then
		verdict=fits
	elif grep -q 'libktvblk.so.*: \(not the ABI\|.* is out already\|version nodes\)' \
		"$tmp/log"; then
		verdict=breaks
	else
		verdict='no answer'
	fi
	cd "$top" || exit
	if [ "$verdict" = "$want" ]; then
		passed=$((passed + 1))
		echo "ok   $want: $name"
	else
		failed=$((failed + 1))
		echo "FAIL $want: $name: $verdict"
		sed 's/^/     | /' "$tmp/log"
	fi
}

map=src/lib/libktvblk.map header=include/ktvblk.h
mkdir -p "$tmp/built/tests"
cp -a "$top/Makefile" "$top/include" "$top/src" "$tmp/built"
cp -a "$top/tests/abi" "$tmp/built/tests"
echo '#define _Static_assert(...) struct not_asserted' >"$tmp/built/no-asserts.h"
ln -s built "$tmp/tree"
if ! abi_check || grep '^skipped: ' "$tmp/log"; then
	tail -n 20 "$tmp/log"
	grep -q '^skipped: ' "$tmp/log"
	exit
fi

try breaks 'a symbol goes' '/ktvblk_set_log_level;/d' $map
try breaks 'another soname' 's/^SONAME.*/SONAME := libktvblk.so.2/' Makefile
try breaks 'a symbol moves to a new node' '/ktvblk_version;/d
	$ a KTVBLK_1.2 { global: ktvblk_version; } KTVBLK_1.1;' $map
try breaks 'a symbol joins a node that is out' \
	's/^local:/	disk_id_ref;\n&/; s/^struct disk_id \*disk_id_ref/__attribute__((visibility("default"))) &/' \
	$map src/lib/identity.c
try breaks 'a node without its predecessor' \
	'$ a KTVBLK_1.2 { global: ktvblk_new_one; };' $map
try breaks 'a parameter changes its type' \
	's/int ktvblk_set_log_level(int priority)/int ktvblk_set_log_level(long priority)/' \
	$header src/lib/*.c
try breaks 'a parameter more' \
	's/int ktvblk_set_log_level(int priority)/int ktvblk_set_log_level(int priority, int why)/' \
	$header src/lib/*.c
try breaks 'a result changes its type' \
	's/^int ktvblk_log_flush(/long ktvblk_log_flush(/' $header src/lib/*.c
try breaks 'a member goes' '/^\tint reserved;/d' $header
try breaks 'a member in the middle' \
	's/^\tuint64_t capacity_bytes;/\tuint64_t more;\n&/' $header
try breaks 'members change places' \
	's/^\tuint64_t iops;/\tuint64_t bytes_per_sec;/;t
	s/^\tuint64_t bytes_per_sec;/\tuint64_t iops;/' $header
try breaks 'a member changes its size' \
	's/^\tuint16_t queue_size_max;/\tuint32_t queue_size_max;/' $header
try breaks 'a struct without a size grows' \
	's/^\tuint64_t size;/&\n\tuint64_t before_the_end;/' $header
try breaks 'a struct with a size grows: to be committed to' \
	's/^\tuint16_t reserved\[3\].*/&\n\tuint64_t more;/' $header
try breaks 'a value of an enum changes' \
	's/KTVBLK_JOINED = 0/KTVBLK_JOINED = 2/; s/KTVBLK_TIMED_OUT = 2/KTVBLK_TIMED_OUT = 0/' $header

try fits 'a private struct changes' \
	's/^struct ktvblk_dev {/&\n\tint private;/' src/lib/device.h
try fits 'a symbol in a new node' \
	's/^} KTVBLK_1.0;$/&\nKTVBLK_1.2 { global: disk_id_ref; } KTVBLK_1.1;/
	s/^struct disk_id \*disk_id_ref/__attribute__((visibility("default"))) &/' \
	$map src/lib/identity.c

echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
