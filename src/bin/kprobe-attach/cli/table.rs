//! The commands of the program, and their options.
//!
//! The parser and `--help` use this table. A test renders the man page and the completions of the
//! shells from it, so this file imports nothing.

/// A command of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Features,
    Plan,
    Attach,
    Count,
    Explain,
    Functions,
    Sweep,
    Maps,
}

/// The arguments that a command takes besides its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Nothing,
    Probes,
    /// Probes, or none.
    OptionalProbes,
    /// Probes, and after `--` a command to run while they are attached.
    ProbesAndCommand,
    /// `dump`, and the map to dump.
    Map,
}

/// Describes a command.
#[derive(Debug)]
pub(crate) struct CommandEntry {
    pub(crate) command: Command,
    pub(crate) name: &'static str,
    pub(crate) words: Words,
    /// One line.
    pub(crate) about: &'static str,
    /// Whether the program was built with what the command takes.
    pub(crate) is_built: bool,
}

/// The commands, in the order in which `--help` lists them.
pub(crate) const COMMANDS: [CommandEntry; 8] = [
    CommandEntry {
        command: Command::Features,
        name: "features",
        words: Words::Nothing,
        about: "Show what this kernel allows, and why not",
        is_built: true,
    },
    CommandEntry {
        command: Command::Plan,
        name: "plan",
        words: Words::Probes,
        about: "Show the system calls of an attach, and make none",
        is_built: true,
    },
    CommandEntry {
        command: Command::Attach,
        name: "attach",
        words: Words::ProbesAndCommand,
        about: "Attach a program: a loaded one, or those of an object",
        is_built: true,
    },
    CommandEntry {
        command: Command::Count,
        name: "count",
        words: Words::ProbesAndCommand,
        about: "Count hits and misses of each probe, system-wide",
        is_built: true,
    },
    CommandEntry {
        command: Command::Explain,
        name: "explain",
        words: Words::Probes,
        about: "Show whether a probe would attach, and why not",
        is_built: cfg!(feature = "explain"),
    },
    CommandEntry {
        command: Command::Functions,
        name: "functions",
        words: Words::OptionalProbes,
        about: "List what can be probed, and why not for what cannot",
        is_built: cfg!(feature = "files"),
    },
    CommandEntry {
        command: Command::Sweep,
        name: "sweep",
        words: Words::Nothing,
        about: "Remove the trace events that killed processes left",
        is_built: cfg!(feature = "files"),
    },
    CommandEntry {
        command: Command::Maps,
        name: "maps",
        words: Words::Map,
        about: "Print the keys and values of a map",
        is_built: cfg!(feature = "object"),
    },
];

/// An option: its place in [`OPTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opt {
    Mode,
    Cookie,
    Maxactive,
    Program,
    Object,
    VerifierLog,
    Pid,
    CommandOnly,
    Children,
    Pin,
    For,
    Interval,
    All,
    KeepGoing,
    AnyOf,
    Json,
    Quiet,
    DryRun,
}

/// The value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Text,
    /// The path of a directory for pins.
    Dir,
    /// Seconds, with up to nine digits after the point.
    Time,
    /// The same, but not 0.
    Interval,
    /// The value of a probe's key of the same name. It applies to all probes that have no such key.
    Key,
}

/// Describes an option.
#[derive(Debug)]
pub(crate) struct OptionEntry {
    pub(crate) option: Opt,
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    /// The word that stands for the value. It is empty if the option takes none.
    pub(crate) word: &'static str,
    /// One line of at most 57 characters.
    pub(crate) about: &'static str,
    /// The commands that take it.
    pub(crate) commands: Commands,
}

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commands(u16);

impl Commands {
    const fn of(mut commands: &[Command]) -> Self {
        let mut bits = 0;
        while let [command, rest @ ..] = commands {
            bits |= 1 << *command as u16;
            commands = rest;
        }
        Self(bits)
    }

    /// Returns whether a command is in the set.
    pub(crate) const fn contains(self, command: Command) -> bool {
        self.0 & 1 << command as u16 != 0
    }
}

/// The commands about probes.
const OF_PROBES: Commands = Commands::of(&[
    Command::Plan,
    Command::Attach,
    Command::Count,
    Command::Explain,
]);

/// The commands about programs that are given.
const OF_PROGRAMS: Commands = Commands::of(&[Command::Plan, Command::Attach, Command::Explain]);

/// The commands that hold probes attached.
const HOLDING: Commands = Commands::of(&[Command::Attach, Command::Count]);

const ALL: Commands = Commands::of(&[
    Command::Features,
    Command::Plan,
    Command::Attach,
    Command::Count,
    Command::Explain,
    Command::Functions,
    Command::Sweep,
    Command::Maps,
]);

