#!/bin/sh
# Makes sure that Rust can be compiled to WebAssembly here; prints on stdout which way works: "rustup" or "debian".
#
# Every command that changes the machine is printed before it runs. Where this may not install, the commands are
# printed and the script exits 1. WEIR_WASM_TOOLCHAIN=rustup|debian forces one way.
set -eu

target=wasm32-unknown-unknown
forced=${WEIR_WASM_TOOLCHAIN:-}
debian_packages="rustc-web cargo-web rust-web-src"

say() { printf '%s\n' "$*" >&2; }
run() { say "+ $*"; "$@" >&2; }

case $forced in
    '' | rustup | debian) ;;
    *) say "WEIR_WASM_TOOLCHAIN is '$forced'; it may be 'rustup' or 'debian'"; exit 1 ;;
esac

# The compiler on the PATH has the standard library of the target: nothing to do.
has_target() {
    libdir=$(rustc --print target-libdir --target $target 2>/dev/null) || return 1
    ls "$libdir"/libcore-*.rlib >/dev/null 2>&1
}

# Debian's compiler, its sources of the standard library, and a linker.
has_debian() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] \
        && [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ] \
        && "$(dirname "$0")/wasm-linker.sh" >/dev/null
}

missing_debian() {
    packages=$debian_packages
    "$(dirname "$0")/wasm-linker.sh" >/dev/null || packages="$packages lld"
    printf '%s\n' "$packages"
}

if [ "$forced" != debian ]; then
    if has_target; then echo rustup; exit 0; fi
    if command -v rustup >/dev/null 2>&1; then
        say "the Rust compiler here lacks the target $target; trying to add it"
        limit=''
        if command -v timeout >/dev/null 2>&1; then limit='timeout 180'; fi
        # shellcheck disable=SC2086 # two words on purpose
        if run $limit rustup target add $target && has_target; then echo rustup; exit 0; fi
        say "rustup cannot add it here"
    fi
    if [ "$forced" = rustup ]; then
        say "run: rustup target add $target"
        exit 1
    fi
fi

if has_debian; then echo debian; exit 0; fi

if ! command -v apt-get >/dev/null 2>&1; then
    say "This machine has neither the Rust target $target nor apt-get. Either of these helps:"
    say "    rustup target add $target"
    say "    the packages of your system that bring Rust's standard library for $target"
    exit 1
fi
packages=$(missing_debian)
if [ "$(id -u)" != 0 ]; then
    say "Rust's standard library for WebAssembly is missing, and installing it needs root. Run, then try again:"
    say "    sudo apt-get update"
    say "    sudo apt-get install -y --no-install-recommends $packages"
    exit 1
fi
say "installing Debian's Rust for WebAssembly (about 700 MB on disk, once)"
run env DEBIAN_FRONTEND=noninteractive apt-get update -q || say "apt-get update failed; trying with what is known"
# shellcheck disable=SC2086 # a list of packages
if ! run env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; then
    say "apt-get cannot install them here; any Rust with the target $target will do"
    exit 1
fi
if has_debian; then echo debian; exit 0; fi
say "the packages are installed, but a compiler for $target is still missing"
exit 1
