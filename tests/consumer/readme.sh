#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# readme.sh FLAGS...: the C in README.md compiles as it stands there, and each
# MESSAGE_ID it names is one of ktvblk-messages.h.

set -eu
cd "$(dirname "$0")/../.."

sed -n '/^```c$/,/^```$/ { /^```/d; p }' README.md |
	${CC:-cc} -Wall -Wextra -Werror "$@" -x c -fsyntax-only -
for id in $(grep -o 'MESSAGE_ID=[0-9a-f]*' README.md | cut -d= -f2); do
	grep -q "\"$id\"" include/ktvblk-messages.h || {
		echo "README.md: no MESSAGE_ID $id" >&2
		exit 1
	}
done
