//! The version of the running kernel, which a kernel before 5.0 requires in a kprobe program.

use core::ffi::CStr;

use rustix::fd::OwnedFd;

use crate::mount::open_read;
#[cfg(feature = "object")]
use crate::text::decimal;
use crate::text::read_small;

/// Reads the version from this process's own vDSO, by way of `/proc`, which must be procfs.
#[cold]
#[inline(never)] // a page of stack, which only kernels before 5.0 need
pub(super) fn vdso_version() -> Option<u32> {
    let mut auxv = [0; 1024];
    let file = open_proc(c"/proc/self/auxv")?;
    let len = read_small(&file, &mut auxv).ok()?;
    let vdso = sysinfo_ehdr(auxv.get(..len)?)?;
    let mut page = [0; 4096];
    let len = rustix::io::pread(open_proc(c"/proc/self/mem")?, &mut page, vdso).ok()?;
    kern_version(page.get(..len)?)
}

/// Returns the version of the running kernel, or without `/proc` what `uname(2)` shows of it.
#[cfg(feature = "object")]
#[cold]
pub(crate) fn running_version() -> u32 {
    vdso_version().unwrap_or_else(|| {
        let uname = rustix::system::uname();
        // As in `LINUX_VERSION_CODE`, where the last number is at most 255.
        let mut numbers = uname
            .release()
            .to_bytes()
            .split(|byte| !byte.is_ascii_digit());
        let mut number = || numbers.next().and_then(decimal::<u32>).unwrap_or_default();
        number() << 16 | number().min(255) << 8 | number().min(255)
    })
}

fn open_proc(path: &CStr) -> Option<OwnedFd> {
    let magic = linux_raw_sys::general::PROC_SUPER_MAGIC;
    open_read(rustix::fs::CWD, path, magic).ok()
}

/// The length of a word: 4 in a 32-bit ELF image, and 8 in a 64-bit one.
const WORD: usize = size_of::<usize>();

/// Returns the address of the vDSO from an auxiliary vector: `AT_SYSINFO_EHDR` of `getauxval(3)`.
pub fn sysinfo_ehdr(auxv: &[u8]) -> Option<u64> {
    const AT_SYSINFO_EHDR: usize = 33;
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).ok();
    auxv.chunks_exact(2 * WORD)
        .map(|pair| pair.split_at(WORD))
        .find_map(|(key, value)| (word(key)? == AT_SYSINFO_EHDR).then(|| word(value))?)
        // 0 where the kernel has a vDSO but did not map it.
        .filter(|address| *address != 0)
        .and_then(|address| address.try_into().ok())
}

