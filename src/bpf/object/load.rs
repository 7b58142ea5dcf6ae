//! Objects in the kernel: type information, maps and programs.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;

use super::btf::Ext;
use super::contents::Object;
use super::elf::u32_at;
use super::error::{Fault, ObjectError, Place, Result};
use super::externs::{Known, for_each_kconfig};
use super::fix::{NEWS, fix, replace};
use super::maps::{BPF_F_MMAPABLE, Content, MAX_MAPS, MapDefinition, MapPlace};
use super::programs::{INSN_LEN, ObjectProgram};
use super::relocate::Layout;
use crate::bpf::insn::{self, Insn};
use crate::bpf::load::{load_failed, load_program};
use crate::bpf::map::{Map, possible_cpus};
use crate::bpf::memlock::{memlock_error, with_memlock};
use crate::bpf::program::{Program, obj_get};
use crate::bpf::version::running_version;
use crate::error::{Cause, Error, Step};
use crate::mount::Mount;
use crate::sys::{self, MapFd, MapKind, ProgBtf, Records};
use crate::text::Buf;

const BPF_MAP_TYPE_PERF_EVENT_ARRAY: u32 = 4;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// The longest path of a pinned map.
const MAX_PIN_LEN: usize = 512;

/// Holds how an object is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    pin_dir: &'a str,
    known: Known,
    possible_cpus: u32,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> LoadOptions<'a> {
    /// Starts with libbpf's defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pin_dir: "/sys/fs/bpf",
            known: Known {
                version: 0,
                syscall_wrapper: None,
            },
            possible_cpus: 0,
        }
    }

    /// Sets the directory for maps that are shared by their names. It is `/sys/fs/bpf` unless set.
    #[must_use]
    pub const fn pin_dir(mut self, pin_dir: &'a str) -> Self {
        self.pin_dir = pin_dir;
        self
    }

    /// Sets the kernel version: `LINUX_KERNEL_VERSION` of programs, and what a kernel before 5.0
    /// requires in a kprobe program.
    ///
    /// If it is not set, it is read when needed: from the vDSO, or without `/proc` from
    /// [`uname(2)`].
    ///
    /// [`uname(2)`]: https://man7.org/linux/man-pages/man2/uname.2.html
    #[must_use]
    pub const fn kern_version(mut self, kern_version: u32) -> Self {
        self.known.version = kern_version;
        self
    }

    /// Sets `LINUX_HAS_SYSCALL_WRAPPER`: whether a system call's entry point takes its arguments in
    /// a `struct pt_regs`.
    ///
    /// An object that needs it and is loaded without it is refused.
    #[must_use]
    pub const fn syscall_wrapper(mut self, has_wrapper: bool) -> Self {
        self.known.syscall_wrapper = Some(has_wrapper);
        self
    }

    /// Sets the number of CPUs that the machine can have, which is the size of a map of perf events
    /// that has no other. If it is not set, it is read from sysfs when needed.
    #[must_use]
    pub const fn possible_cpus(mut self, possible_cpus: u32) -> Self {
        self.possible_cpus = possible_cpus;
        self
    }
}

