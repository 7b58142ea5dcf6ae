//! The commands of the program, and the options that each takes.

use core::ffi::CStr;

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
    pub(super) fn of(name: &CStr) -> Option<Self> {
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
pub(super) const OPTIONS: [(&str, &[Command]); 10] = [
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
