// The programs that the drivers attach. Built once for each kind of link: SECTION is "kprobe" or
// "kprobe.multi".
#define SEC(name) __attribute__((section(name), used))

SEC(SECTION) int zero(void *ctx)
{
    return 0;
}

SEC(SECTION) int one(void *ctx)
{
    return 1;
}

char LICENSE[] SEC("license") = "GPL";
