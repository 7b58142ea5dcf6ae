/* Attaches BPF programs to kernel functions, from C, with libbpf's options. */

#ifndef KPROBE_ATTACH_H
#define KPROBE_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As in libbpf.h. A file that includes both includes that one first. */
#ifndef __LIBBPF_LIBBPF_H
enum probe_attach_mode {
	PROBE_ATTACH_MODE_DEFAULT = 0,
	PROBE_ATTACH_MODE_LEGACY,
	PROBE_ATTACH_MODE_PERF,
	PROBE_ATTACH_MODE_LINK,
};

struct bpf_kprobe_opts {
	/* size of this struct, for forward/backward compatibility */
	size_t sz;
	/* custom user-provided value fetchable through bpf_get_attach_cookie() */
	uint64_t bpf_cookie;
	/* function's offset to install kprobe to */
	size_t offset;
	/* kprobe is return probe */
	bool retprobe;
	/* kprobe attach mode */
	enum probe_attach_mode attach_mode;
	size_t : 0;
};
#endif

/* Is filled by kprobe_attach. It may be moved, but not be copied. */
struct kprobe_link {
	uint64_t opaque[6];
};

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Attaches a loaded kprobe program, and returns 0 or -errno.
 *
 * func_name is a function, or module:function. Where it is NULL, opts->offset is an address.
 * opts may be NULL. libbpf's rules for sz apply: a field counts if sz reaches its end, and the
 * bytes behind the last known field are zero.
 */
int kprobe_attach(int prog_fd, const char *func_name, const struct bpf_kprobe_opts *opts,
		  struct kprobe_link *link);

/* Returns the file descriptor of the bpf link, or in the modes without one, of the perf event. */
int kprobe_link_fd(const struct kprobe_link *link);

/* Detaches, and returns 0 or -errno. Either way, the link is gone. */
int kprobe_detach(struct kprobe_link *link);

#ifdef __cplusplus
}
#endif

#endif
