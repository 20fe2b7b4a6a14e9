// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vfio-user messages: layouts, numbers, encoding.

/// Bytes of a message header.
pub const HEADER: usize = 16;

/// The longest message taken: a region access of [`MAX_TRANSFER`] bytes with its header, and version strings.
pub const MAX_MESSAGE: usize = 8192;

/// Largest region access, announced to the client.
pub const MAX_TRANSFER: u32 = 4096;

/// Header flag: this is a reply.
pub const F_REPLY: u32 = 1;
/// Header flag: the sender wants no reply.
pub const F_NO_REPLY: u32 = 1 << 4;
/// Header flag: the reply's error field is valid.
pub const F_ERROR: u32 = 1 << 5;

/// Protocol and capabilities.
pub const VERSION: u16 = 1;
/// Guest memory appears.
pub const DMA_MAP: u16 = 2;
/// Guest memory goes.
pub const DMA_UNMAP: u16 = 3;
/// Kind of device, number of regions and interrupts.
pub const DEVICE_GET_INFO: u16 = 4;
/// One region: size, flags, what can be mapped.
pub const DEVICE_GET_REGION_INFO: u16 = 5;
/// One kind of interrupt: how many.
pub const DEVICE_GET_IRQ_INFO: u16 = 7;
/// Descriptors for interrupts.
pub const DEVICE_SET_IRQS: u16 = 8;
/// Read of a trapped region.
pub const REGION_READ: u16 = 9;
/// Write to a trapped region.
pub const REGION_WRITE: u16 = 10;
/// Reset of the device.
pub const DEVICE_RESET: u16 = 13;

/// DMA_MAP flag: the device may read.
pub const DMA_READ: u32 = 1;
/// DMA_MAP flag: the device may write.
pub const DMA_WRITE: u32 = 2;
/// DMA_UNMAP flag: everything.
pub const DMA_UNMAP_ALL: u32 = 2;

/// Region flag: can be read.
pub const REGION_F_READ: u32 = 1;
/// Region flag: can be written.
pub const REGION_F_WRITE: u32 = 2;
/// Region flag: can be mapped.
pub const REGION_F_MMAP: u32 = 4;
/// Region flag: capabilities follow.
pub const REGION_F_CAPS: u32 = 8;

/// Device flag: DEVICE_RESET works.
pub const DEVICE_F_RESET: u32 = 1;
/// Device flag: it is a PCI device.
pub const DEVICE_F_PCI: u32 = 2;

/// Interrupt flag: by eventfd.
pub const IRQ_F_EVENTFD: u32 = 1;
/// Interrupt flag: the number of vectors is fixed.
pub const IRQ_F_NORESIZE: u32 = 8;
/// Interrupt index of MSI-X.
pub const IRQ_MSIX: u32 = 2;
/// Interrupt index of PCI errors.
pub const IRQ_ERROR: u32 = 3;
/// Number of interrupt indices of a PCI device.
pub const NUM_IRQS: u32 = 5;

/// SET_IRQS flag: no data.
pub const IRQ_SET_DATA_NONE: u32 = 1;
/// SET_IRQS flag: descriptors come with the message.
pub const IRQ_SET_DATA_EVENTFD: u32 = 4;
/// SET_IRQS action: trigger.
pub const IRQ_SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Number of the region that is the PCI configuration space.
pub const REGION_CONFIG: u32 = 7;
/// Number of regions of a PCI device (the last is VGA).
pub const NUM_REGIONS: u32 = 9;

/// A message header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Chosen by the sender, repeated in the reply.
    pub id: u16,
    /// What is asked.
    pub command: u16,
    /// Of the whole message in bytes, this header included.
    pub size: u32,
    /// `F_*`.
    pub flags: u32,
}

/// The little-endian word of `N` bytes at `at`, zero when `bytes` ends before it.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

/// A 16-bit word of a message.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// A 32-bit word of a message.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// A 64-bit word of a message.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

