// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Not written yet.
fn main() {}
