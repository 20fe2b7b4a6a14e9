# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Paths, messages and locks shared by the toolbox's parts.

die() {
	printf 'toolbox: %s\n' "$*" >&2
	exit 1
}

say() {
	printf 'toolbox: [%3ds] %s\n' "$SECONDS" "$*" >&2
}

# True inside a tree (toolbox run inside toolbox run), or when the user wants the machine's own packages.
toolbox_is_native() {
	[ -e /etc/fgdp-toolbox ] || [ "${FGDP_TOOLBOX-}" = / ]
}

toolbox_path() {
	if toolbox_is_native; then
		printf '/\n'
	elif [ -n "${FGDP_TOOLBOX-}" ]; then
		printf '%s\n' "$FGDP_TOOLBOX"
	else
		printf '%s/toolbox-%s\n' "$CACHE" "$(toolbox_key)"
	fi
}

# The tree is named by what it is made from, so that a change makes a new one.
toolbox_key() {
	cat "$TOOLBOX_LIB/packages" "$TOOLBOX_LIB/setup.sh" | sha256sum | cut -c1-12
}

toolbox_ready() {
	toolbox_is_native || [ -e "$(toolbox_path)/etc/fgdp-toolbox" ] || toolbox_setup
}

# with_lock NAME CMD...: one process at a time makes NAME; the others wait and find it made.
with_lock() {
	local name=$1
	shift
	mkdir -p "$CACHE"
	(
		flock -n 9 || { say "waiting for another process that makes $name"; flock 9; }
		"$@" 9>&-
	) 9>"$CACHE/.lock-$name"
}
