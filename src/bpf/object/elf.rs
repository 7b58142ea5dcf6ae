//! ELF files of 64 bits in the machine's byte order: sections, symbols and relocations. Source:
//! `include/uapi/linux/elf.h`.

use super::error::{Fault, Place, Result};
use crate::text::utf8;

/// Holds a relocatable object for BPF, all of whose sections lie within its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
    /// The section headers, of [`HEADER_LEN`] bytes each.
    headers: &'a [u8],
    section_names: &'a [u8],
    symbols: &'a [u8],
    symbol_names: &'a [u8],
}

/// `Elf64_Shdr`
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) index: usize,
    pub(super) name: &'a str,
    header: &'a [u8; HEADER_LEN],
    /// The bytes of the section, of which [`SHT_NOBITS`] has none.
    pub(super) data: &'a [u8],
}

/// `Elf64_Sym`
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    entry: &'a [u8; SYMBOL_LEN],
}

/// `Elf64_Rel`
#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) symbol: u32,
}

const FILE_HEADER_LEN: usize = 64;
const HEADER_LEN: usize = 64;
const SYMBOL_LEN: usize = 24;
const RELOCATION_LEN: usize = 16;

const ET_REL: u16 = 1;
const EM_NONE: u16 = 0;
const EM_BPF: u16 = 247;

const SHT_NULL: u32 = 0;
pub(super) const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_RELA: u32 = 4;
pub(super) const SHT_NOBITS: u32 = 8;
const SHT_REL: u32 = 9;

pub(super) const SHF_EXECINSTR: u64 = 1 << 2;
const SHF_COMPRESSED: u64 = 1 << 11;

pub(super) const STT_OBJECT: u8 = 1;
pub(super) const STT_FUNC: u8 = 2;
pub(super) const STT_SECTION: u8 = 3;
pub(super) const STT_NOTYPE: u8 = 0;

pub(super) const STB_LOCAL: u8 = 0;
pub(super) const STB_WEAK: u8 = 2;

