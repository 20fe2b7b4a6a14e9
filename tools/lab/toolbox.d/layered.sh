#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# layered.sh LAYER CWD CHECKOUT CACHE CMD...: runs in the tree, as root of a private mount namespace. Runs CMD in the tree with
# LAYER above it.
set -euo pipefail
layer=$1 cwd=$2 checkout=$3 cache=$4
shift 4
root=/mnt
mount -t overlay -o "ro,lowerdir=$layer:/" layered "$root" 2>/dev/null ||
	mount -t overlay -o "ro,userxattr,lowerdir=$layer:/" layered "$root"
for dir in /proc /sys /dev /tmp /var/tmp /run "$cache" "$checkout"; do
	[ -d "$root$dir" ] || continue
	mount --rbind "$dir" "$root$dir"
done
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
exec chroot "$root" /usr/bin/env -C "$cwd" -- "$@"
