//! Groups of functions: the way that is chosen, the policies, the limit of file descriptors, and
//! detaching.

use std::ops::ControlFlow;

use kprobe_attach::bpf::{Array, AttachType, Load, Program, insn};
use kprobe_attach::error::{Cause, Step};
use kprobe_attach::request::{Functions, GroupOpts, Invalid, Policy, SymbolRef};
use kprobe_attach::{Errno, Error, GroupMemory, GroupSlot, GroupWay, Kernel, KprobeGroup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::machine::{
    Counter, Switch, asked, clean, counting, counting_by_cookie_for, fds, has_multi, mkdir,
    probeable, promised, unlink, version, with_counted,
};

const ALL: GroupOpts = GroupOpts::new();

/// The memory of a group.
pub(crate) struct Memory {
    slots: Vec<GroupSlot>,
    addresses: Vec<u64>,
}

impl Memory {
    pub(crate) fn of(functions: usize) -> Self {
        Self {
            slots: (0..functions).map(|_| GroupSlot::new()).collect(),
            addresses: vec![0; functions],
        }
    }

    pub(crate) fn borrow(&mut self) -> GroupMemory<'_> {
        GroupMemory::new(&mut self.slots, &mut self.addresses)
    }
}

/// What the callback of a group was called with.
type Results = Vec<(usize, Option<Error>)>;

/// Attaches, and returns with the group what the callback was called with.
fn attach<'m>(
    kernel: &Kernel,
    program: &Program,
    functions: Functions<'_>,
    opts: GroupOpts,
    memory: &'m mut Memory,
) -> (Result<KprobeGroup<'m>, Error>, Results) {
    let mut results = Vec::new();
    let group = kernel.attach_group(program, functions, &opts, memory.borrow(), |at, result| {
        results.push((at, result.err().copied()));
        ControlFlow::Continue(())
    });
    (group, results)
}

/// A program that does nothing, for links of one kind.
pub(crate) fn nothing(attach_type: AttachType) -> Program {
    let insns = [insn::mov_imm(insn::R0, 0), insn::exit()];
    let load = Load::new(&insns, c"GPL").attach_type(attach_type);
    load.load().unwrap()
}

/// The programs that this kernel attaches: those for links to one function, and those for links to
/// many if it has such links.
pub(crate) fn kinds() -> Vec<AttachType> {
    let mut kinds = vec![AttachType::Kprobe];
    if has_multi() {
        kinds.push(AttachType::KprobeMulti);
    }
    kinds
}

/// The way in which this kernel attaches so many functions by name.
fn expected_way(attach_type: AttachType, count: usize) -> GroupWay {
    let mode = promised()[0];
    match attach_type {
        AttachType::KprobeMulti => GroupWay::Multi,
        _ if version() < (6, 1) && count >= 20 => GroupWay::EachByAddress(mode),
        _ => GroupWay::Each(mode),
    }
}

