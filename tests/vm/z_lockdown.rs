//! A kernel that is locked down, which no kernel comes back from: the last module by name, so that
//! its test runs last.

use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::explain::Evidence;
use kprobe_attach::kernel::Support;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts};

use crate::machine::{Counter, Trace, asked, function, promised};

#[test]
fn a_locked_down_kernel_offers_no_mode_and_says_why() {
    // The last look at what all the other tests leave behind.
    assert_eq!(Trace::now().events, "");
    let counter = Counter::new();
    let kernel = asked();
    let securityfs = c"/sys/kernel/security";
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(
        "none",
        securityfs,
        "securityfs",
        flags,
        None::<&std::ffi::CStr>,
    )
    .unwrap();
    fs::write("/sys/kernel/security/lockdown", "confidentiality").unwrap();

    let features = Kernel::with_program(&counter.program).features();
    for support in [features.kprobe_pmu, features.kprobe_events] {
        let Support::No(reason) = support else {
            panic!("{features:?}");
        };
        assert_eq!((reason.errno, reason.cause), (Errno::PERM, Cause::Lockdown));
    }
    assert_eq!(features.default_mode(), None);
    // As `explain` proves.
    let explained = Kernel::with_program(&counter.program);
    for mode in promised() {
        let explanation = explained.explain(function(), &KprobeOpts::new().attach_mode(mode));
        assert_eq!(
            explanation.refusal().unwrap().cause(),
            Cause::Lockdown,
            "{mode}"
        );
        let proof = Evidence::Lockdown {
            confidentiality: true,
        };
        assert!(explanation.evidence().any(|evidence| evidence == proof));
    }
    // What was asked before is refused where it is tried.
    for mode in promised() {
        let opts = KprobeOpts::new().attach_mode(mode);
        let error = kernel
            .attach_kprobe(&counter.program, function(), &opts)
            .unwrap_err();
        assert_eq!(
            (error.errno(), error.cause()),
            (Errno::PERM, Cause::Lockdown),
            "{mode}"
        );
    }
    let error = Kernel::with_program(&counter.program)
        .plan(function(), &KprobeOpts::new().attach_mode(AttachMode::Perf))
        .unwrap_err();
    assert_eq!(
        (error.step(), error.errno()),
        (Step::ProbeKernel, Errno::PERM)
    );
}
