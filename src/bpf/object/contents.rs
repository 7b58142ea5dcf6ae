//! The type of an object: what is read of it as a whole.

use core::ffi::CStr;

use super::btf::{Btf, Ext};
use super::elf::Elf;

/// Holds an ELF file for BPF, as `clang --target=bpf` makes it.
///
/// It borrows the bytes of the file. They need not be aligned.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    pub(super) elf: Elf<'a>,
    pub(super) btf: Option<Btf<'a>>,
    pub(super) ext: Ext<'a>,
    /// The section of functions that programs call.
    pub(super) text: Option<usize>,
    pub(super) license: &'a CStr,
    pub(super) version: u32,
}
