# SPDX-License-Identifier: LGPL-2.1-or-later
#
# From an object's symbol to the function's name in the source. The C library has
# more than one symbol for a name: by the language's standard, _FORTIFY_SOURCE,
# the widths of long double, off_t and time_t.

s/^__isoc[0-9]*_//
s/^\(__.*_chk\)ieee128$/\1/
s/^__\(.*\)ieee128$/\1/
s/^__\(.*\)_chk$/\1/
s/^__\(open\|openat\)\(64\)\?_2$/\1/
s/^__\(.*\)_time64$/\1/
s/^__\([a-z_]*\)64$/\1/
s/^\(p[a-z]*v\)64v2$/\12/
s/^\([a-z_]*\)64$/\1/
