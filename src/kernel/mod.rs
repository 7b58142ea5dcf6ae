//! What there is: the features of the running kernel, as far as this process may use them, found by asking for each.
//!
//! No probe has a side effect: none creates an event, arms a probe, or leaves anything open but the directories of tracefs and
//! sysfs.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use rustix::thread::CpuSet;

use crate::bpf::program::Program;
use crate::diagnose::denied::{DUMMY_EVENT, perf_event_denied};
use crate::error::cause::{Cause, bpf_cause, kprobe_events_cause, out_of};
use crate::error::{Error, Failure};
use crate::link::KprobeLink;
use crate::mount::{Mount, open_read};
use crate::plan::{Need, Plan};
use crate::request::target::{self as request, AttachMode, KprobeOpts, Target};
use crate::sys;
use crate::sys::uapi::{BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION};
use crate::text::{decimal, read_small};
use crate::tracefs::kprobe_events::open_kprobe_events;

/// Whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is there, and this process may use it.
    Yes,
    /// It is not there, or not for this process.
    No(Reason),
    /// The probe could not tell.
    Unknown(Reason),
}

/// The errno that a probe met, and what it means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The errno.
    pub errno: Errno,
    /// Its meaning.
    pub cause: Cause,
}

impl Support {
    /// Whether the answer is yes.
    #[must_use]
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Yes)
    }

    /// Why it is not yes.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Yes => None,
            Self::No(reason) | Self::Unknown(reason) => Some(reason),
        }
    }

    const fn no(errno: Errno, cause: Cause) -> Self {
        Self::No(Reason { errno, cause })
    }

    const fn unknown(errno: Errno, cause: Cause) -> Self {
        Self::Unknown(Reason { errno, cause })
    }
}

/// The features of a kernel, as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `perf_event_open(2)` opens an event that is not bound to a process, as every mode does. It takes `CAP_PERFMON`
    /// (`CAP_SYS_ADMIN` before Linux 5.8, and with Debian's `perf_event_paranoid` of 3).
    pub perf_event: Support,
    /// A CPU that is online, to open events on: 0 if it is. The program runs on every CPU all the same.
    pub cpu: u32,
    /// The kprobe PMU: Linux 4.17 (commit e12f03d7031a).
    pub kprobe_pmu: Support,
    /// The type of the kprobe PMU: 6, and 8 since Linux 6.5.
    pub pmu_type: u32,
    /// The type that sysfs has for it, as a cross-check; the one that is used is the verified one.
    pub pmu_type_in_sysfs: Option<u32>,
    /// The bit of `config` that makes a return probe: always 0 so far. [`None`] where sysfs says something unreadable.
    pub retprobe_bit: Option<u8>,
    /// `BPF_LINK_CREATE` of a perf event, with a cookie: Linux 5.15 (commit b89fbfbb854c).
    pub perf_link: Support,
    /// tracefs is mounted, or can be had without a mount: Linux 4.1.
    pub tracefs: Support,
    /// `kprobe_events` in tracefs can be opened for writing.
    pub kprobe_events: Support,
    /// `kprobe.multi` links: Linux 5.18 (commit 0dcac2725406) with `CONFIG_FPROBE`.
    pub kprobe_multi: Support,
    /// `kprobe.session` links: Linux 6.10 (commit 535a3692ba72).
    pub kprobe_session: Support,
}

impl Features {
    /// One of the features that modes need.
    #[must_use]
    pub const fn support(&self, need: Need) -> Support {
        match need {
            Need::PerfEvent => self.perf_event,
            Need::KprobePmu => self.kprobe_pmu,
            Need::RetprobeBit => match self.retprobe_bit {
                Some(0..=63) => Support::Yes,
                _ => Support::unknown(Errno::INVAL, Cause::NoKprobePmu),
            },
            Need::PerfLink => self.perf_link,
            Need::Tracefs => self.tracefs,
            Need::KprobeEvents => self.kprobe_events,
        }
    }

    /// The first thing that a mode needs and that is not surely there, for an entry or a return probe.
    #[must_use]
    pub fn unmet(&self, mode: AttachMode, retprobe: bool) -> Option<(Need, Support)> {
        Need::of(mode, retprobe)
            .map(|need| (need, self.support(need)))
            .find(|(_, support)| !support.is_yes())
    }

