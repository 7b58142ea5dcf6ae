//! The steps at which something can fail.

use core::fmt;

use crate::text::texts;

/// The step at which something failed. Its name, as printed and as in the program's JSON, is
/// [`Step::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The request itself is wrong; no system call was made.
    Request,
    /// The kernel lacks what the request needs, or a probe could not tell; nothing was changed.
    ProbeKernel,
    /// Reading `/proc/kallsyms`
    ResolveSymbol,
    /// `BPF_PROG_LOAD`
    LoadProgram,
    /// `BPF_OBJ_GET` or `BPF_PROG_GET_FD_BY_ID` of a program
    OpenProgram,
    /// `BPF_OBJ_GET` of a pinned link
    OpenLink,
    /// `perf_event_open(2)`
    PerfEventOpen,
    /// `BPF_LINK_CREATE`
    LinkCreate,
    /// The ioctl `PERF_EVENT_IOC_SET_BPF`
    SetBpf,
    /// The write that defines an event in `kprobe_events`
    CreateEvent,
    /// Reading the id of an event just defined
    ReadEventId,
    /// The write that removes an event from `kprobe_events`
    RemoveEvent,
    /// `BPF_OBJ_PIN`, and what it takes to get there
    Pin,
    /// `BPF_OBJ_GET_INFO_BY_FD`, `BPF_TASK_FD_QUERY` or `kprobe_profile`: what the kernel tells of
    /// a link
    LinkInfo,
    /// `BPF_MAP_CREATE` or `BPF_MAP_LOOKUP_ELEM`
    Map,
}

impl Step {
    texts! {
        /// The name that scripts may rely on, such as `perf_event_open` or `create-event`.
        #[must_use]
        pub fn name(Step) {
            Request => "request",
            ProbeKernel => "probe-kernel",
            ResolveSymbol => "resolve-symbol",
            LoadProgram => "load-program",
            OpenProgram => "open-program",
            OpenLink => "open-link",
            PerfEventOpen => "perf_event_open",
            LinkCreate => "link-create",
            SetBpf => "set-bpf",
            CreateEvent => "create-event",
            ReadEventId => "read-event-id",
            RemoveEvent => "remove-event",
            Pin => "pin",
            LinkInfo => "link-info",
            Map => "map",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