#[test]
fn the_best_way_is_taken_and_each_hit_has_the_cookie_of_its_function() {
    for attach_type in kinds() {
        for count in [3, 22] {
            let named = with_counted(count);
            let symbols = named.symbols();
            let has_cookies = promised()[0].uses_link();
            let mut cookies = vec![0; count];
            if has_cookies {
                cookies[count - 3..].copy_from_slice(&[1, 2, 3]);
            }
            let functions = Functions::symbols(&symbols).cookies(&cookies);
            for retprobe in [false, true] {
                let mut memory = Memory::of(count);
                clean(|| {
                    let kernel = asked();
                    let counters = Array::create(4).unwrap();
                    let program = if has_cookies {
                        counting_by_cookie_for(&counters, attach_type)
                    } else {
                        counting(&counters, 1)
                    };
                    let opts = ALL.retprobe(retprobe);
                    let plan = kernel.plan_group(functions, &opts, attach_type).unwrap();
                    assert_eq!(plan.way(), expected_way(attach_type, count));
                    let attached = attach(&kernel, &program, functions, opts, &mut memory);
                    let (group, results) = attached;
                    let group = group.unwrap();
                    assert_eq!(group.way(), plan.way());
                    assert_eq!(group.len(), count);
                    assert!((0..count).all(|index| group.is_attached(index)));
                    assert_eq!(results, (0..count).map(|at| (at, None)).collect::<Vec<_>>());
                    let links = (group.links().count(), group.multi_links().count());
                    let expected = if plan.way() == GroupWay::Multi {
                        (0, 1)
                    } else {
                        (count, 0)
                    };
                    assert_eq!(links, expected);
                    let hits = || [1, 2, 3].map(|at| counters.get(at).unwrap());
                    unlink(3);
                    mkdir(2);
                    let counted = hits();
                    if has_cookies {
                        assert_eq!(counted, [3, 0, 2], "{attach_type:?} {count} {retprobe}");
                    } else {
                        // Without cookies, hits of the other functions are among them.
                        assert!(counted[0] >= 5, "{attach_type:?} {count} {retprobe}");
                    }
                    group.detach().unwrap();
                    let counted = hits();
                    unlink(1);
                    assert_eq!(hits(), counted, "{attach_type:?} {count} {retprobe}");
                });
            }
        }
    }
}

#[test]
fn addresses_make_links_as_names_do() {
    let named = with_counted(4);
    for attach_type in kinds() {
        let mut memory = Memory::of(4);
        clean(|| {
            let counters = Array::create(1).unwrap();
            let program = counting_all(&counters, attach_type);
            let functions = Functions::addresses(&named.addresses);
            let attached = attach(&asked(), &program, functions, ALL, &mut memory);
            let group = attached.0.unwrap();
            unlink(2);
            assert_eq!(counters.get(0).unwrap(), 2, "{attach_type:?}");
            drop(group);
            unlink(1);
            assert_eq!(counters.get(0).unwrap(), 2, "{attach_type:?}");
        });
    }
}

/// A program that counts all hits in the first counter.
fn counting_all(counters: &Array, attach_type: AttachType) -> Program {
    match attach_type {
        AttachType::Kprobe => counting(counters, 0),
        // Without cookies the cookie is 0.
        attach_type => counting_by_cookie_for(counters, attach_type),
    }
}

/// One bad function among many: all or nothing leaves nothing, and best effort attaches the others
/// and names the one.
pub(crate) fn check_one_bad(count: usize, attach_type: AttachType) {
    let named = with_counted(count);
    let program = nothing(attach_type);
    let kernel = asked();
    let mut memory = Memory::of(count);
    for (bad, cause) in [
        (c"no_such_function", Cause::NoSuchFunction),
        (c"not a function", Cause::InvalidRequest),
    ] {
        let at = count / 2;
        let mut symbols = named.symbols();
        symbols[at] = SymbolRef::new(bad);
        let functions = Functions::symbols(&symbols);
        let is_named = |error: &Error| {
            assert_eq!(error.subject(), Some(bad.to_str().unwrap()), "{error}");
            assert_eq!(error.cause(), cause, "{error}");
        };
        clean(|| {
            let (group, results) = attach(&kernel, &program, functions, ALL, &mut memory);
            is_named(&group.unwrap_err());
            assert!(
                results
                    .iter()
                    .all(|(index, error)| *index < at || error.is_some())
            );
        });
        assert!(
            memory
                .slots
                .iter()
                .all(|slot| format!("{slot:?}") == "GroupSlot(None)")
        );
        clean(|| {
            let opts = ALL.policy(Policy::BestEffort);
            let (group, results) = attach(&kernel, &program, functions, opts, &mut memory);
            let group = group.unwrap();
            assert_eq!(group.len(), count - 1);
            assert!(
                !group.is_attached(at) && group.is_attached(at - 1) && group.is_attached(at + 1)
            );
            assert_eq!(results.len(), count);
            for (index, (of, error)) in results.iter().enumerate() {
                assert_eq!(*of, index);
                assert_eq!(error.is_some(), index == at, "{error:?}");
            }
            is_named(&results[at].1.unwrap());
            group.detach_by_children(3).unwrap();
        });
    }
}

