/*
 * Which options are valid, by libbpf's rules:
 *     opts PIN FUNCTION
 */

#include <assert.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kprobe_attach.h"

/* A struct of a later libbpf. */
struct later {
	struct bpf_kprobe_opts opts;
	char tail[16];
};

static int prog_fd;

/* Attaches and detaches. Returns what kprobe_attach returned. */
static int attach(const char *func_name, const void *opts)
{
	struct kprobe_link link;
	int error = kprobe_attach(prog_fd, func_name, opts, &link);

	if (!error)
		assert(!kprobe_detach(&link));
	return error;
}

int main(int argc, char **argv)
{
	const char *function = argv[2];
	struct later later;
	union bpf_attr attr;

	assert(argc == 3);
	memset(&attr, 0, sizeof(attr));
	attr.pathname = (uintptr_t)argv[1];
	prog_fd = syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
	assert(prog_fd >= 0);

	memset(&later, 0, sizeof(later));
	assert(!attach(function, NULL));

	/* The least is the size of sz. */
	assert(attach(function, &later) == -EINVAL);
	later.opts.sz = sizeof(size_t) - 1;
	assert(attach(function, &later) == -EINVAL);
	later.opts.sz = sizeof(size_t);
	assert(!attach(function, &later));

	/* A field beyond sz does not count. */
	later.opts.attach_mode = 99;
	assert(!attach(function, &later));
	later.opts.sz = sizeof(later.opts);
	assert(attach(function, &later) == -EINVAL);
	later.opts.attach_mode = PROBE_ATTACH_MODE_DEFAULT;
	later.opts.retprobe = true;
	assert(!attach(function, &later));

	/* What is behind the known fields is zero. */
	later.opts.sz = sizeof(later);
	assert(!attach(function, &later));
	later.tail[15] = 1;
	assert(attach(function, &later) == -EINVAL);
	later.opts.sz = sizeof(later) - 1;
	assert(!attach(function, &later));

	/* Without a name, the offset is an address. 1 is none of the kernel. */
	later.opts.retprobe = false;
	later.opts.offset = 1;
	assert(attach(NULL, &later) < 0);

	assert(attach("no_such_function", NULL) == -ENOENT);
	assert(attach("no such function", NULL) == -EINVAL);
	assert(attach("\xff", NULL) == -EINVAL);
	prog_fd = -1;
	assert(attach(function, NULL) == -EBADF);
	printf("ok\n");
	return 0;
}
