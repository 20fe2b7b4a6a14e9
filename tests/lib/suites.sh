# SPDX-License-Identifier: Apache-2.0 OR MIT
# What the scenarios share that run outside test suites over loopback. Sourced after guests.sh.
#
# A suite is right if every test ends alike without and with the module. Guest a runs it with net.fgdp.inet=0, guest b with 2, both at
# once: neither sees the other's loopback, and emulation has one processor for each.

need_packages() { # need_packages PACKAGE...: skips the scenario without them
	lab apt "$@" >"$out/$suite.apt" 2>&1 && return
	echo "Debian packages: $(tail -n 1 "$out/$suite.apt")"
	exit 77
}

# Runs run_tests, which the scenario has to define, in both guests. Into $out/$suite.plain and .carried go lines "TEST RESULT".
run_both() { # run_both [TEST...]: these only
	local other
	run_tests a "$@" >"$out/$suite.plain.new" 2>"$out/$suite.plain.err" &
	other=$!
	run_tests b "$@" >"$out/$suite.carried.new" 2>"$out/$suite.carried.err" || {
		wait "$other" || :
		die "with net.fgdp.inet=2: $(tail -n 1 "$out/$suite.carried.err")"
	}
	wait "$other" || die "with net.fgdp.inet=0: $(tail -n 1 "$out/$suite.plain.err")"
	local file
	for file in "$out/$suite.plain" "$out/$suite.carried"; do
		# What was run again takes the place of what there was.
		awk '{ result[$1] = $2 } END { for (test in result) print test, result[test] }' "$file" "$file.new" | sort >"$file.sorted"
		mv "$file.sorted" "$file"
	done
}

different() { comm -3 "$out/$suite.plain" "$out/$suite.carried" | awk '{ print $1 }' | sort -u; }

compare_suite() { # compare_suite NAME TESTS CONNECTIONS: at least so many have run and were carried
	suite=$1
	local before carried again tests round
	guest a sh -c 'echo 0 >/proc/sys/net/fgdp/inet' && guest b sh -c 'echo 2 >/proc/sys/net/fgdp/inet' || die "the guests have no net.fgdp.inet"
	before=$(counter b inet_carried)
	: >"$out/$suite.plain"
	: >"$out/$suite.carried"
	run_both
	# Suites have tests that fail by chance when a machine is slow: they count if that happens again.
	for round in 1 2; do
		mapfile -t again < <(different)
		[ ${#again[@]} -gt 0 ] && [ ${#again[@]} -le 50 ] || break
		echo "different, run again ($round): ${again[*]}"
		run_both "${again[@]}"
	done
	carried=$(($(counter b inet_carried) - before))
	mapfile -t again < <(different)
	for test in "${again[@]:0:20}"; do
		echo "$test: $(awk -v t="$test" '$1 == t { print $2 }' "$out/$suite.plain") with TCP, $(awk -v t="$test" '$1 == t { print $2 }' "$out/$suite.carried") when carried"
	done
	[ ${#again[@]} = 0 ] || die "$suite: ${#again[@]} tests end otherwise when TCP is carried (see $out/$suite.plain and .carried)"
	tests=$(wc -l <"$out/$suite.plain")
	[ "$tests" -ge "$2" ] || die "$suite: only $tests tests ran"
	[ "$carried" -ge "$3" ] || die "$suite: only $carried connections were carried"
	[ "$(counter a inet_carried)" = 0 ] || die "$suite: guest a carried connections, too"
	awk -v suite="$suite" -v carried="$carried" '{ n[$2]++ } END { for (result in n) all = all ", " n[result] " " result
		print suite ": the same results with TCP and carried" all "; " carried " connections carried" }' "$out/$suite.plain"
}

# CPython's own tests, by regrtest, without those that match $ignore (patterns).
run_python() { # run_python GUEST MODULES [TEST...]
	local name=$1 modules=$2 options=() pattern
	shift 2
	# Of -i and -m the first one decides on what matches neither.
	for pattern; do options+=(-m "$pattern"); done
	for pattern in $ignore; do options+=(-i "$pattern"); done
	# regrtest fails if a test does; without results it has not come to its end.
	# shellcheck disable=SC2086 # several modules
	guest "$name" sh -c 'cd /tmp && rm -f junit.xml && { timeout 900 python3 -m test --timeout 400 -v --junit-xml junit.xml "$@" >regrtest.log 2>&1 || :; }
		[ -s junit.xml ] || { tail -n 300 regrtest.log; echo "no results: $(grep -E " \.\.\. " regrtest.log | tail -n 1)"; exit 1; } >&2' - "${options[@]}" $modules || return
	guest "$name" python3 -c '
import xml.etree.ElementTree as tree
for case in tree.parse("/tmp/junit.xml").iter("testcase"):
    result = {child.tag for child in case} & {"failure", "error", "skipped"}
    print(case.get("name").replace(" ", "_"), "+".join(sorted(result)) or "ok")'
}