pub(super) const SHN_UNDEF: usize = 0;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the bytes of a range, if all of it is there.
pub(super) fn range(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

/// Returns the string at an offset of a string table.
#[inline(never)]
pub(super) fn string(table: &[u8], at: u32) -> Option<&str> {
    let rest = table.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    utf8(rest.get(..end)?)
}

impl<'a> Elf<'a> {
    /// Reads the headers, and checks that every section and every symbol's name is in the file.
    #[inline(never)]
    pub(super) fn read(&mut self, bytes: &'a [u8], place: &Place<'a>) -> Result<()> {
        const CLASS_64: u8 = 2;
        const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
        // An error of the file as a whole.
        let at = |at| place.at("", "", at);
        let [0x7f, b'E', b'L', b'F', CLASS_64, order, 1, ..] = bytes else {
            at(0);
            return Err(Fault::NotElf);
        };
        if *order != ORDER {
            at(5);
            return Err(Fault::ByteOrder);
        }
        // Elf64_Ehdr: e_type, e_machine, e_shoff, e_shentsize, e_shnum and e_shstrndx.
        let Some(header) = bytes.first_chunk::<FILE_HEADER_LEN>() else {
            at(bytes.len() as u64);
            return Err(Fault::Truncated);
        };
        let half = |at| u16_at(header, at).unwrap_or_default();
        if half(16) != ET_REL || !matches!(half(18), EM_BPF | EM_NONE) {
            at(16);
            return Err(Fault::NotBpf);
        }
        if usize::from(half(58)) != HEADER_LEN {
            at(58);
            return Err(Fault::BadSize);
        }
        let start = u64_at(header, 40).unwrap_or_default();
        let len = u64::from(half(60)) * HEADER_LEN as u64;
        at(start);
        let headers = range(bytes, start, len);
        self.bytes = bytes;
        self.headers = headers.ok_or(Fault::Truncated)?;
        let names = usize::from(half(62));
        at(62);
        let names = self.header(names).ok_or(Fault::BadSize)?;
        if kind_of(names) != SHT_STRTAB {
            return Err(Fault::BadName);
        }
        self.section_names = self.data(names).ok_or(Fault::Truncated)?;
        self.check_sections(place)?;
        self.find_symbols(place)
    }

    fn header(&self, index: usize) -> Option<&'a [u8; HEADER_LEN]> {
        record(self.headers, index)
    }

    #[inline(never)]
    fn data(&self, header: &[u8; HEADER_LEN]) -> Option<&'a [u8]> {
        match kind_of(header) {
            SHT_NULL | SHT_NOBITS => Some(&[]),
            _ => range(self.bytes, u64_at(header, 24)?, u64_at(header, 32)?),
        }
    }

    #[inline(never)]
    fn check_sections(&self, place: &Place<'a>) -> Result<()> {
        let mut index = 0;
        while let Some(header) = self.header(index) {
            place.at("", "", u64_at(header, 24).unwrap_or_default());
            let name = self.section_name(header).ok_or(Fault::BadName)?;
            place.at_section(name);
            self.data(header).ok_or(Fault::Truncated)?;
            index += 1;
        }
        Ok(())
    }

    fn section_name(&self, header: &[u8; HEADER_LEN]) -> Option<&'a str> {
        string(self.section_names, u32_at(header, 0)?)
    }

    #[inline(never)]
    fn find_symbols(&mut self, place: &Place<'a>) -> Result<()> {
        // One table at most, so that this changes what is iterated over once.
        let elf = *self;
        for section in elf.sections() {
            if section.kind() != SHT_SYMTAB {
                continue;
            }
            place.at_section(section.name);
            if !self.symbols.is_empty() || section.data.len() % SYMBOL_LEN != 0 {
                return Err(Fault::BadSize);
            }
            self.symbols = section.data;
            let names = usize::try_from(section.link()).ok();
            let names = names.and_then(|link| elf.section(link));
            let names = names.filter(|names| names.kind() == SHT_STRTAB);
            self.symbol_names = names.ok_or(Fault::BadName)?.data;
        }
        let count = self.symbols.len() / SYMBOL_LEN;
        let read = self.symbols().count();
        if read != count {
            place.at(".symtab", "", (read * SYMBOL_LEN) as u64);
            return Err(Fault::BadName);
        }
        Ok(())
    }

    /// Returns the section of an index, if there is one.
    #[inline(never)]
    pub(super) fn section(&self, index: usize) -> Option<Section<'a>> {
        let header = self.header(index)?;
        Some(Section {
            index,
            name: self.section_name(header)?,
            header,
            data: self.data(header)?,
        })
    }

    /// Lists the sections.
    pub(super) const fn sections<'e>(&'e self) -> Sections<'e, 'a> {
        Sections(self, 0)
    }

    /// Returns the section of a name.
    #[inline(never)]
    pub(super) fn section_named(&self, name: &str) -> Option<Section<'a>> {
        self.sections().find(|section| section.name == name)
    }

    /// Returns a symbol, if there is one of this index.
    #[inline(never)]
    pub(super) fn symbol(&self, index: u32) -> Option<Symbol<'a>> {
        let entry = record(self.symbols, usize::try_from(index).ok()?)?;
        let name = string(self.symbol_names, u32_at(entry, 0)?)?;
        Some(Symbol { name, entry })
    }

    /// Lists the symbols.
    pub(super) const fn symbols<'e>(&'e self) -> Symbols<'e, 'a> {
        Symbols(self, 0)
    }

    /// Returns the first symbol of a name that `is_meant`.
    #[inline(never)]
    pub(super) fn find_symbol(
        &self,
        name: &str,
        is_meant: &dyn Fn(&Symbol<'a>) -> bool,
    ) -> Option<Symbol<'a>> {
        let mut symbols = self.symbols();
        symbols.find(|symbol| symbol.name == name && is_meant(symbol))
    }

    /// Returns the symbol of a global variable or function of the object.
    #[inline(never)]
    pub(super) fn global(&self, kind: u8, name: &str) -> Option<Symbol<'a>> {
        self.find_symbol(name, &|symbol| {
            symbol.kind() == kind && symbol.binding() != STB_LOCAL && symbol.section() != SHN_UNDEF
        })
    }

    /// Returns the name of a symbol, or of the section that it stands for.
    #[inline(never)]
    pub(super) fn name_of(&self, symbol: &Symbol<'a>) -> &'a str {
        match self.section(symbol.section()) {
            Some(section) if symbol.kind() == STT_SECTION => section.name,
            _ => symbol.name,
        }
    }

    /// Lists the relocations of a section.
    pub(super) const fn relocations<'e>(&'e self, of: usize) -> Relocations<'e, 'a> {
        Relocations {
            tables: self.sections(),
            of,
            rest: &[],
        }
    }

    /// Checks that the relocations of a section have a form that [`relocations`](Self::relocations)
    /// lists.
    #[inline(never)]
    pub(super) fn check_relocations(&self, of: &Section<'a>, place: &Place<'a>) -> Result<()> {
        for table in self.sections() {
            let is_table = matches!(table.kind(), SHT_REL | SHT_RELA);
            if !is_table || !table.is_about(of.index) {
                continue;
            }
            place.at_section(table.name);
            if table.kind() == SHT_RELA {
                return Err(Fault::BadRelocation);
            }
            if table.data.len() % RELOCATION_LEN != 0 {
                return Err(Fault::BadSize);
            }
            table.at(place)?;
        }
        Ok(())
    }
}

