// Counts hits by the cookies of their attachments; those without one have zero.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u64);
} by_cookie SEC(".maps");

SEC("kprobe")
int count(struct pt_regs *ctx)
{
	__u64 cookie = bpf_get_attach_cookie(ctx), first = 1;
	__u64 *hits = bpf_map_lookup_elem(&by_cookie, &cookie);

	if (hits)
		__sync_fetch_and_add(hits, 1);
	else
		bpf_map_update_elem(&by_cookie, &cookie, &first, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
