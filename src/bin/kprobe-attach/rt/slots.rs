//! Memory that is mapped when the program knows how much it takes.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A list with room for a fixed number of items, in memory of its own, which the process gives back
/// when it ends.
pub(crate) struct Slots<T> {
    /// Room for `capacity` items, of which the first `len` are there.
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
    /// `ENOMEM`: there is not so much.
    pub(crate) fn map(capacity: usize) -> Result<Self, Errno> {
        // A page is aligned to whatever an item is.
        const { assert!(align_of::<T>() <= 4096) };
        let size = size_of::<T>().checked_mul(capacity).ok_or(Errno::NOMEM)?;
        let memory = if size == 0 {
            NonNull::dangling()
        } else {
            let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            // SAFETY: without an address asked for, no memory is replaced.
            let memory =
                unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), size, protection, flags) };
            NonNull::new(memory?.cast()).ok_or(Errno::NOMEM)?
        };
        Ok(Self {
            memory,
            capacity,
            len: 0,
            owns: PhantomData,
        })
    }

    /// Puts an item at the end of the list. It is dropped where there is no room left.
    pub(crate) fn push(&mut self, item: T) {
        if self.len < self.capacity {
            // SAFETY: below the capacity, so within the memory, where no item is yet.
            unsafe { self.memory.add(self.len).write(item) };
            self.len += 1;
        }
    }

    /// Takes the last item off the list.
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

    /// Takes the items off the list, first to last.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        let (memory, len) = (self.memory, core::mem::take(&mut self.len));
        // SAFETY: the first `len` items were there, and do not count any more; each is read once.
        (0..len).map(move |index| unsafe { memory.add(index).read() })
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
