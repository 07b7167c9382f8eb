#!/bin/sh
# Builds the example plugins and the test guests of all four languages to examples/plugins/target/*.wasm.
# Only what is older than its sources. Arguments name languages (python js c rust); none means all.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
examples=$root/examples/plugins
guests=$root/tests/guests
out=$examples/target
wit=$root/wit/plugin.wit
mkdir -p "$out"

say() { printf '%s\n' "$*" >&2; }
run() { say "+ $*"; "$@" >&2; }

# fresh OUT SOURCE...: OUT is there and newer than every source, folders with all that is in them.
fresh() {
    made=$1
    shift
    [ -e "$made" ] && [ -z "$(find "$@" "$wit" -newer "$made" -type f | head -n 1)" ]
}

# python WORLD FILE OUT: built from a copy, since Python leaves compiled modules beside the sources.
python() {
    fresh "$out/$3" "$2" "$examples/python/weir_plugin.py" && return
    mkdir -p "$out/python"
    cp "$examples/python/weir_plugin.py" "$2" "$out/python/"
    # Only what its own environment has is built in, whatever Python there is besides.
    run env "VIRTUAL_ENV=$out/tools/python" "PATH=$out/tools/python/bin:$PATH" \
        "$out/tools/python/bin/componentize-py" -q -d "$root/wit" -w "$1" \
        componentize -p "$out/python" "$(basename "$2" .py)" -o "$out/$3"
}

# js WORLD FILE OUT: all modules are taken from one folder, so a copy of it is made.
js() {
    fresh "$out/$3" "$2" "$examples/js/weir_plugin.js" && return
    mkdir -p "$out/js"
    cp "$examples/js/weir_plugin.js" "$2" "$out/js/"
    run node "$out/tools/js/node_modules/componentize-qjs/bin/componentize-qjs" --sync -w "$wit" -n "$1" \
        -j "$out/js/$(basename "$2")" -o "$out/$3"
}

# c WORLD FILE OUT
c() {
    fresh "$out/$3" "$2" "$examples/c" && return
    define=''
    if [ "$1" = alert-handler ]; then define=-DWEIR_ALERT_HANDLER; fi
    # shellcheck disable=SC2086 # none or one word
    run clang --target=wasm32-unknown-unknown -std=c11 -Os -ffreestanding -fno-builtin -nostdlib \
        -Wall -Wextra -Werror $define -I"$examples/c/runtime" -I"$examples/c/runtime/include" \
        -I"$examples/c/bindings/$1" -Wl,--no-entry -Wl,-z,stack-size=131072 \
        "$2" "$examples/c/runtime/plugin.c" "$examples/c/bindings/$1/weir.c" \
        "$examples/c/bindings/$1/weir_component_type.o" -o "$out/$3"
}

# rust FOLDER: a workspace or a crate of its own.
rust() {
    (
        cd "$1"
        # What is meant for the daemon must not reach the guests.
        unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS || true
        export CARGO_TARGET_DIR="$out/rust"
        set -- build --release --locked --target wasm32-unknown-unknown
        if [ "$("$here/wasm-toolchain.sh")" = rustup ]; then
            run cargo "$@"
        else
            unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER || true
            linker=$("$here/wasm-linker.sh")
            export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
            run /usr/bin/cargo "$@" -Zbuild-std=std,panic_abort
        fi
    )
}

for language in ${*:-python js c rust}; do
    "$here/guest-tools.sh" "$language"
    case $language in
        python)
            python alert-handler "$examples/python/gotify.py" python-gotify.wasm
            python job-source "$examples/python/json_jobs.py" python-json-jobs.wasm
            python job-source "$guests/python/unruly.py" python-unruly.wasm
            python job-source "$guests/python/mute.py" python-mute.wasm
            ;;
        js)
            js alert-handler "$examples/js/teams.js" js-teams.wasm
            js job-source "$examples/js/github_actions.js" js-github-actions.wasm
            js job-source "$guests/js/unruly.js" js-unruly.wasm
            js job-source "$guests/js/mute.js" js-mute.wasm
            ;;
        c)
            c alert-handler "$examples/c/ntfy.c" c-ntfy.wasm
            c job-source "$examples/c/csv.c" c-csv.wasm
            c job-source "$guests/c/unruly.c" c-unruly.wasm
            ;;
        rust)
            rust "$examples/rust"
            rust "$guests/rust"
            for name in matrix slurm unruly; do
                cp -p "$out/rust/wasm32-unknown-unknown/release/$name.wasm" "$out/rust-$name.wasm"
            done
            ;;
    esac
done
