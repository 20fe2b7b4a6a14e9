# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Running a command inside the tree.

# enter_namespace CMD...: CMD becomes root of a private mount namespace, and of a user namespace when we are not root.
enter_namespace() {
	if [ "$(id -u)" = 0 ]; then
		exec unshare --mount --propagation private -- "$@"
	fi
	exec unshare --user --map-root-user --map-auto --mount --propagation private -- "$@"
}

# Says, in one line, why namespaces cannot be used here.
check_namespace() {
	local user
	user=$(id -un 2>/dev/null || id -u)
	if [ "$(id -u)" = 0 ]; then
		unshare --mount true 2>/dev/null ||
			die "root may not mount here (a container without CAP_SYS_ADMIN?): run as an ordinary user or in a privileged container"
		return
	fi
	command -v newuidmap >/dev/null ||
		die "newuidmap is missing: run 'sudo apt-get install -y uidmap'"
	grep -qE "^($user|$(id -u)):" /etc/subuid 2>/dev/null && grep -qE "^($user|$(id -u)):" /etc/subgid 2>/dev/null ||
		die "no subordinate ids for $user: run 'sudo usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 $user'"
	unshare --user --map-root-user --map-auto --mount true 2>/dev/null ||
		die "unprivileged user namespaces are off: run 'sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000' (with AppArmor also kernel.apparmor_restrict_unprivileged_userns=0)"
}

toolbox_run() {
	local cwd=$PWD cache_home=${XDG_CACHE_HOME:-$HOME/.cache}
	# What describes the host's own tools must not reach the tree's.
	unset LD_LIBRARY_PATH LD_PRELOAD PYTHONHOME PYTHONPATH PERL5LIB RUSTUP_HOME RUSTUP_TOOLCHAIN \
		RUSTC RUSTC_WRAPPER RUSTFLAGS CC CXX LD BASH_ENV ENV CDPATH
	if toolbox_is_native; then
		exec "$@"
	fi
	check_namespace
	mkdir -p "$CACHE/home" "$CACHE/cargo"
	# The user's registry settings (a mirror, a proxy) hold inside too.
	if [ -f "${CARGO_HOME:-$HOME/.cargo}/config.toml" ] && [ ! "${CARGO_HOME:-$HOME/.cargo}" -ef "$CACHE/cargo" ]; then
		cp -u "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$CACHE/cargo/config.toml"
	fi
	export XDG_CACHE_HOME=$cache_home HOME=$CACHE/home CARGO_HOME=$CACHE/cargo
	export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 LC_ALL=C.UTF-8
	enter_namespace /bin/bash "$TOOLBOX_LIB/enter.sh" "$(toolbox_path)" "$CHECKOUT" "$CACHE" "$cwd" ro "$@"
}
