//! The arguments, parsed.

use core::ffi::CStr;
use core::time::Duration;

use kprobe_attach::AttachMode;
use kprobe_attach::request::{ParseError, Probe};

use super::command::{Command, OPTIONS};
use super::usage::{MAX_PIN_DIR_LEN, Usage};
use crate::out::Report;
use crate::rt::Start;

/// What the program is to do.
#[derive(Debug)]
pub(crate) struct Args<'a> {
    pub(crate) command: Command,
    start: &'a Start,
    pub(crate) probe_count: usize,
    /// How failures are reported; and the options that are the same for all probes.
    pub(crate) report: Report,
    pub(crate) program: Option<&'a CStr>,
    pub(crate) pin: Option<&'a CStr>,
    pub(crate) time: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) quiet: bool,
    pub(crate) dry_run: bool,
    /// The index of the command to run among the arguments.
    pub(crate) run: Option<usize>,
}

impl<'a> Args<'a> {
    /// Begins with nothing asked for.
    pub(crate) const fn new(start: &'a Start) -> Self {
        Self {
            command: Command::Help,
            start,
            probe_count: 0,
            report: Report::new(),
            program: None,
            pin: None,
            time: None,
            interval: None,
            quiet: false,
            dry_run: false,
            run: None,
        }
    }

    /// Reads the arguments.
    pub(crate) fn parse(&mut self) -> Result<(), Usage<'a>> {
        let start = self.start;
        let name = start.arg(1).ok_or(Usage::NoCommand)?;
        let mut index = 1;
        let mut next = || {
            index += 1;
            start.arg(index)
        };
        self.command = match (Command::of(name), name.to_bytes()) {
            (Some(command), _) if !command.is_built() => return Err(Usage::NotBuilt(name)),
            (Some(command), _) => command,
            (None, [b'-', ..]) => return Err(Usage::UnknownOption(name)),
            (None, _) => return Err(Usage::UnknownCommand(name)),
        };
        while let Some(arg) = next() {
            match (arg.to_bytes_with_nul(), Command::of(arg)) {
                (b"--\0", _) => {
                    next().ok_or(Usage::EmptyRun)?;
                    self.run = Some(index);
                    break;
                }
                // Help and version, wherever they stand.
                ([b'-', ..], Some(command)) => self.command = command,
                ([b'-', b'-', option @ ..], None) => self.option(arg, option, &mut next)?,
                ([b'-', ..], None) => return Err(Usage::UnknownOption(arg)),
                _ => self.take_probe(arg)?,
            }
        }
        if self.pin.is_some() {
            // What can be pinned is a link of this mode.
            let mode = &mut self.report.options.attach_mode;
            *mode = mode.or(Some(AttachMode::Link));
        }
        self.check()
    }

    /// `--name`, `--name value` or `--name=value`.
    fn option(
        &mut self,
        arg: &'a CStr,
        option: &'a [u8],
        next: &mut dyn FnMut() -> Option<&'a CStr>,
    ) -> Result<(), Usage<'a>> {
        let equals = option.iter().position(|byte| *byte == b'=');
        let (given, value) = match equals.and_then(|at| option.split_at_checked(at)) {
            Some((name, value)) => (
                name,
                CStr::from_bytes_until_nul(value.get(1..).unwrap_or_default()).ok(),
            ),
            None => (option.strip_suffix(b"\0").unwrap_or(option), None),
        };
        let (name, commands) = *OPTIONS
            .iter()
            .find(|(name, _)| name.as_bytes() == given)
            .ok_or(Usage::UnknownOption(arg))?;
        if !commands.contains(&self.command)
            && !matches!(self.command, Command::Help | Command::Version)
        {
            return Err(Usage::NotForThis(name));
        }
        let flag = match name {
            "json" => Some(&mut self.report.json),
            "quiet" => Some(&mut self.quiet),
            "dry-run" => Some(&mut self.dry_run),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            return if value.is_some() {
                Err(Usage::UnwantedValue(name))
            } else {
                Ok(())
            };
        }
        let value = value.or_else(next).ok_or(Usage::MissingValue(name))?;
        match name {
            "program" => self.program = Some(value),
            "pin" if value.count_bytes() > MAX_PIN_DIR_LEN => return Err(Usage::LongPath(name)),
            "pin" => self.pin = Some(value),
            "for" => self.time = Some(seconds(value).ok_or(Usage::BadTime(name, value))?),
            "interval" => {
                let interval = seconds(value).filter(|interval| !interval.is_zero());
                self.interval = Some(interval.ok_or(Usage::BadTime(name, value))?);
            }
            _ => self
                .report
                .options
                .set_by_name(name, value.to_bytes())
                .map_err(|error| Usage::BadValue(name, value, error))?,
        }
        Ok(())
    }

    fn take_probe(&mut self, arg: &'a CStr) -> Result<(), Usage<'a>> {
        if matches!(self.command, Command::Features | Command::Sweep) {
            return Err(Usage::UnwantedProbe(arg));
        }
        self.probe_count += 1;
        Ok(())
    }

    fn check(&self) -> Result<(), Usage<'a>> {
        let holds = self.run.is_some() || self.time.is_some() || self.interval.is_some();
        match self.command {
            Command::Features | Command::Plan | Command::Explain | Command::Sweep
                if self.run.is_some() =>
            {
                Err(Usage::RunsNothing)
            }
            Command::Help | Command::Version | Command::Features | Command::Sweep => Ok(()),
            _ if self.pin.is_some() && holds => Err(Usage::PinAndHold),
            // Without a probe, what is pinned is read.
            Command::Count if self.pin.is_some() => Ok(()),
            _ if self.probe_count == 0 => Err(Usage::NoProbe),
            Command::Attach if self.program.is_none() => Err(Usage::NoProgram),
            Command::Plan | Command::Attach | Command::Count | Command::Explain => Ok(()),
        }
    }

    /// The probes as they were given.
    pub(crate) fn probes(&self) -> Probes<'a> {
        Probes {
            start: self.start,
            index: 1,
            end: self.run.map_or(usize::MAX, |run| run - 1),
        }
    }

    /// Reads the probe of an argument.
    pub(crate) fn read<'t>(&self, text: &'t CStr) -> Result<Probe<'t>, ParseError> {
        Probe::with_defaults(text.to_bytes(), &self.report.options)
    }
}

