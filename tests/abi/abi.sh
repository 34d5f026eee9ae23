#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# abi.sh check LIBRARY: is a program built for the ABI in libktvblk.abi still
# served by this library? A symbol in a new version node may come.
# abi.sh baseline LIBRARY: make libktvblk.abi of it. A struct that goes with its
# size may grow at its end; as abidiff cannot be told of nothing but that, such a
# change is read in the diff of libktvblk.abi.
#
# Needs abigail-tools, and the library's debug information. The baseline is of
# one architecture, and skipped on others.

set -eu
here=$(dirname "$0")
include=$here/../../include
baseline=$here/libktvblk.abi
library=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "$library: $*" >&2
	exit 1
}

# What a program sees of the library: no paths, no private types.
describe() {
	abidw --headers-dir "$include" --drop-private-types \
		--exported-interfaces-only --no-elf-needed --no-corpus-path \
		--no-comp-dir-path --no-show-locs --type-id-style hash \
		--out-file "$1" "$library"
	grep -q '<function-decl' "$1" || fail 'no debug information (-g)'
}

architecture() { sed -n "s/.* architecture='\([^']*\)'.*/\1/p;q" "$1"; }

format() { sed -n "s/^<abi-corpus version='\([^']*\)'.*/\1/p;q" "$1"; }

# symbol node, one a line
symbols() {
	sed -n "/is-defined='yes'/s/.*<elf-symbol name='\([^']*\)' version='\([^']*\)'.*/\1 \2/p" \
		"$1" | sort
}

# A node that is out never changes, and each names the one before it.
check_nodes() {
	symbols "$baseline" >"$tmp/old"
	symbols "$tmp/new.abi" >"$tmp/new"
	comm -13 "$tmp/old" "$tmp/new" | while read -r symbol node; do
		! grep -q " $node$" "$tmp/old" ||
			fail "$symbol is new in $node, which is out already"
		echo "new: $symbol in $node"
	done
	readelf -VW "$library" | awk '
		/^Version needs/ { exit }
		/ Flags: none .* Name: / { bad += !chained; before = node
			node = $NF; chained = before == "" }
		/ Parent 1: / { chained = $NF == before }
		BEGIN { chained = 1 }
		END { exit bad || !chained }' || fail 'version nodes are not a chain'
}

describe "$tmp/new.abi"
case $1 in
baseline)
	cp "$tmp/new.abi" "$baseline"
	;;
check)
	if [ "$(architecture "$tmp/new.abi")" != "$(architecture "$baseline")" ]
	then
		echo "skipped: the baseline is of $(architecture "$baseline")"
		echo '0 passed, 0 failed, 1 skipped'
		exit 0
	fi
	# libabigail 3 reads what 2 has written, if it is not told that it is 2's.
	sed "1s/version='[^']*'/version='$(format "$tmp/new.abi")'/" "$baseline" \
		>"$tmp/baseline.abi"
	abidiff --no-added-syms "$tmp/baseline.abi" "$tmp/new.abi" ||
		fail 'not the ABI of libktvblk.abi'
	check_nodes
	;;
esac
