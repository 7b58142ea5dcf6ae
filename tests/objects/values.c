// Has a map with programs from the start, which is not served.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int second(void *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(int));
	__array(values, int(void *));
} jumps SEC(".maps") = {
	.values = { [1] = (void *)&second },
};

SEC("kprobe/vfs_unlink")
int first(void *ctx)
{
	bpf_tail_call(ctx, &jumps, 1);
	return 0;
}

SEC("kprobe")
int second(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
