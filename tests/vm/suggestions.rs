//! What `explain` suggests: the likeliest first, and only what would attach.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kprobe_attach::error::{Cause, Step};
use kprobe_attach::explain::{Case, Evidence, Explanation, Suggestion};
use kprobe_attach::request::Probe;
use kprobe_attach::{AttachMode, Errno, Error, Kernel, KprobeOpts, Target};

use super::machine::{
    Counter, FUNCTION, Switch, busybox, clean, function, kallsyms, promised, version, with_filter,
};

fn suggestions(explanation: &Explanation) -> Vec<&str> {
    explanation.suggestions().map(Suggestion::as_str).collect()
}

/// Explains probes in every mode, with one reading of the symbols, attaches what is suggested, and
/// answers the explanations of each probe.
fn explained(targets: &[Target<'_>], opts: KprobeOpts) -> Vec<Vec<Explanation>> {
    let modes = promised();
    let in_modes = targets
        .iter()
        .flat_map(|target| modes.iter().map(move |mode| (target, *mode)));
    let opts_of = |mode| opts.attach_mode(mode);
    let mut cases: Vec<_> = in_modes
        .map(|(target, mode)| Case::new(*target, &opts_of(mode)))
        .collect();
    let explanations: Vec<_> = clean(|| Kernel::new().explain_all(&mut cases).collect());
    let (kernel, counter) = (Kernel::new(), Counter::new());
    for (explanation, mode) in explanations.iter().zip(modes.iter().cycle()) {
        for text in suggestions(explanation) {
            let probe = Probe::with_defaults(text.as_bytes(), &opts_of(*mode)).expect(text);
            counter.attach(&kernel, probe.target, &probe.opts);
        }
    }
    let of_target = explanations.chunks(modes.len());
    of_target.map(<[_]>::to_vec).collect()
}

fn symbol(name: &str) -> Target<'_> {
    Target::symbol(name).unwrap()
}

const ENTRY: KprobeOpts = KprobeOpts::new();

