//! Changes that the kernel needs in the type information of a compiler. Source: libbpf's
//! `btf_fixup_datasec` and `bpf_object__sanitize_btf`.

use super::btf::{
    BTF, Btf, CONST, DATASEC, DECL_TAG, ENTRY_LEN, ENUM, ENUM64, EXTERN, FLOAT, FUNC, GLOBAL, INT,
    STATIC, STRUCT, TYPE_LEN, TYPE_TAG, TYPEDEF, Type, UNION, VAR,
};
use super::contents::Object;
use super::elf::{STT_FUNC, STT_OBJECT, u32_at};
use super::error::{Fault, Place, Result};
use super::externs::{KCONFIG, KSYMS, kconfig_len, kconfig_offset};

/// Names what kernels before a version do not know, the newest first. Each is replaced by a type
/// that has the same size.
pub(super) const NEWS: [News; 6] = [
    News::Enum64,
    News::TypeTag,
    News::DeclTag,
    News::Float,
    News::GlobalFunction,
    News::Variable,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Enums of 64 bits, and signed ones: Linux 6.0 (commit 6089fb325cf7)
    Enum64,
    /// Linux 5.17 (commit 8c42d2fa4eeb)
    TypeTag,
    /// Linux 5.16 (commits b5ea834dde6b and bd16dee66ae4)
    DeclTag,
    /// Linux 5.13 (commit b1828f0b0482)
    Float,
    /// Linux 5.6 (commit 51c39bb1d5d1)
    GlobalFunction,
    /// Variables and their sections: Linux 5.2 (commit 1dc92851849c)
    Variable,
}

/// Writes a type's own words and those of its entries to a copy of the type information.
struct Copy<'m> {
    memory: &'m mut [u8],
    types_at: usize,
}

