//! The command line.

use core::ffi::CStr;
use core::time::Duration;

use kprobe_attach::{AttachMode, KprobeOpts, ParseError, Probe};

use crate::out::Shown;
use crate::rt::Start;

/// How many probes there can be: what is known of each has its place on the stack.
pub(crate) const MAX_PROBES: usize = 64;

/// The longest directory for pins, which leaves room for their names within `PATH_MAX`.
const MAX_PIN_DIR_LEN: usize = 3072;

/// The commands of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Features,
    Plan,
    Attach,
    Count,
    Explain,
    Sweep,
    Help,
    Version,
}

/// What the program is to do.
#[derive(Debug)]
pub(crate) struct Args<'a> {
    pub(crate) command: Command,
    probes: [&'a CStr; MAX_PROBES],
    probe_count: usize,
    /// The options that are the same for all probes.
    defaults: KprobeOpts,
    pub(crate) program: Option<&'a CStr>,
    pub(crate) pin: Option<&'a CStr>,
    pub(crate) time: Option<Duration>,
    pub(crate) interval: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) dry_run: bool,
    /// The index of the command to run among the arguments.
    pub(crate) run: Option<usize>,
}

/// A command line that is not one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage<'a> {
    NoCommand,
    UnknownCommand(&'a CStr),
    /// A command that the program was built without.
    NotBuilt(&'a CStr),
    UnknownOption(&'a CStr),
    /// An option that belongs to another command.
    NotForThis(&'a str),
    MissingValue(&'a str),
    UnwantedValue(&'a str),
    BadValue(&'a str, &'a CStr, ParseError),
    BadTime(&'a str, &'a CStr),
    LongPath(&'a str),
    NoProbe,
    TooManyProbes,
    UnwantedProbe(&'a CStr),
    NoProgram,
    RunsNothing,
    PinAndHold,
    EmptyRun,
}

/// The commands by their names.
const COMMANDS: [(&CStr, Command); 11] = [
    (c"features", Command::Features),
    (c"plan", Command::Plan),
    (c"attach", Command::Attach),
    (c"count", Command::Count),
    (c"explain", Command::Explain),
    (c"sweep", Command::Sweep),
    (c"help", Command::Help),
    (c"--help", Command::Help),
    (c"-h", Command::Help),
    (c"--version", Command::Version),
    (c"-V", Command::Version),
];

impl Command {
    fn of(name: &CStr) -> Option<Self> {
        let (_, command) = COMMANDS.iter().find(|(known, _)| *known == name)?;
        Some(*command)
    }

    /// Whether the program was built with what the command takes.
    pub(crate) const fn is_built(self) -> bool {
        let explains = cfg!(feature = "explain") || !matches!(self, Self::Explain);
        let sweeps = cfg!(feature = "files") || !matches!(self, Self::Sweep);
        explains && sweeps
    }
}

/// The commands about probes.
const OF_PROBES: [Command; 4] = [
    Command::Plan,
    Command::Attach,
    Command::Count,
    Command::Explain,
];

/// The options, and the commands that take them.
const OPTIONS: [(&str, &[Command]); 10] = [
    ("mode", &OF_PROBES),
    ("cookie", &OF_PROBES),
    ("maxactive", &OF_PROBES),
    ("for", &[Command::Attach, Command::Count]),
    ("interval", &[Command::Count]),
    ("program", &[Command::Attach]),
    ("pin", &[Command::Attach, Command::Count]),
    (
        "json",
        &[
            Command::Features,
            Command::Plan,
            Command::Attach,
            Command::Count,
            Command::Explain,
            Command::Sweep,
        ],
    ),
    ("quiet", &[Command::Attach, Command::Count, Command::Sweep]),
    ("dry-run", &[Command::Sweep]),
];

impl<'a> Args<'a> {
    // Its locals are not to be in the frame of every command.
    #[inline(never)]
    pub(crate) fn parse(start: &'a Start) -> Result<Self, Usage<'a>> {
        let name = start.arg(1).ok_or(Usage::NoCommand)?;
        let mut index = 1;
        let mut next = || {
            index += 1;
            start.arg(index)
        };
        let command = match (Command::of(name), name.to_bytes()) {
            (Some(command), _) if !command.is_built() => return Err(Usage::NotBuilt(name)),
            (Some(command), _) => command,
            (None, [b'-', ..]) => return Err(Usage::UnknownOption(name)),
            (None, _) => return Err(Usage::UnknownCommand(name)),
        };
        let mut parsed = Self {
            command,
            probes: [c""; MAX_PROBES],
            probe_count: 0,
            defaults: KprobeOpts::new(),
            program: None,
            pin: None,
            time: None,
            interval: None,
            json: false,
            quiet: false,
            dry_run: false,
            run: None,
        };
        while let Some(arg) = next() {
            match (arg.to_bytes_with_nul(), Command::of(arg)) {
                (b"--\0", _) => {
                    next().ok_or(Usage::EmptyRun)?;
                    parsed.run = Some(index);
                    break;
                }
                // Help and version, wherever they stand.
                ([b'-', ..], Some(command)) => parsed.command = command,
                ([b'-', b'-', option @ ..], None) => {
                    parsed.option(arg, option, &mut next)?;
                }
                ([b'-', ..], None) => return Err(Usage::UnknownOption(arg)),
                _ => parsed.push_probe(arg)?,
            }
        }
        parsed.check()?;
        if parsed.pin.is_some() {
            // What can be pinned is a link of this mode.
            let mode = &mut parsed.defaults.attach_mode;
            *mode = mode.or(Some(AttachMode::Link));
        }
        Ok(parsed)
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
            "json" => Some(&mut self.json),
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
                .defaults
                .set_by_name(name, value.to_bytes())
                .map_err(|error| Usage::BadValue(name, value, error))?,
        }
        Ok(())
    }

    fn push_probe(&mut self, arg: &'a CStr) -> Result<(), Usage<'a>> {
        if matches!(self.command, Command::Features | Command::Sweep) {
            return Err(Usage::UnwantedProbe(arg));
        }
        let free = self.probes.get_mut(self.probe_count);
        *free.ok_or(Usage::TooManyProbes)? = arg;
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
    pub(crate) fn probes(&self) -> &[&'a CStr] {
        self.probes.get(..self.probe_count).unwrap_or_default()
    }

    /// One of them.
    pub(crate) fn probe(&self, index: usize) -> &'a CStr {
        self.probes().get(index).copied().unwrap_or_default()
    }

    /// The options that are the same for all probes, as they were given.
    pub(crate) const fn shared_options(&self) -> SharedOptions<'_> {
        SharedOptions(&self.defaults)
    }

    /// Reads the probe of an argument.
    pub(crate) fn read(&self, text: &CStr) -> Result<Probe, ParseError> {
        Probe::with_defaults(text.to_bytes(), &self.defaults)
    }
}

/// ` --mode MODE --cookie N --maxactive N`, of what is set.
pub(crate) struct SharedOptions<'a>(&'a KprobeOpts);

impl core::fmt::Display for SharedOptions<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if let Some(mode) = self.0.attach_mode {
            write!(f, " --mode {mode}")?;
        }
        if self.0.bpf_cookie != 0 {
            write!(f, " --cookie {}", self.0.bpf_cookie)?;
        }
        if self.0.maxactive != 0 {
            write!(f, " --maxactive {}", self.0.maxactive)?;
        }
        Ok(())
    }
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
fn decimal(digits: &[u8]) -> Option<u64> {
    let mut number = 0_u32;
    for byte in digits {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number.into())
}

impl core::fmt::Display for Usage<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoCommand => {
                f.write_str("what to do? features, plan, attach, count, explain or sweep")
            }
            Self::UnknownCommand(name) => {
                write!(
                    f,
                    "no command '{}': features, plan, attach, count, explain or sweep",
                    Shown(name)
                )
            }
            Self::NotBuilt(name) => write!(f, "this program was built without {}", Shown(name)),
            Self::UnknownOption(option) => write!(f, "no option '{}'", Shown(option)),
            Self::RunsNothing => f.write_str("this command attaches nothing, so it runs no other"),
            Self::NotForThis(option) => write!(f, "--{option} is not for this command"),
            Self::MissingValue(option) => write!(f, "--{option} wants a value"),
            Self::UnwantedValue(option) => write!(f, "--{option} takes no value"),
            Self::BadValue(option, value, error) => {
                write!(f, "--{option}:\n{}", error.in_text(value.to_bytes()))
            }
            Self::BadTime(option, value) => write!(
                f,
                "--{option}: '{}' is no number of seconds, such as 5 or 0.5",
                Shown(value)
            ),
            Self::LongPath(option) => write!(
                f,
                "--{option}: the path is longer than {MAX_PIN_DIR_LEN} bytes"
            ),
            Self::NoProbe => f.write_str("which function? A PROBE is missing"),
            Self::TooManyProbes => write!(f, "more than {MAX_PROBES} probes"),
            Self::UnwantedProbe(probe) => write!(f, "this command takes no '{}'", Shown(probe)),
            Self::NoProgram => {
                f.write_str("which program? --program PATH or --program id:N is missing")
            }
            Self::PinAndHold => {
                f.write_str("--pin leaves at once: no --for, no --interval, no command")
            }
            Self::EmptyRun => f.write_str("no command after --"),
        }
    }
}
