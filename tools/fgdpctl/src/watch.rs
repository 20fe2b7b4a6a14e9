// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same look again and again.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::source::Source;
use crate::view::{self, Before};
use crate::{print, What};

/// To the first place, and everything after it cleared: no flicker, no scrolling.
const HOME: &str = "\x1b[H\x1b[J";

/// Shows `what` every `interval` seconds, `count` times or until interrupted. In JSON, each look is a line.
///
/// # Errors
///
/// When the source cannot be read the first time. Later that is shown, and tried again: modules are
/// loaded and daemons started while one watches.
pub fn run(
    source: &Source,
    what: What,
    interval: f64,
    count: Option<u64>,
    json: bool,
) -> Result<()> {
    let interval = Duration::from_secs_f64(interval);
    let screen = io::stdout().is_terminal() && !json;
    if screen {
        print("\x1b[2J")?;
    }
    let mut old = None;
    let mut looks = 0;
    let mut next = Instant::now();
    while count.is_none_or(|count| looks < count) {
        if let Some(wait) = next.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        let now = Instant::now();
        next = (next + interval).max(now);
        let look = source.look(what);
        let text = match (&look, &old) {
            (Ok(look), _) if json => view::render(look, true)?,
            (Ok(look), Some((before, then))) => {
                let seconds = now.duration_since(*then).as_secs_f64();
                view::tables(
                    look,
                    Some(Before {
                        look: before,
                        seconds,
                    }),
                )
            }
            (Ok(look), None) => view::tables(look, None),
            (Err(_), _) if looks == 0 => return look.map(drop),
            (Err(e), _) => format!("{e:#}\n"),
        };
        if !print(&if screen {
            format!("{HOME}{text}")
        } else {
            text
        })? {
            break;
        }
        old = look.ok().map(|look| (look, now));
        looks += 1;
    }
    Ok(())
}
