#!/bin/sh
# Builds {{name}}.wasm. Its tool goes to .tools, nothing else of your system is touched.
set -eu
cd "$(dirname "$0")"
if [ ! -d .tools/node_modules/componentize-qjs ]; then
    echo "+ npm install --prefix .tools componentize-qjs@0.4.5" >&2
    mkdir -p .tools
    npm install --prefix .tools --no-audit --no-fund --loglevel=error componentize-qjs@0.4.5
fi
node .tools/node_modules/componentize-qjs/bin/componentize-qjs --sync -w wit/plugin.wit -n {{world}} \
    -j plugin.js -o {{name}}.wasm
ls -l {{name}}.wasm
