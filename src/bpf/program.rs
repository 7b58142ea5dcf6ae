//! Programs to attach: opened from a pin or by id, or loaded from raw instructions. Any other loader's program serves as
//! well: whatever is [`AsFd`] can be attached.

use core::ffi::CStr;
use core::mem::size_of;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::{Resource, Rlimit};

use crate::diagnose::denied::has_capabilities;
use crate::error::cause::Cause;
use crate::error::{Error, Failure, Step};
use crate::sys;

/// A loaded program of type `BPF_PROG_TYPE_KPROBE`.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Opens a program that is pinned in a bpf file system. Linux 4.13, which can tell its type; the mode of the pin and of
    /// the directories above it must allow it.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`]: there is no such pin, it may not be opened, or it is not a kprobe program.
    pub fn open_pinned(path: impl Arg) -> Result<Self, Error> {
        Ok(Self::opened(path.into_with_c_str(obj_get))?)
    }

    /// Opens a loaded program by its id, as `bpftool prog` lists it. Linux 4.13, `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`]: there is no such program, or it is not a kprobe program.
    pub fn open_id(id: u32) -> Result<Self, Error> {
        Ok(Self::opened(sys::prog_get_fd_by_id(id))?)
    }

    fn opened(fd: Result<OwnedFd, Errno>) -> Result<Self, Failure> {
        let failed = |errno| Failure::bpf(Step::OpenProgram, errno, Cause::WrongProgram);
        let fd = fd.map_err(|errno| match errno {
            Errno::NOENT => Failure::new(Step::OpenProgram, errno, Cause::Unknown),
            errno => failed(errno),
        })?;
        let info = sys::prog_info(fd.as_fd()).map_err(failed)?;
        if info.prog_type != sys::uapi::BPF_PROG_TYPE_KPROBE || !sys::is_prog(fd.as_fd()) {
            return Err(failed(Errno::INVAL));
        }
        Ok(Self(fd))
    }

    /// Loads the two instructions `r0 = 0; exit`, to ask the kernel about attaching them.
    pub(crate) fn load_nop(expected_attach_type: u32) -> Result<Self, Failure> {
        const NOP: [u64; 2] = [insn::mov_imm(insn::R0, 0), insn::exit()];
        let mut load = Load::new(&NOP, c"GPL");
        load.expected_attach_type = expected_attach_type;
        load.loaded()
    }

    /// The program's id. Linux 4.13.
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`] with the kernel's errno.
    pub fn id(&self) -> Result<u32, Error> {
        Ok(self.info()?.id)
    }

    /// How often the kernel left out a run of the program because the CPU was in a program of a probe, tracepoint or perf event
    /// already, or in a system call on a map: such a hit is lost, and
    /// [`KprobeLink::missed`](crate::KprobeLink::missed) does not count it. Where the kernel preempts
    /// lazily (Linux 6.13, commit 7c70cb94d29c) or fully, the CPU may have been taken from such a call by the very task that
    /// hits the probe. The sum over all links that the program ever had. [`None`] before Linux 5.12 (commit 9ed9e9ba2337);
    /// hits of kprobes are counted since 6.7 (commit dd8657894c11).
    ///
    /// # Errors
    ///
    /// [`Step::OpenProgram`] with the kernel's errno.
    pub fn recursion_misses(&self) -> Result<Option<u64>, Error> {
        Ok(self.info()?.recursion_misses)
    }

    fn info(&self) -> Result<sys::ProgInfo, Failure> {
        sys::prog_info(self.as_fd())
            .map_err(|errno| Failure::bpf(Step::OpenProgram, errno, Cause::Unknown))
    }
}

/// `BPF_OBJ_GET`, with a path outside of a bpf file system told from one that may not be opened (both are `EACCES`).
pub(crate) fn obj_get(path: &CStr) -> Result<OwnedFd, Errno> {
    sys::obj_get(path).map_err(|errno| match errno {
        Errno::ACCESS if !crate::bpf::pin::is_bpffs(path).unwrap_or(true) => Errno::INVAL,
        errno => errno,
    })
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A kprobe program to be loaded from raw instructions, `struct bpf_insn` as u64 in the machine's byte order.
///
/// ```no_run
/// use kprobe_attach::prog::{Load, insn};
///
/// let mut log = [0; 4096];
/// let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
/// let program = Load::new(&insns, c"GPL").name("nothing").log(&mut log).load()?;
/// # Ok::<(), kprobe_attach::Error>(())
/// ```
#[derive(Debug)]
pub struct Load<'a> {
    insns: &'a [u64],
    license: &'a CStr,
    name: [u8; 16],
    log: &'a mut [u8],
    expected_attach_type: u32,
    kern_version: u32,
}

