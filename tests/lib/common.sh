# SPDX-License-Identifier: Apache-2.0 OR MIT
# What the groups of tests share: results, the lab, the scan of the kernel logs. Sourced.

checkout=$(readlink -f -- "$(dirname -- "${BASH_SOURCE[0]}")/../..")
toolbox=$checkout/tools/lab/toolbox
lab_program=${FGDP_LAB_PROGRAM:-$checkout/tools/lab/lab}
bin=$checkout/build/cargo/release
out=$checkout/build/tests
# A lab of our own: the one that a person has up is not disturbed.
export FGDP_LAB=${FGDP_LAB:-test}
mkdir -p "$out"

passed=0 failed=0 skipped=0

pass() { # pass NAME
	passed=$((passed + 1))
	echo "ok $1"
}

fail() { # fail NAME WHY
	failed=$((failed + 1))
	echo "FAILED $1: $2"
}

skip() { # skip NAME WHAT-IS-MISSING
	skipped=$((skipped + 1))
	echo "skipped $1: $2"
}

progress() { printf '== [%d s] %s\n' "$SECONDS" "$*"; }

lab() { "$lab_program" "$@"; }

# Runs a command in a guest. What it does may hang, never the tests.
guest() { # guest GUEST CMD...
	local name=$1
	shift
	timeout "${GUEST_TIMEOUT:-300}" "$lab_program" exec "$name" -- "$@"
}

# A guest's id in its group: what the others call it.
id_of() { # id_of GUEST
	sed -n '/^\[\[guest\]\]/,/^id/p' "$checkout/build/lab-$FGDP_LAB/fgdpd.toml" |
		sed -n "/^name = \"$1\"/,/^id/s/^id = \"\(.*\)\"/\1/p" | head -n 1
}

address_of() { # address_of GUEST: on the guests' ordinary network
	case $1 in a) echo 10.77.0.1 ;; b) echo 10.77.0.2 ;; c) echo 10.77.0.3 ;; esac
}

# A counter of a guest's module.
counter() { # counter GUEST PATTERN
	guest "$1" sh -c "awk '/$2/ { n += \$2 } END { print n + 0 }' /proc/net/fgdp/stats"
}

inet_setting() { # inet_setting VALUE: net.fgdp.inet in the guests a and b
	local guest
	for guest in a b; do
		guest $guest sh -c "echo $1 >/proc/sys/net/fgdp/inet" || return
	done
}

lab_up() { # lab_up OPTIONS: boots the lab, or says why not
	timeout 600 "$lab_program" up "$@" >"$out/lab-up.log" 2>&1 && return
	tail -n 5 "$out/lab-up.log" | sed 's/^/# /'
	return 1
}

lab_down() { timeout 120 "$lab_program" down >"$out/lab-down.log" 2>&1 || tail -n 3 "$out/lab-down.log"; }

# What a kernel says when it has found a mistake of its own.
KERNEL_TROUBLE='BUG:|WARNING:|Oops|general protection fault|KASAN|KCSAN|UBSAN|kmemleak: [1-9]|refcount_t|INFO: task .* blocked|blocked for more than|lock state|circular locking|recursive locking|suspicious RCU|soft lockup|hard LOCKUP|self-detected stall|rust_kernel: panicked|Kernel panic|scheduling while atomic|sleeping function called'

# Prints what is wrong in the kernel logs of the guests; succeeds if nothing is.
scan_logs() { # scan_logs NAME GUEST...
	local name=$1 bad=0 guest
	shift
	for guest; do
		if ! timeout 60 "$lab_program" log "$guest" >"$out/$name-$guest.log" 2>&1; then
			echo "# $guest: no kernel log"
			bad=1
		elif grep -E -m 5 "$KERNEL_TROUBLE" "$out/$name-$guest.log" | sed "s/^/# $guest: /" | grep .; then
			bad=1
		fi
	done
	return $bad
}

# Counts the lines of a KTAP file and prints those that failed or were skipped.
count_ktap() { # count_ktap NAME FILE
	local name=$1 file=$2 line planned
	planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$file" | head -n 1)
	local seen=0
	while IFS= read -r line; do
		case $line in
		'not ok '*)
			seen=$((seen + 1)) failed=$((failed + 1))
			echo "FAILED $name: ${line#not ok }"
			;;
		'ok '*'# SKIP'*)
			seen=$((seen + 1)) skipped=$((skipped + 1))
			echo "skipped $name: ${line#ok }"
			;;
		'ok '*) seen=$((seen + 1)) passed=$((passed + 1)) ;;
		'# '[a-z]*': '*) echo "  $line" ;;
		esac
	done <"$file"
	if [ "$seen" != "${planned:-none}" ]; then
		fail "$name" "$seen of ${planned:-no} planned results came (see $file)"
	fi
}
