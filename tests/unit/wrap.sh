#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# wrap.sh NM OBJCOPY PROGRAM SOURCE OBJECT...: the linker's arguments for PROGRAM,
# whose source is SOURCE.c: readers of build logs take a .c for a compilation.
# A comment "/* wrap: write */" in it sends the objects' calls of write to its
# __wrap_write, whatever their symbol: with _FORTIFY_SOURCE, or wide off_t and
# time_t on a 32-bit machine, it is another one.

set -eu
here=$(dirname "$0") nm=$1 objcopy=$2 program=$3 source=$4.c
shift 4
names=$(sed -n 's|.*/\* wrap: \(.*\) \*/.*|\1|p' "$source")
[ "$names" ] || {
	echo "$@"
	exit 0
}
flags= real=
for name in $names; do
	flags="$flags -Wl,--wrap=$name"
done

# "symbol name" of what is wanted by another symbol than the source's name.
"$nm" -u -P "$@" | sed -n 's/ [UwW].*//p' | sort -u >"$program.symbols"
others=$(sed -f "$here/plain-names.sed" "$program.symbols" |
	paste -d ' ' "$program.symbols" - | awk -v names="$names" '
	BEGIN { split(names, list, /[ \n]+/); for (i in list) wrap[list[i]] }
	$1 != $2 && $2 in wrap { print $1 ":" $2 }')
for other in $others; do
	symbol=${other%:*} name=${other#*:}
	flags="$flags -Wl,--wrap=$symbol"
	flags="$flags -Wl,--defsym=__wrap_$symbol=__wrap_$name"
	# A checked call may go on as a plain one; a wide one must stay so.
	case $symbol in
	*_chk | *_2 | __isoc*) ;;
	*) real="$real --redefine-sym __real_$name=__real_$symbol" ;;
	esac
done

if [ "$real" ]; then
	rm -rf "$program.objects"
	mkdir -p "$program.objects"
	callers=$("$nm" -A -u -P "$@" | sed -n 's/: __real_.*//p' |
		sort -u | tr '\n' ' ')
	for object; do
		shift
		case " $callers" in
		*" $object "*)
			copy=$program.objects/${object##*/}
			# shellcheck disable=SC2086 # words
			"$objcopy" $real "$object" "$copy"
			object=$copy
			;;
		esac
		set -- "$@" "$object"
	done
fi
echo "$@" "$flags"
