//! The functions that compiled code and the compiler's own library call. [`entry`](crate::entry!)
//! defines them under their names in C.

use core::ffi::{c_char, c_int};

/// # Safety
///
/// As for C's `memcpy`.
#[inline]
pub unsafe fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's buffers are len bytes long and do not overlap.
    unsafe { copy_forward(to, from, len) };
    to
}

/// # Safety
///
/// `from` is readable and `to` writable for `len` bytes. `to` does not begin inside the bytes that
/// are still to be read.
#[inline]
unsafe fn copy_forward(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies len bytes upwards; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..len {
        // SAFETY: index is below len.
        unsafe { *to.add(index) = *from.add(index) };
        keep_loop();
    }
}

/// # Safety
///
/// As for C's `memmove`.
#[inline]
pub unsafe fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: `to` is below `from`, or behind its end: going up never writes what is still to
        // be read.
        unsafe { copy_forward(to, from, len) };
    } else {
        for index in (0..len).rev() {
            // SAFETY: index is below len.
            unsafe { *to.add(index) = *from.add(index) };
            keep_loop();
        }
    }
    to
}

/// # Safety
///
/// As for C's `memset`.
#[inline]
pub unsafe fn memset(to: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    let [byte, ..] = byte.to_le_bytes();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: fills len bytes upwards; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            in("al") byte,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..len {
        // SAFETY: index is below len.
        unsafe { *to.add(index) = byte };
        keep_loop();
    }
    to
}

/// # Safety
///
/// As for C's `memcmp`.
#[inline]
#[must_use]
pub unsafe fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    for index in 0..len {
        // SAFETY: index is below len.
        let a = unsafe { *a.add(index) };
        // SAFETY: index is below len.
        let b = unsafe { *b.add(index) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
        keep_loop();
    }
    0
}

/// # Safety
///
/// As for C's `strlen`.
#[inline]
#[must_use]
pub unsafe fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: the text goes on up to its NUL.
    while unsafe { *text.add(len) } != 0 {
        len += 1;
        keep_loop();
    }
    len
}

/// Stops the compiler from replacing a loop by a call of the function that contains it.
#[inline]
fn keep_loop() {
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}
