# shellcheck shell=bash
# Debian packages without installing them, kernels, and the virtual machines that boot them. Sourced by run.sh.

cache=${KPROBE_ATTACH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kprobe-attach}
vm_dir=target/vm            # logs
vm_tests=$vm_dir/tests-bin  # link to the static test binary of the host's architecture; of others -ARCH is behind it
vm_timeout=${KPROBE_ATTACH_TIMEOUT:-600}
cpu0_hotplug=cpu0_hotplug   # CPU 0 can go offline (x86 before 6.5, on an Intel)
vm_modules='dummy nlmon'    # for tests that load a module: small, without dependencies

# Scratch space, on the file system of the cache: only what is complete is moved into it.
make_scratch() {
    [[ -z ${scratch:-} ]] || return 0
    mkdir -p "$cache"
    scratch=$(mktemp -d "$cache/tmp.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
}

# locked COMMAND...: changes the cache; of two runs at once the second waits, and finds the work done.
locked() {
    local lock
    exec {lock}>"$cache/lock"
    flock "$lock"
    "$@"
    exec {lock}>&-
}

# --- packages (the lists are only needed to fill the cache, and are large: scratch) ---

# The Debian mirror that this machine itself uses, as its package lists tell.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' | sed -n 's/ Debian Debian$//p' | sort -u | sed -n 1p
}

# apt_private SUITE ARCH KEYRING: an apt of its own for one suite and architecture, lists up to date; prints its configuration file.
# Of the machine's configuration it takes the mirror and how to reach it (proxies), nothing else.
apt_private() {
    local suite=$1 arch=$2 keyring=$3 dir=$scratch/apt/$1-$2 uri
    uri=$(mirror)
    if [[ -z $uri && $EUID -eq 0 ]]; then # the lists are often deleted from images
        apt-get update -qq >&2
        uri=$(mirror)
    fi
    [[ -n $uri ]] || die "no Debian mirror in this machine's package lists (apt-get update fetches them)"
    mkdir -p "$dir"/lists/partial "$dir"/archives/partial
    : >"$dir/status"
    echo "deb [arch=$arch signed-by=$keyring] $uri $suite main" >"$dir/sources.list"
    {
        apt-config dump | grep '^Acquire::' | grep -vE '^Acquire::(IndexTargets|Changelogs|Languages)'
        cat <<EOF
Acquire::Languages "none";
Acquire::Retries "3";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$dir";
Dir::State::status "$dir/status";
Dir::State::lists "$dir/lists";
Dir::Cache "$dir";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
EOF
    } >"$dir/apt.conf"
    APT_CONFIG=$dir/apt.conf apt-get update -qq >"$dir/update.log" 2>&1 || return
    echo "$dir/apt.conf"
}

# The same, with the keyring that verifies the suite. A suite newer than the machine's keyring needs a newer one,
# which is taken from the machine's own suite, verified by the machine's own keys.
apt_suite() {
    local suite=$1 arch=$2 own=/usr/share/keyrings/debian-archive-keyring.gpg
    local newer=$cache/keyring/${own##*/} conf dir
    [[ -e $own ]] || die "no $own: install debian-archive-keyring"
    apt_private "$suite" "$arch" "$own" && return
    if [[ ! -e $newer ]] && grep -qE 'NO_PUBKEY|Missing key' "$scratch/apt/$suite-$arch/update.log"; then
        note "fetching a newer Debian keyring for $suite"
        dir=$(mktemp -d -p "$scratch")
        conf=$(apt_private "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$(dpkg --print-architecture)" "$own") &&
            unpack_package "$conf" debian-archive-keyring "$dir" './usr/share/keyrings/*' &&
            mkdir -p "${newer%/*}" && cp -L "$dir/usr/share/keyrings/${newer##*/}" "$newer"
    fi
    [[ -e $newer ]] && apt_private "$suite" "$arch" "$newer" && return
    cat "$scratch/apt/$suite-$arch/update.log" >&2
    die "apt cannot read Debian $suite"
}

# unpack_package CONF NAME DIR MEMBER...: the files of package NAME that match MEMBER, into DIR.
unpack_package() {
    local conf=$1 name=$2 dir=$3 tmp
    shift 3
    tmp=$(mktemp -d -p "$scratch")
    (cd "$tmp" && APT_CONFIG=$conf apt-get download -qq "$name" >&2) &&
        dpkg-deb --fsys-tarfile "$tmp"/*.deb | tar -x -C "$dir" --wildcards "$@"
}

# newest CONF PATTERN: the newest package name that matches, or nothing.
newest() {
    # shellcheck disable=SC2053 # a pattern it is
    APT_CONFIG=$1 apt-cache pkgnames | while read -r name; do [[ $name != $2 ]] || echo "$name"; done | sort -V | tail -n 1
}

# --- kernels ---

# kernel_row KERNEL: its row of kernels.txt in kernel, arch, suite, package, modes; and what follows from it.
kernel_row() {
    read -r kernel arch suite package modes < <(awk -v name="$1" '$1 == name' ci/kernels.txt) || die "ci/kernels.txt has no kernel $1"
    kernel_dir=$cache/kernels/${suite}_${package//\*/_}
    busybox=$cache/busybox-$arch
}

