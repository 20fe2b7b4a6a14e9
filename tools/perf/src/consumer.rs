// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the receiver of a stream does with the bytes.

use std::hint::black_box;

use crate::pages::Pages;

/// Bytes of which one is read or written.
const LINE: usize = 64;

/// Who gets the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// Looks at nothing.
    Blind,
    /// Reads each line.
    Reader,
    /// Reads and writes each line.
    Writer,
}

impl Consumer {
    /// The one that `pages` asks for.
    pub fn of(pages: Pages) -> Self {
        match pages {
            Pages { write: true, .. } => Self::Writer,
            Pages { look: true, .. } => Self::Reader,
            _ => Self::Blind,
        }
    }

    /// Consumes bytes that may be written.
    pub fn consume(self, bytes: &mut [u8]) {
        match self {
            Self::Blind => {}
            Self::Reader => read(bytes),
            Self::Writer => write(bytes),
        }
    }
}

/// Reads each line.
pub fn read(bytes: &[u8]) {
    let lines = bytes.iter().step_by(LINE);
    black_box(lines.fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
}

fn write(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().step_by(LINE) {
        *byte = byte.wrapping_add(1);
    }
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_writes_to_each_line_once() {
        let mut bytes = [7; 2 * LINE + 1];
        Consumer::Writer.consume(&mut bytes);
        let written = bytes.iter().enumerate().filter(|(_, byte)| **byte == 8);
        let places: Vec<usize> = written.map(|(at, _)| at).collect();
        assert_eq!(places, [0, LINE, 2 * LINE]);
    }

    #[test]
    fn others_write_nothing() {
        let mut bytes = [7; 3 * LINE];
        Consumer::Blind.consume(&mut bytes);
        Consumer::Reader.consume(&mut bytes);
        assert_eq!(bytes, [7; 3 * LINE]);
    }
}