impl<'a> Load<'a> {
    /// A program of these instructions. Helpers that are for GPL programs only take a license such as `GPL`.
    #[must_use]
    pub const fn new(insns: &'a [u64], license: &'a CStr) -> Self {
        Self {
            insns,
            license,
            name: [0; 16],
            log: &mut [],
            expected_attach_type: 0,
            kern_version: 0,
        }
    }

    /// Gives the program a name, of which the kernel keeps 15 bytes: letters, digits, `_` and `.`, or the load is `EINVAL`.
    /// Linux 4.15.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        let (_nul, bytes) = self.name.split_last_mut().unwrap_or((&mut 0, &mut []));
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        self
    }

    /// Has the verifier write its log, NUL-terminated, into a buffer. One that is too small makes the load fail with `ENOSPC`,
    /// or before Linux 5.13 with `EINVAL` if it has less than 128 bytes.
    #[must_use]
    pub fn log(mut self, log: &'a mut [u8]) -> Self {
        self.log = log;
        self
    }

    /// The version that a kernel before 5.0 wants to read in a kprobe program: its own. Where it is not given it is looked
    /// for in the vDSO when it is needed, for which `/proc` must be mounted; [`kern_version`] reads it anywhere.
    #[must_use]
    pub const fn kern_version(mut self, kern_version: u32) -> Self {
        self.kern_version = kern_version;
        self
    }

    /// Loads the program: `BPF_PROG_LOAD`.
    ///
    /// Before Linux 5.11 its memory counts against `RLIMIT_MEMLOCK`, which is raised for the call if it is too low, and put
    /// back. Without a [`kern_version`](Self::kern_version) a program that is refused with `EINVAL` is given to the kernel a
    /// second time with one, and the log is that of the second time.
    ///
    /// # Errors
    ///
    /// [`Step::LoadProgram`]: `EPERM` without `CAP_BPF` and `CAP_PERFMON` (`CAP_SYS_ADMIN` before Linux 5.8), `EACCES` or
    /// `EINVAL` where the verifier refuses the program, `E2BIG` for too many instructions, `ENOSPC` for too small a log.
    pub fn load(self) -> Result<Program, Error> {
        Ok(self.loaded()?)
    }

    fn loaded(self) -> Result<Program, Failure> {
        let Self {
            insns,
            license,
            name,
            log,
            expected_attach_type,
            kern_version,
        } = self;
        let mut load = sys::Load {
            insns,
            license,
            name,
            expected_attach_type,
            kern_version,
            log,
        };
        with_memlock(Step::LoadProgram, Cause::WrongProgram, || {
            let loaded = match sys::prog_load(&mut load) {
                // Linux before 4.15 (commit cb4d2b3f03d8) has no names, and refuses what it does not know.
                Err(Errno::TOOBIG) if load.name != [0; 16] => {
                    load.name = [0; 16];
                    sys::prog_load(&mut load)
                }
                loaded => loaded,
            };
            match loaded {
                // Linux before 5.0 (commit 6c4fc209fcf9) compares kern_version with its own, later nobody looks at it.
                Err(Errno::INVAL) if load.kern_version == 0 => {
                    load.kern_version = vdso_version().ok_or(Errno::INVAL)?;
                    sys::prog_load(&mut load)
                }
                loaded => loaded,
            }
        })
        .map(Program)
    }
}

