//! The maps of an object: those that it defines, and those that hold its data.

use super::btf::{ARRAY, Btf, PTR, STRUCT, VAR};
use super::contents::Object;
use super::elf::{
    Elf, SHT_NOBITS, SHT_PROGBITS, STT_NOTYPE, STT_OBJECT, Section, Symbol, range, u32_at,
};
use super::error::{Fault, Place, Result};
use super::externs::{KCONFIG, kconfig_len};
use crate::text::line_of;

/// The most maps that an object may have: the kernel's `MAX_USED_MAPS` for a program.
pub(super) const MAX_MAPS: usize = 64;

const MAPS: &str = ".maps";
const OLD_MAPS: &str = "maps";

pub(super) const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_HASH_OF_MAPS: u32 = 13;
const BPF_MAP_TYPE_STRUCT_OPS: u32 = 26;

/// The program may not write to the map: Linux 5.2 (commit 591fe9888d78).
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
/// The map can be mapped into memory: Linux 5.5 (commit fc9702273e2e).
pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Names where the elements of a map come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// The map is empty at first.
    Empty,
    /// Its one element has the bytes of a section, or zeros.
    Data(&'a [u8]),
    /// Its one element has the values of the `__kconfig` variables.
    Kconfig,
}

/// Describes a map of an object.
#[derive(Clone, Copy, Debug)]
pub struct MapDefinition<'a> {
    pub(super) name: &'a str,
    /// The section of its symbol; [`None`] for that of `__kconfig` variables.
    pub(super) section: Option<usize>,
    pub(super) section_name: &'a str,
    /// The offset of its symbol, if there are several maps in the section.
    pub(super) offset: Option<u64>,
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) numa_node: u32,
    pub(super) map_extra: u64,
    /// The types of keys and values; 0 if they are unknown.
    pub(super) key_type: u32,
    pub(super) value_type: u32,
    pub(super) is_pinned: bool,
    pub(super) content: Content<'a>,
}

impl<'a> MapDefinition<'a> {
    #[inline(never)]
    const fn new(name: &'a str, section: Option<usize>, section_name: &'a str) -> Self {
        Self {
            name,
            section,
            section_name,
            offset: None,
            map_type: 0,
            key_size: 0,
            value_size: 0,
            max_entries: 0,
            map_flags: 0,
            numa_node: 0,
            map_extra: 0,
            key_type: 0,
            value_type: 0,
            is_pinned: false,
            content: Content::Empty,
        }
    }

    /// Makes the definition of a map with one element, as the kernel takes it for data.
    #[inline(never)]
    fn data(
        name: &'a str,
        section: Option<usize>,
        content: Content<'a>,
        btf: Option<&Btf<'a>>,
        value_size: u32,
    ) -> Self {
        let is_constant = is_part(name, RODATA) || content == Content::Kconfig;
        let value_type = btf.and_then(|btf| btf.section(name));
        let mut map = Self::new(name, section, name);
        map.map_type = BPF_MAP_TYPE_ARRAY;
        map.key_size = 4;
        map.value_size = value_size;
        map.max_entries = 1;
        map.map_flags = BPF_F_MMAPABLE | if is_constant { BPF_F_RDONLY_PROG } else { 0 };
        map.value_type = value_type.map_or(0, |section| section.id);
        map.content = content;
        map
    }

    /// Returns the name of the map, or of the section that it holds.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the type of the map, of `enum bpf_map_type`.
    #[must_use]
    pub const fn map_type(&self) -> u32 {
        self.map_type
    }

    /// Returns the bytes of a key.
    #[must_use]
    pub const fn key_size(&self) -> u32 {
        self.key_size
    }

    /// Returns the bytes of a value.
    #[must_use]
    pub const fn value_size(&self) -> u32 {
        self.value_size
    }

    /// Returns the most elements that the map holds. 0 stands for what the kernel or the number of
    /// CPUs says.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Returns whether the map is shared by its name, below the directory of the pins.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.is_pinned
    }

    /// Returns whether no program may write to the map.
    pub(super) const fn is_constant(&self) -> bool {
        self.map_flags & BPF_F_RDONLY_PROG != 0 && !matches!(self.content, Content::Empty)
    }

    /// Returns whether the map holds variables of programs.
    pub(super) fn is_data(&self) -> bool {
        self.content != Content::Empty
    }

    /// Says that the definition is read, or the map made.
    #[inline(never)]
    pub(super) fn at(&self, place: &Place<'a>) {
        let offset = self.offset.unwrap_or_default();
        place.at(self.section_name, self.name, offset);
    }
}

const RODATA: &str = ".rodata";

