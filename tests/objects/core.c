// Reads fields whose places differ between kernels, and asks for one that no kernel has.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *group_leader;
	int no_kernel_has_this;
} __attribute__((preserve_access_index));

enum of_no_kernel { NO_KERNEL_HAS_THIS = 7 };

__u32 tgid_wanted;
__u32 hits;
__u32 tgid;
__u32 leader;
__u32 missing = 1;
__u32 size;

static __noinline __u32 leader_of(struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	return BPF_CORE_READ(leader, pid);
}

SEC("kprobe/vfs_unlink")
int read_task(struct pt_regs *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (bpf_get_current_pid_tgid() >> 32 != tgid_wanted)
		return 0;
	hits += 1;
	tgid = BPF_CORE_READ(task, tgid);
	leader = leader_of(task);
	missing = bpf_core_field_exists(task->no_kernel_has_this);
	size = bpf_core_type_size(struct task_struct);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
