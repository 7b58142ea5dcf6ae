//! What is known of each function, in memory that the caller provides.

use rustix::io::{Errno, Result};

use super::resolve::hash;

/// The number of lists of functions with the same hash.
const HEADS: usize = 1 << 15;

/// The offset of the first record.
const RECORDS: usize = 4 * HEADS;

/// Holds what is known of a function. Numbers of bytes are offsets in the memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// 0 if the kernel hides it.
    pub(super) address: u64,
    /// The next function with the same hash, as its index and 1. It comes earlier in
    /// `/proc/kallsyms`. 0 is none.
    pub(super) next: u32,
    name: u32,
    module: u32,
    name_len: u16,
    /// 0 for the kernel itself.
    module_len: u8,
    pub(super) tags: u8,
}

/// Tags a function that ftrace can trace.
pub(super) const TRACEABLE: u8 = 1;
/// Tags a function that the kernel protects.
pub(super) const BLACKLISTED: u8 = 2;
/// Tags a function that was code of the boot.
pub(super) const INIT: u8 = 4;
/// Tags a function for which alone the kernel does not take its name.
pub(super) const SHARED: u8 = 8;

impl Record {
    const LEN: usize = 24;

    fn load(bytes: &[u8; Self::LEN]) -> Self {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let [low, high, next, name, module, rest] = words;
        let [len_low, len_high, module_len, tags] = rest.to_ne_bytes();
        Self {
            address: u64::from(high) << 32 | u64::from(low),
            next,
            name,
            module,
            name_len: u16::from_ne_bytes([len_low, len_high]),
            module_len,
            tags,
        }
    }

    fn store(&self, bytes: &mut [u8; Self::LEN]) {
        let [len_low, len_high] = self.name_len.to_ne_bytes();
        #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
        let (low, high) = (self.address as u32, (self.address >> 32) as u32);
        let rest = u32::from_ne_bytes([len_low, len_high, self.module_len, self.tags]);
        let words = [low, high, self.next, self.name, self.module, rest];
        for (word, bytes) in words.iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }

    pub(super) const fn has(&self, tag: u8) -> bool {
        self.tags & tag != 0
    }
}

/// Holds a record of each function, and finds it by its name.
#[derive(Debug)]
pub(super) struct Records<'m> {
    /// The heads of the lists of functions with the same hash, as index and 1, or 0. Then the
    /// records of the functions. The names fill the memory from its end.
    memory: &'m mut [u8],
    /// The number of records.
    len: usize,
    /// The offset of the last name.
    names: usize,
}

impl<'m> Records<'m> {
    /// Makes an empty list.
    pub(super) fn new(memory: &'m mut [u8]) -> Result<Self> {
        memory.get_mut(..RECORDS).ok_or(Errno::NOMEM)?.fill(0);
        Ok(Self {
            names: memory.len().min(u32::MAX as usize),
            memory,
            len: 0,
        })
    }

    /// Returns the number of records.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a function.
    pub(super) fn add(&mut self, address: u64, name: &[u8], module: &[u8], tags: u8) -> Result<()> {
        let last = self.record(self.len.wrapping_sub(1));
        let module_at = match last {
            // The functions of a module come together.
            Some(last) if self.module(&last) == module => last.module,
            _ => self.write(module)?,
        };
        let head = 4 * (hash(name) % HEADS);
        let next = self.word(head);
        let too_long = |_| Errno::NAMETOOLONG;
        let record = Record {
            address,
            next,
            name: self.write(name)?,
            module: module_at,
            name_len: name.len().try_into().map_err(too_long)?,
            module_len: module.len().try_into().map_err(too_long)?,
            tags,
        };
        let index = self.len;
        if RECORDS + (index + 1) * Record::LEN > self.names {
            return Err(Errno::NOMEM);
        }
        self.len += 1;
        self.put(index, &record);
        let number = u32::try_from(self.len).map_err(|_| Errno::NOMEM)?;
        if let Some(head) = self.memory.get_mut(head..head + 4) {
            head.copy_from_slice(&number.to_ne_bytes());
        }
        Ok(())
    }