#[test]
fn one_bad_function_leaves_nothing_or_the_others() {
    for attach_type in kinds() {
        check_one_bad(21, attach_type);
    }
}

#[test]
fn any_of_attaches_the_first_that_it_can_and_no_other() {
    let symbols = [c"no_such_function", c"vfs_unlink", c"vfs_mkdir"].map(SymbolRef::new);
    let missing = [c"no_such_function", c"no_other_function"].map(SymbolRef::new);
    let opts = ALL.policy(Policy::AnyOf);
    for attach_type in kinds() {
        let mut memory = Memory::of(3);
        clean(|| {
            let counters = Array::create(1).unwrap();
            let program = counting_all(&counters, attach_type);
            let functions = Functions::symbols(&symbols);
            let (group, results) = attach(&asked(), &program, functions, opts, &mut memory);
            let group = group.unwrap();
            assert_eq!(group.len(), 1);
            assert!(group.is_attached(1) && !group.is_attached(2));
            assert_eq!(results.len(), 2);
            assert_eq!(results[0].1.unwrap().cause(), Cause::NoSuchFunction);
            unlink(1);
            mkdir(1);
            assert_eq!(counters.get(0).unwrap(), 1);
        });
        clean(|| {
            let program = nothing(attach_type);
            let functions = Functions::symbols(&missing);
            let (group, results) = attach(&asked(), &program, functions, opts, &mut memory);
            let error = group.unwrap_err();
            assert_eq!(error.subject(), Some("no_such_function"), "{error}");
            assert_eq!(results.len(), 2);
        });
    }
}