/// The options, in the order in which `--help` lists them.
pub(crate) const OPTIONS: [OptionEntry; 18] = [
    OptionEntry {
        option: Opt::Mode,
        name: "mode",
        value: Value::Key,
        word: "MODE",
        about: "link, perf, legacy-link or legacy; else the first to fit",
        commands: OF_PROBES,
    },
    OptionEntry {
        option: Opt::Cookie,
        name: "cookie",
        value: Value::Key,
        word: "N",
        about: "for bpf_get_attach_cookie(), in the link modes",
        commands: OF_PROBES,
    },
    OptionEntry {
        option: Opt::Maxactive,
        name: "maxactive",
        value: Value::Key,
        word: "N",
        about: "returns awaited at once, 1 to 4096, in the legacy modes",
        commands: OF_PROBES,
    },
    OptionEntry {
        option: Opt::Program,
        name: "program",
        value: Value::Text,
        word: "PROGRAM",
        about: "the path of a pin, id:N or fd:N; or a program of FILE",
        commands: OF_PROGRAMS,
    },
    OptionEntry {
        option: Opt::Object,
        name: "object",
        value: Value::Text,
        word: "FILE",
        about: "load an object; its sections say where, unless PROBEs do",
        commands: OF_PROGRAMS,
    },
    OptionEntry {
        option: Opt::VerifierLog,
        name: "verifier-log",
        value: Value::None,
        word: "",
        about: "print all of the log if the kernel refuses a program",
        commands: Commands::of(&[Command::Attach]),
    },
    OptionEntry {
        option: Opt::Pid,
        name: "pid",
        value: Value::Text,
        word: "PID",
        about: "count this process alone",
        commands: Commands::of(&[Command::Count]),
    },
    OptionEntry {
        option: Opt::CommandOnly,
        name: "command-only",
        value: Value::None,
        word: "",
        about: "count COMMAND alone, not its children",
        commands: Commands::of(&[Command::Count]),
    },
    OptionEntry {
        option: Opt::Children,
        name: "children",
        value: Value::None,
        word: "",
        about: "also count the processes that PID or COMMAND starts",
        commands: Commands::of(&[Command::Count]),
    },
    OptionEntry {
        option: Opt::Pin,
        name: "pin",
        value: Value::Dir,
        word: "DIR",
        about: "pin in DIR and end; count without a PROBE reads the pins",
        commands: HOLDING,
    },
    OptionEntry {
        option: Opt::For,
        name: "for",
        value: Value::Time,
        word: "SECONDS",
        about: "detach after this time",
        commands: HOLDING,
    },
    OptionEntry {
        option: Opt::Interval,
        name: "interval",
        value: Value::Interval,
        word: "SECONDS",
        about: "print the counts this often",
        commands: Commands::of(&[Command::Count]),
    },
    OptionEntry {
        option: Opt::All,
        name: "all",
        value: Value::None,
        word: "",
        about: "also list what cannot be probed, and why; with addresses",
        commands: Commands::of(&[Command::Functions]),
    },
    OptionEntry {
        option: Opt::KeepGoing,
        name: "keep-going",
        value: Value::None,
        word: "",
        about: "attach the other probes if some cannot be attached",
        commands: HOLDING,
    },
    OptionEntry {
        option: Opt::AnyOf,
        name: "any-of",
        value: Value::None,
        word: "",
        about: "attach the first probe that can be attached, and no other",
        commands: HOLDING,
    },
    OptionEntry {
        option: Opt::Json,
        name: "json",
        value: Value::None,
        word: "",
        about: "print one JSON object a line",
        commands: ALL,
    },
    OptionEntry {
        option: Opt::Quiet,
        name: "quiet",
        value: Value::None,
        word: "",
        about: "print no messages but errors",
        commands: Commands::of(&[
            Command::Attach,
            Command::Count,
            Command::Functions,
            Command::Sweep,
        ]),
    },
    OptionEntry {
        option: Opt::DryRun,
        name: "dry-run",
        value: Value::None,
        word: "",
        about: "remove nothing",
        commands: Commands::of(&[Command::Sweep]),
    },
];

/// The purpose of the program.
pub(crate) const SUMMARY: &str =
    "Attach BPF programs to kernel functions, as libbpf does, without libc.";

/// How a probe is written.
pub(crate) const PROBE: &str = "\
[prefix/][module:]function[@N][+offset][,key=value]... or 0xADDRESS. The prefix is kprobe, \
kretprobe, ksyscall, kretsyscall, or for one link to many kprobe.multi, kretprobe.multi or \
kprobe.session. A key is offset, cookie, mode or maxactive; retprobe and base are flags. Of \
several functions of a name, @N is the one of that number and @all is each. The module vmlinux is \
the kernel. A pattern, such as 'tcp_*', is each function that matches and can be probed.";

/// How long probes stay attached.
pub(crate) const HELD: &str = "\
Probes are detached when COMMAND ends, the time is up, or any signal comes that ends a process. A \
COMMAND that still runs is then sent SIGTERM and waited for.";

/// The exit statuses.
pub(crate) const STATUS: &str = "\
that of the COMMAND after --; 128+N if signal N ended it, or came while attaching; else 0 for \
success, 1 for a failure, 2 for wrong usage.";

impl Words {
    /// Returns the words of a usage line, after the name of the command and its options.
    pub(crate) const fn usage(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Probes => " PROBE...",
            Self::OptionalProbes => " [PROBE...]",
            Self::ProbesAndCommand => " PROBE... [-- COMMAND...]",
            Self::Map => " dump PATH|id:N",
        }
    }

    /// Returns whether a command takes probes.
    pub(crate) const fn are_probes(self) -> bool {
        !matches!(self, Self::Nothing | Self::Map)
    }

    /// Returns whether at least one probe must be given.
    pub(crate) const fn needs_probe(self) -> bool {
        matches!(self, Self::Probes | Self::ProbesAndCommand)
    }
}

impl CommandEntry {
    /// Finds the command of this name.
    pub(crate) fn of(name: &[u8]) -> Option<&'static Self> {
        COMMANDS.iter().find(|entry| entry.name.as_bytes() == name)
    }
}

impl OptionEntry {
    /// Finds the option of this name, without its dashes.
    pub(crate) fn of(name: &[u8]) -> Option<&'static Self> {
        OPTIONS.iter().find(|entry| entry.name.as_bytes() == name)
    }
}
