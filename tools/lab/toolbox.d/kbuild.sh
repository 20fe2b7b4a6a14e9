#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# kbuild.sh RELEASE DIR: runs in the tree. Debian's kernel headers have no Rust metadata; this makes DIR from the headers,
# adds rust/ of the same source, and compiles it as the kernel's own build did. Modules are then built with `make -C DIR M=...`.
set -euo pipefail
release=$1 dir=$2
. /etc/fgdp-toolbox
headers=/usr/src/linux-headers-$KERNEL_RELEASE
flavour=/usr/src/linux-headers-$release
source=/usr/src/linux-source-$KERNEL_SERIES
prefix=${source##*/}

rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"
cp -r "$headers-common/Makefile" "$headers-common/include" .
mkdir arch
cp -r "$headers-common/arch/x86" arch/
cp -r "/usr/lib/linux-kbuild-$KERNEL_RELEASE/scripts" "/usr/lib/linux-kbuild-$KERNEL_RELEASE/tools" .
cp -r "$flavour/include/." include/
cp -r "$flavour/arch/." arch/
cp "$flavour/.config" "$flavour/.kernelvariables" "$flavour/Module.symvers" "$flavour/vmlinux" .
tar -xf "$source.tar.xz" --strip-components=1 --wildcards \
	"$prefix/rust" "$prefix/drivers/base/base.h" "$prefix/.rustfmt.toml" "$prefix/.clippy.toml" \
	"$prefix/scripts/*rust*" "$prefix/scripts/checkpatch.pl" "$prefix/scripts/spelling.txt" "$prefix/scripts/const_structs.checkpatch"

# Newer than .config, or make would want to run a configuration program that the headers do not have.
touch include/config/auto.conf include/config/auto.conf.cmd include/generated/autoconf.h include/generated/rustc_cfg
sed -i 's/^endif # need-sub-make$/PHONY += rustmeta\nrustmeta:\n\t$(Q)$(MAKE) $(build)=rust\n\n&/' Makefile
RUSTC_BOOTSTRAP=1 rustc --edition=2021 -O -o scripts/generate_rust_target scripts/generate_rust_target.rs
scripts/generate_rust_target <include/config/auto.conf >scripts/target.json
make -j"$(nproc)" CC=x86_64-linux-gnu-gcc-14 HOSTCC=x86_64-linux-gnu-gcc-14 rustmeta

# The proof that these are the running kernel's symbols: each one exported here is exported there.
missing=$(sed -n 's/^EXPORT_SYMBOL_RUST_GPL(\(.*\));$/\1/p' rust/exports_*_generated.h | sort -u |
	comm -23 - <(cut -f2 Module.symvers | sort -u))
if [ -n "$missing" ]; then
	echo "symbols that $release does not export: $(wc -l <<<"$missing"), such as $(head -1 <<<"$missing")"
	exit 1
fi
rm -f rust/*.o
