//! Plans any request on any kernel. The plan must keep to the request, and to the features that the
//! kernel certainly has. Its text for `kprobe_events` must be one line that says exactly that.
#![no_main]

use arbitrary::Arbitrary;
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::{Features, Reason, Support};
use kprobe_attach::plan::Syscall;
use kprobe_attach::tracefs::EventLine;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Plan, Target, TargetBuf};
use libfuzzer_sys::fuzz_target;

/// The place comes last, because a string takes all the bytes that are left, as the seeds show.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    answers: [Answer; 7],
    cpu: u32,
    pmu_type: u32,
    retprobe_bit: Option<u8>,
    cookie: Number,
    offset: Number,
    retprobe: bool,
    mode: Option<Mode>,
    maxactive: Number,
    place: Place<'a>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Answer {
    Yes,
    No,
    Unknown,
    /// The errno of a feature that is certainly missing.
    UnknownNotSupported,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Mode {
    Link,
    Perf,
    LegacyLink,
    Legacy,
}

/// Makes a number that is often near a limit.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Zero,
    Short(u16),
    Word(u32),
    Long(u64),
}

#[derive(Arbitrary, Debug)]
enum Place<'a> {
    Symbol(&'a str),
    Module(&'a str, &'a str),
    KernelAddress(u32),
    Address(u64),
}

fuzz_target!(|input: Input<'_>| {
    let Some(target) = target(&input.place) else {
        return;
    };
    let text = target.to_string();
    assert_eq!(Target::parse(&text), Ok(target));
    assert_eq!(TargetBuf::from(target), target);
    let (features, opts) = (features(&input), opts(&input));
    let kernel = Kernel::with_features(features);
    let carries = |mode: &AttachMode| {
        (opts.bpf_cookie == 0 || mode.uses_link()) && (opts.maxactive == 0 || mode.uses_tracefs())
    };
    let wrong = !is_sound(&target, &opts) || opts.attach_mode.is_some_and(|mode| !carries(&mode));
    let expected = AttachMode::ALL
        .into_iter()
        .filter(|mode| opts.attach_mode.is_none_or(|asked| asked == *mode))
        .find(|mode| carries(mode) && has_all(&features, *mode, opts.retprobe));
    match kernel.plan(target, &opts) {
        Ok(plan) => {
            assert!(!wrong);
            assert_eq!(Some(plan.mode()), expected);
            assert_eq!(features.unmet(plan.mode(), opts.retprobe), None);
            check_steps(&plan, &features, &target, &opts);
        }
        Err(error) => {
            assert_eq!(error.step() == Step::Request, wrong);
            assert!(wrong || expected.is_none());
            assert!(!error.to_string().contains('\n'));
            assert_eq!(error.address(), target.as_address());
            match error.subject() {
                Some(subject) => check_subject(subject, &text),
                None => assert!(error.address().is_some()),
            }
        }
    }
});

/// Checks that the subject is the text, or as much of it as fits.
fn check_subject(subject: &str, text: &str) {
    assert!(subject.len() <= 63);
    match subject.strip_suffix('…') {
        Some(head) => assert!(text.starts_with(head) && head.len() == 60 && text.len() > 63),
        None => assert_eq!(subject, text),
    }
}

fn target<'a>(place: &Place<'a>) -> Option<Target<'a>> {
    match *place {
        Place::Symbol(name) => Target::symbol(name).ok(),
        Place::Module(module, function) => Target::in_module(module, function).ok(),
        Place::KernelAddress(low) => Some(Target::address(0xffff_ffff_0000_0000 | u64::from(low))),
        Place::Address(address) => Some(Target::address(address)),
    }
}

fn features(input: &Input<'_>) -> Features {
    let support = |answer| {
        let reason = |errno| Reason {
            errno,
            cause: Cause::Unknown,
        };
        match answer {
            Answer::Yes => Support::Yes,
            Answer::No => Support::No(reason(Errno::NOENT)),
            Answer::Unknown => Support::Unknown(reason(Errno::PERM)),
            Answer::UnknownNotSupported => Support::Unknown(reason(Errno::OPNOTSUPP)),
        }
    };
    let mut features = Features::everything();
    [
        features.perf_event,
        features.kprobe_pmu,
        features.perf_link,
        features.tracefs,
        features.kprobe_events,
        features.kprobe_multi,
        features.kprobe_session,
    ] = input.answers.map(support);
    features.cpu = input.cpu;
    features.pmu_type = input.pmu_type;
    features.pmu_type_in_sysfs = None;
    features.retprobe_bit = input.retprobe_bit;
    features
}

