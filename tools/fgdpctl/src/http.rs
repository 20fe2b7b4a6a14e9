// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One exchange of HTTP on a socket that a service manager has accepted.

use std::io::{Read, Write};

use anyhow::{bail, Result};

/// The longest request taken.
const MAX_REQUEST: u64 = 8 << 10;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What was asked for: its status, and what it is.
fn status(request: &[u8]) -> Option<(&'static str, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Partial) => None,
        Err(_) => Some(("400 Bad Request", false)),
        Ok(httparse::Status::Complete(_)) => Some(match (parsed.method, parsed.path) {
            (Some("GET"), Some("/metrics")) => ("200 OK", true),
            (Some("GET"), _) => ("404 Not Found", false),
            _ => ("405 Method Not Allowed", false),
        }),
    }
}

/// Reads a request and answers it: GET /metrics with `page`, everything else with an error.
///
/// # Errors
///
/// When the client leaves early.
pub fn serve(
    mut input: impl Read,
    mut output: impl Write,
    page: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    let (status, wanted) = loop {
        let n = input.read(&mut piece)?;
        request.extend(piece.iter().take(n));
        match status(&request) {
            Some(found) => break found,
            None if request.len() as u64 > MAX_REQUEST => {
                break ("431 Request Header Fields Too Large", false)
            }
            None if n == 0 => bail!("the request ends in the middle"),
            None => {}
        }
    };
    let (status, kind, body) = match wanted.then(page) {
        Some(Ok(text)) => (status, OPEN_METRICS, text),
        Some(Err(e)) => ("503 Service Unavailable", "text/plain", format!("{e:#}\n")),
        None => (
            status,
            "text/plain",
            format!("{status}: the metrics are /metrics\n"),
        ),
    };
    write!(
        output,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn answer(request: &str) -> Result<String> {
        let mut output = Vec::new();
        serve(request.as_bytes(), &mut output, || Ok("a 1\n".to_owned()))?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn the_page_is_at_its_place_only() {
        let page = answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\na 1\n"),
            "{page}"
        );
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let page = answer(request).unwrap();
            assert!(
                page.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {page}"
            );
        }
        assert!(answer("GET /metrics HTT").is_err());
        let endless = format!("GET /metrics HTTP/1.1\r\nA: {}", "x".repeat(20_000));
        assert!(answer(&endless).unwrap().starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn what_cannot_be_said_is_an_error_of_the_service() {
        let mut output = Vec::new();
        let request = "GET /metrics HTTP/1.0\r\n\r\n";
        serve(request.as_bytes(), &mut output, || {
            Err(anyhow!("nobody listens"))
        })
        .unwrap();
        let page = String::from_utf8(output).unwrap();
        assert!(
            page.starts_with("HTTP/1.1 503 ") && page.contains("nobody listens"),
            "{page}"
        );
    }
}
