//! libbpf's `struct bpf_kprobe_opts`, as bytes.

use core::mem::{offset_of, size_of};

use static_assertions::const_assert_eq;

use super::invalid::{Invalid, ParseError};
use super::mode::AttachMode;
use super::opts::KprobeOpts;

/// Lays out `struct bpf_kprobe_opts` of `src/libbpf.h`.
#[repr(C)]
struct BpfKprobeOpts {
    sz: usize,
    bpf_cookie: u64,
    offset: usize,
    retprobe: bool,
    attach_mode: u32,
}

/// The offset of each field.
const BPF_COOKIE: usize = offset_of!(BpfKprobeOpts, bpf_cookie);
const OFFSET: usize = offset_of!(BpfKprobeOpts, offset);
const RETPROBE: usize = offset_of!(BpfKprobeOpts, retprobe);
const ATTACH_MODE: usize = offset_of!(BpfKprobeOpts, attach_mode);

/// The end of the last known field: libbpf's `kprobe_opts__last_field`.
const KNOWN: usize = ATTACH_MODE + size_of::<u32>();

/// The size of the struct that [`KprobeOpts::as_c_struct`] returns.
pub(crate) const SIZE: usize = size_of::<BpfKprobeOpts>();

// C aligns a u64 to 8 bytes, except on 32-bit x86.
const_assert_eq!(offset_of!(BpfKprobeOpts, sz), 0);
const_assert_eq!(BPF_COOKIE, if cfg!(target_arch = "x86") { 4 } else { 8 });
const_assert_eq!(OFFSET, BPF_COOKIE + 8);
const_assert_eq!(RETPROBE, OFFSET + size_of::<usize>());
const_assert_eq!(ATTACH_MODE, RETPROBE + 4);
const_assert_eq!(SIZE, if cfg!(target_arch = "x86") { 24 } else { 32 });

impl KprobeOpts {
    /// Reads the bytes of a C caller's `struct bpf_kprobe_opts`.
    ///
    /// libbpf's rules for the first field, `sz`, apply:
    ///
    /// * `sz` is at least the size of `sz` itself.
    /// * A field counts if `sz` reaches its end. Otherwise it has its default.
    /// * The bytes between the last known field and `sz` are zero.
    ///
    /// When libbpf is called without a function name, `offset` is an address. The target of such a
    /// caller is [`Target::address`](crate::Target::address), with [`offset`](Self::offset) set
    /// back to 0.
    ///
    /// # Errors
    ///
    /// Returns an error where libbpf returns `EINVAL`: `sz` is too small, an unknown field is not
    /// zero, or the mode is none of the four. It also returns one if `sz` goes beyond `bytes`,
    /// where libbpf would read on.
    ///
    /// ```
    /// use kprobe_attach::KprobeOpts;
    ///
    /// let opts = KprobeOpts::new().bpf_cookie(7).retprobe(true);
    /// let bytes = opts.as_c_struct().unwrap();
    /// assert_eq!(KprobeOpts::from_c_struct(&bytes), Ok(opts));
    /// ```
    pub fn from_c_struct(bytes: &[u8]) -> Result<Self, ParseError> {
        let error = |at, invalid| Err(ParseError::new(at, invalid));
        let Some(sz) = word_at(bytes, 0) else {
            return error(bytes.len(), Invalid::StructTooSmall);
        };
        let bytes = match bytes.get(..sz) {
            None => return error(bytes.len(), Invalid::StructTooLarge),
            Some(bytes) if bytes.len() < size_of::<usize>() => {
                return error(0, Invalid::StructTooSmall);
            }
            Some(bytes) => bytes,
        };
        let tail = bytes.get(KNOWN..).unwrap_or_default();
        if let Some(at) = tail.iter().position(|byte| *byte != 0) {
            return error(KNOWN + at, Invalid::StructTail);
        }
        let attach_mode = match u32_at(bytes, ATTACH_MODE).unwrap_or_default() {
            0 => None,
            1 => Some(AttachMode::Legacy),
            2 => Some(AttachMode::Perf),
            3 => Some(AttachMode::Link),
            _ => return error(ATTACH_MODE, Invalid::UnknownMode),
        };
        Ok(Self {
            bpf_cookie: u64_at(bytes, BPF_COOKIE).unwrap_or_default(),
            offset: word_at(bytes, OFFSET).unwrap_or_default() as u64,
            retprobe: bytes.get(RETPROBE).is_some_and(|byte| *byte != 0),
            attach_mode,
            maxactive: 0,
            within_function: false,
        })
    }

