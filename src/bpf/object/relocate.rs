//! A program's instructions as the kernel takes them: those of its function, then those of the
//! functions that it calls, with what each relocation stands for.

use super::btf::Info;
use super::contents::Object;
use super::elf::{SHN_UNDEF, STB_WEAK, STT_FUNC, STT_SECTION, Symbol};
use super::error::{Fault, Place, Result};
use super::externs::kconfig_offset;
use super::maps::MapPlace;
use super::programs::{Function, INSN_LEN, TEXT};
use crate::sys::Records;

/// The most functions of a program: the kernel's `BPF_MAX_SUBPROGS`.
const MAX_FUNCTIONS: usize = 256;

/// `BPF_LD | BPF_IMM | BPF_DW`, an instruction of two halves.
const LD_IMM64: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;

// The source register of these two instructions says what their number stands for.
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_PSEUDO_MAP_VALUE: u8 = 2;
const BPF_PSEUDO_FUNC: u8 = 4;
const BPF_PSEUDO_CALL: u8 = 1;
const BPF_PSEUDO_KFUNC_CALL: u8 = 2;

/// The helper that libbpf makes a program call instead of a function that is absent. The kernel
/// refuses it, unless it can show that the call is never reached.
const POISON_CALL: u32 = 2_002_000_000;

/// Holds where a function of the object is in a program. The numbers are instructions.
#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    /// Its place in its section.
    start: u32,
    len: u32,
    /// Its place in the program.
    at: u32,
    /// Its next instruction to look at.
    next: u32,
    /// The function whose call placed it here.
    caller: u16,
}

/// Holds a program of which every function is placed. The first is the program's own, and the
/// others are of `.text`.
pub(super) struct Layout<'a> {
    main: Function<'a>,
    placed: [Placed; MAX_FUNCTIONS],
    count: u16,
    /// The number of instructions.
    pub(super) insns: u32,
}

/// Returns the range of an instruction in bytes.
fn insn(memory: &mut [u8], index: u32) -> Option<&mut [u8; INSN_LEN]> {
    let at = usize::try_from(index).ok()?.checked_mul(INSN_LEN)?;
    memory.get_mut(at..)?.first_chunk_mut()
}

/// Returns the operation, the source register and the number of an instruction.
fn read(insn: [u8; INSN_LEN]) -> (u8, u8, u32) {
    let [code, regs, _, _, imm @ ..] = insn;
    let src = if cfg!(target_endian = "little") {
        regs >> 4
    } else {
        regs & 15
    };
    (code, src, u32::from_ne_bytes(imm))
}

fn set_src(insn: &mut [u8; INSN_LEN], src: u8) {
    let [_, regs, ..] = insn;
    *regs = if cfg!(target_endian = "little") {
        *regs & 15 | src << 4
    } else {
        *regs & 0xf0 | src
    };
}

fn set_imm(insn: &mut [u8; INSN_LEN], number: u32) {
    let [_, _, _, _, imm @ ..] = insn;
    *imm = number.to_ne_bytes();
}

/// Returns a length of bytes in instructions.
fn insns(bytes: u64) -> u32 {
    u32::try_from(bytes / INSN_LEN as u64).unwrap_or(u32::MAX)
}

impl<'a> Layout<'a> {
    /// Starts with no function placed.
    pub(super) fn new(main: Function<'a>) -> Self {
        Self {
            main,
            placed: [Placed::default(); MAX_FUNCTIONS],
            count: 0,
            insns: 0,
        }
    }

    /// Writes the program's instructions to the start of the memory.
    ///
    /// As in libbpf, a called function is placed when its first call is met, and its own calls are
    /// met before the next of its caller.
    #[inline(never)]
    pub(super) fn write(
        &mut self,
        object: &Object<'a>,
        maps: &[MapPlace],
        memory: &mut [u8],
        place: &Place<'a>,
    ) -> Result<()> {
        let main = self.main;
        self.place(object, &main, 0, maps, memory, place)?;
        let mut current = 0;
        loop {
            let placed = self.placed.get(usize::from(current));
            let placed = placed.copied().unwrap_or_default();
            let Some((index, target)) = next_reference(&placed, memory) else {
                if current == 0 {
                    return Ok(());
                }
                current = placed.caller;
                continue;
            };
            if let Some(placed) = self.placed.get_mut(usize::from(current)) {
                placed.next = index + 1;
            }
            let callee = if let Some(callee) = self.find(target) {
                callee
            } else {
                let at = (placed.start + index).saturating_mul(8).into();
                let section = self.section(current);
                let function = object.text_function(target);
                place.at(section, "", at);
                let function = function.ok_or(Fault::BadCall)?;
                current = self.place(object, &function, current, maps, memory, place)?;
                current
            };
            let to = self.placed.get(usize::from(callee));
            let to = to.copied().unwrap_or_default().at;
            if let Some(insn) = insn(memory, placed.at + index) {
                // Relative to the next instruction.
                set_imm(insn, to.wrapping_sub(placed.at + index + 1));
            }
        }
    }