/// Makes a BPF object, raising `RLIMIT_MEMLOCK` for the time of a second try if the first met `EPERM`: before Linux 5.11
/// (commit 97306be45fbe) that is what a limit too low looks like. The limit is the process's, not the thread's.
pub(crate) fn with_memlock<T>(
    step: Step,
    cause: Cause,
    mut create: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Failure> {
    let failed = |errno| match errno {
        // The verifier's word, not a missing permission.
        Errno::ACCESS if step == Step::LoadProgram => Failure::new(step, errno, cause),
        errno => Failure::bpf(step, errno, cause),
    };
    match create() {
        Err(Errno::PERM) => {}
        created => return created.map_err(failed),
    }
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let up_to_maximum = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // The first takes CAP_SYS_RESOURCE.
    let raised = [unlimited, up_to_maximum]
        .into_iter()
        .filter(|new| *new != limit)
        .any(|new| rustix::process::setrlimit(Resource::Memlock, new).is_ok());
    let again = create();
    if raised {
        // What was charged stays charged. It was this limit a moment ago, so setting it cannot fail.
        let _ = rustix::process::setrlimit(Resource::Memlock, limit);
    }
    again.map_err(|errno| {
        let limited = limit.maximum.is_some() && may_use_bpf();
        match errno {
            // With what BPF takes at hand, it was the limit.
            Errno::PERM if limited => Failure::new(step, errno, Cause::MemlockLimit),
            errno => failed(errno),
        }
    })
}

/// Whether this thread has the capabilities that BPF takes, and has them where they count: those of a user namespace do not.
fn may_use_bpf() -> bool {
    has_capabilities() && sys::btf_load_nothing() != Err(Errno::PERM)
}

/// The version that this process's own vDSO has, by way of `/proc`, which must be procfs.
fn vdso_version() -> Option<u32> {
    let mut auxv = [0; 1024];
    let file = open_proc(c"/proc/self/auxv")?;
    let len = crate::text::read_small(&file, &mut auxv).ok()?;
    let vdso = sysinfo_ehdr(auxv.get(..len)?)?;
    let mut page = [0; 4096];
    let len = rustix::io::pread(open_proc(c"/proc/self/mem")?, &mut page, vdso).ok()?;
    kern_version(page.get(..len)?)
}

fn open_proc(path: &CStr) -> Option<OwnedFd> {
    let file = crate::mount::open_read(rustix::fs::CWD, path).ok()?;
    let stat = rustix::fs::fstatfs(&file).ok()?;
    crate::mount::is_a(&stat, linux_raw_sys::general::PROC_SUPER_MAGIC).then_some(file)
}

/// The bytes of a word, which are what tells the headers of a 32-bit ELF image from those of a 64-bit one.
const WORD: usize = size_of::<usize>();

/// The address of the vDSO in an auxiliary vector: `AT_SYSINFO_EHDR` of `getauxval(3)`.
fn sysinfo_ehdr(auxv: &[u8]) -> Option<u64> {
    const AT_SYSINFO_EHDR: usize = 33;
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).ok();
    auxv.chunks_exact(2 * WORD)
        .map(|pair| pair.split_at(WORD))
        .find_map(|(key, value)| (word(key)? == AT_SYSINFO_EHDR).then(|| word(value))?)
        .and_then(|address| address.try_into().ok())
}