#[test]
fn the_callback_can_stop_and_what_was_attached_is_detached() {
    let named = probeable(6);
    let symbols = named.symbols();
    let counter = Counter::new();
    let mut memory = Memory::of(6);
    clean(|| {
        let functions = Functions::symbols(&symbols);
        let kernel = asked();
        let memory = memory.borrow();
        let group = kernel.attach_group(&counter.program, functions, &ALL, memory, |at, _| {
            if at == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(group.unwrap().len(), 3);
    });
}

#[test]
fn too_few_descriptors_are_an_error_before_anything_is_attached() {
    let named = probeable(40);
    let symbols = named.symbols();
    let counter = Counter::new();
    let before = getrlimit(Resource::Nofile);
    for mode in promised() {
        let mut memory = Memory::of(40);
        let kernel = asked();
        let opts = ALL.attach_mode(mode);
        clean(|| {
            let open = fds().into_keys().max().unwrap();
            let current = Some(u64::from(open) + 30);
            setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            let functions = Functions::symbols(&symbols);
            let mut attach = |functions| {
                let (group, results) =
                    attach(&kernel, &counter.program, functions, opts, &mut memory);
                (group.map(|group| group.len()), results.len())
            };
            let (refused, results) = attach(functions);
            let error = refused.unwrap_err();
            assert_eq!(results, 0);
            let told = (error.step(), error.errno(), error.cause());
            assert_eq!(
                told,
                (Step::Request, Errno::MFILE, Cause::OutOfFds),
                "{error}"
            );
            let (asked, fit) = error.capacity().unwrap();
            assert_eq!(asked, 40);
            assert!((10..30).contains(&fit), "{error}");
            let text = format!("file descriptors left for {fit} of 40 functions");
            assert!(error.to_string().contains(&text), "{error}");
            // As many as are said to fit do fit.
            let fitting = Functions::symbols(&symbols[..fit as usize]);
            assert_eq!(attach(fitting).0, Ok(fit as usize));
            setrlimit(Resource::Nofile, before).unwrap();
        });
    }
}

#[test]
fn a_group_is_refused_that_breaks_a_rule() {
    let symbols = [c"vfs_unlink", c"vfs_mkdir"].map(SymbolRef::new);
    let functions = Functions::symbols(&symbols);
    let counter = Counter::new();
    let kernel = asked();
    let mut memory = Memory::of(1);
    let mut rule = |functions, opts: GroupOpts| {
        let attached = clean(|| {
            attach(&kernel, &counter.program, functions, opts, &mut memory)
                .0
                .map(drop)
        });
        attached.unwrap_err()
    };
    assert_eq!(rule(functions, ALL).rule(), Some(Invalid::GroupMemory));
    let none = Functions::symbols(&[]);
    assert_eq!(rule(none, ALL).rule(), Some(Invalid::NoFunctions));
    let cookies = functions.cookies(&[1]);
    assert_eq!(rule(cookies, ALL).rule(), Some(Invalid::CookieCount));
    // A session is one link, and nothing else is one.
    let error = rule(Functions::symbols(&symbols[..1]), ALL.session(true));
    let cause = if has_multi() {
        Cause::WrongProgram
    } else {
        Cause::NoKprobeMulti
    };
    assert_eq!(error.cause(), cause, "{error}");
}

#[test]
fn a_group_is_detached_by_children_in_every_mode() {
    let named = with_counted(9);
    let symbols = named.symbols();
    for mode in promised() {
        for children in [1, 3, 100] {
            let mut memory = Memory::of(9);
            clean(|| {
                let counter = Counter::new();
                let opts = ALL.attach_mode(mode);
                let functions = Functions::symbols(&symbols);
                let attached = attach(&asked(), &counter.program, functions, opts, &mut memory);
                let group = attached.0.unwrap();
                unlink(1);
                let hits = counter.hits();
                assert!(hits >= 1);
                group.detach_by_children(children).unwrap();
                unlink(1);
                mkdir(1);
                assert_eq!(counter.hits(), hits, "{mode} {children}");
            });
        }
    }
}

#[test]
fn without_addresses_a_group_is_attached_by_name() {
    let named = with_counted(22);
    let symbols = named.symbols();
    let _hidden = Switch::set("/proc/sys/kernel/kptr_restrict", "2").unwrap();
    let counter = Counter::new();
    for room in [0, 22] {
        let mut memory = Memory::of(22);
        memory.addresses.truncate(room);
        clean(|| {
            let functions = Functions::symbols(&symbols);
            let attached = attach(&asked(), &counter.program, functions, ALL, &mut memory);
            let group = attached.0.unwrap();
            let hits = counter.hits();
            unlink(1);
            assert!(counter.hits() > hits);
            drop(group);
        });
    }
}

#[test]
fn a_repeated_function_has_a_link_for_each_time() {
    let symbols = [c"vfs_unlink", c"vfs_unlink"].map(SymbolRef::new);
    let mut memory = Memory::of(2);
    clean(|| {
        let counter = Counter::new();
        let functions = Functions::symbols(&symbols);
        let attached = attach(&asked(), &counter.program, functions, ALL, &mut memory);
        let group = attached.0.unwrap();
        unlink(1);
        assert_eq!(counter.hits(), 2);
        drop(group);
    });
}

#[test]
fn best_effort_goes_on_in_the_mode_that_is_asked_for() {
    let symbols = [c"vfs_unlink", c"no_such_function", c"vfs_mkdir"].map(SymbolRef::new);
    for mode in promised() {
        let mut memory = Memory::of(3);
        clean(|| {
            let counter = Counter::new();
            let opts = ALL.policy(Policy::BestEffort).attach_mode(mode);
            let functions = Functions::symbols(&symbols);
            let attached = attach(&asked(), &counter.program, functions, opts, &mut memory);
            let group = attached.0.unwrap();
            assert_eq!(group.way(), GroupWay::Each(mode));
            assert!(
                group
                    .links()
                    .map(|(at, link)| (at, link.mode()))
                    .eq([(0, mode), (2, mode)])
            );
            unlink(1);
            mkdir(1);
            assert_eq!(counter.hits(), 2, "{mode}");
        });
    }
}
