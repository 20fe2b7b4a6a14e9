# SPDX-License-Identifier: GPL-2.0
# What a person types. The kernel's build reads Kbuild, not this file.

TOOLBOX := tools/lab/toolbox
# The stock kernel's flavour that `make modules` builds for: cloud-amd64 or amd64. KDIR names another kernel's build directory.
FLAVOUR ?= cloud-amd64
# make test ONLY=GROUP runs one group of the tests.
ONLY ?=
# V=1 shows every command of the kernel's build.
V ?= 0

.PHONY: help setup modules tools lab demo test bench fuzz check deb clean
.DEFAULT_GOAL := help

help:
	@echo 'make setup      bring what the machine lacks into a tree under the cache directory (once, a few minutes)'
	@echo 'make demo       set up, boot two guests, move files between them through shared pages, show how fast'
	@echo 'make test       run all tests; ONLY=core|kunit|selftests|system|inet|zerocopy|packages runs one group'
	@echo 'make bench      measure FGDP beside TCP between the same two guests; results in build/bench'
	@echo 'make lab        boot two guests with FGDP and leave them running; then: tools/lab/lab exec a -- CMD'
	@echo 'make modules    build build/fgdp.ko for the stock kernel; FLAVOUR=cloud-amd64|amd64, or KDIR=DIR for another'
	@echo 'make tools      build the host programs into build/cargo/release'
	@echo 'make deb        build the Debian packages (module, daemon, tools, library) into build/deb'
	@echo 'make fuzz       fuzz everything that parses shared memory or control messages'
	@echo 'make check      style checks: rustfmt, clippy, checkpatch, where unsafe is allowed'
	@echo 'make clean      remove build/ (the cache stays: tools/lab/toolbox clean)'

setup:
	@$(TOOLBOX) setup
	@$(TOOLBOX) kbuild-dir $(FLAVOUR) >/dev/null

modules:
	@tools/lab/modules $(FLAVOUR) $(if $(KDIR),KDIR=$(KDIR)) V=$(V)

tools:
	@$(TOOLBOX) run cargo build --release --workspace

lab: modules
	@tools/lab/lab up

demo:
	@tests/demo

test:
	@tests/run $(ONLY)

bench:
	@tests/perf/run

fuzz:
	@tools/proto/fuzz/run

check:
	@tests/check

deb:
	@packaging/build

clean:
	rm -rf build
