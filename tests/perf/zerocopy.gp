# SPDX-License-Identifier: Apache-2.0 OR MIT
# gnuplot: zerocopy.png and zerocopy.svg from the .dat files in the current directory.
set style line 1 lc rgb '#444444' lw 2 pt 5 ps 0.8
set style line 2 lc rgb '#c8442d' lw 3 pt 7 ps 1.0
set style line 3 lc rgb '#b07ad6' lw 2 pt 4 ps 0.8
set style line 4 lc rgb '#7d3fb0' lw 3 pt 6 ps 1.0
set style line 5 lc rgb '#e39b31' lw 2 pt 9 ps 0.8
set style line 6 lc rgb '#3b6fb6' lw 2 pt 11 ps 0.8
set style line 7 lc rgb '#3f9a5b' lw 2 pt 13 ps 0.8
set logscale xy
set xtics ('4 KiB' 4096, '64 KiB' 65536, '256 KiB' 262144, '2 MiB' 2097152, '16 MiB' 16777216, '64 MiB' 67108864) rotate by -35
set xrange [3000:90000000]
set grid xtics ytics lc rgb '#dddddd'
set key outside bottom center horizontal maxcols 3
set datafile missing 'NaN'

draw(metric) = sprintf("zerocopy-%s.dat", metric)

do for [kind in 'png svg'] {
	if (kind eq 'png') { set terminal pngcairo size 1500,1000 font 'sans,11' } else { set terminal svg size 1500,1000 font 'sans,13' }
	set output 'zerocopy.'.kind
	set multiplot layout 2,2
	set title 'The same memory again, each line read'; set xlabel 'bytes per message'; set ylabel 'MB/s'
	plot for [i=0:6] draw('stream-look') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	set title 'The same memory again, each line written'
	plot for [i=0:3] draw('stream-write') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	set title 'Memory mapped, filled and sent once, each line read'
	plot for [i=0:4] draw('first-look') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	set title 'CPU of both guests and the daemon, the same memory again, each line read'; set ylabel 's per GB'
	plot for [i=0:6] draw('cpu_per_gb-look') index i using 1:2:3:4 with yerrorlines ls i+1 title columnheader(1)
	unset multiplot
	unset output
}
