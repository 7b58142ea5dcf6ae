//! BPF programs that count, and pins.

use kprobe_attach::bpf::insn::Insn;
use kprobe_attach::bpf::{Array, AttachType, Load, Program, insn};
use kprobe_attach::fd::{AsFd, AsRawFd, OwnedFd};
use kprobe_attach::{Kernel, KprobeLink, KprobeOpts, Target};

/// Loads `counters[index] += 1`.
pub(crate) fn counting(counters: &Array, index: i32) -> Program {
    let key = [insn::store_imm(insn::Width::U32, insn::R10, -8, index)];
    counting_at(counters, &key, -8, AttachType::Kprobe)
}

/// Loads `counters[cookie] += 1`.
pub(crate) fn counting_by_cookie(counters: &Array) -> Program {
    counting_by_cookie_for(counters, AttachType::Kprobe)
}

/// Loads `counters[cookie] += 1` for links of one kind.
pub(crate) fn counting_by_cookie_for(counters: &Array, attach_type: AttachType) -> Program {
    // The key is the low half of the cookie.
    let low_half = if cfg!(target_endian = "little") {
        -8
    } else {
        -4
    };
    let key = [
        insn::call(insn::helper::GET_ATTACH_COOKIE),
        insn::store(insn::Width::U64, insn::R10, -8, insn::R0),
    ];
    counting_at(counters, &key, low_half, attach_type)
}

/// Loads `counters[key] += 1`, where `key` is instructions that put the u32 on the stack, at this
/// place.
fn counting_at(counters: &Array, key: &[Insn<'_>], at: i32, attach_type: AttachType) -> Program {
    let [map, map_end] = insn::load_map(insn::R1, counters);
    let count = [
        map,
        map_end,
        insn::mov(insn::R2, insn::R10),
        insn::alu_imm(insn::Alu::Add, insn::R2, at),
        insn::call(insn::helper::MAP_LOOKUP_ELEM),
        insn::jump_if_imm(insn::Cond::Eq, insn::R0, 0, 2),
        insn::mov_imm(insn::R1, 1),
        insn::atomic(insn::Width::U64, insn::Atomic::Add, insn::R0, 0, insn::R1),
        insn::mov_imm(insn::R0, 0),
        insn::exit(),
    ];
    load(&[key, &count].concat(), attach_type)
}

fn load(insns: &[Insn<'_>], attach_type: AttachType) -> Program {
    let mut log = vec![0; 1 << 16];
    let named = Load::new(insns, c"GPL").name("vm_test").unwrap();
    let loaded = named.attach_type(attach_type).log(&mut log).load();
    loaded.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&log)))
}

/// A program that counts, and its counter.
pub(crate) struct Counter {
    pub(crate) program: Program,
    pub(crate) counters: Array,
}

impl Counter {
    pub(crate) fn new() -> Self {
        let counters = Array::create(1).unwrap();
        Self {
            program: counting(&counters, 0),
            counters,
        }
    }

    pub(crate) fn hits(&self) -> u64 {
        self.counters.get(0).unwrap()
    }

    /// The hits, and those that the kernel kept from the program: for tests beside whose function
    /// others are in system calls on maps, which a kernel of today may preempt.
    pub(crate) fn hits_or_misses(&self) -> u64 {
        let missed = self.program.recursion_misses().unwrap();
        self.hits() + missed.unwrap_or_default()
    }

    pub(crate) fn attach(
        &self,
        kernel: &Kernel,
        target: Target<'_>,
        opts: &KprobeOpts,
    ) -> KprobeLink {
        let attached = kernel.attach_kprobe(&self.program, target, opts);
        attached.unwrap_or_else(|error| panic!("{target} {opts:?}: {error}"))
    }
}

/// `BPF_OBJ_PIN`'s attribute, written by a second hand than the library's.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: i32,
    file_flags: u32,
}

/// Pins a program or map, which the library leaves to whoever loads one.
pub(crate) fn pin(object: &impl AsFd, path: &str) {
    let path = std::ffi::CString::new(path).unwrap();
    let attr = ObjPin {
        pathname: path.as_ptr().expose_provenance() as u64,
        bpf_fd: object.as_fd().as_raw_fd(),
        file_flags: 0,
    };
    #[allow(unsafe_code, reason = "an independent witness of bpf(2)")]
    // SAFETY: the attribute of BPF_OBJ_PIN, with a path that outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, 6, &raw const attr, size_of::<ObjPin>()) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// `BPF_PROG_LOAD`'s attribute, written by a second hand than the library's.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads `r0 = 0; exit` as what the library does not load.
pub(crate) fn load_as(
    prog_type: u32,
    prog_flags: u32,
    expected_attach_type: u32,
) -> Result<OwnedFd, std::io::Error> {
    let insns = [insn::mov_imm(insn::R0, 0), insn::exit()].map(Insn::raw);
    let attr = ProgLoad {
        prog_type,
        insn_cnt: 2,
        insns: insns.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        log: [0; 2],
        kern_version: 0,
        prog_flags,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type,
    };
    #[allow(unsafe_code, reason = "an independent witness of bpf(2)")]
    // SAFETY: the attribute of BPF_PROG_LOAD, with addresses that outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const attr, size_of::<ProgLoad>()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    #[allow(unsafe_code, reason = "an independent witness of bpf(2)")]
    // SAFETY: the system call has just opened it.
    Ok(unsafe { kprobe_attach::fd::FromRawFd::from_raw_fd(i32::try_from(fd).unwrap()) })
}
