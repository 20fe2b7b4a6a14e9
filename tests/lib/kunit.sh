# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group kunit: boundary tables inside a kernel with KUnit and the kernel's own checks. Sourced by tests/run.

group_kunit() {
	local status=0 p f s
	progress "kunit"
	if [ ! -x "$checkout/tests/kunit/run" ]; then
		skip kunit "tests/kunit/run"
		return
	fi
	env -u FGDP_LAB timeout 2400 "$checkout/tests/kunit/run" >"$out/kunit.log" 2>&1 || status=$?
	grep -E '^(not ok|# )' "$out/kunit.log" | head -n 20 | sed 's/^/  /' || :
	if read -r p f s < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$out/kunit.log" | tail -n 1); then
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		echo "kunit: $p passed, $f failed, $s skipped"
	else
		fail kunit "ended with status $status: $(tail -n 1 "$out/kunit.log") (see $out/kunit.log)"
	fi
}
