//! What `--help` prints.

pub(crate) const HELP: &str = "\
Attach BPF programs to kernel functions, as libbpf does, without libc.

kprobe-attach COMMAND:
  features [--json]             what this kernel allows, or why not
  plan [OPTIONS] PROBE...       the system calls; none is made
  attach [OPTIONS] PROBE... [-- COMMAND...]  attach a loaded program
  count [OPTIONS] PROBE... [-- COMMAND...]   count hits and misses
  explain [OPTIONS] PROBE...    would it attach; if not, why
  sweep [--dry-run] [--json]    remove what killed processes left
PROBE: [kprobe/|kretprobe/][module:]function[+offset][,key=value]...
  or 0xADDRESS; keys offset, cookie, mode, maxactive; flag retprobe
OPTIONS, for all probes:
  --mode MODE         link, perf, legacy-link, legacy; else the first that fits
  --cookie N          what bpf_get_attach_cookie() gives (link modes)
  --maxactive N       returns awaited at once, 1 to 4096 (legacy modes)
  --program WHAT      attach: the path of a pinned program, or id:N
  --pin DIR           attach, count: pin below DIR and leave, attached
                      count without PROBE: the counts of what is pinned there
  --for SECONDS       detach after this time
  --interval SECONDS  count: print so often
  --json, --quiet     one object a line; no messages
Probes are detached when COMMAND ends, the time is up, or a signal comes; a
COMMAND still running is sent SIGTERM and waited for. Exit status: COMMAND's
if any (128+N if signal N ended it), else 0; 1 failure; 2 usage.
";
