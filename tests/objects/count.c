// Counts calls of the functions that unlink files, in each kind of map and of data.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

struct key {
	__u32 kind;
	__u32 zero;
};

struct value {
	__u64 hits;
	__u64 twice;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct value);
} by_kind SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 8);
} by_cpu SEC(".maps");

extern int LINUX_KERNEL_VERSION __kconfig;
extern int CONFIG_OF_NO_KERNEL __kconfig __weak;

const volatile __u64 step = 1;
const volatile char word[5] SEC(".rodata.word") = "word";
__u64 start = 1000;
static volatile __u64 odd = 7;
__u64 more SEC(".data.more") = 5;
__u64 hits;
__u64 returns;
__u32 version;
int absent = 1;

static __noinline int count_kind(__u32 kind)
{
	struct key key = { .kind = kind };
	struct value first = { 1, 2 }, *value = bpf_map_lookup_elem(&by_kind, &key);

	if (value) {
		__sync_fetch_and_add(&value->hits, step);
		__sync_fetch_and_add(&value->twice, 2 * step);
	} else {
		bpf_map_update_elem(&by_kind, &key, &first, BPF_ANY);
	}
	return kind;
}

__noinline int count_cpu(__u32 index)
{
	__u64 *value = bpf_map_lookup_elem(&by_cpu, &index);

	if (value)
		*value += 1;
	return count_kind(index);
}

SEC("kprobe/vfs_unlink")
int entry(struct pt_regs *ctx)
{
	version = LINUX_KERNEL_VERSION;
	absent = CONFIG_OF_NO_KERNEL;
	__sync_fetch_and_add(&hits, step);
	return count_cpu(0);
}

SEC("kprobe/vfs_unlink")
int entry_too(struct pt_regs *ctx)
{
	__sync_fetch_and_add(&start, 1);
	__sync_fetch_and_add(&more, odd);
	odd += 1;
	return word[0] == 'w' ? count_kind(2) : 0;
}

SEC("kretprobe/vfs_unlink")
int on_return(struct pt_regs *ctx)
{
	__sync_fetch_and_add(&returns, 1);
	count_kind(3);
	return count_cpu(1);
}

char LICENSE[] SEC("license") = "GPL";
