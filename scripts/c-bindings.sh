#!/bin/sh
# Generates examples/plugins/c/bindings from wit/plugin.wit, after the contract changed. What it makes is committed, since
# the generator takes minutes to install.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
tool=$root/examples/plugins/target/tools/wit-bindgen
bindings=$root/examples/plugins/c/bindings
version=0.63.0

if [ "$("$tool/bin/wit-bindgen" --version 2>/dev/null | cut -d ' ' -f 2)" != "$version" ]; then
    echo "+ cargo install wit-bindgen-cli --version $version --locked --root $tool" >&2
    cargo install wit-bindgen-cli --version "$version" --locked --root "$tool"
fi
for world in alert-handler job-source; do
    mkdir -p "$bindings/$world"
    "$tool/bin/wit-bindgen" c --world "$world" --rename-world weir --out-dir "$bindings/$world" "$root/wit"
done
# Comments may change without the bindings being older for it.
grep -v '^[[:space:]]*//' "$root/wit/plugin.wit" | sha256sum | cut -d ' ' -f 1 > "$bindings/wit.sha256"
