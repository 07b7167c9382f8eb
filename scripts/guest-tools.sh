#!/bin/sh
# Makes sure that guests can be built here in one language (python, js, c or rust), pinned and without touching the system
# where that is possible: Python's and JavaScript's tools go to examples/plugins/target/tools.
#
# Every command that changes the machine is printed before it runs. Where this may not install, the commands are printed
# and the script exits 1.
set -eu

language=${1:?usage: guest-tools.sh python|js|c|rust}
here=$(cd "$(dirname "$0")" && pwd)
tools=$here/../examples/plugins/target/tools
componentize_py=0.25.1
componentize_qjs=0.4.5

say() { printf '%s\n' "$*" >&2; }
run() { say "+ $*"; "$@" >&2; }

# Installs Debian's packages, or says how.
packages() {
    if ! command -v apt-get >/dev/null 2>&1; then
        say "guests in $language need what Debian calls: $*"
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "guests in $language need these packages, and installing them needs root. Run, then try again:"
        say "    sudo apt-get update"
        say "    sudo apt-get install -y --no-install-recommends $*"
        exit 1
    fi
    run env DEBIAN_FRONTEND=noninteractive apt-get update -q || say "apt-get update failed; trying with what is known"
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

case $language in
    python)
        wanted="componentize-py $componentize_py"
        if [ "$("$tools/python/bin/componentize-py" --version 2>/dev/null)" = "$wanted" ]; then exit 0; fi
        if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then packages python3 python3-venv; fi
        mkdir -p "$tools"
        run python3 -m venv "$tools/python"
        run "$tools/python/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$componentize_py"
        ;;
    js)
        found=$(node -p "require('$tools/js/node_modules/componentize-qjs/package.json').version" 2>/dev/null || true)
        if [ "$found" = "$componentize_qjs" ]; then exit 0; fi
        if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then packages nodejs npm; fi
        if ! node -e 'process.exit(process.versions.node.split(".")[0] >= 18 ? 0 : 1)'; then
            say "Node.js 18 or newer is needed, found $(node --version)"
            exit 1
        fi
        mkdir -p "$tools/js"
        run npm install --prefix "$tools/js" --no-audit --no-fund --loglevel=error "componentize-qjs@$componentize_qjs"
        ;;
    c)
        # Only LLVM's own tools: no C library, no WASI.
        if command -v clang >/dev/null 2>&1 && command -v wasm-ld >/dev/null 2>&1; then exit 0; fi
        packages clang lld
        ;;
    rust)
        "$here/wasm-toolchain.sh" >/dev/null
        ;;
    *)
        say "no such language: $language"
        exit 1
        ;;
esac
