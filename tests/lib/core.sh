# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group core: the host crates' own tests, loom, the toolbox's, and a short run of the fuzzers. Sourced by tests/run.

# Counts what cargo's test harness says.
count_cargo() { # count_cargo NAME FILE STATUS
	local name=$1 file=$2 status=$3 p f i sums
	sums=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$file")
	local failures=0 count=0
	while read -r p f i; do
		[ -n "$p" ] || continue
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + i))
		failures=$((failures + f)) count=$((count + p))
	done <<<"$sums"
	grep -E '^test .* (FAILED|ignored)' "$file" | sed 's/^/  /' || :
	if [ "$status" != 0 ] && [ "$failures" = 0 ]; then
		fail "$name" "ended with status $status: $(grep -E '^error' "$file" | head -n 1) (see $file)"
	elif [ "$count" = 0 ] && [ "$failures" = 0 ]; then
		fail "$name" "no test ran (see $file)"
	else
		echo "$name: $count passed, $failures failed"
	fi
}

cargo_test() { # cargo_test NAME ARGUMENTS
	local name=$1 status=0
	shift
	progress "core: $name"
	"$toolbox" run env -C "$checkout" "$@" >"$out/core-$name.log" 2>&1 || status=$?
	count_cargo "core-$name" "$out/core-$name.log" "$status"
}

group_core() {
	cargo_test workspace cargo test --locked --workspace --no-fail-fast
	cargo_test loom RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=build/cargo-loom LOOM_MAX_PREEMPTIONS=2 \
		cargo test --locked --release -p fgdp-proto --test loom
	progress "core: toolbox clean"
	if "$checkout/tests/toolbox/clean" >"$out/core-toolbox-clean.log" 2>&1; then
		pass core-toolbox-clean
	else
		fail core-toolbox-clean "$(tail -n 1 "$out/core-toolbox-clean.log") (see $out/core-toolbox-clean.log)"
	fi
	progress "core: fuzz"
	if [ ! -x "$checkout/tools/proto/fuzz/run" ]; then
		skip core-fuzz "tools/proto/fuzz/run"
	elif "$toolbox" run "$checkout/tools/proto/fuzz/run" >"$out/core-fuzz.log" 2>&1; then
		pass core-fuzz
	else
		fail core-fuzz "$(tail -n 1 "$out/core-fuzz.log") (see $out/core-fuzz.log)"
	fi
}
