// SPDX-License-Identifier: GPL-2.0

//! Holding this module.

use super::ffi;
use kernel::prelude::*;

/// Keeps the module loaded. Who drops the last one runs in the module's code a little longer: the
/// module's end waits for all tasks to have left it.
pub(super) struct ModuleRef(());

impl ModuleRef {
    /// # Errors
    ///
    /// `ENODEV` when the module is going.
    pub(super) fn hold() -> Result<Self> {
        // SAFETY: No requirement.
        let held = unsafe { ffi::fgdp_helper_module_get() };
        held.then_some(Self(())).ok_or(ENODEV)
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: `hold` got the reference.
        unsafe { ffi::fgdp_helper_module_put() }
    }
}
