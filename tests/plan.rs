//! What a plan says it will do, to the byte; and what it refuses before anything is done.

#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::CString;

use kprobe_attach::bpf::AttachType;
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::kernel::{Features, Reason, Support};
use kprobe_attach::request::{Functions, GroupOpts, Invalid, MAX_FUNCTIONS, Probe, SymbolRef};
use kprobe_attach::{AttachMode, Errno, GroupWay, Kernel, KprobeMultiOpts, KprobeOpts, Target};

/// A kernel that has everything, a return probe's bit that is none of today's, and CPU 0 offline.
fn kernel() -> Kernel {
    let mut features = Features::everything();
    features.cpu = 3;
    features.pmu_type = 9;
    features.pmu_type_in_sysfs = Some(9);
    features.retprobe_bit = Some(2);
    Kernel::with_features(features)
}

/// The plan of a probe's text, attach and detach.
fn plan(text: &str) -> String {
    let probe = Probe::parse(text).unwrap();
    let kernel = kernel();
    let plan = kernel.plan(probe.target, &probe.opts).unwrap();
    let detach: Vec<_> = plan.detach_steps().map(|step| step.to_string()).collect();
    format!("{plan}\n--\n{}\n", detach.join("\n"))
}

#[test]
fn a_link_is_an_open_a_link_create_and_a_close() {
    assert_eq!(
        plan("kretprobe/m:foo.isra.0,cookie=7"),
        "\
perf_event_open({type=9, size=72, config=4, disabled=1, config1=\"m:foo.isra.0\", config2=0}, -1, \
    3, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd
bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=perf_fd, \
    attach_type=BPF_PERF_EVENT, flags=0, perf_event={bpf_cookie=7}}}, 24) = link_fd
close(perf_fd) = 0
--
close(link_fd) = 0
"
    );
}

#[test]
fn perf_is_an_open_and_an_ioctl() {
    assert_eq!(
        plan("foo+0x10,mode=perf"),
        "\
perf_event_open({type=9, size=72, config=0, disabled=1, config1=\"foo\", config2=16}, -1, 3, -1, \
    PERF_FLAG_FD_CLOEXEC) = perf_fd
ioctl(perf_fd, PERF_EVENT_IOC_SET_BPF, prog_fd) = 0
--
close(perf_fd) = 0
"
    );
}

#[test]
fn legacy_link_defines_an_event_and_removes_it() {
    assert_eq!(
        plan("kretprobe/foo,maxactive=64"),
        "\
openat(tracefs_fd, \"kprobe_events\", \
    O_WRONLY|O_NOCTTY|O_APPEND|O_NONBLOCK|O_LARGEFILE|O_CLOEXEC) = events_fd
fcntl(events_fd, F_OFD_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=1}) = 0
newfstatat(tracefs_fd, \"events/kprobe_attach_0000000000000000/probe_00000000_0\", stat, \
    0) = -1 ENOENT
write(events_fd, \"r64:kprobe_attach_0000000000000000/probe_00000000_0 foo\", 55) = 55
openat(tracefs_fd, \"events/kprobe_attach_0000000000000000/probe_00000000_0/id\", \
    O_RDONLY|O_NOCTTY|O_NONBLOCK|O_LARGEFILE|O_CLOEXEC) = id_fd
read(id_fd, id, 32)
close(id_fd) = 0
perf_event_open({type=PERF_TYPE_TRACEPOINT, size=72, config=id, disabled=1, config1=0, \
    config2=0}, -1, 3, -1, PERF_FLAG_FD_CLOEXEC) = perf_fd
bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=perf_fd, \
    attach_type=BPF_PERF_EVENT, flags=0, perf_event={bpf_cookie=0}}}, 24) = link_fd
close(perf_fd) = 0
--
close(link_fd) = 0
write(events_fd, \"-:kprobe_attach_0000000000000000/probe_00000000_0\", 49) = 49
close(events_fd) = 0
"
    );
}

