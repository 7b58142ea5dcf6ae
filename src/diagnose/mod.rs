//! From an errno to its cause, by asking the kernel more.

pub(crate) mod denied;