/// Owns the maps of an object, and loads its programs.
///
/// A loaded program keeps its maps alive. Other maps end when this value is dropped.
#[derive(Debug)]
pub struct Loaded<'a> {
    object: Object<'a>,
    btf: Option<OwnedFd>,
    btf_errno: Errno,
    kern_version: u32,
    places: [MapPlace; MAX_MAPS],
    maps: [Option<(&'a str, Map)>; MAX_MAPS],
    count: usize,
}

impl<'a> Object<'a> {
    /// Makes the maps of the object, fills those that hold data, and loads the type information.
    ///
    /// The memory must have [`memory_len`](Self::memory_len) bytes. A map that is shared by its
    /// name is opened if it is pinned already, and else is pinned.
    ///
    /// # Errors
    ///
    /// Returns a fault of the object, or the kernel's errno with the step [`Step::Map`] or
    /// [`Step::Pin`] and the name of the map. Maps that were pinned stay.
    ///
    /// [`Fault::MapRefused`] and `EINVAL` stand for a map that the kernel does not make, such as
    /// one of a newer type, or one without `max_entries`.
    ///
    /// # Minimum kernel
    ///
    /// Linux 4.1, and 5.2 for a program that uses data. What a kernel does not know of the type
    /// information is replaced or left out.
    pub fn load(
        &self,
        memory: &mut [u8],
        options: &LoadOptions<'_>,
    ) -> core::result::Result<Loaded<'a>, ObjectError<'a>> {
        let place = Place::default();
        let loaded = self.load_all(memory, options, &place);
        loaded.map_err(|fault| place.error(fault))
    }

    #[inline(never)]
    fn load_all(
        &self,
        memory: &mut [u8],
        options: &LoadOptions<'_>,
        place: &Place<'a>,
    ) -> Result<Loaded<'a>> {
        let (btf, btf_errno) = match self.load_btf(memory, place)? {
            Ok(btf) => (Some(btf), Errno::NOENT),
            Err(errno) => (None, errno),
        };
        let mut loaded = Loaded {
            object: *self,
            btf,
            btf_errno,
            kern_version: options.known.version,
            places: [MapPlace::NONE; MAX_MAPS],
            maps: [const { None }; MAX_MAPS],
            count: 0,
        };
        self.each_map(place, &mut |definition| {
            loaded.add(definition, options, memory, place)
        })?;
        Ok(loaded)
    }

    /// Loads the type information, with what an older kernel does not know replaced.
    #[inline(never)]
    fn load_btf(
        &self,
        memory: &mut [u8],
        place: &Place<'a>,
    ) -> Result<core::result::Result<OwnedFd, Errno>> {
        let Some(btf) = &self.btf else {
            return Ok(Err(Errno::NOENT));
        };
        let bytes = fix(self, btf, memory, place)?;
        let mut news = NEWS.into_iter();
        loop {
            let loaded = with_memlock(|| sys::btf_load(bytes));
            if loaded.is_ok() || !news.any(|news| replace(btf, news, bytes)) {
                return Ok(loaded);
            }
        }
    }
}

impl<'a> Loaded<'a> {
    /// Lists the maps with their names, in the order of the object.
    pub fn maps(&self) -> impl Iterator<Item = (&'a str, &Map)> {
        let maps = self.maps.iter().flatten();
        maps.map(|(name, map)| (*name, map))
    }

    /// Returns the map of a name. The data of a section has the section's name.
    #[must_use]
    pub fn map(&self, name: &str) -> Option<&Map> {
        self.maps()
            .find(|(found, _)| *found == name)
            .map(|(_, map)| map)
    }

    #[inline(never)]
    fn add(
        &mut self,
        definition: &MapDefinition<'a>,
        options: &LoadOptions<'_>,
        memory: &mut [u8],
        place: &Place<'a>,
    ) -> Result<()> {
        definition.at(place);
        let kind = kind_of(definition, options, place)?;
        let map = if definition.is_pinned {
            self.open_or_pin(definition, kind, options, place)
        } else {
            self.create(definition, kind, place)
        };
        let map = match map {
            // Linux before 5.2 (commit 591fe9888d78) does not have maps for data. Not every object
            // that has data has a program that uses it.
            Err(_) if definition.is_data() && place.errno() == Some(Errno::INVAL) => {
                return self.push(definition, None);
            }
            map => map?,
        };
        let set = match definition.content {
            // What holds zeros does so already.
            Content::Empty | Content::Data([]) => Ok(()),
            Content::Data(bytes) => map.0.set_only(bytes),
            Content::Kconfig => map
                .0
                .set_only(self.kconfig(definition, options, memory, place)?),
        };
        let set = set.and_then(|()| {
            if definition.is_constant() {
                map.0.freeze()
            } else {
                Ok(())
            }
        });
        set.map_err(|errno| {
            definition.at(place);
            place.refused(&Error::new(Step::Map, errno, Cause::Unknown))
        })?;
        self.push(definition, Some(map))
    }

