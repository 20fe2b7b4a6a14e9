// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client: looks at the bytes where they are, and hands them on from there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use anyhow::{bail, ensure, Context, Result};
use crc32fast::Hasher;
use fgdp::Stream;

use crate::common::Incoming;
use crate::wire::{Head, Request, BLOCK};
use crate::Get;

/// Gets files, block by block.
pub fn get(options: &Get) -> Result<()> {
    let stream = Stream::connect(&options.address).context("connect")?;
    let mut incoming = Incoming::new(&stream, !options.copy);
    // Not the standard library's own, which has a buffer.
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    for name in &options.names {
        let mut offset = 0;
        loop {
            let request = Request {
                name: name.clone(),
                offset,
                length: BLOCK,
            };
            let n = block(&stream, &mut incoming, &request, &mut output)
                .with_context(|| format!("{name} at {offset}"))?;
            if n == 0 {
                break;
            }
            offset += u64::from(n);
        }
    }
    let (in_place, copied) = (incoming.in_place, incoming.copied);
    eprintln!("file-server: {in_place} bytes in place, {copied} copied");
    Ok(())
}

/// Asks for bytes and writes them; how many there were.
pub(crate) fn block(
    mut stream: &Stream,
    incoming: &mut Incoming<'_>,
    request: &Request,
    output: &mut File,
) -> Result<u32> {
    stream
        .write_all(request.line().as_bytes())
        .context("request")?;
    let mut bytes = [0; Head::LEN];
    let mut have = 0;
    while have < bytes.len() {
        let piece = incoming.next(bytes.len() - have)?.context("no answer")?;
        let room = bytes.get_mut(have..have + piece.len());
        room.context("bytes before the answer's head")?
            .copy_from_slice(&piece);
        have += piece.len();
    }
    let head = Head::parse(bytes);
    if head.error != 0 {
        let error = i32::try_from(head.error).unwrap_or(nix::libc::EIO);
        bail!(io::Error::from_raw_os_error(error));
    }
    ensure!(head.length <= request.length, "more than was asked for");
    let mut left = head.length as usize;
    let mut sum = Hasher::new();
    while left > 0 {
        let piece = incoming
            .next(left)?
            .context("the answer is not all there")?;
        left = left
            .checked_sub(piece.len())
            .context("more than was promised")?;
        sum.update(&piece);
        output.write_all(&piece).context("standard output")?;
    }
    ensure!(sum.finalize() == head.sum, "the sum is another one");
    Ok(head.length)
}
