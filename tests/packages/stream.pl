# SPDX-License-Identifier: Apache-2.0 OR MIT
# stream.pl serve PORT | connect ADDRESS PORT STOP: one TCP connection that moves numbered blocks there and back, at a measured pace,
# until there is a file STOP, and checks each. Both sides print how many it were. Wants nothing but perl-base.
use strict;
use warnings;
use IO::Socket::INET;

my $size = 4096;
my $window = 8;

sub block {
	my $words = $size / 4;
	return pack 'N*', map { $_[0] * $words + $_ } 0 .. $words - 1;
}

sub put {
	my ($socket, $data) = @_;
	while (length $data) {
		my $n = syswrite $socket, $data or die "cannot send: $!\n";
		substr($data, 0, $n) = '';
	}
}

# A block, or nothing at the end of the stream.
sub get {
	my ($socket, $number) = @_;
	my $data = '';
	while (length $data < $size) {
		my $n = sysread $socket, $data, $size - length $data, length $data;
		die "cannot receive: $!\n" unless defined $n;
		last unless $n;
	}
	return 0 if $data eq '';
	die "block $number is not what was sent\n" if $data ne block($number);
	return 1;
}

my $way = shift;
my $blocks = 0;
if ($way eq 'serve') {
	my $listener = IO::Socket::INET->new(LocalPort => shift, Listen => 1, ReuseAddr => 1) or die "cannot listen: $@\n";
	my $socket = $listener->accept or die "cannot accept: $!\n";
	while (get($socket, $blocks)) {
		put($socket, block($blocks));
		$blocks++;
	}
} else {
	my ($address, $port, $stop) = @ARGV;
	my $socket = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 30) or die "cannot connect: $@\n";
	my $sent = 0;
	until (-e $stop) {
		put($socket, block($sent++));
		if ($sent - $blocks > $window) {
			get($socket, $blocks++) or die "the peer has ended\n";
			select undef, undef, undef, 0.1;
		}
	}
	shutdown $socket, 1;
	$blocks++ while get($socket, $blocks);
	die "$blocks of $sent blocks came back\n" if $blocks != $sent;
}
print "$blocks blocks\n";
