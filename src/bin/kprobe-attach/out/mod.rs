//! Output: results to standard output, messages for people to standard error, and JSON.

mod format;
#[path = "../../../numbers.rs"]
mod numbers;
mod report;
mod stream;

pub(crate) use format::{Blanks, Json, Lossy, OrNull, Shown};
pub(crate) use numbers::{Decimal, Hex};
pub(crate) use report::{Report, function_fields};
pub(crate) use stream::{Output, bug, message, message_of_names, notice};