/// Returns one of the entries of a table, all of the same length.
fn record<const N: usize>(table: &[u8], index: usize) -> Option<&[u8; N]> {
    table.get(index.checked_mul(N)?..)?.first_chunk()
}

/// Returns the type of a section.
fn kind_of(header: &[u8; HEADER_LEN]) -> u32 {
    u32_at(header, 4).unwrap_or_default()
}

/// Iterates over the sections.
#[derive(Debug)]
pub(super) struct Sections<'e, 'a>(&'e Elf<'a>, usize);

impl<'a> Iterator for Sections<'_, 'a> {
    type Item = Section<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Section<'a>> {
        let section = self.0.section(self.1)?;
        self.1 += 1;
        Some(section)
    }
}

/// Iterates over the symbols.
pub(super) struct Symbols<'e, 'a>(&'e Elf<'a>, u32);

impl<'a> Iterator for Symbols<'_, 'a> {
    type Item = Symbol<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Symbol<'a>> {
        let symbol = self.0.symbol(self.1)?;
        self.1 += 1;
        Some(symbol)
    }
}

/// Iterates over the relocations of a section.
pub(super) struct Relocations<'e, 'a> {
    tables: Sections<'e, 'a>,
    of: usize,
    /// What follows in the current table.
    rest: &'a [u8],
}

impl Iterator for Relocations<'_, '_> {
    type Item = Relocation;

    #[inline(never)]
    fn next(&mut self) -> Option<Relocation> {
        loop {
            if let Some((entry, rest)) = self.rest.split_first_chunk::<RELOCATION_LEN>() {
                self.rest = rest;
                // The high half of r_info is the symbol, and the low half a type. As in libbpf,
                // the instruction says what the type would say.
                let info = u64_at(entry, 8)? >> 32;
                return Some(Relocation {
                    offset: u64_at(entry, 0)?,
                    symbol: u32::try_from(info).ok()?,
                });
            }
            let table = self.tables.next()?;
            if table.kind() == SHT_REL && table.is_about(self.of) {
                self.rest = table.data;
            }
        }
    }
}

impl<'a> Section<'a> {
    pub(super) fn kind(&self) -> u32 {
        kind_of(self.header)
    }

    fn flags(&self) -> u64 {
        u64_at(self.header, 8).unwrap_or_default()
    }

    pub(super) fn size(&self) -> u64 {
        u64_at(self.header, 32).unwrap_or_default()
    }

    fn link(&self) -> u32 {
        u32_at(self.header, 40).unwrap_or_default()
    }

    /// Returns whether the relocations that the section has are those of another section.
    fn is_about(&self, index: usize) -> bool {
        let info = u32_at(self.header, 44).unwrap_or_default();
        usize::try_from(info) == Ok(index)
    }

    /// Says that the section is read, which must not be compressed.
    #[inline(never)]
    pub(super) fn at(&self, place: &Place<'a>) -> Result<()> {
        place.at_section(self.name);
        if self.flags() & SHF_COMPRESSED != 0 {
            return Err(Fault::Compressed);
        }
        Ok(())
    }

    /// Returns whether the section has instructions.
    pub(super) fn is_code(&self) -> bool {
        self.kind() == SHT_PROGBITS && self.flags() & SHF_EXECINSTR != 0 && !self.data.is_empty()
    }
}

impl Symbol<'_> {
    /// Returns whether it stands for a function of a section.
    pub(super) fn is_function_of(&self, section: &Section<'_>) -> bool {
        self.kind() == STT_FUNC && self.section() == section.index
    }

    pub(super) const fn kind(&self) -> u8 {
        self.entry[4] & 15
    }

    pub(super) const fn binding(&self) -> u8 {
        self.entry[4] >> 4
    }

    /// Returns whether the visibility is hidden or internal.
    pub(super) const fn is_hidden(&self) -> bool {
        matches!(self.entry[5] & 3, 1 | 2)
    }

    /// Returns the index of its section, or 0 if it is undefined.
    pub(super) fn section(&self) -> usize {
        u16_at(self.entry, 6).unwrap_or_default().into()
    }

    pub(super) fn value(&self) -> u64 {
        u64_at(self.entry, 8).unwrap_or_default()
    }

    pub(super) fn size(&self) -> u64 {
        u64_at(self.entry, 16).unwrap_or_default()
    }
}
