// SPDX-License-Identifier: GPL-2.0

//! Control groups, which sockets belong to.

use super::super::ffi;
use super::anysock::AnySock;
use kernel::prelude::*;

/// A control group; it may have gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CgroupId(u64);

impl CgroupId {
    /// The group at `path` of the unified hierarchy. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is none.
    pub(crate) fn of(path: &CStr) -> Result<Self> {
        let mut id = 0;
        // SAFETY: `path` ends with a zero, and `id` is a place for the answer.
        let ret = unsafe { ffi::fgdp_helper_cgroup_id(path.as_char_ptr(), &mut id) };
        kernel::error::to_result(ret)?;
        Ok(Self(id))
    }
}

impl AnySock {
    /// Whether the socket belongs to the group, or to one below it. Any context.
    pub(crate) fn is_in(&self, cgroup: CgroupId) -> bool {
        // SAFETY: A live socket.
        unsafe { ffi::fgdp_helper_sk_in_cgroup(self.raw(), cgroup.0) }
    }
}
