#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What README.md and libktvblk(7) have an embedder write: it is the same, and it
# works. $BUILD (build) has the library.

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
sed -n '/^```c$/,/^```$/ { /^```/d; p }' "$top/README.md" >readme.inc
awk '/^\.Sh / { here = $2 == "EXAMPLES" }
	/^\.Ed/ { text = 0 }
	here && text { gsub(/\\e/, "\\"); print }
	/^\.Bd/ { text = 1 }' "$top/src/man/man7/libktvblk.7" >page.inc
check 'the page has the code of README.md' diff <(expand readme.inc) page.inc
truncate -s 1M one two
build readme "$here/readme.c" "$top"/src/demo/{driver,event,guest,say}.c
check 'two disks of a guest, one ends first' timeout 300 ./readme one two
sums
