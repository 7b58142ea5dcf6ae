//! What is promised, on a real kernel: `ci/run.sh vm` runs these as root in virtual machines, for
//! every kernel of `ci/kernels.txt`, and fails if one of them did not run.
//!
//! They need a kernel with kprobes, root, and nobody else who makes directories or unlinks files
//! meanwhile, so on any other machine they are reported as ignored.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

mod asked;
mod asm;
mod attach;
mod cli;
mod errors;
mod features;
mod link;
mod machine;
mod mounts;
mod pressure;
mod privileges;
mod sweep;
mod thorough;
mod why;
mod z_lockdown;

use std::collections::BTreeMap;
use std::fs;

use kprobe_attach::bpf::insn::Insn;
use kprobe_attach::bpf::{Array, Load, Program, insn};
use kprobe_attach::{AttachMode, Kernel, KprobeLink, KprobeOpts, Target};

/// A function on the path of a system call that nobody else calls in the machine: it runs once for
/// each [`unlink`].
const FUNCTION: &str = "vfs_unlink";

/// Another such: it runs once for each [`mkdir`].
const OTHER_FUNCTION: &str = "vfs_mkdir";

/// Makes [`FUNCTION`] run `times` times.
fn unlink(times: usize) {
    for _ in 0..times {
        fs::write("/tmp/probed", "").unwrap();
        fs::remove_file("/tmp/probed").unwrap();
    }
}

/// Makes [`OTHER_FUNCTION`] run `times` times.
fn mkdir(times: usize) {
    for _ in 0..times {
        fs::create_dir("/tmp/probed.d").unwrap();
        fs::remove_dir("/tmp/probed.d").unwrap();
    }
}

/// The probes of the kernel, whoever made them.
const KPROBES: &str = "/sys/kernel/debug/kprobes/list";

/// The events of the kernel, whoever defined them.
const KPROBE_EVENTS: &str = "/sys/kernel/tracing/kprobe_events";

fn function() -> Target<'static> {
    Target::symbol(FUNCTION).unwrap()
}

/// How far behind its symbol a call within the kernel enters a function.
const LOCAL_ENTRY: u64 = if cfg!(target_arch = "powerpc64") {
    8
} else {
    0
};

/// The kernel's short name in `ci/kernels.txt`.
fn kernel_name() -> String {
    std::env::var("KPROBE_ATTACH_KERNEL").expect("set by ci/init")
}

/// The version of the running kernel, major and minor.
fn version() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The modes that this kernel is promised to offer.
fn promised() -> Vec<AttachMode> {
    let names = std::env::var("KPROBE_ATTACH_MODES").expect("set by ci/init");
    let mode = |name: &str| {
        let mut modes = AttachMode::ALL.into_iter();
        modes.find(|mode| mode.name() == name).expect("a mode")
    };
    names.split(',').map(mode).collect()
}

/// The promised modes with a link.
fn link_modes() -> Vec<AttachMode> {
    promised()
        .into_iter()
        .filter(|mode| mode.uses_link())
        .collect()
}

/// What must not be left behind: trace events and file descriptors.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    events: String,
    fds: Vec<String>,
}

impl Trace {
    fn now() -> Self {
        let events = fs::read_to_string(KPROBE_EVENTS).unwrap();
        Self {
            events,
            fds: fds().into_values().collect(),
        }
    }
}

/// The open file descriptors and what they are, but for the directory that is read for it.
fn fds() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let link = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(entry.path()).ok()?;
        Some((number, target.to_str().unwrap().to_owned()))
    };
    let open = entries.filter_map(|entry| link(entry.unwrap()));
    open.filter(|(_, target)| !target.ends_with("/fd"))
        .collect()
}

/// Runs a test and fails if it leaves something behind.
fn clean<T>(test: impl FnOnce() -> T) -> T {
    let before = Trace::now();
    let result = test();
    assert_eq!(Trace::now(), before);
    result
}

/// Runs a test in a thread of its own, for what that does to the thread.
fn in_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(test).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A kernel that has been asked everything: from here on it makes the system calls of plans alone,
/// and what it keeps open is open.
fn asked() -> Kernel {
    let kernel = Kernel::new();
    let _ = kernel.features();
    kernel
}

/// Loads `counters[index] += 1`.
fn counting(counters: &Array, index: i32) -> Program {
    counting_at(counters, &[insn::store_imm_u32(insn::R10, -8, index)], -8)
}

