//! Memory for lists whose length is not known in advance.

#[cfg(feature = "object")]
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::slice;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// The alignment of what is mapped: the smallest page of any kernel.
pub(super) const PAGE: usize = 4096;

/// Maps so many bytes, which are 0. It maps nothing for no bytes.
///
/// # Errors
///
/// The errno of the kernel.
#[inline(never)]
pub(super) fn map_pages(len: usize, flags: MapFlags) -> Result<NonNull<u8>, Errno> {
    /// Has the alignment of a page.
    #[repr(align(4096))]
    struct Page;
    if len == 0 {
        return Ok(NonNull::<Page>::dangling().cast());
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: no address is asked for, so no memory is replaced.
    let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, protection, flags) };
    NonNull::new(start?.cast()).ok_or(Errno::NOMEM)
}

/// Holds bytes, which are 0 at first. A page takes memory when it is first written.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Maps so many bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if this process may not have so many addresses.
    pub(crate) fn map(len: usize) -> Result<Self, Errno> {
        let start = map_pages(len, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        Ok(Self { start, len })
    }

    /// Gives the bytes away. They stay until the process ends.
    #[cfg(feature = "object")]
    pub(crate) fn leak<'a>(self) -> &'a mut [u8] {
        let memory = ManuallyDrop::new(self);
        // SAFETY: the memory was mapped with this length. It is never unmapped, and nobody else has
        // it from now on.
        unsafe { slice::from_raw_parts_mut(memory.start.as_ptr(), memory.len) }
    }

    /// Returns the bytes.
    pub(crate) const fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the memory was mapped with this length, and nobody else has it while this is
        // borrowed.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length, and nobody borrows it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
