#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# debug-kernel.sh SOURCE FRAGMENT DIR: runs in the tree. Builds in DIR the kernel that FRAGMENT describes.
set -euo pipefail
source=$1 fragment=$2 dir=$3

rm -rf "$dir"
mkdir -p "$dir"
build() {
	make -C "$source" O="$dir" ARCH=x86_64 CC=x86_64-linux-gnu-gcc-14 HOSTCC=x86_64-linux-gnu-gcc-14 \
		KBUILD_BUILD_USER=fgdp KBUILD_BUILD_HOST=lab -j"$(nproc)" "$@"
}
build KCONFIG_ALLCONFIG="$fragment" allnoconfig

# Kconfig drops silently what something else excludes.
missing=()
while IFS= read -r line; do
	option=${line%%=*}
	case $line in
	CONFIG_*=n) ! grep -q "^$option=" "$dir/.config" || missing+=("$line") ;;
	CONFIG_*) grep -qxF "$line" "$dir/.config" || missing+=("$line") ;;
	esac
done <"$fragment"
if [ ${#missing[@]} != 0 ]; then
	echo "the configuration does not take: ${missing[*]}"
	case " ${missing[*]} " in
	*" CONFIG_RUST=y "*) build rustavailable || : ;;
	esac
	exit 1
fi
build bzImage modules
