// Calls functions that call functions, takes the address of one, and asks for what may be absent.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

extern const int no_symbol_of_any_kernel __ksym __weak;
extern int no_function_of_any_kernel(void *) __ksym __weak;

__u64 sum;
__u64 depth;

static __noinline int third(__u64 number)
{
	depth = number;
	return number & 1;
}

static __noinline int second(__u64 number)
{
	return third(number + 1) + third(number + 2);
}

__noinline __attribute__((visibility("hidden"))) int first(__u64 number)
{
	return second(number + 10) + third(number);
}

static long add(void *map, __u32 *key, __u64 *value, void *ctx)
{
	sum += *value + *key;
	return 0;
}

SEC("kprobe/vfs_unlink")
int walk(void *ctx)
{
	bpf_for_each_map_elem(&numbers, add, 0, 0);
	if (&no_symbol_of_any_kernel)
		sum = 0;
	if (no_function_of_any_kernel)
		no_function_of_any_kernel(ctx);
	return first(1) + second(2);
}

SEC("kretprobe/vfs_unlink")
int walk_back(void *ctx)
{
	return second(3);
}

char LICENSE[] SEC("license") = "GPL";
