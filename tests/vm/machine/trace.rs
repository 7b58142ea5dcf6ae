//! Trace events, probes and descriptors: the traces that a test may not leave behind.

use std::collections::BTreeMap;
use std::fs;

use kprobe_attach::tracefs::EventLine;

/// The probes of the kernel, whoever made them.
pub(crate) const KPROBES: &str = "/sys/kernel/debug/kprobes/list";

/// The events of the kernel, whoever defined them.
pub(crate) const KPROBE_EVENTS: &str = "/sys/kernel/tracing/kprobe_events";

/// What must not be left behind: trace events and file descriptors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) events: String,
    pub(crate) fds: Vec<String>,
}

impl Trace {
    pub(crate) fn now() -> Self {
        let events = fs::read_to_string(KPROBE_EVENTS).unwrap();
        Self {
            events,
            fds: fds().into_values().collect(),
        }
    }
}

/// The open file descriptors and what they are, but for the directory that is read for it.
pub(crate) fn fds() -> BTreeMap<u32, String> {
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
pub(crate) fn clean<T>(test: impl FnOnce() -> T) -> T {
    let before = Trace::now();
    let result = test();
    assert_eq!(Trace::now(), before);
    result
}

/// Writes a line to `kprobe_events`, as any other tool would.
pub(crate) fn define(line: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.append(true).open(KPROBE_EVENTS).unwrap();
    std::io::Write::write_all(&mut &file, line.as_bytes())
        .unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// Returns this crate's events.
pub(crate) fn ours() -> Vec<String> {
    let events = fs::read_to_string(KPROBE_EVENTS).unwrap();
    let ours = |line: &&str| EventLine::parse(line.as_bytes()).unwrap().is_ours();
    events.lines().filter(ours).map(str::to_owned).collect()
}

/// Events that other tools might have, in groups that are not ours although they look like it.
const OTHERS: [&str; 4] = [
    "p:kprobes/other vfs_read",
    "p:kprobe_attach/other vfs_read",
    "r:kprobe_attach_0123456789ABCDEF/probe_01234567_0 vfs_read",
    "p:kprobe_attach_0123456789abcdef0/probe_01234567_0 vfs_read",
];

/// Runs a test beside events of other tools, which must be there afterwards.
pub(crate) fn beside_others(test: impl FnOnce()) {
    let _others = Others::define();
    clean(test);
}

struct Others;

impl Others {
    fn define() -> Self {
        OTHERS.into_iter().for_each(define);
        Self
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for line in OTHERS {
            let name = line.split(' ').next().unwrap();
            define(&format!("-{}", &name[1..]));
        }
    }
}
