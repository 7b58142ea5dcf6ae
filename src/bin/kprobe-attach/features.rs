//! `kprobe-attach features`: what this kernel and these privileges allow, and why not.

use core::fmt::{self, Write};

use kprobe_attach::{AttachMode, Errno, ErrnoName, Features, Kernel, Mount, Support};

use crate::output::{Json, OrNull, Output};

/// Prints the features.
///
/// # Errors
///
/// Nobody takes the output.
// Its locals are not to be in the frame of every command.
#[inline(never)]
pub(crate) fn run(out: &mut Output, json: bool) -> Result<u8, fmt::Error> {
    let kernel = Kernel::probe();
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap_or_default();
    let arch = uname.machine().to_str().unwrap_or_default();
    if json {
        print_json(out, &kernel, release, arch)?;
    } else {
        print(out, &kernel, release, arch)?;
    }
    out.flush()?;
    Ok(0)
}

fn print(out: &mut Output, kernel: &Kernel, release: &str, arch: &str) -> fmt::Result {
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
    writeln!(out, "kernel           {release} {arch}")?;
    row(out, "perf events", perf_event, format_args!(""))?;
    let pmu = Pmu {
        r#type: pmu_type,
        in_sysfs: pmu_type_in_sysfs,
        retprobe_bit: retprobe_bit.map(u32::from),
    };
    row(out, "kprobe PMU", kprobe_pmu, format_args!("{pmu}"))?;
    row(out, "perf link", perf_link, format_args!(""))?;
    mount_row(out, "tracefs", kernel.tracefs())?;
    row(out, "kprobe_events", kprobe_events, format_args!(""))?;
    row(out, "kprobe.multi", kprobe_multi, format_args!(""))?;
    row(out, "kprobe.session", kprobe_session, format_args!(""))?;
    mount_row(out, "sysfs", kernel.sysfs())?;
    mount_row(
        out,
        "bpffs",
        Mount::bpffs().as_ref().map_err(|errno| *errno),
    )?;
    let default = features.default_mode();
    for mode in AttachMode::ALL {
        write!(out, "mode {mode:<12}")?;
        match features.unmet(mode, false) {
            Some((need, support)) => writeln!(out, "{}  needs {need}", answer(support))?,
            None if default == Some(mode) => writeln!(out, "yes      the default")?,
            None => writeln!(out, "yes")?,
        }
    }
    Ok(())
}

/// How the kprobe PMU was found.
struct Pmu {
    r#type: u32,
    in_sysfs: Option<u32>,
    retprobe_bit: Option<u32>,
}

impl fmt::Display for Pmu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {}, verified by its refusals", self.r#type)?;
        match self.in_sysfs {
            None => {}
            Some(r#type) if r#type == self.r#type => f.write_str(" and in sysfs")?,
            Some(r#type) => write!(f, " against {type} in sysfs")?,
        }
        match self.retprobe_bit {
            Some(bit) => write!(f, "; retprobe bit {bit}"),
            None => f.write_str("; retprobe bit not readable in sysfs"),
        }
    }
}

/// A row about a file system: where it was found, or why not.
fn mount_row(out: &mut Output, name: &str, mount: Result<&Mount, Errno>) -> fmt::Result {
    write!(out, "{name:<17}")?;
    match mount.map(Mount::path) {
        Ok(Some(path)) => writeln!(out, "yes      mounted at {path}"),
        Ok(None) => writeln!(out, "yes      not mounted; mounted out of sight, detached"),
        Err(errno) => writeln!(
            out,
            "no       {}: {}",
            ErrnoName(errno),
            why_not_mounted(errno)
        ),
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

fn answer(support: Support) -> &'static str {
    match support {
        Support::Yes => "yes    ",
        Support::No(_) => "no     ",
        Support::Unknown(_) => "unknown",
    }
}

fn row(out: &mut Output, name: &str, support: Support, note: fmt::Arguments<'_>) -> fmt::Result {
    write!(out, "{name:<17}")?;
    match support.reason() {
        None if note.as_str() == Some("") => writeln!(out, "yes"),
        None => writeln!(out, "{}  {note}", answer(support)),
        Some(reason) => {
            let errno = ErrnoName(reason.errno);
            writeln!(
                out,
                "{}  {errno}: {}",
                answer(support),
                reason.cause.meaning()
            )
        }
    }
}

fn print_json(out: &mut Output, kernel: &Kernel, release: &str, arch: &str) -> fmt::Result {
    let features = kernel.features();
    let Features {
        perf_event: _,
        cpu: _,
        kprobe_pmu,
        pmu_type,
        pmu_type_in_sysfs,
        retprobe_bit,
        perf_link,
        tracefs: _,
        kprobe_events: _,
        kprobe_multi,
        kprobe_session,
    } = features;
    write!(
        out,
        r#"{{"kernel":{},"arch":{},"#,
        Json(release),
        Json(arch)
    )?;
    write!(out, r#""kprobe_pmu":{{{}"#, Answer(kprobe_pmu))?;
    if kprobe_pmu.is_yes() {
        write!(
            out,
            r#","type":{pmu_type},"retprobe_bit":{},"found":"type","sysfs_type":{}"#,
            OrNull(retprobe_bit.map(u32::from)),
            OrNull(pmu_type_in_sysfs)
        )?;
    }
    write!(out, r#"}},"perf_link":{{{}}}"#, Answer(perf_link))?;
    mount_json(out, "tracefs", kernel.tracefs())?;
    write!(
        out,
        r#","kprobe_multi":{{{}}},"kprobe_session":{{{}}}"#,
        Answer(kprobe_multi),
        Answer(kprobe_session)
    )?;
    mount_json(out, "sysfs", kernel.sysfs())?;
    mount_json(
        out,
        "bpffs",
        Mount::bpffs().as_ref().map_err(|errno| *errno),
    )?;
    out.write_str(r#","modes":{"#)?;
    for (index, mode) in AttachMode::ALL.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(
            out,
            r#"{comma}"{mode}":{{{}}}"#,
            Answer(features.mode(mode))
        )?;
    }
    let default = features.default_mode().map(Json);
    writeln!(out, r#"}},"default":{}}}"#, OrNull(default))
}

/// The object of JSON about a file system.
fn mount_json(out: &mut Output, name: &str, mount: Result<&Mount, Errno>) -> fmt::Result {
    write!(out, r#","{name}":{{"support":""#)?;
    match mount.map(Mount::path) {
        Ok(Some(path)) => write!(out, r#"yes","path":{}}}"#, Json(path)),
        Ok(None) => out.write_str(r#"yes","path":null,"detached":true}"#),
        Err(errno) => write!(
            out,
            r#"no","errno":"{}","why":{}}}"#,
            ErrnoName(errno),
            Json(why_not_mounted(errno))
        ),
    }
}

/// The fields of JSON that every support value has.
struct Answer(Support);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""support":"{}""#, answer(self.0).trim_ascii_end())?;
        let Some(reason) = self.0.reason() else {
            return Ok(());
        };
        let errno = ErrnoName(reason.errno);
        write!(
            f,
            r#","errno":"{errno}","why":{}"#,
            Json(reason.cause.meaning())
        )
    }
}
