#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# coverage.sh DIRECTORY: what gcovr says of the objects in DIRECTORY, and that
# tests/coverage.md gives the reason for each line that was not reached, and for
# no other. Fails below 95 % of the lines.

set -eu
xml=$1/coverage.xml
gcovr --root . --filter src/lib/ --object-directory "$1" \
	--exclude-unreachable-branches --xml-pretty --output "$xml" \
	--txt "$1/coverage.txt" --fail-under-line 95 "$1"
cat "$1/coverage.txt"
sed -n 's/^TOTAL .* \([0-9]*%\).*/note: \1 of the lines of src\/lib/p' "$1/coverage.txt"

# "file function" for each line not reached. A function begins in column 0.
missed() {
	local file line
	sed -n 's/.*<class .*filename="\([^"]*\)".*/\1/p
		s/.*<line number="\([0-9]*\)" hits="0".*/\1/p' "$xml" |
	while read -r line; do
		case $line in
		[0-9]*) echo "$file $(name_at "$file" "$line")" ;;
		*) file=$line ;;
		esac
	done
}

name_at() {
	awk -v last="$2" '/^[a-z_].*\(/ { sub(/\(.*/, ""); name = $NF }
		NR == last { sub(/^\**/, "", name); print name; exit }' "$1"
}

# "file function least most" of each row of the table.
reasons() {
	awk -F ' *[|] *' '$2 ~ /^`src/ { gsub(/`/, ""); n = split($4, of, "-")
		print $2, $3, of[1], of[n] }' tests/coverage.md
}

{ missed | sed 's/^/missed /'; reasons; } | awk '
	$1 == "missed" { missed[$2 " " $3]++; next }
	{ known[$1 " " $2] = 1; least[$1 " " $2] = $3; most[$1 " " $2] = $4 }
	END {
		for (at in missed)
			if (!(at in known) || missed[at] > most[at]) {
				print "FAIL " at ": " missed[at] " lines not reached, without a reason"
				bad = 1
			}
		for (at in known)
			if (missed[at] + 0 < least[at]) {
				print "FAIL " at ": reached by now, or gone: not in tests/coverage.md"
				bad = 1
			}
		exit bad
	}'
