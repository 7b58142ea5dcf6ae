//! The function at an address, found while the kernel's symbols are read.

use core::ops::Range;

use super::kallsyms::Symbol;
use crate::request::TargetBuf;
use crate::text::Buf;

/// Holds the bounds of the kernel's own code, without modules, as far as their symbols have been
/// read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code {
    /// The address of `_etext`; 0 if the kernel hides addresses.
    end: u64,
    /// The range of code that runs only during boot, and is then freed.
    init: Range<u64>,
}

impl Code {
    /// Remembers the address of a symbol that is a bound.
    pub(super) fn see(&mut self, symbol: &Symbol<'_>) {
        match symbol.name {
            "_etext" => self.end = symbol.address,
            "_sinittext" => self.init.start = symbol.address,
            "_einittext" => self.init.end = symbol.address,
            _ => {}
        }
    }

    fn contains(&self, address: u64) -> bool {
        address < self.end || self.is_init(address)
    }

    pub(super) fn is_init(&self, address: u64) -> bool {
        self.init.contains(&address)
    }

    /// Returns whether an address is known to be after all of the code.
    pub(super) fn is_behind(&self, address: u64) -> bool {
        self.end != 0 && !self.contains(address)
    }
}

/// Describes where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a function, at this many bytes from its start.
    In(u64),
    /// In no function.
    Nowhere,
    /// Unknown: addresses are hidden, or the address is after the last symbol of a module.
    Untold,
}

/// The room for the name of a module: the kernel limits it to 55 bytes.
const MODULE_LEN: usize = 64;

/// Holds the symbol that is nearest below an address, among those that have been read.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Nearest {
    start: Option<u64>,
    /// The last module that has been read, if it has a symbol above the address.
    above: Buf<MODULE_LEN>,
    /// Whether the module of the function has a symbol above the address.
    has_end: bool,
    /// The symbol, if it is a function.
    function: Option<TargetBuf>,
}

impl Nearest {
    pub(crate) const fn new() -> Self {
        Self {
            start: None,
            function: None,
            above: Buf::new(),
            has_end: false,
        }
    }

    /// Returns the function that the address is in, unless it is in none.
    pub(crate) const fn function(&self) -> Option<&TargetBuf> {
        self.function.as_ref()
    }

    /// Compares a symbol with the nearest one so far.
    pub(crate) fn see(&mut self, address: u64, symbol: &Symbol<'_>) {
        if symbol.address > address {
            self.see_above(symbol);
            return;
        }
        // Where several symbols share an address, the first one that is a function counts.
        let is_nearer = match self.start {
            None => true,
            Some(start) if start == symbol.address => {
                self.function.is_none() && symbol.is_function()
            }
            Some(start) => start < symbol.address,
        };
        if is_nearer && !symbol.is_generated() {
            self.start = Some(symbol.address);
            self.function = if symbol.is_function() {
                symbol.target().map(TargetBuf::from)
            } else {
                None
            };
            self.has_end = symbol.module == Some(self.above.as_str());
        }
    }

    /// The symbols of a module are in no order, but none of another module is between them.
    fn see_above(&mut self, symbol: &Symbol<'_>) {
        let Some(module) = symbol.module else {
            return;
        };
        let function = self.function.as_ref().map(TargetBuf::as_target);
        self.has_end |= function.is_some_and(|function| function.module() == Some(module));
        if self.above.as_str() != module {
            self.above.truncate(0);
            // A name that does not fit is no module's.
            let _ = self.above.push_all(module.as_bytes());
        }
    }

    /// Returns where the address is, when all symbols have been read. A function ends at the next
    /// symbol.
    pub(crate) fn place(&self, address: u64, code: &Code) -> Place {
        if code.end == 0 {
            // Addresses are hidden.
            return Place::Untold;
        }
        let (Some(start), Some(function)) = (self.start, &self.function) else {
            return Place::Nowhere;
        };
        let inside = Place::In(address - start);
        match function.as_target().module() {
            None if code.contains(address) => inside,
            None => Place::Nowhere,
            Some(_) if self.has_end => inside,
            Some(_) => Place::Untold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 17] = [
        "0 A percpu",
        "100 T _stext",
        "100 T first",
        "110 t alias",
        "110 T second",
        "140 t third",
        "1a0 T _etext",
        "1b0 d data",
        "200 T _sinittext",
        "210 t init",
        "220 T _einittext",
        "a50 t n_last\t[n]",
        "a00 t n_first\t[n]",
        "840 t m_second\t[m]",
        "800 T m_first\t[m]",
        "880 d m_data\t[m]",
        "a10 t bpf_prog\t[bpf]",
    ];

    /// Returns the place of an address, and the function there, by these symbols.
    fn place(address: u64, lines: &[&str]) -> (Place, std::string::String) {
        let mut nearest = Nearest::new();
        let mut code = Code::default();
        for line in lines {
            let symbol = Symbol::parse(line.as_bytes()).unwrap();
            code.see(&symbol);
            nearest.see(address, &symbol);
        }
        let function = nearest.function().map(std::string::ToString::to_string);
        (nearest.place(address, &code), function.unwrap_or_default())
    }

    #[test]
    fn an_address_is_in_the_function_that_is_nearest_below_it() {
        for (address, expected, function) in [
            (0x100, Place::In(0), "_stext"),
            (0x10f, Place::In(15), "_stext"),
            (0x110, Place::In(0), "alias"),
            (0x13f, Place::In(0x2f), "alias"),
            (0x19f, Place::In(0x5f), "third"),
            // The last function of the kernel's code ends there.
            (0x1a0, Place::Nowhere, "_etext"),
            (0x1b8, Place::Nowhere, ""),
            (0x218, Place::In(8), "init"),
            (0x80, Place::Nowhere, ""),
            // The symbols of a module are in any order.
            (0x800, Place::In(0), "m:m_first"),
            (0x83f, Place::In(0x3f), "m:m_first"),
            (0x840, Place::In(0), "m:m_second"),
            (0x87f, Place::In(0x3f), "m:m_second"),
            (0x888, Place::Nowhere, ""),
            // A BPF program is no function.
            (0xa18, Place::In(0x18), "n:n_first"),
            // The kernel does not show where the last function of a module ends.
            (0xa50, Place::Untold, "n:n_last"),
        ] {
            let found = place(address, &LINES);
            assert_eq!(found, (expected, function.into()), "{address:#x}");
        }
        // Another module above does not end a function.
        let apart = [
            "1a0 T _etext",
            "840 t m_second\t[m]",
            "900 t other\t[o]",
            "880 t late\t[p]",
        ];
        assert_eq!(place(0x850, &apart).0, Place::Untold);
        assert_eq!(place(0x890, &apart).0, Place::Untold);
        assert_eq!(place(0x100, &["0 T _etext", "0 t f"]).0, Place::Untold);
    }
}
