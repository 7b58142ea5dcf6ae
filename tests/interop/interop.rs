//! The crate and the program beside other loaders, on a real kernel: `ci/run.sh interop` runs these
//! as root in virtual machines. One program, which clang made, counts hits by their cookies. It is
//! loaded by aya, by libbpf-rs and by bpftool.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;

use aya::Ebpf;
use aya::maps::HashMap;
use aya::programs::KProbe;
use aya::programs::links::{FdLink, PinnedLink};
use kprobe_attach::bpf::Program;
use kprobe_attach::tracefs::EventLine;
use kprobe_attach::{AttachMode, Kernel, KprobeLink, KprobeOpts, Target};
use libbpf_rs::libbpf_sys::{
    PROBE_ATTACH_MODE_DEFAULT, PROBE_ATTACH_MODE_LEGACY, PROBE_ATTACH_MODE_LINK,
    PROBE_ATTACH_MODE_PERF, bpf_kprobe_opts, bpf_program__attach_kprobe_opts, probe_attach_mode,
};
use libbpf_rs::{AsRawLibbpf, Link, MapCore, MapFlags, Object, ObjectBuilder, ProgramMut};
use serde_json::Value;

/// The object, as clang 14 makes it.
const OBJECT: &[u8] = include_bytes!("../objects/cookies.o");

/// The object, as clang 19 makes it.
const OBJECT_19: &[u8] = include_bytes!("../objects/cookies-19.o");

/// Runs once for each [`mkdir`], and nobody else in the machine calls it.
const FUNCTION: &str = "vfs_mkdir";

/// A cookie that is as wide as they get; those of the tests count on from it.
const COOKIE: u64 = 0xfedc_ba98_7654_3210;

const EVENTS: &str = "/sys/kernel/tracing/kprobe_events";

/// Where bpftool pins the program and its map.
const DIR: &str = "/sys/fs/bpf/loaded";

/// Where links are pinned.
const PINS: &str = "/sys/fs/bpf/links";

/// The hits of each cookie.
type Hits = BTreeMap<u64, u64>;

/// A program that another loader has loaded.
struct Loaded<'a> {
    loader: &'static str,
    program: BorrowedFd<'a>,
    id: u32,
    /// How this crate's program names it, which has it as its standard input too.
    name: String,
    /// The hits, as the loader itself reads its map.
    hits: &'a dyn Fn() -> Hits,
}

/// Runs a test with the program of each loader, and fails if it leaves an event.
fn each_loader(test: impl Fn(&Loaded<'_>)) {
    let run = |loader, program: BorrowedFd<'_>, name: &str, hits: &dyn Fn() -> Hits| {
        let id = Program::from_fd(program).unwrap().id().unwrap();
        let name = name.replace("ID", &id.to_string());
        test(&Loaded {
            loader,
            program,
            id,
            name,
            hits,
        });
        assert_eq!(fs::read_to_string(EVENTS).unwrap(), "", "{loader}");
    };
    let mut object = Ebpf::load(OBJECT_19).unwrap();
    of_aya(&mut object).load().unwrap();
    let program = of_aya(&mut object).fd().unwrap().try_clone().unwrap();
    run("aya", program.as_fd(), "fd:0", &|| aya_hits(&object));

    let object = by_libbpf();
    let program = of_libbpf(&object);
    run("libbpf-rs", program.as_fd(), "id:ID", &|| {
        libbpf_hits(&object)
    });

    fs::create_dir(DIR).unwrap();
    fs::write("/tmp/cookies.o", OBJECT).unwrap();
    let pin = format!("{DIR}/program");
    bpftool(&["prog", "load", "/tmp/cookies.o", &pin, "pinmaps", DIR]);
    let program = Program::open_pinned(&*pin).unwrap();
    run("bpftool", program.as_fd(), &pin, &bpftool_hits);
    fs::remove_dir_all(DIR).unwrap();
}

fn of_aya(object: &mut Ebpf) -> &mut KProbe {
    let program = object.program_mut("count").unwrap();
    program.try_into().unwrap()
}

fn aya_hits(object: &Ebpf) -> Hits {
    let map = HashMap::try_from(object.map("by_cookie").unwrap()).unwrap();
    map.iter().map(Result::unwrap).collect()
}

