//! The arguments, parsed.

use core::ffi::CStr;

use kprobe_attach::AttachMode;
use kprobe_attach::request::{Invalid, ParseError, Probe};

use super::table::{Command, CommandEntry, OPTIONS, Opt, OptionEntry, Value, Words};
use super::usage::{MAX_PIN_DIR_LEN, Usage};
use crate::out::Report;
use crate::rt::Start;

/// The request of a command line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// The overview, or the help of one command.
    Help(Option<&'static CommandEntry>),
    Version,
    Run(&'static CommandEntry),
}

/// The arguments of a command.
#[derive(Debug)]
pub(crate) struct Args<'a> {
    start: &'a Start,
    /// The options that were given, each with its value. An option without a value has an empty
    /// one.
    given: [Option<&'a CStr>; OPTIONS.len()],
    pub(crate) probe_count: usize,
    /// The way to report failures, and the options that apply to all probes.
    pub(crate) report: Report,
    /// The index of the command to run among the arguments.
    pub(crate) run: Option<usize>,
    /// The bytes of the object that `--object` names.
    #[cfg_attr(not(feature = "object"), allow(dead_code))]
    pub(crate) object: &'a [u8],
    /// The sections that stand for the probes if none is given.
    sections: Option<Sections<'a>>,
}

impl<'a> Args<'a> {
    /// Makes the arguments of an empty command line.
    pub(crate) const fn new(start: &'a Start) -> Self {
        Self {
            start,
            given: [None; OPTIONS.len()],
            probe_count: 0,
            report: Report::new(),
            run: None,
            object: &[],
            sections: None,
        }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// Returns the mistake, and the command that it is about.
    pub(crate) fn parse(&mut self) -> Result<Request, (Usage<'a>, Option<&'static CommandEntry>)> {
        let name = self.start.arg(1).ok_or((Usage::NoCommand, None))?;
        match name.to_bytes() {
            b"help" => {
                let Some(name) = self.start.arg(2) else {
                    return Ok(Request::Help(None));
                };
                let about = CommandEntry::of(name.to_bytes());
                let about = about.ok_or((Usage::UnknownCommand(name), None))?;
                return Ok(Request::Help(Some(about)));
            }
            option @ [b'-', ..] => {
                let request = Request::of(option, None);
                return request.ok_or((Usage::UnknownOption(name), None));
            }
            _ => {}
        }
        let entry = CommandEntry::of(name.to_bytes());
        let entry = entry.ok_or((Usage::UnknownCommand(name), None))?;
        if !entry.is_built {
            return Err((Usage::NotBuilt(name), None));
        }
        self.parse_for(entry).map_err(|usage| (usage, Some(entry)))
    }

    /// Reads the arguments of a command.
    fn parse_for(&mut self, entry: &'static CommandEntry) -> Result<Request, Usage<'a>> {
        let start = self.start;
        let mut index = 1;
        let mut next = || {
            index += 1;
            start.arg(index)
        };
        while let Some(arg) = next() {
            if let Some(request) = Request::of(arg.to_bytes(), Some(entry)) {
                return Ok(request);
            }
            match arg.to_bytes() {
                b"--" => {
                    if entry.words != Words::ProbesAndCommand {
                        return Err(Usage::RunsNothing);
                    }
                    next().ok_or(Usage::EmptyRun)?;
                    self.run = Some(index);
                    break;
                }
                [b'-', ..] => self.option(entry.command, arg, &mut next)?,
                _ if entry.words == Words::Nothing => return Err(Usage::UnwantedProbe(arg)),
                _ => self.probe_count += 1,
            }
        }
        self.report.json = self.has(Opt::Json);
        if self.has(Opt::Pin) {
            // Only a link of this mode can be pinned.
            let mode = &mut self.report.options.attach_mode;
            *mode = mode.or(Some(AttachMode::Link));
        }
        self.check(entry)?;
        Ok(Request::Run(entry))
    }

    /// Reads an option: `--name`, `--name value` or `--name=value`.
    fn option(
        &mut self,
        command: Command,
        arg: &'a CStr,
        next: &mut dyn FnMut() -> Option<&'a CStr>,
    ) -> Result<(), Usage<'a>> {
        let (entry, value) = split(arg).ok_or(Usage::UnknownOption(arg))?;
        let &OptionEntry { option, name, .. } = entry;
        if !entry.commands.contains(command) {
            return Err(Usage::NotForThis(name));
        }
        let value = match (entry.value, value) {
            (Value::None, Some(_)) => return Err(Usage::UnwantedValue(name)),
            (Value::None, None) => c"",
            (_, value) => value.or_else(next).ok_or(Usage::MissingValue(name))?,
        };
        match entry.value {
            Value::Dir if value.count_bytes() > MAX_PIN_DIR_LEN => {
                return Err(Usage::LongPath(name));
            }
            Value::Time | Value::Interval => {
                let may_be_zero = matches!(entry.value, Value::Time);
                seconds(value)
                    .filter(|time| may_be_zero || *time != 0)
                    .ok_or(Usage::BadTime(name, value))?;
            }
            Value::Key => {
                let options = &mut self.report.options;
                let set = options.set_by_name(name, value.to_bytes());
                set.map_err(|error| Usage::BadValue(name, value, error))?;
            }
            Value::None | Value::Text | Value::Dir => {}
        }
        match self.given.get_mut(option as usize) {
            Some(given @ None) => *given = Some(value),
            // An object has several.
            Some(Some(_)) if option == Opt::Program => {}
            _ => return Err(Usage::Twice(name)),
        }
        Ok(())
    }

    /// Checks that the arguments go together, and that none is missing.
    fn check(&self, entry: &CommandEntry) -> Result<(), Usage<'a>> {
        let pins = self.has(Opt::Pin);
        let runs = self.run.is_some();
        let of_one = self.has(Opt::Pid);
        let holds = runs || self.has(Opt::For) || self.has(Opt::Interval);
        if pins && (holds || of_one) {
            return Err(Usage::PinAndHold);
        }
        if self.has(Opt::CommandOnly) {
            if !runs {
                return Err(Usage::EmptyRun);
            }
            // The option stands for the PID of COMMAND.
            if of_one {
                return Err(Usage::Twice("pid"));
            }
        }
        if self.has(Opt::Children) && !of_one && !self.has(Opt::CommandOnly) {
            return Err(Usage::NoProcess);
        }
        // Without a probe, it reads the pins.
        let reads_pins = pins && entry.command == Command::Count;
        let has_object = self.has(Opt::Object);
        if self.probe_count == 0 && entry.words.needs_probe() && !reads_pins && !has_object {
            return Err(Usage::NoProbe);
        }
        if entry.words == Words::Map {
            let mut words = self.probes();
            if words.next() != Some(c"dump") || words.count() != 1 {
                return Err(Usage::NoMap);
            }
        }
        self.check_programs(entry.command)
    }

    /// Checks the options about programs.
    fn check_programs(&self, command: Command) -> Result<(), Usage<'a>> {
        let attaches = command == Command::Attach;
        if self.has(Opt::Object) {
            return if cfg!(feature = "object") {
                Ok(())
            } else {
                Err(Usage::NotBuilt(c"--object"))
            };
        }
        if self.programs().count() > 1 {
            return Err(Usage::Twice("program"));
        }
        match (self.has(Opt::Program), attaches) {
            (false, true) => return Err(Usage::NoProgram),
            (true, false) => return Err(Usage::NoObject("program")),
            _ => {}
        }
        if self.has(Opt::VerifierLog) {
            return Err(Usage::NoObject("verifier-log"));
        }
        Ok(())
    }

    /// Returns whether an option was given.
    pub(crate) fn has(&self, option: Opt) -> bool {
        self.value(option).is_some()
    }

    /// Returns the value of an option.
    pub(crate) fn value(&self, option: Opt) -> Option<&'a CStr> {
        self.given.get(option as usize).copied().flatten()
    }

    /// Returns the value of an option that is a time, in nanoseconds.
    pub(crate) fn time(&self, option: Opt) -> Option<u64> {
        seconds(self.value(option)?)
    }

    /// Returns the probes as they were given, or the sections that stand for them.
    pub(crate) fn probes(&self) -> Probes<'a> {
        Probes {
            words: self.words(),
            sections: self.sections.as_ref().map(Sections::iter),
        }
    }

    /// Returns the values of `--program`.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &'a CStr> {
        let programs = self.words();
        programs.filter_map(|(option, value)| (option == Some(Opt::Program)).then_some(value))
    }

    /// Lets the sections of an object's programs stand for the probes.
    #[cfg(feature = "object")]
    pub(crate) fn set_sections(&mut self, sections: Sections<'a>) {
        self.probe_count = sections.iter().count();
        self.sections = Some(sections);
    }

    /// Returns the number of programs, each of which has probes of its own.
    pub(crate) fn program_count(&self) -> usize {
        self.sections.map_or(1, |sections| sections.iter().count())
    }

    /// Returns the index of the program of a probe.
    pub(crate) fn program_of(&self, probe: usize) -> usize {
        self.sections.map_or(0, |_| probe)
    }

    /// Returns whether the built-in program is attached, to which a cookie is an index.
    pub(crate) fn counts(&self) -> bool {
        !self.has(Opt::Program) && !self.has(Opt::Object)
    }

    /// Returns the name of a program, if it is attached as its section says.
    pub(crate) fn program_name(&self, program: usize) -> Option<&'a CStr> {
        let (_, name) = self.sections?.iter().nth(program)?;
        Some(name)
    }

    fn words(&self) -> Arguments<'a> {
        Arguments {
            start: self.start,
            index: 1,
            end: self.run.map_or(usize::MAX, |run| run - 1),
        }
    }

    /// Reads the probe of an argument.
    pub(crate) fn read<'t>(&self, text: &'t CStr) -> Result<Probe<'t>, ParseError> {
        let mut options = self.report.options;
        match Probe::with_defaults(text.to_bytes(), &options) {
            // A link to many functions has no mode, and here only the pin asks for one.
            Err(error) if error.invalid == Invalid::OptionInMulti && !self.has(Opt::Mode) => {
                options.attach_mode = None;
                Probe::with_defaults(text.to_bytes(), &options)
            }
            read => read,
        }
    }
}

