#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# See that each test of tests/hazards.md is there, and that each row has one.

table=${1:-tests/hazards.md}
failed=0
# Defined, and in its program's list.
grep '^|' "$table" | grep -o '`[^`]*`' | tr -d '`' | sort -u | awk '
	FNR == NR { wanted[$0]; next }
	{
		if (match($0, /START_TEST\([a-z0-9_]+\)/))
			defined[substr($0, RSTART + 11, RLENGTH - 12)]
		n = split($0, words, /[^A-Za-z0-9_]+/)
		for (i = 1; i <= n; i++)
			if (words[i] in wanted)
				seen[words[i]]++
	}
	END {
		for (name in wanted)
			if (!(name in defined) || seen[name] < 2) {
				print "no test is called " name
				failed = 1
			}
		exit failed
	}' - tests/unit/test-*.c || failed=1
grep '^|' "$table" | grep -v -e '`' -e '^|---' -e '^| hazard |' && failed=1
[ $failed -ne 0 ] || echo "  hazards: $(grep -c '^| .*`' "$table"), each with its tests"
exit $failed