fn by_libbpf() -> Object {
    let mut builder = ObjectBuilder::default();
    builder.open_memory(OBJECT).unwrap().load().unwrap()
}

fn of_libbpf(object: &Object) -> ProgramMut<'_> {
    let mut programs = object.progs_mut();
    programs.find(|program| program.name() == "count").unwrap()
}

fn libbpf_hits(object: &Object) -> Hits {
    let map = object.maps().find(|map| map.name() == "by_cookie").unwrap();
    let number = |bytes: Vec<u8>| u64::from_ne_bytes(bytes.try_into().unwrap());
    let hits = |key: Vec<u8>| {
        let value = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
        (number(key), number(value))
    };
    map.keys().map(hits).collect()
}

fn bpftool_hits() -> Hits {
    let dump = bpftool(&["-j", "map", "dump", "pinned", &format!("{DIR}/by_cookie")]);
    let number = |element: &Value, of: &str| element["formatted"][of].as_u64().unwrap();
    let elements = dump.as_array().unwrap().iter();
    elements
        .map(|element| (number(element, "key"), number(element, "value")))
        .collect()
}

/// Runs a command of the machine and returns its output.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn bpftool(args: &[&str]) -> Value {
    let text = output(Command::new("bpftool").args(args));
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Runs this crate's program.
#[track_caller]
fn kprobe_attach(program: BorrowedFd<'_>, args: &[&str]) -> String {
    let path = std::env::var("KPROBE_ATTACH_BIN").expect("set by ci/init");
    let input = program.try_clone_to_owned().unwrap();
    output(Command::new(path).args(args).stdin(input))
}

/// The modes that this kernel has.
fn modes() -> Vec<AttachMode> {
    let names = std::env::var("KPROBE_ATTACH_MODES").expect("set by ci/init");
    names.split(',').map(|name| name.parse().unwrap()).collect()
}

/// Every mode, at the entry and at the return, with the cookie that the attachment has: none where
/// the mode has no link.
fn attachments() -> Vec<(AttachMode, bool, u64)> {
    let mut cookies = COOKIE..;
    let with_cookie = |(mode, retprobe): (AttachMode, bool)| {
        let cookie = cookies.next().filter(|_| mode.uses_link());
        (mode, retprobe, cookie.unwrap_or(0))
    };
    let modes = modes().into_iter();
    modes
        .flat_map(|mode| [(mode, false), (mode, true)])
        .map(with_cookie)
        .collect()
}

fn attach(
    kernel: &Kernel,
    program: BorrowedFd<'_>,
    (mode, retprobe, cookie): (AttachMode, bool, u64),
) -> KprobeLink {
    let mut opts = KprobeOpts::new().attach_mode(mode).retprobe(retprobe);
    if cookie > 0 {
        opts = opts.bpf_cookie(cookie);
    }
    let target = Target::symbol(FUNCTION).unwrap();
    let attached = kernel.attach_kprobe(program, target, &opts);
    attached.unwrap_or_else(|error| panic!("{mode}, retprobe {retprobe}: {error}"))
}

/// Makes [`FUNCTION`] run `times` times.
fn mkdir(times: usize) {
    for _ in 0..times {
        fs::create_dir("/tmp/made").unwrap();
        fs::remove_dir("/tmp/made").unwrap();
    }
}

/// Returns the hits since then.
fn since(before: &Hits, now: &Hits) -> Hits {
    let new = |(cookie, hits): (&u64, &u64)| {
        let hits = hits - before.get(cookie).unwrap_or(&0);
        (hits > 0).then_some((*cookie, hits))
    };
    now.iter().filter_map(new).collect()
}

#[test]
fn the_crate_attaches_what_others_loaded() {
    each_loader(|loaded| {
        let kernel = Kernel::new();
        for attachment in attachments() {
            let before = (loaded.hits)();
            let link = attach(&kernel, loaded.program, attachment);
            mkdir(3);
            drop(link);
            mkdir(1);
            let hits = since(&before, &(loaded.hits)());
            let expected = Hits::from([(attachment.2, 3)]);
            assert_eq!(hits, expected, "{}, {attachment:?}", loaded.loader);
        }
    });
}

