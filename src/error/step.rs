//! The steps that can fail.

use core::fmt;

use crate::text::texts;

/// Names the step that failed.
///
/// [`Step::name`] returns its name, as messages and the program's JSON have it. Commands such as
/// `BPF_PROG_LOAD` are those of [`bpf(2)`].
///
/// [`bpf(2)`]: https://man7.org/linux/man-pages/man2/bpf.2.html
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The request is wrong. No system call was made.
    Request,
    /// The kernel does not have what the request needs, or a probe had no answer. Nothing was
    /// changed.
    ProbeKernel,
    /// Reads `/proc/kallsyms`.
    ResolveSymbol,
    /// Loads a program by `BPF_PROG_LOAD`.
    LoadProgram,
    /// Opens a program by `BPF_OBJ_GET` or `BPF_PROG_GET_FD_BY_ID`.
    OpenProgram,
    /// Opens a pinned link by `BPF_OBJ_GET`.
    OpenLink,
    /// Opens an event by [`perf_event_open(2)`].
    ///
    /// [`perf_event_open(2)`]: https://man7.org/linux/man-pages/man2/perf_event_open.2.html
    PerfEventOpen,
    /// Makes a link by `BPF_LINK_CREATE`.
    LinkCreate,
    /// Binds the program by the ioctl `PERF_EVENT_IOC_SET_BPF` of [`perf_event_open(2)`].
    ///
    /// [`perf_event_open(2)`]: https://man7.org/linux/man-pages/man2/perf_event_open.2.html
    SetBpf,
    /// Writes the line to `kprobe_events` that defines an event.
    CreateEvent,
    /// Reads the id of a newly defined event.
    ReadEventId,
    /// Writes the line to `kprobe_events` that removes an event, or looks for events to sweep.
    RemoveEvent,
    /// Closes a link in a child process.
    CloseLink,
    /// Pins an object by `BPF_OBJ_PIN`, or prepares its path.
    Pin,
    /// Reads what the kernel reports of a link, by `BPF_OBJ_GET_INFO_BY_FD`, `BPF_TASK_FD_QUERY` or
    /// `kprobe_profile`.
    LinkInfo,
    /// Makes or opens a map, or reads or writes its elements.
    Map,
    /// Reads an object. Nothing was changed.
    ReadObject,
}

impl Step {
    texts! {
        /// Returns the name that scripts can rely on, such as `perf_event_open` or `create-event`.
        #[must_use]
        pub fn name(Step) {
            Request => "request",
            ProbeKernel => "probe-kernel",
            ResolveSymbol => "resolve-symbol",
            ReadObject => "read-object",
            LoadProgram => "load-program",
            OpenProgram => "open-program",
            OpenLink => "open-link",
            PerfEventOpen => "perf_event_open",
            LinkCreate => "link-create",
            SetBpf => "set-bpf",
            CreateEvent => "create-event",
            ReadEventId => "read-event-id",
            RemoveEvent => "remove-event",
            CloseLink => "close-link",
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