impl Request {
    /// Returns the request that an option stands for by itself, wherever it is.
    fn of(option: &[u8], about: Option<&'static CommandEntry>) -> Option<Self> {
        match option {
            b"--help" | b"-h" => Some(Self::Help(about)),
            b"--version" | b"-V" => Some(Self::Version),
            _ => None,
        }
    }
}

/// Splits `--name` or `--name=value`.
fn split(arg: &CStr) -> Option<(&'static OptionEntry, Option<&CStr>)> {
    let option = arg.to_bytes_with_nul().strip_prefix(b"--")?;
    let end = option.iter().position(|byte| matches!(byte, b'=' | 0))?;
    let (name, rest) = option.split_at_checked(end)?;
    let value = rest.strip_prefix(b"=");
    let value = value.and_then(|value| CStr::from_bytes_until_nul(value).ok());
    Some((OptionEntry::of(name)?, value))
}

/// Iterates over the arguments of a command: options with their values, and others. It looks for
/// them each time, which takes no memory.
#[derive(Debug)]
struct Arguments<'a> {
    start: &'a Start,
    /// The index of the previous argument.
    index: usize,
    /// The index at which the command to run begins.
    end: usize,
}

impl<'a> Iterator for Arguments<'a> {
    type Item = (Option<Opt>, &'a CStr);

    fn next(&mut self) -> Option<Self::Item> {
        self.index += 1;
        let arg = self.start.arg(self.index);
        let arg = arg.filter(|_| self.index < self.end)?;
        let Some((entry, mut value)) = split(arg) else {
            return Some((None, arg));
        };
        if value.is_none() && entry.value != Value::None {
            // Its value is the next argument.
            self.index += 1;
            value = self.start.arg(self.index);
        }
        Some((Some(entry.option), value.unwrap_or_default()))
    }
}

/// Iterates over the probes.
#[derive(Debug)]
pub(crate) struct Probes<'a> {
    words: Arguments<'a>,
    sections: Option<SectionsIter<'a>>,
}

