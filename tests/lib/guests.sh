# SPDX-License-Identifier: Apache-2.0 OR MIT
# What the scenarios of tests/vm share. Sourced; the lab is up.
set -euo pipefail
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/common.sh"
selftest=$bin/fgdp-selftest
size=${FGDP_TEST_MIB:-1024}

die() { # die WHY: the scenario has failed
	echo "$*"
	exit 1
}

# Starts a command in a guest; its output goes to a file, its process to $started.
start() { # start FILE GUEST CMD...
	local file=$1
	shift
	guest "$@" >"$file" 2>&1 &
	started=$!
}

# Waits until a file has so many lines that match.
wait_for() { # wait_for FILE PATTERN SECONDS [LINES]
	local lines follower found=yes
	exec {lines}< <(exec tail -n +1 -F -- "$1" 2>/dev/null)
	follower=$!
	timeout "$3" grep -m "${4:-1}" -E -- "$2" <&"$lines" >"$out/wait-$FGDP_LAB" || found=no
	exec {lines}<&-
	kill "$follower" 2>/dev/null || :
	# grep succeeds with fewer lines if it is stopped.
	if [ $found = no ] || [ "$(wc -l <"$out/wait-$FGDP_LAB")" -lt "${4:-1}" ]; then
		die "no '$2' in $1 within $3 s: $(tail -n 1 "$1")"
	fi
}

# Repeats a command until it succeeds: for what is to be seen in a guest, of which nobody tells.
until_ok() { # until_ok SECONDS CMD...
	local end=$((SECONDS + $1)) seconds=$1
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || die "not within $seconds s: $*"
		sleep 0.1
	done
}

# What a connection from one guest to a port of another ends with: connected or an error's name.
connect_result() { # connect_result FROM TO PORT
	guest "$1" "$selftest" connect --peer "$(id_of "$2")" --port "$3"
}

# Takes the device of a guest away from the module and gives it back: its channels end, and come up anew.
rebind() { # rebind GUEST
	guest "$1" sh -c 'cd /sys/bus/virtio/drivers/fgdp && d=$(ls -d virtio*) && echo $d >unbind && echo $d >bind' ||
		die "guest $1 cannot rebind its device"
}

# Loads the module again in guests that it has gone from.
load_again() { # load_again GUEST...
	local guest
	for guest; do
		guest "$guest" insmod "$checkout/build/fgdp.ko" || die "guest $guest cannot load the module again"
	done
}

used_frames() { # used_frames GUEST PEER: frames of the guest's slot that are in use for the peer
	guest "$1" awk -v peer="$(id_of "$2")" \
		'NR == 1 { for (n = 1; n <= NF; n++) if ($n == "used_frames") at = n } index($0, peer) { print $at }' /proc/net/fgdp/peers
}
none_used() { [ "$(used_frames "$1" "$2")" = 0 ]; } # none_used GUEST PEER

# Moves MiB both ways at once between two guests and checks every byte.
transfer() { # transfer CLIENT SERVER MIB PORT [OPTIONS]
	local client=$1 server=$2 mib=$3 port=$4 log=$out/transfer-$FGDP_LAB-$4 listener
	shift 4
	start "$log.server" "$server" "$selftest" transfer --listen --port "$port" --mib "$mib" "$@"
	listener=$started
	guest "$client" "$selftest" transfer --peer "$(id_of "$server")" --port "$port" --mib "$mib" "$@" >"$log.client" 2>&1 ||
		die "transfer $client to $server: client: $(tail -n 1 "$log.client"); server: $(tail -n 1 "$log.server")"
	wait "$listener" || die "transfer $client to $server: server: $(tail -n 1 "$log.server")"
	echo "$client to $server: $(tail -n 1 "$log.client")"
}

# A file whose content repeats nowhere: what is lost, doubled or out of order changes the sum, which goes to $expected.
make_file() { # make_file FILE MIB
	openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0 -in /dev/zero 2>/dev/null | head -c $(($2 << 20)) >"$1" || :
	expected=$(sha256sum <"$1" | cut -d ' ' -f 1)
}
