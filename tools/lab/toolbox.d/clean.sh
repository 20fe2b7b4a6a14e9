# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Removing from the cache what this checkout does not use.

# True for what is named as this checkout would name it now.
cache_is_current() { # cache_is_current NAME
	local release='*'
	if [ -e "$(toolbox_path)/etc/fgdp-toolbox" ]; then
		release=$(. "$(toolbox_path)/etc/fgdp-toolbox" && echo "$KERNEL_RELEASE")
	fi
	# shellcheck disable=SC2254 # without a tree the release is any
	case $1 in
	"toolbox-$(toolbox_key)" | "guest-$(toolbox_key)") ;;
	kbuild-$release-*amd64-"$(kernel_kbuild_key)" | kbuild-$release-*amd64.log) ;;
	debug-${release%%+*}-"$(kernel_debug_key)" | debug-kernel.log) ;;
	linux-source-${release%%+*}) ;;
	"go-$(go_key)" | "packaging-$(packaging_key)" | "image-$(image_key)") ;;
	*) return 1 ;;
	esac
}

# True if a process runs in it or from it: a lab that another checkout has up.
cache_is_in_use() { # cache_is_in_use PATH
	grep -qsF " $1" /proc/[0-9]*/mountinfo
}

cache_clean() {
	local entry lock
	for lock in "$CACHE"/.lock-*; do
		[ ! -e "$lock" ] || flock -n "$lock" true ||
			die "something is being made (${lock##*/.lock-}): wait for it, then run 'toolbox clean' again"
	done
	for entry in "$CACHE"/{toolbox,kbuild,guest,debug,linux-source,go,packaging,image}-*; do
		if [ ! -e "$entry" ] || cache_is_current "${entry##*/}"; then
			continue
		elif cache_is_in_use "$entry"; then
			say "$entry is in use: kept"
		else
			say "removing $entry"
			(enter_namespace rm -rf "$entry")
		fi
	done
}