/// Returns whether a section is `.name` or `.name.more`.
fn is_part(section: &str, name: &str) -> bool {
    let rest = section.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns whether a section holds data of programs.
fn is_data(section: &Section<'_>) -> bool {
    let is_in_file = section.kind() == SHT_PROGBITS
        && !section.is_code()
        && (is_part(section.name, ".data") || is_part(section.name, RODATA));
    let is_zero = section.kind() == SHT_NOBITS && is_part(section.name, ".bss");
    (is_in_file || is_zero) && section.size() > 0
}

/// Takes the definition of a map.
type Each<'e, 'a> = dyn FnMut(&MapDefinition<'a>) -> Result<()> + 'e;

/// Calls `each` with every map: those of BTF, those of structs, and then those of data.
#[inline(never)]
pub(super) fn for_each_map<'a>(
    object: &Object<'a>,
    place: &Place<'a>,
    each: &mut Each<'_, 'a>,
) -> Result<()> {
    let elf = &object.elf;
    let btf = object.btf.as_ref();
    if let Some(section) = elf.section_named(MAPS) {
        section.at(place)?;
        btf_maps(elf, btf.ok_or(Fault::BadBtf)?, &section, place, each)?;
    }
    if let Some(section) = elf.section_named(OLD_MAPS) {
        section.at(place)?;
        old_maps(elf, &section, place, each)?;
    }
    for section in elf.sections() {
        if !is_data(&section) {
            continue;
        }
        section.at(place)?;
        let Ok(size) = u32::try_from(section.size()) else {
            return Err(Fault::BadSize);
        };
        let (index, content) = (Some(section.index), Content::Data(section.data));
        each(&MapDefinition::data(
            section.name,
            index,
            content,
            btf,
            size,
        ))?;
    }
    let size = kconfig_len(object, place)?;
    if size > 0 {
        let content = Content::Kconfig;
        each(&MapDefinition::data(KCONFIG, None, content, btf, size))?;
    }
    Ok(())
}

/// Reads `.maps`: each variable's type is a struct, whose members say with their types how the map
/// is made.
#[inline(never)]
fn btf_maps<'a>(
    elf: &Elf<'a>,
    btf: &Btf<'a>,
    section: &Section<'a>,
    place: &Place<'a>,
    each: &mut Each<'_, 'a>,
) -> Result<()> {
    let variables = btf.section(MAPS);
    place.at_section(MAPS);
    let variables = variables.ok_or(Fault::NoVariable)?;
    for [variable, ..] in variables.words() {
        let variable = btf.type_of(variable);
        let name = variable.map_or("", |variable| btf.name(&variable));
        let mut map = MapDefinition::new(name, Some(section.index), MAPS);
        map.at(place);
        let symbol = elf.find_symbol(name, &|symbol| symbol.section() == section.index);
        let symbol = symbol.ok_or(Fault::NoVariable)?;
        map.offset = Some(symbol.value());
        map.at(place);
        if range(section.data, symbol.value(), 1).is_none() {
            return Err(Fault::BadSymbol);
        }
        let variable = variable.filter(|variable| variable.kind() == VAR);
        let definition = variable.and_then(|variable| btf.unqualified(variable.size_or_id()));
        let definition = definition.filter(|definition| definition.kind() == STRUCT);
        let definition = definition.ok_or(Fault::BadMap)?;
        for member in definition.words() {
            read_member(btf, &mut map, member)?;
        }
        check_map(&map)?;
        each(&map)?;
    }
    // An initialiser lists the elements of a map of maps or of programs, which is not served.
    match elf.relocations(section.index).next() {
        Some(relocation) => {
            let symbol = elf.symbol(relocation.symbol);
            let name = symbol.map_or("", |symbol| elf.name_of(&symbol));
            place.at(MAPS, name, relocation.offset);
            Err(Fault::MapNotServed)
        }
        None => Ok(()),
    }
}

