// Has a program in each kind of section, and some that this crate does not attach.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROGRAM(section, name) SEC(section) int name(void *ctx) { return 0; }

PROGRAM("kprobe/vfs_read+0x0", entry)
PROGRAM("kretprobe/vfs_read", on_return)
PROGRAM("ksyscall/unlinkat", entry_of_call)
PROGRAM("kretsyscall/unlinkat", return_of_call)
PROGRAM("kprobe.multi/vfs_*", multi)
PROGRAM("kretprobe.multi/vfs_rea?", multi_return)
PROGRAM("kprobe.session/vfs_read", session)
PROGRAM("?kprobe/vfs_write", asked)
PROGRAM("kprobe", bare)
PROGRAM("tracepoint/sched/sched_switch", on_switch)
PROGRAM("uprobe//bin/sh:main", on_main)

char LICENSE[] SEC("license") = "GPL";
