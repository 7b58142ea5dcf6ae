//! The README and the guide say what the code and `ci/` say: their tables, examples and links.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs
)]

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use kprobe_attach::error::{Cause, ErrnoName};
use kprobe_attach::kernel::Features;
use kprobe_attach::{AttachMode, Errno, Kernel, KprobeOpts, Target};
use serde_json::Value;

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder with this extension.
fn files(dir: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    paths
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

/// The guide's pages.
fn pages() -> Vec<String> {
    files("src/guide", "md")
}

/// The cells of each row of the tables in a page, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = text.lines().collect();
    let is_head = |at: usize| {
        lines
            .get(at + 1)
            .is_some_and(|line| line.starts_with("|--"))
    };
    let rows = (0..lines.len()).filter(|at| {
        let line = lines[*at];
        line.starts_with('|') && !line.starts_with("|--") && !is_head(*at)
    });
    rows.map(|at| {
        let cells = lines[at].trim_matches('|').split('|');
        cells.map(str::trim).collect()
    })
    .collect()
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The blocks of a page that are fenced as this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = text.split(&*start).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The names that a source file gives with `Variant => "name"` in its function `name`.
fn names(path: &str) -> HashSet<String> {
    let source = read(path);
    let (_, names) = source.split_once("pub fn name(").unwrap();
    let (names, _) = names.split_once("}\n").unwrap();
    let names = names.split('"').skip(1).step_by(2).map(str::to_owned);
    names.collect()
}

fn modes() -> [String; 4] {
    AttachMode::ALL.map(|mode| format!("{mode:?}"))
}

/// A number in the scripts of `ci/`, which is a product: `name=$((99 * 1024))`.
fn number_in_ci(name: &str) -> u64 {
    let start = format!("{name}=");
    let scripts: Vec<_> = files("ci", "sh").into_iter().map(read).collect();
    let lines = scripts.iter().flat_map(|script| script.lines());
    let lines: Vec<_> = lines.filter_map(|line| line.strip_prefix(&start)).collect();
    let [line] = &lines[..] else {
        panic!("{name}: {lines:?}");
    };
    let (value, _) = line.split_once('#').unwrap_or((line, ""));
    let factors = value.split(|c: char| !c.is_ascii_digit());
    let factors = factors.filter(|factor| !factor.is_empty());
    factors
        .map(|factor| factor.parse::<u64>().unwrap())
        .product()
}

/// The plan of a request on a kernel that has everything.
fn plan(opts: KprobeOpts) -> Option<(usize, usize)> {
    let kernel = Kernel::with_features(Features::everything());
    let plan = kernel.plan(Target::symbol("vfs_read").unwrap(), &opts);
    plan.ok()
        .map(|plan| (plan.steps().count(), plan.detach_steps().count()))
}

#[test]
fn the_tables_of_refusals_name_causes_errnos_and_modes_that_exist() {
    let causes = names("src/error/cause.rs");
    let errnos: HashSet<_> = (1..4096)
        .map(|number| ErrnoName(Errno::from_raw_os_error(number)).to_string())
        .collect();
    let mut used = HashSet::new();
    for page in ["privileges", "causes", "containers"] {
        let text = read(format!("src/guide/{page}.md"));
        for row in rows(&text) {
            for word in row[1..].iter().flat_map(|cell| quoted(cell)) {
                let is_known = causes.contains(word)
                    || errnos.contains(word)
                    || modes().iter().any(|mode| mode == word);
                assert!(is_known, "{page}: {word} in {row:?}");
                used.insert(word.to_owned());
            }
        }
    }
    assert!(used.intersection(&causes).count() >= 15, "{used:?}");
}

#[test]
fn the_examples_of_a_failure_have_the_words_of_its_cause() {
    let page = read("src/guide/causes.md");
    let words: Vec<_> = page.split_ascii_whitespace().collect();
    let examples = words.join(" ");
    let meaning = Cause::NoSuchFunction.meaning();
    assert_eq!(examples.matches(meaning).count(), 2, "{meaning}");
}

#[test]
fn the_table_of_modes_is_what_plans_allow() {
    let readme = read("README.md");
    let table = rows(&readme);
    assert_eq!(table.len(), AttachMode::ALL.len());
    let unset = KprobeOpts::new().as_c_struct().unwrap();
    for (mode, row) in AttachMode::ALL.into_iter().zip(table) {
        let [name, libbpf, event, bound_by, _, cookie, maxactive] = row[..] else {
            panic!("{row:?}");
        };
        assert_eq!(name, format!("`{mode:?}`"));
        let opts = KprobeOpts::new().attach_mode(mode);
        // The one byte of libbpf's struct that the mode changes.
        let number = opts.as_c_struct().and_then(|set| {
            let mut bytes = set.into_iter().zip(unset);
            bytes.find_map(|(set, unset)| (set != unset).then_some(set))
        });
        match number {
            Some(number) => assert!(libbpf.ends_with(&format!(" ({number})")), "{row:?}"),
            None => assert_eq!(libbpf, "none"),
        }
        assert_eq!(event == "tracefs", mode.uses_tracefs(), "{row:?}");
        assert_eq!(bound_by == "`BPF_LINK_CREATE`", mode.uses_link(), "{row:?}");
        let with_cookie = plan(opts.bpf_cookie(7));
        assert_eq!(cookie == "yes", with_cookie.is_some(), "{row:?}");
        let with_maxactive = plan(opts.retprobe(true).maxactive(64));
        assert_eq!(
            maxactive.starts_with("yes"),
            with_maxactive.is_some(),
            "{row:?}"
        );
    }
}

#[test]
fn the_limits_and_costs_are_those_of_the_checks_and_plans() {
    let page = read("src/guide/sizes.md");
    let (sizes, costs): (Vec<_>, Vec<_>) = rows(&page).into_iter().partition(|row| row.len() == 3);
    let limits = sizes
        .iter()
        .map(|row| row[2].replace(',', "").parse().unwrap());
    let limits: Vec<u64> = limits.collect();
    let [program, embed] = ["size_limit", "embed_limit"].map(number_in_ci);
    assert_eq!(limits, [program, program, program, program, embed]);
    let memory = format!("at most {} KiB of memory", number_in_ci("memory_limit"));
    assert!(page.contains(&memory), "{memory}");
    let initramfs = format!("more than {} KiB", number_in_ci("initramfs_limit") / 1024);
    assert!(
        read("src/guide/testing.md").contains(&initramfs),
        "{initramfs}"
    );

    assert_eq!(costs.len(), AttachMode::ALL.len());
    for (mode, row) in AttachMode::ALL.into_iter().zip(costs) {
        let (attach, detach) = plan(KprobeOpts::new().attach_mode(mode)).unwrap();
        let numbers = row.iter().map(|cell| cell.split(' ').next().unwrap());
        let held = 1 + usize::from(mode.uses_tracefs());
        let expected = [format!("`{mode:?}`"), attach.to_string(), held.to_string()];
        let expected = expected.into_iter().chain([detach.to_string()]);
        assert!(numbers.eq(expected), "{row:?}: {attach}, {held}, {detach}");
    }
}

#[test]
fn the_examples_of_json_are_json_with_names_that_exist() {
    let page = read("src/guide/json.md");
    let examples = blocks(&page, "json");
    assert!(examples.len() >= 7);
    let mut modes = AttachMode::ALL.map(AttachMode::name).to_vec();
    // Those of links to many functions.
    modes.extend(["multi", "session"]);
    let [causes, steps] = ["src/error/cause.rs", "src/error/step.rs"].map(names);
    for text in examples {
        let example: Value = serde_json::from_str(text).unwrap_or_else(|error| {
            panic!("{error}: {text}");
        });
        for object in [&example, &example["error"]] {
            let is_known =
                |key: &str, known: &dyn Fn(&str) -> bool| object[key].as_str().is_none_or(known);
            assert!(is_known("mode", &|mode| modes.contains(&mode)), "{text}");
            assert!(is_known("cause", &|cause| causes.contains(cause)), "{text}");
            assert!(is_known("step", &|step| steps.contains(step)), "{text}");
        }
    }
}

#[test]
fn the_comparison_shows_all_that_was_measured() {
    let page = read("src/guide/peers.md");
    assert!(page.starts_with(&read("ci/bench/page.md")));
    let paths = files("ci/bench/results", "json");
    assert!(!paths.is_empty());
    for path in paths {
        let results: Value = serde_json::from_str(&read(&path)).unwrap();
        let text = |key: &str| results[key].as_str().unwrap();
        let head = format!(
            "## Linux {}\n\nMeasured on {}.",
            text("release"),
            text("date")
        );
        let (_, section) = page.split_once(&head).unwrap_or_else(|| panic!("{path}"));
        let rows = rows(section.split("\n## ").next().unwrap());
        let lines = results["lines"].as_array().unwrap();
        assert_eq!(rows.len(), lines.len(), "{path}");
        for (row, line) in rows.iter().zip(lines) {
            let ratio = line["ratio"].as_f64();
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let shown = row.last().unwrap().trim_matches('*');
            assert_eq!((row[0], shown), (line["name"].as_str().unwrap(), &*ratio));
        }
    }
}

#[test]
fn the_shell_scripts_are_shell() {
    for page in pages().into_iter().chain(["README.md".to_owned()]) {
        for script in blocks(&read(&page), "sh") {
            let status = Command::new("sh")
                .args(["-n", "-c", script])
                .status()
                .unwrap();
            assert!(status.success(), "{page}: {script}");
        }
    }
}

#[test]
fn the_object_of_the_guide_is_compiled_from_it() {
    let page = read("src/guide/objects.md");
    let source = read("tests/objects/unlinks.bpf.c");
    assert_eq!(blocks(&page, "c"), [source.as_str()]);
    // Its command is that of the page, but for the machine's name.
    let command = "-O2 -g --target=bpf -I/usr/include/";
    assert!(page.contains(command) && read("tests/objects/make.sh").contains(command));
}

#[test]
fn the_program_without_libc_is_the_one_that_is_tested() {
    let page = read("src/guide/without_libc.md");
    let source = read("tests/embed/src/bin/arguments.rs");
    assert_eq!(blocks(&page, "rust,ignore"), [source.as_str()]);
    let linked = read("tests/embed/build.rs");
    let [options] = blocks(&page, "rust,no_run")[..] else {
        panic!("{page}");
    };
    for option in options.split('"').filter(|text| text.starts_with('-')) {
        assert!(linked.contains(&format!("\"{option}\"")), "{option}");
    }
    assert!(options.contains("-Wl,-e,kprobe_attach_entry"));
    assert!(linked.contains("-Wl,-e,kprobe_attach_entry"));
    // The profiles are those of the page, and so are the features that are off.
    let manifest = read("tests/embed/Cargo.toml");
    let [shown] = blocks(&page, "toml")[..] else {
        panic!("{page}");
    };
    let (_, profiles) = shown.split_once("[profile.dev]").unwrap();
    assert!(manifest.contains(profiles.trim_end()));
    assert!(shown.contains("kprobe-attach = { version = \"0.1\", default-features = false }"));
    assert!(manifest.contains("kprobe-attach = { path = \"../..\", default-features = false }"));
}

#[test]
fn the_functions_of_c_are_those_of_the_header() {
    let words = |text: &str| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let header = words(&read("tests/c/kprobe_attach.h"));
    let page = read("src/guide/from_libbpf.md");
    let [declared] = blocks(&page, "c")[..] else {
        panic!("{page}");
    };
    assert_eq!(declared.matches(';').count(), 3);
    for function in declared.split_inclusive(';').map(words) {
        assert!(header.contains(&function), "{function}");
    }
}

#[test]
fn every_target_that_is_tested_has_a_recipe() {
    let page = read("src/guide/building.md");
    let scripts = blocks(&page, "sh");
    let ci = read("ci/arch.sh");
    let (_, targets) = ci.split_once("\narch_targets=(").unwrap();
    let (targets, _) = targets.split_once(')').unwrap();
    for target in targets.split_ascii_whitespace() {
        // Thumb code is for the processors of the target armv7.
        let target = target.replace("thumbv7neon", "armv7");
        let build = format!("\ncargo build --release --target {target}\n");
        let script = scripts.iter().find(|script| script.contains(&build));
        let script = script.unwrap_or_else(|| panic!("{target}"));
        let add = format!("rustup target add {target}\n");
        assert!(script.contains(&add), "{script}");
    }
}

#[test]
fn the_kernels_are_those_that_the_tests_run_on() {
    let [readme, causes] = ["README.md", "src/guide/causes.md"].map(read);
    let kernels = read("ci/kernels.txt");
    let kernels = kernels.lines().filter(|line| !line.starts_with('#'));
    let kernels: Vec<_> = kernels
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    let amd64 = kernels.iter().filter(|row: &&Vec<_>| row[1] == "amd64");
    let names: Vec<_> = amd64.map(|row| row[0]).collect();
    let (newest, older) = names.split_last().unwrap();
    let list = format!("{} and {newest}", older.join(", "));
    for text in [readme, causes] {
        let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&list), "{list}");
    }
}

#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    let readme = read("README.md");
    let module = read("src/guide/mod.rs");
    for page in pages() {
        let file = page.rsplit('/').next().unwrap();
        assert!(readme.contains(&format!("]({page})")), "{page}");
        assert!(
            module.contains(&format!("include_str!(\"{file}\")")),
            "{page}"
        );
    }
    for text in [readme, read("CONTRIBUTING.md")] {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            assert!(
                link.starts_with("https:") || Path::new(link).exists(),
                "{link}"
            );
        }
    }
}

#[test]
fn the_readme_is_short_and_no_line_is_long() {
    assert!(read("README.md").lines().count() <= 200);
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    for path in pages().into_iter().chain(others) {
        for line in read(&path).lines() {
            let is_short = line.chars().count() <= 100 || line.contains("https://");
            assert!(is_short, "{path}: {line}");
        }
    }
}