/// Reads a member of a map's definition. The number of `__uint(name, number)` is the length of an
/// array to which the member points, and the type of `__type(name, type)` is that to which it
/// points.
#[inline(never)]
fn read_member(
    btf: &Btf<'_>,
    map: &mut MapDefinition<'_>,
    [name, type_id, _]: [u32; 3],
) -> Result<()> {
    const MEMBERS: &str = "type\nmax_entries\nmap_flags\nnuma_node\nkey_size\nvalue_size\n\
        pinning\nmap_extra\nkey\nvalue\nvalues";
    let member = line_of(MEMBERS, btf.string(name).as_bytes());
    if member == Some(10) {
        return Err(Fault::MapNotServed);
    }
    let pointer = btf.unqualified(type_id).filter(|it| it.kind() == PTR);
    let (Some(member), Some(pointer)) = (member, pointer) else {
        return Err(Fault::BadMapMember);
    };
    let target = pointer.size_or_id();
    let number = if member >= 8 {
        btf.size_of(target)
    } else {
        let array = btf.unqualified(target).filter(|it| it.kind() == ARRAY);
        let words = array.and_then(|array| array.words().next());
        words.map(|[_, _, len]| len)
    };
    let number = number.ok_or(Fault::BadMapMember)?;
    match member {
        0 => map.map_type = number,
        1 => map.max_entries = number,
        2 => map.map_flags = number,
        3 => map.numa_node = number,
        // LIBBPF_PIN_NONE and LIBBPF_PIN_BY_NAME
        6 if number <= 1 => map.is_pinned = number == 1,
        6 => return Err(Fault::BadMapMember),
        7 => map.map_extra = number.into(),
        _ => {
            let size = if member % 2 == 0 {
                &mut map.key_size
            } else {
                &mut map.value_size
            };
            // It may be given by the type too.
            if *size != 0 && *size != number {
                return Err(Fault::BadMap);
            }
            *size = number;
        }
    }
    match member {
        8 => map.key_type = target,
        9 => map.value_type = target,
        _ => {}
    }
    Ok(())
}

#[inline(never)]
fn check_map(map: &MapDefinition<'_>) -> Result<()> {
    match map.map_type {
        0 => Err(Fault::BadMap),
        BPF_MAP_TYPE_ARRAY_OF_MAPS | BPF_MAP_TYPE_HASH_OF_MAPS | BPF_MAP_TYPE_STRUCT_OPS => {
            Err(Fault::MapNotServed)
        }
        _ => Ok(()),
    }
}

/// Reads `maps`: a `struct bpf_map_def` for each symbol, all of the same size. Compilers before BTF
/// gave these symbols no type.
#[inline(never)]
fn old_maps<'a>(
    elf: &Elf<'a>,
    section: &Section<'a>,
    place: &Place<'a>,
    each: &mut Each<'_, 'a>,
) -> Result<()> {
    let is_map = |symbol: &Symbol<'_>| {
        symbol.section() == section.index && matches!(symbol.kind(), STT_OBJECT | STT_NOTYPE)
    };
    let count = elf.symbols().filter(is_map).count();
    let len = section.data.len().checked_div(count);
    let len = len.filter(|len| len * count == section.data.len());
    place.at_section(OLD_MAPS);
    let len = len.ok_or(Fault::BadSize)?;
    for symbol in elf.symbols() {
        if !is_map(&symbol) {
            continue;
        }
        let mut map = MapDefinition::new(symbol.name, Some(section.index), OLD_MAPS);
        map.offset = Some(symbol.value());
        map.at(place);
        let bytes = range(section.data, symbol.value(), len as u64);
        let bytes = bytes.ok_or(Fault::BadSymbol)?;
        // type, key_size, value_size, max_entries and map_flags, of which old objects leave out
        // the last.
        let split = bytes.split_first_chunk::<16>();
        let (numbers, rest) = split.ok_or(Fault::BadSize)?;
        // An inner map, a NUMA node, or what a loader of its own reads there.
        if rest.iter().skip(4).any(|byte| *byte != 0) {
            return Err(Fault::BadMapMember);
        }
        let number = |at| u32_at(numbers, at).unwrap_or_default();
        map.map_type = number(0);
        map.key_size = number(4);
        map.value_size = number(8);
        map.max_entries = number(12);
        map.map_flags = u32_at(rest, 0).unwrap_or_default();
        check_map(&map)?;
        each(&map)?;
    }
    Ok(())
}

/// Says where a map is in the object, and by which number instructions refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapPlace {
    /// The section of its symbol; [`None`] for that of `__kconfig` variables.
    pub(super) section: Option<usize>,
    /// The offset of its symbol; [`None`] for a map that is all of its section.
    pub(super) offset: Option<u64>,
    /// The file descriptor of the map, or [`None`] if the kernel does not have maps for data.
    pub(super) fd: Option<u32>,
}

impl MapPlace {
    /// A place that no symbol has.
    pub(super) const NONE: Self = Self {
        section: Some(usize::MAX),
        offset: None,
        fd: None,
    };

    /// Returns whether it is the map of `__kconfig` variables.
    pub(super) const fn is_kconfig(&self) -> bool {
        self.section.is_none()
    }

    /// Returns whether a symbol is in the map's data, or [`None`] if it is not of this map.
    pub(super) fn is_data_of(&self, symbol: &Symbol<'_>) -> Option<bool> {
        if self.section != Some(symbol.section()) {
            return None;
        }
        match self.offset {
            None => Some(true),
            Some(offset) => (offset == symbol.value()).then_some(false),
        }
    }
}
