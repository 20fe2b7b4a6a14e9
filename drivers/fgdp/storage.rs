// SPDX-License-Identifier: GPL-2.0

//! Memory for the core's tables, which allocates nothing itself.

use kernel::prelude::*;

/// A table of fixed length.
pub(crate) struct Storage<T>(KVVec<T>);

impl<T: Clone + Default> Storage<T> {
    /// A table of `len` default entries.
    pub(crate) fn new(len: usize) -> Result<Self> {
        Ok(Self(KVVec::from_elem(T::default(), len, GFP_KERNEL)?))
    }
}

impl<T> AsRef<[T]> for Storage<T> {
    fn as_ref(&self) -> &[T] {
        &self.0
    }
}

impl<T> AsMut<[T]> for Storage<T> {
    fn as_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
