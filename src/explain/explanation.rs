//! The answer of `explain`: what was found out, and what to try instead.

use core::fmt;

use rustix::io::Errno;

use super::evidence::{Evidence, Question};
use crate::error::Error;
use crate::request::{AttachMode, MAX_SYMBOL_LEN, TargetBuf};
use crate::text::Buf;

/// A probe that may be tried instead, as its text.
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

/// Whether a probe would attach, and if not, why: see [`Kernel::explain`](crate::Kernel::explain).
#[derive(Clone, Debug)]
pub struct Explanation {
    pub(super) mode: Option<AttachMode>,
    pub(super) refusal: Option<Error>,
    /// The function that the name stands for, the one where the probe would be, and one of the name
    /// that is elsewhere.
    function: Option<TargetBuf>,
    place: Option<TargetBuf>,
    elsewhere: Option<TargetBuf>,
    facts: List<Fact, 12>,
    suggestions: List<Suggestion, 6>,
}

/// Evidence, whose name the explanation owns.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Plain(Evidence<'static>),
    Function(u64),
    Elsewhere,
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
            elsewhere: None,
            facts: List::new(),
            suggestions: List::new(),
        }
    }

    /// Returns the mode of the trial: the one that the kernel and the request leave, or that was
    /// asked for. [`None`] where there is none.
    #[must_use]
    pub const fn mode(&self) -> Option<AttachMode> {
        self.mode
    }

    /// Returns how an attach would fail, with the true cause as far as the evidence tells; [`None`]
    /// if it would not.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Lists what was found out, and what stayed open.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence<'_>> {
        self.facts.iter().filter_map(|fact| {
            Some(match fact {
                Fact::Plain(evidence) => *evidence,
                Fact::Function(at) => Evidence::Function(self.function.as_ref()?.as_target(), *at),
                Fact::Elsewhere => Evidence::Elsewhere(self.elsewhere.as_ref()?.as_target()),
                Fact::AddressIn(from_start) => {
                    Evidence::AddressIn(self.place.as_ref()?.as_target(), *from_start)
                }
                Fact::OffsetIn(from_start) => {
                    Evidence::OffsetIn(self.place.as_ref()?.as_target(), *from_start)
                }
            })
        })
    }

    /// Lists probes that may have been meant, the likeliest first.
    pub fn suggestions(&self) -> impl Iterator<Item = &Suggestion> {
        self.suggestions.iter()
    }

    pub(super) fn found(&mut self, evidence: Evidence<'static>) {
        self.facts.push(Fact::Plain(evidence));
    }

    /// The name stands for one function.
    pub(super) fn found_function(&mut self, function: &TargetBuf, at: u64) {
        self.function = Some(function.clone());
        self.facts.push(Fact::Function(at));
    }

    /// The function is not where it was asked for, but there.
    pub(super) fn found_elsewhere(&mut self, function: &TargetBuf) {
        self.elsewhere = Some(function.clone());
        self.facts.push(Fact::Elsewhere);
    }

    /// The address is in this function, so many bytes from its start.
    pub(super) fn found_address_in(&mut self, function: &TargetBuf, from_start: u64) {
        self.place = Some(function.clone());
        self.facts.push(Fact::AddressIn(from_start));
    }

    /// The offset leads into this function, which is another one.
    pub(super) fn found_offset_in(&mut self, function: &TargetBuf, from_start: u64) {
        self.place = Some(function.clone());
        self.facts.push(Fact::OffsetIn(from_start));
    }

    pub(super) fn stays_open(&mut self, question: Question, errno: Errno) {
        self.found(Evidence::Open(question, errno));
    }

    /// Takes note of an answer, or of the question.
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
        // What does not fit is no probe.
        if let Ok(text) = Buf::of(format_args!("{kind}{place}")) {
            self.suggestions.push(Suggestion(text));
        }
    }
}

/// At most `N` of something; what comes after is the less likely, and left out.
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
