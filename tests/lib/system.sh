# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group system: whole scenarios, one file each in tests/vm. Sourced by tests/run.
#
# A scenario names its guests in a line "# lab: OPTIONS" and runs in a lab that is up with them; it may break everything in
# it. It exits with 0, with 77 for a skip, or else has failed; its last line says why.

run_scenario() { # run_scenario FILE
	local file=$1 name options status=0 guests start=$SECONDS
	name=system-$(basename "$file")
	options=$(sed -n 's/^# lab: *//p' "$file" | head -n 1)
	progress "$name: lab up $options"
	# shellcheck disable=SC2086 # several options
	if ! lab_up $options; then
		fail "$name" "the lab does not come up (see $out/lab-up.log)"
		lab_down
		return
	fi
	guests=$(sed -n 's/^# lab:.*--guests *\([0-9]\).*/\1/p' "$file")
	timeout "${SCENARIO_TIMEOUT:-1200}" "$file" >"$out/$name.log" 2>&1 || status=$?
	case $status in
	0) pass "$name ($((SECONDS - start)) s)" ;;
	77) skip "$name" "$(tail -n 1 "$out/$name.log")" ;;
	124) fail "$name" "did not end in time: $(tail -n 1 "$out/$name.log")" ;;
	*) fail "$name" "$(tail -n 1 "$out/$name.log") (see $out/$name.log)" ;;
	esac
	sed 's/^/  /' "$out/$name.log"
	# shellcheck disable=SC2046 # one word a guest
	if ! scan_logs "$name" $(printf '%s\n' a b c d | head -n "${guests:-2}"); then
		fail "$name-logs" "trouble in the kernel logs"
	fi
	lab_down
}

run_scenarios() { # run_scenarios FILE...
	local file
	for file; do
		[ -x "$file" ] || continue
		case "${SCENARIO-}" in
		'' | "$(basename "$file")") run_scenario "$file" ;;
		esac
	done
}

# Those of carried TCP are the group inet's, those of grants the group zerocopy's.
group_system() {
	local file files=()
	for file in "$checkout"/tests/vm/*; do
		case $(basename "$file") in
		tcp-* | zerocopy-*) ;;
		*) files+=("$file") ;;
		esac
	done
	run_scenarios "${files[@]}"
}
