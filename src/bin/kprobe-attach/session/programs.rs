//! The programs of `attach`: one that is loaded already, or those of an object.

use core::ffi::CStr;

use kprobe_attach::bpf::Program;
#[cfg(feature = "object")]
use kprobe_attach::bpf::object::Loaded;
use kprobe_attach::{Error, Kernel};

#[cfg(feature = "object")]
use super::object;
use crate::cli::{Args, Opt, decimal};
use crate::out::Output;
use crate::rt::{Slots, Start, given_fd};

/// Holds the programs to attach, and the maps of their object.
#[derive(Debug)]
#[cfg_attr(not(feature = "object"), allow(dead_code))]
pub(crate) struct Programs<'a> {
    first: Program,
    others: Slots<Program>,
    object: Option<Loaded<'a>>,
}

/// A program without the feature loads none.
#[cfg(not(feature = "object"))]
type Loaded<'a> = core::marker::PhantomData<&'a ()>;

impl<'a> Programs<'a> {
    /// Opens the program, or loads those of the object.
    ///
    /// # Errors
    ///
    /// It cannot be opened or loaded, and that has been reported.
    #[cfg_attr(not(feature = "object"), allow(unused_variables))]
    pub(crate) fn open(
        start: &Start,
        args: &Args<'a>,
        kernel: &Kernel,
        out: &mut Output,
    ) -> Result<Self, ()> {
        #[cfg(feature = "object")]
        if args.has(Opt::Object) {
            let (first, others, loaded) = object::load(start, args, kernel, out)?;
            return Ok(Self {
                first,
                others,
                object: Some(loaded),
            });
        }
        let first = open(args.value(Opt::Program).unwrap_or_default()).map_err(|error| {
            // A person gets one message, and a script gets a line for each probe.
            let reports = if args.report.json {
                args.probe_count
            } else {
                1
            };
            for probe in args.probes().take(reports) {
                args.report.error(out, Some(probe), &error);
            }
        })?;
        kernel.ask_perf_link(&first);
        Ok(Self {
            first,
            // It maps nothing.
            others: Slots::map(0).map_err(|_| ())?,
            object: None,
        })
    }

    /// Returns the program at an index.
    pub(crate) fn get(&self, index: usize) -> &Program {
        let other = index.checked_sub(1);
        let other = other.and_then(|index| self.others.as_slice().get(index));
        other.unwrap_or(&self.first)
    }
}

#[cfg_attr(
    not(feature = "object"),
    allow(unused_variables, clippy::unnecessary_wraps, clippy::unused_self)
)]
impl Programs<'_> {
    /// Pins every map of the object in the working directory, which is `dir`, or pins none.
    ///
    /// # Errors
    ///
    /// One of them cannot be pinned, and it has been reported.
    pub(crate) fn pin_maps(&self, args: &Args<'_>, out: &mut Output, dir: &CStr) -> Result<(), ()> {
        #[cfg(feature = "object")]
        if let Some(loaded) = &self.object {
            return object::pin_maps(loaded, args, out, dir);
        }
        Ok(())
    }

    /// Prints a line for each map of the object: its id, and its pin if there is one.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub(crate) fn print_maps(&self, args: &Args<'_>, out: &mut Output) -> Result<(), ()> {
        #[cfg(feature = "object")]
        if let Some(loaded) = &self.object {
            return object::print_maps(loaded, args, out).map_err(|core::fmt::Error| ());
        }
        Ok(())
    }
}

/// Opens a program by `id:N`, by `fd:N`, or by the path of its pin.
fn open(program: &CStr) -> Result<Program, Error> {
    let number = |prefix: &[u8]| {
        let digits = program.to_bytes().strip_prefix(prefix)?;
        u32::try_from(decimal(digits)?).ok()
    };
    if let Some(id) = number(b"id:") {
        Program::open_id(id)
    } else if let Some(fd) = number(b"fd:") {
        Program::from_fd(given_fd(fd))
    } else {
        Program::open_pinned(program)
    }
}
