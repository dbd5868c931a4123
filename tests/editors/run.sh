#!/usr/bin/env bash
# The editor tests: fetches Neovim (0.12, 0.11, 0.10) and Helix, checks the plugin's Lua, then drives the editors with the
# built server, with the scripted engine and with the real default model.
#
# usage: tests/editors/run.sh [OUT]       OUT: where screens, pictures and logs go (default target/editors)
#
# TAPER_BIN         the server; default target/release/taper, which is built if need be
# TAPER_TOOLS       where fetched tools are kept; default .ci/tools
# TAPER_TEST_MODEL  the model's file; without it the default model, which taper fetches
# TAPER_EDITORS     which editors: `vscode` drives VS Code beside the others, `only vscode` it alone (needs Node 20 and
#                   Chromium, fetches 820 MB once)
# CHROMIUM          the browser; default the `chromium` on the PATH
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(realpath -m "${1:-$root/target/editors}")
tools=$(realpath -m "${TAPER_TOOLS:-$root/.ci/tools}")
bin=${TAPER_BIN:-}
if [ -z "$bin" ]; then
  (cd "$root" && cargo build --release --workspace)
  bin=$root/target/release/taper
fi
rm -rf "$out"
mkdir -p "$out"

model=${TAPER_TEST_MODEL:-}
if [ -n "$model" ]; then
  model=$(realpath "$model")
else
  # Fetched here, so that no editor waits for it.
  model=$("$bin" pull qwen2.5-coder-0.5b)
fi

status=0
if [[ " ${TAPER_EDITORS:-} " != *" only "* ]]; then
  "$here/get_editors.sh" "$tools/editors"
  "$tools/editors/bin/luacheck" --no-color -q --config "$root/editors/neovim/.luacheckrc" "$root/editors/neovim"
  PYTHONPATH=$tools/editors/python python3 "$here/drive.py" --taper "$bin" --tools "$tools/editors" --out "$out" --model "$model" || status=1
fi

if [[ " ${TAPER_EDITORS:-} " == *" vscode "* ]]; then
  (cd "$root/editors/vscode" && npm ci && npm run lint && npm run package)
  "$here/get_vscode.sh" "$tools/vscode"
  CHROMIUM=$(command -v "${CHROMIUM:-chromium}") node "$here/vscode.mjs" --code "$tools/vscode" \
    --vsix "$root/editors/vscode/taper.vsix" --taper "$bin" --out "$out" --model "$model" || status=1
fi
exit $status
