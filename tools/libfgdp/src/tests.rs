// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TCP connections that nobody carries: what cannot be granted is refused, the rest is sent and received as ever.

use std::io::{Read, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use crate::{completion, enable, give, send, sys, Completion, Memory, Window, PAGE};

/// Both ends of a connection, by IPv4 and by IPv6 where there is that.
fn pairs() -> Vec<(TcpStream, TcpStream)> {
    let hosts = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let addresses = hosts.map(|host| SocketAddr::new(host, 0));
    let pair = |address: &SocketAddr| -> Result<_> {
        let listener = TcpListener::bind(address)?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    };
    let pairs: Vec<_> = addresses.iter().flat_map(pair).collect();
    assert!(!pairs.is_empty(), "no TCP here");
    pairs
}

/// What SO_ZEROCOPY is for.
fn set_zerocopy(socket: &TcpStream) {
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1i32).unwrap();
}

fn errno<T>(result: Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn received(mut socket: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_only_carried_connections_have_is_refused() {
    for (client, server) in pairs() {
        assert_eq!(errno(enable(&client)), Some(libc::EOPNOTSUPP));
        assert_eq!(errno(Memory::new(&client, PAGE)), Some(libc::EOPNOTSUPP));
        assert_eq!(errno(Window::new(&server)), Some(libc::EOPNOTSUPP));
        assert_eq!(errno(Window::new_writable(&server)), Some(libc::EOPNOTSUPP));
    }
}

#[test]
fn bytes_are_sent_and_copied() {
    for (client, server) in pairs() {
        let _refused = enable(&client);
        let mut bytes = vec![7; 3 * PAGE];
        assert_eq!(send(&client, &bytes).unwrap(), bytes.len());
        assert_eq!(give(&client, &mut bytes).unwrap(), bytes.len());
        assert_eq!(bytes, vec![7; 3 * PAGE]);
        assert_eq!(received(&server, 6 * PAGE), vec![7; 6 * PAGE]);
        assert_eq!(completion(&client).unwrap(), None);
    }
}

/// As it is when a connection was carried and is not any more: TCP would pin the memory, and tell when it is free again.
#[test]
fn ordinary_memory_is_copied_also_when_tcp_would_not() {
    for (client, server) in pairs() {
        set_zerocopy(&client);
        let mut bytes = vec![7; PAGE];
        assert_eq!(send(&client, &bytes).unwrap(), PAGE);
        assert_eq!(give(&client, &mut bytes).unwrap(), PAGE);
        received(&server, 2 * PAGE);
        sleep(Duration::from_millis(50));
        assert_eq!(completion(&client).unwrap(), None);
    }
}

#[test]
fn completions_of_tcp_are_understood() {
    for (client, server) in pairs() {
        set_zerocopy(&client);
        let flags = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL;
        assert_eq!(sys::send(client.as_fd(), &[7; PAGE], flags).unwrap(), PAGE);
        received(&server, PAGE);
        let mut tries = 0..500;
        let done = loop {
            match completion(&client).unwrap() {
                Some(done) => break done,
                None => assert!(tries.next().is_some(), "no completion"),
            }
            sleep(Duration::from_millis(10));
        };
        let only = Completion {
            first: 0,
            last: 0,
            // Loopback's receiver has a copy.
            copied: true,
        };
        assert_eq!(done, only);
        assert_eq!(completion(&client).unwrap(), None);
    }
}