# Fills kernel_dir: vmlinuz, *.ko, name. Fetched once; remove the directory to get a newer point release.
fetch_kernel() {
    local conf name dir file module modules_name
    [[ ! -e $kernel_dir ]] || return 0
    conf=$(apt_suite "$suite" "$arch")
    name=$(newest "$conf" "$package")
    [[ -n $name ]] || die "Debian $suite has no package $package: see ci/kernels.txt"
    note "fetching $name"
    dir=$(mktemp -d -p "$scratch")
    mkdir "$dir/files" "$dir/entry"
    unpack_package "$conf" "$name" "$dir/files" || die "cannot fetch $name"
    # Debian keeps the image of an old release longer than its modules: those are optional.
    modules_name=$(newest "$conf" "${name/linux-binary-/linux-modules-}")
    if [[ -n $modules_name && $modules_name != "$name" ]]; then
        unpack_package "$conf" "$modules_name" "$dir/files" || die "cannot fetch $modules_name"
    fi
    mv "$(find "$dir/files" -name 'vmlinu[xz]*' -type f)" "$dir/entry/vmlinuz"
    for module in $vm_modules; do
        file=$(find "$dir/files" -path "*/$module.ko*")
        case $file in
            *.xz) xz -dc "$file" >"$dir/entry/$module.ko" ;;
            *.ko) cp "$file" "$dir/entry/" ;;
            *) note "$name: Debian has no $module.ko for it" ;;
        esac
    done
    echo "$name" >"$dir/entry/name"
    mkdir -p "$cache/kernels"
    mv "$dir/entry" "$kernel_dir"
}

# busybox comes unpacked too: as an installed package, busybox-static would displace busybox.
fetch_busybox() {
    local conf dir
    [[ ! -e $busybox ]] || return 0
    # A mirror that is being updated may lack the one suite and have the other.
    conf=$(apt_suite trixie "$arch") || conf=$(apt_suite "$suite" "$arch")
    dir=$(mktemp -d -p "$scratch")
    unpack_package "$conf" busybox-static "$dir" || die "cannot fetch busybox-static"
    mv "$(find "$dir" -path '*/bin/busybox')" "$busybox"
}

