//! The man page and the completions of the shells are what the table of commands renders to.
//!
//! `KPROBE_ATTACH_WRITE=1 cargo test --test share` writes them anew.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

#[allow(
    dead_code,
    reason = "it is the program's; not all of it is needed here"
)]
#[path = "../src/bin/kprobe-attach/cli/table.rs"]
mod table;

use kprobe_attach::AttachMode;
use table::{
    COMMANDS, CommandEntry, HELD, OPTIONS, Opt, OptionEntry, PROBE, STATUS, SUMMARY, Value, Words,
};

/// The folder as it is under `/usr/local/share`.
const SHARE: &str = "src/bin/kprobe-attach/share";
const BASH: &str = "bash-completion/completions/kprobe-attach";

#[test]
fn the_files_are_what_the_table_renders_to() {
    let files = [
        ("man/man1/kprobe-attach.1", man()),
        (BASH, bash()),
        ("zsh/site-functions/_kprobe-attach", zsh()),
        ("fish/vendor_completions.d/kprobe-attach.fish", fish()),
    ];
    for (name, rendered) in files {
        let path = Path::new(SHARE).join(name);
        if std::env::var_os("KPROBE_ATTACH_WRITE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &rendered).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap();
        assert!(kept == rendered, "{name} is not what the table says");
    }
}

#[test]
fn every_entry_has_its_own_place_and_fits_a_line() {
    for (index, entry) in OPTIONS.iter().enumerate() {
        assert_eq!(entry.option as usize, index, "{}", entry.name);
        assert!(entry.about.len() <= 57, "{}", entry.about);
        let is_taken = COMMANDS
            .iter()
            .any(|command| entry.commands.contains(command.command));
        assert!(is_taken, "{}", entry.name);
        let has_value = entry.value != Value::None;
        assert_eq!(!entry.word.is_empty(), has_value, "{}", entry.name);
    }
    for (index, entry) in COMMANDS.iter().enumerate() {
        assert_eq!(entry.command as usize, index, "{}", entry.name);
        assert!(entry.about.len() <= 57, "{}", entry.about);
    }
}

/// The options of a command.
fn options(entry: &CommandEntry) -> impl Iterator<Item = &'static OptionEntry> {
    let command = entry.command;
    OPTIONS
        .iter()
        .filter(move |option| option.commands.contains(command))
}

/// The names of the attach modes.
fn modes() -> String {
    AttachMode::ALL.map(AttachMode::name).join(" ")
}

fn man() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let escaped = |text: &str| text.trim().replace('-', "\\-");
    let mut page = format!(
        ".TH KPROBE-ATTACH 1 \"\" \"kprobe-attach {version}\" \"User Commands\"\n\
         .SH NAME\nkprobe-attach \\- attach BPF programs to kernel functions\n.SH SYNOPSIS\n"
    );
    for entry in &COMMANDS {
        let (name, words) = (entry.name, escaped(entry.words.usage()));
        let line_break = if name == COMMANDS[0].name {
            ""
        } else {
            ".br\n"
        };
        writeln!(
            page,
            "{line_break}.B kprobe\\-attach {name}\n[OPTION...] {words}"
        )
        .unwrap();
    }
    writeln!(page, ".SH DESCRIPTION\n{}", escaped(SUMMARY)).unwrap();
    writeln!(page, ".PP\n{}", escaped(HELD)).unwrap();
    page += "Results go to standard output, messages to standard error.\n.SH COMMANDS\n";
    for CommandEntry { name, about, .. } in &COMMANDS {
        writeln!(page, ".TP\n.B {name}\n{}.", escaped(about)).unwrap();
    }
    page += ".SH OPTIONS\n";
    for option in &OPTIONS {
        let OptionEntry { word, about, .. } = option;
        let name = escaped(option.name);
        let takes = COMMANDS
            .iter()
            .filter(|entry| option.commands.contains(entry.command));
        let takes: Vec<_> = takes.map(|entry| entry.name).collect();
        let (takes, about) = (takes.join(", "), escaped(about));
        writeln!(
            page,
            ".TP\n.BI \\-\\-{name} \" {word}\"\n{about}.\nFor {takes}."
        )
        .unwrap();
    }
    page += ".TP\n.B \\-\\-help\nPrint help, of a command if it comes after one.\n\
             .TP\n.B \\-\\-version\nPrint the version.\n";
    writeln!(page, ".SH PROBES\nA PROBE is {}", escaped(PROBE)).unwrap();
    writeln!(page, ".SH EXIT STATUS\nIt is {}", escaped(STATUS)).unwrap();
    page += ".SH EXAMPLES\n\
             Count the calls of a function while a command runs:\n.PP\n.RS\n\
             kprobe\\-attach count vfs_read kretprobe/vfs_unlink \\-\\- make\n.RE\n.PP\n\
             Attach a program that another loader has pinned, until Ctrl\\-C:\n.PP\n.RS\n\
             kprobe\\-attach attach \\-\\-program /sys/fs/bpf/prog vfs_read\n.RE\n\
             .SH SEE ALSO\n.BR bpf (2),\n.BR perf_event_open (2),\n.BR bpftool (8)\n";
    page
}