impl Copy<'_> {
    #[inline(never)]
    fn set(&mut self, at: usize, word: u32) {
        self.set_words(at, [word]);
    }

    fn set_words<const N: usize>(&mut self, at: usize, words: [u32; N]) {
        let rest = self.memory.get_mut(self.types_at + at..);
        if let Some((to, _)) = rest.and_then(|rest| rest.split_at_mut_checked(4 * N)) {
            to.copy_from_slice(words.map(u32::to_ne_bytes).as_flattened());
        }
    }

    #[inline(never)]
    fn entry(&self, r#type: &Type<'_>, index: usize) -> [u32; 3] {
        let at = self.types_at + r#type.at + TYPE_LEN + index * ENTRY_LEN;
        [at, at + 4, at + 8].map(|at| u32_at(self.memory, at).unwrap_or_default())
    }

    #[inline(never)]
    fn set_entry(&mut self, r#type: &Type<'_>, index: usize, entry: [u32; 3]) {
        self.set_words(r#type.at + TYPE_LEN + index * ENTRY_LEN, entry);
    }

    /// Makes it a type of another kind without a name, with entries of the same length.
    #[inline(never)]
    fn set_unnamed(&mut self, r#type: &Type<'_>, kind: u8, vlen: u16) {
        self.set(r#type.at, 0);
        self.set_kind(r#type, kind, vlen);
    }

    /// Makes it a type of another kind, with entries of the same length.
    fn set_kind(&mut self, r#type: &Type<'_>, kind: u8, vlen: u16) {
        self.set(r#type.at + 4, u32::from(kind) << 24 | u32::from(vlen));
    }

    fn set_size_or_id(&mut self, r#type: &Type<'_>, word: u32) {
        self.set(r#type.at + 8, word);
    }

    /// Sets the linkage of a function or of a variable.
    fn set_linkage(&mut self, r#type: &Type<'_>, linkage: u32) {
        match u16::try_from(linkage) {
            Ok(vlen) if r#type.kind() == FUNC => self.set_kind(r#type, FUNC, vlen),
            _ => self.set(r#type.at + TYPE_LEN, linkage),
        }
    }

    /// Makes it an integer of a byte, which has one more word, as a variable and a tag do.
    fn set_byte(&mut self, r#type: &Type<'_>) {
        self.set_kind(r#type, INT, 0);
        self.set_size_or_id(r#type, 1);
        self.set(r#type.at + TYPE_LEN, 8);
    }
}

/// Copies the type information to memory, and changes what every kernel needs changed: sizes and
/// offsets in sections of variables, and what is external.
#[inline(never)]
pub(super) fn fix<'a, 'm>(
    object: &Object<'a>,
    btf: &Btf<'a>,
    memory: &'m mut [u8],
    place: &Place<'a>,
) -> Result<&'m mut [u8]> {
    let memory = memory.get_mut(..btf.bytes.len());
    place.at_section(BTF);
    let memory = memory.ok_or(Fault::LittleMemory)?;
    memory.copy_from_slice(btf.bytes);
    let types_at = btf.types_at;
    let mut copy = Copy { memory, types_at };
    for r#type in btf.types() {
        match r#type.kind() {
            DATASEC => match btf.name(&r#type) {
                KCONFIG => fix_kconfig(object, btf, &r#type, &mut copy, place)?,
                KSYMS => fix_ksyms(btf, &r#type, &mut copy, place)?,
                name => fix_section(object, btf, &r#type, name, &mut copy, place)?,
            },
            // No function is behind it. A typedef is as long, so it takes the place.
            FUNC if r#type.linkage() == EXTERN => copy.set_kind(&r#type, TYPEDEF, 0),
            // The verifier then looks into the function at each call, as for a static one.
            FUNC if r#type.linkage() == GLOBAL && is_hidden(object, btf.name(&r#type)) => {
                copy.set_linkage(&r#type, STATIC);
            }
            _ => {}
        }
    }
    Ok(copy.memory)
}

/// Returns whether a function of `.text` is global, but of this object only.
#[inline(never)]
fn is_hidden(object: &Object<'_>, name: &str) -> bool {
    let symbol = object.elf.global(STT_FUNC, name);
    symbol.is_some_and(|symbol| symbol.is_hidden() && Some(symbol.section()) == object.text)
}

/// Gives a section of variables its size, and each global variable its offset. A compiler knows
/// the offsets of the static ones only.
#[inline(never)]
fn fix_section<'a>(
    object: &Object<'a>,
    btf: &Btf<'a>,
    section: &Type<'a>,
    name: &'a str,
    copy: &mut Copy<'_>,
    place: &Place<'a>,
) -> Result<()> {
    let has_size = section.size_or_id() != 0;
    if !has_size {
        let found = object.elf.section_named(name);
        let size = found.and_then(|found| u32::try_from(found.size()).ok());
        let size = size.filter(|size| *size > 0);
        place.at_section(name);
        copy.set_size_or_id(section, size.ok_or(Fault::NoVariable)?);
    }
    for (index, [id, offset, size]) in section.words().enumerate() {
        place.at_section(name);
        let variable = variable(btf, id).ok_or(Fault::BadBtf)?;
        let variable_name = btf.name(&variable);
        place.at(name, variable_name, offset.into());
        if variable.linkage() != GLOBAL {
            continue;
        }
        let symbol = object.elf.global(STT_OBJECT, variable_name);
        let symbol = symbol.ok_or(Fault::NoVariable)?;
        if !has_size {
            let Ok(offset) = u32::try_from(symbol.value()) else {
                return Err(Fault::BadSymbol);
            };
            copy.set_entry(section, index, [id, offset, size]);
        }
        if symbol.is_hidden() {
            copy.set_linkage(&variable, STATIC);
        }
    }
    sort(section, copy);
    Ok(())
}

/// Returns the variable that an entry of a section names.
fn variable<'a>(btf: &Btf<'a>, id: u32) -> Option<Type<'a>> {
    btf.type_of(id).filter(|variable| variable.kind() == VAR)
}

/// Sorts the variables of a section by their offsets.
#[inline(never)]
fn sort(section: &Type<'_>, copy: &mut Copy<'_>) {
    for sorted in 1..usize::from(section.vlen()) {
        let entry = copy.entry(section, sorted);
        let mut index = sorted;
        while let Some(before) = index.checked_sub(1) {
            let earlier = copy.entry(section, before);
            if earlier[1] <= entry[1] {
                break;
            }
            copy.set_entry(section, index, earlier);
            index = before;
        }
        copy.set_entry(section, index, entry);
    }
}

/// Makes the `__kconfig` variables those of a map.
#[inline(never)]
fn fix_kconfig<'a>(
    object: &Object<'a>,
    btf: &Btf<'a>,
    section: &Type<'a>,
    copy: &mut Copy<'_>,
    place: &Place<'a>,
) -> Result<()> {
    let size = kconfig_len(object, place)?;
    copy.set_size_or_id(section, size);
    for (index, [id, _, size]) in section.words().enumerate() {
        place.at_section(KCONFIG);
        let variable = variable(btf, id).ok_or(Fault::BadBtf)?;
        let offset = kconfig_offset(object, btf.name(&variable));
        copy.set_entry(section, index, [id, offset.unwrap_or_default(), size]);
        copy.set_linkage(&variable, GLOBAL);
    }
    sort(section, copy);
    Ok(())
}

/// Makes the section of the kernel's symbols a struct of integers, since no kernel takes variables
/// that are external.
#[inline(never)]
fn fix_ksyms<'a>(
    btf: &Btf<'a>,
    section: &Type<'a>,
    copy: &mut Copy<'_>,
    place: &Place<'a>,
) -> Result<()> {
    place.at_section(KSYMS);
    let integer = integer(btf, 8).ok_or(Fault::BadType)?;
    let size = integer.size_or_id();
    let mut end = 0;
    for (index, [id, ..]) in section.words().enumerate() {
        let variable = btf.type_of(id).ok_or(Fault::BadType)?;
        if variable.kind() == VAR {
            copy.set_size_or_id(&variable, integer.id);
            copy.set_linkage(&variable, GLOBAL);
        }
        copy.set_entry(section, index, [0, integer.id, end * 8]);
        end += size;
    }
    copy.set_unnamed(section, STRUCT, section.vlen());
    copy.set_size_or_id(section, end);
    Ok(())
}

/// Returns an integer of whole bytes, of at most this size.
#[inline(never)]
fn integer<'a>(btf: &Btf<'a>, size: u32) -> Option<Type<'a>> {
    btf.types()
        .find(|r#type| r#type.kind() == INT && (1..=size).contains(&r#type.size_or_id()))
}

/// Replaces what an older kernel does not know, in a copy that [`fix`] has made. Returns whether
/// there was any.
#[inline(never)]
pub(super) fn replace(btf: &Btf<'_>, news: News, memory: &mut [u8]) -> bool {
    let types_at = btf.types_at;
    let mut copy = Copy { memory, types_at };
    let mut any = false;
    for r#type in btf.types() {
        let vlen = r#type.vlen();
        match (news, r#type.kind()) {
            (News::Enum64, ENUM64) => {
                let integer = integer(btf, r#type.size_or_id()).map_or(0, |integer| integer.id);
                for (index, [name, ..]) in r#type.words().enumerate() {
                    copy.set_entry(&r#type, index, [name, integer, 0]);
                }
                copy.set_kind(&r#type, UNION, vlen);
            }
            (News::Enum64, ENUM) if r#type.kind_flag() => copy.set_kind(&r#type, ENUM, vlen),
            (News::TypeTag, TYPE_TAG) => copy.set_unnamed(&r#type, CONST, 0),
            (News::DeclTag, DECL_TAG) | (News::Variable, VAR) => copy.set_byte(&r#type),
            (News::Float, FLOAT) => copy.set_unnamed(&r#type, STRUCT, 0),
            (News::GlobalFunction, FUNC) if r#type.linkage() == GLOBAL => {
                copy.set_linkage(&r#type, STATIC);
            }
            (News::Variable, DATASEC) if btf.name(&r#type) != KSYMS => {
                for index in 0..usize::from(vlen) {
                    let [variable, offset, _] = copy.entry(&r#type, index);
                    let name = btf.type_of(variable).map_or(0, |variable| variable.name());
                    let entry = [name, variable, offset.wrapping_mul(8)];
                    copy.set_entry(&r#type, index, entry);
                }
                copy.set_unnamed(&r#type, STRUCT, vlen);
            }
            _ => continue,
        }
        any = true;
    }
    any
}
