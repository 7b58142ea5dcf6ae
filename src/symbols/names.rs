//! What one reading of the kernel's symbols shows of probes.

use rustix::io::{Errno, Result};

use super::image::Image;
use super::kallsyms::{Kallsyms, Symbol, failed};
use super::place::{Code, Nearest, Place};
use super::resolve::Resolution;
use super::similar::Meant;
use crate::error::{Cause, Error, Step};
use crate::request::{Invalid, KprobeOpts, Pick, Target, TargetBuf, VMLINUX};

/// Holds what `/proc/kallsyms` shows of a probe: the symbols that have its name, and its place.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Symbols<'a> {
    offset: u64,
    /// The number of functions that have the name.
    pub(crate) functions: usize,
    /// The address of the probe: the one that was given, or that of the first function and the
    /// offset.
    address: Option<u64>,
    /// The type of the first function.
    kind: u8,
    /// The type of a symbol that has this name and is not a function.
    pub(crate) data: Option<u8>,
    /// Whether the requested module is certainly loaded.
    pub(crate) has_module: bool,
    /// Whether the function belongs to boot code that has been freed.
    pub(crate) is_init: bool,
    code: Code,
    /// The target, and the function that is found for it if the kernel does not look for it.
    found: Resolution<'a>,
    /// The first of these functions, and its address. The address is 0 if the kernel hides
    /// addresses.
    pub(crate) function: Option<(TargetBuf, u64)>,
    nearest: Nearest,
    /// The functions that may have been meant, and those that have the name.
    pub(crate) meant: Meant,
}

impl<'a> Symbols<'a> {
    /// Makes the answers of no symbol.
    pub(crate) fn new(target: Target<'a>, opts: &KprobeOpts) -> Self {
        Self {
            found: Resolution::new(target),
            offset: opts.offset,
            functions: 0,
            function: None,
            kind: 0,
            data: None,
            meant: Meant::default(),
            has_module: target.module_bytes() == Some(VMLINUX),
            is_init: false,
            address: target.as_address(),
            nearest: Nearest::new(),
            code: Code::default(),
        }
    }

    /// Reads the symbols for one probe.
    // This has its own frame, beside that of the lines.
    #[inline(never)]
    pub(crate) fn of(target: Target<'a>, opts: &KprobeOpts) -> Result<Self> {
        let mut symbols = Self::new(target, opts);
        read_symbols(&mut |each| each(&mut symbols))?;
        Ok(symbols)
    }