    /// Whether a mode can be used at all.
    #[must_use]
    pub fn mode(&self, mode: AttachMode) -> Support {
        self.unmet(mode, false)
            .map_or(Support::Yes, |(_, support)| support)
    }

    /// The mode of a plain entry probe when none is asked for.
    #[must_use]
    pub fn default_mode(&self) -> Option<AttachMode> {
        AttachMode::ALL
            .into_iter()
            .find(|mode| self.mode(*mode).is_yes())
    }
}

/// The running kernel, probed once: its [`Features`], and its tracefs and sysfs where they are to be had.
///
/// To attach many probes, probe once and use [`Kernel::attach_kprobe`]: an attach by the PMU is then two system calls, and in
/// the mode [`Link`](AttachMode::Link) the close of the event's own file descriptor.
/// The names of tracefs events are told apart within one `Kernel`, so it is not to be shared over `fork(2)`: of two processes
/// that come to the same name, the second is refused with [`Cause::EventExists`].
#[derive(Debug)]
pub struct Kernel {
    features: Features,
    tracefs: Result<Mount, Errno>,
    sysfs: Result<Mount, Errno>,
    /// The random part of the event group.
    group: u64,
    /// The number of the next event name.
    next_event: AtomicU32,
}

impl Kernel {
    /// Probes the running kernel, with programs of two instructions loaded for the purpose.
    ///
    /// It cannot fail: what a probe could not tell is [`Support::Unknown`] and has its errno. Where tracefs or sysfs is not mounted
    /// it is [mounted out of sight](Mount), before Linux 5.2 by a child process.
    #[must_use]
    pub fn probe() -> Self {
        Self::probe_for(None)
    }

    /// Probes the running kernel for a program that is loaded already, so that this process needs no right to load one.
    #[must_use]
    pub fn probe_with(prog: impl AsFd) -> Self {
        Self::probe_for(Some(prog.as_fd()))
    }

    fn probe_for(prog: Option<BorrowedFd<'_>>) -> Self {
        let (perf_event, cpu) = probe_perf_event();
        let sysfs = Mount::sysfs();
        let sysfs_dir = sysfs.as_ref().ok().map(AsFd::as_fd);
        let pmu_type_in_sysfs = sysfs_dir.and_then(sysfs_pmu_type);
        let (kprobe_pmu, pmu_type) = match perf_event {
            Support::Yes => probe_kprobe_pmu(cpu, pmu_type_in_sysfs),
            Support::No(reason) | Support::Unknown(reason) => (Support::Unknown(reason), 0),
        };
        let tracefs = Mount::tracefs();
        let tracefs_support = match &tracefs {
            Ok(_) => Support::Yes,
            Err(errno) => Support::no(*errno, Cause::NoTracefs),
        };
        let group = random();
        // A kernel may be built without file locks.
        let open_and_lock = |tracefs: &Mount| {
            let file = open_kprobe_events(tracefs.as_fd())?;
            sys::lock_byte(file.as_fd(), group >> 1)
        };
        let kprobe_events = match &tracefs {
            Ok(tracefs) => match open_and_lock(tracefs) {
                Ok(()) => Support::Yes,
                // A kernel that is locked down since boot has not made the files of tracefs.
                Err(Errno::NOENT) if kprobe_pmu == LOCKED_DOWN => {
                    Support::no(Errno::NOENT, Cause::Lockdown)
                }
                Err(errno) => Support::no(errno, kprobe_events_cause(errno)),
            },
            Err(_) => tracefs_support,
        };
        let features = Features {
            perf_event,
            cpu,
            kprobe_pmu,
            pmu_type,
            pmu_type_in_sysfs,
            retprobe_bit: sysfs_dir.map_or(Some(0), probe_retprobe_bit),
            perf_link: probe_perf_link(prog),
            tracefs: tracefs_support,
            kprobe_events,
            kprobe_multi: probe_multi(BPF_TRACE_KPROBE_MULTI),
            kprobe_session: probe_multi(BPF_TRACE_KPROBE_SESSION),
        };
        Self {
            features,
            tracefs,
            sysfs,
            group,
            next_event: AtomicU32::new(0),
        }
    }

