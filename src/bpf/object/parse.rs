//! An object as a whole, read from bytes, and what it has.

use core::ffi::CStr;

use super::btf::{BTF, Btf, Ext, Info};
use super::contents::Object;
use super::elf::{Elf, Section, Sections};
use super::error::{Fault, ObjectError, Place, Result};
use super::externs::{SYSCALL_WRAPPER, kconfig_len, kconfig_offset};
use super::maps::{MAX_MAPS, MapDefinition, for_each_map};
use super::programs::{Function, INSN_LEN, ObjectProgram, TEXT};

impl<'a> Object<'a> {
    /// Reads an object of the machine's byte order.
    ///
    /// It checks all that does not depend on the kernel, but for the instructions themselves.
    /// Their relocations are checked when a program is loaded.
    ///
    /// # Errors
    ///
    /// Returns the first fault, and where it is.
    pub fn parse(bytes: &'a [u8]) -> core::result::Result<Self, ObjectError<'a>> {
        let place = Place::default();
        let mut object = Self {
            elf: Elf::default(),
            btf: None,
            ext: Ext::default(),
            text: None,
            license: c"",
            version: 0,
        };
        let read = object.read(bytes, &place);
        read.map_err(|fault| place.error(fault))?;
        Ok(object)
    }

    #[inline(never)]
    fn read(&mut self, bytes: &'a [u8], place: &Place<'a>) -> Result<()> {
        self.elf.read(bytes, place)?;
        let elf = &self.elf;
        if let Some(btf) = elf.section_named(BTF) {
            btf.at(place)?;
            self.btf = Some(Btf::parse(btf.data, place)?);
            if let Some(ext) = elf.section_named(Ext::NAME) {
                ext.at(place)?;
                self.ext.read(ext.data, place)?;
            }
        }
        if let Some(license) = elf.section_named("license") {
            license.at(place)?;
            let text = CStr::from_bytes_until_nul(license.data);
            self.license = text.map_err(|_| Fault::BadLicense)?;
        }
        if let Some(version) = elf.section_named("version") {
            version.at(place)?;
            let Ok(number) = <[u8; 4]>::try_from(version.data) else {
                return Err(Fault::BadSize);
            };
            self.version = u32::from_ne_bytes(number);
        }
        for section in elf.sections() {
            if !section.is_code() {
                continue;
            }
            if section.name == TEXT && self.text.is_none() {
                self.text = Some(section.index);
            }
            section.at(place)?;
            elf.check_relocations(&section, place)?;
            for symbol in elf.symbols() {
                if symbol.is_function_of(&section) {
                    place.at(section.name, symbol.name, symbol.value());
                    Function::of_symbol(&section, &symbol).ok_or(Fault::BadSymbol)?;
                }
            }
        }
        let mut count = 0;
        self.each_map(place, &mut |map| {
            count += 1;
            if count > MAX_MAPS {
                map.at(place);
                return Err(Fault::TooManyMaps);
            }
            Ok(())
        })
    }

    /// Lists the programs, in the order of their sections and of their places there.
    ///
    /// Programs of sections that this crate does not attach are among them.
    #[must_use]
    pub const fn programs(&self) -> Programs<'_, 'a> {
        Programs {
            object: self,
            sections: self.elf.sections(),
            section: None,
            last: 0,
        }
    }

    /// Returns the program of a name.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<ObjectProgram<'a>> {
        self.programs().find(|program| program.name() == name)
    }

    /// Calls `each` with every map.
    pub fn for_each_map(&self, each: &mut dyn FnMut(&MapDefinition<'a>)) {
        // They have been read before.
        let _ = self.each_map(&Place::default(), &mut |map| {
            each(map);
            Ok(())
        });
    }

    pub(super) fn each_map(
        &self,
        place: &Place<'a>,
        each: &mut dyn FnMut(&MapDefinition<'a>) -> Result<()>,
    ) -> Result<()> {
        for_each_map(self, place, each)
    }

    /// Returns the license of the programs, which is empty if the object has none.
    #[must_use]
    pub const fn license(&self) -> &'a CStr {
        self.license
    }

    /// Returns the kernel version for which the object says that it was made. Loading does not use
    /// it, since no kernel but one before 5.0 asks for a version, and that one for its own.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Returns whether the object has the variable `LINUX_HAS_SYSCALL_WRAPPER`, which
    /// `BPF_KSYSCALL` of libbpf's headers uses. [`LoadOptions::syscall_wrapper`] sets it.
    ///
    /// [`LoadOptions::syscall_wrapper`]: super::LoadOptions::syscall_wrapper
    #[must_use]
    #[inline(never)]
    pub fn needs_syscall_wrapper(&self) -> bool {
        kconfig_offset(self, SYSCALL_WRAPPER).is_some()
    }

    /// Returns the bytes of memory that it takes to load the object and each of its programs.
    #[must_use]
    #[inline(never)]
    pub fn memory_len(&self) -> usize {
        let mut longest = 0;
        for program in self.programs() {
            longest = longest.max(program.function.code.len());
        }
        let text = self.text.and_then(|index| self.elf.section(index));
        let records: usize = self.ext.infos.iter().map(Info::len).sum();
        let program = longest + text.map_or(0, |text| text.data.len()) + records;
        let btf = self.btf.map_or(0, |btf| btf.bytes.len());
        let kconfig = kconfig_len(self, &Place::default()).unwrap_or_default();
        let kconfig = usize::try_from(kconfig).unwrap_or(usize::MAX);
        program.max(btf).max(kconfig)
    }

    /// Returns the function of `.text` that starts at an instruction.
    #[inline(never)]
    pub(super) fn text_function(&self, start: u32) -> Option<Function<'a>> {
        let text = self.elf.section(self.text?)?;
        let start = u64::from(start) * INSN_LEN as u64;
        let mut symbols = self.elf.symbols();
        let symbol =
            symbols.find(|symbol| symbol.value() == start && symbol.is_function_of(&text))?;
        Function::of_symbol(&text, &symbol)
    }
}

/// Iterates over the programs of an object.
#[derive(Debug)]
pub struct Programs<'o, 'a> {
    object: &'o Object<'a>,
    /// The sections that follow.
    sections: Sections<'o, 'a>,
    section: Option<Section<'a>>,
    /// The place of the last program in its section, and then its symbol. Those of every program
    /// are above 0.
    last: u128,
}

impl<'a> Iterator for Programs<'_, 'a> {
    type Item = ObjectProgram<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<ObjectProgram<'a>> {
        loop {
            if let Some(section) = &self.section {
                if let Some((place, program)) =
                    ObjectProgram::after(&self.object.elf, section, self.last)
                {
                    self.last = place;
                    return Some(program);
                }
            }
            let section = self.sections.next()?;
            if section.is_code() && Some(section.index) != self.object.text {
                (self.section, self.last) = (Some(section), 0);
            }
        }
    }
}
