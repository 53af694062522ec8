#!/usr/bin/env bash
# Compiles the programs that travel in single-file artifacts: build.sh [folder], by default into this one, from where
# they are committed and embedded. `make generate` runs it; a test runs it again and compares.
#
# The same bytes come out only of the same compiler, so it takes no other: GCC 12.2.0 as Debian 12 has it (packages
# gcc-12 and gcc-12-aarch64-linux-gnu, which bring their binutils). Exit status 3: that compiler is not here.
set -euo pipefail
export LC_ALL=C
want=12.2.0
out=$(cd "${1:-$(dirname "$0")}" && pwd)
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

compiler() {
  local have
  have=$("$1-gcc-12" -dumpfullversion 2>/dev/null) || have="no $1-gcc-12"
  [ "$have" = "$want" ] || {
    echo "build.sh: want GCC $want of Debian 12 (apt-get install $2), have $have" >&2
    exit 3
  }
}

# stub triple arch flags...: the UEFI program, position-independent, without the registers that firmware may not save.
stub() {
  local triple=$1 arch=$2
  shift 2
  "$triple-gcc-12" -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-builtin -fshort-wchar -fpie -static \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -ffunction-sections \
    -nostdlib -Wl,--no-dynamic-linker,--build-id=none,-T,flat.ld "$@" stub.c -o "$tmp/$arch.elf"
  "$triple-objcopy" -O binary -j .text "$tmp/$arch.elf" "$tmp/stub-$arch.bin"
}

compiler x86_64-linux-gnu gcc-12
compiler aarch64-linux-gnu gcc-12-aarch64-linux-gnu
stub x86_64-linux-gnu x86_64 -march=x86-64 -mtune=generic -mno-red-zone -mno-sse -fcf-protection=none
stub aarch64-linux-gnu arm64 -march=armv8-a -mtune=generic -mgeneral-regs-only -mstrict-align -mbranch-protection=none
x86_64-linux-gnu-as --32 -o "$tmp/nbp.o" nbp.s
x86_64-linux-gnu-ld -m elf_i386 -Ttext 0x7c00 -o "$tmp/nbp.elf" "$tmp/nbp.o"
x86_64-linux-gnu-objcopy -O binary -j .text "$tmp/nbp.elf" "$tmp/nbp.bin"
install -m 644 "$tmp"/*.bin "$out/"