impl Header {
    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        Self {
            id: u16_at(bytes, 0),
            command: u16_at(bytes, 2),
            size: u32_at(bytes, 4),
            flags: u32_at(bytes, 8),
        }
    }

    /// Whether the sender wants an answer.
    pub fn wants_reply(&self) -> bool {
        self.flags & F_NO_REPLY == 0
    }

    /// The answer to this message with `body`.
    pub fn reply(&self, body: &[u8]) -> Vec<u8> {
        self.encode(F_REPLY, 0, body)
    }

    /// The answer that the request failed with `errno`.
    pub fn error(&self, errno: i32) -> Vec<u8> {
        self.encode(F_REPLY | F_ERROR, errno.unsigned_abs(), &[])
    }

    fn encode(&self, flags: u32, error: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(HEADER + body.len());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.command.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&error.to_le_bytes());
        out.extend_from_slice(body);
        out
    }
}

/// Body of the answer to VERSION.
pub fn version_body() -> Vec<u8> {
    let caps =
        format!(r#"{{"capabilities":{{"max_msg_fds":16,"max_data_xfer_size":{MAX_TRANSFER}}}}}"#);
    // 0.0: a server must not answer with a later version than the client asked for.
    let mut body = vec![0; 4];
    body.extend_from_slice(caps.as_bytes());
    body.push(0);
    body
}

/// Body of the answer to DEVICE_GET_INFO.
pub fn device_info_body() -> Vec<u8> {
    words(&[16, DEVICE_F_RESET | DEVICE_F_PCI, NUM_REGIONS, NUM_IRQS])
}

/// Body of the answer to DEVICE_GET_IRQ_INFO.
pub fn irq_info_body(index: u32, count: u32) -> Vec<u8> {
    let flags = if count > 0 {
        IRQ_F_EVENTFD | IRQ_F_NORESIZE
    } else {
        0
    };
    words(&[16, flags, index, count])
}

/// A region as the client sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegionInfo {
    /// `REGION_F_*`.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
    /// Start of the region in its memory file.
    pub file_offset: u64,
    /// Bytes from the region's start that can be mapped; 0: none.
    pub mappable: u64,
}

/// Body of the answer to DEVICE_GET_REGION_INFO for a client with room for `argsz` bytes.
pub fn region_info_body(index: u32, info: &RegionInfo, argsz: u32) -> Vec<u8> {
    const FIXED: u32 = 32;
    const SPARSE: u32 = 32;
    let sparse = info.mappable != 0;
    let full = if sparse { FIXED + SPARSE } else { FIXED };
    let fits = argsz >= full;
    let flags = info.flags | if sparse { REGION_F_CAPS } else { 0 };
    // Said also when it did not fit: the client asks again with more room, and checks the offset before.
    let cap_offset = if sparse { FIXED } else { 0 };
    let mut body = words(&[full, flags, index, cap_offset]);
    body.extend_from_slice(&info.size.to_le_bytes());
    body.extend_from_slice(&info.file_offset.to_le_bytes());
    if sparse && fits {
        // Capability header: id 1 (sparse mmap), version 1, no next; then one area.
        body.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&words(&[1, 0]));
        body.extend_from_slice(&0u64.to_le_bytes());
        body.extend_from_slice(&info.mappable.to_le_bytes());
    }
    body
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let asked = Header {
            id: 7,
            command: REGION_READ,
            size: 32,
            flags: 0,
        };
        let reply = asked.reply(&[1, 2, 3]);
        let first: [u8; HEADER] = reply[..HEADER].try_into().unwrap();
        let parsed = Header::parse(&first);
        assert_eq!(
            parsed,
            Header {
                id: 7,
                command: REGION_READ,
                size: 19,
                flags: F_REPLY
            }
        );
        let error = asked.error(22);
        assert_eq!(u32_at(&error, 8), F_REPLY | F_ERROR);
        assert_eq!(u32_at(&error, 12), 22);
    }

    #[test]
    fn short_messages_read_as_zero() {
        assert_eq!(u64_at(&[1, 2, 3], 0), 0);
        assert_eq!(u32_at(&[], usize::MAX), 0);
    }

    #[test]
    fn region_info_says_its_full_size_first() {
        let info = RegionInfo {
            flags: REGION_F_READ | REGION_F_MMAP,
            size: 1 << 21,
            file_offset: 0,
            mappable: 1 << 21,
        };
        let short = region_info_body(4, &info, 32);
        assert_eq!(
            (short.len(), u32_at(&short, 0), u32_at(&short, 12)),
            (32, 64, 32)
        );
        let full = region_info_body(4, &info, 64);
        assert_eq!(
            (full.len(), u32_at(&full, 12), u64_at(&full, 56)),
            (64, 32, 1 << 21)
        );
    }
}
