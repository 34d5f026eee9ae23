#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# typed.sh CC FLAG...: see that arguments of log_event() of a wrong kind or
# number do not compile, neither with CC nor with another compiler that is here.

set -u
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
compilers=$1
shift
for other in gcc clang; do
	[ "$other" = "$compilers" ] || ! command -v "$other" >/dev/null ||
		compilers="$compilers $other"
done
failed=0

# compile CC FLAG... <the body of a function
compile() {
	{
		echo '#include "journal.h"'
		echo 'void use(const struct identity *id, uint64_t n, int e,'
		echo '	 const char *text, struct maybe maybe);'
		echo 'void use(const struct identity *id, uint64_t n, int e,'
		echo '	 const char *text, struct maybe maybe)'
		echo '{ (void)id, (void)n, (void)e, (void)text, (void)maybe;'
		cat
		echo '}'
	} >"$tmp/use.c"
	"$@" -std=gnu11 -iquote src/lib -fsyntax-only "$tmp/use.c" \
		>"$tmp/said" 2>&1
}

# Each line: what must (+) or must not (-) compile; not even as a warning (=).
while read -r sign code; do
	for cc in $compilers; do
		strict=
		[ "$sign" = - ] || strict=-Werror
		echo "$code" | compile "$cc" "$@" $strict
		case $?,$sign in
		0,+ | [1-9]*,[-=]) continue ;;
		esac
		echo "typed.sh: $cc, $sign $code"
		cat "$tmp/said"
		failed=1
	done
done <<'END'
+ log_event(id, MEMORY_UNSET);
+ log_event(NULL, MEMORY_UNSET);
+ log_event(id, WRITE_FAILED, n, e);
+ log_event(id, CHAIN_MALFORMED, n, text);
+ log_event(id, PLACEMENT_FAILED, maybe, e);
+ log_event_by(e ? log_RESET_TIMED_OUT : log_DESTROY_TIMED_OUT, id, NULL, n, text, maybe, maybe, maybe, maybe, n);
+ log_event_by(e ? log_RESET_PANICKED : log_DESTROY_PANICKED, id, NULL, text);
- log_event(id, MEMORY_UNSET, n);
- log_event(id, WRITE_FAILED, n);
- log_event(id, WRITE_FAILED);
- log_event(id, WRITE_FAILED, n, e, e);
- log_event(id, WRITE_FAILED, text, e);
- log_event(id, WRITE_FAILED, n, text);
- log_event(id, WRITE_FAILED, &n, e);
- log_event(id, WRITE_FAILED, n, &e);
- log_event(id, WRITE_FAILED, n, maybe);
- log_event(id, WRITE_FAILED, maybe, e);
- log_event(id, CHAIN_MALFORMED, n, n);
- log_event(id, CHAIN_MALFORMED, n, e);
- log_event(id, CHAIN_MALFORMED, n, &n);
- log_event(id, CHAIN_MALFORMED, n, maybe);
- log_event(id, CHAIN_MALFORMED, text, n);
- log_event(id, PLACEMENT_FAILED, n, e);
- log_event(id, PLACEMENT_FAILED, 3, e);
- log_event(id, PLACEMENT_FAILED, NULL, e);
- log_event(text, MEMORY_UNSET);
- log_event(n, MEMORY_UNSET);
- log_event(id, NO_SUCH_EVENT);
- log_event_by(e ? log_RESET_TIMED_OUT : log_RESET_PANICKED, id, NULL, text);
= log_event(id, WRITE_FAILED, e, n);
= log_event(id, WRITE_FAILED, e, e);
= log_event(id, WRITE_FAILED, n, n);
END
[ $failed -ne 0 ] ||
	echo "  log_event() takes only what its event wants ($compilers)"
exit $failed
