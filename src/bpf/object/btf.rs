//! The type information of an object: `.BTF` and `.BTF.ext`. Source: `Documentation/bpf/btf.rst`.

use super::elf::{string, u16_at, u32_at};
use super::error::{Fault, Place, Result};

/// The name of the section.
pub(super) const BTF: &str = ".BTF";

const MAGIC: u16 = 0xeb9f;

pub(super) const INT: u8 = 1;
pub(super) const PTR: u8 = 2;
pub(super) const ARRAY: u8 = 3;
pub(super) const STRUCT: u8 = 4;
pub(super) const UNION: u8 = 5;
pub(super) const ENUM: u8 = 6;
pub(super) const TYPEDEF: u8 = 8;
pub(super) const VOLATILE: u8 = 9;
pub(super) const CONST: u8 = 10;
pub(super) const RESTRICT: u8 = 11;
pub(super) const FUNC: u8 = 12;
pub(super) const FUNC_PROTO: u8 = 13;
pub(super) const VAR: u8 = 14;
pub(super) const DATASEC: u8 = 15;
pub(super) const FLOAT: u8 = 16;
pub(super) const DECL_TAG: u8 = 17;
pub(super) const TYPE_TAG: u8 = 18;
pub(super) const ENUM64: u8 = 19;

/// The linkages of a `FUNC` and of a `VAR`.
pub(super) const STATIC: u32 = 0;
pub(super) const GLOBAL: u32 = 1;
pub(super) const EXTERN: u32 = 2;

/// The bytes of `struct btf_type`, and of each member of a struct and variable of a section.
pub(super) const TYPE_LEN: usize = 12;
pub(super) const ENTRY_LEN: usize = 12;

/// The deepest chain of types: libbpf's `MAX_RESOLVE_DEPTH`.
const MAX_DEPTH: u32 = 32;

/// Holds `.BTF`, every type of which lies within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Btf<'a> {
    /// The whole section.
    pub(super) bytes: &'a [u8],
    /// The place of the types in it.
    pub(super) types_at: usize,
    types: &'a [u8],
    strings: &'a [u8],
}

/// `struct btf_type`, and what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    pub(super) id: u32,
    /// The place of the type among the types.
    pub(super) at: usize,
    head: &'a [u8; TYPE_LEN],
    entries: &'a [u8],
}

/// An entry of three words: a member (name, type, offset) or a variable (type, offset, size).
pub(super) type Entry = [u32; 3];

impl<'a> Btf<'a> {
    #[inline(never)]
    pub(super) fn parse(bytes: &'a [u8], place: &Place<'a>) -> Result<Self> {
        // struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len.
        let at = |at: usize| place.at(BTF, "", at as u64);
        at(0);
        let header = Header::read(bytes).ok_or(Fault::BadBtf)?;
        let part = |place| {
            at(place);
            header.part(place).ok_or(Fault::Truncated)
        };
        let (types_at, types) = part(8)?;
        let (_, strings) = part(16)?;
        let btf = Self {
            bytes,
            types_at,
            types,
            strings,
        };
        let mut end = 0;
        for r#type in btf.types() {
            end = r#type.at + TYPE_LEN + r#type.entries.len();
            if string(btf.strings, r#type.name()).is_none() {
                at(btf.types_at + r#type.at);
                return Err(Fault::BadName);
            }
        }
        if end != btf.types.len() {
            at(btf.types_at + end);
            return Err(Fault::BadBtf);
        }
        Ok(btf)
    }

