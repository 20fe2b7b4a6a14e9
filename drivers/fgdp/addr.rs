// SPDX-License-Identifier: GPL-2.0

//! `struct sockaddr_fgdp`.

use crate::sys::net::errno::Errno;
use crate::sys::net::family::MAX_NAME;
use kernel::prelude::*;

/// Bytes of `struct sockaddr_fgdp`.
pub(crate) const ADDR_LEN: usize = 24;

/// `FGDP_PORT_ANY`.
pub(crate) const PORT_ANY: u32 = u32::MAX;

/// `FGDP_PORT_RESERVED`.
pub(crate) const PORT_RESERVED: u32 = 1024;

/// A guest's name in its group, given by the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestId(pub(crate) [u8; 16]);

impl GuestId {
    /// Any guest, or this one.
    pub(crate) const ANY: Self = Self([0; 16]);
    /// This guest, over the loopback device.
    pub(crate) const LOOPBACK: Self = Self([0xff; 16]);
}

/// An address of the family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addr {
    /// Guest.
    pub(crate) guest: GuestId,
    /// Port.
    pub(crate) port: u32,
}

fn four(bytes: Option<&[u8]>) -> Option<[u8; 4]> {
    bytes?.try_into().ok()
}

impl Addr {
    /// Reads what the user gave.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is too short or the reserved field is not zero, `EAFNOSUPPORT` when it is
    /// of another family.
    pub(crate) fn parse(family: u8, name: &[u8]) -> Result<Self> {
        let Some([f0, f1, r0, r1]) = four(name.get(0..4)) else {
            return Err(EINVAL);
        };
        if u16::from_ne_bytes([f0, f1]) != u16::from(family) {
            return Err(Errno::AfNoSupport.into());
        }
        let port = four(name.get(4..8)).ok_or(EINVAL)?;
        let guest: &[u8] = name.get(8..ADDR_LEN).ok_or(EINVAL)?;
        if [r0, r1] != [0, 0] {
            return Err(EINVAL);
        }
        Ok(Self {
            guest: GuestId(guest.try_into().map_err(|_| EINVAL)?),
            port: u32::from_ne_bytes(port),
        })
    }

    /// Writes it for the user; returns its length.
    pub(crate) fn write(&self, family: u8, name: &mut [u8; MAX_NAME]) -> usize {
        let [f0, f1] = u16::from(family).to_ne_bytes();
        let [p0, p1, p2, p3] = self.port.to_ne_bytes();
        let head = [f0, f1, 0, 0, p0, p1, p2, p3];
        if let Some((first, rest)) = name.split_first_chunk_mut() {
            *first = head;
            if let Some(guest) = rest.first_chunk_mut() {
                *guest = self.guest.0;
            }
        }
        ADDR_LEN
    }
}
