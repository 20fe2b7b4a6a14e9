// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A learning Ethernet switch for three guests and more: QEMU's `-netdev stream` connects two ends only.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Frames that wait for a slow guest; more are dropped, as a switch does.
const QUEUE: usize = 1024;
const MAX_FRAME: usize = 128 * 1024;

#[derive(Default)]
struct Table {
    next: u64,
    ports: HashMap<u64, SyncSender<Arc<[u8]>>>,
    learned: HashMap<[u8; 6], u64>,
}

/// Serves guests that connect to `listener` until the process ends.
pub fn serve(listener: UnixListener) {
    let table = Arc::new(Mutex::new(Table::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let table = table.clone();
            thread::spawn(move || {
                if let Err(error) = port(&table, stream) {
                    eprintln!("switch: {error}");
                }
            });
        }
    });
}

fn port(table: &Mutex<Table>, mut input: UnixStream) -> io::Result<()> {
    let mut output = input.try_clone()?;
    let (sender, frames) = sync_channel::<Arc<[u8]>>(QUEUE);
    let id = {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.next += 1;
        let id = table.next;
        table.ports.insert(id, sender);
        id
    };
    thread::spawn(move || {
        for frame in frames {
            if output.write_all(&frame).is_err() {
                return;
            }
        }
    });
    let result = forward(table, id, &mut input);
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.ports.remove(&id);
    table.learned.retain(|_, port| *port != id);
    result
}

fn forward(table: &Mutex<Table>, id: u64, input: &mut UnixStream) -> io::Result<()> {
    loop {
        let mut header = [0; 4];
        match input.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let len = u32::from_be_bytes(header) as usize;
        if !(14..=MAX_FRAME).contains(&len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {len} bytes"),
            ));
        }
        let mut frame = vec![0; 4 + len];
        frame[..4].copy_from_slice(&header);
        input.read_exact(&mut frame[4..])?;
        let (mut target, mut source) = ([0; 6], [0; 6]);
        target.copy_from_slice(&frame[4..10]);
        source.copy_from_slice(&frame[10..16]);
        let frame: Arc<[u8]> = frame.into();

        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.learned.insert(source, id);
        let known = table.learned.get(&target).copied();
        for (port, sender) in &table.ports {
            if *port != id && known.is_none_or(|known| known == *port) {
                // A full queue drops the frame.
                let _ = sender.try_send(frame.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(target: u8, source: u8) -> Vec<u8> {
        let mut frame = 60u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&[target; 6]);
        frame.extend_from_slice(&[source; 6]);
        frame.resize(64, 0);
        frame
    }

    #[test]
    fn unknown_addresses_are_flooded_and_known_ones_are_not() {
        let path = std::env::temp_dir().join(format!("fgdp-switch-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        serve(listener);
        let mut ports: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        std::fs::remove_file(&path).unwrap();
        let mut buffer = [0; 64];
        // Each port speaks once; the others hear it, which also says that they are connected.
        for speaker in 0..3u8 {
            loop {
                ports[speaker as usize]
                    .write_all(&frame(0xff, speaker))
                    .unwrap();
                let mut heard = true;
                for listener in (0..3).filter(|listener| *listener != speaker as usize) {
                    ports[listener]
                        .set_read_timeout(Some(std::time::Duration::from_millis(500)))
                        .unwrap();
                    heard &= ports[listener].read_exact(&mut buffer).is_ok();
                }
                if heard {
                    break;
                }
            }
        }
        ports[0].write_all(&frame(1, 0)).unwrap();
        ports[0].write_all(&frame(2, 0)).unwrap();
        for target in [1, 2] {
            // Broadcasts that were sent twice above may come first.
            buffer[4] = 0xff;
            while buffer[4] == 0xff {
                ports[usize::from(target)].read_exact(&mut buffer).unwrap();
            }
            assert_eq!(buffer[4], target);
        }
    }
}
