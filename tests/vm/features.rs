//! The probes find what the kernel is promised to have, and what is left where something is hidden.

use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::Support;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts};
use rustix::thread::CapabilitySet;

use crate::machine::{
    Counter, Switch, clean, drop_capabilities, function, kernel_name, promised, tells_place,
    unlink, unmount, version, with_filter, with_own_mounts,
};

#[test]
fn the_probed_modes_are_the_promised_ones() {
    let kernel = clean(|| Kernel::new().features());
    let probed = AttachMode::ALL
        .into_iter()
        .filter(|mode| kernel.mode(*mode).is_yes());
    assert_eq!(probed.collect::<Vec<_>>(), promised());
    for mode in AttachMode::ALL {
        assert!(!matches!(kernel.mode(mode), Support::Unknown(_)), "{mode}");
    }
}

#[test]
fn multi_and_session_links_are_found_where_the_kernel_has_them() {
    let features = Kernel::new().features();
    // They take CONFIG_FPROBE, which Debian's 6.1 is built without; elsewhere than on x86 it came
    // in Linux 6.14.
    let since = if cfg!(target_arch = "x86_64") {
        (6, 12)
    } else {
        (6, 14)
    };
    let has = version() >= since;
    assert_eq!(features.kprobe_multi.is_yes(), has, "{features:?}");
    assert_eq!(features.kprobe_session.is_yes(), has, "{features:?}");
}

