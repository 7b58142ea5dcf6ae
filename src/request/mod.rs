//! The request: a [`Target`], [`KprobeOpts`] and an [`AttachMode`].
//!
//! This module also has the rules that a request must keep, and reads a request from text or from a
//! C struct.

mod c_struct;
mod invalid;
mod mode;
mod multi;
mod names;
mod number;
mod opts;
mod pick;
mod rules;
mod spec;
mod target;

pub use invalid::{InText, Invalid, ParseError};
pub use mode::{AttachMode, Need};
pub use multi::{AttachType, Functions, GroupOpts, KprobeMultiOpts, MAX_FUNCTIONS, Policy};
pub use names::MAX_SYMBOL_LEN;
pub use opts::{KprobeOpts, MAX_MAXACTIVE};
pub use spec::Probe;
pub use target::{Target, TargetBuf};

pub use crate::sys::SymbolRef;

pub(crate) use multi::{check_functions, check_multi};
pub(crate) use pick::{Names, Pick};
pub(crate) use rules::{check_mode, check_request};
pub(crate) use target::VMLINUX;