    /// Returns the name of the section that a placed function is in.
    const fn section(&self, index: u16) -> &'a str {
        if index == 0 {
            self.main.section.name
        } else {
            TEXT
        }
    }

    /// Returns the function of `.text` that starts at an instruction, if it is placed.
    #[inline(never)]
    fn find(&self, start: u32) -> Option<u16> {
        let placed = self.placed.iter().take(self.count.into()).skip(1);
        let index = placed
            .map(|placed| placed.start)
            .position(|at| at == start)?;
        u16::try_from(index + 1).ok()
    }

    /// Appends a function, and does its relocations.
    #[inline(never)]
    fn place(
        &mut self,
        object: &Object<'a>,
        function: &Function<'a>,
        caller: u16,
        maps: &[MapPlace],
        memory: &mut [u8],
        place: &Place<'a>,
    ) -> Result<u16> {
        let (index, at) = (self.count, self.insns);
        let len = insns(function.code.len() as u64);
        let slot = self.placed.get_mut(usize::from(index));
        function.at(place);
        let slot = slot.ok_or(Fault::TooManyFunctions)?;
        *slot = Placed {
            start: insns(function.start),
            len,
            at,
            next: 0,
            caller,
        };
        let start = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .saturating_mul(INSN_LEN);
        let to = memory
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..function.code.len()));
        let to = to.ok_or(Fault::LittleMemory)?;
        to.copy_from_slice(function.code);
        relocate(object, function, maps, to, place)?;
        self.count = index + 1;
        self.insns = at + len;
        Ok(index)
    }

    /// Writes the records about the program's instructions to the start of the free memory, and
    /// returns them and the rest. Their offsets become those of the program, in units of which an
    /// instruction has as many as this.
    #[inline(never)]
    pub(super) fn write_info<'m>(
        &self,
        object: &Object<'a>,
        info: &Info<'a>,
        units: u32,
        free: &'m mut [u8],
        place: &Place<'a>,
    ) -> Result<(Records<'m>, &'m mut [u8])> {
        let mut written = 0;
        for (index, placed) in (0..self.count).zip(&self.placed) {
            let Some(btf) = &object.btf else {
                break;
            };
            let section = self.section(index);
            for (at, record) in info.records(btf, section) {
                let insn = (at / 8).checked_sub(placed.start);
                let Some(insn) = insn.filter(|insn| *insn < placed.len) else {
                    continue;
                };
                place.at(section, "", at.into());
                let moved = (placed.at + insn).checked_mul(units);
                let moved = moved.filter(|_| at % 8 == 0);
                let moved = moved.ok_or(Fault::BadBtf)?;
                let to = free.get_mut(written..);
                let to = to.and_then(|free| free.get_mut(..record.len()));
                let to = to.ok_or(Fault::LittleMemory)?;
                to.copy_from_slice(record);
                if let Some(offset) = to.first_chunk_mut() {
                    *offset = moved.to_ne_bytes();
                }
                written += record.len();
            }
        }
        let split = free.split_at_mut_checked(written);
        let (bytes, rest) = split.ok_or(Fault::LittleMemory)?;
        let mut records = Records::default();
        if written > 0 {
            records.bytes = bytes;
            records.len = u32::try_from(info.record_len).unwrap_or_default();
        }
        Ok((records, rest))
    }

    /// Returns the number of instructions of the program's own function.
    pub(super) fn main_insns(&self) -> u32 {
        insns(self.main.code.len() as u64)
    }

    /// Returns the number of functions.
    pub(super) fn functions(&self) -> u32 {
        self.count.into()
    }
}

/// Returns the next instruction of a function that refers to another: its place in the function,
/// and the place of the other in `.text`.
#[inline(never)]
fn next_reference(placed: &Placed, memory: &mut [u8]) -> Option<(u32, u32)> {
    let mut index = placed.next;
    while index < placed.len {
        match read(*insn(memory, placed.at + index)?) {
            (CALL, BPF_PSEUDO_CALL, target) | (LD_IMM64, BPF_PSEUDO_FUNC, target) => {
                return Some((index, target));
            }
            // The second half is no instruction.
            (LD_IMM64, ..) => index += 2,
            _ => index += 1,
        }
    }
    None
}

