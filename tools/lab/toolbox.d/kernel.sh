# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# The stock kernel: its release, its source, and a directory to build Rust modules against. The debug kernel: the same source.

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
kernel_kbuild_key() {
	{ cat "$TOOLBOX_LIB/kbuild.sh"; toolbox_key; } | sha256sum | cut -c1-12
}

kernel_kbuild_dir() {
	local dir release
	release=$(kernel_release "$1")
	dir=$CACHE/kbuild-$release-$(kernel_kbuild_key)
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

# The build directory of the debug kernel, keyed by its source and by how it is made.
kernel_debug_key() {
	{ cat "$TOOLBOX_LIB/debug-kernel.sh" "$TOOLBOX_LIB/../kernel/debug.config"; toolbox_key; } | sha256sum | cut -c1-12
}

kernel_debug_dir() {
	local source dir
	source=$(kernel_source_dir)
	dir=$CACHE/debug-${source##*-}-$(kernel_debug_key)
	[ -e "$dir/ready" ] || with_lock debug-kernel kernel_make_debug "$source" "$dir" >&2
	printf '%s\n' "$dir"
}

# Built where it stays: the directory's path is in its files.
kernel_make_debug() {
	local source=$1 dir=$2 log=$CACHE/debug-kernel.log start=$SECONDS pid lines
	[ ! -e "$dir/ready" ] || return 0
	say "building the debug kernel (10 to 20 minutes on 2 cores; log in $log)"
	(toolbox_run nice -n 19 /bin/bash "$TOOLBOX_LIB/debug-kernel.sh" "$source" "$TOOLBOX_LIB/../kernel/debug.config" "$dir") >"$log" 2>&1 &
	pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		if [ $(((SECONDS - start) % 60)) = 59 ]; then
			lines=$(grep -cE '^  [A-Z]' "$log" || :)
			say "debug kernel: $lines files so far, now$(tail -n 1 "$log" | tr -s ' ')"
		fi
	done
	if ! wait "$pid"; then
		grep -m 5 -E 'error|Error|does not take|\*\*\*' "$log" >&2 || tail -n 15 "$log" >&2
		die "the debug kernel was not built; the whole log is $log"
	fi
	: >"$dir/ready"
	say "$dir is ready"
}
