# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Making the tree. What this file and `packages` say is the tree's key.

SUITE=trixie
MIRROR=http://deb.debian.org/debian
SECURITY=http://deb.debian.org/debian-security
# The kernel series FGDP is made for; the newest complete version of it is taken.
KERNEL_SERIES=7.2
FLAVOURS="cloud-amd64 amd64"

toolbox_setup() {
	toolbox_is_native && return
	[ -z "${FGDP_TOOLBOX-}" ] || die "FGDP_TOOLBOX=$FGDP_TOOLBOX is not a toolbox tree: unset it"
	[ "$(uname -m)" = x86_64 ] || die "FGDP needs an x86-64 machine; this is $(uname -m)"
	with_lock toolbox setup_locked
}

setup_locked() {
	local tree build
	tree=$(toolbox_path)
	if [ -e "$tree/etc/fgdp-toolbox" ]; then
		say "$tree is ready"
		return
	fi
	setup_host_tools
	check_namespace
	[ "$(df --output=avail -k "$CACHE" | tail -1)" -gt 6000000 ] ||
		die "less than 6 GB free in $CACHE: free some, or set XDG_CACHE_HOME to a larger file system"
	build=$tree.new
	say "making $tree (about 4 minutes; log in $CACHE/setup.log)"
	(
		enter_namespace /bin/bash -c '. "$1/common.sh"; . "$1/setup.sh"; TOOLBOX_LIB=$1 CACHE=$2 SECONDS=$4; setup_tree "$3"' \
			setup "$TOOLBOX_LIB" "$CACHE" "$build" "$SECONDS"
	) || setup_failed
	mv "$build" "$tree"
	say "$tree is ready"
}

setup_failed() {
	tail -n 15 "$CACHE/setup.log" >&2
	if grep -q NO_PUBKEY "$CACHE/setup.log"; then
		die "this machine does not know the keys of Debian 13: run 'sudo apt-get update && sudo apt-get install -y debian-archive-keyring' and try again"
	fi
	die "the tree could not be made; the whole log is $CACHE/setup.log"
}

setup_host_tools() {
	local sudo=
	command -v mmdebstrap >/dev/null && return
	[ "$(id -u)" = 0 ] || sudo='sudo -n'
	say "installing mmdebstrap"
	if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends mmdebstrap debian-archive-keyring; } >"$CACHE/setup.log" 2>&1; then
		die "mmdebstrap is missing: run 'sudo apt-get update && sudo apt-get install -y mmdebstrap debian-archive-keyring'"
	fi
}

# Runs as root of the namespace.
setup_tree() {
	local tree=$1 list
	set -euo pipefail
	export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
	exec 3>&2 >"$CACHE/setup.log" 2>&1
	say() { printf 'toolbox: [%3ds] %s\n' "$SECONDS" "$*" >&3; }
	rm -rf "$tree"
	mkdir -p "$CACHE/debs"

	say "base system ($SUITE)"
	list="deb $MIRROR $SUITE main
deb $MIRROR $SUITE-updates main
deb $SECURITY $SUITE-security main
deb $MIRROR $SUITE-backports main"
	mmdebstrap --mode=root --variant=apt --skip=check/empty,cleanup/apt \
		--dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--aptopt='APT::Install-Recommends "false"' \
		"$SUITE" "$tree" - <<<"$list"
	# Downloads survive a failed or a later set-up.
	mount --bind "$CACHE/debs" "$tree/var/cache/apt/archives"
	mkdir -p "$CACHE/debs/partial"

	inside() { unshare --mount --propagation private /bin/bash "$TOOLBOX_LIB/enter.sh" "$tree" / / / rw "$@"; }
	inside apt-get update

	setup_choose_kernel
	say "kernel $KERNEL_RELEASE, QEMU"
	inside apt-get install -y -t "$SUITE-backports" $(setup_packages "$SUITE-backports") $KERNEL_PACKAGES
	say "compilers and tools"
	inside apt-get install -y $(setup_packages "$SUITE")
	umount "$tree/var/cache/apt/archives"
	rm -rf "$tree"/boot/initrd.img-* "$tree"/var/lib/apt/lists/*
	say "module lists"
	for flavour in $FLAVOURS; do
		inside depmod "$KERNEL_RELEASE-$flavour"
	done
	mkdir -p "$tree/tmp" "$tree/var/tmp" "$tree/run" "$tree/mnt"
	printf 'KERNEL_SERIES=%s\nKERNEL_RELEASE=%s\nKERNEL_DEB=%s\n' "$KERNEL_SERIES" "$KERNEL_RELEASE" "$KERNEL_DEB" >"$tree/etc/fgdp-toolbox"
}

setup_packages() {
	awk -v suite="$1" '$1 == suite { print $2 }' "$TOOLBOX_LIB/packages"
}

# The newest version of which image, modules, headers, source and configuration all exist.
# Sets KERNEL_RELEASE (7.2.12+deb13), KERNEL_DEB (Debian version) and KERNEL_PACKAGES (with versions).
setup_choose_kernel() {
	local release deb flavour package known
	known=$(inside apt-cache madison "linux-source-$KERNEL_SERIES" "linux-config-$KERNEL_SERIES" | tr -d ' ' | cut -d'|' -f1,2)
	for release in $(inside apt-cache pkgnames "linux-headers-$KERNEL_SERIES." |
		sed -n 's/^linux-headers-\(.*\)-cloud-amd64$/\1/p' | sort -rV); do
		deb=$(inside apt-cache madison "linux-headers-$release-cloud-amd64" | tr -d ' ' | cut -d'|' -f2 | head -1)
		KERNEL_PACKAGES="linux-source-$KERNEL_SERIES=$deb linux-config-$KERNEL_SERIES=$deb"
		for package in $KERNEL_PACKAGES; do
			grep -qxF "${package/=/|}" <<<"$known" || continue 2
		done
		for flavour in $FLAVOURS; do
			for package in linux-headers linux-binary linux-modules; do
				inside apt-cache show "$package-$release-$flavour=$deb" >/dev/null || continue 3
				KERNEL_PACKAGES+=" $package-$release-$flavour=$deb"
			done
		done
		KERNEL_RELEASE=$release KERNEL_DEB=$deb
		return
	done
	say "no version of linux $KERNEL_SERIES has image, headers, source and configuration in $SUITE-backports"
	return 1
}

toolbox_clean() {
	local keep entry
	keep=$(toolbox_path)
	for entry in "$CACHE"/toolbox-* "$CACHE"/kbuild-* "$CACHE"/guest-*; do
		[ -e "$entry" ] || continue
		case $entry in
		"$keep" | *"-$(toolbox_key)") continue ;;
		esac
		say "removing $entry"
		(enter_namespace rm -rf "$entry")
	done
}
