# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# The stock kernel: its release, its source, and a directory to build Rust modules against.

kernel_release() { # kernel_release FLAVOUR
	case $1 in
	cloud-amd64 | amd64) ;;
	*) die "no flavour '$1': use cloud-amd64 or amd64" ;;
	esac
	(
		. "$(toolbox_path)/etc/fgdp-toolbox"
		printf '%s-%s\n' "$KERNEL_RELEASE" "$1"
	)
}

kernel_source_dir() {
	local dir series version
	series=$(. "$(toolbox_path)/etc/fgdp-toolbox" && echo "$KERNEL_SERIES")
	version=$(. "$(toolbox_path)/etc/fgdp-toolbox" && echo "$KERNEL_DEB")
	dir=$CACHE/linux-source-${version%%-*}
	[ -e "$dir" ] || with_lock linux-source kernel_unpack_source "$dir" "$series" >&2
	printf '%s\n' "$dir"
}

kernel_unpack_source() {
	[ ! -e "$1" ] || return 0
	say "unpacking the kernel source to $1 (half a minute)"
	rm -rf "$1.new"
	mkdir -p "$1.new"
	tar -C "$1.new" --strip-components=1 -xf "$(toolbox_path)/usr/src/linux-source-$2.tar.xz"
	mv "$1.new" "$1"
}

# Keyed by the kernel package and by how the directory is made.
kernel_kbuild_dir() {
	local dir release key
	release=$(kernel_release "$1")
	key=$({ cat "$TOOLBOX_LIB/kbuild.sh"; toolbox_key; } | sha256sum | cut -c1-12)
	dir=$CACHE/kbuild-$release-$key
	[ -e "$dir" ] || with_lock "kbuild-$1" kernel_make_kbuild "$dir" "$release" >&2
	printf '%s\n' "$dir"
}

kernel_make_kbuild() {
	local dir=$1 release=$2 log=$CACHE/kbuild-$2.log
	[ ! -e "$dir" ] || return 0
	say "making the Rust metadata of $release (about 2 minutes; log in $log)"
	if ! (toolbox_run /bin/bash "$TOOLBOX_LIB/kbuild.sh" "$release" "$dir.new") >"$log" 2>&1; then
		tail -n 15 "$log" >&2
		die "the Rust metadata of $release could not be made; the whole log is $log"
	fi
	mv "$dir.new" "$dir"
	say "$dir is ready"
}
