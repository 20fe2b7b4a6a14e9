// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives the shared library the name by which programs ask for it: another one when its interface is another.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libfgdp.so.0");
}
