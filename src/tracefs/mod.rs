//! Trace events: the grammar of their files, how an event is defined and removed, and how the
//! events of dead processes are swept.

mod event;
mod kprobe_events;
mod sweep;

pub use event::{Definition, EventLine, EventName};
#[cfg(fuzzing)]
pub use event::{ErrorLogLine, error_log_errno, error_log_line, profile_missed};
pub use sweep::{Swept, sweep, sweep_dry_run};

pub(crate) use event::{EventPath, ID_LEN, IdPath, Removal, WRITTEN_LEN};
pub(crate) use kprobe_events::{TraceEvent, open_kprobe_events, takes_maxactive};
pub(crate) use sweep::{no_tracefs, removed_only, sweep_in};
