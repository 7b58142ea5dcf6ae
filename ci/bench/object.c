// An object as most are: two programs, a map, data, and type information.
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

static void *(*lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*update)(void *map, const void *key, const void *value, unsigned long flags) =
    (void *)BPF_FUNC_map_update_elem;
static unsigned long (*current)(void) = (void *)BPF_FUNC_get_current_pid_tgid;

struct {
    int (*type)[BPF_MAP_TYPE_HASH];
    int (*max_entries)[1024];
    unsigned *key;
    unsigned long *value;
} calls SEC(".maps");

unsigned long total;

SEC("kprobe") int count(void *ctx)
{
    unsigned process = current() >> 32;
    unsigned long first = 1, *number = lookup(&calls, &process);

    if (number)
        __sync_fetch_and_add(number, 1);
    else
        update(&calls, &process, &first, BPF_ANY);
    return 0;
}

SEC("kprobe") int count_all(void *ctx)
{
    __sync_fetch_and_add(&total, 1);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
