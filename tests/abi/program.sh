#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# program.sh BUILD CC: program.c, built for 1.0 and for this header, with and
# without 64-bit off_t and time_t, runs with the library in BUILD, and sees the
# same structures with either.

set -eu
here=$(dirname "$0") build=$1 cc=$2
wide='-D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64'
out=$build/tests/abi
mkdir -p "$out"
passed=0

# build NAME FLAG...
build() {
	program=$out/program-$1
	shift
	# shellcheck disable=SC2086 # words
	$cc -Wall -Wextra -Werror -O1 "$@" -o "$program" "$here/program.c" \
		-L"$build" -lktvblk
	LD_LIBRARY_PATH=$build ${TEST_WRAPPER-} "$program" --layout \
		>"$program.layout"
}

# run NAME
run() {
	LD_LIBRARY_PATH=$build ${TEST_WRAPPER-} "$out/program-$1"
	passed=$((passed + 1))
	echo "ok   built for $1"
}

build 1.0 -I"$here/1.0"
build this -I"$here/../../include"
# shellcheck disable=SC2086 # words
build this-wide -I"$here/../../include" $wide
run 1.0
run this
run this-wide
diff "$out/program-this.layout" "$out/program-this-wide.layout"
echo 'ok   the same structures with either width of off_t and time_t'
echo "$((passed + 1)) passed, 0 failed, 0 skipped"
