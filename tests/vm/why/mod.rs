//! Why: in every situation each mode names the true cause, and `explain` proves it. The table of
//! `src/guide/causes.md`, row by row.

mod kernel;
mod place;

use std::fs;

use kprobe_attach::error::Cause;
use kprobe_attach::explain::{Evidence, Explanation, Suggestion};
use kprobe_attach::{AttachMode, KprobeOpts, Target};

use crate::machine::{Counter, KPROBES, asked, clean, promised};

/// What becomes of an attach in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is refused for this cause, as both the attach and `explain` tell.
    Refused(Cause),
    Attaches,
}

use Outcome::{Attaches, Refused};

/// Attaches in every promised mode, and explains it. Answers the explanations.
fn row(
    target: Target<'_>,
    opts: KprobeOpts,
    expected: impl Fn(AttachMode) -> Outcome,
) -> Vec<(AttachMode, Explanation)> {
    let kernel = asked();
    let counter = Counter::new();
    let in_mode = |mode: AttachMode| {
        let opts = opts.attach_mode(mode);
        let what = format!("{target} {opts:?}");
        let attached = clean(|| {
            kernel
                .attach_kprobe(&counter.program, target, &opts)
                .map(drop)
        });
        let probes = fs::read_to_string(KPROBES).unwrap();
        let explanation = clean(|| kernel.explain(target, &opts));
        assert_eq!(fs::read_to_string(KPROBES).unwrap(), probes, "{what}");
        let told = explanation
            .refusal()
            .map(|error| (error.step(), error.cause()));
        match (expected(mode), attached) {
            (Attaches, Ok(())) => assert_eq!(told, None, "{what}"),
            (Refused(cause), Err(error)) => {
                assert_eq!(error.cause(), cause, "{what}: {error}");
                assert_eq!(told, Some((error.step(), cause)), "{what}");
            }
            (expected, attached) => panic!("{what}: {attached:?}, not {expected:?}"),
        }
        (mode, explanation)
    };
    promised().into_iter().map(in_mode).collect()
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
