// SPDX-License-Identifier: GPL-2.0 OR MIT
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fgdp_proto_fuzz::z_5_grant(data));
