//! Which mode is chosen: every combination of features and request, against a table written out by
//! hand.

#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::{Features, Reason, Support};
use kprobe_attach::request::Need;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Target};

const NO: Support = Support::No(Reason {
    errno: Errno::NOENT,
    cause: Cause::Unknown,
});
const UNKNOWN: Support = Support::Unknown(Reason {
    errno: Errno::PERM,
    cause: Cause::NoPermission,
});

/// A kernel with or without a PMU, perf links and tracefs; `missing` is what it answers where it
/// has not.
fn features([pmu, link, tracefs]: [bool; 3], missing: Support) -> Features {
    let support = |there, cause| match (there, missing) {
        (true, _) => Support::Yes,
        (false, Support::No(reason)) => Support::No(Reason { cause, ..reason }),
        (false, missing) => missing,
    };
    let mut features = Features::everything();
    features.kprobe_pmu = support(pmu, Cause::NoKprobePmu);
    features.perf_link = support(link, Cause::NoPerfLink);
    features.tracefs = support(tracefs, Cause::NoTracefs);
    features.kprobe_events = support(tracefs, Cause::NoKprobeEvents);
    features.kprobe_multi = missing;
    features.kprobe_session = missing;
    features
}

/// The requests of the columns: a plain one, with a cookie, with a maxactive, with both.
fn requests() -> [KprobeOpts; 4] {
    let plain = KprobeOpts::new().retprobe(true);
    [
        plain,
        plain.bpf_cookie(7),
        plain.maxactive(64),
        plain.bpf_cookie(7).maxactive(64),
    ]
}

/// The mode's name, or the cause of the refusal.
fn choice(features: Features, opts: &KprobeOpts) -> &'static str {
    let kernel = Kernel::with_features(features);
    match kernel.plan(Target::symbol("vfs_read").unwrap(), opts) {
        Ok(plan) => plan.mode().name(),
        Err(error) => error.cause().name(),
    }
}

