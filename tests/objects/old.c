// Counts as an object for a kernel without BTF does: maps as structs, and no data.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#define SEC(name) __attribute__((section(name), used))

struct bpf_map_def {
	unsigned int type;
	unsigned int key_size;
	unsigned int value_size;
	unsigned int max_entries;
	unsigned int map_flags;
};

static void *(*lookup)(void *map, const void *key) = (void *)1;

struct bpf_map_def SEC("maps") first = { BPF_MAP_TYPE_ARRAY, 4, 8, 4, 0 };
struct bpf_map_def SEC("maps") second = { BPF_MAP_TYPE_ARRAY, 4, 8, 4, 0 };

SEC("kprobe/vfs_unlink")
int count(struct pt_regs *ctx)
{
	int zero = 0, three = 3;
	__u64 *value = lookup(&first, &zero);

	if (value)
		__sync_fetch_and_add(value, 1);
	value = lookup(&second, &three);
	if (value)
		__sync_fetch_and_add(value, 2);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
int VERSION SEC("version") = 0x040900;
