# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group packages: the Debian packages are built twice to the same bytes, and installed in a copy of a machine as a new user has it.
# Sourced by tests/run.

debs=$checkout/build/deb
package_out=$out/packages

in_packaging() { "$toolbox" packaging -- env -C "$checkout" "$@"; }

in_image() { # in_image CMD...: in the copy of the machine
	"$toolbox" run unshare --mount --propagation private -- bash "$checkout/tests/packages/enter" "$image" "$package_out/copy" "$@"
}

package_sums() { (cd "$1" && sha256sum ./*.deb); }

packages_build() {
	local start=$SECONDS
	progress "packages: build"
	if ! "$checkout/packaging/build" >"$package_out/build.log" 2>&1; then
		fail packages-build "$(tail -n 1 "$package_out/build.log")"
		return 1
	fi
	pass "packages-build ($((SECONDS - start)) s)"
	start=$SECONDS
	# Another place, other objects: nothing of the first build but what git has.
	if ! "$checkout/packaging/build" "$package_out/again" "${XDG_CACHE_HOME:-$HOME/.cache}/fgdp/deb-again" >"$package_out/build-again.log" 2>&1; then
		fail packages-reproducible "$(tail -n 1 "$package_out/build-again.log")"
	elif ! diff <(package_sums "$debs") <(package_sums "$package_out/again") >"$package_out/differ.log"; then
		fail packages-reproducible "a second build is another one (see $package_out/differ.log)"
	else
		pass "packages-reproducible ($((SECONDS - start)) s)"
	fi
	if in_packaging lintian --fail-on error,warning --tag-display-limit 0 "$debs"/fgdp_*.changes >"$package_out/lintian.log" 2>&1; then
		pass packages-lintian
	else
		fail packages-lintian "$(grep -m 1 -E '^[EW]:' "$package_out/lintian.log") (see $package_out/lintian.log)"
	fi
}

# In the copy: tests/packages/install and what else runs there. Each prints "ok NAME" or "not ok NAME: WHY".
packages_in_image() { # packages_in_image SCRIPT ARGUMENTS
	local script=$1 line log=$package_out/$1.log
	shift
	cp "$checkout/tests/packages/$script" "$package_out/copy/"
	if ! in_image bash "/changes/$script" "$@" >"$log" 2>&1; then
		fail "packages-$script" "$(tail -n 1 "$log") (see $log)"
		return 1
	fi
	while IFS= read -r line; do
		case $line in
		'ok '*) pass "packages-${line#ok }" ;;
		'not ok '*) fail "packages-${line#not ok }" "see $log" ;;
		esac
	done <"$log"
}

# The Rust metadata is kept for the next run: the package itself looks whether it still fits.
packages_install() {
	local kept=${XDG_CACHE_HOME:-$HOME/.cache}/fgdp/dkms-metadata copy=$package_out/copy
	progress "packages: install in a copy of $image"
	"$toolbox" run rm -rf "$copy"
	mkdir -p "$copy/upper/var/cache" "$kept"
	cp -r "$kept" "$copy/upper/var/cache/fgdp-dkms"
	cp "$debs"/*.deb "$copy/"
	packages_in_image install || return
	cp -r -T "$copy/upper/var/cache/fgdp-dkms" "$kept"
}

group_packages() {
	mkdir -p "$package_out"
	packages_build || return
	image=$("$toolbox" image) || { fail packages-image "not made"; return; }
	packages_install
}