#[test]
fn a_callers_program_answers_as_well_as_an_own_one() {
    clean(|| {
        let counter = Counter::new();
        let features = Kernel::with_program(&counter.program).features();
        assert_eq!(features, Kernel::new().features());
        // One that is none for kprobes is not mistaken for a kernel without links.
        let file = fs::File::open("/proc/version").unwrap();
        let file = rustix::fs::open(
            "/proc/version",
            rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map(|fd| (fd, file));
        let (fd, _file) = file.unwrap();
        assert_eq!(Kernel::with_program(&fd).features(), features);
    });
}

#[test]
fn what_sysfs_says_of_the_pmu_is_no_more_than_a_cross_check() {
    const PMU: &str = "/sys/bus/event_source/devices/kprobe";
    let truth = Kernel::new().features();
    assert_eq!(truth.retprobe_bit, Some(0));
    let other = "/sys/bus/event_source/devices/software/type";
    for (file, text, in_sysfs) in [
        ("format/retprobe", "config:5\n", Some(truth.pmu_type)),
        ("format/retprobe", "config:64\n", Some(truth.pmu_type)),
        ("format/retprobe", "garbage", Some(truth.pmu_type)),
        ("format/retprobe", "", Some(truth.pmu_type)),
        ("type", "garbage", None),
        // Files that are not sysfs's own.
        ("type", "1\n", None),
        ("type", "4242\n", None),
        // One that is: that of the software PMU.
        ("type", other, Some(1)),
    ] {
        with_own_mounts(|| {
            let masking = if text == other { other } else { "/tmp/sysfs" };
            fs::write("/tmp/sysfs", text).unwrap();
            rustix::mount::mount_bind(masking, &*format!("{PMU}/{file}")).unwrap();
            let kernel = Kernel::new();
            for mode in promised() {
                let counter = Counter::new();
                let opts = KprobeOpts::new().retprobe(true).attach_mode(mode);
                let link = counter.attach(&kernel, function(), &opts);
                unlink(2);
                assert_eq!(counter.hits(), 2, "{mode}: {file} {text:?}");
                let told = link.info().unwrap().retprobe;
                assert_eq!(told, tells_place(mode).then_some(true), "{mode}");
            }
            let counter = Counter::new();
            let link = counter.attach(&kernel, function(), &KprobeOpts::new().retprobe(true));
            assert_eq!(link.mode(), promised()[0], "{file} {text:?}");
            let features = kernel.features();
            assert_eq!(features.pmu_type_in_sysfs, in_sysfs, "{file} {text:?}");
            assert_eq!(
                (features.pmu_type, features.retprobe_bit),
                (truth.pmu_type, Some(0)),
                "{file} {text:?}"
            );
        });
    }
    fs::remove_file("/tmp/sysfs").unwrap();
}

#[test]
fn without_tracefs_the_pmu_modes_are_left() {
    // Without CAP_SYS_ADMIN there is no detached mount; the other capabilities stay, and Debian's
    // level 3 would want it.
    let _paranoid = Switch::paranoid("2");
    with_own_mounts(|| {
        unmount("/sys/kernel/tracing");
        unmount("/sys/kernel/debug");
        if kernel_name() == "5.10" {
            // Loading takes no more than CAP_BPF and CAP_PERFMON, but the memory lock limit is
            // charged.
            assert_eq!(promised(), [AttachMode::Perf, AttachMode::Legacy]);
        }
        drop_capabilities(CapabilitySet::SYS_ADMIN);
        let kernel = Kernel::new();
        let features = kernel.features();
        // None is mounted; and to mount a detached one, where that is asked for, is not
        // permitted.
        let detached = Kernel::with_detached_mounts().features();
        for (tracefs, errno) in [
            (features.tracefs, Errno::NOENT),
            (detached.tracefs, Errno::PERM),
        ] {
            let Support::No(reason) = tracefs else {
                panic!("{tracefs:?}");
            };
            assert_eq!((reason.errno, reason.cause), (errno, Cause::NoTracefs));
        }
        let left: Vec<_> = promised()
            .into_iter()
            .filter(|mode| !mode.uses_tracefs())
            .collect();
        let probed = AttachMode::ALL
            .into_iter()
            .filter(|mode| features.mode(*mode).is_yes());
        assert_eq!(probed.collect::<Vec<_>>(), left);
        let counter = Counter::new();
        let link = counter.attach(&kernel, function(), &KprobeOpts::new());
        unlink(1);
        assert_eq!(counter.hits(), 1);
        drop(link);
        let opts = KprobeOpts::new().attach_mode(AttachMode::Legacy);
        let error = kernel
            .attach_kprobe(&counter.program, function(), &opts)
            .unwrap_err();
        assert_eq!(
            (error.step(), error.errno(), error.cause()),
            (Step::ProbeKernel, Errno::OPNOTSUPP, Cause::NoTracefs)
        );
    });
}

#[test]
fn a_missing_capability_is_told_from_a_missing_feature() {
    let _paranoid = Switch::paranoid("2");
    with_own_mounts(|| {
        drop_capabilities(CapabilitySet::SYS_ADMIN | CapabilitySet::PERFMON);
        let features = Kernel::new().features();
        let Support::No(reason) = features.perf_event else {
            panic!("{features:?}");
        };
        assert_eq!(
            (reason.errno, reason.cause),
            (Errno::ACCESS, Cause::NoPermission)
        );
        // What is behind it is unknown, not missing.
        assert!(
            matches!(features.kprobe_pmu, Support::Unknown(_)),
            "{features:?}"
        );
        assert_eq!(features.default_mode(), None);
    });
}

#[test]
fn without_perf_links_the_ioctl_modes_are_left() {
    // A seccomp filter gives the answer of a kernel before 5.15: EINVAL.
    let link_create = 28;
    let seen = with_filter(libc::SYS_bpf, Some(link_create), Errno::INVAL, || {
        let kernel = Kernel::new();
        let features = kernel.features();
        let probed = AttachMode::ALL
            .into_iter()
            .filter(|mode| features.mode(*mode).is_yes());
        assert_eq!(
            probed.collect::<Vec<_>>(),
            [AttachMode::Perf, AttachMode::Legacy]
        );
        let counter = Counter::new();
        let link = counter.attach(&kernel, function(), &KprobeOpts::new());
        unlink(2);
        let opts = KprobeOpts::new().attach_mode(AttachMode::Link);
        let error = kernel
            .attach_kprobe(&counter.program, function(), &opts)
            .unwrap_err();
        assert_eq!(
            (error.errno(), error.cause()),
            (Errno::OPNOTSUPP, Cause::NoPerfLink)
        );
        (link.mode(), counter.hits())
    });
    assert_eq!(seen, (AttachMode::Perf, 2));
}

#[test]
fn an_answer_that_a_filter_hides_is_unknown_and_named() {
    let link_create = 28;
    with_filter(libc::SYS_bpf, Some(link_create), Errno::PERM, || {
        let kernel = Kernel::new();
        let Support::Unknown(reason) = kernel.features().perf_link else {
            panic!("{:?}", kernel.features());
        };
        assert_eq!(reason.errno, Errno::PERM);
        let opts = KprobeOpts::new().bpf_cookie(7);
        let error = kernel
            .attach_kprobe(&Counter::new().program, function(), &opts)
            .unwrap_err();
        assert_eq!(
            (error.step(), error.errno()),
            (Step::ProbeKernel, Errno::PERM)
        );
        assert_eq!(kernel.features().default_mode(), Some(AttachMode::Perf));
    });
    with_filter(libc::SYS_perf_event_open, None, Errno::PERM, || {
        let features = Kernel::new().features();
        assert!(
            matches!(features.perf_event, Support::No(reason) if reason.cause == Cause::Seccomp)
        );
        assert_eq!(features.default_mode(), None);
    });
}
