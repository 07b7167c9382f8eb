#!/bin/sh
# Builds the bundled plugins to core modules: plugins/target/wasm32-unknown-unknown/release/*.wasm.
# Quick when nothing changed. Arguments go to cargo.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
way=$("$here/wasm-toolchain.sh")
cd "$here/../plugins"

# A RUSTFLAGS meant for the daemon must not reach the guests, and the result must stand where build.rs looks for it.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS || true
export CARGO_TARGET_DIR="$PWD/target"

set -- build --release --locked --target wasm32-unknown-unknown "$@"
case $way in
    rustup)
        echo "+ cargo $*" >&2
        exec cargo "$@"
        ;;
    debian)
        linker=$("$here/wasm-linker.sh")
        set -- "$@" -Zbuild-std=std,panic_abort
        echo "+ RUSTC=/usr/bin/rustc /usr/bin/cargo $*" >&2
        # RUSTC_BOOTSTRAP: building the standard library is behind a nightly flag.
        unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER || true
        export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
        exec /usr/bin/cargo "$@"
        ;;
esac
