//! Output: results to standard output, messages for people to standard error, and JSON.

mod format;
#[path = "../../../numbers.rs"]
mod numbers;
mod report;
mod stream;

pub(crate) use format::{Blanks, Json, Lossy, Now, OrNull, Shown};
pub(crate) use numbers::{Decimal, Hex};
pub(crate) use report::{Report, function_fields};
#[cfg(not(feature = "std"))]
pub(crate) use stream::bug;
pub(crate) use stream::{Output, message, message_of_names, notice};
