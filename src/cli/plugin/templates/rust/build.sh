#!/bin/sh
# Builds {{name}}.wasm: a core module that holds its contract. weir makes the component of it by itself.
set -eu
cd "$(dirname "$0")"
if ! ls "$(rustc --print target-libdir --target wasm32-unknown-unknown)"/libcore-*.rlib >/dev/null 2>&1; then
    echo "+ rustup target add wasm32-unknown-unknown" >&2
    rustup target add wasm32-unknown-unknown
fi
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
export CARGO_TARGET_DIR
cargo build --release --target wasm32-unknown-unknown
cp "$CARGO_TARGET_DIR"/wasm32-unknown-unknown/release/plugin.wasm {{name}}.wasm
ls -l {{name}}.wasm
