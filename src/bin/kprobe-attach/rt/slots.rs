//! Memory that is mapped when the program knows how much it needs.

use core::fmt::{self, Write};
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::MapFlags;

use super::memory::{PAGE, map_pages};

/// Maps memory for so many items of a size.
#[inline(never)]
fn map_items(size: usize, count: usize) -> Result<NonNull<u8>, Errno> {
    let size = size.checked_mul(count).ok_or(Errno::NOMEM)?;
    map_pages(size, MapFlags::PRIVATE)
}

/// Holds a list of items, in memory of its own, which is unmapped when the process ends. The number
/// of items has a limit that is set at the start.
pub(crate) struct Slots<T> {
    /// Memory for `capacity` items. The first `len` of them exist.
    memory: NonNull<T>,
    capacity: usize,
    len: usize,
    owns: PhantomData<T>,
}

impl<T> Slots<T> {
    /// Maps memory for so many items.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is not enough memory.
    pub(crate) fn map(capacity: usize) -> Result<Self, Errno> {
        // A page is aligned for any item.
        const { assert!(align_of::<T>() <= PAGE) };
        let memory = map_items(size_of::<T>(), capacity)?;
        Ok(Self {
            memory: memory.cast(),
            capacity,
            len: 0,
            owns: PhantomData,
        })
    }

    /// Gives the items away. They stay until the process ends, as the memory does.
    pub(crate) fn leak<'a>(self) -> &'a mut [T]
    where
        T: 'a,
    {
        let memory = ManuallyDrop::new(self);
        // SAFETY: the first `len` items are there. The memory is never unmapped, and nobody else
        // has it from now on.
        unsafe { core::slice::from_raw_parts_mut(memory.memory.as_ptr(), memory.len) }
    }

    /// Adds an item at the end of the list, or drops it if the list is full.
    pub(crate) fn push(&mut self, item: T) {
        if self.len < self.capacity {
            // SAFETY: below the capacity, so within the memory, where no item is yet.
            unsafe { self.memory.add(self.len).write(item) };
            self.len += 1;
        }
    }

    /// Removes the last item of the list, and returns it.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was there, and does not count any more.
        Some(unsafe { self.memory.add(self.len).read() })
    }

    /// Returns the items.
    pub(crate) const fn as_slice(&self) -> &[T] {
        // SAFETY: the first `len` items are there.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    /// Returns the items, which can be changed.
    pub(crate) const fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the first `len` items are there, and nobody else has them while this is borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

impl<T: fmt::Debug> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Writes to the end of a list of bytes.
pub(crate) struct Text<'s>(pub(crate) &'s mut Slots<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.0.push(byte));
        Ok(())
    }
}
