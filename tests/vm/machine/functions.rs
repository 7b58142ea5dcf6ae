//! Many functions that can be probed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::sync::OnceLock;

use kprobe_attach::request::SymbolRef;

use super::kernel::{kallsyms, version};

/// Whether the kernel has links to many functions, as `features.rs` says.
pub(crate) fn has_multi() -> bool {
    let since = if cfg!(target_arch = "x86_64") {
        (6, 12)
    } else {
        (6, 14)
    };
    version() >= since
}

/// Names of functions and their addresses.
pub(crate) struct Named {
    pub(crate) names: Vec<CString>,
    pub(crate) addresses: Vec<u64>,
}

impl Named {
    fn of<'n>(functions: impl Iterator<Item = (&'n str, u64)>) -> Self {
        let (names, addresses) = functions
            .map(|(name, address)| (CString::new(name).unwrap(), address))
            .unzip();
        Self { names, addresses }
    }

    pub(crate) fn symbols(&self) -> Vec<SymbolRef<'_>> {
        self.names.iter().map(|name| SymbolRef::new(name)).collect()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.names[index].to_str().unwrap()
    }
}

/// The functions of these do not run at every turn, which would take all the time there is.
const QUIET: [&str; 23] = [
    "acpi_", "blk_", "bpf_", "cgroup_", "crypto_", "dev_", "device_", "ext4_", "fib_", "inet",
    "ip6_", "ipv6_", "neigh_", "netdev_", "nfs", "pci_", "scsi", "sk_", "sysfs_", "tcp_", "udp",
    "usb", "xfrm",
];

/// The functions of the kernel that ftrace can trace and that have their names alone, and their
/// addresses. To read them takes seconds, so they are read once.
fn traceable() -> &'static BTreeMap<String, u64> {
    static ALL: OnceLock<BTreeMap<String, u64>> = OnceLock::new();
    ALL.get_or_init(|| {
        let traceable = "/sys/kernel/tracing/available_filter_functions";
        let traceable = fs::read_to_string(traceable).unwrap();
        let traceable: BTreeSet<&str> = traceable.lines().collect();
        let blacklist = fs::read_to_string("/sys/kernel/debug/kprobes/blacklist").unwrap();
        let blacklist: BTreeSet<&str> = blacklist
            .lines()
            .filter_map(|line| line.split_once('\t').map(|(_, name)| name))
            .collect();
        let mut places = BTreeMap::<String, Vec<u64>>::new();
        for (address, kind, name, module) in kallsyms() {
            let is_function = matches!(kind, 't' | 'T') && module.is_none();
            if is_function && traceable.contains(&*name) && !blacklist.contains(&*name) {
                places.entry(name).or_default().push(address);
            }
        }
        let unique = places.into_iter().filter(|(_, places)| places.len() == 1);
        unique.map(|(name, places)| (name, places[0])).collect()
    })
}

/// Functions that can be probed, spread over all of the kernel.
pub(crate) fn probeable(count: usize) -> Named {
    let is_quiet = |name: &str| QUIET.iter().any(|prefix| name.starts_with(prefix));
    let quiet: Vec<_> = traceable()
        .iter()
        .filter(|(name, _)| is_quiet(name))
        .collect();
    assert!(quiet.len() >= count, "{}", quiet.len());
    let chosen = quiet.iter().step_by(quiet.len() / count.max(1)).take(count);
    Named::of(chosen.map(|(name, address)| (name.as_str(), **address)))
}

/// Functions that can be probed, and at the end three: one that runs once for each call of
/// [`unlink`](super::unlink), one that does not run, and one for [`mkdir`](super::mkdir).
pub(crate) fn with_counted(count: usize) -> Named {
    let mut named = probeable(count - 3);
    let counted = ["vfs_unlink", "vfs_symlink", "vfs_mkdir"];
    let counted = Named::of(counted.map(|name| (name, traceable()[name])).into_iter());
    named.names.extend(counted.names);
    named.addresses.extend(counted.addresses);
    named
}
