# SPDX-License-Identifier: LGPL-2.1-or-later
# Worker CPU for each case: what the limit takes, and the device. The
# caller sets data and the output.

cases = system("wc -l <" . data) + 0
set terminal svg size 900, 160 + 22 * cases background "white" font "sans,11"
set title "CPU time of the worker per request, beside the limit"
set xlabel "ns per request"
set logscale x
set grid x
set key outside top center horizontal
set style fill solid 0.8 noborder
set yrange [cases + 0.5 : -0.5]
set xrange [10 : *]
set offsets 0, 0, 0, 0
plot data using (0):($0 + 0.0):(10):($3):($0 - 0.35):($0):ytic(1) \
	with boxxyerror linecolor rgb "#3465a4" title "device", \
     data using (0):($0 + 0.0):(10):($2 > 10 ? $2 : 10):($0):($0 + 0.35) \
	with boxxyerror linecolor rgb "#babdb6" title "limit"
