//! Where there is not enough of something, or somebody is in the way: what cannot be had is said,
//! nothing is left, and nothing of another's is touched. File descriptors and locked memory are in
//! `errors`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::Support;
use kprobe_attach::tracefs::{sweep, sweep_dry_run};
use kprobe_attach::{Errno, Kernel, KprobeOpts, Plan};
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use crate::machine::process::{Child, shared};
use crate::machine::{
    Counter, FUNCTION, KPROBE_EVENTS, asked, clean, define, drop_capabilities, function, json,
    promised, run, unlink, wait_until, with_own_mounts,
};

/// The group and the name of the event that a plan would define.
fn name_of(plan: &Plan<'_>) -> String {
    let plan = plan.to_string();
    let (_, name) = plan.split_once("\"p:").unwrap();
    name.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_name_that_is_taken_is_refused_and_its_event_left_alone() {
    let kernel = asked();
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        // The very probe, one at another function, which the kernel would add to the event, and one
        // of another kind.
        for (kind, function_of_other) in [("p", FUNCTION), ("p", "vfs_read"), ("r", FUNCTION)] {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let plan = kernel.plan(function(), &opts).unwrap();
            let name = name_of(&plan);
            define(&format!("{kind}:{name} {function_of_other}"));
            let error = clean(|| plan.attach(&counter.program)).unwrap_err();
            assert_eq!(
                (error.step(), error.errno(), error.cause()),
                (Step::CreateEvent, Errno::EXIST, Cause::EventExists)
            );
            assert_eq!(error.subject(), Some(FUNCTION));
            define(&format!("-:{name}"));
            // The same plan again, with the name free, is carried out.
            clean(|| plan.attach(&counter.program).unwrap().detach().unwrap());
        }
    }
}

#[test]
fn a_group_that_somebody_else_uses_is_shared_and_only_the_own_event_removed() {
    let kernel = asked();
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        let counter = Counter::new();
        let opts = KprobeOpts::new().attach_mode(mode);
        let plan = kernel.plan(function(), &opts).unwrap();
        let name = name_of(&plan);
        let (group, event) = name.split_once('/').unwrap();
        // In our group, and of our name in another: each would go with a removal that named less
        // than all.
        let others = [format!("{group}/other"), format!("other/{event}")];
        for other in &others {
            define(&format!("p:{other} vfs_read"));
        }
        clean(|| {
            let link = plan.attach(&counter.program).unwrap();
            unlink(2);
            assert_eq!(counter.hits(), 2, "{mode}");
            link.detach().unwrap();
        });
        for other in &others {
            define(&format!("-:{other}"));
        }
    }
}

#[test]
fn a_kernel_that_is_shared_over_fork_gives_a_name_once() {
    let kernel = asked();
    for mode in promised().into_iter().filter(|mode| mode.uses_tracefs()) {
        clean(|| {
            let counter = Counter::new();
            let opts = KprobeOpts::new().attach_mode(mode);
            let plan = || kernel.plan(function(), &opts).unwrap();
            let planned = plan();
            let link = plan().attach(&counter.program).unwrap();
            // The child's copy of the counter stands where the parent's stood.
            let child = Child::fork(|| drop(planned.attach(&counter.program).unwrap()));
            assert_eq!(child.wait().exit_status(), Some(0));
            let parent_has_it = &shared::<1>()[0];
            let child = Child::fork(|| {
                let copy = plan();
                wait_until(|| parent_has_it.load(Ordering::Acquire) == 1);
                let error = copy.attach(&counter.program).unwrap_err();
                assert_eq!(
                    (error.step(), error.errno(), error.cause()),
                    (Step::CreateEvent, Errno::AGAIN, Cause::EventExists)
                );
            });
            let same_name = plan().attach(&counter.program).unwrap();
            parent_has_it.store(1, Ordering::Release);
            assert_eq!(child.wait().exit_status(), Some(0));
            unlink(1);
            assert_eq!(counter.hits(), 2, "{mode}");
            same_name.detach().unwrap();
            link.detach().unwrap();
        });
    }
}

/// Attaches in every mode with a `kprobe_events` that cannot be written: the modes of the PMU work.
fn without_kprobe_events(errno: Errno) {
    let kernel = Kernel::new();
    let Support::No(reason) = kernel.features().kprobe_events else {
        panic!("{:?}", kernel.features());
    };
    assert_eq!((reason.errno, reason.cause), (errno, Cause::NoKprobeEvents));
    for mode in promised() {
        let counter = Counter::new();
        let opts = KprobeOpts::new().attach_mode(mode);
        let attached = kernel.attach_kprobe(&counter.program, function(), &opts);
        if mode.uses_tracefs() {
            let error = attached.unwrap_err();
            assert_eq!(
                (error.step(), error.cause()),
                (Step::ProbeKernel, Cause::NoKprobeEvents)
            );
        } else {
            unlink(1);
            assert_eq!(counter.hits(), 1, "{mode}");
        }
    }
    let error = sweep(|_| ()).unwrap_err();
    assert_eq!(
        (error.step(), error.errno(), error.cause()),
        (Step::RemoveEvent, errno, Cause::NoKprobeEvents)
    );
}

/// Makes what is mounted at a path read-only, in the mount namespace of this thread.
fn remount_read_only(path: &str) {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(path, flags, c"").unwrap();
}

#[test]
fn with_a_read_only_tracefs_the_pmu_modes_are_left() {
    clean(|| {
        with_own_mounts(|| {
            remount_read_only("/sys/kernel/tracing");
            without_kprobe_events(Errno::ROFS);
            sweep_dry_run(|_| ()).unwrap();
        });
    });
}

#[test]
fn with_a_kprobe_events_that_may_not_be_written_the_pmu_modes_are_left() {
    let mode = fs::metadata(KPROBE_EVENTS).unwrap().permissions();
    fs::set_permissions(KPROBE_EVENTS, fs::Permissions::from_mode(0o440)).unwrap();
    let test = || {
        drop_capabilities(CapabilitySet::DAC_OVERRIDE);
        without_kprobe_events(Errno::ACCESS);
        sweep_dry_run(|_| ()).unwrap();
    };
    let tested = std::thread::scope(|scope| scope.spawn(|| clean(test)).join());
    fs::set_permissions(KPROBE_EVENTS, mode).unwrap();
    tested.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn nothing_is_written_to_a_disk_so_that_a_read_only_root_is_no_obstacle() {
    clean(|| {
        with_own_mounts(|| {
            for path in ["/", "/tmp", "/run", "/dev"] {
                remount_read_only(path);
            }
            assert!(fs::write("/tmp/probed", "").is_err() && fs::write("/probed", "").is_err());
            for mode in promised() {
                // In the way of every open of a file.
                let args = [
                    "count",
                    "--json",
                    "--mode",
                    mode.name(),
                    "vfs_open",
                    "--",
                    "/init",
                ];
                let output = run(&[&args[..6], &["/bin/busybox", "cat", "/init"]].concat());
                assert_eq!(output.status.code(), Some(0), "{output:?}");
                assert!(
                    json_of(&output.stdout)["hits"].as_u64().unwrap() > 0,
                    "{mode}"
                );
            }
        });
    });
}

fn json_of(stdout: &[u8]) -> serde_json::Value {
    let lines = String::from_utf8_lossy(stdout).into_owned();
    let last = lines.lines().last().unwrap();
    json(last.as_bytes()).remove(0)
}
