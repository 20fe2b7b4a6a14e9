// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The server: a thread for each connection.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use fgdp::{Listener, Stream};

use crate::cache::Cache;
use crate::wire::{Head, Request, LINE_MAX};
use crate::Serve;

/// Serves until killed.
pub fn serve(options: &Serve) -> Result<()> {
    let listener = Listener::bind(&options.address).context("listen")?;
    println!("listening");
    let bytes = usize::from(options.lend) << 20;
    let directory = options.directory.as_path();
    thread::scope(|scope| loop {
        let (stream, from) = listener.accept().context("accept")?;
        scope.spawn(move || match answer(&stream, directory, bytes) {
            Ok(what) => println!("{from}: {what}"),
            Err(error) => println!("{from}: {error:#}"),
        });
    })
}

/// Answers all requests of a connection; what that was.
pub(crate) fn answer(stream: &Stream, directory: &Path, bytes: usize) -> Result<String> {
    let mut cache = Cache::new(stream, bytes);
    let mut requests = BufReader::new(stream);
    let mut opened: Option<(String, File)> = None;
    loop {
        let mut line = String::new();
        let got = (&mut requests).take(LINE_MAX).read_line(&mut line);
        if got.context("request")? == 0 {
            break;
        }
        let request = Request::parse(&line)?;
        // As a rule the next request is for the same file.
        let file = match opened.take().filter(|(name, _)| *name == request.name) {
            Some((_, file)) => Ok(file),
            None => File::open(directory.join(&request.name)),
        };
        let found = match file {
            Ok(file) => {
                let found = cache.find(&file, request.offset, request.length)?;
                opened = Some((request.name, file));
                found
            }
            Err(error) => Err(error),
        };
        let mut out = stream;
        match &found {
            Ok(found) => {
                let head = Head {
                    error: 0,
                    length: found.len(),
                    sum: found.sum,
                };
                out.write_all(&head.bytes()).context("answer")?;
                cache.send(found)?;
            }
            Err(error) => {
                let head = Head::failure(error);
                out.write_all(&head.bytes()).context("answer")?;
            }
        }
    }
    let granted = cache.granted()?;
    let Cache { hits, misses, .. } = cache;
    Ok(format!(
        "{} requests, {hits} from memory, {granted} calls without a copy",
        hits + misses
    ))
}