    #[inline(never)]
    fn push(&mut self, definition: &MapDefinition<'a>, map: Option<Map>) -> Result<()> {
        let slot = self.maps.get_mut(self.count);
        let (Some(place), Some(slot)) = (self.places.get_mut(self.count), slot) else {
            return Err(Fault::TooManyMaps);
        };
        let fd = map.as_ref().map(|map| map.as_fd().as_raw_fd());
        *place = MapPlace {
            section: definition.section,
            offset: definition.offset,
            fd: fd.and_then(|fd| u32::try_from(fd).ok()),
        };
        *slot = map.map(|map| (definition.name, map));
        self.count += 1;
        Ok(())
    }

    /// Writes the values of the `__kconfig` variables to memory.
    #[inline(never)]
    fn kconfig<'m>(
        &self,
        definition: &MapDefinition<'a>,
        options: &LoadOptions<'_>,
        memory: &'m mut [u8],
        place: &Place<'a>,
    ) -> Result<&'m [u8]> {
        let mut known = options.known;
        if known.version == 0 {
            known.version = running_version();
        }
        definition.at(place);
        let len = usize::try_from(definition.value_size).unwrap_or(usize::MAX);
        let bytes = memory.get_mut(..len).ok_or(Fault::LittleMemory)?;
        bytes.fill(0);
        for_each_kconfig(&self.object, place, &mut |found, at| {
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            let size = usize::try_from(found.size).unwrap_or(usize::MAX);
            let to = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..size));
            found.write(known, to.ok_or(Fault::LittleMemory)?, place)
        })?;
        Ok(bytes)
    }

    /// Opens the map that is pinned by the name, or makes it and pins it.
    #[inline(never)]
    fn open_or_pin(
        &self,
        definition: &MapDefinition<'a>,
        kind: MapKind,
        options: &LoadOptions<'_>,
        place: &Place<'a>,
    ) -> Result<Map> {
        let refused = |step, errno| place.refused(&memlock_error(step, errno, Cause::Unknown));
        let mut path = Buf::<MAX_PIN_LEN>::new();
        let (dir, name) = (options.pin_dir.as_bytes(), definition.name.as_bytes());
        let written = path.push_all(dir).is_ok()
            && path.push_all(b"/").is_ok()
            && path.push_all(name).is_ok();
        let path = path.as_c_str().ok().filter(|_| written);
        let path = path.ok_or_else(|| refused(Step::Pin, Errno::NAMETOOLONG))?;
        let pinned = match obj_get(path) {
            Ok(fd) => MapFd::of_map(fd).map(Map),
            Err(Errno::NOENT) => {
                let map = self.create(definition, kind, place)?;
                map.pin(path).map_err(|error| place.refused(&error))?;
                return Ok(map);
            }
            Err(errno) => Err(errno),
        };
        let map = pinned.map_err(|errno| refused(Step::Map, errno))?;
        if *map.0.kind() != kind {
            let fault = Fault::PinDiffers;
            return Err(place.answered(fault, Step::Map, Errno::INVAL, Cause::BadObject));
        }
        Ok(map)
    }

    /// Makes a map. What an older kernel does not know, and the programs do not need, is left out.
    #[inline(never)]
    fn create(
        &self,
        definition: &MapDefinition<'a>,
        mut kind: MapKind,
        place: &Place<'a>,
    ) -> Result<Map> {
        let types = (definition.key_type, definition.value_type);
        let mut btf = self.btf.as_ref().filter(|_| types != (0, 0));
        let mut name = kernel_name(definition.name);
        loop {
            let btf_types = btf.map(|btf| (btf.as_fd(), types.0, types.1));
            let created = with_memlock(|| {
                let MapDefinition {
                    numa_node,
                    map_extra,
                    ..
                } = *definition;
                MapFd::create(kind, name, numa_node, map_extra, btf_types)
            });
            let errno = match created {
                Ok(map) => return Ok(Map(map)),
                Err(errno) => errno,
            };
            let is_data = definition.is_data();
            if is_data && errno == Errno::INVAL && kind.map_flags & BPF_F_MMAPABLE != 0 {
                // Linux before 5.5 does not map an array into memory.
                kind.map_flags &= !BPF_F_MMAPABLE;
            } else if btf.is_some() && errno != Errno::PERM {
                // As in libbpf: some types of maps take no types of keys and values.
                btf = None;
            } else if name != [0; 16] && errno == Errno::TOOBIG {
                // Linux before 4.15 (commit ad5b177bd73f) does not have names.
                name = [0; 16];
            } else if errno == Errno::INVAL {
                let fault = Fault::MapRefused;
                return Err(place.answered(fault, Step::Map, errno, Cause::Unknown));
            } else {
                return Err(place.refused(&memlock_error(Step::Map, errno, Cause::Unknown)));
            }
        }
    }

    /// Loads a program, whether or not its section says that it is only loaded if asked for.
    ///
    /// The memory must have [`memory_len`](Object::memory_len) bytes, and is written to. If the
    /// kernel refuses the program, it is loaded once more to fill the log, which ends with a NUL.
    /// A kernel takes at least 128 bytes and, before Linux 5.12, at most 16,777,215. If the buffer
    /// is too small for the log, it has the end of the log since Linux 6.4, and the start before.
    ///
    /// # Errors
    ///
    /// Returns a fault of the object, or the place of [`Load::load`](crate::bpf::Load::load) with
    /// the section and the name of the program:
    ///
    /// * [`Fault::SectionNotServed`] if this crate does not attach programs of the section.
    /// * [`Fault::NoCoRe`] and `EOPNOTSUPP` if the program has CO-RE relocations, and the kernel
    ///   does not do them.
    pub fn program(
        &self,
        program: &ObjectProgram<'a>,
        memory: &mut [u8],
        log: &mut [u8],
    ) -> core::result::Result<Program, ObjectError<'a>> {
        let place = Place::default();
        let loaded = self.load_program(program, memory, log, &place);
        loaded.map_err(|fault| place.error(fault))
    }

    #[inline(never)]
    fn load_program(
        &self,
        program: &ObjectProgram<'a>,
        memory: &mut [u8],
        log: &mut [u8],
        place: &Place<'a>,
    ) -> Result<Program> {
        let main = program.function;
        main.at(place);
        let kind = program.kind().ok_or(Fault::SectionNotServed)?;
        let places = self.places.get(..self.count).unwrap_or_default();
        let mut layout = Layout::new(main);
        layout.write(&self.object, places, memory, place)?;
        let len = usize::try_from(layout.insns).unwrap_or(usize::MAX);
        let split = memory.split_at_mut_checked(len.saturating_mul(INSN_LEN));
        let (insns, free) = split.ok_or(Fault::LittleMemory)?;
        let [functions, lines, core] = &self.object.ext.infos;
        let records = |info, units, free| layout.write_info(&self.object, info, units, free, place);
        let (functions, free) = records(functions, 1, free)?;
        let (lines, free) = records(lines, 1, free)?;
        let (core, _) = records(core, 8, free)?;
        main.at(place);
        let unloadable =
            |fault, errno| place.answered(fault, Step::LoadProgram, errno, Cause::BadObject);
        // The kernel wants one for each function, or none. Those of the program's own are first.
        let first = u32_at(functions.bytes, 0);
        let has_functions = first.is_some_and(|at| at < layout.main_insns());
        if has_functions && functions.count() != layout.functions() {
            place.at(Ext::NAME, main.name, 0);
            return Err(Fault::BadBtf);
        }
        // Without them, the kernel does not look at the CO-RE relocations either.
        if core.count() > 0 && (self.btf.is_none() || !has_functions) {
            return Err(unloadable(Fault::CoReWithoutBtf, self.btf_errno));
        }
        let btf = self
            .btf
            .as_ref()
            .filter(|_| has_functions)
            .map(|fd| ProgBtf {
                fd: fd.as_fd(),
                functions,
                lines,
                core,
            });
        let mut load = sys::Load {
            insns: sys::insns_in(insns),
            btf,
            license: self.object.license(),
            name: kernel_name(program.name()),
            expected_attach_type: kind.attach_type().number(),
            kern_version: self.kern_version,
            log: &mut [],
        };
        let errno = match load_program(&mut load) {
            Ok(program) => return Ok(program),
            Err(errno) => errno,
        };
        if errno == Errno::TOOBIG && core.count() > 0 && !does_core(btf) {
            return Err(unloadable(Fault::NoCoRe, Errno::OPNOTSUPP));
        }
        if !log.is_empty() {
            // It fails as before, but for a signal or a little memory.
            load.log = log;
            if let Ok(program) = load_program(&mut load) {
                return Ok(program);
            }
        }
        Err(place.refused(&load_failed(errno)))
    }
}

