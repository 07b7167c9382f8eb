#!/bin/sh
# Prints a linker that makes WebAssembly: rust-lld of any Rust here, else LLVM's. Exits 1 if there is none.
set -eu

for rustc in rustc /usr/bin/rustc; do
    sysroot=$($rustc --print sysroot 2>/dev/null) || continue
    for lld in "$sysroot"/lib/rustlib/*/bin/rust-lld; do
        if [ -x "$lld" ]; then echo "$lld"; exit 0; fi
    done
done
for lld in rust-lld wasm-ld; do
    if command -v $lld 2>/dev/null; then exit 0; fi
done
for lld in /usr/lib/llvm-*/bin/wasm-ld /usr/bin/wasm-ld-*; do
    if [ -x "$lld" ]; then echo "$lld"; exit 0; fi
done
exit 1
