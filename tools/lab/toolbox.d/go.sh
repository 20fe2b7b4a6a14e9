# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Go's own tests of its packages, compiled. What this file says is their key.

GO_VERSION=1.24
GO_PACKAGES="net net/http net/rpc net/smtp net/textproto"

go_key() {
	{ cat "$TOOLBOX_LIB/go.sh"; toolbox_key; } | sha256sum | cut -c1-12
}

go_tests_dir() {
	local dir
	dir=$CACHE/go-$(go_key)
	[ -e "$dir" ] || with_lock go go_make_tests "$dir" >&2
	printf '%s\n' "$dir"
}

# The compiler has a layer of its own, as it is too big for the guests', and goes when it has done its work.
go_make_tests() {
	local dir=$1 new=$1.new log=$CACHE/go.log root package
	[ ! -e "$dir" ] || return 0
	say "installing Go $GO_VERSION (log in $log)"
	root=$new/layer/usr/lib/go-$GO_VERSION
	(enter_namespace rm -rf "$new")
	mkdir -p "$new"
	(toolbox_run unshare --mount --propagation private -- bash "$TOOLBOX_LIB/../apt-layer" "$new/layer" "golang-$GO_VERSION-go") >"$log" 2>&1 ||
		die "Go was not installed: $(tail -n 1 "$log")"
	for package in $GO_PACKAGES; do
		say "building the tests of Go's $package"
		(toolbox_run nice env GOROOT="$root" GOCACHE="$new/cache" GOPATH="$new/path" GOTOOLCHAIN=local CGO_ENABLED=0 \
			"$root/bin/go" test -c -o "$new/${package//\//-}.test" "$package") >>"$log" 2>&1 ||
			die "the tests of $package were not built; the whole log is $log"
	done
	# They want their package's directory around them.
	cp -r "$new/layer/usr/share/go-$GO_VERSION/src"/{net,testdata} "$new/"
	(enter_namespace rm -rf "$new"/{layer,layer.work,layer.root,layer.log,cache,path})
	mv "$new" "$dir"
	say "$dir is ready"
}
