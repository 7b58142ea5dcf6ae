//! What must hold for every object, for the fuzz target.

use super::btf::Btf;
use super::contents::Object;
use super::error::Place;
use super::fix::{NEWS, fix, replace};
use super::maps::{MAX_MAPS, MapPlace};
use super::programs::INSN_LEN;
use super::relocate::Layout;

/// Does all of a load that needs no kernel, with memory of [`Object::memory_len`] bytes.
///
/// # Panics
///
/// Panics if an instruction of a program differs from that of the object, and is not at a
/// relocation and calls no function. Panics if the type information is malformed after its changes.
#[allow(clippy::expect_used, clippy::panic)]
pub fn check(object: &Object<'_>, memory: &mut [u8]) {
    let mut places = [MapPlace::NONE; MAX_MAPS];
    let mut count = 0;
    object.for_each_map(&mut |map| {
        if let Some(place) = places.get_mut(count) {
            *place = MapPlace {
                section: map.section,
                offset: map.offset,
                fd: Some(3),
            };
        }
        count += 1;
    });
    let place = Place::default();
    let places = places.get(..count).unwrap_or_default();
    for program in object.programs() {
        let _ = (program.kind(), program.probe());
        let function = program.function;
        let mut layout = Layout::new(function);
        if layout.write(object, places, memory, &place).is_err() {
            continue;
        }
        let insns = memory.chunks_exact(INSN_LEN);
        let insns = insns.zip(function.code.chunks_exact(INSN_LEN));
        for (index, (insn, from)) in (0_u64..).zip(insns) {
            let at = function.start + index * INSN_LEN as u64;
            let mut relocations = object.elf.relocations(function.section.index);
            let is_relocated = insn == from
                || relocations.any(|it| at == it.offset || at == it.offset.wrapping_add(8));
            assert!(is_relocated, "{} at {at:#x}", program.name());
        }
    }
    if let Some(btf) = &object.btf {
        let Ok(fixed) = fix(object, btf, memory, &place) else {
            return;
        };
        for news in NEWS {
            replace(btf, news, fixed);
            let parsed = Btf::parse(fixed, &Place::default()).expect("it is of the same form");
            assert_eq!(parsed.types().count(), btf.types().count());
        }
    }
}
