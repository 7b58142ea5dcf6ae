//! Events defined in tracefs.

pub(crate) mod event;
pub(crate) mod kprobe_events;
pub(crate) mod sweep;
