// Uses the macros of libbpf's headers: arguments, return values, system calls, fields of the
// kernel's structs, messages; and kinds of maps that other objects here do not have.
#include <linux/bpf.h>
#include <stdbool.h>

// As bpftool writes it, of which these are the parts that are used.
#define __VMLINUX_H__
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip;
	unsigned long cs, flags, sp, ss;
} __attribute__((preserve_access_index));

struct task_struct {
	int tgid;
	struct task_struct *real_parent;
} __attribute__((preserve_access_index));

struct qstr {
	const unsigned char *name;
} __attribute__((preserve_access_index));

struct dentry {
	struct qstr d_name;
} __attribute__((preserve_access_index));

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

struct event {
	__u32 tgid;
	__u32 parent;
	char name[24];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} output SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} by_flags SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct event);
} last SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 64);
	__uint(key_size, 4);
	__uint(value_size, 1016);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

const volatile __u32 wanted = 0;
const volatile bool verbose = false;
static const char *const words[] = { "first", "second" };
__u64 counts[8];

static __always_inline bool is_wanted(__u32 tgid)
{
	return !wanted || tgid == wanted;
}

static __noinline void bump(__u32 index)
{
	if (index < 8)
		__sync_fetch_and_add(&counts[index], 1);
}

SEC("kprobe/vfs_unlink")
int BPF_KPROBE(on_unlink, void *idmap, void *dir, struct dentry *dentry)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct event *event, copy = {};

	if (!is_wanted(tgid))
		return 0;
	copy.tgid = tgid;
	copy.parent = BPF_CORE_READ(task, real_parent, tgid);
	bpf_probe_read_kernel_str(copy.name, sizeof(copy.name), BPF_CORE_READ(dentry, d_name.name));
	tgid = 0;
	bpf_map_update_elem(&last, &tgid, &copy, BPF_ANY);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		*event = copy;
		bpf_ringbuf_submit(event, 0);
	}
	bump(0);
	if (verbose)
		bpf_printk("unlink %d %s", copy.tgid, words[copy.tgid % 2]);
	bpf_get_stackid(ctx, &stacks, 0);
	bpf_tail_call(ctx, &next, 1);
	return 0;
}

SEC("kretprobe/vfs_unlink")
int BPF_KRETPROBE(on_unlinked, long ret)
{
	bump(ret ? 2 : 1);
	bpf_printk("unlinked: %ld", ret);
	return 0;
}

SEC("ksyscall/unlinkat")
int BPF_KSYSCALL(on_call, int dir, const char *path, int flags)
{
	__u32 key = flags;
	__u64 one = 1, *count = bpf_map_lookup_elem(&by_flags, &key);

	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&by_flags, &key, &one, BPF_ANY);
	bump(3);
	return 0;
}

SEC("kretsyscall/unlinkat")
int BPF_KRETPROBE(on_called, int ret)
{
	bump(4);
	if (bpf_core_field_exists(struct task_struct, real_parent))
		bump(5);
	if (bpf_core_type_exists(struct dentry))
		bump(6);
	bpf_perf_event_output(ctx, &output, BPF_F_CURRENT_CPU, counts, sizeof(__u64));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