/// For each combination of PMU, perf link and tracefs, the choice for each request.
type Table = [([bool; 3], [&'static str; 4]); 8];

// PMU, perf link, tracefs: the choice for a plain request, one with a cookie, with a maxactive,
// with both.
#[rustfmt::skip]
const DEFAULT: Table = [
    ([true,  true,  true ], ["link",          "link",          "legacy-link",  "legacy-link"]),
    ([true,  true,  false], ["link",          "link",          "no-tracefs",   "no-tracefs"]),
    ([true,  false, true ], ["perf",          "no-perf-link",  "legacy",       "no-perf-link"]),
    ([true,  false, false], ["perf",          "no-perf-link",  "no-tracefs",   "no-tracefs"]),
    ([false, true,  true ], ["legacy-link",   "legacy-link",   "legacy-link",  "legacy-link"]),
    ([false, true,  false], ["no-kprobe-pmu", "no-kprobe-pmu", "no-tracefs",   "no-tracefs"]),
    ([false, false, true ], ["legacy",        "no-kprobe-pmu", "legacy",       "no-perf-link"]),
    ([false, false, false], ["no-kprobe-pmu", "no-kprobe-pmu", "no-tracefs",   "no-tracefs"]),
];

const INVALID: &str = "invalid-request";

// The same for each explicit mode: it, or what it has not.
#[rustfmt::skip]
const EXPLICIT: [(AttachMode, Table); 4] = [
    (AttachMode::Link, [
        ([true,  true,  true ], ["link",          "link",          INVALID, INVALID]),
        ([true,  true,  false], ["link",          "link",          INVALID, INVALID]),
        ([true,  false, true ], ["no-perf-link",  "no-perf-link",  INVALID, INVALID]),
        ([true,  false, false], ["no-perf-link",  "no-perf-link",  INVALID, INVALID]),
        ([false, true,  true ], ["no-kprobe-pmu", "no-kprobe-pmu", INVALID, INVALID]),
        ([false, true,  false], ["no-kprobe-pmu", "no-kprobe-pmu", INVALID, INVALID]),
        ([false, false, true ], ["no-kprobe-pmu", "no-kprobe-pmu", INVALID, INVALID]),
        ([false, false, false], ["no-kprobe-pmu", "no-kprobe-pmu", INVALID, INVALID]),
    ]),
    (AttachMode::Perf, [
        ([true,  true,  true ], ["perf",          INVALID, INVALID, INVALID]),
        ([true,  true,  false], ["perf",          INVALID, INVALID, INVALID]),
        ([true,  false, true ], ["perf",          INVALID, INVALID, INVALID]),
        ([true,  false, false], ["perf",          INVALID, INVALID, INVALID]),
        ([false, true,  true ], ["no-kprobe-pmu", INVALID, INVALID, INVALID]),
        ([false, true,  false], ["no-kprobe-pmu", INVALID, INVALID, INVALID]),
        ([false, false, true ], ["no-kprobe-pmu", INVALID, INVALID, INVALID]),
        ([false, false, false], ["no-kprobe-pmu", INVALID, INVALID, INVALID]),
    ]),
    (AttachMode::LegacyLink, [
        ([true,  true,  true ], ["legacy-link",  "legacy-link",  "legacy-link",  "legacy-link"]),
        ([true,  true,  false], ["no-tracefs",   "no-tracefs",   "no-tracefs",   "no-tracefs"]),
        ([true,  false, true ], ["no-perf-link", "no-perf-link", "no-perf-link", "no-perf-link"]),
        ([true,  false, false], ["no-tracefs",   "no-tracefs",   "no-tracefs",   "no-tracefs"]),
        ([false, true,  true ], ["legacy-link",  "legacy-link",  "legacy-link",  "legacy-link"]),
        ([false, true,  false], ["no-tracefs",   "no-tracefs",   "no-tracefs",   "no-tracefs"]),
        ([false, false, true ], ["no-perf-link", "no-perf-link", "no-perf-link", "no-perf-link"]),
        ([false, false, false], ["no-tracefs",   "no-tracefs",   "no-tracefs",   "no-tracefs"]),
    ]),
    (AttachMode::Legacy, [
        ([true,  true,  true ], ["legacy",     INVALID, "legacy",     INVALID]),
        ([true,  true,  false], ["no-tracefs", INVALID, "no-tracefs", INVALID]),
        ([true,  false, true ], ["legacy",     INVALID, "legacy",     INVALID]),
        ([true,  false, false], ["no-tracefs", INVALID, "no-tracefs", INVALID]),
        ([false, true,  true ], ["legacy",     INVALID, "legacy",     INVALID]),
        ([false, true,  false], ["no-tracefs", INVALID, "no-tracefs", INVALID]),
        ([false, false, true ], ["legacy",     INVALID, "legacy",     INVALID]),
        ([false, false, false], ["no-tracefs", INVALID, "no-tracefs", INVALID]),
    ]),
];

#[test]
fn the_default_is_the_first_mode_that_kernel_and_request_leave() {
    for (there, expected) in DEFAULT {
        let chosen = requests().map(|opts| choice(features(there, NO), &opts));
        assert_eq!(chosen, expected, "PMU, link, tracefs: {there:?}");
    }
}

#[test]
fn an_explicit_mode_is_taken_or_refused_and_never_replaced() {
    for (mode, table) in EXPLICIT {
        for (there, expected) in table {
            let chosen =
                requests().map(|opts| choice(features(there, NO), &opts.attach_mode(mode)));
            assert_eq!(chosen, expected, "{mode}; PMU, link, tracefs: {there:?}");
        }
    }
}

#[test]
fn what_a_probe_could_not_tell_counts_as_missing_and_keeps_its_errno() {
    for (there, expected) in DEFAULT {
        for (opts, expected) in requests().into_iter().zip(expected) {
            let kernel = Kernel::with_features(features(there, UNKNOWN));
            match kernel.plan(Target::symbol("vfs_read").unwrap(), &opts) {
                Ok(plan) => assert_eq!(plan.mode().name(), expected),
                Err(error) => {
                    assert!(expected.starts_with("no-"), "{there:?}");
                    assert_eq!(error.step(), Step::ProbeKernel);
                    assert_eq!(error.errno(), Errno::PERM);
                    assert_eq!(error.cause(), Cause::NoPermission);
                }
            }
        }
    }
}

#[test]
fn what_is_surely_missing_is_libbpfs_eopnotsupp() {
    let kernel = Kernel::with_features(features([true, false, true], NO));
    let opts = KprobeOpts::new().attach_mode(AttachMode::Link);
    let error = kernel
        .plan(Target::symbol("vfs_read").unwrap(), &opts)
        .unwrap_err();
    assert_eq!(error.step(), Step::ProbeKernel);
    assert_eq!(error.errno(), Errno::OPNOTSUPP);
    assert_eq!(
        error.to_string(),
        "vfs_read: probe-kernel: EOPNOTSUPP: mode link needs BPF links to perf events: \
         no BPF links to perf events (needs Linux 5.15)"
    );
}

#[test]
fn without_perf_events_there_is_no_mode() {
    for missing in [NO, UNKNOWN] {
        let mut features = features([true; 3], NO);
        features.perf_event = missing;
        assert_eq!(features.default_mode(), None);
        for mode in AttachMode::ALL {
            assert_eq!(features.mode(mode), missing);
        }
    }
}

#[test]
fn an_unreadable_retprobe_bit_keeps_return_probes_from_the_pmu() {
    let mut features = features([true; 3], NO);
    features.retprobe_bit = None;
    assert_eq!(choice(features, &KprobeOpts::new()), "link");
    assert_eq!(
        choice(features, &KprobeOpts::new().retprobe(true)),
        "legacy-link"
    );
}

#[test]
fn kprobe_events_that_cannot_be_written_is_no_tracefs_mode() {
    let mut features = features([false, true, true], NO);
    features.kprobe_events = NO;
    assert_eq!(features.default_mode(), None);
    let (need, _) = features.unmet(AttachMode::Legacy, false).unwrap();
    assert_eq!(need, Need::KprobeEvents);
}