# strace of an architecture that is not the host's, with its libraries.
fetch_strace() {
    local conf dir package library root=$cache/strace-$arch
    [[ ! -e $root ]] || return 0
    conf=$(apt_suite trixie "$arch") || conf=$(apt_suite "$suite" "$arch")
    dir=$(mktemp -d -p "$scratch")
    mkdir -p "$dir/root/bin"
    unpack_package "$conf" strace "$dir" '*/bin/strace' || die "cannot fetch strace"
    for package in libc6 libunwind8 liblzma5 libgcc-s1; do
        unpack_package "$conf" "$package" "$dir" '*.so*' || die "cannot fetch $package"
    done
    rm -rf "$dir"/usr/lib/*/gconv
    mv "$dir/usr/bin/strace" "$dir/root/bin/"
    # Before trixie some of it is in /lib; and the loader of some is in lib64.
    for library in {usr/,}lib{,64}; do
        [[ ! -e $dir/$library ]] || cp -a "$dir/$library" "$dir/root/"
    done
    mv "$dir/root" "$root"
}

# --- machines ---

# program ARCH: where cargo leaves it.
program() {
    case $1 in
        amd64) echo target/release/kprobe-attach ;;
        *) echo "target/arch/$(target_of "$1")/release/kprobe-attach" ;;
    esac
}

# Every kernel of this machine's own architecture, a line each.
amd64_kernels() {
    awk '!/^#/ && $2 == "amd64" { print $1 }' ci/kernels.txt
}

# A new directory that becomes the / of a machine.
new_root() {
    local root
    root=$(mktemp -d -p "$scratch")
    chmod 755 "$root"
    echo "$root"
}

# pack ROOT OUTPUT: makes an initramfs of it.
pack() {
    (cd "$1" && find . | cpio -o -H newc -R +0:+0 --quiet) >"$2"
}

# initramfs OUTPUT [JOB]: JOB is a shell script to run in place of the tests. What is not built yet is left out.
initramfs() {
    local output=$1 job=${2:-} root program lib
    root=$(new_root)
    mkdir -p "$root"/{bin,dev,etc,extra,lib/modules,proc,root,run,sys,tests,tmp}
    cp "$busybox" "$root/bin/busybox"
    cp ci/init "$root/init"
    cp ci/demo.sh "$root/demo.sh"
    echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
    echo 'nobody:x:65534:65534::/:/bin/sh' >>"$root/etc/passwd"
    cp "$kernel_dir"/*.ko "$root/lib/modules/" 2>/dev/null || true
    program=$(program "$arch")
    [[ ! -e $program ]] || cp "$program" "$root/bin/"
    [[ -z $job ]] || printf '%s\n' "$job" >"$root/job"
    [[ -z ${KPROBE_ATTACH_EXTRA:-} ]] || cp -a "$KPROBE_ATTACH_EXTRA/." "$root/extra/"
    if [[ $arch = amd64 ]]; then # the host's own architecture
        [[ ! -e $vm_tests ]] || cp -L "$vm_tests" "$root/tests/vm"
        cp "$(command -v strace)" "$root/bin/"
        ldd "$root/bin/strace" | grep -o '/[^ ]*' | while read -r lib; do
            mkdir -p "$root${lib%/*}"
            cp -L "$lib" "$root$lib"
        done
    elif [[ -z $job ]]; then
        cp -L "$vm_tests-$arch" "$root/tests/vm"
        cp -a "$cache/strace-$arch/." "$root/"
    fi
    {
        echo "export KPROBE_ATTACH_KERNEL='$kernel' KPROBE_ATTACH_MODES='$modes' KPROBE_ATTACH_BIN=/bin/kprobe-attach"
        echo "export KPROBE_ATTACH_FILTER='${KPROBE_ATTACH_FILTER:-}' KPROBE_ATTACH_SOAK='${KPROBE_ATTACH_SOAK:-}' RUST_BACKTRACE=1"
        echo "export KPROBE_ATTACH_MODULES='$(cd "$root/lib/modules" && ls -m)'"
        # The two ports in machine(), after the machine's own.
        case $arch in
            arm64 | armhf | ppc64el) echo "OUT=/dev/ttyS0 VERDICT=/dev/ttyS1" ;;
            s390x) echo "OUT=/dev/ttysclp0 VERDICT=/dev/ttysclp0" ;;
            *) echo "OUT=/dev/ttyS1 VERDICT=/dev/ttyS2" ;;
        esac
    } >"$root/env"
    pack "$root" "$output"
}

# machine INITRD CONSOLE_LOG OUTPUT VERDICT PARAMETERS: runs it; OUTPUT and VERDICT are chardevs of QEMU's, PARAMETERS more for the
# kernel. Returns QEMU's status.
machine() {
    local initrd=$1 console=$2 output=$3 verdict=$4 machine
    local ports=(-serial "file:$console" -device pci-serial-2x,chardev1=output,chardev2=verdict)
    # thread=single: with a thread a CPU, code that one CPU patches (kprobes, jump labels) may run stale on another
    # (QEMU before 8.1), and the kernel dies of an int3 that it no longer knows. It boots faster, too.
    # -cx16: with it the emulated kmalloc double-faults now and then.
    # no_timer_check: under load the emulated timer misses the kernel's deadline.
    case $arch in
        amd64) machine=(x86_64 -cpu 'max,-cx16,vendor=GenuineIntel' -smp 2 -append 'console=ttyS0 no_timer_check') ;;
        arm64) machine=(aarch64 -M virt -cpu cortex-a57 -smp 2 -append 'console=ttyAMA0') ;;
        riscv64) machine=(riscv64 -M virt -smp 2 -append 'console=ttyS0') ;;
        armhf) machine=(arm -M virt -cpu cortex-a15 -append 'console=ttyAMA0') ;;
        i386) machine=(i386 -cpu 'max,vendor=GenuineIntel' -smp 2 -append 'console=ttyS0 no_timer_check') ;;
        ppc64el) machine=(ppc64 -M pseries,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken -cpu power9 -append 'console=hvc0') ;;
        s390x)
            machine=(s390x -append 'console=ttysclp0')
            ports=(-serial chardev:output) # there is no other: see boot
            ;;
    esac
    machine[-1]+=" quiet panic=-1 oops=panic $5"
    timeout --foreground "$vm_timeout" "qemu-system-${machine[0]}" "${machine[@]:1}" -accel tcg,thread=single -m 1024 \
        -nodefaults -display none -no-reboot -kernel "$kernel_dir/vmlinuz" -initrd "$initrd" \
        -chardev "$output,id=output" -chardev "$verdict,id=verdict" \
        "${ports[@]}" </dev/null
}

# boot INITRD CONSOLE_LOG OUTPUT [PARAMETERS]: runs the machine; OUTPUT is a file or - for stdout. Returns the status that the
# guest's init handed over.
boot() {
    local initrd=$1 console=$2 output=$3 parameters=${4:-} verdict status=0
    verdict=$(mktemp -p "$scratch")
    if [[ $arch = s390x ]]; then # everything comes by one port, the verdict as the last line
        machine "$initrd" "$console" "file,path=$console" null "$parameters" || status=$?
        if [[ $output = - ]]; then sed '$d' "$console"; else sed '$d' "$console" >"$output"; fi
        tail -n 1 "$console" | tr -d '\r' | grep -xE '[0-9]+' >"$verdict" || true
    else
        if [[ $output = - ]]; then output=stdio; else output=file,path=$output; fi
        machine "$initrd" "$console" "$output" "file,path=$verdict" "$parameters" || status=$?
    fi
    if [[ $status -eq 124 ]]; then
        note "kernel $kernel: stopped after $vm_timeout s"
    elif [[ $status -eq 0 ]]; then
        status=$(<"$verdict")
        status=${status//$'\r'/}
        if [[ -z $status ]]; then
            note "kernel $kernel: died without a verdict"
            status=125
        fi
    fi
    return "$status"
}

# Fetches what the kernels of ci/kernels.txt take, the slower ones first: while something else keeps the processors busy.
prefetch() {
    local name
    make_scratch
    for name in "${arch_suites[@]}" 6.1-ppc64el $(amd64_kernels); do
        kernel_row "$name"
        locked fetch_kernel
        locked fetch_busybox
        [[ " ${arch_suites[*]} " != *" $name "* ]] || locked fetch_strace
    done
}

# vm_prepare KERNEL: all that boot needs.
vm_prepare() {
    make_scratch
    kernel_row "$1"
    case $arch in
        amd64) need qemu-system-x86 cpio strace xz-utils ;;
        riscv64 | s390x) need qemu-system-misc cpio xz-utils ;;
        arm64 | armhf) need qemu-system-arm cpio xz-utils ;;
        i386) need qemu-system-x86 cpio xz-utils ;;
        ppc64el) need qemu-system-ppc cpio xz-utils ;;
    esac
    locked fetch_kernel
    locked fetch_busybox
    mkdir -p "$vm_dir"
}

# vm_job KERNEL SCRIPT: runs a shell script in the machine, its output on stdout.
vm_job() {
    local status=0
    vm_prepare "$1"
    initramfs "$scratch/initrd" "$2"
    boot "$scratch/initrd" "$scratch/console" - "$cpu0_hotplug" || status=$?
    [[ $status -ne 124 && $status -ne 125 ]] || cat "$scratch/console" >&2
    return "$status"
}

# The boots that the tests take, as far as the filter leaves some: `ordinary`, and the LEVEL of each module lockdown_LEVEL.
vm_boots() {
    # shellcheck disable=SC2086 # the filter may be several words, or none
    "$vm_tests" --list --include-ignored ${KPROBE_ATTACH_FILTER:-} |
        sed -nE 's/.*\<lockdown_([a-z]+)::.*: test$/\1/p; t; s/.*: test$/ordinary/p' | sort -u
}

# boot_name KERNEL BOOT: what the files of a boot are called.
boot_name() {
    case $2 in
        ordinary) echo "$1" ;;
        *) echo "$1-$2" ;;
    esac
}

# vm_test KERNEL BOOT: runs the tests of that boot in the machine; prints the verdict line, and on failure what is needed to see
# why. Leaves the numbers in NAME.count; a machine that fails counts at least one failure.
vm_test() {
    local name log console parameters=$cpu0_hotplug start=$SECONDS status=0 passed failed verdict=ok
    name=$(boot_name "$@") log=$vm_dir/$name.log console=$vm_dir/$name.console
    [[ $2 = ordinary ]] || parameters+=" lockdown=$2"
    vm_prepare "$1"
    initramfs "$scratch/$name.initrd"
    boot "$scratch/$name.initrd" "$console" "$log" "$parameters" || status=$?
    read -r passed failed < <(sed -n 's/^test result:.* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$log" | tail -n 1) || passed=0 failed=0
    if [[ $status -ne 0 ]]; then
        verdict=FAILED
        [[ $failed -gt 0 ]] || failed=1
    fi
    echo "$passed $failed" >"$vm_dir/$name.count"
    printf '%-20s %-6s %3d passed, %d failed, %d s\n' "$name" "$verdict" "$passed" "$failed" $((SECONDS - start))
    grep -a '^measured: ' "$log" || true
    ! grep -E 'BUG:|WARNING:|Oops' "$console" || echo "--- kernel $1 complains, see $console"
    if [[ $verdict = FAILED ]]; then
        echo "--- status $status; failing tests, and the end of $log:"
        grep -E '^test .*FAILED$' "$log" || true
        tail -n 60 "$log"
        echo "--- the end of the kernel's console, $console:"
        tail -n 20 "$console"
        echo '---'
    fi
}
