#!/bin/sh
# Says what is missing to build the daemon itself (Rust and a C compiler for SQLite), and how to get it.
set -eu

missing=0
say() { printf '%s\n' "$*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
    say "cargo is missing: install Rust 1.95 or newer (https://rustup.rs)"
    missing=1
fi
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
    say "a C compiler is missing (${CC:-cc}): on Debian and Ubuntu: apt-get install gcc libc6-dev; on Fedora: dnf install gcc"
    missing=1
fi
exit $missing