/// Returns the `LINUX_VERSION_CODE` of the running kernel, from the first page of its vDSO.
///
/// The vDSO lies at `AT_SYSINFO_EHDR` of the auxiliary vector ([`getauxval(3)`]). Its ELF note
/// `Linux` of type 0 has the version. The version is correct even where [`uname(2)`] shows a
/// distribution's number, and no `/proc` is needed.
///
/// The image must have the word size and byte order of this program. Returns [`None`] for anything
/// else.
///
/// [`getauxval(3)`]: https://man7.org/linux/man-pages/man3/getauxval.3.html
/// [`uname(2)`]: https://man7.org/linux/man-pages/man2/uname.2.html
#[must_use]
pub fn kern_version(vdso: &[u8]) -> Option<u32> {
    const PT_NOTE: u32 = 4;
    let bytes = |at: usize, len: usize| vdso.get(at..at.checked_add(len)?);
    let u16_at = |at| Some(u16::from_ne_bytes(bytes(at, 2)?.try_into().ok()?));
    let u32_at = |at| Some(u32::from_ne_bytes(bytes(at, 4)?.try_into().ok()?));
    let usize_at = |at| Some(usize::from_ne_bytes(bytes(at, WORD)?.try_into().ok()?));
    // Elf64_Ehdr or Elf32_Ehdr: e_ident with ELFCLASS64 or ELFCLASS32, e_phoff, e_phentsize,
    // e_phnum.
    let class = if WORD == 8 { 2 } else { 1 };
    if bytes(0, 5)? != [0x7f, b'E', b'L', b'F', class] {
        return None;
    }
    let (phoff, phentsize, phnum) = (
        usize_at(24 + WORD)?,
        u16_at(30 + 3 * WORD)?,
        u16_at(32 + 3 * WORD)?,
    );
    // Headers that overlap could make this read the same notes 65535 times.
    if usize::from(phentsize) != 8 + 6 * WORD {
        return None;
    }
    for index in 0..usize::from(phnum) {
        // Elf64_Phdr or Elf32_Phdr: p_type, p_offset, p_filesz.
        let header = index.checked_mul(phentsize.into())?.checked_add(phoff)?;
        if u32_at(header)? != PT_NOTE {
            continue;
        }
        let start = usize_at(header.checked_add(WORD)?)?;
        let len = usize_at(header.checked_add(4 * WORD)?)?;
        let mut notes = bytes(start, len)?;
        // Elf64_Nhdr: n_namesz, n_descsz and n_type, then the name and the descriptor, padded to 4
        // bytes.
        while let Some((header, rest)) = notes.split_first_chunk::<12>() {
            let word = |at: usize| {
                let word = header.get(at..at + 4)?.try_into().ok()?;
                usize::try_from(u32::from_ne_bytes(word)).ok()
            };
            let (name_len, desc_len, note_type) = (word(0)?, word(4)?, word(8)?);
            let (name, rest) = rest.split_at_checked(name_len.checked_next_multiple_of(4)?)?;
            let (desc, rest) = rest.split_at_checked(desc_len.checked_next_multiple_of(4)?)?;
            if note_type == 0 && name.starts_with(b"Linux\0") {
                return Some(u32::from_ne_bytes(*desc.first_chunk()?));
            }
            notes = rest;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Makes a vDSO image with one `PT_NOTE` at its end.
    fn image(notes: &[u8]) -> Vec<u8> {
        let mut image = std::vec![0; 64 + 56];
        image[..5].copy_from_slice(b"\x7fELF\x02");
        image[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        image[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        image[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        image[64..68].copy_from_slice(&4_u32.to_ne_bytes());
        image[72..80].copy_from_slice(&120_u64.to_ne_bytes());
        image[96..104].copy_from_slice(&(notes.len() as u64).to_ne_bytes());
        image.extend_from_slice(notes);
        image
    }

    fn note(name: &[u8], note_type: u32, desc: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, note_type] {
            note.extend_from_slice(&word.to_ne_bytes());
        }
        for part in [name, desc] {
            note.extend_from_slice(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_version_is_the_note_of_linux() {
        let version = 0x0004_13d0_u32.to_ne_bytes();
        let notes = [
            note(b"GNU\0", 3, b"build id"),
            note(b"Linux\0", 0, &version),
        ]
        .concat();
        assert_eq!(kern_version(&image(&notes)), Some(0x0004_13d0));
        assert_eq!(kern_version(&image(&note(b"Linux\0", 1, &version))), None);
        assert_eq!(kern_version(&image(&note(b"Linux\0", 0, b""))), None);
        let whole = image(&notes);
        // Headers that overlap would have the same notes read again and again.
        let mut overlapping = whole.clone();
        overlapping[54..56].fill(0);
        overlapping[56..58].fill(0xff);
        assert_eq!(kern_version(&overlapping), None);
        for len in 0..whole.len() {
            assert_eq!(kern_version(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn the_vdso_is_where_the_auxiliary_vector_says_and_never_at_zero() {
        let auxv = |pairs: &[[usize; 2]]| -> Vec<u8> {
            let words = pairs.iter().flatten();
            words.flat_map(|word| word.to_ne_bytes()).collect()
        };
        let at = |pairs: &[[usize; 2]]| sysinfo_ehdr(&auxv(pairs));
        assert_eq!(at(&[[6, 4096], [33, 0x7000], [0, 0]]), Some(0x7000));
        assert_eq!(at(&[[6, 33], [33, 0], [0, 0]]), None);
        assert_eq!(at(&[[6, 33], [0, 0]]), None);
        // A vector that is cut off in the pair.
        let whole = auxv(&[[33, 0x7000]]);
        assert_eq!(sysinfo_ehdr(&whole[..whole.len() - 1]), None);
    }

    #[cfg(feature = "files")]
    #[test]
    fn the_running_kernels_vdso_has_a_version() {
        let version = vdso_version().expect("a vDSO with a version note");
        let release = rustix::system::uname();
        let release = release.release().to_str().unwrap();
        let mut numbers = release
            .split(['.', '-'])
            .map(|number| number.parse::<u32>().unwrap());
        let (major, minor) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(
            (version >> 16, version >> 8 & 0xff),
            (major, minor),
            "{release}"
        );
    }
}