fn bash() -> String {
    let mut script =
        String::from("# Completion of kprobe-attach for bash.\n\n_kprobe_attach() {\n");
    let names = COMMANDS.map(|entry| entry.name).join(" ");
    write!(
        script,
        r#"    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    local index words=
    if [[ $COMP_CWORD -eq 1 ]]; then
        words='{names} help --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    for ((index = 2; index < COMP_CWORD; index++)); do
        if [[ ${{COMP_WORDS[index]}} = -- ]]; then
            mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
            return
        fi
    done
    # The = of --option=value is a word of its own.
    [[ $prev != = ]] || prev=${{COMP_WORDS[COMP_CWORD - 2]}}
    [[ $cur != = ]] || cur=
    case $prev in
"#
    )
    .unwrap();
    for OptionEntry {
        option,
        name,
        value,
        ..
    } in &OPTIONS
    {
        let complete = match (option, value) {
            (_, Value::None) => continue,
            (Opt::Mode, _) => format!(
                r#"mapfile -t COMPREPLY < <(compgen -W '{}' -- "$cur")"#,
                modes()
            ),
            (_, Value::Dir) => r#"mapfile -t COMPREPLY < <(compgen -d -- "$cur")"#.to_owned(),
            (_, Value::Text) => r#"mapfile -t COMPREPLY < <(compgen -f -- "$cur")"#.to_owned(),
            _ => "COMPREPLY=()".to_owned(),
        };
        writeln!(
            script,
            "        --{name})\n            {complete}\n            return\n            ;;"
        )
        .unwrap();
    }
    script += "    esac\n    case ${COMP_WORDS[1]} in\n";
    for entry in &COMMANDS {
        let options: Vec<_> = options(entry)
            .map(|option| format!("--{}", option.name))
            .collect();
        writeln!(
            script,
            "        {}) words='{}' ;;",
            entry.name,
            options.join(" ")
        )
        .unwrap();
    }
    writeln!(script, "        help) words='{names}' ;;").unwrap();
    script += "    esac\n\
               \x20   mapfile -t COMPREPLY < <(compgen -W \"$words --help\" -- \"$cur\")\n}\n\n\
               complete -F _kprobe_attach kprobe-attach\n";
    script
}

