//! The texts of `--help`, made from the table.

use core::fmt;

use super::table::{COMMANDS, CommandEntry, HELD, OPTIONS, PROBE, STATUS, SUMMARY, Words};
use crate::out::Blanks;

/// Prints the text of `--help`: an overview, or everything about one command.
pub(crate) struct Help(pub(crate) Option<&'static CommandEntry>);

impl fmt::Display for Help {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = self.0 else {
            write!(
                f,
                "{SUMMARY}\n\n\
                Usage: kprobe-attach COMMAND [OPTION...] [PROBE...] [-- COMMAND...]\n\n"
            )?;
            for entry in COMMANDS.iter().filter(|entry| entry.is_built) {
                row(f, "", entry.name, "", entry.about)?;
            }
            return write!(
                f,
                "\nPROBE: {PROBE}\n\nExit status: {STATUS}\n\n\
                kprobe-attach COMMAND --help lists the options of a command.\n"
            );
        };
        let words = entry.words.usage();
        let CommandEntry { name, about, .. } = entry;
        write!(
            f,
            "{about}.\n\nUsage: kprobe-attach {name} [OPTION...]{words}\n\n"
        )?;
        for option in &OPTIONS {
            if option.commands.contains(entry.command) {
                row(f, "--", option.name, option.word, option.about)?;
            }
        }
        if entry.words.are_probes() {
            write!(f, "\nPROBE: {PROBE}\n")?;
        }
        if entry.words == Words::ProbesAndCommand {
            write!(f, "\n{HELD}\n")?;
        }
        Ok(())
    }
}

/// Prints a row: a name and the word that stands for its value, and then the text.
fn row(
    f: &mut fmt::Formatter<'_>,
    dashes: &str,
    name: &str,
    word: &str,
    about: &str,
) -> fmt::Result {
    let blanks = Blanks(19_usize.saturating_sub(dashes.len() + name.len() + word.len()));
    writeln!(f, "  {dashes}{name} {word}{blanks}{about}")
}
