// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The clauses of `Documentation/protocol.rst`, one test or more each: a test's
//! name begins with its clause.
#![cfg(not(loom))]
#![allow(missing_docs)]

mod accepted;
mod basics;
mod carried;
mod carried_grants;
mod channel;
mod frames;
mod grant_head;
mod grants;
mod header;
mod host;
mod hostile;
mod ids;
mod lanes;
mod memory;
mod messages;
mod pool;
mod records;
mod rounds;
mod streams;
mod tcp;
mod violations;

/// `n` cases, or as many as PROPTEST_CASES says.
fn cases(n: u32) -> proptest::test_runner::Config {
    let given = std::env::var("PROPTEST_CASES").ok();
    proptest::test_runner::Config {
        cases: given.and_then(|v| v.parse().ok()).unwrap_or(n),
        failure_persistence: None,
        ..Default::default()
    }
}