    /// Returns the bytes of a `struct bpf_kprobe_opts` with these options.
    ///
    /// Returns [`None`] for options that libbpf does not have: a maxactive,
    /// [`AttachMode::LegacyLink`], or [`within_function`](Self::within_function). On a 32-bit
    /// machine, it also returns [`None`] for an offset that does not fit.
    #[must_use]
    pub fn as_c_struct(&self) -> Option<[u8; SIZE]> {
        let Self {
            bpf_cookie,
            offset,
            retprobe,
            attach_mode,
            maxactive: 0,
            within_function: false,
        } = *self
        else {
            return None;
        };
        let attach_mode: u32 = match attach_mode {
            None => 0,
            Some(AttachMode::Legacy) => 1,
            Some(AttachMode::Perf) => 2,
            Some(AttachMode::Link) => 3,
            Some(AttachMode::LegacyLink) => return None,
        };
        let mut bytes = [0; SIZE];
        let fields: [(usize, &[u8]); 5] = [
            (0, &SIZE.to_ne_bytes()),
            (BPF_COOKIE, &bpf_cookie.to_ne_bytes()),
            (OFFSET, &usize::try_from(offset).ok()?.to_ne_bytes()),
            (RETPROBE, &[u8::from(retprobe)]),
            (ATTACH_MODE, &attach_mode.to_ne_bytes()),
        ];
        for (at, field) in fields {
            bytes.get_mut(at..at + field.len())?.copy_from_slice(field);
        }
        Some(bytes)
    }
}

/// Returns a field, if the bytes reach its end.
fn word_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns a field, if the bytes reach its end.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns a field, if the bytes reach its end.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Makes a struct with every field set, and `sz` as given.
    fn bytes(sz: u64) -> Vec<u8> {
        let opts = KprobeOpts::new()
            .bpf_cookie(7)
            .offset(0x10)
            .retprobe(true)
            .attach_mode(AttachMode::Perf);
        let mut bytes = opts.as_c_struct().unwrap().to_vec();
        bytes[..8].copy_from_slice(&sz.to_ne_bytes());
        bytes.resize(bytes.len().max(usize::try_from(sz).unwrap_or(0).min(64)), 0);
        bytes
    }

    #[test]
    fn a_field_counts_if_sz_reaches_its_end() {
        let none = KprobeOpts::new();
        let cookie = none.bpf_cookie(7);
        let offset = cookie.offset(0x10);
        let retprobe = offset.retprobe(true);
        for (sizes, opts) in [
            (8..=15, none),
            (16..=23, cookie),
            (24..=24, offset),
            (25..=31, retprobe),
            (32..=64, retprobe.attach_mode(AttachMode::Perf)),
        ] {
            for sz in sizes {
                assert_eq!(KprobeOpts::from_c_struct(&bytes(sz)), Ok(opts), "{sz}");
            }
        }
    }

    #[test]
    fn a_size_too_small_or_beyond_the_bytes_is_refused() {
        for sz in 0..8 {
            let error = ParseError::new(0, Invalid::StructTooSmall);
            assert_eq!(KprobeOpts::from_c_struct(&bytes(sz)), Err(error), "{sz}");
        }
        for len in 0..8 {
            let error = ParseError::new(len, Invalid::StructTooSmall);
            assert_eq!(KprobeOpts::from_c_struct(&bytes(32)[..len]), Err(error));
        }
        for sz in [33, u64::MAX] {
            let mut bytes = bytes(32);
            bytes[..8].copy_from_slice(&sz.to_ne_bytes());
            let error = ParseError::new(32, Invalid::StructTooLarge);
            assert_eq!(KprobeOpts::from_c_struct(&bytes), Err(error));
        }
    }

    #[test]
    fn padding_is_not_looked_at_and_the_tail_must_be_zero() {
        let mut bytes = bytes(40);
        bytes[25..28].fill(0xff);
        assert!(KprobeOpts::from_c_struct(&bytes).is_ok());
        bytes[37] = 1;
        let error = ParseError::new(37, Invalid::StructTail);
        assert_eq!(KprobeOpts::from_c_struct(&bytes), Err(error));
        // Bytes beyond sz do not count.
        bytes[0] = 37;
        assert!(KprobeOpts::from_c_struct(&bytes).is_ok());
    }

    #[test]
    fn the_modes_are_libbpfs() {
        for (number, mode) in [
            (0, Ok(None)),
            (1, Ok(Some(AttachMode::Legacy))),
            (2, Ok(Some(AttachMode::Perf))),
            (3, Ok(Some(AttachMode::Link))),
            (4, Err(ParseError::new(28, Invalid::UnknownMode))),
            (255, Err(ParseError::new(28, Invalid::UnknownMode))),
        ] {
            let mut bytes = bytes(32);
            bytes[28] = number;
            assert_eq!(
                KprobeOpts::from_c_struct(&bytes).map(|opts| opts.attach_mode),
                mode
            );
        }
        assert_eq!(
            KprobeOpts::new()
                .attach_mode(AttachMode::LegacyLink)
                .as_c_struct(),
            None
        );
        assert_eq!(
            KprobeOpts::new().retprobe(true).maxactive(1).as_c_struct(),
            None
        );
    }
}
