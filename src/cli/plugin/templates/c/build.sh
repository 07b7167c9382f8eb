#!/bin/sh
# Builds {{name}}.wasm. Needs clang and lld (apt-get install clang lld), and no C library.
set -eu
cd "$(dirname "$0")"
clang --target=wasm32-unknown-unknown -std=c11 -Os -ffreestanding -fno-builtin -nostdlib -Wall -Wextra {{define}} \
    -Iruntime -Iruntime/include -Ibindings -Wl,--no-entry -Wl,-z,stack-size=131072 \
    plugin.c runtime/plugin.c bindings/weir.c bindings/weir_component_type.o -o {{name}}.wasm
ls -l {{name}}.wasm
