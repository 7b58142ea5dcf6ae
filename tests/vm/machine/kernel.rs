//! The kernel of the machine: the promises, the symbols, the switches.

use std::fs;

use kprobe_attach::{AttachMode, Kernel};

/// The kernel's short name in `ci/kernels.txt`.
pub(crate) fn kernel_name() -> String {
    std::env::var("KPROBE_ATTACH_KERNEL").expect("set by ci/init")
}

/// The version of the running kernel, major and minor.
pub(crate) fn version() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The modes that this kernel is promised to offer.
pub(crate) fn promised() -> Vec<AttachMode> {
    let names = std::env::var("KPROBE_ATTACH_MODES").expect("set by ci/init");
    let mode = |name: &str| {
        let mut modes = AttachMode::ALL.into_iter();
        modes.find(|mode| mode.name() == name).expect("a mode")
    };
    names.split(',').map(mode).collect()
}

/// The promised modes with a link.
pub(crate) fn link_modes() -> Vec<AttachMode> {
    promised()
        .into_iter()
        .filter(|mode| mode.uses_link())
        .collect()
}

/// Whether the kernel tells the place of a probe in this mode: of a link since Linux 6.6, and of a
/// perf event ever.
pub(crate) fn tells_place(mode: AttachMode) -> bool {
    !mode.uses_link() || version() >= (6, 6)
}

/// How far behind its symbol a call within the kernel enters a function.
pub(crate) const LOCAL_ENTRY: u64 = if cfg!(target_arch = "powerpc64") {
    8
} else {
    0
};

/// A kernel that has been asked everything: from here on it makes the system calls of plans alone,
/// and what it keeps open is open.
pub(crate) fn asked() -> Kernel {
    let kernel = Kernel::new();
    let _ = kernel.features();
    kernel
}

/// The lines of `/proc/kallsyms`: address, type, name, module.
pub(crate) fn kallsyms() -> Vec<(u64, char, String, Option<String>)> {
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
pub(crate) fn address_of(name: &str) -> u64 {
    let symbols = kallsyms();
    let found = symbols.iter().find(|(_, _, symbol, _)| symbol == name);
    found.unwrap_or_else(|| panic!("{name} in kallsyms")).0
}

/// The level of paranoia: whom `perf_event_open(2)` serves.
pub(crate) const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// A switch of the kernel, which is put back whatever happens.
pub(crate) struct Switch(&'static str, String);

impl Switch {
    /// [`None`] where the kernel refuses.
    pub(crate) fn set(path: &'static str, value: &str) -> Option<Self> {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value).ok()?;
        Some(Self(path, before))
    }

    /// `kernel.perf_event_paranoid`
    pub(crate) fn paranoid(level: &str) -> Self {
        Self::set(PARANOID, level).unwrap()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        fs::write(self.0, &self.1).unwrap();
    }
}
