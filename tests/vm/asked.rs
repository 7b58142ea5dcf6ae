//! How little the kernel is asked: strace sees every system call of an attach, the questions before
//! it among them.

use kprobe_attach::{AttachMode, Kernel, KprobeOpts};

use crate::machine::{
    Counter, Traced, asked, clean, function, link_modes, normal, promised, section, version,
};

/// The names of system calls, those that fail with a `!` behind it.
fn names(calls: &[String]) -> Vec<String> {
    let name = |call: &String| {
        let failed = call.contains(" = -1 E");
        let name = call.split('(').next().unwrap();
        format!("{name}{}", if failed { "!" } else { "" })
    };
    calls.iter().map(name).collect()
}

/// The arguments of an attach: in no mode that is asked for, and in each.
fn cases() -> Vec<KprobeOpts> {
    let opts = KprobeOpts::new();
    let modes = promised().into_iter().map(|mode| opts.attach_mode(mode));
    let entries = [opts].into_iter().chain(modes);
    entries
        .flat_map(|opts| [opts, opts.retprobe(true)])
        .collect()
}

/// How many sections each of the [`cases`] has.
const SECTIONS: usize = 3;

#[test]
fn the_first_attach_asks_what_its_mode_takes_and_the_next_one_nothing() {
    let name = "asked::the_first_attach_asks_what_its_mode_takes_and_the_next_one_nothing";
    let Some(traced) = Traced::by(name) else {
        return clean(|| {
            for opts in cases() {
                let counter = Counter::new();
                let kernel = Kernel::new();
                let attach = || counter.attach(&kernel, function(), &opts);
                let first = section(attach);
                let second = section(attach);
                section(|| second.detach()).unwrap();
                drop(first);
            }
        });
    };
    assert_eq!(traced.sections.len(), SECTIONS * cases().len());
    for (opts, sections) in cases().iter().zip(traced.sections.chunks(SECTIONS)) {
        let [first, second, detach] = sections else {
            panic!("{SECTIONS} sections");
        };
        check_first(opts, first);
        // What is left is the plan.
        let kernel = asked();
        let plan = kernel.plan(function(), opts).unwrap();
        let of_plan: Vec<_> = plan.steps().map(|step| normal(&step.to_string())).collect();
        assert_eq!(normals(second), of_plan, "{opts:?}: {second:#?}");
        let of_plan = plan.detach_steps().map(|step| normal(&step.to_string()));
        assert_eq!(
            normals(detach),
            of_plan.collect::<Vec<_>>(),
            "{opts:?}: {detach:#?}"
        );
    }
}

fn normals(calls: &[String]) -> Vec<String> {
    // By such a call rustix sees, once, whether a statx(2) has failed because there is none.
    let calls = calls
        .iter()
        .filter(|call| !call.contains(", NULL, AT_STATX"));
    calls.map(|call| normal(call)).collect()
}

/// Checks what the first attach by a kernel asked and did.
fn check_first(opts: &KprobeOpts, calls: &[String]) {
    let what = format!("{opts:?}: {calls:#?}");
    let names = names(calls);
    let count = |name: &str| names.iter().filter(|call| *call == name).count();
    let has = |name: &str| names.iter().any(|call| call.trim_end_matches('!') == name);
    for never in [
        "clone", "clone3", "fork", "vfork", "unshare", "fsopen", "fsmount", "mount", "execve",
    ] {
        assert!(!has(never), "{what}");
    }
    let mode = opts.attach_mode.unwrap_or(promised()[0]);
    // Of files a mode of the PMU opens none, and one of tracefs no other's.
    let opened = calls.iter().filter(|call| call.starts_with("open"));
    for call in opened {
        let path = call.split('"').nth(1).unwrap();
        let of_tracefs = path == "/sys/kernel/tracing"
            || path == "kprobe_events"
            || (path.starts_with("events/kprobe_attach_") && path.ends_with("/id"));
        assert!(mode.uses_tracefs() && of_tracefs, "{what}");
    }
    // One is loaded only to be sure that there are no links, where the mode hangs on it.
    let may_load = link_modes().is_empty() && opts.attach_mode.is_none();
    assert!(
        may_load || !calls.iter().any(|call| call.contains("BPF_PROG_LOAD")),
        "{what}"
    );
    match mode {
        AttachMode::Link => {
            // The kprobe PMU was the sixth before Linux 6.5, and the eighth is asked for first.
            let refused = if version() < (6, 5) { 3 } else { 2 };
            let mut expected = vec!["sched_getaffinity"];
            expected.extend(vec!["perf_event_open!"; refused]);
            expected.extend(["bpf!", "perf_event_open", "bpf", "close"]);
            assert_eq!(names, expected, "{what}");
            assert!(names.len() <= 8, "{what}");
        }
        AttachMode::Perf => {
            assert!(may_load || !has("bpf"), "{what}");
            assert_eq!((count("perf_event_open"), count("ioctl")), (1, 1), "{what}");
        }
        // One event that nobody counts, to see whether events are open to this process, and the one
        // that is meant.
        AttachMode::Legacy => {
            assert!(!has("bpf"), "{what}");
            assert_eq!((count("perf_event_open"), count("ioctl")), (2, 1), "{what}");
        }
        AttachMode::LegacyLink => {
            assert_eq!((count("bpf!"), count("bpf")), (1, 1), "{what}");
            assert_eq!(count("perf_event_open"), 2, "{what}");
        }
        other => panic!("{other} is none of the four"),
    }
}

#[test]
fn nothing_is_asked_before_the_answer_is_needed_and_nothing_twice() {
    let name = "asked::nothing_is_asked_before_the_answer_is_needed_and_nothing_twice";
    let Some(traced) = Traced::by(name) else {
        return clean(|| {
            let counter = Counter::new();
            let kernel = section(Kernel::new);
            let features = section(|| kernel.features());
            assert_eq!(section(|| kernel.features()), features);
            let plan = |opts: &KprobeOpts| kernel.plan(function(), opts).map(drop);
            section(|| cases().iter().try_for_each(plan)).unwrap();
            let kernel = section(|| Kernel::with_program(&counter.program));
            section(|| kernel.ask_perf_link(&counter.program));
            section(|| kernel.features());
        });
    };
    let [new, features, again, plans, with_program, with, rest] = &traced.sections[..] else {
        panic!("{:#?}", traced.sections);
    };
    assert_eq!(names(new), Vec::<String>::new());
    assert!(!features.is_empty());
    assert_eq!(names(again), Vec::<String>::new());
    assert_eq!(names(plans), Vec::<String>::new());
    // Kernels without links are asked once more, with a program that surely fits.
    if !link_modes().is_empty() {
        assert_eq!(names(with_program), ["bpf!"]);
    }
    assert_eq!(names(with), Vec::<String>::new());
    let loads = |calls: &[String]| {
        let loads = calls.iter().filter(|call| call.contains("BPF_PROG_LOAD"));
        loads.count()
    };
    assert!(loads(rest) < loads(features), "{rest:#?}\n{features:#?}");
}