    /// Returns the target that can be planned, or why there is none. If all functions of a name are
    /// meant, it is the first of them.
    pub(crate) fn target(&self) -> core::result::Result<Target<'_>, Error> {
        match (&self.found.chosen, self.found.request().search()) {
            (Some((function, address @ 1..)), Some((_, Pick::All))) => {
                Ok(function.as_target().with_address(*address))
            }
            _ => self.found.target(),
        }
    }

    fn see(&mut self, symbol: &Symbol<'_>, is_code: bool) {
        let target = self.found.request();
        self.has_module |= symbol.module.is_some() && symbol.module == target.module();
        if !target.is_resolved() {
            let before = self.found.address();
            self.found.see_any(symbol, is_code);
            match self.found.address() {
                start if start == before => {}
                // Its symbols may have another function that fits better.
                start => self.see_start(start),
            }
        } else if symbol.is(&target) {
            self.functions += 1;
            self.kind = symbol.kind;
            if self.function.is_none() {
                self.function = symbol
                    .target()
                    .map(|target| (target.into(), symbol.address));
                self.see_start(self.start());
            }
        } else if !symbol.is_function() && target.function() == Some(symbol.name) {
            self.data = self.data.or(Some(symbol.kind));
        }
        if symbol.is_function() {
            self.meant.see(&target, symbol);
        }
        self.see_again(symbol);
    }

    /// Looks for the place of the probe from the start of the function on.
    fn see_start(&mut self, start: Option<u64>) {
        self.address = start.and_then(|start| start.checked_add(self.offset));
        self.nearest = Nearest::new();
    }

    /// Takes what only all symbols show. Returns whether the symbols of modules must be seen again.
    fn end(&mut self, code: &Code) -> bool {
        self.code = code.clone();
        let is_searched = !self.found.request().is_resolved();
        if is_searched {
            self.found.choose_entry(&mut |_| {});
            self.function = self.found.chosen.clone();
            // The others are not meant if one was chosen.
            self.functions = match self.found.target() {
                Ok(_) => 1,
                Err(_) => self.found.functions() as usize,
            };
        }
        let Some((function, address @ 1..)) = &self.function else {
            return false;
        };
        let is_of_module = function.as_target().module().is_some();
        if self.functions == 1 && !is_searched {
            self.is_init = code.is_init(*address);
            // Linux 7.3 gives some data the type of code. But that data lies after all of the
            // kernel's code.
            if !is_of_module && code.is_behind(*address) {
                self.functions = 0;
                self.function = None;
                self.data = Some(self.kind);
                return false;
            }
        }
        // The kernel lists its own symbols by address. Those of a module are in no order, and one
        // before the function in the list can be between it and the place.
        is_of_module && self.offset != 0
    }

    fn see_again(&mut self, symbol: &Symbol<'_>) {
        if let Some(address) = self.address {
            self.nearest.see(address, symbol);
        }
    }

    /// Returns the address of the first function, unless the kernel hides it.
    pub(crate) fn start(&self) -> Option<u64> {
        let (_, address) = self.function.as_ref()?;
        (*address != 0).then_some(*address)
    }

    /// Returns the likeliest function, if it has the very name: one that was asked for, or one in
    /// another module, or in the kernel itself.
    pub(crate) fn named(&self) -> Option<&TargetBuf> {
        let first = self.meant.first()?;
        first.has_name().then_some(&first.function)
    }

    /// Returns where a probe would be: at an address, or at an offset from the start of the first
    /// function.
    pub(crate) fn place(&self) -> Place {
        let is_hidden = self.found.request().as_address().is_none() && self.start().is_none();
        match self.address {
            _ if self.offset == 0 && self.function.is_some() => Place::In(0),
            Some(address) => self.nearest.place(address, &self.code),
            None if is_hidden => Place::Untold,
            None => Place::Nowhere,
        }
    }

    /// Refuses an offset beyond the end of the function. Every kernel accepts it, and probes
    /// another function.
    ///
    /// If the kernel accepts a name that several functions have, it takes the first.
    pub(crate) fn check_offset(&self) -> core::result::Result<(), Error> {
        Err(match self.place() {
            Place::In(from_start) if from_start == self.offset => return Ok(()),
            _ if self.functions == 0 => failed(Errno::NOENT, self.true_cause(Cause::BadAddress)),
            _ if self.start().is_none() => failed(Errno::PERM, Cause::NoPermission),
            Place::Untold => failed(Errno::NODATA, Cause::Unknown),
            _ => Error::invalid(Invalid::OffsetBeyondFunction).at(Step::ResolveSymbol),
        })
    }

    /// Returns the true cause of a refusal. The kernel's errno can have several meanings, and the
    /// symbols can tell them apart.
    pub(crate) fn true_cause(&self, cause: Cause) -> Cause {
        if !is_of_place(cause) {
            return cause;
        }
        match (self.place(), self.functions, self.data) {
            (_, 0, Some(_)) => Cause::NotProbeable,
            (_, 0, None) if self.found.request().function().is_some() => {
                if self.found.request().module().is_some() && !self.has_module {
                    Cause::ModuleNotLoaded
                } else {
                    Cause::NoSuchFunction
                }
            }
            // EINVAL at the entry of a function.
            (Place::In(0), ..) if matches!(cause, Cause::NotFunctionEntry) => Cause::NotProbeable,
            // Before Linux 5.18, an address in no function is EINVAL, and such an offset is ENOENT.
            (Place::Nowhere, 0 | 1, _) => Cause::BadAddress,
            _ => cause,
        }
    }

    /// Returns the function at this place.
    pub(crate) fn function_there(&self) -> Option<&TargetBuf> {
        match &self.function {
            Some((function, _)) if self.offset == 0 => Some(function),
            _ => self.nearest.function(),
        }
    }
}

