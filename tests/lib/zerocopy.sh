# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group zerocopy: what programs grant is read in place, and comes back. The selftests' cases of it, unless the group selftests has all,
# then the scenarios tests/vm/zerocopy-*. Sourced by tests/run.

zerocopy_selftests() {
	local filters=("${filters[@]}")
	progress "zerocopy: boot two guests"
	if ! lab_up --guests 2; then
		fail zerocopy "the lab does not come up (see $out/lab-up.log)"
		return
	fi
	[ ${#filters[@]} -gt 0 ] || filters=(--filter zerocopy --filter give --filter large --filter window)
	run_loopback fgdp
	run_pair fgdp a b
	run_pair fgdp b a
	end_selftests zerocopy
}

group_zerocopy() {
	if [ -z "${SCENARIO-}" ] && [[ " ${groups[*]} " != *" selftests "* ]]; then
		zerocopy_selftests
	fi
	run_scenarios "$checkout"/tests/vm/zerocopy-*
}
