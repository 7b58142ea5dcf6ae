# shellcheck shell=bash
# Debian packages without installing them, kernels, and the virtual machines that boot them. Sourced
# by run.sh.

cache=${KPROBE_ATTACH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kprobe-attach}
vm_dir=target/vm            # logs
vm_tests=$vm_dir/tests-bin  # link to the static test binary; of a foreign ARCH -ARCH is behind it
vm_timeout=${KPROBE_ATTACH_TIMEOUT:-2700}
cpu0_hotplug=cpu0_hotplug   # CPU 0 can go offline (x86 before 6.5, on an Intel)
machine_options=()          # more for QEMU
vm_modules='dummy nlmon'    # for tests that load a module: small, without dependencies
vm_programs=(strace bpftool) # of the host, for tests that run them

# Scratch space, on the file system of the cache: only what is complete is moved into it.
make_scratch() {
    [[ -z ${scratch:-} ]] || return 0
    mkdir -p "$cache"
    scratch=$(mktemp -d "$cache/tmp.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
}

# locked COMMAND...: changes the cache; of two runs at once the second waits, and finds the work
# done.
locked() {
    local lock
    exec {lock}>"$cache/lock"
    flock "$lock"
    "$@"
    exec {lock}>&-
}

# --- packages (the lists are only needed to fill the cache, and are large: scratch) ---

# A mirror is not always whole: it may lack the index of a suite, or a file that the index names.
# So a package is asked of one suite after the other.
holes=target/holes                   # what is not of the suite asked first, or is missing
releases=(trixie bookworm forky sid) # to ask in this order for what may be of any

# suites_of SUITE: it, and those that may hold the same packages.
suites_of() {
    case $1 in
        *-backports) echo "$1 forky sid experimental" ;;
        forky) echo "$1 sid trixie-backports experimental" ;;
        *) echo "$1 $1-security $1-updates $1-proposed-updates" ;;
    esac
}

# hole TEXT: a line to be seen now, and at the end of a whole run.
hole() {
    note "$*"
    mkdir -p "${holes%/*}"
    echo "$*" >>"$holes"
}

# mirror [LABEL]: the mirror of Debian, or of Debian-Security, that this machine itself uses, as its
# package lists tell.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' |
        sed -n "s/ Debian ${1:-Debian}$//p" | sort -u | sed -n 1p
}

