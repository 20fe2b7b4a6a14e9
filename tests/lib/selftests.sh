# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group selftests: every case over loopback in one guest, and between two guests in both directions. Sourced by tests/run.

# Which cases: all, or those that FILTER says.
filters=()
[ -z "${FILTER-}" ] || filters=(--filter "$FILTER")

# Over loopback in a guest. Several guests can be at it at once: emulation has a processor for each of two.
start_loopback() { # start_loopback GUEST FAMILY [WHAT-IS-SPECIAL]: its process goes to $loopback
	local name=loopback-$2${3:+-$3}
	progress "selftests: $name in guest $1"
	GUEST_TIMEOUT=1500 guest "$1" "$bin/fgdp-selftest" loopback --family "$2" "${filters[@]}" >"$out/$name.ktap" 2>"$out/$name.err" &
	loopback=$!
}

end_loopback() { # end_loopback PROCESS FAMILY [WHAT-IS-SPECIAL]: counts its results
	local name=loopback-$2${3:+-$3} status=0
	wait "$1" || status=$?
	count_ktap "$name" "$out/$name.ktap"
	if [ "$status" -gt 1 ]; then
		fail "$name" "ended with status $status: $(tail -n 1 "$out/$name.err")"
	fi
}

run_loopback() { # run_loopback FAMILY
	start_loopback a "$1"
	end_loopback "$loopback" "$1"
}

run_pair() { # run_pair FAMILY CLIENT SERVER [WHAT-IS-SPECIAL]
	local name=$1${4:+-$4}-$2-to-$3 family=$1 client=$2 server=$3 status=0 pid
	progress "selftests: $name"
	GUEST_TIMEOUT=1500 guest "$server" "$bin/fgdp-selftest" server --family "$family" \
		--peer "$(id_of "$client")" >"$out/$name.server" 2>&1 &
	pid=$!
	GUEST_TIMEOUT=1500 guest "$client" "$bin/fgdp-selftest" client --family "$family" --control "$(address_of "$server"):7080" \
		--peer "$(id_of "$server")" "${filters[@]}" >"$out/$name.ktap" 2>"$out/$name.err" || status=$?
	count_ktap "$name" "$out/$name.ktap"
	if [ "$status" -gt 1 ]; then
		fail "$name" "ended with status $status: $(tail -n 1 "$out/$name.err" "$out/$name.server" | tr '\n' ' ')"
		# Without a client it waits for ever.
		guest "$server" pkill -x fgdp-selftest || :
	fi
	wait "$pid" || [ "$status" -gt 1 ] || fail "$name-server" "$(tail -n 1 "$out/$name.server")"
}

end_selftests() { # end_selftests NAME: with no socket left the module can go, and come back; the kernels have nothing to say
	if guest a sh -c "rmmod fgdp && insmod $checkout/build/fgdp.ko"; then
		pass "$1-unload"
	else
		fail "$1-unload" "rmmod or insmod after the tests: $(guest a cat /proc/net/fgdp/connections 2>&1 | head -n 3 | tr '\n' ' ')"
	fi
	if scan_logs "$1" a b; then pass "$1-logs"; else fail "$1-logs" "trouble in the kernel logs"; fi
	lab_down
}

group_selftests() {
	progress "selftests: boot two guests"
	if ! lab_up --guests 2; then
		fail selftests "the lab does not come up (see $out/lab-up.log)"
		return
	fi
	run_loopback fgdp
	run_pair fgdp a b
	run_pair fgdp b a
	end_selftests selftests
}
