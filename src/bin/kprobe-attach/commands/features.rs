//! `kprobe-attach features`: what this kernel and these privileges allow, and why not.

use core::fmt::{self, Write};

use kprobe_attach::{AttachMode, Errno, ErrnoName, Features, Kernel, Mount, Support};

use crate::out::{Json, OrNull, Output};

/// Prints the features.
///
/// # Errors
///
/// Nobody takes the output.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(out: &mut Output, json: bool) -> Result<u8, fmt::Error> {
    let kernel = Kernel::probe();
    let bpffs = Mount::bpffs();
    let features = kernel.features();
    let Features {
        perf_event,
        cpu: _,
        kprobe_pmu,
        pmu_type,
        pmu_type_in_sysfs,
        retprobe_bit,
        perf_link,
        tracefs: _,
        kprobe_events,
        kprobe_multi,
        kprobe_session,
    } = features;
    let pmu = Row {
        detail: Detail::Pmu {
            r#type: pmu_type,
            in_sysfs: pmu_type_in_sysfs,
            retprobe_bit: retprobe_bit.map(u32::from),
        },
        ..Row::of("kprobe PMU", Some("kprobe_pmu"), kprobe_pmu)
    };
    let bpffs = bpffs.as_ref().map_err(|errno| *errno);
    let rows = [
        Row::of("perf events", None, perf_event),
        pmu,
        Row::of("perf link", Some("perf_link"), perf_link),
        Row::of_mount("tracefs", kernel.tracefs()),
        Row::of("kprobe_events", None, kprobe_events),
        Row::of("kprobe.multi", Some("kprobe_multi"), kprobe_multi),
        Row::of("kprobe.session", Some("kprobe_session"), kprobe_session),
        Row::of_mount("sysfs", kernel.sysfs()),
        // Where it is out of sight, pins have no path.
        Row::of_mount("bpffs", bpffs),
    ];
    if json {
        print_json(out, &rows, &features)?;
    } else {
        print(out, &rows, &features)?;
    }
    out.flush()?;
    Ok(0)
}

/// What was found of one thing.
struct Row<'a> {
    name: &'static str,
    /// Its name in JSON, if it is there.
    key: Option<&'static str>,
    /// `yes`, `no` or `unknown`
    answer: &'static str,
    /// Why it is not yes.
    reason: Option<(Errno, &'static str)>,
    /// What there is to say if it is.
    detail: Detail<'a>,
}

/// How a thing was found.
enum Detail<'a> {
    Plain,
    Pmu {
        r#type: u32,
        in_sysfs: Option<u32>,
        retprobe_bit: Option<u32>,
    },
    /// Mounted at a path, or out of sight.
    Mount(Option<&'a str>),
}

impl<'a> Row<'a> {
    fn of(name: &'static str, key: Option<&'static str>, support: Support) -> Self {
        Self {
            name,
            key,
            answer: match support {
                Support::Yes => "yes",
                Support::No(_) => "no",
                Support::Unknown(_) => "unknown",
            },
            reason: support
                .reason()
                .map(|reason| (reason.errno, reason.cause.meaning())),
            detail: Detail::Plain,
        }
    }

    fn of_mount(name: &'static str, mount: Result<&'a Mount, Errno>) -> Self {
        let (answer, reason, path) = match mount {
            Ok(mount) => ("yes", None, mount.path()),
            Err(errno) => ("no", Some((errno, why_not_mounted(errno))), None),
        };
        Self {
            name,
            key: Some(name),
            answer,
            reason,
            detail: Detail::Mount(path),
        }
    }

    /// The fields of JSON that every support value has.
    fn support_json(&self, out: &mut Output) -> fmt::Result {
        write!(out, r#""support":"{}""#, self.answer)?;
        match self.reason {
            None => Ok(()),
            Some((errno, why)) => {
                let errno = ErrnoName(errno);
                write!(out, r#","errno":"{errno}","why":{}"#, Json(why))
            }
        }
    }
}

/// Why a file system is not to be had.
const fn why_not_mounted(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => {
            "not found mounted, and to mount it out of sight takes CAP_SYS_ADMIN in the initial user namespace"
        }
        Errno::NODEV => "not found mounted, and this kernel is built without it",
        _ => "not found mounted, and it cannot be mounted out of sight",
    }
}

/// The name and machine of the running kernel.
fn uname() -> rustix::system::Uname {
    rustix::system::uname()
}

fn print(out: &mut Output, rows: &[Row<'_>], features: &Features) -> fmt::Result {
    let uname = uname();
    let release = uname.release().to_str().unwrap_or_default();
    let arch = uname.machine().to_str().unwrap_or_default();
    writeln!(out, "kernel           {release} {arch}")?;
    for row in rows {
        write!(out, "{:<17}", row.name)?;
        if let (None, Detail::Plain) = (row.reason, &row.detail) {
            writeln!(out, "{}", row.answer)?;
            continue;
        }
        write!(out, "{:<9}", row.answer)?;
        match (row.reason, &row.detail) {
            (Some((errno, why)), _) => write!(out, "{}: {why}", ErrnoName(errno))?,
            (None, Detail::Plain) => {}
            (None, Detail::Mount(Some(path))) => write!(out, "mounted at {path}")?,
            (None, Detail::Mount(None)) => {
                out.write_str("not mounted; mounted out of sight, detached")?;
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
                    None => out.write_str("; retprobe bit not readable in sysfs")?,
                }
            }
        }
        out.write_str("\n")?;
    }
    let default = features.default_mode();
    for mode in AttachMode::ALL {
        let unmet = features.unmet(mode, false);
        let answer = unmet.map_or(Support::Yes, |(_, support)| support);
        let answer = Row::of("", None, answer).answer;
        match unmet {
            Some((need, _)) => writeln!(out, "mode {mode:<12}{answer:<9}needs {need}")?,
            None if default == Some(mode) => {
                writeln!(out, "mode {mode:<12}{answer:<9}the default")?;
            }
            None => writeln!(out, "mode {mode:<12}{answer}")?,
        }
    }
    Ok(())
}

fn print_json(out: &mut Output, rows: &[Row<'_>], features: &Features) -> fmt::Result {
    let uname = uname();
    let release = uname.release().to_str().unwrap_or_default();
    let arch = uname.machine().to_str().unwrap_or_default();
    let (release, arch) = (Json(release), Json(arch));
    write!(out, r#"{{"kernel":{release},"arch":{arch}"#)?;
    for row in rows {
        let Some(key) = row.key else { continue };
        write!(out, r#","{key}":{{"#)?;
        row.support_json(out)?;
        match row.detail {
            _ if row.reason.is_some() => {}
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
                OrNull(retprobe_bit),
                OrNull(in_sysfs)
            )?,
        }
        out.write_str("}")?;
    }
    out.write_str(r#","modes":{"#)?;
    for (index, mode) in AttachMode::ALL.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, r#"{comma}"{mode}":{{"#)?;
        Row::of("", None, features.mode(mode)).support_json(out)?;
        out.write_str("}")?;
    }
    let default = features.default_mode().map(Json);
    writeln!(out, r#"}},"default":{}}}"#, OrNull(default))
}
