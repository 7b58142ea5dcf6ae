//! Probes that are held together. They are read, planned, and attached or pinned, all or none, and
//! detached together.

mod attached;
mod children;
mod descriptors;
mod found;
mod functions;
mod hold;
#[cfg(feature = "object")]
mod object;
mod pin;
mod pin_names;
mod print;
mod probes;
mod programs;
mod progress;
mod shared;

pub(crate) use attached::{Attached, Counts, Link, Session, Way};
pub(crate) use children::Followed;
pub(crate) use found::{Found, Known};
pub(crate) use functions::{function_memory, read_functions};
pub(crate) use hold::Hold;
#[cfg(feature = "object")]
pub(crate) use object::read_object;
pub(crate) use pin::{for_each_counter, labelled_counter, pin_all, report_dir};
pub(crate) use pin_names::label;
pub(crate) use print::{announce, print_all, print_choice, probe_fields};
pub(crate) use probes::{check, for_all, plan};
pub(crate) use programs::Programs;
pub(crate) use shared::{Kind, Members, Shared, Source};
