# SPDX-License-Identifier: Apache-2.0 OR MIT
# Group packages: the module is built as a part of the kernel's source. The Debian packages are built twice to the same bytes,
# installed in a copy of a machine as a new user has it, upgraded and removed in guests that are booted from that copy. Sourced by
# tests/run.

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

packages_results() { # packages_results LOG: its lines "ok NAME" and "not ok NAME"
	local line seen=0
	while IFS= read -r line; do
		case $line in
		'ok '*) pass "packages-${line#ok }" ;;
		'not ok '*) fail "packages-${line#not ok }" "see $1" ;;
		*) continue ;;
		esac
		seen=$((seen + 1))
	done <"$1"
	[ $seen -gt 0 ] || fail packages "no result: $(tail -n 1 "$1") (see $1)"
}

# In the copy: tests/packages/install and what else runs there. Each prints "ok NAME" or "not ok NAME: WHY".
packages_in_image() { # packages_in_image SCRIPT ARGUMENTS
	local script=$1 log=$package_out/$1.log
	shift
	cp "$checkout/tests/packages/$script" "$package_out/copy/"
	if ! in_image bash "/changes/$script" "$@" >"$log" 2>&1; then
		fail "packages-$script" "$(tail -n 1 "$log") (see $log)"
		return 1
	fi
	packages_results "$log"
}

# The Rust metadata is kept for the next run: the package itself looks whether it still fits.
packages_install() {
	local kept=${XDG_CACHE_HOME:-$HOME/.cache}/fgdp/dkms-metadata copy=$package_out/copy
	progress "packages: install in a copy of $image"
	"$toolbox" run rm -rf "$copy"
	mkdir -p "$copy/upper/var/cache" "$kept"
	cp -r "$kept" "$copy/upper/var/cache/fgdp-dkms"
	cp "$debs"/*.deb "$copy/"
	packages_in_image install && packages_in_image next || return
	cp -r -T "$copy/upper/var/cache/fgdp-dkms" "$kept"
}

# The tests that the source package has for autopkgtest.
packages_autopkgtest() {
	local name log
	for name in $(sed -n 's/^Tests: //p' "$checkout/packaging/debian/tests/control"); do
		log=$package_out/autopkgtest-$name.log
		cp "$checkout/packaging/debian/tests/$name" "$package_out/copy/autopkgtest-$name"
		if in_image bash "/changes/autopkgtest-$name" >"$log" 2>&1; then
			pass "packages-autopkgtest-$name"
		else
			fail "packages-autopkgtest-$name" "$(tail -n 1 "$log") (see $log)"
		fi
	done
}

packages_guests() {
	local script=$checkout/tests/packages/guests status=0
	# Emulated, AppArmor takes minutes to compile its profiles.
	local append="apparmor=0 systemd.show_status=0 systemd.mask=apt-daily.timer systemd.mask=apt-daily-upgrade.timer systemd.mask=man-db.timer"
	progress "packages: boot two guests from the copy"
	if ! "$toolbox" run env -C "$checkout" cargo build --release --locked --workspace >"$package_out/lab.log" 2>&1; then
		fail packages-guests "$(grep -m 1 -E '^error' "$package_out/lab.log") (see $package_out/lab.log)"
		return
	fi
	if ! lab_up --guests 2 --mem 1536 --no-insmod --no-build --append "$append" --tree "$image" --layer "$package_out/copy/upper" --timeout 400 \
		--image "$image/boot/vmlinuz-$(. "$image/etc/fgdp-image" && echo "$KERNEL")"; then
		fail packages-guests "the lab does not come up (see $out/lab-up.log)"
		lab_down
		return
	fi
	timeout 3000 "$script" "$package_out/copy/next" >"$package_out/guests.log" 2>&1 || status=$?
	sed 's/^/  /' "$package_out/guests.log"
	if [ $status = 0 ]; then
		pass packages-guests
	else
		fail packages-guests "$(tail -n 1 "$package_out/guests.log") (see $package_out/guests.log)"
	fi
	scan_logs packages a b || fail packages-logs "trouble in the kernel logs"
	lab_down
}

# The module as a part of the kernel's source: the kernel with its own checks is there, built.
packages_in_tree() {
	local source build log=$package_out/in-tree.log changes=$package_out/in-tree
	progress "packages: build in the kernel's source"
	source=$("$toolbox" linux-source) && build=$("$toolbox" debug-kernel) || { fail packages-in-tree "no kernel"; return; }
	if ! "$toolbox" run env GIT_{AUTHOR,COMMITTER}_NAME=FGDP GIT_{AUTHOR,COMMITTER}_EMAIL=tests@fgdp.invalid "$checkout/packaging/in-tree" "$source" "$package_out/series" >"$log" 2>&1; then
		fail packages-in-tree-series "$(tail -n 1 "$log")"
		return
	fi
	pass packages-in-tree-series
	"$toolbox" run rm -rf "$changes"
	mkdir -p "$changes"
	"$toolbox" run unshare --mount --propagation private -- bash "$checkout/tests/packages/in-tree" "$source" "$build" "$package_out/series" "$changes" >"$log" 2>&1 || :
	packages_results "$log"
	[ -e "$changes/fgdp.ko" ] || return 0
	if timeout 600 "$checkout/tests/kunit/run" "$changes/fgdp.ko" >"$package_out/in-tree-kunit.log" 2>&1; then
		pass "packages-in-tree-kunit ($(tail -n 1 "$package_out/in-tree-kunit.log"))"
	else
		fail packages-in-tree-kunit "see $package_out/in-tree-kunit.log"
	fi
}

group_packages() {
	mkdir -p "$package_out"
	packages_in_tree
	packages_build || return
	image=$("$toolbox" image) || { fail packages-image "not made"; return; }
	packages_install || return
	packages_autopkgtest
	packages_guests
}
