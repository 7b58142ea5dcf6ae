//! `kprobe-attach features`: what this kernel and these privileges allow, and why not.

use core::fmt::{self, Write};

use kprobe_attach::error::{Cause, ErrnoName};
use kprobe_attach::kernel::{Features, Support};
use kprobe_attach::{AttachMode, Errno, Kernel, Mount};

use crate::cli::{Args, FAILURE};
use crate::out::{Decimal, Json, Lossy, OrNull, Output, Shown};
use crate::rt::Start;

/// Prints the features.
///
/// # Errors
///
/// The output cannot be written.
pub(crate) fn run(_: &Start, args: &Args<'_>, kernel: &Kernel, out: &mut Output) -> Result<u8, ()> {
    let features = kernel.features();
    let printed = print(args.report.json, &features, kernel, out);
    let none = features.default_mode().is_none();
    printed
        .map(|()| if none { FAILURE } else { 0 })
        .map_err(|fmt::Error| ())
}

fn print(json: bool, features: &Features, kernel: &Kernel, out: &mut Output) -> fmt::Result {
    let Features {
        perf_event,
        kprobe_pmu,
        pmu_type,
        pmu_type_in_sysfs,
        retprobe_bit,
        perf_link,
        kprobe_events,
        kprobe_multi,
        kprobe_session,
        ..
    } = *features;
    let pmu = Detail::Pmu {
        r#type: Decimal(pmu_type.into()),
        in_sysfs: pmu_type_in_sysfs.map(|r#type| Decimal(r#type.into())),
        retprobe_bit: retprobe_bit.map(|bit| Decimal(bit.into())),
    };
    let mut table = Table { out, json };
    table.head()?;
    table.feature("perf events", "perf_event", perf_event)?;
    table.row("kprobe PMU", "kprobe_pmu", &Answer::of(kprobe_pmu), &pmu)?;
    table.feature("perf link", "perf_link", perf_link)?;
    table.mount("tracefs", kernel.tracefs())?;
    table.feature("kprobe_events", "kprobe_events", kprobe_events)?;
    table.feature("kprobe.multi", "kprobe_multi", kprobe_multi)?;
    table.feature("kprobe.session", "kprobe_session", kprobe_session)?;
    table.mount("sysfs", kernel.sysfs())?;
    // In a detached mount, pins have no path.
    table.mount("bpffs", Mount::bpffs().as_ref().map_err(|errno| *errno))?;
    table.modes(features)?;
    out.flush()
}

/// Answers whether the kernel has a feature.
struct Answer {
    /// `yes`, `no` or `unknown`
    word: &'static str,
    /// The reason if it is not `yes`: errno, cause and meaning.
    reason: Option<(Errno, Cause, &'static str)>,
}

impl Answer {
    fn of(support: Support) -> Self {
        Self {
            word: match support {
                Support::Yes => "yes",
                Support::No(_) => "no",
                Support::Unknown(_) => "unknown",
            },
            reason: support
                .reason()
                .map(|reason| (reason.errno, reason.cause, reason.cause.meaning())),
        }
    }

    /// Prints the JSON fields that every support value has.
    fn print_json(&self, out: &mut Output) -> fmt::Result {
        write!(out, r#""support":"{}""#, self.word)?;
        match self.reason {
            None => Ok(()),
            Some((errno, cause, why)) => {
                let errno = ErrnoName(errno);
                write!(
                    out,
                    r#","errno":"{errno}","cause":"{cause}","why":{}"#,
                    Json(why)
                )
            }
        }
    }
}

/// The way in which a feature was found.
enum Detail<'a> {
    Plain,
    Pmu {
        r#type: Decimal,
        in_sysfs: Option<Decimal>,
        retprobe_bit: Option<Decimal>,
    },
    /// Mounted at a path, or detached.
    Mount(Option<&'a str>),
}

/// Explains why a file system is unavailable.
const fn why_not_mounted(errno: Errno) -> (Cause, &'static str) {
    match errno {
        Errno::PERM => (
            Cause::NoPermission,
            "not mounted, and a detached mount takes CAP_SYS_ADMIN in the initial user namespace",
        ),
        Errno::NODEV => (
            Cause::Unknown,
            "not mounted, and this kernel is built without it",
        ),
        _ => (Cause::Unknown, "not mounted, and it cannot be mounted"),
    }
}

/// Prints rows for people, or one object of JSON.
struct Table<'o> {
    out: &'o mut Output,
    json: bool,
}

impl Table<'_> {
    /// The name and machine of the running kernel.
    fn head(&mut self) -> fmt::Result {
        let uname = rustix::system::uname();
        let release = Lossy(uname.release());
        let arch = Lossy(uname.machine());
        if self.json {
            let (release, arch) = (Json(release), Json(arch));
            write!(self.out, r#"{{"kernel":{release},"arch":{arch}"#)
        } else {
            writeln!(self.out, "kernel           {release} {arch}")
        }
    }

    fn feature(&mut self, name: &str, key: &str, support: Support) -> fmt::Result {
        self.row(name, key, &Answer::of(support), &Detail::Plain)
    }

    fn mount(&mut self, name: &str, mount: Result<&Mount, Errno>) -> fmt::Result {
        let (word, reason, path) = match mount {
            Ok(mount) => ("yes", None, mount.path()),
            Err(errno) => {
                let (cause, why) = why_not_mounted(errno);
                ("no", Some((errno, cause, why)), None)
            }
        };
        self.row(name, name, &Answer { word, reason }, &Detail::Mount(path))
    }

    /// Prints one feature.
    fn row(&mut self, name: &str, key: &str, answer: &Answer, detail: &Detail<'_>) -> fmt::Result {
        if self.json {
            self.row_json(key, answer, detail)
        } else {
            self.row_text(name, answer, detail)
        }
    }

    fn row_text(&mut self, name: &str, answer: &Answer, detail: &Detail<'_>) -> fmt::Result {
        let out = &mut *self.out;
        write!(out, "{name:<17}")?;
        if let (None, Detail::Plain) = (answer.reason, detail) {
            return writeln!(out, "{}", answer.word);
        }
        write!(out, "{:<9}", answer.word)?;
        match (answer.reason, detail) {
            (Some((errno, _, why)), _) => write!(out, "{}: {why}", ErrnoName(errno))?,
            (None, Detail::Plain) => {}
            (None, Detail::Mount(Some(path))) => write!(out, "mounted at {}", Shown(path))?,
            (None, Detail::Mount(None)) => {
                out.write_str("not mounted; a detached mount is used")?;
            }
            (
                None,
                Detail::Pmu {
                    r#type,
                    in_sysfs,
                    retprobe_bit,
                },
            ) => {
                write!(out, "type {type}, verified by its refusals")?;
                match in_sysfs {
                    None => {}
                    Some(in_sysfs) if in_sysfs == r#type => out.write_str(" and in sysfs")?,
                    Some(in_sysfs) => write!(out, " against {in_sysfs} in sysfs")?,
                }
                match retprobe_bit {
                    Some(bit) => write!(out, "; retprobe bit {bit}")?,
                    None => out.write_str("; retprobe bit unknown")?,
                }
            }
        }
        out.write_str("\n")
    }

    fn row_json(&mut self, key: &str, answer: &Answer, detail: &Detail<'_>) -> fmt::Result {
        let out = &mut *self.out;
        write!(out, r#","{key}":{{"#)?;
        answer.print_json(out)?;
        match detail {
            _ if answer.reason.is_some() => {}
            Detail::Plain => {}
            Detail::Mount(Some(path)) => write!(out, r#","path":{}"#, Json(path))?,
            Detail::Mount(None) => out.write_str(r#","path":null,"detached":true"#)?,
            Detail::Pmu {
                r#type,
                in_sysfs,
                retprobe_bit,
            } => write!(
                out,
                r#","type":{type},"retprobe_bit":{},"found":"type","sysfs_type":{}"#,
                OrNull(*retprobe_bit),
                OrNull(*in_sysfs)
            )?,
        }
        out.write_str("}")
    }

    /// Prints the modes, and the default mode.
    fn modes(&mut self, features: &Features) -> fmt::Result {
        let (out, default) = (&mut *self.out, features.default_mode());
        if self.json {
            out.write_str(r#","modes":{"#)?;
        }
        for (index, mode) in AttachMode::ALL.into_iter().enumerate() {
            let unmet = features.unmet(mode, false);
            let answer = unmet.map_or(Support::Yes, |(_, support)| support);
            let answer = Answer::of(answer);
            if self.json {
                let comma = if index == 0 { "" } else { "," };
                write!(out, r#"{comma}"{mode}":{{"#)?;
                answer.print_json(out)?;
                if let Some((need, _)) = unmet {
                    write!(out, r#","needs":{}"#, Json(need))?;
                }
                out.write_str("}")?;
                continue;
            }
            write!(out, "mode {mode:<12}")?;
            match unmet {
                Some((need, _)) => writeln!(out, "{:<9}needs {need}", answer.word)?,
                None if default == Some(mode) => writeln!(out, "yes      the default")?,
                None => writeln!(out, "yes")?,
            }
        }
        if self.json {
            writeln!(out, r#"}},"default":{}}}"#, OrNull(default.map(Json)))?;
        }
        Ok(())
    }
}
