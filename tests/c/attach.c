/*
 * Attaches a pinned program until standard input ends:
 *     attach PIN FUNCTION [COOKIE]
 */

#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kprobe_attach.h"

/* Any loader will do: bpf_program__fd() of libbpf is such a file descriptor. */
static int open_program(const char *path)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.pathname = (uintptr_t)path;
	return syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr));
}

int main(int argc, char **argv)
{
	struct bpf_kprobe_opts opts = { .sz = sizeof(opts) };
	struct kprobe_link link;
	int prog_fd, error;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: attach PIN FUNCTION [COOKIE]\n");
		return 2;
	}
	if (argc == 4)
		opts.bpf_cookie = strtoull(argv[3], NULL, 0);

	prog_fd = open_program(argv[1]);
	if (prog_fd < 0) {
		perror(argv[1]);
		return 1;
	}
	error = kprobe_attach(prog_fd, argv[2], &opts, &link);
	close(prog_fd); /* the link holds the program */
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[2], strerror(-error));
		return 1;
	}
	printf("attached to %s by file descriptor %d\n", argv[2], kprobe_link_fd(&link));
	fflush(stdout);

	while (getchar() != EOF)
		;
	error = kprobe_detach(&link);
	if (error) {
		fprintf(stderr, "detaching: %s\n", strerror(-error));
		return 1;
	}
	printf("detached\n");
	return 0;
}
