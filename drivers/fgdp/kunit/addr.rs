// SPDX-License-Identifier: GPL-2.0

//! `struct sockaddr_fgdp` as programs give it.

use kernel::prelude::kunit_tests;

#[kunit_tests(fgdp_addr)]
mod tests {
    use crate::addr::{Addr, GuestId, ADDR_LEN, PORT_ANY};
    use crate::sys::net::errno::Errno;
    use crate::sys::net::family::MAX_NAME;
    use kernel::prelude::*;

    const FAMILY: u8 = 18;

    /// What `parse` said of `name`: 0 or the error's number.
    fn verdict(name: &[u8]) -> i32 {
        match Addr::parse(FAMILY, name) {
            Ok(_) => 0,
            Err(e) => e.to_errno(),
        }
    }

    #[test]
    fn names_of_every_length() -> Result {
        let mut name = [0u8; MAX_NAME];
        let addr = Addr {
            guest: GuestId([0xa5; 16]),
            port: PORT_ANY,
        };
        assert_eq!(addr.write(FAMILY, &mut name), ADDR_LEN);
        for len in 0..=MAX_NAME {
            let part = name.get(..len).ok_or(EINVAL)?;
            let want = if len < ADDR_LEN { EINVAL.to_errno() } else { 0 };
            assert_eq!(verdict(part), want);
        }
        assert!(Addr::parse(FAMILY, &name) == Ok(addr));
        // Nothing behind the address is written.
        assert_eq!(name.get(ADDR_LEN..), Some(&[0; MAX_NAME - ADDR_LEN][..]));
        Ok(())
    }

    #[test]
    fn fields_with_wrong_values() {
        let mut name = [0u8; MAX_NAME];
        Addr::default().write(FAMILY, &mut name);
        let other = Error::from(Errno::AfNoSupport).to_errno();
        let invalid = EINVAL.to_errno();
        // Byte, value, verdict. The fields before the guest are in the CPU's order, little-endian
        // here.
        for (at, value, want) in [
            (0, FAMILY, 0),
            (0, 0, other),
            (0, 1, other),
            (0, FAMILY + 1, other),
            (1, 1, other),
            (1, 0x80, other),
            (2, 1, invalid),
            (3, 0x80, invalid),
            (4, 0xff, 0),
            (7, 0xff, 0),
            (8, 1, 0),
            (23, 0xff, 0),
            (24, 0xff, 0),
        ] {
            let mut changed = name;
            changed[at] = value;
            assert_eq!(verdict(&changed), want);
        }
    }
}