/// The arguments that are probes. They are looked for anew each time, so that they need no memory.
#[derive(Debug)]
pub(crate) struct Probes<'a> {
    start: &'a Start,
    /// The argument before.
    index: usize,
    /// Where the command to run begins.
    end: usize,
}

impl<'a> Iterator for Probes<'a> {
    type Item = &'a CStr;

    fn next(&mut self) -> Option<&'a CStr> {
        loop {
            self.index += 1;
            let arg = self.start.arg(self.index);
            let arg = arg.filter(|_| self.index < self.end)?;
            match arg.to_bytes() {
                [b'-', b'-', option @ ..] if takes_next(option) => self.index += 1,
                [b'-', ..] => {}
                _ => return Some(arg),
            }
        }
    }
}

/// Whether the value of an option, which was taken before, is the next argument.
fn takes_next(option: &[u8]) -> bool {
    let is_flag = matches!(
        option,
        b"json" | b"quiet" | b"dry-run" | b"help" | b"version"
    );
    !is_flag && !option.contains(&b'=')
}

/// Seconds, with at most nine digits after a point.
fn seconds(text: &CStr) -> Option<Duration> {
    let mut parts = text.to_bytes().splitn(2, |byte| *byte == b'.');
    let whole = decimal(parts.next()?)?;
    let fraction = parts.next().unwrap_or(b"0");
    let missing_digits = 9_usize.checked_sub(fraction.len())?;
    let nanos = (0..missing_digits).fold(decimal(fraction)?, |number, _| number * 10);
    Some(Duration::from_nanos(whole * 1_000_000_000 + nanos))
}

/// A decimal number of 32 bits, and nothing else.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let mut number = 0_u32;
    for byte in digits {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number.into())
}