    /// Writes a text before the last one, and returns its offset.
    fn write(&mut self, text: &[u8]) -> Result<u32> {
        let start = self.names.checked_sub(text.len()).ok_or(Errno::NOMEM)?;
        let free = self.memory.get_mut(start..self.names).ok_or(Errno::NOMEM)?;
        free.copy_from_slice(text);
        self.names = start;
        u32::try_from(start).map_err(|_| Errno::NOMEM)
    }

    /// Tags a function, and all functions at the same address. A list names only the first of them.
    pub(super) fn tag_all_at(&mut self, index: usize, tag: u8) {
        let Some(Record { address, .. }) = self.record(index) else {
            return;
        };
        let mut first = index;
        let is_at = |record: Option<Record>| {
            record.is_some_and(|record| address != 0 && record.address == address)
        };
        while first > 0 && is_at(self.record(first - 1)) {
            first -= 1;
        }
        let mut at = first;
        while at <= index || is_at(self.record(at)) {
            if let Some(mut record) = self.record(at) {
                record.tags |= tag;
                self.put(at, &record);
            }
            at += 1;
        }
    }

    /// Returns the first function with the hash of a name, as its index and 1.
    pub(super) fn first_of(&self, name: &[u8]) -> u32 {
        self.word(4 * (hash(name) % HEADS))
    }

    /// Returns a function of a list, and moves on to the next one.
    #[inline(never)]
    pub(super) fn next(&self, next: &mut u32) -> Option<(usize, Record)> {
        let index = usize::try_from(*next).ok()?.checked_sub(1)?;
        let record = self.record(index)?;
        *next = record.next;
        Some((index, record))
    }

    /// Returns a function of a name, and moves on in the list.
    #[inline(never)]
    pub(super) fn next_of(&self, name: &[u8], next: &mut u32) -> Option<(usize, Record)> {
        loop {
            let (index, record) = self.next(next)?;
            if self.name(&record) == name {
                return Some((index, record));
            }
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.memory.get(at..).and_then(<[u8]>::first_chunk);
        u32::from_ne_bytes(bytes.copied().unwrap_or_default())
    }

    pub(super) fn record(&self, index: usize) -> Option<Record> {
        if index >= self.len {
            return None;
        }
        let bytes = self.memory.get(RECORDS + index * Record::LEN..)?;
        Some(Record::load(bytes.first_chunk()?))
    }

    pub(super) fn put(&mut self, index: usize, record: &Record) {
        let bytes = self.memory.get_mut(RECORDS + index * Record::LEN..);
        if let Some(bytes) = bytes.and_then(<[u8]>::first_chunk_mut) {
            record.store(bytes);
        }
    }

    pub(super) fn name(&self, record: &Record) -> &[u8] {
        self.text(record.name, record.name_len.into())
    }

    pub(super) fn module(&self, record: &Record) -> &[u8] {
        self.text(record.module, record.module_len.into())
    }

    fn text(&self, start: u32, len: usize) -> &[u8] {
        let start = start as usize;
        self.memory.get(start..start + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn memory_that_is_too_small_is_an_error() {
        assert_eq!(Records::new(&mut [0; 100]).unwrap_err(), Errno::NOMEM);
        // For one function of this name, and for no second one.
        let mut memory = vec![0; RECORDS + 2 * Record::LEN + 3];
        let mut records = Records::new(&mut memory).unwrap();
        assert_eq!(records.add(16, b"one", b"", 0), Ok(()));
        assert_eq!(records.add(32, b"two", b"", 0), Err(Errno::NOMEM));
        assert_eq!(records.len(), 1);
        let record = records.record(0).unwrap();
        assert_eq!((records.name(&record), record.address), (&b"one"[..], 16));
    }
}
