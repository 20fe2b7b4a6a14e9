# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group inet: TCP that is carried by FGDP behaves as TCP does. The selftests' cases run over plain TCP first, then over TCP that goes
# through rings, inside one guest and between two; then the scenarios tests/vm/tcp-*. Sourced by tests/run.

inet_setting() { # inet_setting VALUE: net.fgdp.inet in both guests
	local guest
	for guest in a b; do
		guest $guest sh -c "echo $1 >/proc/sys/net/fgdp/inet" || return
	done
}

# Connections that a guest's module has carried so far.
inet_carried() { guest "$1" awk '$1 == "module.inet_carried" { print $2 }' /proc/net/fgdp/stats; }

inet_selftests() {
	local guest before after
	progress "inet: boot two guests"
	if ! lab_up --guests 2; then
		fail inet "the lab does not come up (see $out/lab-up.log)"
		return
	fi
	run_loopback tcp
	inet_setting 2 || fail inet "the guests have no net.fgdp.inet"
	before=$(inet_carried a)
	run_loopback tcp carried
	after=$(inet_carried a)
	if [ "${after:-0}" -gt "${before:-0}" ]; then pass inet-loopback-carried; else fail inet-loopback-carried "no connection was carried"; fi
	for guest in a b; do
		before=$(inet_carried $guest)
		case $guest in
		a) run_pair tcp a b 10.77.0.2 carried ;;
		b) run_pair tcp b a 10.77.0.1 carried ;;
		esac
		after=$(inet_carried $guest)
		if [ "${after:-0}" -gt "${before:-0}" ]; then pass inet-$guest-carried; else fail inet-$guest-carried "no connection was carried"; fi
	done
	end_selftests inet
}

group_inet() {
	[ -n "${SCENARIO-}" ] || inet_selftests
	run_scenarios "$checkout"/tests/vm/tcp-*
}
