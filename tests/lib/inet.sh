# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group inet: TCP that is carried by FGDP behaves as TCP does. The selftests' cases run over plain TCP first, then over TCP that goes
# through rings, inside one guest and between two; then the scenarios tests/vm/tcp-*. Sourced by tests/run.

was_carried() { # was_carried NAME GUEST BEFORE: passes if the guest has carried connections since it had carried so many
	if [ "$(counter "$2" inet_carried)" -gt "$3" ]; then pass "$1"; else fail "$1" "no connection was carried"; fi
}

inet_selftests() {
	local guest before plain carried
	progress "inet: boot two guests"
	if ! lab_up --guests 2; then
		fail inet "the lab does not come up (see $out/lab-up.log)"
		return
	fi
	inet_setting 0 && guest b sh -c 'echo 2 >/proc/sys/net/fgdp/inet' || fail inet "the guests have no net.fgdp.inet"
	before=$(counter b inet_carried)
	start_loopback a tcp
	plain=$loopback
	start_loopback b tcp carried
	carried=$loopback
	end_loopback "$plain" tcp
	end_loopback "$carried" tcp carried
	was_carried inet-loopback-carried b "$before"
	inet_setting 1 || fail inet "net.fgdp.inet cannot be set"
	for guest in a b; do
		before=$(counter $guest inet_carried)
		case $guest in
		a) run_pair tcp a b carried ;;
		b) run_pair tcp b a carried ;;
		esac
		was_carried inet-$guest-carried $guest "$before"
	done
	end_selftests inet
}

group_inet() {
	[ -n "${SCENARIO-}" ] || inet_selftests
	run_scenarios "$checkout"/tests/vm/tcp-*
}
