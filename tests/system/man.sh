#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages against mandoc, the headers, the map, the library's list of
# events and the programs; their examples are compiled. $BUILD (build) may have
# the programs.

# shellcheck disable=SC2013,SC2046,SC2086 # lists of words

set -u
# shellcheck source-path=SCRIPTDIR source=check.sh
. "$(dirname "$0")/check.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$top/src/man" || exit 1

# same WHAT-A-SAYS WHAT-B-SAYS: two lists, in any order.
same() { diff <(sort -u "$1") <(sort -u "$2"); }

echo '- mandoc'
# Whether other packages' pages are installed is not our fault.
lint() {
	[ -z "$(mandoc -Tlint -Wstyle "$1" 2>/dev/null |
		grep -v 'referenced manual not found' | tee /dev/stderr)" ]
}
for page in man*/*; do
	case $page in
	*.gz | *~) continue ;;
	esac
	[ -h "$page" ] || check "$page: the licence comes first" \
		grep -q -m 1 '^\.\\" SPDX-License-Identifier: LGPL-2.1-or-later' "$page"
	if command -v mandoc >/dev/null; then
		check "$page: lint" lint "$page"
	fi
	# Xr to a page of ours: it is there.
	for ref in $(sed -n 's/^\.Xr \([^ ]*ktvblk[^ ]*\) \([1-8]\).*/\1.\2/p' \
		"$page"); do
		check "$page: $ref" [ -e "man${ref##*.}/$ref" ]
	done
done
command -v mandoc >/dev/null || skip 'no mandoc here: lint'

echo '- every symbol'
symbols=$(sed 's|/\*.*\*/||' "$top/src/lib/libktvblk.map" |
	grep -o 'ktvblk_[a-z0-9_]*' | sort)
headers=("$top"/include/ktvblk{,-kvm}.h)
# Those with an underscore at the end are for the header itself.
inlines=$(sed -n 's/^static inline .*\(ktvblk_[a-z_]*[a-z]\)(.*/\1/p' \
	"${headers[@]}")
