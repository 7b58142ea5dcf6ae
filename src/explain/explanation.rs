//! The answer of `explain`: the evidence, and probes to try instead.

use core::fmt;

use rustix::io::Errno;

use super::evidence::{Evidence, Question};
use crate::error::Error;
use crate::request::{AttachMode, MAX_SYMBOL_LEN, TargetBuf};
use crate::text::Buf;

/// Holds the text of a probe that can be tried instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion(Buf<{ MAX_SYMBOL_LEN + 32 }>);

impl Suggestion {
    /// Returns the text of the probe.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Answers whether a probe would attach, and if not, why: see
/// [`Kernel::explain`](crate::Kernel::explain).
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Explanation {
    pub(super) mode: Option<AttachMode>,
    pub(super) refusal: Option<Error>,
    facts: List<Fact, 12>,
    /// The function of this name, the function at the place of the probe, and a function of this
    /// name in another place, or a part of the function.
    function: Option<TargetBuf>,
    place: Option<TargetBuf>,
    other: Option<TargetBuf>,
    suggestions: List<Suggestion, 6>,
}

/// Holds evidence. The explanation owns its names.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Plain(Evidence<'static>),
    Function(u64),
    Elsewhere,
    Part,
    AddressIn(u64),
    OffsetIn(u64),
}

impl Explanation {
    pub(super) const fn new(mode: Option<AttachMode>) -> Self {
        Self {
            mode,
            refusal: None,
            function: None,
            place: None,
            other: None,
            facts: List::new(),
            suggestions: List::new(),
        }
    }

    /// Returns the mode of the trial: the requested one, or the first that the kernel and the
    /// request allow. Returns [`None`] if there is no such mode.
    #[must_use]
    pub const fn mode(&self) -> Option<AttachMode> {
        self.mode
    }

    /// Returns the error that an attach would meet. Its cause is the true one, as far as the
    /// evidence shows. Returns [`None`] if the probe would attach.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Lists the facts that were found, and the questions that are still open.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence<'_>> {
        self.facts.iter().filter_map(|fact| {
            Some(match fact {
                Fact::Plain(evidence) => *evidence,
                Fact::Function(at) => Evidence::Function(self.function.as_ref()?.as_target(), *at),
                Fact::Elsewhere => Evidence::Elsewhere(self.other.as_ref()?.as_target()),
                Fact::Part => Evidence::Part(self.other.as_ref()?.as_target()),
                Fact::AddressIn(from_start) => {
                    Evidence::AddressIn(self.place.as_ref()?.as_target(), *from_start)
                }
                Fact::OffsetIn(from_start) => {
                    Evidence::OffsetIn(self.place.as_ref()?.as_target(), *from_start)
                }
            })
        })
    }

    /// Lists probes that may have been meant, with the most likely first.
    pub fn suggestions(&self) -> impl Iterator<Item = &Suggestion> {
        self.suggestions.iter()
    }

    pub(super) fn found(&mut self, evidence: Evidence<'static>) {
        self.facts.push(Fact::Plain(evidence));
    }

    /// Notes that this function has the name, or that it is the first of those that have it.
    pub(super) fn found_function(&mut self, function: &TargetBuf, at: u64) {
        self.function = Some(function.clone());
        self.facts.push(Fact::Function(at));
    }

    /// Notes that the function is in this place, which was not asked for.
    pub(super) fn found_elsewhere(&mut self, function: &TargetBuf) {
        self.other = Some(function.clone());
        self.facts.push(Fact::Elsewhere);
    }

    /// Notes that the rest of the function is in this part.
    pub(super) fn found_part(&mut self, part: &TargetBuf) {
        self.other = Some(part.clone());
        self.facts.push(Fact::Part);
    }

    /// Notes that the address is in this function, at this many bytes from its start.
    pub(super) fn found_address_in(&mut self, function: &TargetBuf, from_start: u64) {
        self.place = Some(function.clone());
        self.facts.push(Fact::AddressIn(from_start));
    }

    /// Notes that the offset leads into this function, which is another one.
    pub(super) fn found_offset_in(&mut self, function: &TargetBuf, from_start: u64) {
        self.place = Some(function.clone());
        self.facts.push(Fact::OffsetIn(from_start));
    }

    pub(super) fn stays_open(&mut self, question: Question, errno: Errno) {
        self.found(Evidence::Open(question, errno));
    }

    /// Notes the question if it has no answer. Returns the answer otherwise.
    pub(super) fn ask<'a, T>(
        &mut self,
        question: Question,
        answer: &'a Result<T, Errno>,
    ) -> Option<&'a T> {
        if let Err(errno) = answer {
            self.stays_open(question, *errno);
        }
        answer.as_ref().ok()
    }

    pub(super) fn suggest(&mut self, kind: &str, place: &dyn fmt::Display) {
        // A text that does not fit is not a probe.
        if let Ok(text) = Buf::of(format_args!("{kind}{place}")) {
            self.suggestions.push(Suggestion(text));
        }
    }
}

/// Holds at most `N` items. Later items are less likely, and are left out.
#[derive(Clone, Debug)]
struct List<T, const N: usize>([Option<T>; N]);

impl<T, const N: usize> List<T, N> {
    const fn new() -> Self {
        Self([const { None }; N])
    }

    fn push(&mut self, item: T) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(item);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(Option::as_ref)
    }
}
