//! ELF files of 64 bits in the machine's byte order: sections, symbols and relocations. Source:
//! `include/uapi/linux/elf.h`.

use super::error::{Fault, Place, Result};
use crate::text::utf8;

/// Holds a relocatable object for BPF, all of whose sections lie within its bytes.
#[derive(Clone, Copy, Debug)]
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
    pub(super) kind: u32,
    pub(super) flags: u64,
    pub(super) size: u64,
    pub(super) link: u32,
    pub(super) info: u32,
    /// The bytes of the section, of which [`SHT_NOBITS`] has none.
    pub(super) data: &'a [u8],
}

/// `Elf64_Sym`
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    pub(super) kind: u8,
    pub(super) binding: u8,
    /// The visibility is hidden or internal.
    pub(super) is_hidden: bool,
    /// The index of its section; 0 if it is undefined.
    pub(super) section: usize,
    pub(super) value: u64,
    pub(super) size: u64,
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
    pub(super) fn parse(bytes: &'a [u8], place: &Place<'a>) -> Result<Self> {
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
        let mut elf = Self {
            bytes,
            headers: headers.ok_or(Fault::Truncated)?,
            section_names: &[],
            symbols: &[],
            symbol_names: &[],
        };
        let names = usize::from(half(62));
        at(62);
        match (elf.header(names), elf.data(names)) {
            (Some((SHT_STRTAB, _)), Some(names)) => elf.section_names = names,
            (Some((SHT_STRTAB, _)), None) => return Err(Fault::Truncated),
            (Some(_), _) => return Err(Fault::BadName),
            (None, _) => return Err(Fault::BadSize),
        }
        elf.check_sections(place)?;
        elf.find_symbols(place)?;
        Ok(elf)
    }

    /// Returns the type of a section, and its header.
    #[inline(never)]
    fn header(&self, index: usize) -> Option<(u32, &'a [u8])> {
        let header = entry(self.headers, index, HEADER_LEN)?;
        Some((u32_at(header, 4)?, header))
    }

    #[inline(never)]
    fn data(&self, index: usize) -> Option<&'a [u8]> {
        match self.header(index)? {
            (SHT_NULL | SHT_NOBITS, _) => Some(&[]),
            (_, header) => range(self.bytes, u64_at(header, 24)?, u64_at(header, 32)?),
        }
    }

    #[inline(never)]
    fn check_sections(&self, place: &Place<'a>) -> Result<()> {
        let mut index = 0;
        while let Some((_, header)) = self.header(index) {
            let at = u64_at(header, 24).unwrap_or_default();
            let name = u32_at(header, 0).and_then(|at| string(self.section_names, at));
            place.at("", "", at);
            place.at(name.ok_or(Fault::BadName)?, "", 0);
            if self.data(index).is_none() {
                return Err(Fault::Truncated);
            }
            index += 1;
        }
        Ok(())
    }

    #[inline(never)]
    fn find_symbols(&mut self, place: &Place<'a>) -> Result<()> {
        let mut index = 0;
        while let Some(section) = self.section(index) {
            index += 1;
            if section.kind != SHT_SYMTAB {
                continue;
            }
            place.at(section.name, "", 0);
            if !self.symbols.is_empty() || section.data.len() % SYMBOL_LEN != 0 {
                return Err(Fault::BadSize);
            }
            let names = usize::try_from(section.link).ok();
            let names = names.and_then(|link| self.section(link));
            self.symbols = section.data;
            match names {
                Some(names) if names.kind == SHT_STRTAB => self.symbol_names = names.data,
                _ => return Err(Fault::BadName),
            }
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
        let (kind, header) = self.header(index)?;
        Some(Section {
            index,
            name: string(self.section_names, u32_at(header, 0)?)?,
            kind,
            flags: u64_at(header, 8)?,
            size: u64_at(header, 32)?,
            link: u32_at(header, 40)?,
            info: u32_at(header, 44)?,
            data: self.data(index)?,
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

    /// Returns the section of a name, which must not be compressed.
    #[inline(never)]
    pub(super) fn section_to_read(
        &self,
        name: &str,
        place: &Place<'a>,
    ) -> Result<Option<Section<'a>>> {
        let section = self.section_named(name);
        section.map_or(Ok(()), |section| section.check_uncompressed(place))?;
        Ok(section)
    }

    /// Returns a symbol, if there is one of this index.
    #[inline(never)]
    pub(super) fn symbol(&self, index: u32) -> Option<Symbol<'a>> {
        let index = usize::try_from(index).ok()?;
        let symbol = entry(self.symbols, index, SYMBOL_LEN)?;
        let (info, other) = (symbol.get(4)?, symbol.get(5)?);
        Some(Symbol {
            name: string(self.symbol_names, u32_at(symbol, 0)?)?,
            kind: info & 15,
            binding: info >> 4,
            is_hidden: matches!(other & 3, 1 | 2),
            section: u16_at(symbol, 6)?.into(),
            value: u64_at(symbol, 8)?,
            size: u64_at(symbol, 16)?,
        })
    }

    /// Lists the symbols.
    pub(super) const fn symbols<'e>(&'e self) -> Symbols<'e, 'a> {
        Symbols(self, 0)
    }

    /// Returns the name of a symbol, or of the section that it stands for.
    #[inline(never)]
    pub(super) fn name_of(&self, symbol: &Symbol<'a>) -> &'a str {
        match self.section(symbol.section) {
            Some(section) if symbol.kind == STT_SECTION => section.name,
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
            let is_table = matches!(table.kind, SHT_REL | SHT_RELA);
            if !is_table || usize::try_from(table.info) != Ok(of.index) {
                continue;
            }
            place.at(table.name, "", 0);
            if table.kind == SHT_RELA {
                return Err(Fault::BadRelocation);
            }
            if table.data.len() % RELOCATION_LEN != 0 {
                return Err(Fault::BadSize);
            }
            table.check_uncompressed(place)?;
        }
        Ok(())
    }
}

/// Returns one of the entries of a table, all of the same length.
fn entry(table: &[u8], index: usize, len: usize) -> Option<&[u8]> {
    let start = index.checked_mul(len)?;
    table.get(start..start.checked_add(len)?)
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
            if table.kind == SHT_REL && usize::try_from(table.info) == Ok(self.of) {
                self.rest = table.data;
            }
        }
    }
}

impl<'a> Section<'a> {
    /// Makes a section that is not in the file.
    pub(super) const fn named(name: &'a str) -> Self {
        Self {
            index: 0,
            name,
            kind: SHT_NULL,
            flags: 0,
            size: 0,
            link: 0,
            info: 0,
            data: &[],
        }
    }

    pub(super) fn check_uncompressed(&self, place: &Place<'a>) -> Result<()> {
        if self.flags & SHF_COMPRESSED != 0 {
            place.at(self.name, "", 0);
            return Err(Fault::Compressed);
        }
        Ok(())
    }

    /// Returns whether the section has instructions.
    pub(super) fn is_code(&self) -> bool {
        self.kind == SHT_PROGBITS && self.flags & SHF_EXECINSTR != 0 && !self.data.is_empty()
    }
}
