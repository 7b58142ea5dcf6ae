//! The tests that take minutes a kernel: `ci/run.sh vm` runs them, and `ci/run.sh test` does not.

mod inject;
mod kill;
mod many;
mod soak;