/// Loads `counters[cookie] += 1`.
fn counting_by_cookie(counters: &Array) -> Program {
    const GET_ATTACH_COOKIE: i32 = 174;
    // The key is the low half of the cookie.
    let low_half = if cfg!(target_endian = "little") {
        -8
    } else {
        -4
    };
    let key = [
        insn::call(GET_ATTACH_COOKIE),
        insn::store_u64(insn::R10, -8, insn::R0),
    ];
    counting_at(counters, &key, low_half)
}

/// Loads `counters[key] += 1`, where `key` is instructions that put the u32 on the stack, at this
/// place.
fn counting_at(counters: &Array, key: &[Insn<'_>], at: i32) -> Program {
    const MAP_LOOKUP_ELEM: i32 = 1;
    let [map, map_end] = insn::load_map(insn::R1, counters);
    let count = [
        map,
        map_end,
        insn::mov(insn::R2, insn::R10),
        insn::add_imm(insn::R2, at),
        insn::call(MAP_LOOKUP_ELEM),
        insn::jump_if_eq_imm(insn::R0, 0, 2),
        insn::mov_imm(insn::R1, 1),
        insn::atomic_add_u64(insn::R0, 0, insn::R1),
        insn::mov_imm(insn::R0, 0),
        insn::exit(),
    ];
    load(&[key, &count].concat())
}

fn load(insns: &[Insn<'_>]) -> Program {
    let mut log = vec![0; 1 << 16];
    let named = Load::new(insns, c"GPL").name("vm_test").unwrap();
    let loaded = named.log(&mut log).load();
    loaded.unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&log)))
}

/// A program that counts, and its counter.
struct Counter {
    program: Program,
    counters: Array,
}

impl Counter {
    fn new() -> Self {
        let counters = Array::create(1).unwrap();
        Self {
            program: counting(&counters, 0),
            counters,
        }
    }

    fn hits(&self) -> u64 {
        self.counters.get(0).unwrap()
    }

    /// The hits, and those that the kernel kept from the program: for tests beside whose function
    /// others are in system calls on maps, which a kernel of today may preempt.
    fn hits_or_misses(&self) -> u64 {
        let missed = self.program.recursion_misses().unwrap();
        self.hits() + missed.unwrap_or_default()
    }

    fn attach(&self, kernel: &Kernel, target: Target<'_>, opts: &KprobeOpts) -> KprobeLink {
        let attached = kernel.attach_kprobe(&self.program, target, opts);
        attached.unwrap_or_else(|error| panic!("{target} {opts:?}: {error}"))
    }
}

/// Writes a line to `kprobe_events`, as any other tool would.
fn define(line: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.append(true).open(KPROBE_EVENTS).unwrap();
    std::io::Write::write_all(&mut &file, line.as_bytes())
        .unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// The level of paranoia: whom `perf_event_open(2)` serves.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// A switch of the kernel, which is put back whatever happens.
struct Switch(&'static str, String);

impl Switch {
    /// [`None`] where the kernel refuses.
    fn set(path: &'static str, value: &str) -> Option<Self> {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value).ok()?;
        Some(Self(path, before))
    }

    /// `kernel.perf_event_paranoid`
    fn paranoid(level: &str) -> Self {
        Self::set(PARANOID, level).unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        fs::write(self.0, &self.1).unwrap();
    }
}

/// Waits for what comes in a moment.
fn wait_until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 20, "it does not come");
        std::thread::yield_now();
    }
}

/// A figure for the one who reads the log of the machine; what a test that passes prints otherwise
/// is not shown.
fn report(text: std::fmt::Arguments<'_>) {
    let line = format!("\nmeasured: {text}\n");
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
}

/// The lines of `/proc/kallsyms`: address, type, name, module.
fn kallsyms() -> Vec<(u64, char, String, Option<String>)> {
    let text = fs::read_to_string("/proc/kallsyms").unwrap();
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let kind = words.next()?.chars().next()?;
        Some((
            address,
            kind,
            words.next()?.to_owned(),
            words.next().map(str::to_owned),
        ))
    };
    text.lines().filter_map(line).collect()
}

/// The address of a function.
fn address_of(name: &str) -> u64 {
    let symbols = kallsyms();
    let found = symbols.iter().find(|(_, _, symbol, _)| symbol == name);
    found.unwrap_or_else(|| panic!("{name} in kallsyms")).0
}