#[test]
fn the_program_attaches_what_others_loaded() {
    each_loader(|loaded| {
        let mut expected = Hits::new();
        let mut probes = Vec::new();
        for (mode, retprobe, cookie) in attachments() {
            let kind = if retprobe { "kretprobe" } else { "kprobe" };
            let mut probe = format!("{kind}/{FUNCTION},mode={mode}");
            if cookie > 0 {
                probe += &format!(",cookie={cookie}");
            }
            probes.push(probe);
            *expected.entry(cookie).or_default() += 2;
        }
        let mut args = vec!["attach", "--quiet", "--program", &loaded.name];
        args.extend(probes.iter().map(String::as_str));
        args.extend(["--", "mkdir", "/tmp/one", "/tmp/two"]);
        kprobe_attach(loaded.program, &args);
        fs::remove_dir("/tmp/one").unwrap();
        fs::remove_dir("/tmp/two").unwrap();
        mkdir(1);
        assert_eq!((loaded.hits)(), expected, "{}", loaded.loader);
    });
}

/// Checks that bpftool lists a link that is pinned at a path, and of which program it is.
fn is_listed(path: &str, id: u32, program: u32) {
    let links = bpftool(&["-j", "-f", "link", "list"]);
    let mut links = links.as_array().unwrap().iter();
    let link = links.find(|link| link["id"] == id).unwrap();
    assert_eq!(link["type"], "perf_event", "{link}");
    assert_eq!(link["prog_id"], program, "{link}");
    assert_eq!(link["pinned"], serde_json::json!([path]), "{link}");
}

#[test]
fn pinned_links_are_listed_by_bpftool_and_opened_by_others() {
    let by_crate = |loaded: &Loaded<'_>| {
        let attachment = (AttachMode::Link, false, COOKIE);
        let link = attach(&Kernel::new(), loaded.program, attachment);
        link.pin(&*format!("{PINS}/kprobe_{FUNCTION}")).unwrap();
    };
    let by_program = |loaded: &Loaded<'_>| {
        let probe = format!("kretprobe/{FUNCTION},mode=link,cookie={COOKIE}");
        let args = ["attach", "--program", &loaded.name, "--pin", PINS, &probe];
        kprobe_attach(loaded.program, &args);
    };
    fs::create_dir(PINS).unwrap();
    each_loader(|loaded| {
        by_crate(loaded);
        others_hold(loaded, &format!("{PINS}/kprobe_{FUNCTION}"));
        by_program(loaded);
        others_hold(loaded, &format!("{PINS}/kretprobe_{FUNCTION}"));
    });
    fs::remove_dir(PINS).unwrap();
}

/// Checks that bpftool, aya and libbpf read a pinned link, and that libbpf alone keeps it attached
/// when the pin has gone.
fn others_hold(loaded: &Loaded<'_>, pin: &str) {
    let before = (loaded.hits)();
    mkdir(2);
    let ours = KprobeLink::open_pinned(pin).unwrap();
    let id = ours.link_id().unwrap().unwrap();
    drop(ours);
    is_listed(pin, id, loaded.id);
    let by_aya = FdLink::from(PinnedLink::from_pin(pin).unwrap());
    let info = by_aya.info().unwrap();
    assert_eq!((info.id(), info.program_id()), (id, loaded.id));
    drop(by_aya);
    let mut by_libbpf = Link::open(pin).unwrap();
    let info = by_libbpf.info().unwrap();
    assert_eq!((info.id, info.prog_id), (id, loaded.id));
    by_libbpf.unpin().unwrap();
    assert!(!fs::exists(pin).unwrap());
    mkdir(3);
    drop(by_libbpf);
    mkdir(1);
    let hits = since(&before, &(loaded.hits)());
    assert_eq!(hits, Hits::from([(COOKIE, 5)]), "{}, {pin}", loaded.loader);
}

/// Attaches by libbpf itself, in one of its modes.
fn attach_by_libbpf(program: &ProgramMut<'_>, mode: probe_attach_mode, cookie: u64) -> Link {
    let function = std::ffi::CString::new(FUNCTION).unwrap();
    let opts = bpf_kprobe_opts {
        sz: size_of::<bpf_kprobe_opts>() as u64,
        bpf_cookie: cookie,
        attach_mode: mode,
        ..Default::default()
    };
    let program = program.as_libbpf_object();
    // SAFETY: the program is loaded, and the name and the options outlive the call.
    let link = unsafe {
        bpf_program__attach_kprobe_opts(program.as_ptr(), function.as_ptr(), &raw const opts)
    };
    let link = std::ptr::NonNull::new(link).unwrap_or_else(|| {
        let error = std::io::Error::last_os_error();
        panic!("libbpf's mode {mode}: {error}")
    });
    // SAFETY: libbpf has just made it, and nobody else has it.
    unsafe { Link::from_ptr(link) }
}

