//! Why: in every situation each mode names the true cause, and `explain` proves it. The table of
//! `src/guide/causes.md`, row by row.

mod kernel;
mod place;

use std::fs;

use kprobe_attach::error::Cause;
use kprobe_attach::explain::{Case, Evidence, Explanation, Suggestion};
use kprobe_attach::{AttachMode, Kernel, KprobeOpts, Target};

use crate::machine::{Counter, KPROBES, asked, clean, promised};

/// What becomes of an attach in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is refused for this cause, as both the attach and `explain` tell.
    Refused(Cause),
    Attaches,
}

use Outcome::{Attaches, Refused};

/// Explains a probe in every promised mode, with one reading of the symbols.
fn in_modes(
    kernel: &Kernel,
    target: Target<'_>,
    opts: KprobeOpts,
) -> Vec<(AttachMode, Explanation)> {
    let modes = promised();
    let mut cases: Vec<_> = { modes.iter() }
        .map(|mode| Case::new(target, &opts.attach_mode(*mode)))
        .collect();
    let explanations = kernel.explain_all(&mut cases);
    modes.into_iter().zip(explanations).collect()
}

/// Attaches in every promised mode, and explains it. Answers the explanations.
fn row(
    target: Target<'_>,
    opts: KprobeOpts,
    expected: impl Fn(AttachMode) -> Outcome,
) -> Vec<(AttachMode, Explanation)> {
    let kernel = asked();
    let counter = Counter::new();
    let attach = |mode: AttachMode| {
        let opts = opts.attach_mode(mode);
        let attach = || kernel.attach_kprobe(&counter.program, target, &opts);
        clean(|| attach().map(drop))
    };
    let attached: Vec<_> = promised().into_iter().map(attach).collect();
    let probes = fs::read_to_string(KPROBES).unwrap();
    let explanations = clean(|| in_modes(&kernel, target, opts));
    assert_eq!(fs::read_to_string(KPROBES).unwrap(), probes, "{target}");
    for ((mode, explanation), attached) in explanations.iter().zip(attached) {
        let what = format!("{target} {opts:?} {mode}");
        let told = explanation
            .refusal()
            .map(|error| (error.step(), error.cause()));
        match (expected(*mode), attached) {
            (Attaches, Ok(())) => assert_eq!(told, None, "{what}"),
            (Refused(cause), Err(error)) => {
                assert_eq!(error.cause(), cause, "{what}: {error}");
                assert_eq!(told, Some((error.step(), cause)), "{what}");
            }
            (expected, attached) => panic!("{what}: {attached:?}, not {expected:?}"),
        }
    }
    explanations
}

/// Whether an explanation has evidence of a kind.
fn has(explanation: &Explanation, is: impl Fn(&Evidence<'_>) -> bool) -> bool {
    explanation.evidence().any(|evidence| is(&evidence))
}

fn suggestions(explanation: &Explanation) -> Vec<&str> {
    explanation.suggestions().map(Suggestion::as_str).collect()
}

fn symbol(name: &str) -> Target<'_> {
    Target::symbol(name).unwrap()
}

const ENTRY: KprobeOpts = KprobeOpts::new();

/// Whether a probe at a function's entry is by ftrace.
pub(crate) const PROBES_BY_FTRACE: bool =
    cfg!(not(any(target_arch = "aarch64", target_arch = "arm")));
