#!/usr/bin/env bash
# Compiles the objects of the tests anew, with Debian's clang and the headers of its libbpf-dev: by
# the clang of Debian 12, and by a newer one; and one of them for a big endian machine too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# object CLANG TARGET SOURCE OBJECT [FLAGS...]
object() {
    local clang=$1 target=$2 source=$3 object=$4
    shift 4
    "$clang" -O2 -Wall --target="$target" -mcpu=v2 -D__TARGET_ARCH_x86 \
        -I/usr/include/x86_64-linux-gnu -fdebug-prefix-map="$PWD"=. -fdebug-compilation-dir=. \
        "$@" -c "$source" -o "$object"
    # What a loader does not read.
    llvm-strip -g "$object"
}

for name in calls cookies core count kinds macros moved; do
    object clang-14 bpfel "$name.c" "$name.o" -g
    object clang-19 bpfel "$name.c" "$name-19.o" -g
done
# Those that are refused.
for name in values sizeless; do
    object clang-19 bpfel "$name.c" "$name.o" -g
done
object clang-19 bpfel many.c many.o -g
object clang-14 bpfel old.c old.o
object clang-14 bpfeb old.c old-big-endian.o

# That of the guide, by the command of the guide.
"clang-19" -O2 -g --target=bpf -I/usr/include/x86_64-linux-gnu -c unlinks.bpf.c -o unlinks.o

# The seeds of the fuzz target, without what only a linker reads.
for name in count core calls old; do
    llvm-objcopy -R .rel.BTF -R .rel.BTF.ext -R .llvm_addrsig "$name.o" \
        "../../fuzz/corpus/object/$name"
done