    /// A kernel that has these features and need not be the running one: for plans only, since it has no tracefs directory.
    #[must_use]
    pub const fn with_features(features: Features) -> Self {
        Self {
            features,
            tracefs: Err(Errno::NOENT),
            sysfs: Err(Errno::NOENT),
            group: 0,
            next_event: AtomicU32::new(0),
        }
    }

    /// What the probes found.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// The tracefs that was found, or mounted where nobody sees it, and is held for as long as this value.
    ///
    /// # Errors
    ///
    /// There is none to be had, by the errno of [`Mount::tracefs`].
    pub fn tracefs(&self) -> Result<&Mount, Errno> {
        self.tracefs.as_ref().map_err(|errno| *errno)
    }

    /// The sysfs that was found, or mounted where nobody sees it, and is held for as long as this value.
    ///
    /// # Errors
    ///
    /// There is none to be had, by the errno of [`Mount::sysfs`]. Nothing but the cross-check of the PMU is lost then.
    pub fn sysfs(&self) -> Result<&Mount, Errno> {
        self.sysfs.as_ref().map_err(|errno| *errno)
    }

    /// Decides how a program would be attached, and with which system calls, without making one. What each mode and option
    /// needs is in the table of [`AttachMode`].
    ///
    /// # Errors
    ///
    /// [`Step::Request`](crate::Step::Request) for a request that contradicts itself or its mode;
    /// [`Step::ProbeKernel`](crate::Step::ProbeKernel) for one that this kernel does not serve.
    pub fn plan(&self, func: Target, opts: &KprobeOpts) -> Result<Plan<'_>, Error> {
        Plan::new(self, func, opts).map_err(|failure| failure.of(&func, opts))
    }

    /// Attaches a loaded program to a kernel function: libbpf's `bpf_program__attach_kprobe_opts`.
    ///
    /// # Errors
    ///
    /// Those of [`plan`](Self::plan) and of [`Plan::attach`].
    #[doc(alias = "bpf_program__attach_kprobe_opts")]
    pub fn attach_kprobe(
        &self,
        prog: impl AsFd,
        func: Target,
        opts: &KprobeOpts,
    ) -> Result<KprobeLink, Error> {
        Plan::new(self, func, opts)
            .and_then(|plan| KprobeLink::attach(&plan, prog.as_fd()))
            .map_err(|failure| failure.of(&func, opts))
    }

    pub(crate) fn tracefs_dir(&self) -> Option<BorrowedFd<'_>> {
        self.tracefs.as_ref().ok().map(AsFd::as_fd)
    }

    pub(crate) const fn group(&self) -> u64 {
        self.group
    }

    pub(crate) fn next_event(&self) -> u32 {
        self.next_event.fetch_add(1, Ordering::Relaxed)
    }
}

/// Attaches a loaded program to a kernel function: probes the kernel, plans, and attaches. To attach several, probe once
/// with [`Kernel::probe_with`] and use [`Kernel::attach_kprobe`].
///
/// `prog` is a loaded program of type `BPF_PROG_TYPE_KPROBE`, whoever loaded it.
///
/// # Errors
///
/// Those of [`Kernel::plan`] and of [`Plan::attach`].
///
/// # Minimum kernel
///
/// Linux 4.1; what each mode and option needs is in the table of [`AttachMode`].
#[doc(alias = "bpf_program__attach_kprobe_opts")]
pub fn attach_kprobe(
    prog: impl AsFd,
    func: Target,
    opts: &KprobeOpts,
) -> Result<KprobeLink, Error> {
    // Before the first system call, of which probing makes some.
    request::check_request(&func, opts)
        .map_err(|invalid| Failure::invalid(invalid).of(&func, opts))?;
    Kernel::probe_with(&prog).attach_kprobe(prog, func, opts)
}

/// May this process open an event on all processes, and on which CPU?
fn probe_perf_event() -> (Support, u32) {
    let (r#type, config) = DUMMY_EVENT;
    let open = |cpu| match sys::perf_event_open_config(r#type, config, cpu) {
        Ok(_) => Support::Yes,
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => Support::no(errno, perf_event_denied(errno)),
        Err(Errno::NOSYS) => Support::no(Errno::NOSYS, Cause::UnsupportedArch),
        Err(errno) => Support::unknown(errno, out_of(errno).unwrap_or(Cause::Unknown)),
    };
    match open(0) {
        // CPU 0 is offline; those that this thread may run on are not.
        Support::Unknown(reason) if reason.errno == Errno::NODEV => {
            let cpu = first_allowed_cpu().unwrap_or(0);
            (open(cpu), cpu)
        }
        support => (support, 0),
    }
}

fn first_allowed_cpu() -> Option<u32> {
    let cpus = rustix::thread::sched_getaffinity(None).ok()?;
    let first = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu))?;
    u32::try_from(first).ok()
}

