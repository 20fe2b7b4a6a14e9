#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# enter.sh TREE CHECKOUT CACHE CWD ro|rw CMD...: called as root of a private mount namespace; runs CMD in TREE.
set -euo pipefail
tree=$1 checkout=$2 cache=$3 cwd=$4 mode=$5
shift 5

bind() { # bind FLAG SOURCE: at the same path inside the tree
	[ -e "$tree$2" ] || mkdir -p "$tree$2"
	mount "$1" "$2" "$tree$2"
}

mount --bind "$tree" "$tree"
for dir in /proc /sys /dev; do
	bind --rbind "$dir"
done
if [ "$mode" = ro ]; then
	# Directories to mount on must exist before the tree becomes read-only.
	for dir in /tmp /var/tmp /run; do
		bind --rbind "$dir"
	done
	for dir in "$cache" "$checkout"; do
		case $dir/ in
		/tmp/* | /var/tmp/* | /run/*) ;;
		*) bind --bind "$dir" ;;
		esac
	done
	# The host's certificates, so that a site's own authority is trusted inside as well.
	if [ -s /etc/ssl/certs/ca-certificates.crt ] && [ -e "$tree/etc/ssl/certs/ca-certificates.crt" ]; then
		mount --bind /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
	fi
fi
for file in /etc/resolv.conf /etc/hosts; do
	if [ -e "$file" ]; then
		[ -e "$tree$file" ] || : >"$tree$file"
		mount --bind "$(readlink -f "$file")" "$tree$file"
	fi
done
if [ "$mode" = ro ]; then
	# Refused where the file system carries flags that a user namespace may not touch; the tree then stays writable.
	mount -o remount,bind,ro "$tree" 2>/dev/null || :
fi
[ -d "$tree$cwd" ] || cwd=$checkout
[ -d "$tree$cwd" ] || cwd=/
exec chroot "$tree" /usr/bin/env -C "$cwd" -- "$@"
