//! From a step and an errno to the cause. Tables decide most cases; for the rest, the kernel is
//! asked a question that changes nothing.

mod cause;
mod denied;

pub(crate) use cause::{attach_error, bpf_cause, bpf_error, kprobe_events_cause, remove_cause};
pub(crate) use denied::{DUMMY_EVENT, has_capabilities, perf_event_denied};