#[test]
fn links_of_libbpf_and_of_this_crate_fire_side_by_side() {
    let object = by_libbpf();
    let program = of_libbpf(&object);
    let kernel = Kernel::new();
    let their_modes = [
        (PROBE_ATTACH_MODE_DEFAULT, 1),
        (PROBE_ATTACH_MODE_LINK, 2),
        (PROBE_ATTACH_MODE_PERF, 0),
        (PROBE_ATTACH_MODE_LEGACY, 0),
    ];
    let attach_theirs =
        || their_modes.map(|(mode, cookie)| attach_by_libbpf(&program, mode, cookie));
    let attach_ours = || -> Vec<KprobeLink> {
        let attach = |attachment| attach(&kernel, program.as_fd(), attachment);
        attachments().into_iter().map(attach).collect()
    };
    let their_cookies = || their_modes.into_iter().map(|(_, cookie)| cookie);
    let our_cookies = || attachments().into_iter().map(|(_, _, cookie)| cookie);
    let mut expected = Hits::new();
    let mut count = |times, cookies: &mut dyn Iterator<Item = u64>| {
        for cookie in cookies {
            *expected.entry(cookie).or_default() += times;
        }
    };

    let theirs = attach_theirs();
    let ours = attach_ours();
    mkdir(3);
    count(3, &mut their_cookies().chain(our_cookies()));
    drop(theirs);
    mkdir(2);
    count(2, &mut our_cookies());
    // The other way round.
    let theirs = attach_theirs();
    mkdir(1);
    count(1, &mut their_cookies().chain(our_cookies()));
    drop(ours);
    mkdir(4);
    count(4, &mut their_cookies());
    drop(theirs);
    mkdir(1);
    assert_eq!(libbpf_hits(&object), expected);
    assert_eq!(fs::read_to_string(EVENTS).unwrap(), "");
}

#[test]
fn links_of_aya_and_of_this_crate_fire_side_by_side() {
    let mut object = Ebpf::load(OBJECT_19).unwrap();
    let program = of_aya(&mut object);
    program.load().unwrap();
    let theirs = program.attach(FUNCTION, 0).unwrap();
    let kernel = Kernel::new();
    let fd = program.fd().unwrap().as_fd();
    let attach = |attachment| attach(&kernel, fd, attachment);
    let ours: Vec<_> = attachments().into_iter().map(attach).collect();
    mkdir(3);
    program.detach(theirs).unwrap();
    mkdir(2);
    drop(ours);
    mkdir(1);
    let mut expected = Hits::from([(0, 3)]);
    for (_, _, cookie) in attachments() {
        *expected.entry(cookie).or_default() += 5;
    }
    assert_eq!(aya_hits(&object), expected);
    assert_eq!(fs::read_to_string(EVENTS).unwrap(), "");
}

#[test]
fn perf_lists_the_events() {
    let object = by_libbpf();
    let program = of_libbpf(&object);
    let kernel = Kernel::new();
    let attach = |attachment| attach(&kernel, program.as_fd(), attachment);
    let links: Vec<_> = attachments().into_iter().map(attach).collect();
    let mut expected = Vec::new();
    for line in fs::read_to_string(EVENTS).unwrap().lines() {
        let event = EventLine::parse(line.as_bytes()).unwrap();
        assert!(event.is_ours(), "{line}");
        let place = if line.starts_with('r') { "%return" } else { "" };
        let name = format!("{}:{}", event.group, event.event);
        expected.push(format!("{name} (on {FUNCTION}{place})"));
    }
    let in_tracefs = attachments()
        .into_iter()
        .filter(|attachment| attachment.0.uses_tracefs());
    assert_eq!(expected.len(), in_tracefs.count());
    let list = output(Command::new("perf").args(["probe", "-l"]));
    let mut listed: Vec<_> = list.lines().map(str::trim).collect();
    listed.sort_unstable();
    expected.sort();
    assert_eq!(listed, expected);
    drop(links);
}