/// Shows the symbols to one probe.
type See<'s, 'a> = dyn FnMut(&mut Symbols<'a>) + 's;

/// Reads `/proc/kallsyms` once, for any number of probes: `all` calls its argument with each.
pub(crate) fn read_symbols<'a>(all: &mut dyn FnMut(&mut See<'_, 'a>)) -> Result<()> {
    let mut kallsyms = Kallsyms::open()?;
    let mut code = Code::default();
    let mut image = Image::default();
    kallsyms.for_each(&mut |symbol| {
        code.see(symbol);
        image.see(symbol.name.as_bytes());
        all(&mut |symbols| symbols.see(symbol, image.is_code()));
    })?;
    let mut again = false;
    all(&mut |symbols| again |= symbols.end(&code));
    if again {
        kallsyms.for_each_of_modules(&mut |symbol| {
            all(&mut |symbols| symbols.see_again(symbol));
        })?;
    }
    Ok(())
}

/// Returns whether a cause is about the place of a probe, and not about the rights of the process.
pub(crate) const fn is_of_place(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::NoSuchFunction
            | Cause::ModuleNotLoaded
            | Cause::NotProbeable
            | Cause::NotFunctionEntry
            | Cause::BadAddress
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const LINES: [&str; 12] = [
        "100 T _stext",
        "100 T f",
        "140 t g",
        "180 t twice",
        "190 t twice",
        "1a0 T _etext",
        "1b0 d data",
        "1c0 t data_as_code",
        "8c0 t m_late\t[m]",
        "840 t m_second\t[m]",
        "800 T m_first\t[m]",
        "a00 t n_first\t[n]",
    ];

    /// Returns what these symbols show of a probe.
    pub(crate) fn symbols<'a>(target: &'a str, offset: u64, lines: &[&str]) -> Symbols<'a> {
        let target = Target::parse(target).unwrap();
        let mut symbols = Symbols::new(target, &KprobeOpts::new().offset(offset));
        let (mut code, mut image) = (Code::default(), Image::default());
        for line in lines {
            let symbol = Symbol::parse(line.as_bytes()).unwrap();
            code.see(&symbol);
            image.see(symbol.name.as_bytes());
            symbols.see(&symbol, image.is_code());
        }
        if symbols.end(&code) {
            for line in lines.iter().filter(|line| line.ends_with(']')) {
                symbols.see_again(&Symbol::parse(line.as_bytes()).unwrap());
            }
        }
        symbols
    }

    #[test]
    fn a_place_is_found_in_the_same_reading_as_its_function() {
        let at = |target, offset| {
            let symbols = symbols(target, offset, &LINES);
            let there = symbols
                .function_there()
                .map(std::string::ToString::to_string);
            (symbols.place(), there.unwrap_or_default())
        };
        let place = |place, function: &str| (place, function.into());
        assert_eq!(at("f", 0), place(Place::In(0), "f"));
        assert_eq!(at("f", 0x3f), place(Place::In(0x3f), "f"));
        assert_eq!(at("f", 0x48), place(Place::In(8), "g"));
        assert_eq!(at("f", 0xc0).0, Place::Nowhere);
        // A function of a module can come after what its offset leads into.
        assert_eq!(at("m_first", 0x3f), place(Place::In(0x3f), "m:m_first"));
        assert_eq!(at("m:m_first", 0x48), place(Place::In(8), "m:m_second"));
        assert_eq!(at("m:m_first", 0xc0).0, Place::Untold);
        assert_eq!(at("0x848", 0), place(Place::In(8), "m:m_second"));
        assert_eq!(at("0x148", 0), place(Place::In(8), "g"));
        assert_eq!(at("0x1b8", 0).0, Place::Nowhere);
        assert_eq!(at("missing", 8).0, Place::Untold);
        let hidden = symbols("f", 8, &["0 T f", "0 T _etext"]);
        assert_eq!(hidden.place(), Place::Untold);
        let high = symbols("f", 0x100, &["ffffffffffffff80 T f"]);
        assert_eq!(high.place(), Place::Nowhere);
    }

    #[test]
    fn a_system_call_is_found_in_the_same_reading() {
        let lines = [
            "100 T __ia32_sys_openat",
            "110 T __x64_sys_openat",
            "120 T _etext",
        ];
        let target = Target::syscall("openat").unwrap();
        let mut found = Symbols::new(target, &KprobeOpts::new());
        for line in lines {
            found.see(&Symbol::parse(line.as_bytes()).unwrap(), true);
        }
        found.end(&Code::default());
        assert_eq!(found.target().unwrap().function(), Some("__x64_sys_openat"));
        assert_eq!((found.functions, found.start()), (1, Some(0x110)));
    }

    #[test]
    fn an_offset_is_checked_against_the_first_function_of_the_name() {
        let check = |target, offset, lines: &[&str]| {
            let checked = symbols(target, offset, lines).check_offset();
            checked.map_err(|error| (error.errno(), error.cause()))
        };
        assert_eq!(check("g", 0x3f, &LINES), Ok(()));
        assert_eq!(check("twice", 0xf, &LINES), Ok(()));
        let beyond = Err((Errno::INVAL, Cause::InvalidRequest));
        assert_eq!(check("g", 0x40, &LINES), beyond);
        assert_eq!(check("twice", 0x20, &LINES), beyond);
        let missing = |cause| Err((Errno::NOENT, cause));
        assert_eq!(check("h", 1, &LINES), missing(Cause::NoSuchFunction));
        assert_eq!(check("o:h", 1, &LINES), missing(Cause::ModuleNotLoaded));
        assert_eq!(check("m:h", 1, &LINES), missing(Cause::NoSuchFunction));
        let hidden = ["0 T f", "0 T _etext"];
        let denied = Err((Errno::PERM, Cause::NoPermission));
        assert_eq!(check("f", 1, &hidden), denied);
        let last = Err((Errno::NODATA, Cause::Unknown));
        assert_eq!(check("m:m_late", 1, &LINES), last);
    }

    #[test]
    fn symbols_tell_what_an_errno_meant() {
        let check = |(cause, expected), target, offset| {
            let symbols = symbols(target, offset, &LINES);
            assert_eq!(symbols.true_cause(cause), expected, "{cause} {target}");
        };
        // tracefs returns EINVAL for a name that does not exist.
        check((Cause::NotProbeable, Cause::NoSuchFunction), "h", 0);
        check((Cause::NotProbeable, Cause::ModuleNotLoaded), "o:h", 0);
        check((Cause::ModuleNotLoaded, Cause::NoSuchFunction), "m:h", 0);
        check((Cause::NoSuchFunction, Cause::NotProbeable), "data", 0);
        // Data that has the type of code.
        check(
            (Cause::NoSuchFunction, Cause::NotProbeable),
            "data_as_code",
            0,
        );
        for cause in [Cause::NotProbeable, Cause::NotInstructionBoundary] {
            check((cause, cause), "f", 0);
            check((cause, cause), "twice", 0x20);
        }
        // A cause that is not about the place stays.
        for cause in [Cause::NotUnique, Cause::Lockdown, Cause::OutOfFds] {
            check((cause, cause), "h", 0);
        }
        // Before Linux 5.18, an address outside all functions is EINVAL, and an offset that leads
        // there is ENOENT.
        check((Cause::NotProbeable, Cause::BadAddress), "0x1b8", 0);
        check((Cause::NoSuchFunction, Cause::BadAddress), "f", 0xc0);
        // The entry of a function is an entry, so something else is wrong with it.
        check((Cause::NotFunctionEntry, Cause::NotProbeable), "0x140", 0);
        check(
            (Cause::NotFunctionEntry, Cause::NotFunctionEntry),
            "0x149",
            0,
        );
        check((Cause::NotProbeable, Cause::NotProbeable), "0x8d0", 0);
    }
}
