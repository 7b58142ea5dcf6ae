// Counts calls of many functions by one link, beside a link to one.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

static __always_inline int count(__u32 index)
{
	__u64 *value = bpf_map_lookup_elem(&hits, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
	return 0;
}

SEC("kprobe.multi/vfs_*link")
int entries(void *ctx)
{
	return count(0);
}

SEC("kprobe/vfs_unlink")
int entry(void *ctx)
{
	return count(1);
}

SEC("kretprobe.multi/vfs_unlink")
int returns(void *ctx)
{
	return count(2);
}

char LICENSE[] SEC("license") = "GPL";
