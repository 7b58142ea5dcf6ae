// The driver without a library: system calls alone. See harness/src/work.rs for what a driver does.
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MARK = 100000, MOST = 1000 };

static struct held {
    int event, link;
} held[MOST];
static int pmu, no_links;

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void mark(int number)
{
    syscall(MARK + number);
}

static int bpf(int command, union bpf_attr *attr, unsigned size)
{
    return syscall(SYS_bpf, command, attr, size);
}

static int load(int number, int multi)
{
    struct bpf_insn code[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = number },
        { .code = BPF_JMP | BPF_EXIT },
    };
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_KPROBE,
        .insns = (unsigned long)code,
        .insn_cnt = 2,
        .license = (unsigned long)"GPL",
        .expected_attach_type = multi ? BPF_TRACE_KPROBE_MULTI : 0,
    };
    return bpf(BPF_PROG_LOAD, &attr, sizeof attr);
}

static int pmu_type(void)
{
    char text[16] = "";
    int fd = open("/sys/bus/event_source/devices/kprobe/type", O_RDONLY | O_CLOEXEC);
    check(fd >= 0 && read(fd, text, sizeof text - 1) > 0, "type of the PMU");
    close(fd);
    return atoi(text);
}

static struct held attach(int program, const char *function)
{
    struct perf_event_attr event = { .size = sizeof event };
    struct held made = { -1, -1 };
    if (!pmu)
        pmu = pmu_type();
    event.type = pmu;
    event.kprobe_func = (unsigned long)function;
    made.event = syscall(SYS_perf_event_open, &event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
    check(made.event >= 0, function);
    if (!no_links) {
        union bpf_attr attr = {
            .link_create.prog_fd = program,
            .link_create.target_fd = made.event,
            .link_create.attach_type = BPF_PERF_EVENT,
        };
        made.link = bpf(BPF_LINK_CREATE, &attr, sizeof attr);
        check(made.link >= 0 || errno == EINVAL, "link");
        no_links = made.link < 0;
    }
    if (no_links)
        check(!ioctl(made.event, PERF_EVENT_IOC_SET_BPF, program), "program");
    return made;
}

static int attach_multi(int program, char **functions, int count)
{
    union bpf_attr attr = {
        .link_create.prog_fd = program,
        .link_create.attach_type = BPF_TRACE_KPROBE_MULTI,
        .link_create.kprobe_multi.cnt = count,
        .link_create.kprobe_multi.syms = (unsigned long)functions,
    };
    return bpf(BPF_LINK_CREATE, &attr, sizeof attr);
}

int main(int argc, char **argv)
{
    check(argc > 4 && argc - 4 <= MOST, "usage: raw each|multi 0|1 TIMES FUNCTION...");
    check(strcmp(argv[1], "object"), "an object takes a library");
    int multi = !strcmp(argv[1], "multi"), times = atoi(argv[3]), count = argc - 4;
    mark(0);
    mark(0);
    int program = load(atoi(argv[2]), multi);
    check(program >= 0, "load");
    mark(1);
    while (times-- > 0) {
        int links = multi ? 1 : count;
        if (multi) {
            held[0] = (struct held){ -1, attach_multi(program, argv + 4, count) };
            check(held[0].link >= 0, "link");
        } else {
            for (int at = 0; at < count; at++)
                held[at] = attach(program, argv[4 + at]);
        }
        mark(2);
        for (int at = 0; at < links; at++) {
            if (held[at].link >= 0)
                close(held[at].link);
            if (held[at].event >= 0)
                close(held[at].event);
        }
        mark(3);
    }
}