/// The kprobe PMU, told from every other by two refusals: of a name longer than any symbol (E2BIG; the uprobe PMU says
/// ENAMETOOLONG of a path like it), and of a name at an invalid address (EFAULT). Needs no sysfs.
///
/// What sysfs says is tried last, for a kernel that has it nowhere near the others.
fn probe_kprobe_pmu(cpu: u32, in_sysfs: Option<u32>) -> (Support, u32) {
    let mut tried = Support::no(Errno::NOENT, Cause::NoKprobePmu);
    // 8 since Linux 6.5, 6 before; the rest in case a kernel has more named PMUs than those of today.
    for r#type in [8, 6, 7].into_iter().chain(9..=15).chain(in_sysfs) {
        match is_kprobe_pmu(r#type, cpu) {
            Ok(true) if is_locked_down(r#type, cpu) => {
                return (LOCKED_DOWN, r#type);
            }
            Ok(true) => return (Support::Yes, r#type),
            Ok(false) => {}
            Err(reason) => tried = Support::Unknown(reason),
        }
    }
    (tried, 0)
}

fn is_kprobe_pmu(r#type: u32, cpu: u32) -> Result<bool, Reason> {
    let mut letters = [b'z'; 601];
    if let Some(last) = letters.last_mut() {
        *last = 0;
    }
    let too_long = CStr::from_bytes_until_nul(&letters).unwrap_or_default();
    let at = sys::KprobeAt::Symbol(too_long, 0);
    // An event that does open is of another PMU: it is disabled, and closed here.
    match sys::perf_event_open_kprobe(r#type, 0, at, cpu).map(drop) {
        Err(Errno::TOOBIG) => {}
        Ok(()) => return Ok(false),
        Err(errno) => {
            // What says nothing of the process or the machine is another PMU's answer.
            let cause = match errno {
                Errno::ACCESS | Errno::PERM => Some(perf_event_denied(errno)),
                errno => out_of(errno),
            };
            return cause.map_or(Ok(false), |cause| Err(Reason { errno, cause }));
        }
    }
    Ok(sys::perf_event_open_bad_address(r#type, cpu).map(drop) == Err(Errno::FAULT))
}

/// The kprobe PMU of a kernel that is locked down.
const LOCKED_DOWN: Support = Support::no(Errno::PERM, Cause::Lockdown);

/// Whether the kernel is locked down against kprobes (Linux 5.4, `lockdown=confidentiality`), which it says after it has
/// found the function and before it looks at the rest: here that a return probe is not at the function's entry, so that
/// there is no probe either way.
fn is_locked_down(r#type: u32, cpu: u32) -> bool {
    const RETPROBE: u64 = 1;
    // On a system call's path since the first kernels with kprobes.
    let at = sys::KprobeAt::Symbol(c"vfs_read", 1);
    sys::perf_event_open_kprobe(r#type, RETPROBE, at, cpu).map(drop) == Err(Errno::PERM)
}

/// A file of the kprobe PMU in sysfs, read into `text`.
fn read_sysfs_pmu<'a>(
    sysfs: BorrowedFd<'_>,
    path: &CStr,
    text: &'a mut [u8; 32],
) -> Result<&'a [u8], Errno> {
    let file = open_read(sysfs, path)?;
    let len = read_small(&file, text)?;
    Ok(text.get(..len).unwrap_or_default())
}

/// The type as sysfs has it.
fn sysfs_pmu_type(sysfs: BorrowedFd<'_>) -> Option<u32> {
    let path = c"bus/event_source/devices/kprobe/type";
    parse_pmu_type(read_sysfs_pmu(sysfs, path, &mut [0; 32]).ok()?)
}

/// The retprobe bit: what sysfs says, and 0 without it, as on every kernel so far.
fn probe_retprobe_bit(sysfs: BorrowedFd<'_>) -> Option<u8> {
    let path = c"bus/event_source/devices/kprobe/format/retprobe";
    match read_sysfs_pmu(sysfs, path, &mut [0; 32]) {
        Ok(text) => parse_retprobe_format(text),
        Err(Errno::NOENT | Errno::NOTDIR) => Some(0),
        Err(_) => None,
    }
}

/// `type`: a decimal number and a newline.
pub fn parse_pmu_type(text: &[u8]) -> Option<u32> {
    decimal(text.strip_suffix(b"\n")?)
}

/// `format/retprobe`: `config:BIT` and a newline.
pub fn parse_retprobe_format(text: &[u8]) -> Option<u8> {
    decimal(text.strip_prefix(b"config:")?.strip_suffix(b"\n")?).filter(|bit| *bit < 64)
}

/// Perf links: the kernel looks at the attach type, which it may not know (EINVAL), before it looks at the perf event,
/// which is none (EBADF). libbpf's `probe_perf_link`.
fn probe_perf_link(prog: Option<BorrowedFd<'_>>) -> Support {
    let answer = |prog| match sys::link_create_perf_event(prog, None, 0) {
        Err(Errno::BADF) => Support::Yes,
        Err(Errno::INVAL) => Support::no(Errno::INVAL, Cause::NoPerfLink),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoPerfLink)),
        // The kernel made a link to nothing.
        Ok(_) => Support::unknown(Errno::INVAL, Cause::NoPerfLink),
    };
    let of_caller = prog.map(answer);
    if let Some(Support::Yes) = of_caller {
        return Support::Yes;
    }
    // EINVAL may be for the caller's program, if it is none for kprobes: ask with one that is.
    match (Program::load_nop(0), of_caller) {
        (Ok(nop), _) => answer(nop.as_fd()),
        (Err(_), Some(support)) => support,
        (Err(error), None) => Support::unknown(error.errno(), error.cause()),
    }
}

