#!/usr/bin/env bash
# The editor tests: fetches Neovim (0.12, 0.11, 0.10), Helix and VS Code, checks the plugin's Lua and the extension's
# TypeScript, packages the extension, then drives the editors with the built server, with the scripted engine and with
# the real default model.
#
# usage: tests/editors/run.sh [OUT]       OUT: where screens, pictures and logs go (default target/editors)
#
# TAPER_BIN         the server, with the scripted engine; default target/release/taper, which is built if need be
# TAPER_TOOLS       where fetched tools are kept; default .ci/tools
# TAPER_TEST_MODEL  the model's file; without it the default model, which taper fetches
# TAPER_EDITORS     what is driven: `terminal` (Neovim and Helix), `vscode`; default both. VS Code needs Node 20 and
#                   Chromium, which comes through apt-get if there is none, and fetches 820 MB once
# TAPER_NVIM_CMP, TAPER_BLINK_CMP  checkouts of these plugins, for the checks beside their menus
# CHROMIUM          the browser; default the `chromium` on the PATH
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(realpath -m "${1:-$root/target/editors}")
tools=$(realpath -m "${TAPER_TOOLS:-$root/.ci/tools}")
bin=${TAPER_BIN:-}
if [ -z "$bin" ]; then
  # The features of the tests' build: nothing is built twice.
  (cd "$root" && cargo build --release --workspace --features taper-engine/scripted,taper-engine/test-support)
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

editors=" ${TAPER_EDITORS:-terminal vscode} "
case $editors in *" terminal "* | *" vscode "*) ;; *)
  echo "TAPER_EDITORS is \`terminal\`, \`vscode\` or both, not \`$TAPER_EDITORS\`" >&2
  exit 2
esac
status=0
if [[ $editors == *" terminal "* ]]; then
  "$here/get_editors.sh" "$tools/editors"
  "$tools/editors/bin/luacheck" --no-color -q --config "$root/editors/neovim/.luacheckrc" "$root/editors/neovim"
  PYTHONPATH=$tools/editors/python python3 "$here/drive.py" --taper "$bin" --tools "$tools/editors" --out "$out" --model "$model" || status=1
fi

if [[ $editors == *" vscode "* ]]; then
  (cd "$root/editors/vscode" && npm ci --no-audit --no-fund --loglevel=error && npm run lint && npm run package)
  "$here/get_vscode.sh" "$tools/vscode"
  CHROMIUM=$(command -v "${CHROMIUM:-chromium}") node "$here/vscode.mjs" --code "$tools/vscode" \
    --vsix "$root/editors/vscode/taper.vsix" --taper "$bin" --out "$out" --model "$model" || status=1
fi
exit $status