/// Returns whether the kernel knows CO-RE relocations. It refuses an attribute that it does not
/// know, and this one alone has no effect.
fn does_core(btf: Option<ProgBtf<'_>>) -> bool {
    // r0 = 0; exit
    const NOP: [Insn<'static>; 2] = [insn::mov_imm(insn::R0, 0), insn::exit()];
    let Some(mut btf) = btf else {
        return false;
    };
    (btf.functions, btf.lines) = (Records::default(), Records::default());
    btf.core.bytes = &[];
    let loaded = load_program(&mut sys::Load {
        insns: sys::insn_bytes(&NOP),
        btf: Some(btf),
        license: c"GPL",
        name: [0; 16],
        expected_attach_type: 0,
        kern_version: 0,
        log: &mut [],
    });
    loaded.map(drop) != Err(Errno::TOOBIG)
}

/// Returns a name as the kernel takes it: at most 15 letters, digits, `_` and `.`.
fn kernel_name(name: &str) -> [u8; 16] {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let mut kernel_name = [0; 16];
    let (_nul, to) = kernel_name.split_last_mut().unwrap_or((&mut 0, &mut []));
    for (to, from) in to.iter_mut().zip(name.bytes().take_while(allowed)) {
        *to = from;
    }
    kernel_name
}

/// Returns what a map is, with the sizes that depend on the machine.
#[inline(never)]
fn kind_of<'a>(
    definition: &MapDefinition<'a>,
    options: &LoadOptions<'_>,
    place: &Place<'a>,
) -> Result<MapKind> {
    let mut kind = MapKind {
        map_type: definition.map_type,
        key_size: definition.key_size,
        value_size: definition.value_size,
        max_entries: definition.max_entries,
        map_flags: definition.map_flags,
    };
    match (kind.map_type, kind.max_entries) {
        (BPF_MAP_TYPE_PERF_EVENT_ARRAY, 0) => {
            (kind.key_size, kind.value_size) = (4, 4);
            kind.max_entries = match options.possible_cpus {
                0 => Mount::find_sysfs()
                    .and_then(|sysfs| possible_cpus(&sysfs))
                    .map_err(|errno| {
                        let error = Error::new(Step::Map, errno, Cause::Unknown);
                        place.refused(&error)
                    })?,
                given => given,
            };
        }
        // Pages whose number is a power of two.
        (BPF_MAP_TYPE_RINGBUF, 1..=0x8000_0000) => {
            kind.max_entries = kind.max_entries.max(4096).next_power_of_two();
        }
        _ => {}
    }
    Ok(kind)
}
