#!/bin/sh
# Builds {{name}}.wasm. Its tool goes to .tools, nothing else of your system is touched.
set -eu
cd "$(dirname "$0")"
if [ ! -x .tools/bin/componentize-py ]; then
    echo "+ python3 -m venv .tools; .tools/bin/pip install componentize-py==0.25.1" >&2
    python3 -m venv .tools
    .tools/bin/pip install --quiet --disable-pip-version-check componentize-py==0.25.1
fi
# Only what .tools has is built in, whatever Python you have besides; and of a mistake only what it is, not where Rust met it.
VIRTUAL_ENV=$PWD/.tools PATH=$PWD/.tools/bin:$PATH RUST_BACKTRACE=0 \
    .tools/bin/componentize-py -q -d wit -w {{world}} componentize plugin -o {{name}}.wasm
ls -l {{name}}.wasm