impl<'a> Iterator for Probes<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        if let Some(sections) = &mut self.sections {
            return sections.next().map(|(probe, _)| probe);
        }
        self.words
            .find_map(|(option, word)| option.is_none().then_some(word))
    }
}

/// Holds the sections of an object's programs: the probe that each stands for, and the name of the
/// program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sections<'a>(
    /// The texts of both, each with a NUL.
    pub(crate) &'a [u8],
);

impl<'a> Sections<'a> {
    const fn iter(&self) -> SectionsIter<'a> {
        SectionsIter(self.0)
    }
}

/// Iterates over them.
#[derive(Debug)]
struct SectionsIter<'a>(&'a [u8]);

impl<'a> Iterator for SectionsIter<'a> {
    type Item = (&'a CStr, &'a CStr);

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = || {
            let text = CStr::from_bytes_until_nul(self.0).ok()?;
            self.0 = self.0.get(text.count_bytes() + 1..)?;
            Some(text)
        };
        Some((text()?, text()?))
    }
}

/// Reads seconds, with at most nine digits after the point. Returns nanoseconds.
fn seconds(text: &CStr) -> Option<u64> {
    let text = text.to_bytes();
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        None => (text, &b"0"[..]),
        Some(point) => (text.get(..point)?, text.get(point + 1..)?),
    };
    let whole = decimal(whole)?;
    let missing_digits = 9_usize.checked_sub(fraction.len())?;
    let nanos = (0..missing_digits).fold(decimal(fraction)?, |number, _| number * 10);
    Some(whole * 1_000_000_000 + nanos)
}

/// Reads a decimal number of 32 bits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let mut number = 0_u32;
    for byte in digits {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number.into())
}
