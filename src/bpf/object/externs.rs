//! The external variables of an object, whose values the loader knows: `__kconfig` and `__ksym`.

use super::btf::{ARRAY, Btf, ENUM, INT, VAR};
use super::contents::Object;
use super::elf::{Elf, SHN_UNDEF, STB_WEAK, Symbol};
use super::error::{Fault, Place, Result};

/// The sections of the type information in which external variables are.
pub(super) const KCONFIG: &str = ".kconfig";
pub(super) const KSYMS: &str = ".ksyms";

/// The name of the variable that says how system calls take their arguments.
pub(super) const SYSCALL_WRAPPER: &str = "LINUX_HAS_SYSCALL_WRAPPER";

/// Holds the values of the `__kconfig` variables that this crate serves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// `LINUX_KERNEL_VERSION`
    pub(super) version: u32,
    /// `LINUX_HAS_SYSCALL_WRAPPER`, if the caller knows.
    pub(super) syscall_wrapper: Option<bool>,
}

/// Describes a `__kconfig` variable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extern<'a> {
    pub(super) name: &'a str,
    kind: u8,
    pub(super) size: u32,
    align: u32,
    binding: u8,
}

/// Returns the symbol of an external variable or function.
#[inline(never)]
pub(super) fn find<'a>(elf: &Elf<'a>, name: &str) -> Option<Symbol<'a>> {
    elf.find_symbol(name, &|symbol| symbol.section() == SHN_UNDEF)
}

/// Calls `each` with every `__kconfig` variable and its offset, in libbpf's order: the widest
/// first, and those of one size by their names. Returns the bytes of them all.
#[inline(never)]
pub(super) fn for_each_kconfig<'a>(
    object: &Object<'a>,
    place: &Place<'a>,
    each: &mut dyn FnMut(&Extern<'a>, u32) -> Result<()>,
) -> Result<u32> {
    let Some(btf) = &object.btf else {
        return Ok(0);
    };
    let Some(section) = btf.section(KCONFIG) else {
        return Ok(0);
    };
    let mut last: Option<Extern<'a>> = None;
    let mut end = 0_u32;
    loop {
        let mut next: Option<Extern<'a>> = None;
        for [variable, ..] in section.words() {
            let found = Extern::of(&object.elf, btf, variable, place)?;
            let follows = last.is_none_or(|last| last.is_before(&found));
            if follows && next.is_none_or(|next| found.is_before(&next)) {
                next = Some(found);
            }
        }
        let Some(found) = next else {
            return Ok(end);
        };
        place.at(KCONFIG, found.name, 0);
        let Some(start) = end.checked_next_multiple_of(found.align) else {
            return Err(Fault::BadExtern);
        };
        let Some(next_end) = start.checked_add(found.size) else {
            return Err(Fault::BadExtern);
        };
        end = next_end;
        each(&found, start)?;
        last = next;
    }
}

/// Returns the bytes of all `__kconfig` variables.
#[inline(never)]
pub(super) fn kconfig_len<'a>(object: &Object<'a>, place: &Place<'a>) -> Result<u32> {
    for_each_kconfig(object, place, &mut |_, _| Ok(()))
}

/// Returns the offset of a `__kconfig` variable, if it is one.
#[inline(never)]
pub(super) fn kconfig_offset(object: &Object<'_>, name: &str) -> Option<u32> {
    let mut offset = None;
    // They have been read before, with the maps.
    let _ = for_each_kconfig(object, &Place::default(), &mut |found, at| {
        if found.name == name {
            offset = Some(at);
        }
        Ok(())
    });
    offset
}

impl<'a> Extern<'a> {
    #[inline(never)]
    fn of(elf: &Elf<'a>, btf: &Btf<'a>, id: u32, place: &Place<'a>) -> Result<Self> {
        let variable = btf.type_of(id).filter(|variable| variable.kind() == VAR);
        let name = variable.map_or("", |variable| btf.name(&variable));
        place.at(KCONFIG, name, 0);
        let symbol = find(elf, name).ok_or(Fault::NoVariable)?;
        let r#type = variable.and_then(|variable| btf.unqualified(variable.size_or_id()));
        let sized = r#type.and_then(|r#type| Some((r#type.kind(), btf.size_of(r#type.id)?)));
        let (kind, size, align) = match sized {
            Some((kind @ (INT | ENUM), size @ (1 | 2 | 4 | 8))) => (kind, size, size),
            // A string is an array of char.
            Some((ARRAY, size)) => (ARRAY, size, 1),
            _ => return Err(Fault::BadExtern),
        };
        Ok(Self {
            name,
            kind,
            size,
            align,
            binding: symbol.binding(),
        })
    }

    fn is_before(&self, other: &Self) -> bool {
        (other.align, self.size, self.name) < (self.align, other.size, other.name)
    }

    /// Writes its value to its bytes.
    #[inline(never)]
    pub(super) fn write(&self, known: Known, bytes: &mut [u8], place: &Place<'a>) -> Result<()> {
        place.at(KCONFIG, self.name, 0);
        let value = match self.name {
            "LINUX_KERNEL_VERSION" => Some(known.version),
            SYSCALL_WRAPPER => known.syscall_wrapper.map(u32::from),
            _ => None,
        };
        let value = match value {
            None if self.binding == STB_WEAK => 0,
            None => return Err(Fault::ExternNotServed),
            Some(value) => value,
        };
        if value != 0 && (self.kind != INT || value > 1 && self.size < 4) {
            return Err(Fault::BadExtern);
        }
        let value = value.to_ne_bytes();
        // An integer of another size has the value in its low bytes.
        if cfg!(target_endian = "little") {
            let places = bytes.iter_mut().zip(value);
            places.for_each(|(to, from)| *to = from);
        } else {
            let places = bytes.iter_mut().rev().zip(value.into_iter().rev());
            places.for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}