fn opts(input: &Input<'_>) -> KprobeOpts {
    let number = |number| match number {
        Number::Zero => 0,
        Number::Short(number) => number.into(),
        Number::Word(number) => number.into(),
        Number::Long(number) => number,
    };
    let opts = KprobeOpts::new()
        .bpf_cookie(number(input.cookie))
        .offset(number(input.offset))
        .retprobe(input.retprobe)
        .maxactive(number(input.maxactive) as u32);
    match input.mode {
        None => opts,
        Some(Mode::Link) => opts.attach_mode(AttachMode::Link),
        Some(Mode::Perf) => opts.attach_mode(AttachMode::Perf),
        Some(Mode::LegacyLink) => opts.attach_mode(AttachMode::LegacyLink),
        Some(Mode::Legacy) => opts.attach_mode(AttachMode::Legacy),
    }
}

/// Returns whether a request keeps the rules that hold in every mode.
fn is_sound(target: &Target<'_>, opts: &KprobeOpts) -> bool {
    let kernel_half = (1 << 63)..=(u64::MAX - 4096);
    let place = target
        .as_address()
        .is_none_or(|address| kernel_half.contains(&address) && opts.offset == 0);
    place
        && opts.offset <= u64::from(u32::MAX)
        && opts.maxactive <= 4096
        && if opts.retprobe {
            opts.offset == 0
        } else {
            opts.maxactive == 0
        }
}

/// Returns whether the kernel certainly has what a mode needs.
fn has_all(features: &Features, mode: AttachMode, retprobe: bool) -> bool {
    let event = if mode.uses_tracefs() {
        features.tracefs.is_yes() && features.kprobe_events.is_yes()
    } else {
        features.kprobe_pmu.is_yes()
            && (!retprobe || features.retprobe_bit.is_some_and(|bit| bit < 64))
    };
    features.perf_event.is_yes() && event && (!mode.uses_link() || features.perf_link.is_yes())
}

fn check_steps(plan: &Plan<'_>, features: &Features, target: &Target<'_>, opts: &KprobeOpts) {
    let (mut events, mut names, mut cookies) = (0, Vec::new(), Vec::new());
    for step in plan.steps().chain(plan.detach_steps()) {
        let text = step.to_string();
        match step {
            Syscall::PerfEventOpenKprobe { config, offset, .. } => {
                assert!(features.perf_event.is_yes() && features.kprobe_pmu.is_yes());
                let bits = if opts.retprobe { 1 } else { 0 };
                assert_eq!((config.count_ones(), offset), (bits, opts.offset));
                events += 1;
            }
            Syscall::PerfEventOpenTracepoint { .. } => {
                assert!(features.perf_event.is_yes());
                events += 1;
            }
            Syscall::LinkCreate { bpf_cookie } => {
                assert!(features.perf_link.is_yes());
                cookies.push(bpf_cookie);
            }
            Syscall::WriteDefinition(_) => {
                assert!(features.tracefs.is_yes() && features.kprobe_events.is_yes());
                let line = quoted(&text);
                assert_eq!(line.matches(' ').count(), 1, "{line}");
                let event =
                    EventLine::parse(line.as_bytes()).expect("a line as the kernel lists it");
                assert!(event.is_ours() && event.arguments.is_empty());
                // A kernel that is given by its features has zeros for the random part. The
                // function's name does not appear.
                let number = event.event.strip_prefix("probe_00000000_");
                let number = number.expect("the name of an event");
                assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
                let place = match opts.offset {
                    0 => target.to_string(),
                    offset => format!("{target}+{offset:#x}"),
                };
                assert_eq!(event.place, place);
                assert_eq!(
                    (event.retprobe, event.maxactive),
                    (opts.retprobe, opts.maxactive)
                );
                names.push(format!("{}/{}", event.group, event.event));
            }
            Syscall::LookForEvent(_) => names.push(between(quoted(&text), "events/", "")),
            Syscall::OpenId(_) => names.push(between(quoted(&text), "events/", "/id")),
            Syscall::WriteRemoval(_) => names.push(between(quoted(&text), "-:", "")),
            _ => assert!(!text.contains('\n')),
        }
    }
    assert_eq!(events, 1);
    assert_eq!(plan.to_string().lines().count(), plan.steps().count());
    let cookie = plan.mode().uses_link().then_some(opts.bpf_cookie);
    assert_eq!(cookies, Vec::from_iter(cookie));
    assert!(opts.bpf_cookie == 0 || cookie.is_some());
    // The same name is looked for, defined, opened and removed.
    assert_eq!(names.len(), if plan.mode().uses_tracefs() { 4 } else { 0 });
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert!(names.iter().all(|name| !name.contains(' ')), "{names:?}");
}

/// Returns the text between the quotes, which must not contain a character with another meaning.
fn quoted(text: &str) -> &str {
    let parts: Vec<_> = text.split('"').collect();
    let [_, quoted, _] = parts[..] else {
        panic!("not one string: {text}");
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$:/+ -".contains(&byte);
    assert!(quoted.bytes().all(plain), "{quoted:?}");
    quoted
}

fn between(text: &str, before: &str, after: &str) -> String {
    let name = text
        .strip_prefix(before)
        .and_then(|text| text.strip_suffix(after));
    name.expect("the name of the event").to_owned()
}