fn zsh() -> String {
    let mut script =
        String::from("#compdef kprobe-attach\n\nlocal -a commands options\ncommands=(\n");
    for CommandEntry { name, about, .. } in &COMMANDS {
        writeln!(script, "    '{name}:{about}'").unwrap();
    }
    script += "    'help:Print help'\n)\n\
               if ((CURRENT == 2)); then\n\
               \x20   _describe -t commands command commands\n\
               \x20   return\n\
               fi\n\
               case $words[2] in\n";
    for entry in &COMMANDS {
        writeln!(script, "    {})\n        options=(", entry.name).unwrap();
        for OptionEntry {
            option,
            name,
            value,
            word,
            about,
            ..
        } in options(entry)
        {
            let about = about.replace('\'', "''");
            let action = match (option, value) {
                (_, Value::None) => {
                    writeln!(script, "            '--{name}[{about}]'").unwrap();
                    continue;
                }
                (Opt::Mode, _) => format!("({})", modes()),
                (_, Value::Dir) => "_files -/".to_owned(),
                (_, Value::Text) => "_files".to_owned(),
                _ => " ".to_owned(),
            };
            writeln!(script, "            '--{name}=[{about}]:{word}:{action}'").unwrap();
        }
        let words = match entry.words {
            Words::Nothing => "",
            Words::Map => "            ':command:(dump)'\n            ':PATH or id\\:N:_files'\n",
            Words::ProbesAndCommand => {
                "            '*:PROBE: '\n            '*--[command]:COMMAND:_normal'\n"
            }
            _ => "            '*:PROBE: '\n",
        };
        write!(
            script,
            "            '--help[Print help]'\n{words}        )\n        ;;\n"
        )
        .unwrap();
    }
    script += "    help)\n\
               \x20       ((CURRENT > 3)) || _describe -t commands command commands\n\
               \x20       return\n        ;;\nesac\n_arguments $options\n";
    script
}

fn fish() -> String {
    let mut script = String::from("# Completion of kprobe-attach for fish.\n\n");
    script += "complete -c kprobe-attach -f\n";
    for CommandEntry { name, about, .. } in &COMMANDS {
        writeln!(
            script,
            "complete -c kprobe-attach -n __fish_use_subcommand -a {name} -d '{about}'"
        )
        .unwrap();
    }
    script += "\
complete -c kprobe-attach -n __fish_use_subcommand -a help -d 'Print help'
complete -c kprobe-attach -l help -s h -d 'Print help'
complete -c kprobe-attach -n __fish_use_subcommand -l version -s V -d 'Print the version'
";
    for entry in &COMMANDS {
        for OptionEntry {
            option,
            name,
            value,
            about,
            ..
        } in options(entry)
        {
            let value = match (option, value) {
                (_, Value::None) => String::new(),
                (Opt::Mode, _) => format!(" -x -a '{}'", modes()),
                (_, Value::Dir) => " -x -a '(__fish_complete_directories)'".to_owned(),
                (_, Value::Text) => " -r -F".to_owned(),
                _ => " -x".to_owned(),
            };
            let of = format!("-n '__fish_seen_subcommand_from {}'", entry.name);
            writeln!(
                script,
                "complete -c kprobe-attach {of} -l {name}{value} \\\n    -d '{about}'"
            )
            .unwrap();
        }
    }
    script
}

/// Has bash complete the last of these words.
fn complete(words: &[&str]) -> Vec<String> {
    let script = format!(
        "source {SHARE}/{BASH}; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                          _kprobe_attach; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["-c", &script, "bash"])
        .args(words)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    for (words, expected) in [
        (&["kprobe-attach", "co"][..], &["count"][..]),
        (&["kprobe-attach", "sweep", "--d"], &["--dry-run"]),
        (&["kprobe-attach", "count", "--in"], &["--interval"]),
        (&["kprobe-attach", "plan", "--in"], &[]),
        (
            &["kprobe-attach", "plan", "--mode", "le"],
            &["legacy-link", "legacy"],
        ),
        (&["kprobe-attach", "plan", "--mode", "=", "pe"], &["perf"]),
        (&["kprobe-attach", "help", "ex"], &["explain"]),
        (
            &["kprobe-attach", "attach", "--pin", "src/bi"],
            &["src/bin"],
        ),
        (
            &["kprobe-attach", "count", "vfs_read", "--", "tests/shar"],
            &["tests/share.rs"],
        ),
    ] {
        assert_eq!(complete(words), expected, "{words:?}");
    }
}