/// The `LINUX_VERSION_CODE` of the running kernel from the first page of its vDSO (`AT_SYSINFO_EHDR` of the auxiliary
/// vector): the ELF note `Linux`, type 0. Right where `uname(2)` shows a distribution's number, and needs no `/proc`.
///
/// The image is one for this program, of its word size and byte order; [`None`] for anything else.
#[must_use]
pub fn kern_version(vdso: &[u8]) -> Option<u32> {
    const PT_NOTE: u32 = 4;
    let bytes = |at: usize, len: usize| vdso.get(at..at.checked_add(len)?);
    let u16_at = |at| Some(u16::from_ne_bytes(bytes(at, 2)?.try_into().ok()?));
    let u32_at = |at| Some(u32::from_ne_bytes(bytes(at, 4)?.try_into().ok()?));
    let usize_at = |at| Some(usize::from_ne_bytes(bytes(at, WORD)?.try_into().ok()?));
    // Elf64_Ehdr or Elf32_Ehdr: e_ident, and in it ELFCLASS64 or ELFCLASS32; e_phoff, e_phentsize, e_phnum.
    let class = if WORD == 8 { 2 } else { 1 };
    if bytes(0, 5)? != [0x7f, b'E', b'L', b'F', class] {
        return None;
    }
    let (phoff, phentsize, phnum) = (
        usize_at(24 + WORD)?,
        u16_at(30 + 3 * WORD)?,
        u16_at(32 + 3 * WORD)?,
    );
    // Headers that overlap could have the same notes read 65535 times.
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
        // Elf64_Nhdr: n_namesz, n_descsz, n_type, the name and the descriptor padded to 4.
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

/// The instructions that a program which counts is made of, as [`Load`] takes them. `Documentation/bpf/standardization`.
pub mod insn {
    /// A register of the BPF machine.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Reg(u8);

    /// The answer of a helper, and of the program.
    pub const R0: Reg = Reg(0);
    /// The first argument of a helper; at the start the program's context.
    pub const R1: Reg = Reg(1);
    /// The second argument of a helper.
    pub const R2: Reg = Reg(2);
    /// The end of the stack, which grows down.
    pub const R10: Reg = Reg(10);

    /// `struct bpf_insn`: code, two registers in nibbles, offset, immediate.
    const fn insn(code: u8, dst: Reg, src: Reg, off: i16, imm: i32) -> u64 {
        let [off0, off1] = off.to_ne_bytes();
        let [imm0, imm1, imm2, imm3] = imm.to_ne_bytes();
        // The nibbles are bit-fields of C, which has them the other way round on a big endian machine.
        let regs = if cfg!(target_endian = "big") {
            dst.0 << 4 | src.0
        } else {
            src.0 << 4 | dst.0
        };
        u64::from_ne_bytes([code, regs, off0, off1, imm0, imm1, imm2, imm3])
    }

    /// `dst = imm`
    #[must_use]
    pub const fn mov_imm(dst: Reg, imm: i32) -> u64 {
        insn(0xb7, dst, R0, 0, imm)
    }

    /// `dst = src`
    #[must_use]
    pub const fn mov(dst: Reg, src: Reg) -> u64 {
        insn(0xbf, dst, src, 0, 0)
    }

    /// `dst += imm`
    #[must_use]
    pub const fn add_imm(dst: Reg, imm: i32) -> u64 {
        insn(0x07, dst, R0, 0, imm)
    }

    /// `*(u32 *)(dst + off) = imm`
    #[must_use]
    pub const fn store_imm_u32(dst: Reg, off: i16, imm: i32) -> u64 {
        insn(0x62, dst, R0, off, imm)
    }

    /// `*(u64 *)(dst + off) = src`
    #[must_use]
    pub const fn store_u64(dst: Reg, off: i16, src: Reg) -> u64 {
        insn(0x7b, dst, src, off, 0)
    }

    /// `lock *(u64 *)(dst + off) += src`
    #[must_use]
    pub const fn atomic_add_u64(dst: Reg, off: i16, src: Reg) -> u64 {
        insn(0xdb, dst, src, off, 0)
    }

    /// `if dst == imm goto +skip`
    #[must_use]
    pub const fn jump_if_eq_imm(dst: Reg, imm: i32, skip: i16) -> u64 {
        insn(0x15, dst, R0, skip, imm)
    }

    /// `r0 = helper(r1, ...)`, by the helper's number in `enum bpf_func_id`
    #[must_use]
    pub const fn call(helper: i32) -> u64 {
        insn(0x85, R0, R0, 0, helper)
    }

    /// `dst = map`, two instructions long
    #[must_use]
    pub fn load_map(dst: Reg, map: &crate::bpf::array::Array) -> [u64; 2] {
        use rustix::fd::{AsFd, AsRawFd};
        const PSEUDO_MAP_FD: Reg = Reg(1);
        let fd = map.as_fd().as_raw_fd();
        [insn(0x18, dst, PSEUDO_MAP_FD, 0, fd), 0]
    }

    /// Ends the program; [`R0`] is its answer.
    #[must_use]
    pub const fn exit() -> u64 {
        insn(0x95, R0, R0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A vDSO image with one `PT_NOTE` at its end.
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
        // Headers that overlap: the same notes over and over.
        let mut overlapping = whole.clone();
        overlapping[54..56].fill(0);
        overlapping[56..58].fill(0xff);
        assert_eq!(kern_version(&overlapping), None);
        for len in 0..whole.len() {
            assert_eq!(kern_version(&whole[..len]), None, "{len}");
        }
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

    #[test]
    fn instructions_are_those_of_the_kernels_headers() {
        // BPF_MOV64_IMM(BPF_REG_0, 0), BPF_ST_MEM(BPF_W, BPF_REG_10, -4, 7), BPF_EXIT_INSN()
        assert_eq!(
            insn::mov_imm(insn::R0, 0).to_ne_bytes(),
            [0xb7, 0, 0, 0, 0, 0, 0, 0]
        );
        if cfg!(target_endian = "little") {
            assert_eq!(
                insn::store_imm_u32(insn::R10, -4, 7).to_le_bytes(),
                [0x62, 0x0a, 0xfc, 0xff, 7, 0, 0, 0]
            );
            assert_eq!(
                insn::mov(insn::R2, insn::R10).to_le_bytes(),
                [0xbf, 0xa2, 0, 0, 0, 0, 0, 0]
            );
        }
        assert_eq!(insn::exit().to_ne_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
