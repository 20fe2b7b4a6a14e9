# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# A machine as a new user has it: Debian with a kernel from backports and its headers, none of our tools. Packages are
# installed and tried in copies of it. What this file says is its key.

IMAGE_KERNEL=cloud-amd64
# What installing our packages brings in, and the kernel that an upgrade brings: downloaded, not installed.
IMAGE_DOWNLOADS="dkms rustc rust-src bindgen openssl mokutil pkgconf libc6-dev linux-source-7.2 linux-source-7.3"
IMAGE_NEXT_SERIES=7.3

image_key() {
	{ cat "$TOOLBOX_LIB/image.sh"; toolbox_key; } | sha256sum | cut -c1-12
}

image_dir() {
	local dir
	dir=$CACHE/image-$(image_key)
	[ -e "$dir" ] || with_lock image image_make "$dir" >&2
	printf '%s\n' "$dir"
}

image_make() {
	local dir=$1 release log=$CACHE/image.log
	[ ! -e "$dir" ] || return 0
	release=$(kernel_release "$IMAGE_KERNEL")
	say "making an image of Debian with linux $release (about 2 minutes; log in $log)"
	setup_host_tools
	check_namespace
	(enter_namespace rm -rf "$dir.new")
	(
		enter_namespace /bin/bash -c '. "$1/common.sh"; . "$1/setup.sh"; . "$1/image.sh"; TOOLBOX_LIB=$1; image_tree "$2" "$3"' \
			image "$TOOLBOX_LIB" "$dir.new" "$release"
	) >"$log" 2>&1 || die "the image was not made: $(tail -n 1 "$log"); the whole log is $log"
	mv "$dir.new" "$dir"
	say "$dir is ready"
}

# Runs as root of the namespace.
image_tree() {
	local tree=$1 release=$2 next
	set -euo pipefail
	export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	mmdebstrap --mode=root --variant=important --skip=check/empty,cleanup/apt --dpkgopt=force-unsafe-io "$SUITE" "$tree" - <<-END
		deb $MIRROR $SUITE main
		deb $MIRROR $SUITE-updates main
		deb $SECURITY $SUITE-security main
		deb $MIRROR $SUITE-backports main
	END
	image_in() { unshare --mount --propagation private /bin/bash "$TOOLBOX_LIB/enter.sh" "$tree" / / / rw "$@"; }
	image_in apt-get update
	image_in apt-get install -y -t "$SUITE-backports" "linux-image-$release" "linux-headers-$release"
	next=$(image_in apt-cache pkgnames "linux-headers-$IMAGE_NEXT_SERIES." | sed -n "s/^linux-headers-\(.*-$IMAGE_KERNEL\)$/\1/p" | sort -V | tail -n 1)
	# shellcheck disable=SC2086 # several packages
	image_in apt-get install -y --download-only $IMAGE_DOWNLOADS
	image_in apt-get install -y --download-only -t "$SUITE-backports" "linux-image-$next" "linux-headers-$next"
	printf 'KERNEL=%s\nNEXT_KERNEL=%s\n' "$release" "$next" >"$tree/etc/fgdp-image"
}