    /// Lists the types in the order of their ids, which start at 1. It ends at a type that is
    /// malformed.
    pub(super) const fn types(&self) -> Types<'a> {
        Types {
            bytes: self.types,
            id: 0,
            at: 0,
        }
    }

    #[inline(never)]
    pub(super) fn type_of(&self, id: u32) -> Option<Type<'a>> {
        self.types().find(|r#type| r#type.id == id)
    }

    pub(super) fn string(&self, name: u32) -> &'a str {
        string(self.strings, name).unwrap_or_default()
    }

    pub(super) fn name(&self, r#type: &Type<'_>) -> &'a str {
        self.string(r#type.name())
    }

    /// Returns a type without its typedefs and qualifiers, if there is one.
    #[inline(never)]
    pub(super) fn unqualified(&self, id: u32) -> Option<Type<'a>> {
        let mut r#type = self.type_of(id)?;
        for _ in 0..MAX_DEPTH {
            match r#type.kind() {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => {
                    r#type = self.type_of(r#type.size_or_id())?;
                }
                _ => return Some(r#type),
            }
        }
        None
    }

    /// Returns the size of a type in bytes, if it has one.
    #[inline(never)]
    pub(super) fn size_of(&self, id: u32) -> Option<u32> {
        let mut count = 1_u32;
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let r#type = self.unqualified(id)?;
            id = match r#type.kind() {
                INT | STRUCT | UNION | ENUM | ENUM64 | FLOAT | DATASEC => {
                    return count.checked_mul(r#type.size_or_id());
                }
                PTR => return count.checked_mul(8),
                // struct btf_array: type, index_type, nelems
                ARRAY => {
                    let [element, _, len] = r#type.words().next()?;
                    count = count.checked_mul(len)?;
                    element
                }
                VAR => r#type.size_or_id(),
                _ => return None,
            };
        }
        None
    }

    /// Returns the section of variables that has a name.
    #[inline(never)]
    pub(super) fn section(&self, name: &str) -> Option<Type<'a>> {
        let mut types = self.types();
        types.find(|r#type| r#type.kind() == DATASEC && self.name(r#type) == name)
    }
}

/// Iterates over the types.
pub(super) struct Types<'a> {
    bytes: &'a [u8],
    id: u32,
    at: usize,
}

impl<'a> Iterator for Types<'a> {
    type Item = Type<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Type<'a>> {
        let r#type = read_type(self.bytes, self.at, self.id + 1)?;
        self.id += 1;
        self.at += TYPE_LEN + r#type.entries.len();
        Some(r#type)
    }
}

/// The header of both sections: magic, version, flags and its length, then the offset and the
/// length of each part.
struct Header<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let is_known = u16_at(bytes, 0) == Some(MAGIC) && bytes.get(2) == Some(&1);
        is_known.then_some(Self { bytes, len })
    }

    /// Returns a part and where it is, by the place of its offset in the header.
    #[inline(never)]
    fn part(&self, at: usize) -> Option<(usize, &'a [u8])> {
        let word = |at| usize::try_from(u32_at(self.bytes, at)?).ok();
        let start = self.len.checked_add(word(at)?)?;
        let end = start.checked_add(word(at + 4)?)?;
        Some((start, self.bytes.get(start..end)?))
    }
}

/// Reads a type, if all of it is there.
fn read_type(types: &[u8], at: usize, id: u32) -> Option<Type<'_>> {
    let (head, rest) = types.get(at..)?.split_first_chunk()?;
    let r#type = Type {
        id,
        at,
        head,
        entries: &[],
    };
    let count = usize::from(r#type.vlen());
    let len = match r#type.kind() {
        INT | VAR | DECL_TAG => 4,
        ARRAY => ENTRY_LEN,
        STRUCT | UNION | DATASEC | ENUM64 => count * ENTRY_LEN,
        ENUM | FUNC_PROTO => count * 8,
        PTR..=TYPE_TAG => 0,
        _ => return None,
    };
    let entries = rest.get(..len)?;
    Some(Type { entries, ..r#type })
}

impl<'a> Type<'a> {
    /// Returns the offset of its name among the strings.
    pub(super) fn name(&self) -> u32 {
        u32_at(self.head, 0).unwrap_or_default()
    }

    fn info(&self) -> u32 {
        u32_at(self.head, 4).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> u8 {
        self.info().to_le_bytes()[3] & 31
    }

    pub(super) fn kind_flag(&self) -> bool {
        self.info() >> 31 == 1
    }

    /// Returns the number of entries that follow, or the linkage of a function.
    pub(super) fn vlen(&self) -> u16 {
        let [low, high, ..] = self.info().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Returns a size in bytes, or the id of another type.
    pub(super) fn size_or_id(&self) -> u32 {
        u32_at(self.head, 8).unwrap_or_default()
    }

    /// Lists the entries of three words each.
    pub(super) const fn words(&self) -> Words<'a> {
        Words(self.entries)
    }

    /// Returns the linkage of a `FUNC` or of a `VAR`.
    pub(super) fn linkage(&self) -> u32 {
        match self.kind() {
            FUNC => self.vlen().into(),
            _ => u32_at(self.entries, 0).unwrap_or_default(),
        }
    }
}

/// Iterates over the entries of a type.
pub(super) struct Words<'a>(&'a [u8]);

impl Iterator for Words<'_> {
    type Item = Entry;

    #[inline(never)]
    fn next(&mut self) -> Option<Entry> {
        let (entry, rest) = self.0.split_first_chunk::<ENTRY_LEN>()?;
        self.0 = rest;
        Some([0, 4, 8].map(|at| u32_at(entry, at).unwrap_or_default()))
    }
}

