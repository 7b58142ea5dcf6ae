//! `kprobe-attach features`: what this kernel and these privileges allow, and why not.

use core::fmt::{self, Write};

use kprobe_attach::{AttachMode, ErrnoName, Features, Kernel, Support};

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
        retprobe_bit,
        perf_link,
        tracefs,
        kprobe_events,
        kprobe_multi,
        kprobe_session,
    } = features;
    writeln!(out, "kernel           {release} {arch}")?;
    row(out, "perf events", perf_event, format_args!(""))?;
    let pmu = "kprobe PMU";
    match retprobe_bit {
        Some(bit) => row(
            out,
            pmu,
            kprobe_pmu,
            format_args!("type {pmu_type}, retprobe bit {bit}"),
        )?,
        None => row(
            out,
            pmu,
            kprobe_pmu,
            format_args!("type {pmu_type}, retprobe bit not readable in sysfs"),
        )?,
    }
    row(out, "perf link", perf_link, format_args!(""))?;
    let path = kernel
        .tracefs_path()
        .unwrap_or("not mounted; used by a detached mount");
    row(out, "tracefs", tracefs, format_args!("{path}"))?;
    row(out, "kprobe_events", kprobe_events, format_args!(""))?;
    row(out, "kprobe.multi", kprobe_multi, format_args!(""))?;
    row(out, "kprobe.session", kprobe_session, format_args!(""))?;
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
        retprobe_bit,
        perf_link,
        tracefs,
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
            r#","type":{pmu_type},"retprobe_bit":{}"#,
            OrNull(retprobe_bit)
        )?;
    }
    write!(
        out,
        r#"}},"perf_link":{{{}}},"tracefs":{{{}"#,
        Answer(perf_link),
        Answer(tracefs)
    )?;
    if tracefs.is_yes() {
        match kernel.tracefs_path() {
            Some(path) => write!(out, r#","path":{}"#, Json(path))?,
            None => write!(out, r#","path":null,"detached":true"#)?,
        }
    }
    write!(
        out,
        r#"}},"kprobe_multi":{{{}}},"kprobe_session":{{{}}},"modes":{{"#,
        Answer(kprobe_multi),
        Answer(kprobe_session)
    )?;
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

/// The fields of JSON that every support value has.
struct Answer(Support);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#""support":"{}""#, answer(self.0).trim_end())?;
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