[ "$symbols" ] && [ "$inlines" ] || exit 1
# says TEXT REGEX: without a process for each of some hundred questions.
says() { [[ $1 =~ $2 ]]; }
for name in $symbols $inlines; do
	check "$name: a page" [ -e "man3/$name.3" ]
	text=$(<"man3/$name.3")
	synopsis=${text#*.Sh SYNOPSIS} synopsis=${synopsis%%.Sh DESCRIPTION*}
	description=${text#*.Sh DESCRIPTION}
	end=$'( |\n)'
	check "$name: it is named" says "$text" $'\n\\.Nm '"$name$end"
	check "$name: a prototype" says "$synopsis" $'\n\\.F[no] '"$name$end"
	check "$name: described" says "$description" \
		$'\n(\\.Fn '"$name$end|These pass on)"
	check "$name: who may call it" says "${text//$'\n'/ }" \
		'any thread|no two calls run at once'
done
check 'no other page' same <(cd man3 && printf '%s\n' *.3) \
	<(printf '%s.3\n' $symbols $inlines)
check 'no other name' same <(sed -n 's/^\.Nm \([^ ]*\).*/\1/p' man3/*) \
	<(printf '%s\n' $symbols $inlines)

# The prototypes of all pages and those of the header agree for the compiler.
perl -ne '
	if (/^\.Sh /) { $on = /SYNOPSIS/ }
	next unless $on;
	s/\\://g; # a line may break here
	$type = $1 if /^\.Ft (.*)/;
	if (/^\.Fo (.*)/) { $name = $1; @args = () }
	if (/^\.Fa "(.*)"/) { push @args, $1 }
	if (/^\.Fc/) { print "$type $name(", join(", ", @args), ");\n" }
	if (/^\.Fn (\w+) (.*)/) {
		($name, $args) = ($1, $2);
		@args = $args =~ /"([^"]*)"|(\w+)/ ? grep defined,
			$args =~ /"([^"]*)"|(\w+)/g : ();
		print "$type $name(", join(", ", @args), ");\n"
	}' $(find man3 -type f) | sort >"$work/prototypes"
check 'as many prototypes as names' [ "$(wc -l <"$work/prototypes")" -eq \
	"$(printf '%s\n' $symbols $inlines | wc -l)" ]
{
	printf '#include "%s"\n' "${headers[@]}"
	grep -v 'p(struct' "$work/prototypes"
} >"$work/prototypes.c"
check 'the prototypes are those of the header' ${CC:-cc} -Wall -Werror \
	-I"$top/include" -Wno-unused-function -fsyntax-only "$work/prototypes.c"

# Structures: each as the header has it, without comments.
for page in $(grep -l '^struct ktvblk_.* {$' man3/*.3); do
	[ -h "$page" ] && continue
	name=$(sed -n 's/^\(struct ktvblk_[a-z_]*\) {$/\1/p' "$page")
	check "$page: $name" diff \
		<(sed -n "/^$name {/,/^};/p" "$page" | tr -s ' \t\n' ' ') \
		<(sed -n "/^$name {/,/^};/p" "$top/include/ktvblk.h" |
			perl -0pe 's|/\*.*?\*/||gs' | tr -s ' \t\n' ' ')
done
all=$(cat $(find man3 man7 -type f))
for constant in $(grep -oh 'KTVBLK_\(STATE_[A-Z_]*\|[A-Z_]*\) =' \
	"$top/include/ktvblk.h" | cut -d' ' -f1) \
	$(sed -n 's/^#define \(KTVBLK_[A-Z_]*\) .*/\1/p' "$top/include/ktvblk.h"); do
	case $constant in
	KTVBLK_SECTOR_SIZE) continue ;; # what everybody knows
	esac
	check "$constant" says "$all" $'\n\\.(Dv|It Dv|Fd #define) '"$constant"
done

echo '- every error code'
# "function CODE" of the header: a comment holds for the functions below it, up
# to the next comment.
perl -0ne '
	while (m{/\*(.*?)\*/([^/]*)}gs) {
		($text, $code) = ($1, $2);
		@codes = $text =~ /(?<![A-Za-z\d])-(E[A-Z0-9]+)/g;
		# A list ends where its comment says more of callbacks.
		@codes = () if $code =~ /^\s*(?:ssize_t|int) \(\*/;
		for $f ($code =~ /^[a-z].*?\b(ktvblk_\w*[a-z])\(/mg) {
			print "$f $_\n" for grep { $text =~ /^ \*   .*-$_/m } @codes
		}
	}' "${headers[@]}" | sort -u >"$work/header-errors"
perl -ne '
	if (/^\.Sh /) { $on = /ERRORS/; @f = () }
	next unless $on;
	@f = () if /^\.El/;
	push @f, $1 if /^\.Fn (ktvblk_\w+)/ && !$list;
	$list = 1 if /^\.Bl/;
	$list = 0 if /^\.El/;
	if (/^\.It Bq Er (\w+)/) { print "$_ $1\n" for @f }
	' $(find man3 -type f) | sort -u >"$work/page-errors"
check 'the header lists errors' [ "$(wc -l <"$work/header-errors")" -ge 40 ]
check 'pages and header list the same' \
	diff "$work/header-errors" "$work/page-errors"
# What returns int can fail, but for the names.
for name in $(sed -n 's/^\(static inline \)\{0,1\}int \(ktvblk_[a-z_]*[a-z]\)(.*/\2/p' \
	"${headers[@]}"); do
	check "$name: errors" grep -q "^$name " "$work/page-errors"
done

echo '- every record'
list_events >"$work/events"
awk '{
	split("emerg alert crit err warning notice info debug", p, " ")
	line = $1 " " $2 " " p[$3 + 1] ($4 == "l" ? " limited" : "")
	for (i = 5; i <= NF; i++) line = line " " $i
	print line }' "$work/events" | sort >"$work/events-are"
perl -ne '
	if (/^\.Sh /) { $on = /KINDS/ }
	next unless $on;
	if (/^\.It Dv (\w+)/ || /^\.El/) {
		print "$line\n" if $line;
		$line = $1 // "";
		$line = "" if /^\.El/;
	}
	next unless $line;
	$line .= " $1" if /^\.Li ([0-9a-f]{32}) ,/;
	$line .= " $1" . ($2 ? " limited" : "") if
		/^(crit|err|warning|notice|info|debug)(, rate-limited)?\.$/;
	$line .= " $1" if /^\.Va (\w+)/;
	' man7/ktvblk-messages.7 | sort >"$work/page-events"
check 'pages and library have the same' \
	diff "$work/events-are" "$work/page-events"
for field in $(sed -n 's/^#define KTVBLK_FIELD_.* "\(.*\)"/\1/p' \
	"$top/include/ktvblk-messages.h"); do
	check "$field: explained" bash -c "sed '/^.Sh KINDS/q' \
		man7/ktvblk-messages.7 | grep -Eq '^\.It Va (.* )?$field( |\$)'"
done
for id in $(grep -rhoE 'MESSAGE_ID=[0-9a-f]{32}' man* | cut -d= -f2 | sort -u); do
	check "$id is a MESSAGE_ID" grep -q "\"$id\"" \
		"$top/include/ktvblk-messages.h"
done
# The one-liners beside ktvblk-wedged name all it looks at, but for a panic.
check 'the one-liners' same \
	<(grep -o 'MESSAGE_ID=[0-9a-f]*' man1/ktvblk-wedged.1 | cut -d= -f2) \
	<(awk '/^(RESET|DESTROY)_(TIMED_OUT|HELPER)/ ||
		/^RECLAIMED/ || /^REQUEST_(STALLED|RESUMED)/ { print $2 }' "$work/events")

echo '- the programs'
# Options in --help and in the page.
options_of() { grep -oE -- '--[a-z][a-z-]+' | sort -u; }
for program in ktvblk-wedged ktvblk-demo ktvblk-vmm ktvblk-serve; do
	# This one is not for every machine.
	[ $program != ktvblk-vmm ] || [ -x "$BUILD/$program" ] || continue
	if [ ! -x "$BUILD/$program" ]; then
		skip "no $program in $BUILD"
		continue
	fi
	check "$program: the options" diff \
		<(LD_LIBRARY_PATH=$BUILD "$BUILD/$program" --help | options_of) \
		<(sed -n 's/^\.It.*Fl Fl \([a-z-]*\).*/--\1/p' \
			"man1/$program.1" | sort -u)
done

echo '- the examples compile'
n=0
for page in $(grep -l '^#include <ktvblk.h>' man3/*.3 man7/*.7); do
	[ -h "$page" ] && continue
	for language in 'c -std=c11' 'c -std=gnu11'; do
		awk '/^\.Sh / { here = $2 == "EXAMPLES" }
			/^\.Ed/ { text = 0 }
			here && text { gsub(/\\e/, "\\"); print }
			/^\.Bd/ { text = 1 }' "$page" >"$work/example.c"
		check "$page: $language" ${CC:-cc} -x $language -Wall -Wextra \
			-Wconversion -Werror -Wno-unused-function \
			-D_DEFAULT_SOURCE -I"$top/include" -fsyntax-only \
			"$work/example.c"
	done
	n=$((n + 1))
done
check 'there are examples' [ $n -ge 9 ]

sums
