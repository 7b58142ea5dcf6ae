# shellcheck shell=bash
# The program in an initramfs where nothing is mounted: as /init itself, beside an init, and across
# switch_root. Sourced by run.sh.

initramfs_limit=$((212 * 1024)) # what the program may add, uncompressed

# guide_script NAME [PAGE]: the script in the guide whose second line names a path that ends so.
guide_script() {
    awk -v path="/$1" '
        /^```/ { if (found) exit; text = ""; next }
        { text = text $0 "\n" }
        /^# \// && substr($2, length($2) - length(path) + 1) == path { found = 1 }
        END { if (!found) exit 1; printf "%s", text }' "${2:-src/guide/initramfs.md}"
}

# initramfs_alone OUTPUT: the program as /init, and nothing else.
initramfs_alone() {
    local root
    root=$(new_root)
    cp "$(program amd64)" "$root/init"
    pack "$root" "$1"
}

# initramfs_object OUTPUT: the program as /init, and an object.
initramfs_object() {
    local root
    root=$(new_root)
    cp "$(program amd64)" "$root/init"
    cp tests/objects/unlinks.o "$root/"
    pack "$root" "$1"
}

# initramfs_bare OUTPUT: an init that mounts nothing, busybox for it, the program, and the recipes
# of the guide.
initramfs_bare() {
    local root applet recipe=etc/initramfs-tools/scripts/init-top/kprobe-attach
    root=$(new_root)
    mkdir -p "$root"/{bin,dev,proc,sys,"${recipe%/*}"}
    cp "$busybox" "$root/bin/busybox"
    for applet in sh cat cp kill grep head ls mkdir mknod mount mv reboot rm sed sleep switch_root \
        touch tr umount; do
        ln -s busybox "$root/bin/$applet"
    done
    cp ci/init-bare "$root/init"
    cp "$(program amd64)" "$root/bin/kprobe-attach"
    cp target/embed/release/embed "$root/bin/"
    guide_script scripts/init-top/kprobe-attach >"$root/$recipe"
    guide_script scripts/init-top/unlinks src/guide/objects.md >"$root/${recipe%/*}/unlinks"
    chmod +x "$root/${recipe%/*}"/*
    mkdir -p "$root/lib/bpf"
    cp tests/objects/unlinks.o "$root/lib/bpf/"
    echo "modes='$modes'" >"$root/env"
    pack "$root" "$1"
}

# alone_counts KERNEL: as /init it counts its own writes, in every promised mode, and ends as it
# should.
alone_counts() {
    local mode probes=() status=0 console=$vm_dir/$1-alone.console lines
    for mode in ${modes//,/ }; do
        probes+=("vfs_write,mode=$mode" "kretprobe/vfs_write,mode=$mode")
    done
    # What follows -- is handed to init. It is the first process: that it ends is a panic, and tells
    # its exit status.
    machine "$scratch/alone" "$console" null null \
        "-- count --json --quiet --interval 0.5 --for 1.2 ${probes[*]}" || status=$?
    # Each time, one write prints all lines: from the last but one to the last, each probe was hit
    # once.
    lines=$(tr -d '\r' <"$console" | sed -nE 's/^\{"probe":"([^"]*)",.*"hits":([0-9]*),.*/\1 \2/p' |
        awk '
            { once[$1] = $2 == hits[$1] + 1; hits[$1] = $2 }
            END { for (probe in once) count += once[probe]; print count + 0 }')
    if [[ $status -ne 0 || $lines -ne ${#probes[@]} ]] ||
        ! grep -q 'Attempted to kill init! exitcode=0x00000000' "$console"; then
        echo "as /init: status $status, $lines of ${#probes[@]} probes were hit once"
        echo "$console ends:"
        tail -n 40 "$console"
        return 1
    fi
}

# object_attaches KERNEL: as /init, with nothing but an object beside it, it attaches what the
# object says, and ends as it should.
object_attaches() {
    local status=0 console=$vm_dir/$1-object.console
    machine "$scratch/object" "$console" null null \
        "-- attach --json --quiet --for 0.5 --object /unlinks.o" || status=$?
    if [[ $status -ne 0 ]] || ! grep -q '"program":"unlinks"' "$console" ||
        ! grep -q '"map":"by_user"' "$console" ||
        ! grep -q 'Attempted to kill init! exitcode=0x00000000' "$console"; then
        echo "as /init with an object: status $status"
        echo "$console ends:"
        tail -n 40 "$console"
        return 1
    fi
}

# bare_passes KERNEL: ci/init-bare has nothing to complain of.
bare_passes() {
    local console=$vm_dir/$1-bare.console log=$vm_dir/$1-bare.log
    initramfs_bare "$scratch/bare"
    boot "$scratch/bare" "$console" "$log" && return
    echo "beside an init: status $?; $log ends:"
    tail -n 40 "$log"
    echo "$console ends:"
    tail -n 20 "$console"
    return 1
}

cmd_initramfs() {
    local kernels=("$@") kernel size check ok not_ok passed=0 failed=0
    [[ $(uname -m) = x86_64 ]] || die "initramfs needs an x86_64 host"
    [[ ${#kernels[@]} -gt 0 ]] || mapfile -t kernels < <(amd64_kernels)
    cmd_build
    build_embed
    for kernel in "${kernels[@]}"; do
        vm_prepare "$kernel"
        initramfs_alone "$scratch/alone"
        initramfs_object "$scratch/object"
        for check in alone_counts object_attaches bare_passes; do
            echo "0 1 $kernel $check FAILED" >"$scratch/$check" # until it has another verdict
            {
                ! "$check" "$kernel" >"$scratch/$check.report" 2>&1 ||
                    echo "1 0 $kernel $check ok" >"$scratch/$check"
            } &
        done
        wait
        for check in alone_counts object_attaches bare_passes; do
            cat "$scratch/$check.report"
            cut -d ' ' -f 3- "$scratch/$check"
            read -r ok not_ok _ <"$scratch/$check"
            passed=$((passed + ok)) failed=$((failed + not_ok))
        done
    done
    size=$(stat -c %s "$scratch/alone")
    echo "an initramfs with nothing but the program as /init: $size bytes uncompressed," \
        "$(gzip -9 <"$scratch/alone" | wc -c) with gzip"
    if [[ $size -le $initramfs_limit ]]; then passed=$((passed + 1)); else
        echo "that is more than $initramfs_limit bytes"
        failed=$((failed + 1))
    fi
    tally <<<"$passed $failed"
}