#[test]
fn legacy_takes_nine_system_calls_and_addresses() {
    let text = plan("0xffffffff81000000,mode=legacy");
    let (attach, _) = text.split_once("\n--\n").unwrap();
    assert_eq!(attach.lines().count(), 9);
    assert!(
        attach.contains("/probe_00000000_0 0xffffffff81000000\", "),
        "{attach}"
    );
    let text = plan("0xffffffff81000000");
    assert!(
        text.contains("config1=0, config2=0xffffffff81000000}"),
        "{text}"
    );
}

#[test]
fn an_event_name_is_used_once() {
    let kernel = kernel();
    let opts = KprobeOpts::new().attach_mode(AttachMode::Legacy);
    let target = Target::symbol("foo").unwrap();
    let first = kernel.plan(target, &opts).unwrap().to_string();
    let second = kernel.plan(target, &opts).unwrap().to_string();
    assert!(first.contains("/probe_00000000_0 "));
    assert!(second.contains("/probe_00000000_1 "));
}

#[test]
fn what_the_request_gets_wrong_is_refused_in_every_mode() {
    let foo = Target::symbol("foo").unwrap();
    let opts = KprobeOpts::new;
    for (target, opts) in [
        (foo, opts().offset(1 << 32)),
        (foo, opts().offset(u64::MAX)),
        (foo, opts().offset(1).retprobe(true)),
        (foo, opts().maxactive(1)),
        (foo, opts().retprobe(true).maxactive(4097)),
        (Target::address(0), opts()),
        (Target::address(0x1000), opts()),
        (Target::address(u64::MAX - 255), opts()),
        (Target::address(0xffff_ffff_8100_0000), opts().offset(1)),
    ] {
        let modes = AttachMode::ALL.map(|mode| opts.attach_mode(mode));
        for opts in modes.into_iter().chain([opts]) {
            let kernel = kernel();
            let error = kernel.plan(target, &opts).unwrap_err();
            assert_eq!(error.step(), Step::Request, "{opts:?}");
            assert_eq!(error.errno(), Errno::INVAL);
            assert_eq!(error.cause(), Cause::InvalidRequest);
            assert!(error.rule().is_some());
            assert_eq!(error.subject(), target.function());
            assert_eq!(error.address(), target.as_address());
            let offset = target.function().map_or(0, |_| opts.offset);
            assert_eq!(error.offset(), offset);
            let place = if offset == 0 {
                target.to_string()
            } else {
                format!("{target}+{offset:#x}")
            };
            let text = error.to_string();
            assert!(text.starts_with(&format!("{place}: request: ")), "{text}");
        }
    }
}

#[test]
fn a_plan_says_whether_its_link_can_be_pinned() {
    let kernel = kernel();
    for mode in AttachMode::ALL {
        let opts = KprobeOpts::new().attach_mode(mode);
        let plan = kernel.plan(Target::symbol("foo").unwrap(), &opts).unwrap();
        let refused = plan.can_pin().err().map(|error| error.step());
        let expected = (mode != AttachMode::Link).then_some(Step::Pin);
        assert_eq!(refused, expected, "{mode}");
    }
}

#[test]
fn many_functions_are_one_link_create() {
    let kernel = kernel();
    let symbols = [c"foo.isra.0", c"bar"].map(SymbolRef::new);
    let addresses = [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0040];
    let plan = |functions: Functions<'_>, opts: KprobeMultiOpts| {
        kernel.plan_multi(functions, &opts).unwrap().to_string()
    };
    let opts = KprobeMultiOpts::new();
    assert_eq!(
        plan(Functions::symbols(&symbols), opts.retprobe(true)),
        "\
bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=0, \
    attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, kprobe_multi={flags=1, cnt=2, \
    syms=[\"foo.isra.0\", \"bar\"], addrs=NULL, cookies=NULL}}}, 48) = link_fd"
    );
    assert_eq!(
        plan(
            Functions::addresses(&addresses).cookies(&[7, 0]),
            opts.session(true)
        ),
        "\
bpf(BPF_LINK_CREATE, {link_create={prog_fd=prog_fd, target_fd=0, \
    attach_type=BPF_TRACE_KPROBE_SESSION, flags=0, kprobe_multi={flags=0, cnt=2, \
    syms=NULL, addrs=[0xffffffff81000000, 0xffffffff81000040], cookies=[7, 0]}}}, 48) = link_fd"
    );
}

