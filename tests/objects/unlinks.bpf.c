// unlinks.bpf.c
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} by_user SEC(".maps");

SEC("kprobe/vfs_unlink")
int unlinks(void *ctx)
{
	__u32 user = bpf_get_current_uid_gid();
	__u64 first = 1, *count = bpf_map_lookup_elem(&by_user, &user);

	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&by_user, &user, &first, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