/// Holds `.BTF.ext`: what there is to know about instructions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ext<'a> {
    /// `struct bpf_func_info`, `struct bpf_line_info` and `struct bpf_core_relo`
    pub(super) infos: [Info<'a>; 3],
}

/// Holds the records of a kind. Each begins with the offset in bytes of its instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info<'a> {
    pub(super) record_len: usize,
    blocks: &'a [u8],
}

impl<'a> Ext<'a> {
    /// The name of the section.
    pub(super) const NAME: &'static str = ".BTF.ext";

    #[inline(never)]
    pub(super) fn read(&mut self, bytes: &'a [u8], place: &Place<'a>) -> Result<()> {
        place.at_section(Self::NAME);
        let header = Header::read(bytes).ok_or(Fault::BadBtf)?;
        let mut at = 0;
        for info in &mut self.infos {
            // The least bytes of a record are 8, 16 and 16.
            at += 8;
            let least = at.min(16);
            // Older compilers leave out the last kind.
            if header.len < at + 8 {
                break;
            }
            place.at(Self::NAME, "", at as u64);
            let (start, part) = header.part(at).ok_or(Fault::Truncated)?;
            if part.is_empty() {
                continue;
            }
            place.at(Self::NAME, "", start as u64);
            *info = Info::parse(part, least).ok_or(Fault::BadSize)?;
        }
        Ok(())
    }
}

impl<'a> Info<'a> {
    #[inline(never)]
    fn parse(part: &'a [u8], least: usize) -> Option<Self> {
        let record_len = usize::try_from(u32_at(part, 0)?).ok()?;
        // The kernel takes at most 252 bytes (MAX_FUNCINFO_REC_SIZE of kernel/bpf/verifier.c).
        if record_len < least || record_len > 252 || record_len % 4 != 0 {
            return None;
        }
        let blocks = part.get(4..)?;
        let info = Self { record_len, blocks };
        let mut rest = blocks;
        while !rest.is_empty() {
            (_, _, rest) = info.split(rest)?;
        }
        Some(info)
    }

    /// Returns the bytes of all records, and of what is between them.
    pub(super) const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Splits off the first block: the name of its section, and its records. Returns [`None`] if it
    /// is not whole.
    fn split(&self, blocks: &'a [u8]) -> Option<(u32, &'a [u8], &'a [u8])> {
        // struct btf_ext_info_sec: sec_name_off, num_info, then the records.
        let len = usize::try_from(u32_at(blocks, 4)?).ok()?;
        let end = len.checked_mul(self.record_len)?.checked_add(8)?;
        Some((u32_at(blocks, 0)?, blocks.get(8..end)?, blocks.get(end..)?))
    }

    /// Lists the records of a section, each with the offset of its instruction.
    pub(super) const fn records<'r>(
        &'r self,
        btf: &'r Btf<'a>,
        section: &'r str,
    ) -> Records<'a, 'r> {
        Records {
            info: self,
            btf,
            section,
            blocks: self.blocks,
            rest: &[],
        }
    }
}

/// Iterates over the records of a section.
pub(super) struct Records<'a, 'r> {
    info: &'r Info<'a>,
    btf: &'r Btf<'a>,
    section: &'r str,
    /// The blocks that follow.
    blocks: &'a [u8],
    /// What follows in the current block.
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a, '_> {
    type Item = (u32, &'a [u8]);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((record, rest)) = self.rest.split_at_checked(self.info.record_len) {
                self.rest = rest;
                return Some((u32_at(record, 0)?, record));
            }
            let (name, records, blocks) = self.info.split(self.blocks)?;
            self.blocks = blocks;
            if self.btf.string(name) == self.section {
                self.rest = records;
            }
        }
    }
}
