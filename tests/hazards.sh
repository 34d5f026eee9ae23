#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# See that each test of tests/hazards.md is there, and that each row has one.

table=${1:-tests/hazards.md}
failed=0
for name in $(grep '^|' "$table" | grep -o '`[^`]*`' | tr -d '`' | sort -u); do
	# Defined, and in its program's list.
	[ "$(grep -hwo "$name" tests/unit/test-*.c | wc -l)" -ge 2 ] &&
		grep -qF "START_TEST($name)" tests/unit/test-*.c && continue
	echo "no test is called $name"
	failed=1
done
grep '^|' "$table" | grep -v -e '`' -e '^|---' -e '^| hazard |' && failed=1
[ $failed -ne 0 ] || echo "  hazards: $(grep -c '^| .*`' "$table"), each with its tests"
exit $failed