# apt_private SUITE ARCH KEYRING: an apt of its own for one suite and architecture, lists up to
# date, in $scratch/apt/SUITE-ARCH. Of the machine's configuration it takes the mirror and how to
# reach it (proxies), nothing else.
apt_private() {
    local suite=$1 arch=$2 keyring=$3 dir=$scratch/apt/$1-$2 label=Debian uri
    [[ $suite != *-security ]] || label=Debian-Security
    uri=$(mirror "$label")
    if [[ -z $uri && $EUID -eq 0 && -z $(mirror) ]]; then # the lists are often deleted from images
        apt-get update -qq >&2 || true
        uri=$(mirror "$label")
    fi
    if [[ -z $uri ]]; then
        echo "E: this machine's package lists name no mirror of $label (apt-get update)" \
            >"$dir/update.log"
        return 1
    fi
    mkdir -p "$dir"/lists/partial "$dir"/archives/partial
    : >"$dir/status"
    echo "deb [arch=$arch signed-by=$keyring] $uri $suite main" >"$dir/sources.list"
    {
        apt-config dump | grep '^Acquire::' |
            grep -vE '^Acquire::(IndexTargets|Changelogs|Languages)'
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
    APT_CONFIG=$dir/apt.conf apt-get update -qq >"$dir/update.log" 2>&1
}

# read_suite SUITE ARCH: the same, with the keyring that verifies the suite: the machine's, or a
# newer one.
read_suite() {
    local own=/usr/share/keyrings/debian-archive-keyring.gpg newer
    newer=$cache/keyring/${own##*/}
    [[ -e $own ]] || die "no $own: install debian-archive-keyring"
    apt_private "$1" "$2" "$own" && return
    if [[ ! -e $newer ]]; then
        grep -qE 'NO_PUBKEY|Missing key' "$scratch/apt/$1-$2/update.log" || return
        fetch_keyring "$newer" || return
    fi
    apt_private "$1" "$2" "$newer"
}

# fetch_keyring FILE: a keyring newer than the machine's, from the machine's own suite or another
# that the machine's own keys verify.
fetch_keyring() {
    local dir suites
    [[ -z ${keyring_asked:-} ]] || return # a suite that itself takes a newer one is no help
    local keyring_asked=1
    note "fetching a newer Debian keyring"
    dir=$(mktemp -d -p "$scratch")
    read -ra suites < <(. /etc/os-release && suites_of "$VERSION_CODENAME")
    fetch_package "$(dpkg --print-architecture)" debian-archive-keyring "$dir" \
        "${suites[@]}" "${releases[@]}" -- './usr/share/keyrings/*' || return
    mkdir -p "${1%/*}"
    cp -L "$dir/usr/share/keyrings/${1##*/}" "$1"
}

# apt_suite SUITE ARCH: prints the configuration of an apt that has read the suite; fails if it
# cannot be read, which is tried once.
apt_suite() {
    local dir=$scratch/apt/$1-$2
    mkdir -p "$dir"
    if [[ ! -e $dir/verdict ]]; then
        if read_suite "$1" "$2"; then
            echo read >"$dir/verdict"
        else
            note "cannot read $1 for $2: $(grep -m 1 '^E: ' "$dir/update.log")"
            # With a newer keyring it may yet be read.
            [[ -n ${keyring_asked:-} ]] || echo unread >"$dir/verdict"
        fi
    fi
    [[ $(cat "$dir/verdict" 2>/dev/null) = read ]] && echo "$dir/apt.conf"
}

# matching PATTERN: of the lines, those that match.
matching() {
    local line
    # shellcheck disable=SC2053 # a pattern it is
    while read -r line; do [[ $line != $1 ]] || echo "$line"; done
}

# candidates CONF PATTERN: the packages that match, each NAME=VERSION, the newest first.
candidates() {
    APT_CONFIG=$1 apt-cache pkgnames "${2%%[*?[=]*}" | matching "${2%%=*}" |
        APT_CONFIG=$1 xargs -r apt-cache madison | awk '{ print $1 "=" $3 }' | matching "$2" |
        sort -t = -k 1,1Vr -k 2,2Vr
}

# download CONF PACKAGE: prints where its file is now.
download() {
    local dir
    dir=$(mktemp -d -p "$scratch")
    if (cd "$dir" && APT_CONFIG=$1 apt-get download -qq "$2" >log 2>&1); then
        echo "$dir"/*.deb
    else
        note "cannot fetch $2: $(grep -m 1 '^E: ' "$dir/log")"
        return 1
    fi
}

# fetch_package ARCH PATTERN DIR SUITE... -- [MEMBER...]: the files of a package that match MEMBER,
# or all, into DIR. PATTERN is that of a name, or of NAME=VERSION. Of the first suite the newest is
# taken that can be had, and if there is none, of the next suite; none at all is a failure. Sets
# fetched to NAME=VERSION, and fetched_suite.
fetch_package() {
    local arch=$1 name=$2 dir=$3 pattern=$2 suites=() suite conf package deb missed=
    shift 3
    while [[ $1 != -- ]]; do
        suites+=("$1")
        shift
    done
    shift
    [[ $pattern = *=* ]] || pattern+='=*'
    for suite in "${suites[@]}"; do
        if conf=$(apt_suite "$suite" "$arch"); then
            for package in $(candidates "$conf" "$pattern"); do
                if deb=$(download "$conf" "$package"); then
                    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir" --wildcards "$@" ||
                        die "cannot unpack $package"
                    rm -r "${deb%/*}"
                    fetched=$package fetched_suite=$suite
                    [[ -z $missed ]] ||
                        hole "$name:$arch is $package of $suite, for want of $missed"
                    return
                fi
                missed=${missed:-$package of $suite}
            done
        fi
        missed=${missed:-that of $suite}
    done
    hole "$name:$arch is not to be had from ${suites[*]}"
    return 1
}

# --- kernels ---

# kernel_row KERNEL: its row of kernels.txt in kernel, arch, suite, package, modes; and what follows
# from it.
kernel_row() {
    read -r kernel arch suite package modes < <(awk -v name="$1" '$1 == name' ci/kernels.txt) ||
        die "ci/kernels.txt has no kernel $1"
    kernel_dir=$cache/kernels/${suite}_${package//\*/_}
    busybox=$cache/busybox-$arch
}

# Fills kernel_dir: vmlinuz, *.ko, name. Fetched once; remove the directory to get a newer point
# release.
fetch_kernel() {
    local suites name modules conf dir file module
    [[ ! -e $kernel_dir ]] || return 0
    note "fetching $package of $suite"
    dir=$(mktemp -d -p "$scratch")
    mkdir "$dir/files" "$dir/entry"
    # Of another suite it is the same kernel, for the pattern has its version.
    read -ra suites <<<"$(suites_of "$suite")"
    fetch_package "$arch" "$package" "$dir/files" "${suites[@]}" -- ||
        die "cannot fetch the kernel $kernel: see ci/kernels.txt"
    name=${fetched%%=*}
    # Debian keeps the image of an old release longer than its modules: those are optional.
    modules=${fetched/linux-binary-/linux-modules-}
    conf=$(apt_suite "$fetched_suite" "$arch")
    if [[ $modules != "$fetched" && -n $(candidates "$conf" "$modules") ]]; then
        fetch_package "$arch" "$modules" "$dir/files" "$fetched_suite" -- || true
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
    local dir
    [[ ! -e $busybox ]] || return 0
    dir=$(mktemp -d -p "$scratch")
    fetch_package "$arch" busybox-static "$dir" "${releases[@]}" -- '*/bin/busybox' ||
        die "cannot fetch busybox-static"
    mv "$(find "$dir" -path '*/bin/busybox')" "$busybox"
}

# strace of an architecture that is not the host's, with its libraries, all of one suite: those of
# another may be too old for it.
fetch_strace() {
    local suite dir library root=$cache/strace-$arch
    [[ ! -e $root ]] || return 0
    for suite in "${releases[@]}"; do
        dir=$(mktemp -d -p "$scratch")
        ! fetch_strace_of "$suite" "$dir" || break
        dir=
    done
    [[ -n $dir ]] || die "cannot fetch strace and its libraries"
    [[ $suite = "${releases[0]}" ]] || hole "strace:$arch and its libraries are those of $suite"
    rm -rf "$dir"/usr/lib/*/gconv
    mkdir -p "$dir/root/bin"
    mv "$dir/usr/bin/strace" "$dir/root/bin/"
    # Before trixie some of it is in /lib; and the loader of some is in lib64.
    for library in {usr/,}lib{,64}; do
        [[ ! -e $dir/$library ]] || cp -a "$dir/$library" "$dir/root/"
    done
    mv "$dir/root" "$root"
}

# fetch_strace_of SUITE DIR: fails if the suite does not have it all.
fetch_strace_of() {
    local name
    fetch_package "$arch" strace "$2" "$1" -- '*/bin/strace' || return
    for name in libc6 libunwind8 liblzma5 libgcc-s1; do
        fetch_package "$arch" "$name" "$2" "$1" -- '*.so*' || return
    done
}

# --- machines ---

# program ARCH: where cargo leaves it, unless KPROBE_ATTACH_PROGRAM is to be tested.
program() {
    case ${KPROBE_ATTACH_PROGRAM:+given}$1 in
        given*) echo "$KPROBE_ATTACH_PROGRAM" ;;
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

# copy_libraries PROGRAM ROOT: those that it is linked with, if it is.
copy_libraries() {
    local lib
    { ldd "$1" 2>/dev/null || true; } | sed -n 's,^[^/]*\(/[^ ]*\).*,\1,p' | while read -r lib; do
        mkdir -p "$2${lib%/*}"
        cp -L "$lib" "$2$lib"
    done
}

# initramfs OUTPUT [JOB]: JOB is a shell script to run in place of the tests. What is not built yet
# is left out.
initramfs() {
    local output=$1 job=${2:-} root program brief
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
        for program in "${vm_programs[@]}"; do
            program=$(PATH=$PATH:/usr/sbin command -v "$program")
            cp "$program" "$root/bin/"
            copy_libraries "$program" "$root"
        done
        if [[ -e $vm_tests ]]; then
            cp -L "$vm_tests" "$root/tests/vm"
            copy_libraries "$vm_tests" "$root"
        fi
        if [[ -e $examples ]]; then
            cp -r "$examples" "$root/examples"
            for program in "$examples"/*; do copy_libraries "$program" "$root"; done
        fi
    elif [[ -z $job ]]; then
        cp -L "$vm_tests-$arch" "$root/tests/vm"
        cp -a "$cache/strace-$arch/." "$root/"
    fi
    {
        echo "export KPROBE_ATTACH_KERNEL='$kernel' KPROBE_ATTACH_MODES='$modes'"
        echo "export KPROBE_ATTACH_BIN=/bin/kprobe-attach RUST_BACKTRACE=1"
        [[ " ${KPROBE_ATTACH_BRIEF:-} " != *" $kernel "* ]] || brief=$slow_tests
        echo "export KPROBE_ATTACH_FILTER='${KPROBE_ATTACH_FILTER:-} ${brief:-}'"
        echo "export KPROBE_ATTACH_SOAK='${KPROBE_ATTACH_SOAK:-}'"
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

# machine INITRD CONSOLE_LOG OUTPUT VERDICT PARAMETERS: runs it; OUTPUT and VERDICT are chardevs of
# QEMU's, PARAMETERS more for the kernel, machine_options more for QEMU. Returns QEMU's status.
machine() {
    local initrd=$1 console=$2 output=$3 verdict=$4 machine
    local ports=(-serial "file:$console" -device pci-serial-2x,chardev1=output,chardev2=verdict)
    # thread=single: with a thread a CPU, code that one CPU patches (kprobes, jump labels) may run
    # stale on another (QEMU before 8.1), and the kernel dies of an int3 that it no longer knows. It
    # boots faster, too. -cx16: with it the emulated kmalloc double-faults now and then.
    # no_timer_check: a loaded emulated timer misses its deadline. pti=off and kpti=off:
    # with page tables of its own for the kernel, a system call takes ten times as long, because
    # the emulated CPU forgets all translations when they are exchanged. mitigations=off: without
    # the others, a process starts and ends in half the time.
    case $arch in
        amd64)
            machine=(x86_64 -cpu 'max,-cx16,vendor=GenuineIntel' -smp 2
                -append 'console=ttyS0 no_timer_check pti=off')
            ;;
        arm64)
            machine=(aarch64 -M virt -cpu cortex-a57 -smp 2 -append 'console=ttyAMA0 kpti=off')
            ;;
        riscv64) machine=(riscv64 -M virt -smp 2 -append 'console=ttyS0') ;;
        armhf) machine=(arm -M virt -cpu cortex-a15 -append 'console=ttyAMA0') ;;
        i386)
            machine=(i386 -cpu 'max,vendor=GenuineIntel' -smp 2
                -append 'console=ttyS0 no_timer_check pti=off')
            ;;
        ppc64el)
            machine=(ppc64 -cpu power9
                -M pseries,cap-ccf-assist=off,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken
                -append 'console=hvc0')
            ;;
        s390x)
            machine=(s390x -append 'console=ttysclp0')
            ports=(-serial chardev:output) # there is no other: see boot
            ;;
    esac
    machine[-1]+=" quiet panic=-1 oops=panic mitigations=off $5"
    timeout --foreground "$vm_timeout" "qemu-system-${machine[0]}" "${machine[@]:1}" \
        -accel tcg,thread=single -m 1024 -nodefaults -display none -no-reboot \
        -kernel "$kernel_dir/vmlinuz" -initrd "$initrd" \
        -chardev "$output,id=output" -chardev "$verdict,id=verdict" \
        "${ports[@]}" "${machine_options[@]}" </dev/null
}

# boot INITRD CONSOLE_LOG OUTPUT [PARAMETERS]: runs the machine; OUTPUT is a file or - for stdout.
# Returns the status that the guest's init handed over.
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

# Fetches what the kernels $fetched_ahead take, while something else keeps the processors busy. One
# that cannot be had does not keep the others from coming.
prefetch() {
    local name
    make_scratch
    for name in $fetched_ahead; do
        prefetch_kernel "$name" & # a shell of its own: `set -e` would be off inside a condition
        wait "$!" || true
    done
}

prefetch_kernel() {
    kernel_row "$1"
    locked fetch_kernel
    locked fetch_busybox
    [[ $arch = amd64 ]] || locked fetch_strace
}

# vm_prepare KERNEL: all that boot needs.
vm_prepare() {
    make_scratch
    kernel_row "$1"
    case $arch in
        amd64) need qemu-system-x86 cpio strace bpftool xz-utils ;;
        riscv64 | s390x) need qemu-system-misc cpio xz-utils ;;
        arm64 | armhf) need qemu-system-arm cpio xz-utils ;;
        i386) need qemu-system-x86 cpio xz-utils ;;
        ppc64el) need qemu-system-ppc cpio xz-utils ;;
    esac
    locked fetch_kernel
    locked fetch_busybox
    mkdir -p "$vm_dir"
}

# vm_prepare_tests KERNEL: all that vm_test needs, but what cargo builds.
vm_prepare_tests() {
    vm_prepare "$1"
    [[ $arch = amd64 ]] || locked fetch_strace
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

# The boots that the tests take, as far as the filter leaves some: `ordinary`, and the LEVEL of each
# module lockdown_LEVEL.
vm_boots() {
    # shellcheck disable=SC2086 # the filter may be several words, or none
    KPROBE_ATTACH_KERNEL='' "$vm_tests" --list ${KPROBE_ATTACH_FILTER:-} |
        sed -nE 's/.*\<lockdown_([a-z]+)::.*: test$/\1/p; t; s/.*: test$/ordinary/p' | sort -u
}

# boot_name KERNEL BOOT: what the files of a boot are called.
boot_name() {
    case $2 in
        ordinary) echo "$1" ;;
        *) echo "$1-$2" ;;
    esac
}

# vm_test KERNEL BOOT: runs the tests of that boot in the machine; prints the verdict line, and on
# failure what is needed to see why. Leaves the numbers in NAME.count; a machine that fails counts
# at least one failure.
vm_test() {
    local name log console parameters=$cpu0_hotplug start=$SECONDS status=0 passed failed verdict=ok
    name=$(boot_name "$@") log=$vm_dir/$name.log console=$vm_dir/$name.console
    [[ $2 = ordinary ]] || parameters+=" lockdown=$2"
    vm_prepare "$1"
    initramfs "$scratch/$name.initrd"
    boot "$scratch/$name.initrd" "$console" "$log" "$parameters" || status=$?
    read -r passed failed < <(
        sed -nE 's/^test result:.* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log" | tail -n 1
    ) || passed=0 failed=0
    if [[ $status -ne 0 ]]; then
        verdict=FAILED
        [[ $failed -gt 0 ]] || failed=1
    fi
    echo "$passed $failed" >"$scratch/$name.count"
    printf '%-20s %-6s %3d passed, %d failed, %d s\n' \
        "$name" "$verdict" "$passed" "$failed" $((SECONDS - start))
    grep -a '^measured: ' "$log" || true
    ! grep -E 'BUG:|WARNING:|Oops' "$console" || echo "--- kernel $1 complains, see $console"
    if [[ $verdict = FAILED ]]; then
        echo "--- status $status; failing tests, and the end of $log:"
        grep -E '^test .*FAILED' "$log" || true
        tail -n 60 "$log"
        echo "--- the end of the kernel's console, $console:"
        tail -n 20 "$console"
        echo '---'
    fi
}
