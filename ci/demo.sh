#!/bin/sh
# What the README's demo command shows: count calls of two kernel functions while a real workload
# runs.
set -eu

run() {
    echo
    echo "# $*"
    "$@"
}

echo "kernel $(uname -r), $(uname -m)"
run kprobe-attach features
run kprobe-attach plan vfs_read kretprobe/vfs_unlink

echo
echo "Now a workload that creates, reads and unlinks 100 files, with both functions counted:"
dir=$(mktemp -d)
cat >"$dir/workload.sh" <<'EOF'
cd "$(dirname "$0")"
for i in $(seq 100); do echo "$i" >"file$i"; done
wc -l file* | tail -n 1
rm file*
EOF
run kprobe-attach count vfs_read kretprobe/vfs_unlink -- sh "$dir/workload.sh"
rm -r "$dir"

events=/sys/kernel/tracing/kprobe_events
echo
[ ! -r $events ] || echo "Left in kprobe_events: $(grep . $events || echo nothing)"
