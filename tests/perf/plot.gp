# SPDX-License-Identifier: Apache-2.0 OR MIT
# gnuplot: bench.png and bench.svg from the .dat files in the current directory.
set style line 1 lc rgb '#888888' lw 2 pt 7 ps 0.8
set style line 2 lc rgb '#444444' lw 2 pt 5 ps 0.8
set style line 3 lc rgb '#3b6fb6' lw 2 pt 9 ps 0.8
set style line 4 lc rgb '#c8442d' lw 3 pt 7 ps 1.0
set style line 5 lc rgb '#e39b31' lw 3 pt 5 ps 1.0
set style line 6 lc rgb '#7d3fb0' lw 3 pt 13 ps 1.0
set style line 7 lc rgb '#b07ad6' lw 3 pt 12 ps 1.0
set style line 8 lc rgb '#8a6d3b' lw 2 pt 4 ps 0.8
set style line 9 lc rgb '#c9a25a' lw 2 pt 6 ps 0.8
set style line 10 lc rgb '#3f9a5b' lw 2 pt 11 ps 0.8
set logscale xy
set format x '%.0b%B'
set xtics (64, '1 KiB' 1024, '16 KiB' 16384, '64 KiB' 65536, '1 MiB' 1048576) rotate by -35
set xrange [40:1800000]
set grid xtics ytics lc rgb '#dddddd'
set key outside bottom center horizontal
set datafile missing 'NaN'

draw(metric) = sprintf("%s.dat", metric)

do for [kind in 'png svg'] {
	if (kind eq 'png') { set terminal pngcairo size 1500,560 font 'sans,11' } else { set terminal svg size 1500,560 font 'sans,13' }
	set output 'bench.'.kind
	set multiplot layout 1,3
	set title 'Stream'; set xlabel 'bytes per write'; set ylabel 'MB/s'
	plot for [i=0:9] draw('stream') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	set title 'Round trip: median, minimum, 99 %'; set xlabel 'bytes per message'; set ylabel 'us'
	plot for [i=0:9] draw('rr') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	set title 'CPU of both guests and the daemon'; set xlabel 'bytes per write'; set ylabel 's per GB'
	plot for [i=0:9] draw('cpu_per_gb') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	unset multiplot
	unset output
}
