// The driver of libbpf. See harness/src/work.rs for what a driver does.
#include <bpf/libbpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MARK = 100000, MOST = 1000 };

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

int main(int argc, char **argv)
{
    static struct bpf_link *links[MOST];
    LIBBPF_OPTS(bpf_kprobe_multi_opts, opts);
    check(argc > 4 && argc - 4 <= MOST, "usage: libbpf each|multi|object 0|1 TIMES FUNCTION...");
    int multi = !strcmp(argv[1], "multi"), times = atoi(argv[3]), count = argc - 4;
    char **functions = argv + 4;
    opts.syms = (const char **)functions;
    opts.cnt = count;
    mark(0);
    mark(0);
    int whole = !strcmp(argv[1], "object");
    struct bpf_object *object =
        bpf_object__open(whole ? "object.o" : multi ? "kprobe.multi.o" : "kprobe.o");
    check(object && !bpf_object__load(object), "load");
    if (whole) {
        mark(1);
        return 0;
    }
    struct bpf_program *program =
        bpf_object__find_program_by_name(object, atoi(argv[2]) ? "one" : "zero");
    mark(1);
    while (times-- > 0) {
        int made = multi ? 1 : count;
        for (int at = 0; at < made; at++) {
            links[at] = multi ? bpf_program__attach_kprobe_multi_opts(program, NULL, &opts)
                              : bpf_program__attach_kprobe(program, 0, functions[at]);
            check(links[at] != NULL, functions[at]);
        }
        mark(2);
        for (int at = 0; at < made; at++)
            bpf_link__destroy(links[at]);
        mark(3);
    }
}