#[test]
fn a_link_to_many_functions_that_is_refused_names_the_function() {
    let kernel = kernel();
    let symbols = [c"foo", c"m:bar"].map(SymbolRef::new);
    let refused =
        |functions, opts: KprobeMultiOpts| kernel.plan_multi(functions, &opts).unwrap_err();
    let opts = KprobeMultiOpts::new();
    let error = refused(Functions::symbols(&symbols), opts);
    assert_eq!(error.rule(), Some(Invalid::ModuleInMulti));
    assert_eq!(
        (error.subject(), error.errno()),
        (Some("m:bar"), Errno::OPNOTSUPP)
    );
    let error = refused(Functions::symbols(&symbols[..1]).cookies(&[1, 2]), opts);
    assert_eq!(error.rule(), Some(Invalid::CookieCount));
    let many = vec![0xffff_ffff_8100_0000; MAX_FUNCTIONS + 1];
    let error = refused(Functions::addresses(&many), opts);
    assert_eq!(error.rule(), Some(Invalid::TooManyFunctions));
    assert_eq!((error.step(), error.errno()), (Step::Request, Errno::INVAL));
    let user = [0xffff_ffff_8100_0000, 0x1000];
    let error = refused(Functions::addresses(&user), opts);
    assert_eq!(error.address(), Some(0x1000));
    // And a kernel without such links.
    let mut features = Features::everything();
    let (errno, cause) = (Errno::INVAL, Cause::NoKprobeMulti);
    features.kprobe_session = Support::No(Reason { errno, cause });
    let kernel = Kernel::with_features(features);
    let functions = Functions::symbols(&symbols[..1]);
    let error = kernel
        .plan_multi(functions, &opts.session(true))
        .unwrap_err();
    assert_eq!(error.step(), Step::ProbeKernel);
    assert_eq!(
        (error.errno(), error.cause()),
        (Errno::OPNOTSUPP, Cause::NoKprobeMulti)
    );
    assert!(kernel.plan_multi(functions, &opts).is_ok());
}

#[test]
fn a_group_takes_what_the_program_is_loaded_for() {
    let kernel = kernel();
    let names: Vec<_> = (0..40)
        .map(|at| CString::new(format!("f{at}")).unwrap())
        .collect();
    let symbols: Vec<_> = names.iter().map(|name| SymbolRef::new(name)).collect();
    let functions = Functions::symbols(&symbols);
    let addresses = [0xffff_ffff_8100_0000; 3];
    let addresses = Functions::addresses(&addresses);
    let opts = GroupOpts::new();
    for (functions, opts, loaded_for, way, text) in [
        (
            functions,
            opts,
            AttachType::KprobeMulti,
            GroupWay::Multi,
            "one link to 40 functions",
        ),
        (
            functions,
            opts,
            AttachType::Kprobe,
            GroupWay::Each(AttachMode::Link),
            "40 links, mode link, by name",
        ),
        (
            addresses,
            opts.attach_mode(AttachMode::Legacy),
            AttachType::Kprobe,
            GroupWay::Each(AttachMode::Legacy),
            "3 links, mode legacy, by address",
        ),
        (
            functions,
            opts.session(true),
            AttachType::Kprobe,
            GroupWay::Multi,
            "one link to 40 functions",
        ),
    ] {
        let plan = kernel.plan_group(functions, &opts, loaded_for).unwrap();
        assert_eq!((plan.way(), plan.to_string().as_str()), (way, text));
    }
    // A cookie takes a link.
    let with_cookies = addresses.cookies(&[1, 2, 3]);
    let perf = opts.attach_mode(AttachMode::Perf);
    let error = kernel
        .plan_group(with_cookies, &perf, AttachType::Kprobe)
        .unwrap_err();
    assert_eq!(error.rule(), Some(Invalid::CookieWithoutLink));
}