/// Does the relocations of a function. An instruction that refers to another function then has the
/// place of that function in `.text` as its number.
#[inline(never)]
fn relocate<'a>(
    object: &Object<'a>,
    function: &Function<'a>,
    maps: &[MapPlace],
    code: &mut [u8],
    place: &Place<'a>,
) -> Result<()> {
    let elf = &object.elf;
    let relocations = || elf.relocations(function.section.index);
    let section = function.section.name;
    let is_text = section == TEXT;
    let mut index = 0;
    while let Some(insn) = insn(code, index) {
        let at = function.start + u64::from(index) * INSN_LEN as u64;
        index += 1;
        let needs_relocation = match read(*insn) {
            // It is relative to the next instruction, unless a relocation says otherwise.
            (CALL, BPF_PSEUDO_CALL, imm) if is_text => {
                set_imm(insn, insns(at).wrapping_add(1).wrapping_add(imm));
                false
            }
            (CALL, src, _) => matches!(src, BPF_PSEUDO_CALL | BPF_PSEUDO_KFUNC_CALL),
            (LD_IMM64, src, _) => {
                index += 1;
                src != 0
            }
            _ => false,
        };
        if needs_relocation && !relocations().any(|relocation| relocation.offset == at) {
            place.at(section, function.name, at);
            return Err(Fault::NoRelocation);
        }
    }
    let mut next = 0;
    for relocation in relocations() {
        let at = relocation.offset;
        let from = at.checked_sub(function.start);
        let Some(from) = from.and_then(|from| usize::try_from(from).ok()) else {
            continue;
        };
        // The instruction as the object has it.
        let Some(original @ [_, ..]) = function.code.get(from..) else {
            continue;
        };
        let symbol = elf.symbol(relocation.symbol);
        let name = symbol.map_or("", |symbol| elf.name_of(&symbol));
        let name = if name.is_empty() { function.name } else { name };
        place.at(section, name, at);
        let symbol = symbol.ok_or(Fault::BadReference)?;
        // They are in order, or else each is compared with the others.
        let same = relocations().filter(|relocation| relocation.offset == at);
        if at < next && same.count() > 1 {
            return Err(Fault::RelocatedTwice);
        }
        next = next.max(at + 1);
        let here = code.get_mut(from..);
        let here = here.and_then(|code| code.split_first_chunk_mut());
        let (Some((insn, rest)), Some(original)) = (here, original.first_chunk()) else {
            return Err(Fault::BadRelocation);
        };
        let (operation, src, imm) = read(*original);
        match (operation, src, rest.first_chunk_mut()) {
            _ if from % INSN_LEN != 0 => return Err(Fault::BadRelocation),
            (CALL, BPF_PSEUDO_CALL, _) => relocate_call(object, &symbol, insn, imm)?,
            (LD_IMM64, 0, Some(second)) => {
                let (src, low, high) = reference(object, &symbol, maps, imm)?;
                set_src(insn, src);
                set_imm(insn, low);
                if let Some(high) = high {
                    set_imm(second, high);
                }
            }
            _ => return Err(Fault::BadRelocation),
        }
    }
    Ok(())
}

#[inline(never)]
fn relocate_call(
    object: &Object<'_>,
    symbol: &Symbol<'_>,
    insn: &mut [u8; INSN_LEN],
    imm: u32,
) -> Result<()> {
    if symbol.section() == SHN_UNDEF {
        if symbol.binding() != STB_WEAK {
            return Err(Fault::ExternNotServed);
        }
        let [_, regs, off0, off1, ..] = insn;
        (*regs, *off0, *off1) = (0, 0, 0);
        set_imm(insn, POISON_CALL);
        return Ok(());
    }
    if Some(symbol.section()) != object.text || symbol.value() % INSN_LEN as u64 != 0 {
        return Err(Fault::BadCall);
    }
    set_imm(
        insn,
        insns(symbol.value()).wrapping_add(imm).wrapping_add(1),
    );
    Ok(())
}

/// Holds the source register of an instruction that refers to a symbol, its number, and the
/// number of its second half.
type Reference = (u8, u32, Option<u32>);

#[inline(never)]
fn reference(
    object: &Object<'_>,
    symbol: &Symbol<'_>,
    maps: &[MapPlace],
    imm: u32,
) -> Result<Reference> {
    if symbol.section() == SHN_UNDEF {
        let offset = kconfig_offset(object, symbol.name);
        let kconfig = maps.iter().find(|map| map.is_kconfig());
        return match (offset, kconfig) {
            (Some(offset), Some(map)) => data(map, offset),
            // The address of what is absent is 0.
            _ if symbol.binding() == STB_WEAK => Ok((0, 0, Some(0))),
            _ => Err(Fault::ExternNotServed),
        };
    }
    let Ok(value) = u32::try_from(symbol.value()) else {
        return Err(Fault::BadReference);
    };
    if Some(symbol.section()) == object.text && matches!(symbol.kind(), STT_SECTION | STT_FUNC) {
        let at = value.wrapping_add(imm);
        return if at % 8 == 0 {
            Ok((BPF_PSEUDO_FUNC, at / 8, None))
        } else {
            Err(Fault::BadCall)
        };
    }
    let mut found = maps
        .iter()
        .filter_map(|map| Some((map, map.is_data_of(symbol)?)));
    match (found.next(), imm) {
        (Some((map, true)), _) => data(map, value.wrapping_add(imm)),
        (Some((map, false)), 0) => {
            let fd = map.fd.ok_or(Fault::BadReference)?;
            Ok((BPF_PSEUDO_MAP_FD, fd, None))
        }
        _ => Err(Fault::BadReference),
    }
}

/// Refers to an offset in the only element of a map.
fn data(map: &MapPlace, offset: u32) -> Result<Reference> {
    let fd = map.fd.ok_or(Fault::NoData)?;
    Ok((BPF_PSEUDO_MAP_VALUE, fd, Some(offset)))
}