/// The functions of the kernel without modules, and how often each name is there.
fn functions() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, kind, name, _) in kallsyms() {
        if matches!(kind, 't' | 'T' | 'w' | 'W') {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// The functions that ftrace can trace, as all that can be probed at their entry.
fn traceable() -> BTreeSet<String> {
    let text = fs::read_to_string("/sys/kernel/tracing/available_filter_functions").unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_function_whose_head_is_inlined_is_a_warning_with_its_part_to_try() {
    let functions = functions();
    let traceable = traceable();
    let is_probed = |name: &String| functions.get(name) == Some(&1) && traceable.contains(name);
    let parts: Vec<_> = { traceable.iter() }
        .filter_map(|part| Some((part.split_once(".part.")?.0.to_owned(), part)))
        .filter(|(whole, part)| is_probed(whole) && is_probed(part))
        .take(2)
        .collect();
    assert!(!parts.is_empty());
    let wholes: Vec<_> = { parts.iter() }.map(|(whole, _)| symbol(whole)).collect();
    let entries = explained(&wholes, ENTRY);
    let returns = explained(&wholes, ENTRY.retprobe(true));
    for (at, (whole, part)) in parts.iter().enumerate() {
        for explanation in &entries[at] {
            assert!(explanation.refusal().is_none(), "{explanation:?}");
            let warning = Evidence::Part(symbol(part));
            assert!(
                explanation.evidence().any(|found| found == warning),
                "{whole}"
            );
            assert!(warning.is_warning());
            assert_eq!(suggestions(explanation), [part.as_str()]);
        }
        let retprobe = suggestions(&returns[at][0]);
        assert_eq!(retprobe, [format!("kretprobe/{part}")]);
    }
    for explanation in &explained(&[function()], ENTRY)[0] {
        assert!(!explanation.evidence().any(|found| found.is_warning()));
        assert_eq!(suggestions(explanation), [""; 0]);
    }
}

#[test]
fn a_function_that_lives_on_under_a_longer_name_comes_before_look_alikes() {
    let functions = functions();
    let traceable = traceable();
    let is_alone = |name: &str| functions.get(name) == Some(&1) && !name.contains('.');
    // What is left of a name without its last word, and is no function.
    let longer = traceable.iter().filter(|name| is_alone(name));
    let renamed: Vec<_> = longer
        .filter_map(|name| Some((name.rsplit_once('_')?.0, name)))
        .filter(|(name, _)| {
            let from = functions.range((*name).to_owned()..);
            let longer = from.take_while(|(other, _)| other.starts_with(name));
            name.len() > 6 && longer.count() == 1
        })
        .take(3)
        .collect();
    assert_eq!(renamed.len(), 3);
    let mut renamed: Vec<_> = { renamed.into_iter() }
        .map(|(name, longer)| (name, &**longer))
        .collect();
    // What Linux 6.10 renamed.
    if version() >= (6, 12) {
        renamed.push(("kmem_cache_alloc", "kmem_cache_alloc_noprof"));
    }
    let targets: Vec<_> = renamed.iter().map(|(name, _)| symbol(name)).collect();
    for ((name, longer), explanations) in renamed.iter().zip(explained(&targets, ENTRY)) {
        for explanation in &explanations {
            assert_eq!(suggestions(explanation)[0], *longer, "{name}");
        }
    }
}

#[test]
fn a_name_that_a_system_call_had_on_some_kernel_is_that_call() {
    let functions = functions();
    let mut old = vec![
        "sys_openat",
        "SyS_openat",
        "__arm64_sys_openat",
        "sys_opneat",
    ];
    old.retain(|name| !functions.contains_key(*name));
    // A call that the kernel was built without, and what is none.
    let none = ["sys_s390_ipc", "sys_ni_syscall", "info"];
    let mut cases: Vec<_> = { old.iter().chain(&none) }
        .map(|name| Case::new(symbol(name), &ENTRY))
        .chain([Case::new(symbol("sys_opneat"), &ENTRY.retprobe(true))])
        .collect();
    let explanations: Vec<_> = Kernel::new().explain_all(&mut cases).collect();
    let (entries, rest) = explanations.split_at(old.len());
    for entry in entries.iter().map(suggestions) {
        assert_eq!(entry.first(), Some(&"ksyscall/openat"));
        let others: BTreeSet<_> = entry.iter().collect();
        assert_eq!(others.len(), entry.len(), "{entry:?}");
    }
    let (others, of_return) = rest.split_at(none.len());
    for texts in others.iter().map(suggestions) {
        assert!(
            !texts.iter().any(|text| text.contains("syscall/")),
            "{texts:?}"
        );
    }
    assert_eq!(suggestions(&of_return[0])[0], "kretsyscall/openat");
    // A function of this name can be there, and calls need not go through it.
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        for explanation in &explained(&[symbol("do_sys_open")], ENTRY)[0] {
            assert_eq!(suggestions(explanation)[0], "ksyscall/open");
        }
    }
}

#[test]
fn a_name_of_several_functions_is_never_suggested() {
    // The constructors of several caches.
    let name = "init_once";
    let functions = functions();
    assert!(functions[name] > 1);
    let wrong = ["init_onec", "no_such_module:init_once"];
    let wrong = wrong.map(|text| Target::parse(text).unwrap());
    for explanation in explained(&wrong, ENTRY).iter().flatten() {
        let suggestions = suggestions(explanation);
        assert!(!suggestions.contains(&name), "{suggestions:?}");
        assert!(
            suggestions.iter().any(|text| text.starts_with("0x")),
            "{suggestions:?}"
        );
    }
    // Without its address none of them can be named.
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    for explanation in &explained(&[symbol(name)], ENTRY)[0] {
        let texts: Vec<_> = explanation
            .evidence()
            .map(|found| found.to_string())
            .collect();
        assert!(
            texts
                .iter()
                .any(|text| text.contains("kernel.kptr_restrict")),
            "{texts:?}"
        );
        let suggestions = suggestions(explanation);
        assert!(
            !suggestions.iter().any(|text| text.starts_with("0x")),
            "{suggestions:?}"
        );
    }
}

#[test]
fn a_function_of_a_module_is_found_in_it_first_and_waited_for_where_it_is_not_loaded() {
    if std::env::var("KPROBE_ATTACH_MODULES").unwrap().is_empty() {
        assert!(![(5, 10), (6, 1), (6, 12)].contains(&version()));
        println!("not run here: there are no modules of this kernel");
        return;
    }
    let setup = Target::parse("dummy:dummy_setup").unwrap();
    let kernel = Kernel::new();
    let waiting = |opts: KprobeOpts| {
        let explanation = kernel.explain(setup, &opts);
        let cause = explanation.refusal().map(Error::cause);
        assert_eq!(cause, Some(Cause::ModuleNotLoaded));
        suggestions(&explanation).join(" ")
    };
    assert_eq!(waiting(ENTRY), "dummy:dummy_setup,mode=legacy");
    let retprobe = "kretprobe/dummy:dummy_setup,mode=legacy";
    assert_eq!(waiting(ENTRY.retprobe(true)), retprobe);
    // It does wait.
    let counter = Counter::new();
    let probe = Probe::parse(retprobe).unwrap();
    let link = counter.attach(&kernel, probe.target, &probe.opts);
    busybox("insmod /lib/modules/dummy.ko");
    assert!(counter.hits() > 0);
    link.detach().unwrap();
    busybox("insmod /lib/modules/nlmon.ko");
    let expected = [
        ("dummy:dummy_setu", "dummy:dummy_setup"),
        ("nlmon:dummy_setup", "dummy:dummy_setup"),
        ("dummy:nlmon_setup", "nlmon:nlmon_setup"),
        ("dummy_setu", "dummy:dummy_setup"),
    ];
    let asked = expected.map(|(asked, _)| Target::parse(asked).unwrap());
    for ((asked, first), explanations) in expected.iter().zip(explained(&asked, ENTRY)) {
        for explanation in &explanations {
            assert_eq!(suggestions(explanation)[0], *first, "{asked}");
        }
    }
    busybox("rmmod nlmon");
    busybox("rmmod dummy");
}

#[test]
fn what_may_not_load_a_program_is_not_told_that_it_would_attach() {
    for errno in [Errno::PERM, Errno::NOSYS] {
        with_filter(libc::SYS_bpf, None, errno, || {
            for mode in promised().into_iter().map(Some).chain([None]) {
                let opts = mode.map_or(ENTRY, |mode| ENTRY.attach_mode(mode));
                let explanation = Kernel::new().explain(symbol(FUNCTION), &opts);
                let error = explanation.refusal().expect("a refusal");
                let step = if mode.is_some_and(AttachMode::uses_link) {
                    Step::ProbeKernel
                } else {
                    Step::LoadProgram
                };
                assert_eq!(
                    (error.step(), error.cause()),
                    (step, Cause::Seccomp),
                    "{mode:?}"
                );
                let filter = Evidence::Seccomp { filter: true };
                assert!(explanation.evidence().any(|found| found == filter));
            }
        });
    }
}
