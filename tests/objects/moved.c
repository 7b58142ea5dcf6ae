// Reads fields of the task through CO-RE, and says where it found them; and reads a number at a
// place that the test names, as a program without CO-RE does.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	char comm[16];
	int pid;
	int tgid;
} __attribute__((preserve_access_index));

struct {
	__u64 task_wanted;
	__u32 place;
	__u32 number_there;
	__u32 hits;
	__u32 comm_at;
	__u32 pid_at;
	__u32 tgid_at;
	__u32 pid;
	__u32 tgid;
	char comm[16];
} found;

SEC("kprobe/vfs_unlink")
int read_task(struct pt_regs *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (bpf_get_current_pid_tgid() != found.task_wanted)
		return 0;
	found.hits += 1;
	found.comm_at = bpf_core_field_offset(task->comm);
	found.pid_at = bpf_core_field_offset(task->pid);
	found.tgid_at = bpf_core_field_offset(task->tgid);
	BPF_CORE_READ_INTO(&found.pid, task, pid);
	BPF_CORE_READ_INTO(&found.tgid, task, tgid);
	BPF_CORE_READ_INTO(&found.comm, task, comm);
	bpf_probe_read_kernel(&found.number_there, 4, (void *)task + found.place);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
