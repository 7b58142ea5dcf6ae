// Has a map whose number of elements a loader of its own would set.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, int);
	__type(value, int);
} sizeless SEC(".maps");

SEC("kprobe/vfs_unlink")
int reads(void *ctx)
{
	int key = 0;

	return !bpf_map_lookup_elem(&sizeless, &key);
}

char LICENSE[] SEC("license") = "GPL";
