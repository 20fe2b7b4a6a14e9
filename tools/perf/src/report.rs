// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was seen, as lines of JSON.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use crate::drain::Arrived;
use crate::job::Mode;

/// A moment that an observer may want to know.
#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "event")]
pub enum Event<'a> {
    Ready,
    Start,
    End,
    Result(&'a Report),
}

/// Prints `event`, at once.
pub fn tell(event: &Event<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, event)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// One measurement.
#[derive(Serialize)]
pub struct Report {
    /// tcp, unix, fgdp or shm.
    pub path: &'static str,
    pub mode: Mode,
    pub size: u32,
    pub busy_poll_usec: u32,
    pub seconds: f64,
    /// Bytes that arrived (one direction).
    pub bytes: u64,
    /// Writes, round trips or connections.
    pub ops: u64,
    /// Of one round trip or connection; none for a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<Latency>,
    /// Of a stream, with its warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Arrived>,
    pub cpu: Cpu,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu: Option<Cpu>,
}

/// Time on the CPU of this process.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Cpu {
    pub user_us: i64,
    pub system_us: i64,
    pub voluntary_switches: i64,
    pub involuntary_switches: i64,
}

impl Cpu {
    /// Until now.
    pub fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self {
            user_us: usage.user_time().num_microseconds(),
            system_us: usage.system_time().num_microseconds(),
            voluntary_switches: usage.voluntary_context_switches(),
            involuntary_switches: usage.involuntary_context_switches(),
        })
    }

    /// From `start` to now.
    pub fn since(start: Self) -> Result<Self> {
        let now = Self::now()?;
        Ok(Self {
            user_us: now.user_us - start.user_us,
            system_us: now.system_us - start.system_us,
            voluntary_switches: now.voluntary_switches - start.voluntary_switches,
            involuntary_switches: now.involuntary_switches - start.involuntary_switches,
        })
    }

    /// As four little-endian numbers.
    pub fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let words = [
            self.user_us,
            self.system_us,
            self.voluntary_switches,
            self.involuntary_switches,
        ];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reverse of [`Cpu::encode`].
    pub fn decode(bytes: &[u8; 32]) -> Self {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
            i64::from_le_bytes(word)
        };
        Self {
            user_us: word(0),
            system_us: word(1),
            voluntary_switches: word(2),
            involuntary_switches: word(3),
        }
    }
}

/// How long single operations took, in nanoseconds.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub min: u32,
    pub p50: u32,
    pub p90: u32,
    pub p99: u32,
    pub max: u32,
}

/// Times of single operations.
#[derive(Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Room for some, so that growing does not disturb the first ones.
    pub fn new() -> Self {
        Self(Vec::with_capacity(1 << 20))
    }

    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0
            .push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Their distribution; none without samples.
    pub fn latency(mut self) -> Option<Latency> {
        self.0.sort_unstable();
        let last = self.0.len().checked_sub(1)?;
        let at = |percent: usize| self.0[last * percent / 100];
        Some(Latency {
            min: at(0),
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_and_one() {
        let mut samples = Samples::default();
        for n in (0..=100).rev() {
            samples.add(Duration::from_nanos(n));
        }
        let want = Latency {
            min: 0,
            p50: 50,
            p90: 90,
            p99: 99,
            max: 100,
        };
        assert_eq!(samples.latency(), Some(want));
    }

    #[test]
    fn no_samples_no_latency() {
        assert_eq!(Samples::default().latency(), None);
    }

    #[test]
    fn cpu_survives_the_wire() {
        let cpu = Cpu {
            user_us: 1,
            system_us: -2,
            voluntary_switches: 3,
            involuntary_switches: 1 << 40,
        };
        let back = Cpu::decode(&cpu.encode());
        assert_eq!(back.encode(), cpu.encode());
        assert_eq!(back.involuntary_switches, 1 << 40);
    }
}