/// `kprobe.multi` and `kprobe.session`: a kernel that has them gets as far as reading the symbols, which are nowhere.
fn probe_multi(attach_type: u32) -> Support {
    let nop = match Program::load_nop(attach_type) {
        Ok(nop) => nop,
        Err(error) if error.errno() == Errno::INVAL => {
            return Support::no(Errno::INVAL, Cause::NoKprobeMulti);
        }
        Err(error) => return Support::unknown(error.errno(), error.cause()),
    };
    match sys::link_create_multi_bad_address(nop.as_fd(), attach_type).map(drop) {
        Err(Errno::FAULT) => Support::Yes,
        Err(errno @ (Errno::INVAL | Errno::OPNOTSUPP)) => Support::no(errno, Cause::NoKprobeMulti),
        Err(errno) => Support::unknown(errno, bpf_cause(errno, Cause::NoKprobeMulti)),
        Ok(()) => Support::unknown(Errno::INVAL, Cause::NoKprobeMulti),
    }
}

/// A number that no other process is likely to have: of the kernel's random source, or early in boot, where that has
/// nothing to give yet, of what differs between processes: the id, the time, and where the stack is.
fn random() -> u64 {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK) == Ok(bytes.len()) {
        return u64::from_ne_bytes(bytes);
    }
    let pid = rustix::process::getpid().as_raw_pid().unsigned_abs();
    let uptime = rustix::system::sysinfo().uptime;
    let stack = core::ptr::from_ref(&bytes).addr();
    // The multiplier of splitmix64 spreads each over all the bits.
    [
        u64::from(pid),
        u64::try_from(uptime).unwrap_or_default(),
        stack as u64,
    ]
    .into_iter()
    .fold(0, |mixed: u64, part| {
        (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysfs_text_is_read_strictly() {
        assert_eq!(parse_pmu_type(b"8\n"), Some(8));
        for text in [
            &b""[..],
            b"8",
            b"\n",
            b"-1\n",
            b"4294967297\n",
            b"8 \n",
            b"software\n",
        ] {
            assert_eq!(parse_pmu_type(text), None);
        }
        assert_eq!(parse_retprobe_format(b"config:0\n"), Some(0));
        assert_eq!(parse_retprobe_format(b"config:63\n"), Some(63));
        for text in [
            &b""[..],
            b"config:\n",
            b"config:64\n",
            b"config1:7\n",
            b"config:0-3\n",
            b"config:0",
            b"0\n",
        ] {
            assert_eq!(parse_retprobe_format(text), None);
        }
    }
}
