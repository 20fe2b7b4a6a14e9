# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# What Debian packages are built and looked at with: a layer above the tree, since nothing else needs it.

PACKAGING_PACKAGES="build-essential debhelper dh-dkms lintian"

packaging_key() {
	{ cat "$TOOLBOX_LIB/packaging.sh"; toolbox_key; } | sha256sum | cut -c1-12
}

packaging_dir() {
	local dir
	dir=$CACHE/packaging-$(packaging_key)
	[ -e "$dir" ] || with_lock packaging packaging_make "$dir" >&2
	printf '%s\n' "$dir"
}

packaging_make() {
	local dir=$1 log=$CACHE/packaging.log
	[ ! -e "$dir" ] || return 0
	say "installing what packages are built with: $PACKAGING_PACKAGES (log in $log)"
	(enter_namespace rm -rf "$dir.new"{,.work,.root,.log})
	mkdir -p "$dir.new"
	# shellcheck disable=SC2086 # several packages
	(toolbox_run unshare --mount --propagation private -- bash "$TOOLBOX_LIB/../apt-layer" "$dir.new" $PACKAGING_PACKAGES) >"$log" 2>&1 ||
		die "$PACKAGING_PACKAGES: not installed: $(tail -n 1 "$log")"
	(enter_namespace rm -rf "$dir.new"{.work,.root,.log})
	mv "$dir.new" "$dir"
	say "$dir is ready"
}

# As toolbox_run, with the layer.
packaging_run() {
	if toolbox_is_native; then
		exec "$@"
	fi
	toolbox_run unshare --mount --propagation private -- bash "$TOOLBOX_LIB/layered.sh" "$(packaging_dir)" "$PWD" "$CHECKOUT" "$CACHE" "$@"
}
